"""A missing value is no value: null, NaN and empty cells in every format, two fields of one name, empty files."""

import gzip
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from gpt2lab.base.errors import LabError
from gpt2lab.measures.corpus import read_texts
from gpt2lab.measures.retrieval import read_collection
from gpt2lab.text import sources
from gpt2lab.text.encoding import Encoder
from gpt2lab.text.labelled import Target, label_names, read_examples
from gpt2lab.text.labelled_batches import PairBatches
from gpt2lab.text.records import records
from gpt2lab.text.tokenizer import byte_level

NULL = object()
"""A value that is not there, as the format writes it."""


def _jsonl(path: Path, rows: list[dict[str, Any]], null: object = None) -> Path:
    path.write_text(
        "".join(json.dumps({k: null if v is NULL else v for k, v in row.items()}) + "\n" for row in rows)
    )
    return path


def _separated(delimiter: str) -> Callable[[Path, list[dict[str, Any]]], Path]:
    def write(path: Path, rows: list[dict[str, Any]]) -> Path:
        lines = [delimiter.join(rows[0])]
        for row in rows:
            lines.append(delimiter.join("" if v is NULL else str(v) for v in row.values()))
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def _parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    plain = [{k: None if v is NULL else v for k, v in row.items()} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(plain), path)
    return path


def _hub(path: Path, rows: list[dict[str, Any]]) -> str:
    path.mkdir()
    _jsonl(path / "train.jsonl", rows)
    return f"hub:{path}"


FORMATS: dict[str, Callable[[Path, list[dict[str, Any]]], Any]] = {
    "a.jsonl": _jsonl,
    "b.jsonl": lambda path, rows: _jsonl(path, rows, math.nan),
    "c.jsonl": lambda path, rows: _jsonl(path, rows, " "),
    "a.csv": _separated(","),
    "b.csv": _separated(";"),
    "a.tsv": _separated("\t"),
    "a.parquet": _parquet,
    "hub": _hub,
}


@pytest.fixture(params=FORMATS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[dict[str, Any]]], Any]:
    if request.param == "hub":
        pytest.importorskip("datasets")
    return lambda rows: FORMATS[request.param](tmp_path / request.param, rows)


def test_a_missing_label_is_none_and_zero_false_and_none_as_text_are_labels(
    written: Callable[[list[dict[str, Any]]], Any],
) -> None:
    labels = [NULL, "None", "nan", "NA", "null", "0", "false", NULL]
    source = written([{"text": f"t{i}", "topic": label} for i, label in enumerate(labels)])
    target = Target("topic", "classification", ("topic",))
    found = read_examples(source, targets=[target])
    assert [e.values["topic"] for e in found] == [None, "None", "nan", "NA", "null", "0", "false", None]
    assert label_names(found, target) == tuple(
        sorted(["None", "NA", "null", "0", "false", "nan"], key=lambda n: (n != "0", n))
    )


def test_a_missing_number_is_nan_and_zero_is_a_number(written: Callable[[list[dict[str, Any]]], Any]) -> None:
    source = written([{"text": "a", "size": 0}, {"text": "b", "size": NULL}, {"text": "c", "size": 2}])
    found = read_examples(source, targets=[Target("size", "regression", ("size",))])
    values = [e.values["size"] for e in found]
    assert values[0] == (0.0,) and math.isnan(values[1][0]) and values[2] == (2.0,)


def test_rows_without_a_group_are_groups_of_their_own(written: Callable[[list[dict[str, Any]]], Any]) -> None:
    groups = [NULL, NULL, "x", "x", "0", "0", "None", NULL]
    rows = [{"text": f"q{i}", "match": f"a{i}", "intent": group} for i, group in enumerate(groups)]
    found = read_examples(written(rows), pair="match", group="intent")
    assert [e.group for e in found] == ["", "", "x", "x", "0", "0", "None", ""]
    numbers = PairBatches(found, Encoder(byte_level(), 9), batch_size=8, shuffle=False)[0]["group"].tolist()
    assert numbers == [0, 1, 2, 2, 3, 3, 4, 5]


def test_groups_of_a_column_with_gaps_are_those_of_one_without(tmp_path: Path) -> None:
    _jsonl(tmp_path / "a.jsonl", [{"text": "a", "g": 1.0}, {"text": "b", "g": 1}, {"text": "c", "g": False}])
    assert [e.group for e in read_examples(tmp_path / "a.jsonl", group="g")] == ["1", "1", "false"]


