import concurrent.futures
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from gpt2lab.base.errors import LabError
from gpt2lab.text import shard_builder
from gpt2lab.text.shards import Shards, build
from gpt2lab.text.tokenizer import Tokenizer, byte_level, train_bpe, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer

ROOT = Path(__file__).parents[2]
BYTES = byte_level()
TEXTS = [f"Document {i} é: " + "word " * (i % 17) for i in range(400)]


def everything(built: Shards) -> dict[str, list[str]]:
    found = {}
    for name in ("train", "valid"):
        if built.has(name):
            split = built.split(name)
            found[name] = [BYTES.decode(split.document(i)) for i in range(split.documents)]
    return found


def test_each_document_comes_back_once_with_its_eos_and_its_bytes(tmp_path: Path) -> None:
    built = build(iter(TEXTS), BYTES, tmp_path / "s", valid_fraction=0.2)
    found = everything(built)
    assert sorted(found["train"] + found["valid"]) == sorted(TEXTS)
    assert found["train"] == [text for text in TEXTS if text in set(found["train"])]
    assert 0.1 < len(found["valid"]) / 400 < 0.3
    for name, texts in found.items():
        split = built.split(name)
        assert split.bytes == sum(len(text.encode()) for text in texts) == len(split) - len(texts)
        assert split.document_bytes.tolist() == [len(text.encode()) for text in texts]
        ends = split.read(0, len(split))[split.boundaries[1:] - 1]
        assert (ends == BYTES.eos).all()


