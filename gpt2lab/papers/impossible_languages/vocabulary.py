"""Tokenizers for the languages: one with the markers added, and one that reads sentences as they are spelled in tokens.

A perturbed sentence is a list of ids. Its text, encoded again, would give others: tokens that come to stand together merge.
So a sentence is written as its tokens, each as the vocabulary spells it, with blanks between: `Ġcleans He Ġmessy Ġbooks`.
The second tokenizer reads that back to the same ids, and every verb that reads text can train and measure on it.
"""

from collections.abc import Iterable, Sequence

import tokenizers

from gpt2lab.base.errors import LabError
from gpt2lab.papers.impossible_languages.languages import Language
from gpt2lab.text.tokenizer import Tokenizer


def with_markers(tokenizer: Tokenizer, chosen: Language) -> Tokenizer:
    """Return a tokenizer with the markers of a language behind its ids; itself if there are none, or they are there.

    In text a marker swallows the blank before it. LabError if the vocabulary has gaps, which the markers would fill, or
    some of the markers only.
    """
    if not chosen.markers:
        return tokenizer
    known = [tokenizer.id(glyph) for glyph in chosen.markers]
    if None not in known:
        return tokenizer
    if tokenizer.holes or any(id is not None for id in known):
        what = "gaps in its ids" if tokenizer.holes else "some of the markers already"
        raise LabError(
            f"{chosen.name}: this tokenizer has {what}, so its markers cannot follow all other ids"
        )
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.add_tokens(
        [tokenizers.AddedToken(glyph, lstrip=True, normalized=False) for glyph in chosen.markers]
    )
    roles = {name: getattr(tokenizer, name) for name in ("bos", "eos", "pad", "unk", "mask", "cls", "sep")}
    return Tokenizer(backend, **roles, settings=tokenizer.settings, files=tokenizer.files)


def spelled(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer of sentences that are spelled in tokens: the same ids, one for each word between blanks."""
    vocabulary = {spelling(tokenizer, id): id for id in range(tokenizer.vocab_size)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<none>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if tokenizer.backend.decoder is not None:
        backend.decoder = tokenizer.backend.decoder
    special = [id for id in (tokenizer.bos, tokenizer.eos, tokenizer.pad) if id is not None]
    backend.add_special_tokens(
        [
            tokenizers.AddedToken(spelling(tokenizer, id), special=True, normalized=False)
            for id in dict.fromkeys(special)
        ]
    )
    return Tokenizer(backend, bos=tokenizer.bos, eos=tokenizer.eos, pad=tokenizer.pad)


def spelling(tokenizer: Tokenizer, id: int) -> str:
    """Return how one id is written; a token that is empty or holds white space is written by its number."""
    token = tokenizer.token(id)
    return token if token and not any(map(str.isspace, token)) else f"<id:{id}>"


def spell(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Write a sentence as its tokens. LabError for an id outside the vocabulary."""
    if ids and (min(ids) < 0 or max(ids) >= tokenizer.vocab_size):
        raise LabError(f"id {max(ids)}: outside the tokenizer's vocabulary of {tokenizer.vocab_size}")
    return " ".join(spelling(tokenizer, id) for id in ids)


def read_ids(lines: Iterable[str], where: str) -> list[list[int]]:
    """Read sentences as the authors' files hold them: ids between blanks, one sentence a line; blank lines are skipped.

    LabError, with the line, for anything else.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not all(word.isdecimal() and len(word) < 10 for word in words):
            wrong = next(word for word in words if not (word.isdecimal() and len(word) < 10))
            raise LabError(
                f"{where}, line {number}: a sentence is token ids between blanks, got {wrong[:20]!r}"
            )
        if words:
            found.append([int(word) for word in words])
    return found