def test_a_missing_second_text_is_refused_with_its_place(
    written: Callable[[list[dict[str, Any]]], Any],
) -> None:
    rows = [{"text": "a", "match": "b"}, {"text": "c", "match": NULL}]
    with pytest.raises(LabError, match=r"(line [23]|row 2): field 'match' is empty; give it text"):
        read_examples(written(rows), pair="match")


@pytest.mark.parametrize("null", [None, math.nan])
def test_a_text_that_is_null_is_refused_and_an_empty_one_is_a_text(null: object, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"line 1: field 'text' should hold text, found nothing \(null\)"):
        read_examples(_jsonl(tmp_path / "a.jsonl", [{"text": null}]))
    assert read_examples(_jsonl(tmp_path / "a.jsonl", [{"text": ""}]))[0].text == ""


def test_missing_negatives_are_none_and_a_text_is_one_negative(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "no": None}, {"text": "b", "no": ""}, {"text": "c", "no": "not this one"},
        {"text": "d", "no": ["x y", "z"]}, {"text": "e", "no": '["x y"]'}, {"text": "f", "no": []},
    ]  # fmt: skip
    found = read_examples(_jsonl(tmp_path / "a.jsonl", rows), negatives="no")
    assert [e.negatives for e in found] == [(), (), ("not this one",), ("x y", "z"), ("x y",), ()]
    for broken in (["a", ""], ["a", None], [math.nan]):
        with pytest.raises(LabError, match="line 1: field 'no' is empty"):
            read_examples(_jsonl(tmp_path / "b.jsonl", [{"text": "a", "no": broken}]), negatives="no")


@pytest.mark.parametrize("kind", ["multilabel", "tokens"])
@pytest.mark.parametrize("hole", [None, math.nan, "", " "])
def test_a_hole_in_a_list_of_labels_is_no_label(kind: Any, hole: object, tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "a.jsonl", [{"text": "one two", "tags": ["A", hole]}])
    with pytest.raises(LabError, match="line 1: field 'tags' is empty"):
        read_examples(path, targets=[Target("tags", kind, ("tags",))])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"text,n,text\nfirst,1,last\n"),
        ("a.csv.gz", gzip.compress(b"text,text\nfirst,last\n", mtime=0)),
        ("a.tsv", b"text\ttext\nfirst\tlast\n"),
        ("b.csv", b"text;text\nfirst;last\n"),
        ("c.csv", b"\xef\xbb\xbftext,text\nfirst,last\n"),
        ("d.csv", b"n,n,text\n1,2,x\n"),
        ("a.jsonl", b'{"text": "first", "text": "last"}\n'),
        ("b.jsonl", b'{"text": "x", "n": {"a": 1, "a": 2}}\n'),
    ],
)
def test_two_fields_of_one_name_are_refused_by_both_readers(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (sources.documents, records):
        with pytest.raises(
            LabError, match=r"line 1: two fields have the name '(text|n|a)'; rename or leave out"
        ):
            list(read(str(tmp_path / name)))


def test_two_columns_of_one_name_in_parquet_are_refused_by_both_readers(tmp_path: Path) -> None:
    columns = [pyarrow.array(["first"]), pyarrow.array(["last"])]
    parquet.write_table(pyarrow.Table.from_arrays(columns, names=["text", "text"]), tmp_path / "a.parquet")
    for read in (sources.documents, records):
        with pytest.raises(LabError, match="two fields have the name 'text'"):
            list(read(str(tmp_path / "a.parquet")))


def test_columns_without_a_name_are_no_twins(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",text,,\n0,x,,\n")
    assert [row for _, row in records(tmp_path / "a.csv")] == [{"text": "x"}]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"text,label\nx,1\n"),
        ("b.csv", b'"text";"label"\n"x";1\n'),
        ("c.csv", b"text\tlabel\nx\t1\n"),
        ("d.csv", b"text,label\r\nx,1\r\n"),
        ("e.csv", b"\n\r\ntext;label\n\nx;1\n\n"),
        ("a.tsv", b"text\tlabel\nx\t1\n"),
        ("A.TSV", b"text\tlabel\nx\t1\n"),
        ("a.jsonl", b'{"text": "x", "label": "1"}\n'),
    ],
)
def test_a_mark_of_the_byte_order_and_other_separators_change_nothing(
    mark: bytes, name: str, content: bytes, tmp_path: Path
) -> None:
    for ending, data in (("", mark + content), (".gz", gzip.compress(mark + content, mtime=0))):
        (tmp_path / (name + ending)).write_bytes(data)
        assert list(sources.documents(tmp_path / (name + ending))) == ["x"]
        assert [row for _, row in records(tmp_path / (name + ending))] == [{"text": "x", "label": "1"}]


