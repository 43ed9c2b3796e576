"""Word vectors of texts: which words are read, and that either kind is the one that its own function makes."""

import numpy as np
import pytest

from gpt2lab.text.generators.stories import documents
from gpt2lab.text.skipgram import SkipgramOptions, train_skipgram
from gpt2lab.text.text_vectors import COUNTING, Kind, sentences, text_vectors
from gpt2lab.text.vector_files import SubwordVectors
from gpt2lab.text.word_vectors import count_vectors

TEXTS = documents(0, 40)
SMALL = SkipgramOptions(dimensions=4, epochs=1, buckets=50, least=2)


def test_the_words_of_a_text_come_by_sentence_without_numbers_and_punctuation() -> None:
    text = "L'été n’est pas fini! 12 chats, x2\nEin Über-Ich. ..."
    assert list(sentences([text])) == [
        ["L'été", "n’est", "pas", "fini"],
        ["chats", "x"],
        ["Ein", "Über", "Ich"],
    ]


@pytest.mark.parametrize("kind", ["ppmi", "skipgram"])
def test_vectors_of_a_text_are_those_of_its_sentences(kind: Kind) -> None:
    made = text_vectors(TEXTS, kind, skipgram=SMALL)
    words = list(sentences(TEXTS))
    expected = count_vectors(words, COUNTING) if kind == "ppmi" else train_skipgram(words, SMALL)
    assert isinstance(made, SubwordVectors) == (kind == "skipgram") and made.words == expected.words
    assert all(np.array_equal(made[word], expected[word]) for word in made.words)
