"""The hop languages once more, as operations on text in reading order, from the description of the paper and its code."""

from collections.abc import Callable

CLITICS = ["n't", "'ll", "'s", "'re", "'ve", "'m"]
ASCII = r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"""

Row = tuple[str, str, str]
"""A word, its lemma, and Sing or Plur if it is an affected verb, else nothing."""


def written(words: list[str]) -> str:
    """Words with blanks between, clitics behind the word before them."""
    text = ""
    for word in words:
        text += word if not text or word in CLITICS else f" {word}"
    return text


def is_mark(word: str) -> bool:
    return word in CLITICS or all(c in ASCII for c in word)


def word_hop_text(rows: list[Row], k: int, glyphs: dict[str, str]) -> tuple[str, list[bool]]:
    """The text of WordHop: from the last verb to the first, place its marker among the words that are read after it."""
    words = [lemma if number else text for text, lemma, number in rows]
    complete = []
    for i in range(len(rows) - 1, -1, -1):
        if not rows[i][2]:
            continue
        # gap g stands right after words[g]; the walk begins at the gap after the verb minus one, as the code's index does
        at, hopped = i, 0
        while hopped < k and at < len(words) - 1:
            rest = "".join(words[at + 1 :])
            if not any(c.isalnum() for c in rest):
                break
            hopped += 0 if is_mark(words[at]) else 1
            at += 1
        if any(c.isalnum() for c in "".join(words[at + 1 :])):
            while at < len(words) - 1 and is_mark(words[at]):
                at += 1
        if at < len(words) - 1 and words[at + 1] in CLITICS:
            at += 1
        complete.append(hopped == k)
        words.insert(at + 1, glyphs[rows[i][2]])
    return written(words), complete


def token_hop(rows: list[Row], k: int, encode: Callable[[str], list[int]], ids: dict[str, int]) -> list[int]:
    """The ids of TokenHop, with k = 0 of NoHop: cut after every verb (and its clitic), then put markers in from the end."""
    pieces: list[list[str]] = [[]]
    numbers: list[str] = []
    glued = False
    for text, lemma, number in rows:
        if pieces[-1] == [] and numbers and not glued and text in CLITICS and not number:
            pieces[-2][-1] += text
            glued = True
            continue
        glued = False
        pieces[-1].append(lemma if number else text)
        if number:
            numbers.append(number)
            pieces.append([])
    result: list[int] = []
    for j in range(len(pieces) - 1, -1, -1):
        if pieces[j]:
            result = encode((" " if j else "") + written(pieces[j])) + result
        if j:
            cut = min(k, len(result))
            result = [*result[:cut], ids[numbers[j - 1]], *result[cut:]]
    return result
