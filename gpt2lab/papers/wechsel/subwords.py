"""A vector for each token of a vocabulary, from word vectors: by character n-grams, or by the words that hold the token."""

import itertools
from typing import Literal

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import progress
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.text.vector_files import SubwordVectors, Vectors

Mode = Literal["ngrams", "frequency"]
_Floats = npt.NDArray[np.float64]
_BATCH = 1024


def token_vectors(
    tokenizer: Tokenizer, vectors: Vectors, mode: Mode, *, max_words: int | None = None
) -> _Floats:
    """Return u, a vector for each id, [ids, dimensions]; zeros where there is none. LabError as the two modes say."""
    found = (
        ngram_vectors(tokenizer, vectors)
        if mode == "ngrams"
        else frequency_vectors(tokenizer, vectors, max_words=max_words)
    )
    if not np.isfinite(found).all():
        raise LabError("the word vectors hold numbers that are not finite")
    return found


def ngram_vectors(tokenizer: Tokenizer, vectors: Vectors) -> _Floats:
    """Return the vector of each token's text, white space at its ends removed; zeros for a text without an n-gram.

    LabError for vectors without n-grams.
    """
    if not isinstance(vectors, SubwordVectors) or not vectors.has_ngrams:
        raise LabError(
            "n-gram mode needs vectors with n-grams (fastText's .bin); mode frequency takes any vectors"
        )
    made = np.zeros((tokenizer.vocab_size, vectors.rows.shape[1]))
    for id in progress(range(tokenizer.vocab_size), label="tokens from n-grams", unit="token"):
        rows = vectors.rows_of(tokenizer.decode([id], skip_special=False).strip())
        if rows:
            made[id] = np.asarray(vectors.rows[rows], dtype=np.float64).mean(
                0
            )  # u = mean of word row and n-grams
    return made


def frequency_vectors(tokenizer: Tokenizer, vectors: Vectors, *, max_words: int | None = None) -> _Floats:
    """Return for each token the mean of the words that hold it, weighed by their counts; zeros for a token of no word.

    Each word is tokenised by itself and after a blank; a token of both receives the word twice. max_words: only the most
    frequent. Without counts the n-th of N words counts N - n + 1 times, as where gensim reads such a file.
    """
    known = vectors.known(max_words) if isinstance(vectors, SubwordVectors) else vectors
    most = len(known.words) if max_words is None else min(max_words, len(known.words))
    total = len(known.words)
    counts = np.array(known.counts if known.counts is not None else range(total, 0, -1), dtype=np.float64)
    sums = np.zeros((tokenizer.vocab_size, known.vectors.shape[1]))
    weights = np.zeros(tokenizer.vocab_size)
    for start in range(0, most, _BATCH):
        words = known.words[start : min(start + _BATCH, most)]
        both = zip(
            tokenizer.encode_batch(words), tokenizer.encode_batch([f" {word}" for word in words]), strict=True
        )
        ids, places = list[int](), list[int]()
        for place, pair in enumerate(both, start=start):
            for id in itertools.chain.from_iterable(map(dict.fromkeys, pair)):
                ids.append(id)
                places.append(place)
        here = counts[places]
        np.add.at(sums, ids, here[:, None] * known.vectors[places].astype(np.float64))
        np.add.at(weights, ids, here)
    there = weights > 0
    sums[there] /= weights[there, None]  # u = Σ freq(w) v_w / Σ freq(w)
    return sums


def chosen_mode(mode: str, source: Vectors, target: Vectors) -> Mode:
    """Return the mode that `auto` means: n-grams if both languages' vectors have them, else frequency."""
    if mode != "auto":
        return "ngrams" if mode == "ngrams" else "frequency"
    both = all(isinstance(one, SubwordVectors) and one.has_ngrams for one in (source, target))
    return "ngrams" if both else "frequency"