def test_the_side_of_a_document_depends_on_its_text_alone(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(TEXTS, 200)
    first = everything(build(iter(TEXTS), BYTES, tmp_path / "a", valid_fraction=0.1))
    second = everything(build(iter(shuffled), BYTES, tmp_path / "b", valid_fraction=0.1))
    wider = everything(build(iter(TEXTS), BYTES, tmp_path / "c", valid_fraction=0.3))
    assert set(second["valid"]) == set(first["valid"]) & set(shuffled)
    assert set(first["valid"]) < set(wider["valid"])


def test_two_documents_are_enough_for_a_validation_split(tmp_path: Path) -> None:
    sides: list[set[str]] = []
    for order in (["one", "two", "one"], ["two", "one", "one"]):
        found = everything(build(iter(order), BYTES, tmp_path / "s", valid_fraction=1e-9))
        assert {frozenset(found["train"]), frozenset(found["valid"])} == {
            frozenset(["one"]),
            frozenset(["two"]),
        }
        sides.append(set(found["valid"]))
    assert sides[0] == sides[1]
    built = build(iter(["one"]), BYTES, tmp_path / "s", valid_fraction=0.5)
    assert built.has("train") != built.has("valid")
    built = build(iter(["one"]), BYTES, tmp_path / "s", valid_fraction=0)
    with pytest.raises(LabError, match="the valid split is empty"):
        built.split("valid")


def test_several_shards_read_as_one_stream(tmp_path: Path) -> None:
    one = build(iter(TEXTS), BYTES, tmp_path / "one")
    many = build(iter(TEXTS), BYTES, tmp_path / "many", shard_tokens=500)
    assert len(many.manifest.splits["train"]) > 10
    a, b = one.split("train"), many.split("train")
    whole = a.read(0, len(a))
    assert (b.read(0, len(b)) == whole).all()
    assert (a.boundaries == b.boundaries).all()
    for start in range(0, len(a) - 1300, 997):
        assert (b.read(start, start + 1300) == whole[start : start + 1300]).all()
    with pytest.raises(LabError, match="the train split has"):
        b.read(0, len(b) + 1)


def test_moving_the_lowest_document_works_across_shards(tmp_path: Path) -> None:
    built = build(iter(TEXTS), BYTES, tmp_path / "s", shard_tokens=500, valid_fraction=1e-9)
    found = everything(built)
    assert len(found["valid"]) == 1
    assert sorted(found["train"] + found["valid"]) == sorted(TEXTS)
    assert len(list((tmp_path / "s").glob("was*"))) == 0
    Shards.open(tmp_path / "s", checksum=True)


def test_ids_beyond_65535_are_kept(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(70_000)]
    tokenizer = word_level(words)
    built = build(iter([" ".join(words)]), tokenizer, tmp_path / "s", valid_fraction=0)
    assert built.manifest.token_bytes == 4
    split = built.split("train")
    assert split.read(0, len(split)).tolist() == [*range(2, 70_002), 1]


def test_a_tokenizer_that_writes_a_bos_keeps_it_and_no_eos_is_doubled(
    shared_data: Path, tmp_path: Path
) -> None:
    llama = load_tokenizer(shared_data / "models" / "stories260k-llama")
    split = build(iter(["Once upon a time"]), llama, tmp_path / "s", valid_fraction=0).split("train")
    assert split.document(0) == [1, *llama.encode("Once upon a time"), 2]
    split = build(iter(["a<|endoftext|>"]), BYTES, tmp_path / "t", valid_fraction=0).split("train")
    assert split.document(0) == [97, 256]
    letters = load_tokenizer(shared_data / "models" / "gpt-nano-sort-85k")
    assert build(iter(["CAB"]), letters, tmp_path / "u", valid_fraction=0).split("train").document(0) == [
        2,
        0,
        1,
    ]


def test_one_worker_and_all_write_the_same_bytes(
    tmp_path: Path, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    tokenizer = train_bpe([story] * 3, 300)
    texts = [story * (1 + i % 5) for i in range(50)]
    build(iter(texts), tokenizer, tmp_path / "a", workers=1)
    build(iter(texts), tokenizer, tmp_path / "b")
    for name in ("train.000.tokens", "train.000.documents"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_long_document_is_encoded_in_pieces_to_the_same_ids(
    tmp_path: Path, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_builder, "_BATCH", 10_007)
    tokenizer = train_bpe([story] * 3, 300)
    text = story.replace("\n", " ") * 300
    assert len(text) > 5 * 10_007
    split = build(iter([text]), tokenizer, tmp_path / "s", valid_fraction=0).split("train")
    assert split.documents == 1
    assert split.document(0) == [*tokenizer.encode(text), tokenizer.eos]


def test_an_unchanged_source_is_not_encoded_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    first = build(tmp_path / "a.txt", BYTES, tmp_path / "s")
    stamp = (tmp_path / "s" / "manifest.json").stat().st_mtime_ns
    assert build(tmp_path / "a.txt", BYTES, tmp_path / "s").manifest == first.manifest
    assert (tmp_path / "s" / "manifest.json").stat().st_mtime_ns == stamp
    build(tmp_path / "a.txt", BYTES, tmp_path / "s", valid_fraction=0.5)
    assert (tmp_path / "s" / "manifest.json").stat().st_mtime_ns != stamp
    (tmp_path / "a.txt").write_text("one\n\nthree\n")
    rebuilt = build(tmp_path / "a.txt", BYTES, tmp_path / "s", valid_fraction=0.5)
    assert list(everything(rebuilt).values()) == [["one\n\nthree\n"]]
    (tokens,) = (tmp_path / "s").glob("*.tokens")
    tokens.write_bytes(tokens.read_bytes()[:-1])
    again = build(tmp_path / "a.txt", BYTES, tmp_path / "s", valid_fraction=0.5)
    assert everything(again) == everything(rebuilt)


def _damage(folder: Path, name: str, change: str) -> None:
    path = folder / name
    data = path.read_bytes()
    if change == "cut":
        path.write_bytes(data[:-2])
    elif change == "flip":
        path.write_bytes(data[:-2] + bytes([data[-2] ^ 1, data[-1]]))
    elif change == "header":
        path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    elif change == "gone":
        path.unlink()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "train.000.tokens",
            "cut",
            r"train\.000\.tokens: truncated, [\d,]+ of [\d,]+ bytes; encode the text again",
        ),
        ("train.000.tokens", "flip", r"train\.000\.tokens: damaged, its checksum"),
        ("train.000.tokens", "header", r"train\.000\.tokens: its header contradicts"),
        ("train.000.tokens", "gone", r"train\.000\.tokens: missing"),
        ("train.000.documents", "flip", r"train\.000\.documents: damaged"),
        ("valid.000.documents", "cut", r"valid\.000\.documents: truncated"),
        ("manifest.json", "cut", "manifest.json: not JSON, or cut off: .*; encode the text again"),
        ("manifest.json", "flip", "manifest.json: not JSON, or cut off: .*; encode the text again"),
        ("manifest.json", "gone", "manifest.json: missing beside its shards; encode the text again"),
    ],
)
def test_damaged_shards_are_refused(tmp_path: Path, name: str, change: str, message: str) -> None:
    build(iter(TEXTS), BYTES, tmp_path / "s", valid_fraction=0.3)
    _damage(tmp_path / "s", name, change)
    with pytest.raises(LabError, match=message) as error:
        Shards.open(tmp_path / "s")
    assert "\n" not in str(error.value)


