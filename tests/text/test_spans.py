"""Labelled spans against a slow reference that paints characters: bytes, byte-level BPE and sentencepiece tokens."""

import itertools
import json
import random
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from gpt2lab.base.errors import LabError
from gpt2lab.model.loss import IGNORE
from gpt2lab.model.task_heads import Head
from gpt2lab.text.encoding import Encoder
from gpt2lab.text.labelled import Target, label_names, read_examples
from gpt2lab.text.labelled_batches import LabelledBatches
from gpt2lab.text.spans import (
    Span,
    TokenSpan,
    bio,
    checked,
    from_bio,
    joined,
    layers,
    to_characters,
    to_tokens,
    token_windows,
    units,
)
from gpt2lab.text.tokenizer import Tokenizer, byte_level, train_bpe

TEXTS = [
    "Ada Lovelace met Charles Babbage in London.",
    "🙂 Zoë's naïve “plan” — 東京 wins, 3–2!",
    "  leading, and trailing blanks  and\ttabs\n",
]


def _sentencepiece() -> Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.train_from_iterator(
        TEXTS * 20, trainers.UnigramTrainer(vocab_size=80, unk_token="<unk>", special_tokens=["<unk>"])
    )
    return Tokenizer(backend, unk=0)


TOKENIZERS = {"bytes": byte_level(), "bpe": train_bpe(TEXTS * 10, 330), "sentencepiece": _sentencepiece()}


def _random_spans(text: str, draw: random.Random) -> list[Span]:
    found, place = [], 0
    while place < len(text) - 1:
        start = draw.randint(place, len(text) - 1)
        end = draw.randint(start + 1, min(len(text), start + 9))
        if text[start:end].strip():
            found.append(Span(start, end, draw.choice("ab")))
        place = end
    return found


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_of_a_span_are_those_that_share_a_visible_character(name: str, text: str) -> None:
    offsets = TOKENIZERS[name].aligned(text)[1]
    draw = random.Random(0)
    for _ in range(60):
        spans = _random_spans(text, draw)
        painted = [
            [place for place in range(span.start, span.end) if not text[place].isspace()] for span in spans
        ]
        for span, found, visible in zip(spans, to_tokens(text, spans, offsets), painted, strict=True):
            slow = [
                i for i, (start, end) in enumerate(offsets) if any(start <= place < end for place in visible)
            ]
            covered = {place for i in slow for place in range(*offsets[i])}
            if not slow:  # a character that the tokenizer leaves out
                assert found is None
                continue
            assert found == TokenSpan(slow[0], slow[-1] + 1, span.label, set(visible) <= covered)
            (back,) = to_characters(text, [found], offsets)
            assert text[back.start : back.end] == text[back.start : back.end].strip()
            assert (back.start <= visible[0] and back.end >= visible[-1] + 1) or not found.whole


@pytest.mark.parametrize("name", TOKENIZERS)
def test_spans_of_whole_words_come_back_exactly(name: str) -> None:
    text = TEXTS[0]
    spans = [Span(0, 12, "person"), Span(17, 32, "person"), Span(36, 42, "place")]
    offsets = TOKENIZERS[name].aligned(text)[1]
    tokens = to_tokens(text, spans, offsets)
    labels = bio(len(offsets), tokens)
    assert to_characters(text, from_bio(labels), offsets) == spans
    cut = to_tokens(text, spans, offsets[: tokens[1].start + 1])
    assert cut[0] == tokens[0] and cut[2] is None
    assert not cut[1].whole or tokens[1].end == tokens[1].start + 1


def test_several_tokens_of_one_character_belong_to_its_span() -> None:
    offsets = TOKENIZERS["bytes"].aligned("a🙂b")[1]
    assert to_tokens("a🙂b", [Span(1, 2, "x")], offsets) == [TokenSpan(1, 5, "x")]


@given(st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), max_size=12))
def test_bio_comes_back_and_an_inside_without_a_beginning_begins_a_span(labels: list[str]) -> None:
    spans = from_bio(labels)
    again = bio(len(labels), spans)
    assert from_bio(again) == spans
    for place, (label, new) in enumerate(zip(labels, again, strict=True)):
        before = labels[place - 1] if place else "O"
        starts = label.startswith("I-") and before[2:] != label[2:]
        assert new == (f"B-{label[2:]}" if starts else label)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), max_size=8))
def test_layers_hold_no_overlap_and_all_spans(pairs: list[tuple[int, int]]) -> None:
    spans = [Span(start, start + length, "x") for start, length in pairs]
    made = layers(spans)
    assert sorted(span for layer in made for span in layer) == sorted(spans)
    for layer in made:
        assert all(one.end <= other.start for one, other in itertools.pairwise(layer))


