"""Pieces of a text have the ids of the whole text: contexts with their continuations, long documents, bytes of tokens."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from gpt2lab.text import pieces
from gpt2lab.text.encoding import Encoder
from gpt2lab.text.pieces import aligned, beginning, bytes_of, encode_long, frame, split_text
from gpt2lab.text.reduction import ReducedTokenizer, count_tokens, reduce_vocabulary
from gpt2lab.text.tokenizer import Tokenizer, byte_level, train_bpe, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer

CORPUS = ["One day, Lily saw 12345 red balls.  \n\nShe didn't like “né” or 日本 🙂; it's\ta b-c. " * 3]
WORDS = [
    "one", "Two", "don't", "12345678", "né", "日本語", "🙂", "👩‍👩‍👧", "a.b", "(x)", "…", "ﬁn", "it's", "\u0301e", "<s>",
    "_", "ĠG", "▁",
]  # fmt: skip
GAPS = [" ", " ", " ", "  ", "\n", "\n\n", " \n", "\t", "", ", ", ". "]


def wrapped(backend: tokenizers.Tokenizer) -> Tokenizer:
    """Train nothing more: a backend with <s> before and </s> after each text."""
    backend.add_special_tokens(["<s>", "</s>"])
    bos, eos = backend.token_to_id("<s>"), backend.token_to_id("</s>")
    frame = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", bos), ("</s>", eos)]
    )
    own = backend.post_processor
    backend.post_processor = frame if own is None else processors.Sequence([own, frame])
    return Tokenizer(backend, bos=bos, eos=eos)


def _trained(model: object, trainer: object, splitter: object = None, normalizer: object = None) -> Tokenizer:
    backend = tokenizers.Tokenizer(model)
    if splitter is not None:
        backend.pre_tokenizer = splitter
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.train_from_iterator(CORPUS, trainer)
    return wrapped(backend)


def _bpe(splitter: object = None, normalizer: object = None) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    return _trained(models.BPE(), trainer, splitter, normalizer)


def _unigram(scheme: str) -> Tokenizer:
    trainer = trainers.UnigramTrainer(
        vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    return _trained(
        models.Unigram(), trainer, pre_tokenizers.Metaspace(prepend_scheme=scheme), normalizers.NFKC()
    )


def _wordpiece() -> Tokenizer:
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False)
    model = models.WordPiece(unk_token="[UNK]")
    return _trained(model, trainer, pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer())


def _reduced() -> Tokenizer:
    base = train_bpe(CORPUS, 330)
    return ReducedTokenizer(
        base, reduce_vocabulary(count_tokens(base.encode_batch(CORPUS), base), size=40, eos=base.eos)
    )


_STRIPS = normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()])
MODERN = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KINDS: dict[str, Callable[[Path], Tokenizer]] = {
    "bytes": lambda shared: byte_level(),
    "byte-bpe": lambda shared: train_bpe(CORPUS, 330),
    "byte-bpe-prefix-space": lambda shared: train_bpe(CORPUS, 330, add_prefix_space=True),
    "gpt2": lambda shared: load_tokenizer(shared / "gpt2-tokenizer"),
    "llama": lambda shared: load_tokenizer(shared / "models" / "stories260k-llama"),
    "blank-at-the-end-of-tokens": lambda shared: load_tokenizer(shared / "models" / "tinystories-656k-llama"),
    "modern-splits": lambda shared: _bpe(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(tokenizers.Regex(MODERN), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        ),
        normalizers.NFC(),
    ),
    "trimmed-offsets": lambda shared: _with_processor(train_bpe(CORPUS, 330)),
    "no-splits": lambda shared: _bpe(pre_tokenizers.ByteLevel(False, use_regex=False)),
    "fixed-length": lambda shared: _bpe(
        pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(False), pre_tokenizers.FixedLength(3)])
    ),
    "metaspace-first": lambda shared: _unigram("first"),
    "metaspace-always": lambda shared: _unigram("always"),
    "metaspace-one-piece": lambda shared: _bpe(pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "stripped": lambda shared: _bpe(pre_tokenizers.Metaspace(), _STRIPS),
    "wordpiece": lambda shared: _wordpiece(),
    "words": lambda shared: word_level(CORPUS),
    "reduced": lambda shared: _reduced(),
}  # fmt: skip


def _with_processor(tokenizer: Tokenizer) -> Tokenizer:
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    return wrapped(backend)


@pytest.fixture(scope="module", params=list(KINDS))
def tokenizer(request: pytest.FixtureRequest, shared_data: Path) -> Tokenizer:
    """A tokenizer of each kind."""
    return KINDS[request.param](shared_data)


def prose(seed: int, words: int) -> str:
    """Words and gaps that tokenizers treat apart, drawn at random."""
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) + draw.choice(GAPS) for _ in range(words))


@pytest.mark.parametrize("special", [False, True])
def test_a_long_document_in_pieces_has_the_ids_of_the_whole(tokenizer: Tokenizer, special: bool) -> None:
    text = prose(1, 1500)
    whole = tokenizer.encode(text, special=special)
    for piece in (60, 1000, 5000):
        assert encode_long(tokenizer, text, special=special, piece=piece) == whole


def test_all_kinds_but_those_that_look_across_are_really_cut(shared_data: Path) -> None:
    text, cut = prose(2, 1500), set()
    for name, make in KINDS.items():
        tokenizer = make(shared_data)
        cuts = list(pieces._cuts(tokenizer, text, 500))
        if cuts and pieces._joined(tokenizer, text, cuts) is not None:
            cut.add(name)
    assert set(KINDS) - cut == {"fixed-length", "stripped"}


def test_a_document_without_a_place_to_cut_is_encoded_whole(shared_data: Path) -> None:
    tokenizer = KINDS["no-splits"](shared_data)
    genes = "".join(random.Random(0).choice("ACGT") for _ in range(3000))
    assert encode_long(tokenizer, genes, special=True, piece=100) == tokenizer.encode(genes, special=True)


def test_the_beginning_of_a_text_is_that_of_the_whole(tokenizer: Tokenizer) -> None:
    text = prose(4, 3000)
    ids, spans = aligned(tokenizer, text)
    for count in (1, 30, 200, len(ids) + 1):
        found, places = beginning(tokenizer, text, count)
        assert len(found) >= min(count, len(ids))
        assert (found, list(places)) == (ids[: len(found)], spans[: len(found)])


def test_a_book_is_not_encoded_whole_for_its_beginning() -> None:
    tokenizer = train_bpe(CORPUS, 330)
    assert len(beginning(tokenizer, "one day " * 10_000, 20)[0]) < 1000


def test_special_tokens_stand_only_at_the_ends_of_a_long_document() -> None:
    tokenizer = wrapped(train_bpe(CORPUS, 330).backend)
    ids = encode_long(tokenizer, prose(3, 900).replace("<s>", ""), special=True, piece=100)
    assert [i for i, token in enumerate(ids) if token in (tokenizer.bos, tokenizer.eos)] == [0, len(ids) - 1]
    assert frame(tokenizer, "one day") == ([tokenizer.bos], [tokenizer.eos])
    assert frame(byte_level(), "one day") == ([], [])


@given(st.integers(0, 10**6), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_a_context_and_its_continuation_are_the_whole_cut_at_the_border(
    tokenizer: Tokenizer, seed: int, border: int
) -> None:
    text = prose(seed, 12)
    border = min(border, len(text))
    before, after = split_text(tokenizer, text[:border], text[border:])
    ids, spans = aligned(tokenizer, text)
    assert before + after == ids
    assert all(stop <= border for _, stop in spans[: len(before)])
    assert not after or spans[len(before)][1] > border or spans[len(before)] == (border, border)
    assert not before or border


@pytest.mark.parametrize(
    ("kind", "context", "text", "expected"),
    [
        ("llama", "a little girl named", " Lily", ["▁Lily"]),
        ("llama", "a little girl named ", "Lily", ["▁Lily"]),
        ("llama", "", "Lily", ["▁Lily"]),
        ("llama", "<s>", "Lily", ["▁Lily"]),
        ("blank-at-the-end-of-tokens", "One day", " Lily", ["day▁", "Lily"]),
        ("gpt2", "One day ", "Lily", ["ĠLily"]),
        ("gpt2", "One day  ", "Lily", ["ĠLily"]),
        ("gpt2", "One d", "ay", ["Ġday"]),
        ("gpt2", "One day", "  x", ["Ġ", "Ġx"]),
        ("trimmed-offsets", "One day", "  x", ["Ġ", "Ġ", "x"]),
        ("gpt2", "日", "本", ["æľ", "¬"]),
        ("words", "One d", "ay, Lily", ["day", ",", "Lily"]),
    ],
)
def test_a_token_across_the_border_belongs_to_the_continuation(
    shared_data: Path, kind: str, context: str, text: str, expected: list[str]
) -> None:
    tokenizer = KINDS[kind](shared_data)
    assert [tokenizer.token(id) for id in split_text(tokenizer, context, text)[1]] == expected


def test_an_unknown_word_across_the_border_is_part_of_the_continuation() -> None:
    tokenizer = word_level(["the cat"])
    unknown, cat = tokenizer.unk, tokenizer.encode("cat")[0]
    assert split_text(tokenizer, "the zz", "zy cat") == (tokenizer.encode("the"), [unknown, cat])


def test_bytes_are_those_of_the_text_whatever_its_tokens_decode_to(tokenizer: Tokenizer) -> None:
    text = prose(5, 300)
    spans = aligned(tokenizer, text)[1]
    counts = [bytes_of(text, spans, count) for count in range(len(spans) + 1)]
    assert counts[0] == 0 and counts[-1] == len(text.encode())
    assert counts == sorted(counts)


def test_a_character_of_several_tokens_counts_with_the_last_of_them() -> None:
    text = "a🙂é"
    spans = aligned(byte_level(), text)[1]
    assert [bytes_of(text, spans, count) for count in range(8)] == [0, 1, 1, 1, 1, 5, 5, 7]
    words = word_level(["the cat"])
    assert [bytes_of("the zébra cat", aligned(words, "the zébra cat")[1], n) for n in range(4)] == [
        0,
        3,
        10,
        14,
    ]


def test_what_a_tokenizer_drops_shifts_no_later_token(shared_data: Path) -> None:
    tokenizer = KINDS["blank-at-the-end-of-tokens"](shared_data)
    text = "Lily 日本 had a cat"
    ids, spans = aligned(tokenizer, text)
    assert ids == tokenizer.encode(text)
    shown = [(tokenizer.token(id), text[start:stop]) for id, (start, stop) in zip(ids, spans, strict=True)]
    assert shown[1:] == [("Lily▁", "Lily "), ("▁", " "), ("had▁a▁", "had a "), ("cat", "cat")]
    before, after = split_text(tokenizer, "Lily 日本 had a ", "cat")
    assert (before, after) == (ids[:-1], ids[-1:])


def test_a_reduced_vocabulary_is_read_in_its_own_ids_everywhere() -> None:
    tokenizer = _reduced()
    text = "One day, Lily saw red balls."
    ids = tokenizer.encode(text)
    assert Encoder(tokenizer, 99).text(text).ids == ids == aligned(tokenizer, text)[0]
    row = Encoder(tokenizer, 99).words(text.split())
    assert row.ids == ids and sorted(place for places in row.places for place in places) == [*range(len(ids))]
