"""What needs no language model: TF-IDF with logistic regression, of words and of characters, and the share of class 1."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import unknown
from gpt2lab.measures.tfidf import TfidfOptions, class_probabilities
from gpt2lab.papers.er_triage.notes import truth
from gpt2lab.text.labelled_documents import Document

TFIDF = {
    "tfidf": TfidfOptions(ngrams=2),
    "tfidf_characters": TfidfOptions(unit="characters", shortest=2, ngrams=4),
}
"""Word 1-2-grams and character 2-4-grams."""
MAJORITY = "majority"
BASELINES = (*TFIDF, MAJORITY)


def baseline_scores(name: str, notes: Sequence[Document], texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the probability of class 1 of each text from labelled notes, float64 [texts].

    name: tfidf, tfidf_characters, or majority (the share of class 1 among the notes, the same for every text). LabError for
    another name, notes of one class, and without scikit-learn.
    """
    known = truth(notes)
    if name == MAJORITY:
        return np.full(len(texts), known.mean())
    if name not in TFIDF:
        raise unknown("baseline", name, BASELINES)
    return class_probabilities([one.text for one in notes], known, texts, 2, TFIDF[name])[:, 1]