def test_units_keep_the_text_and_cut_at_the_borders_of_every_layer() -> None:
    text = "Unhappy Zoë's (東京)!"
    ranges, (first, second) = units(text, [Span(2, 7, "mood")], [Span(0, 7, "word"), Span(15, 17, "place")])
    assert [text[a:b] for a, b in ranges] == ["Un", "happy", "Zoë", "'", "s", "(", "東京", ")", "!"]
    assert first[:3] == ["O", "B-mood", "O"] and second[:2] == ["B-word", "I-word"] and second[6] == "B-place"


def test_windows_hold_all_tokens_and_the_one_with_most_context_decides() -> None:
    for count, size, stride in ((10, 4, 2), (3, 8, 1), (11, 5, 5), (0, 4, 4)):
        windows = token_windows(count, size, stride)
        assert {i for a, b in windows for i in range(a, b)} == set(range(count))
        assert all(b - a == min(size, count) for a, b in windows)
    windows = token_windows(6, 4, 2)
    assert windows == [(0, 4), (2, 6)]
    assert joined(windows, [list("aaaa"), list("bbbb")]) == ["a", "a", "a", "b", "b", "b"]
    with pytest.raises(LabError, match="stride must lie between 1 and the window of 4, got 5"):
        token_windows(9, 4, 5)
    with pytest.raises(LabError, match="token 1 stands in no window"):
        joined([(0, 1), (2, 3)], [["a"], ["b"]])


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ([Span(0, 99, "x")], "span 0-99: the text has 43 characters"),
        ([Span(3, 3, "x")], "give start < end"),
        ([Span(3, 4, "x")], "holds nothing but blanks"),
        ([Span(0, 3, "O")], "other than O"),
        ([Span(0, 12, "x"), Span(4, 8, "y"), Span(9, 12, "z")], r"0-12 \(x\) and 4-8 \(y\) overlap"),
    ],
)
def test_spans_that_make_no_sense_are_refused(spans: list[Span], reason: str) -> None:
    with pytest.raises(LabError, match=reason):
        checked(TEXTS[0], spans)


def test_bio_refuses_overlaps_and_unknown_marks() -> None:
    with pytest.raises(LabError, match="split overlaps with layers"):
        bio(5, [TokenSpan(0, 4, "x"), TokenSpan(1, 4, "y")])
    with pytest.raises(LabError, match="label 'S-x': neither O"):
        from_bio(["S-x"])
    assert bio(3, [TokenSpan(0, 2, "x"), TokenSpan(1, 3, "y"), None]) == ["B-x", "I-x", "B-y"], (
        "a shared token"
    )


def test_rows_with_spans_train_a_head_of_tokens_on_the_text_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    spans = [{"start": 0, "end": 12, "label": "person"}, {"start": 36, "end": 42, "label": "place"}]
    rows = [
        {"text": TEXTS[0], "tags": spans},
        {"text": TEXTS[1], "tags": []},
        {"text": TEXTS[2], "tags": None},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    target = Target("tags", "tokens", ("tags",))
    examples = read_examples(file, targets=[target])
    assert [example.text for example in examples] == TEXTS
    names = label_names(examples, target)
    assert set(names) == {"B-person", "I-person", "B-place", "O"}
    head = Head(name="tags", kind="tokens", outputs=len(names), labels=names)
    for tokenizer in TOKENIZERS.values():
        batches = LabelledBatches(
            examples, [head], Encoder(tokenizer, 200), batch_size=3, shuffle=False, align="all"
        )
        labels = batches[0]["labels.tags"]
        for row, text in zip(labels[:2], TEXTS, strict=False):
            ids, offsets = tokenizer.aligned(text)
            told = [names[i] if i != IGNORE else "O" for i in row[: len(ids)].tolist()]
            tagged = [pair for pair, name in zip(offsets, told, strict=True) if name != "O"]
            marked = "".join(text[place] for place in sorted({p for pair in tagged for p in range(*pair)}))
            assert marked.replace(" ", "").strip(".") == ("AdaLovelaceLondon" if text is TEXTS[0] else "")
        assert bool((labels[2] == IGNORE).all()), "a row without labels"


def test_bad_spans_of_a_row_are_named_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    target = Target("tags", "tokens", ("tags",))
    good = {"text": "a b", "tags": [{"start": 0, "end": 1, "label": "x"}]}
    for tags, reason in (
        ([{"start": 0, "end": 9, "label": "x"}], "line 2: span 0-9"),
        ([{"start": "0", "end": 1, "label": "x"}], "line 2: field 'tags' should hold spans"),
        ([{"start": 0, "end": 1}], "line 2: field 'tags' is empty"),
        (["B-x", "O"], "line 2: field 'tags' should hold spans"),
    ):
        file.write_text(json.dumps(good) + "\n" + json.dumps({"text": "a b", "tags": tags}))
        with pytest.raises(LabError, match=reason):
            read_examples(file, targets=[target])
