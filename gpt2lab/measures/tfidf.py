"""Baselines without a language model: TF-IDF with logistic regression for classes, TF-IDF cosines for retrieval."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.extras import install

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TfidfOptions:
    """How texts become vectors. tf-idf of a word w in a text: (1 + log tf) · (1 + log((1 + n) / (1 + df))), length 1."""

    ngrams: int = 2
    """Longest sequence of words (or characters) that counts as a word."""
    shortest: int = 1
    """Shortest such sequence."""
    unit: Literal["words", "characters"] = "words"
    """What is counted: words, or characters, blanks among them and in small letters."""
    regularization: float = 1.0
    """Of the logistic regression: ½ |weights|² · this is added to the summed loss. Fixed, not chosen on the judged rows."""

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.ngrams or not self.regularization > 0:
            raise LabError(
                "tfidf: ngrams must be at least 1 and no less than shortest, and regularization positive"
            )
        if self.unit not in ("words", "characters"):
            raise unknown("unit of TF-IDF", self.unit, ("words", "characters"))


def class_probabilities(
    texts: Sequence[str],
    labels: npt.NDArray[np.integer],
    asked: Sequence[str],
    classes: int,
    options: TfidfOptions = TfidfOptions(),
) -> _Floats:
    """Return the probability of each class for each asked text, [asked, classes]; 0 for a class without a training text.

    labels [texts] class numbers. Logistic regression over all classes, without weights for rare ones. LabError for a text
    too few, one class only, texts without a word, and without scikit-learn.
    """
    have = np.unique(labels)
    if len(have) < 2:
        raise LabError(f"tfidf: the training rows have {len(have)} class; it takes two")
    vectorizer, known = _fitted(texts, options)
    model = _logistic(known, labels, options)
    found = np.zeros((len(asked), classes))
    found[:, model.classes_] = model.predict_proba(vectorizer.transform(asked))
    return found


def label_probabilities(
    texts: Sequence[str], labels: _Floats, asked: Sequence[str], options: TfidfOptions = TfidfOptions()
) -> _Floats:
    """Return the probability of each of several labels for each asked text, [asked, labels].

    labels [texts, labels] of 0 and 1, NaN where a row does not say. A logistic regression for each label; one that the
    training rows always or never have gets that share. LabError as `class_probabilities`.
    """
    vectorizer, known = _fitted(texts, options)
    rows = vectorizer.transform(asked)
    found = np.zeros((len(asked), labels.shape[1]))
    for place, column in enumerate(labels.T):
        said = ~np.isnan(column)
        if len(np.unique(column[said])) < 2:
            found[:, place] = column[said].mean() if said.any() else 0.0
        else:
            model = _logistic(known[said], column[said].astype(int), options)
            found[:, place] = model.predict_proba(rows)[:, 1]
    return found


def rank(
    documents: Mapping[str, str],
    queries: Sequence[str],
    *,
    depth: int,
    options: TfidfOptions = TfidfOptions(),
) -> list[list[str]]:
    """Return the `depth` documents with the highest cosine to each query, by name; equal ones in the documents' order.

    Words of the queries that no document has count for nothing. LabError for documents without a word, and without
    scikit-learn.
    """
    vectorizer, known = _fitted(list(documents.values()), options)
    names = list(documents)
    cosines = (vectorizer.transform(queries) @ known.T).toarray()
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :depth]
    return [[names[place] for place in row] for row in order.tolist()]


def _fitted(texts: Sequence[str], options: TfidfOptions) -> tuple[Any, Any]:
    """Return a vectorizer fitted on texts, and their vectors [texts, words], sparse."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise LabError(f"TF-IDF baselines need scikit-learn: {install('baselines')}") from None
    # Single letters and digits are words too: by default scikit-learn leaves them out.
    made = TfidfVectorizer(
        analyzer="word" if options.unit == "words" else "char",
        token_pattern=r"(?u)\b\w+\b" if options.unit == "words" else None,
        ngram_range=(options.shortest, options.ngrams),
        sublinear_tf=True,
    )
    try:
        return made, made.fit_transform(texts)
    except ValueError:  # scikit-learn: empty vocabulary
        what = "word" if options.unit == "words" else "such sequence of characters"
        raise LabError(f"tfidf: the texts have no {what}") from None


def _logistic(rows: Any, labels: npt.NDArray[np.integer], options: TfidfOptions) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / options.regularization, max_iter=2000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return model.fit(rows, labels)
        except ConvergenceWarning:
            raise LabError("tfidf: the logistic regression does not converge; raise regularization") from None
