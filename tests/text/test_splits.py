"""One splitter for everyone: parts by hash, time, group and position, and folds that leave one group out."""

import hashlib
import random
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.base.errors import LabError
from gpt2lab.text import splits
from gpt2lab.text.records import records
from gpt2lab.text.splits import HashRule, PositionRule, by_group, by_hash, by_position, by_time, leave_one_out

TEXTS = [f"text {i}" for i in range(2000)]
SIZES = {"valid": 0.1, "test": 0.2}


def test_a_part_depends_on_the_text_alone() -> None:
    parts = by_hash(TEXTS, SIZES, key=str)
    assert Counter(len(p) > 0 for p in parts.values()) == {True: 3}
    assert abs(len(parts["valid"]) - 200) < 60 and abs(len(parts["test"]) - 400) < 80
    changed = [f"new {i}" for i in range(500)] + TEXTS[::-1][:1000]
    again = by_hash(changed, SIZES, key=str)
    side = {text: name for name, part in parts.items() for text in part}
    for name, part in again.items():
        assert all(side.get(text, name) == name for text in part)
    assert by_hash(TEXTS * 2, SIZES, key=str)["test"] == parts["test"] * 2, (
        "equal texts on one side, in order"
    )


@pytest.mark.parametrize(
    ("rule", "slow"),
    [
        (HashRule(), lambda t: int.from_bytes(hashlib.blake2b(t, digest_size=8).digest(), "little") / 2**64),
        (
            HashRule("sha256", size=4, order="big"),
            lambda t: int.from_bytes(hashlib.sha256(t).digest()[:4], "big") / 2**32,
        ),
        (
            HashRule("sha256", order="big", salt="s 1"),
            lambda t: int(hashlib.sha256(b"s 1\n" + t).hexdigest()[:16], 16) / 2**64,
        ),
        (
            HashRule(order="big", modulus=10),
            lambda t: int(hashlib.blake2b(t, digest_size=8).hexdigest(), 16) % 10 / 10,
        ),
    ],
)
def test_the_parts_are_those_of_the_written_rule(rule: HashRule, slow) -> None:
    parts = by_hash(TEXTS, SIZES, key=str, rule=rule)
    assert parts["valid"] == [t for t in TEXTS if slow(t.encode()) < 0.1]
    assert parts["test"] == [t for t in TEXTS if 0.1 <= slow(t.encode()) < 0.1 + 0.2]


def test_half_a_character_is_a_text_like_others() -> None:
    assert HashRule().number("a\ud83d") != HashRule().number("a?")


def test_counts_take_the_lowest_hashes() -> None:
    parts = by_hash(TEXTS * 2, {"valid": 7, "test": 5}, key=str)
    ordered = sorted(TEXTS, key=HashRule().number)
    assert set(parts["valid"]) == set(ordered[:7]) and len(parts["valid"]) == 14
    assert set(parts["test"]) == set(ordered[7:12])


def test_each_stratum_keeps_its_share() -> None:
    rows = [
        (f"{label} {i}", label) for label, n in (("a", 100), ("b", 10), ("c", 2), ("d", 1)) for i in range(n)
    ]
    parts = by_hash(rows, {"valid": 0.2, "test": 0.1}, key=lambda row: row[0], stratum=lambda row: row[1])
    counts = {name: Counter(label for _, label in part) for name, part in parts.items()}
    assert counts["valid"] == {"a": 20, "b": 2, "c": 1} and counts["test"] == {"a": 10, "b": 1}
    assert counts["train"] == {"a": 70, "b": 7, "c": 1, "d": 1}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=60))
def test_no_text_stands_in_two_parts(rows: list[tuple[int, int]]) -> None:
    for split in (
        lambda: by_hash(rows, SIZES, key=lambda r: str(r[0]), stratum=lambda r: r[1]),
        lambda: by_time(rows, SIZES, key=lambda r: str(r[0]), time=lambda r: r[1]),
        lambda: by_group(rows, {"valid": 1}, group=lambda r: str(r[1]), key=lambda r: str(r[0])),
    ):
        try:
            parts = split()
        except LabError:  # too few
            continue
        assert sorted(row for part in parts.values() for row in part) == sorted(rows)
        seen = [text for part in parts.values() for text in {row[0] for row in part}]
        assert len(seen) == len(set(seen))