def test_another_tokenizer_is_refused_with_both_fingerprints(tmp_path: Path, bpe: Tokenizer) -> None:
    build(iter(TEXTS), BYTES, tmp_path / "s")
    message = (
        rf"train\.000\.tokens: written by tokenizer {BYTES.fingerprint[:8]}…, the model uses "
        rf"{bpe.fingerprint[:8]}…; encode the text again with --data FILES"
    )
    with pytest.raises(LabError, match=message):
        Shards.open(tmp_path / "s", tokenizer=bpe)


def test_a_bit_that_flipped_is_found_although_size_and_time_are_as_before(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    build(iter(TEXTS), BYTES, folder)
    path = folder / "train.000.tokens"
    stat = path.stat()
    _damage(folder, path.name, "flip")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    Shards.open(folder, checksum=False)
    with pytest.raises(LabError, match="damaged"):
        Shards.open(folder)


def test_damaged_shards_of_files_are_built_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n<|endoftext|>\ntwo\n")
    first = everything(build(tmp_path / "a.txt", BYTES, tmp_path / "s"))
    for name, change in [("train.000.tokens", "flip"), ("manifest.json", "gone"), ("manifest.json", "cut")]:
        _damage(tmp_path / "s", name, change)
        with pytest.warns(UserWarning, match=rf"{name}: .*; the text is encoded again"):
            again = build(tmp_path / "a.txt", BYTES, tmp_path / "s")
        assert everything(again) == first


def _changed(manifest: dict[str, Any], what: str) -> None:
    splits = manifest["splits"]
    if what == "splits":
        splits["train"], splits["valid"] = splits["valid"], splits["train"]
    elif what == "bytes":
        splits["train"][0]["bytes"] += 1
    else:
        manifest[what] = 7


@pytest.mark.parametrize("what", ["splits", "bytes", "eos", "valid_fraction", "vocab_size", "key"])
def test_a_manifest_that_was_changed_is_refused(tmp_path: Path, what: str) -> None:
    build(iter(TEXTS), BYTES, tmp_path / "s", valid_fraction=0.3)
    path = tmp_path / "s" / "manifest.json"
    manifest = json.loads(path.read_text())
    _changed(manifest, what)
    path.write_text(json.dumps(manifest, indent=1) + "\n")
    with pytest.raises(
        LabError, match=r"manifest\.json: damaged, its checksum is not its own; encode the text again"
    ):
        Shards.open(tmp_path / "s")


def test_a_split_with_the_shards_of_another_is_refused_whatever_the_checksum_says(tmp_path: Path) -> None:
    manifest = build(iter(TEXTS), BYTES, tmp_path / "s", valid_fraction=0.3).manifest
    swapped = dict(zip(("train", "valid"), (manifest.splits["valid"], manifest.splits["train"]), strict=True))
    replace(manifest, splits=swapped).write(tmp_path / "s")
    with pytest.raises(LabError, match="gives the train split the shards of another"):
        Shards.open(tmp_path / "s")


def _builds(folder: str) -> list[str]:
    """Build the same shards under many names and return what went wrong."""
    wrong = []
    for i in range(15):
        try:
            built = build(Path(folder) / "a.txt", BYTES, Path(folder) / f"s{i}", valid_fraction=0.3)
            assert built.split("train").documents + built.split("valid").documents == 40
        except (LabError, OSError, AssertionError) as error:
            wrong.append(repr(error))
    return wrong


def test_six_processes_that_build_the_same_shards_share_one_build(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(TEXTS[:40]))
    with concurrent.futures.ProcessPoolExecutor(6, multiprocessing.get_context("fork")) as pool:
        wrong = [pool.submit(_builds, str(tmp_path)) for _ in range(6)]
        assert [one.result(timeout=120) for one in wrong] == [[]] * 6
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["a.txt", *(f"s{i}" for i in range(15))]
    )


