"""The hop family: a present verb of the third person loses its ending, and a marker of its number stands k places later.

Words are read with their annotation. Everything works on ids, from the end of the sentence to its beginning, as the
authors' code does, which decides what their text leaves open: what stands between two verbs is encoded by itself, and a
marker of a later verb counts as a token, or as a word, for an earlier one.
"""

import string
from collections.abc import Callable, Sequence

from gpt2lab.base.errors import LabError
from gpt2lab.papers.impossible_languages.annotations import CLITICS, Sentence, Word

Encode = Callable[[str], list[int]]
_PUNCTUATION = frozenset(string.punctuation)


def is_affected_verb(word: Word) -> bool:
    """Tell whether a word is a finite verb of the third person in the present tense whose number is known."""
    wanted = {"Person": "3", "Tense": "Pres", "VerbForm": "Fin"}
    return word.feature("Number") is not None and all(word.feature(n) == v for n, v in wanted.items())


def hop_affected(sentence: Sentence) -> bool:
    """Tell whether a sentence has such a verb; one whose parse failed counts as having none."""
    return sentence.parsed and any(map(is_affected_verb, sentence.words))


def hop_tokens(sentence: Sentence, encode: Encode, markers: Sequence[int], k: int) -> list[int]:
    """Return the ids of a sentence in which each marker stands k tokens after its verb; k = 0 is the control.

    markers: ids of singular and plural. LabError for a sentence without words, and a number that is neither.
    """
    _need_words(sentence)
    tokens: list[int] = []
    after: list[str] = []  # words behind the last verb that was met, in reading order
    for word in reversed(sentence.words):
        if not is_affected_verb(word):
            after.insert(0, word.text)
            continue
        lemma = _lemma(word)
        if after and after[0] in CLITICS:
            lemma += after.pop(0)  # does n't → don't: the marker stands behind both
        if after:
            tokens = [*encode(" " + _joined(after)), *tokens]
        tokens.insert(k, _marker(word, markers, sentence))  # TokenHop: at most at the end
        after = [lemma]
    return [*encode(_joined(after)), *tokens] if after else tokens


def hop_words(sentence: Sentence, encode: Encode, markers: Sequence[int], k: int) -> list[int]:
    """Return the ids of a sentence in which each marker stands k words after its verb. LabError as for `hop_tokens`."""
    return _encoded(_word_hops(sentence, markers, k)[0], encode)  # WordHop


def word_hops_complete(sentence: Sentence, k: int) -> bool:
    """Tell whether a sentence has a verb, and each of its markers k words to hop over."""
    completed = _word_hops(sentence, (0, 1), k)[1]
    return bool(completed) and all(completed)


Item = str | int
"""A word, or the id of a marker."""


def _word_hops(sentence: Sentence, markers: Sequence[int], k: int) -> tuple[list[Item], list[bool]]:
    """Return words and markers in reading order, and for each verb whether its marker hopped over k words."""
    _need_words(sentence)
    items: list[Item] = []  # from the end of the sentence on, so that a lower index is read later
    completed = []
    for word in reversed(sentence.words):
        if not is_affected_verb(word):
            items.append(word.text)
            continue
        items.append(_lemma(word))
        place, skipped = _landing(items, k)
        completed.append(skipped == k)
        items.insert(place, _marker(word, markers, sentence))
    return items[::-1], completed


def _landing(items: Sequence[Item], k: int) -> tuple[int, int]:
    """Return where the marker of the verb at the end of `items` is inserted, and how many words it skips."""
    place, skipped = len(items) - 1, 0
    while skipped < k and place > 0:
        if not _has_letters(items[:place]):
            break  # nothing but punctuation is left to hop over
        skipped += not _is_no_word(items[place])  # the verb itself is the first word that is looked at
        place -= 1
    if _has_letters(items[:place]):
        while place != 0 and _is_no_word(items[place]):
            place -= 1
    if place != 0 and items[place - 1] in CLITICS:
        place -= 1
    return place, skipped


def _is_no_word(item: Item) -> bool:
    """Tell whether an item is a clitic or ASCII punctuation; a marker counts as a word."""
    return isinstance(item, str) and (item in CLITICS or _PUNCTUATION.issuperset(item))


def _has_letters(items: Sequence[Item]) -> bool:
    """Tell whether any item holds a letter or a digit; the markers' glyphs are neither."""
    return any(character.isalnum() for item in items if isinstance(item, str) for character in item)


def _encoded(items: Sequence[Item], encode: Encode) -> list[int]:
    """Encode the words between markers, each stretch by itself: a marker swallows the blank before it."""
    tokens: list[int] = []
    stretch: list[str] = []
    for item in [*items, None]:
        if isinstance(item, str):
            stretch.append(item)
            continue
        if stretch:
            glued = tokens and stretch[0] not in CLITICS  # a clitic is glued to a marker as to a word
            tokens += encode(" " * bool(glued) + _joined(stretch))
            stretch = []
        if item is not None:
            tokens.append(item)
    return tokens


def _joined(words: Sequence[str]) -> str:
    """Join words by blanks; a clitic belongs to the word before it."""
    joined: list[str] = []
    for word in words:
        if joined and word in CLITICS:
            joined[-1] += word
        else:
            joined.append(word)
    return " ".join(joined)


def _lemma(word: Word) -> str:
    return word.text if word.lemma is None else word.lemma


def _marker(word: Word, markers: Sequence[int], sentence: Sentence) -> int:
    number = word.feature("Number")
    if number not in ("Sing", "Plur"):
        raise LabError(
            f"the number of {word.text!r} in {sentence.text[:60]!r} is {number}, neither Sing nor Plur"
        )
    return markers[number == "Plur"]


def _need_words(sentence: Sentence) -> None:
    if not sentence.words:
        raise LabError(
            f"hop languages move markers by words, and {sentence.text[:60]!r} is not annotated; "
            "give CoNLL-U, JSON with lemma and feats, or tag it approximately"
        )
