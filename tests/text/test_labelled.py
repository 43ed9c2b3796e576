"""Labelled rows, their encoding and batches: every form of label, cutting, alignment, splits, and what is refused."""

import json
import math
from pathlib import Path

import pyarrow
import pytest
import tokenizers
import torch
from pyarrow import parquet

from gpt2lab.base.errors import LabError
from gpt2lab.model.task_heads import Head
from gpt2lab.text.encoding import Encoder
from gpt2lab.text.labelled import Example, Target, label_names, read_examples, shared_texts, stratified_split
from gpt2lab.text.labelled_batches import LabelledBatches, PairBatches
from gpt2lab.text.records import records
from gpt2lab.text.tokenizer import Tokenizer, byte_level, word_level

STARS = Target("stars", "classification", ("stars",))


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_of_every_format_are_the_same(tmp_path: Path) -> None:
    rows = [{"text": "a, b", "stars": "1"}, {"text": 'say "no"', "stars": "2"}]
    jsonl(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.csv").write_text('text,stars\n"a, b",1\n"say ""no""",2\n')
    (tmp_path / "c.tsv").write_text('text\tstars\na, b\t1\n"say ""no"""\t2\n')
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    for name in ("a.jsonl", "b.csv", "c.tsv", "d.parquet"):
        assert [row for _, row in records(tmp_path / name)] == rows
    assert [where for where, _ in records(tmp_path / "b.csv")] == [
        f"{tmp_path / 'b.csv'}, line {i}" for i in (2, 3)
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "text", "labelled data need fields"),
        ("a.jsonl", "[1]\n", "expected an object with fields, found list"),
        ("a.jsonl", "{\n", "line 1: not JSON"),
        ("a.csv", "text,stars\nx\n", "line 2: 1 of 2 columns"),
        ("a.csv", "text,stars\n", "the file has no rows"),
        ("a.csv", "text,star\nx,1\n", "no field 'stars'; did you mean 'star'"),
    ],
)
def test_files_that_hold_no_rows_are_a_sentence(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(LabError, match=words):
        read_examples(tmp_path / name, targets=[STARS])
    for source in ("docstrings", "tinyworld:3"):
        with pytest.raises(LabError, match=f"{source}: has text but no fields"):
            list(records(source))


def test_labels_of_every_form(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "a.jsonl",
        [
            {
                "text": "x",
                "stars": 10,
                "up": True,
                "size": 1.5,
                "also": 2,
                "marks": ["a", "b"],
                "n": 1,
                "m": 0,
            },
            {
                "text": "y",
                "stars": 9.0,
                "up": False,
                "size": None,
                "also": "",
                "marks": "b|c d",
                "n": None,
                "m": 1,
            },
            {
                "text": "z",
                "stars": None,
                "up": "true",
                "size": float("nan"),
                "also": "3",
                "marks": [],
                "n": 0,
                "m": "",
            },
        ],
    )
    targets = [
        STARS, Target("up", "classification", ("up",)), Target("size", "regression", ("size", "also")),
        Target("marks", "multilabel", ("marks",)), Target("columns", "multilabel", ("n", "m")),
    ]  # fmt: skip
    found = read_examples(path, targets=targets)
    assert [e.values["stars"] for e in found] == ["10", "9", None]
    assert [e.values["up"] for e in found] == ["true", "false", "true"]
    assert found[0].values["size"] == (1.5, 2.0) and math.isnan(found[1].values["size"][1])
    assert [e.values["marks"] for e in found] == [("a", "b"), ("b", "c d"), ()]
    assert label_names(found, STARS) == ("9", "10"), "numbers by size"
    assert label_names(found, targets[3]) == ("a", "b", "c d")
    assert label_names(found, targets[4]) == ("n", "m")
    heads = [
        Head(name="stars", labels=("9", "10")), Head(name="marks", kind="multilabel", outputs=3, labels=("a", "b", "c d")),
        Head(name="size", kind="regression", outputs=2), Head(name="columns", kind="multilabel", outputs=2),
    ]  # fmt: skip
    batch = LabelledBatches(found, heads, Encoder(byte_level(), 9), batch_size=3, shuffle=False)[0]
    assert batch["labels.stars"].tolist() == [1, 0, -100]
    assert batch["labels.marks"].tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert torch.equal(batch["labels.columns"].isnan(), torch.tensor([[0, 0], [1, 0], [0, 1]]).bool())
    assert batch["targets"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("row", "target", "words"),
    [
        (
            {"text": "x", "v": "tall"},
            Target("v", "regression", ("v",)),
            "line 1: field 'v' should hold a number, found 'tall'",
        ),
        ({"text": "x", "v": 1e999}, Target("v", "regression", ("v",)), "is infinite"),
        ({"text": "x", "v": "1_000"}, Target("v", "regression", ("v",)), "hold a number, found '1_000'"),
        (
            {"text": "x", "v": {"a": 1}},
            Target("v", "classification", ("v",)),
            "should hold a label, found dict",
        ),
        ({"text": "x y", "v": ["O"]}, Target("v", "tokens", ("v",)), "1 labels in 'v' for 2 words"),
        ({"text": 3, "v": "a"}, Target("v", "classification", ("v",)), "'text' should hold text, found int"),
        ({"text": "x", "v": -100}, Target("v", "classification", ("v",)), "'v' holds -100"),
        ({"text": "x y", "v": [1, -100]}, Target("v", "tokens", ("v",)), "'v' holds -100"),
        ({"text": "x", "v": "a|-100"}, Target("v", "multilabel", ("v",)), "'v' holds -100"),
        (
            {"text": "x", "v": "[1, "},
            Target("v", "multilabel", ("v",)),
            "begins like a JSON list and is none",
        ),
    ],
)
def test_labels_that_are_none_are_refused_with_their_line(
    row: dict, target: Target, words: str, tmp_path: Path
) -> None:
    with pytest.raises(LabError, match=words.replace("[", r"\[")):
        read_examples(jsonl(tmp_path / "a.jsonl", [row]), targets=[target])


@pytest.mark.parametrize(
    ("labels", "wrong"), [("1 1.0 0", "'1' and '1.0'"), ("-2.0 -2 1", "'-2' and '-2.0'")]
)
def test_one_class_in_two_spellings_is_refused(labels: str, wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"  # whole numbers, and those of a table that was written with gaps in this column
    path.write_text("text,v\n" + "".join(f"x{label},{label}\n" for label in labels.split()))
    target = Target("v", "classification", ("v",))
    with pytest.raises(LabError, match=f"v: the data have the labels {wrong}, one class in two spellings"):
        label_names(read_examples(path, targets=[target]), target)


def test_labels_that_only_look_like_one_number_are_classes_of_their_own(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "a.jsonl", [{"text": v, "v": v} for v in ("1.1", "1.10", "1.0", "v1", "v1.0", "01")]
    )
    target = Target("v", "classification", ("v",))
    assert set(label_names(read_examples(path, targets=[target]), target)) == {
        "1.1", "1.10", "1.0", "v1", "v1.0", "01",
    }  # fmt: skip


def test_an_unknown_label_names_the_nearest_and_its_line() -> None:
    with pytest.raises(
        LabError, match=r"f, line 2: label 'god' is not among the head's; did you mean 'good'\?"
    ):
        example = Example("x", {"label": "god"}, where="f, line 2")
        LabelledBatches([example], [Head(labels=("bad", "good"))], Encoder(byte_level(), 9), batch_size=1)
    with pytest.raises(LabError, match="only '1'; it takes two classes"):
        label_names([Example("x", {"stars": "1"})], STARS)
    with pytest.raises(LabError, match="no label at all"):
        label_names([Example("x", {"stars": None})], STARS)


@pytest.mark.parametrize(("side", "kept"), [("right", "abcd"), ("left", "efgh")])
def test_long_text_is_cut_on_the_named_side_and_counted(side: str, kept: str) -> None:
    tokenizer = byte_level()
    encoder = Encoder(tokenizer, 4, truncate=side)
    assert tokenizer.decode(encoder.text("abcdefgh").ids) == kept
    assert encoder.text("").ids == [tokenizer.eos] and len(encoder.text("a").ids) == 1
    assert encoder.truncated == 1


def test_pairs_are_cut_longest_first() -> None:
    tokenizer = byte_level()
    encoder = Encoder(tokenizer, 6, separator="|")
    row = encoder.text("abcdefgh", "x")
    assert tokenizer.decode(row.ids) == "abcd|x"
    assert tokenizer.decode(encoder.text("a", "xyzxyzxyz").ids) == "a|xyzx"
    assert tokenizer.decode(encoder.text("abcdefgh", "xyzxyz").ids) == "abc|xy"


def bert_like() -> Tokenizer:
    words = word_level(["the old cat sat"], special=("[CLS]", "[SEP]"))
    cls, sep = words.id("[CLS]"), words.id("[SEP]")
    words.backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    return words


def test_special_tokens_of_the_tokenizer_survive_cutting() -> None:
    tokenizer = bert_like()
    encoder = Encoder(tokenizer, 4)
    assert tokenizer.decode(encoder.text("the old cat sat").ids, skip_special=False) == "[CLS] the old [SEP]"
    assert tokenizer.decode(encoder.text("").ids, skip_special=False) == "[CLS] [SEP]"
    pair = Encoder(tokenizer, 7).text("the old", "cat sat")
    assert pair.types == [0, 0, 0, 0, 1, 1, 1]
    with pytest.raises(LabError, match="leave no room for text"):
        Encoder(tokenizer, 3)
    empty = word_level(["a"], eos=None)
    with pytest.raises(LabError, match="no bos or eos token"):
        Encoder(empty, 4).text("")


@pytest.mark.parametrize("tokenizer", [byte_level(), word_level(["New York is ünï"])], ids=["bytes", "words"])
def test_words_know_their_tokens(tokenizer: Tokenizer) -> None:
    words = ["New", "York", "is", "ünï"]
    row = Encoder(tokenizer, 40).words(words)
    for word, places in zip(words, row.places, strict=True):
        assert tokenizer.decode([row.ids[place] for place in places]).strip() == word
    cut = Encoder(tokenizer, 2).words(words)
    assert cut.places[-1] == [] and len(cut.ids) == 2
    assert Encoder(tokenizer, 9).words([]).places == []


@pytest.mark.parametrize("side", ["left", "right"])
def test_token_labels_stand_where_their_words_are(side: str) -> None:
    head = Head(name="t", kind="tokens", outputs=2, labels=("O", "X"))
    examples = [
        Example("ab c", {"t": ("X", "O")}, words=("ab", "c")),
        Example("d", {"t": ("O",)}, words=("d",)),
    ]

    def labels(align: str) -> list[list[int]]:
        made = LabelledBatches(
            examples, [head], Encoder(byte_level(), 9), batch_size=2, shuffle=False, align=align, side=side
        )
        return made[0]["labels.t"].tolist()

    pad = [[], [-100] * 3]
    shape = (lambda row, p: p + row) if side == "left" else (lambda row, p: row + p)
    assert labels("first") == [[1, -100, -100, 0], shape([0], pad[1])]
    assert labels("last") == [[-100, 1, -100, 0], shape([0], pad[1])]
    assert labels("all") == [[1, 1, -100, 0], shape([0], pad[1])]


def test_batches_are_a_function_of_data_seed_and_number_and_shared_by_processes() -> None:
    examples = [Example(f"text {i}", {"label": str(i % 2)}) for i in range(10)]

    def made(**options: object) -> LabelledBatches:
        return LabelledBatches(examples, [Head()], Encoder(byte_level(), 20), batch_size=4, seed=3, **options)

    first, second = made(), made()
    assert all(torch.equal(first[7][name], second[7][name]) for name in first[7])
    shown = [row for i in range(5) for row in first[i]["tokens"][:, 5].tolist()]
    assert sorted(shown) == sorted(2 * [ord(str(i)) for i in range(10)]), "each text once an epoch"
    halves = [made(rank=rank, world=2)[1]["tokens"] for rank in (0, 1)]
    assert sorted(torch.cat(halves)[:, 5].tolist()) == sorted(first[1]["tokens"][:, 5].tolist())


def test_pairs_pad_their_negatives_and_number_their_groups() -> None:
    examples = [
        Example("a", pair="A", negatives=("n1", "n2")), Example("b", pair="A"), Example("a", pair="B", negatives=("n3",)),
        Example("c", pair="C"), Example("d", pair="D", group="g"), Example("e", pair="E", group="g"),
    ]  # fmt: skip
    made = PairBatches(examples, Encoder(byte_level(), 9), batch_size=6, shuffle=False, query_prefix="q")
    batch = made[0]
    assert batch["group"].tolist() == [0, 0, 0, 1, 2, 2], "equal queries or positives make a group"
    assert batch["negative_there"].tolist() == [[True, True], [False] * 2, [True, False], *[[False] * 2] * 3]
    assert batch["negative_tokens"].shape[:2] == (6, 2) and bool(batch["negative_mask"].any(-1).all())
    assert batch["tokens"][0].tolist() == [ord("q"), ord("a")]
    with pytest.raises(LabError, match="no positive, although other examples have one"):
        PairBatches([examples[0], Example("x")], Encoder(byte_level(), 9), batch_size=1)


def test_the_split_keeps_shares_and_never_tears_equal_texts_apart() -> None:
    examples = [Example(f"{label} {i % 25}", {"stars": label}) for i in range(50) for label in "aab"]
    train, valid = stratified_split(examples, 0.2, STARS)
    assert shared_texts(train, valid) == 0 and len(train) + len(valid) == len(examples)
    texts = {label: len({e.text for e in valid if e.values["stars"] == label}) for label in "ab"}
    assert texts == {"a": 5, "b": 5}
    again = stratified_split(examples[::-1], 0.2, STARS)[1]
    assert {e.text for e in again} == {e.text for e in valid}, "order does not matter"
    rare = [Example(f"a {i}", {"stars": "a"}) for i in range(40)] + [
        Example(f"b {i}", {"stars": "b"}) for i in range(2)
    ]
    assert any(e.values["stars"] == "b" for e in stratified_split(rare, 0.1, STARS)[1])
    with pytest.raises(LabError, match="too few to keep"):
        stratified_split([Example("x", {"stars": "a"})], 0.5, STARS)
    with pytest.raises(LabError, match="must lie between 0 and 1"):
        stratified_split(examples, 1.0, STARS)