def test_a_semicolon_in_a_text_or_a_quoted_name_separates_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na; b,1\n")
    assert [row for _, row in records(tmp_path / "a.csv")] == [{"text": "a; b", "label": "1"}]
    (tmp_path / "b.csv").write_text("text\na; b\n")
    assert list(sources.documents(tmp_path / "b.csv")) == ["a; b"]
    (tmp_path / "c.csv").write_text('"text; all"\nx\n')
    assert list(sources.documents(tmp_path / "c.csv", field="text; all")) == ["x"]


def test_a_text_with_an_unquoted_separator_is_refused_not_cut(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,n\nHello, world,1\n")
    for read in (sources.documents, records):
        with pytest.raises(LabError, match="line 2: 3 of 2 columns"):
            list(read(tmp_path / "a.csv"))


EMPTY = [
    ("n.txt", b""), ("n.txt", b"\xef\xbb\xbf"), ("n.jsonl", b""), ("n.jsonl", b"\n\n"), ("n.csv", b""),
    ("n.csv", b"text,n\n"), ("n.tsv.gz", gzip.compress(b"", mtime=0)), ("n.parquet", b""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), EMPTY)
def test_an_empty_file_in_a_folder_is_left_out_aloud(name: str, content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_bytes(content)
    (folder / "z.jsonl").write_text('{"text": "x"}\n')
    for source in (str(folder), f"{folder}/*"):
        with pytest.warns(UserWarning, match=rf"{name}: the file (is empty|has no rows); left out"):
            assert list(sources.documents(source)) == ["x"]
        with pytest.warns(UserWarning, match="left out"):
            assert list(read_texts(source)) == ["x"]
        if not name.endswith(".txt"):
            with pytest.warns(UserWarning, match="left out"):
                assert [row for _, row in records(source)] == [{"text": "x"}]


@pytest.mark.parametrize(("name", "content"), EMPTY)
def test_an_empty_file_by_its_own_name_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "z.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(LabError, match=rf"{name}: the file (is empty|has no rows)$"):
        list(sources.documents([tmp_path / "z.jsonl", tmp_path / name]))


def test_a_folder_of_empty_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").touch()
    with warnings.catch_warnings(), pytest.raises(LabError, match=r"b\.txt: the file is empty"):
        warnings.simplefilter("ignore")
        list(sources.documents(tmp_path))


def test_the_hubs_number_for_no_class_is_no_class(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "n": datasets.Value("int64"),
        }
    )
    rows = {"text": ["a", "b", "c"], "label": [0, -1, 1], "n": [-1, -1, 0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train.parquet"))
    found = [row for _, row in records(f"hub:{tmp_path}")]
    assert [row["label"] for row in found] == [0, None, 1]
    assert [row["n"] for row in found] == [-1, -1, 0]


def _collection(folder: Path, corpus: list[dict[str, Any]], judged: str = "q\td\t1\n") -> Path:
    _jsonl(folder / "corpus.jsonl", corpus)
    _jsonl(folder / "queries.jsonl", [{"_id": "q", "text": "what"}])
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"_id": None, "text": "x"}, "line 2: field '_id' is empty"),
        ({"_id": "", "text": "x"}, "line 2: field '_id' is empty"),
        ({"_id": "e", "text": None}, r"line 2: field 'text' should hold text, found nothing \(null\)"),
    ],
)
def test_documents_without_id_or_text_are_refused(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=words):
        read_collection(_collection(tmp_path, [{"_id": "d", "text": "that"}, row]))


def test_a_missing_title_is_no_title(tmp_path: Path) -> None:
    corpus = [
        {"_id": "d", "text": "that", "title": None}, {"_id": 0, "text": "this", "title": math.nan},
        {"_id": "f", "text": "those", "title": "None"},
    ]  # fmt: skip
    found = read_collection(_collection(tmp_path, corpus))
    assert found.documents == {"d": "that", "0": "this", "f": "None those"}


def test_a_document_is_judged_once(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="line 3: document 'd' is judged twice for query 'q'"):
        read_collection(_collection(tmp_path, [{"_id": "d", "text": "that"}], "q\td\t1\nq\td\t0\n"))