def test_time_goes_forward_and_a_moment_stays_together() -> None:
    start = datetime(2026, 1, 1)
    rows = [(f"t{i}", (start + timedelta(days=i // 3)).isoformat()) for i in range(100)]
    random.Random(0).shuffle(rows)
    parts = by_time(rows, SIZES, key=lambda r: r[0], time=lambda r: r[1])
    last = {name: (min(r[1] for r in part), max(r[1] for r in part)) for name, part in parts.items()}
    assert last["train"][1] < last["valid"][0] <= last["valid"][1] < last["test"][0]
    assert 17 < len(parts["test"]) <= 20 and 6 < len(parts["valid"]) <= 12
    assert parts["train"] == [row for row in rows if row in parts["train"]], "items keep their order"
    returns = by_time([*rows, ("t0", "2030-01-01")], SIZES, key=lambda r: r[0], time=lambda r: r[1])
    assert sum(r[0] == "t0" for r in returns["train"]) == 2, "a text that returns counts where it stood first"


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ([1, 2, "2026-01-01"], "cannot be compared"),
        (["2026-01-01", "2026-01-02T00:00:00+00:00", "2026-01-03"], "cannot be compared"),
        ([1, 2, None], "no time"),
        ([1, 2, "soon"], "'soon' is no time"),
        ([1, 2, float("nan")], "no time"),
        ([1, 2, "inf"], "no time"),
        ([5, 5, 5], "too few for this split: nothing is left for valid; give more items, or other shares"),
    ],
)
def test_times_that_cannot_be_split_are_refused(times: list[object], reason: str) -> None:
    with pytest.raises(LabError, match=reason):
        by_time(list(enumerate(times)), {"valid": 1}, key=lambda r: str(r[0]), time=lambda r: r[1])


def test_groups_stay_whole_and_those_with_a_common_text_are_one() -> None:
    rows = [(f"{g}/{i}", f"g{g}") for g in range(40) for i in range(3)]
    parts = by_group(rows, {"valid": 0.3}, group=lambda r: r[1])
    assert not {r[1] for r in parts["train"]} & {r[1] for r in parts["valid"]}
    linked = [*rows, ("0/0", "g1"), ("1/1", "g2")]
    parts = by_group(linked, {"valid": 5}, group=lambda r: r[1], key=lambda r: r[0])
    for part in parts.values():
        assert len({"g0", "g1", "g2"} & {r[1] for r in part}) in (0, 3)


def test_positions_are_held_out_one_in_so_many() -> None:
    parts = by_position(range(10), PositionRule(4, 1))
    assert parts == {"valid": [1, 5, 9], "train": [0, 2, 3, 4, 6, 7, 8]}
    with pytest.raises(LabError, match="0 ≤ at < every, got 3 and 3"):
        PositionRule(3, 3)
    with pytest.raises(LabError, match="nothing is left for valid"):
        by_position(range(1), PositionRule(4, 1))


def test_each_group_is_left_out_once() -> None:
    rows = [("x", "b"), ("y", "a"), ("x", "a"), ("z", "c")]
    folds = list(leave_one_out(rows, group=lambda r: r[1], key=lambda r: r[0]))
    assert [fold.name for fold in folds] == ["a", "b", "c"]
    assert folds[0].held_out == [("y", "a"), ("x", "a")] and folds[0].train == [("z", "c")]
    assert folds[1].held_out == [("x", "b")] and folds[1].train == [("y", "a"), ("z", "c")]
    assert list(leave_one_out(rows, group=lambda r: r[1]))[1].train == [("y", "a"), ("x", "a"), ("z", "c")]
    with pytest.raises(LabError, match="at least two, found 1"):
        next(leave_one_out(rows[:1], group=lambda r: r[1]))
    with pytest.raises(LabError, match="group 'a' holds every text"):
        next(leave_one_out([("x", "a"), ("x", "b")], group=lambda r: r[1], key=lambda r: r[0]))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({}, "name the held-out parts"),
        ({"train": 0.5}, "train takes the rest"),
        ({"valid": 0.0}, "valid: a size is a share between 0 and 1 or a whole number"),
        ({"valid": 1.0}, "got 1.0"),
        ({"valid": -1}, "got -1"),
        ({"valid": 0.6, "test": 0.4}, "take 1 of the data"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(sizes: dict[str, float], reason: str) -> None:
    with pytest.raises(LabError, match=reason):
        by_hash(TEXTS, sizes, key=str)


def test_empty_parts_are_refused() -> None:
    with pytest.raises(LabError, match="1 items are too few for this split: nothing is left for valid"):
        by_hash(["a"], {"valid": 1}, key=str)
    with pytest.raises(LabError, match="nothing is left for valid and train"):
        by_hash([], {"valid": 0.5}, key=str)


def test_rows_are_split_by_their_fields_and_a_missing_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,day,author\na,2026-01-02,x\nb,2026-01-01,y\nc,2026-01-03,x\n")
    rows = list(records(file))
    parts = by_time(rows, {"test": 1}, key=splits.field("text"), time=splits.field("day"))
    assert [row["text"] for _, row in parts["test"]] == ["c"]
    with pytest.raises(LabError, match=r"rows.csv, line 2.*autor"):
        by_group(rows, {"test": 1}, group=splits.field("autor"))
    file.write_text("text,day,author\na,2026-01-02,x\nb,,y\n")
    with pytest.raises(LabError, match=r"line 3: field 'day' is empty"):
        by_time(list(records(file)), {"test": 1}, key=splits.field("text"), time=splits.field("day"))