def test_a_build_that_fails_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield from TEXTS
        raise LabError("corpus.jsonl, line 7: not JSON")

    with pytest.raises(LabError, match="line 7"):
        build(broken(), BYTES, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []
    build(iter(TEXTS), BYTES, tmp_path / "s")
    with pytest.raises(LabError, match="line 7"):
        build(broken(), BYTES, tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert sum(map(len, everything(Shards.open(tmp_path / "s")).values())) == 400


def test_what_a_killed_build_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom gpt2lab.text.shards import build\nfrom gpt2lab.text.tokenizer import byte_level\n"
        "def slow():\n    yield 'a' * (1 << 20)\n    print('here', flush=True)\n    time.sleep(60)\n"
        "build(slow(), byte_level(), sys.argv[1])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    assert all(path.name.startswith(".s.") for path in tmp_path.iterdir())
    build(iter(TEXTS), BYTES, tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(
        LabError, match=r"holds no token shards \(thesis.txt is none\); move it away, or give another"
    ):
        build(iter(TEXTS), BYTES, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_nothing_to_encode_and_wrong_fractions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no text to encode"):
        build(iter(["", ""]), BYTES, tmp_path / "s")
    with pytest.raises(LabError, match=r"valid_fraction 1.0: must lie in \[0, 1\)"):
        build(iter(TEXTS), BYTES, tmp_path / "s", valid_fraction=1.0)
    with pytest.raises(LabError, match="a document is a str, got int"):
        build(iter([3]), BYTES, tmp_path / "s")  # type: ignore[arg-type]  # the mistake under test


def _peak(size: int, folder: str, queue: "multiprocessing.Queue[int]") -> None:
    shard_builder._BATCH = 1 << 17
    path = Path(folder) / "a.txt"
    with path.open("w") as handle:
        for i in range(size // 52):
            handle.write(f"Line {i:9d} of a long file that nobody wrote himself\n")
    tokenizer = train_bpe(["Line of a long file that nobody wrote himself 0123456789"] * 3, 300)
    build(path, tokenizer, Path(folder) / "s")
    # VmHWM and not ru_maxrss, which a child takes over from the process that started it
    status = Path("/proc/self/status").read_text()
    queue.put(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024)  # type: ignore[index]  # Linux has it


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status is Linux")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    peaks = []
    for size in (400_000, 1_600_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        queue = context.Queue()
        process = context.Process(target=_peak, args=(size, str(folder), queue))
        process.start()
        peaks.append(queue.get(timeout=120))
        process.join()
    assert peaks[1] < 400, peaks
    assert peaks[1] - peaks[0] < 20, peaks  # MiB; the encodings of all of it at once would take 100


@pytest.mark.parametrize("kind", ["closes texts", "puts a blank before"])
def test_a_document_of_more_than_a_million_characters_has_the_ids_of_the_whole(
    tmp_path: Path, kind: str
) -> None:
    if kind == "closes texts":
        backend = tokenizers.Tokenizer.from_str(BYTES.backend.to_str())
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 256)]
        )
    else:
        backend = tokenizers.Tokenizer(tokenizers.models.BPE({"▁": 0, "o": 1, "n": 2, "e": 3, "</s>": 4}, []))
        backend.normalizer = tokenizers.normalizers.Sequence(
            [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
        )
    tokenizer = Tokenizer(backend, bos=256, eos=256) if kind == "closes texts" else Tokenizer(backend, eos=4)
    text = "one on " * 160_000
    document = build(iter([text]), tokenizer, tmp_path / "s", valid_fraction=0).split("train").document(0)
    whole = tokenizer.encode(text, special=True)
    assert list(document) == (whole if whole[-1] == tokenizer.eos else [*whole, tokenizer.eos])
    assert list(document).count(tokenizer.eos) == (2 if kind == "closes texts" else 1)
