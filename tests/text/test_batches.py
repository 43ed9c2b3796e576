import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lab.base.errors import LabError
from gpt2lab.text.batches import ArrayTokens, PackedBatches, SequenceBatches
from gpt2lab.text.permutation import Permutation
from gpt2lab.text.shards import build
from gpt2lab.text.tokenizer import byte_level

STREAM = ArrayTokens(range(1000))
ROWS = [list(range(10 * i, 10 * i + 2 + i % 7)) for i in range(23)]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 5000), st.text(max_size=5))
def test_a_permutation_takes_each_index_to_another_place_exactly_once(n: int, key: str) -> None:
    assert sorted(Permutation(n, key)(np.arange(n)).tolist()) == list(range(n))


def test_permutations_are_spread_and_differ_by_key() -> None:
    n, keys = 60, 3000
    landed = np.zeros((n, n))
    for key in range(keys):
        landed[np.arange(n), Permutation(n, str(key))(np.arange(n))] += 1
    expected = keys / n
    chi2 = ((landed - expected) ** 2 / expected).sum()
    freedom = (n - 1) ** 2
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)
    neighbours = np.diff(Permutation(100_000, "a")(np.arange(100_000)))
    assert np.abs(neighbours).mean() == pytest.approx(100_000 / 3, rel=0.02)


def test_a_permutation_of_a_billion_needs_no_memory() -> None:
    started = time.perf_counter()
    found = Permutation(10**9 + 7, "x")(np.arange(0, 10**9, 10**6))
    assert len(set(found.tolist())) == 1000
    assert time.perf_counter() - started < 0.1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 40))
def test_a_batch_depends_on_data_seed_and_number_alone(
    index: int, seed: int, size: int, context: int
) -> None:
    used = PackedBatches(STREAM, batch_size=size, context=context, seed=seed)
    for other in (0, 5, index + 1):
        used[other]
    fresh = PackedBatches(STREAM, batch_size=size, context=context, seed=seed)
    for name in ("tokens", "targets"):
        assert torch.equal(used[index][name], fresh[index][name])


def test_targets_are_the_next_tokens_and_every_window_comes_once_an_epoch() -> None:
    batches = PackedBatches(STREAM, batch_size=4, context=10, seed=3)
    assert (len(batches), batches.windows, batches.tokens_per_batch) == (25, 100, 40)
    for epoch in range(3):
        rows = torch.cat([batches[25 * epoch + i]["tokens"] for i in range(25)])
        assert sorted(rows.flatten().tolist()) == list(range(1000))
        targets = torch.cat([batches[25 * epoch + i]["targets"] for i in range(25)])
        assert torch.equal(targets, (rows + 1) % 1000)
    assert batches.epoch(25) == 1.0
    assert batches[0]["tokens"].dtype == torch.int64
    assert batches[0]["tokens"].is_contiguous()


def test_epochs_cut_at_other_places_and_in_another_order() -> None:
    batches = PackedBatches(STREAM, batch_size=100, context=10)
    starts = [batches[epoch]["tokens"][:, 0] % 10 for epoch in range(20)]
    assert all(len(set(offsets.tolist())) == 1 for offsets in starts)
    assert len({int(offsets[0]) for offsets in starts}) > 5
    assert not torch.equal(batches[0]["tokens"].argsort(0), batches[1]["tokens"].argsort(0))
    other = PackedBatches(STREAM, batch_size=100, context=10, seed=1)
    assert not torch.equal(batches[0]["tokens"], other[0]["tokens"])


def test_the_sequence_of_windows_does_not_depend_on_the_batch_size() -> None:
    def rows(size: int) -> torch.Tensor:
        batches = PackedBatches(STREAM, batch_size=size, context=7, seed=5)
        return torch.cat([batches[i]["tokens"] for i in range(420 // size)])

    assert torch.equal(rows(1), rows(5))
    assert torch.equal(rows(1), rows(42))


@pytest.mark.parametrize("kind", ["packed", "sequences"])
def test_processes_share_the_rows_of_the_single_process_batch(kind: str) -> None:
    def batches(rank: int, world: int) -> PackedBatches | SequenceBatches:
        if kind == "packed":
            return PackedBatches(STREAM, batch_size=6, context=8, seed=2, rank=rank, world=world)
        return SequenceBatches(ROWS, batch_size=6, seed=2, rank=rank, world=world)

    whole = batches(0, 1)
    for world in (2, 3):
        parts = [batches(rank, world) for rank in range(world)]
        for i in (0, 1, 17, 400):
            for rank, part in enumerate(parts):
                expected = whole[i]["targets"][rank::world]
                got = part[i]["targets"]
                assert torch.equal(expected[:, : got.shape[1]], got)
                assert (expected[:, got.shape[1] :] == -100).all()


def test_without_shuffling_the_text_comes_in_order() -> None:
    batches = PackedBatches(STREAM, batch_size=2, context=10, shuffle=False)
    assert batches[0]["tokens"].flatten().tolist() == list(range(20))
    assert [int(batch["tokens"][0, 0]) for batch in batches] == list(range(0, 1000, 20))


def test_windows_of_shards_are_the_text(tmp_path: Path, story: str) -> None:
    tokenizer = byte_level()
    shards = build(
        iter([story, story[::-1]] * 20), tokenizer, tmp_path / "s", valid_fraction=0, shard_tokens=900
    )
    split = shards.split("train")
    whole = split.read(0, len(split))
    ring = np.concatenate([whole, whole])
    batches = PackedBatches(shards, batch_size=3, context=50)
    found = torch.cat([batch["tokens"] for batch in batches]).numpy()
    for row in found[:20]:
        assert any((ring[i : i + 50] == row).all() for i in range(len(whole)))


def test_sequences_are_padded_on_the_right_and_padding_has_no_target() -> None:
    batches = SequenceBatches(ROWS, batch_size=5, pad=99, seed=1)
    seen = []
    for i in range(23):
        batch = batches[i]
        for tokens, targets, mask in zip(
            *(batch[k] for k in ("tokens", "targets", "attention_mask")), strict=True
        ):
            n = int(mask.sum())
            assert mask.tolist() == [True] * n + [False] * (len(mask) - n)
            assert (tokens[n:] == 99).all()
            assert (targets[n:] == -100).all()
            seen.append([*tokens[:n].tolist(), int(targets[n - 1])])
            assert targets[:n].tolist() == seen[-1][1:]
    assert sorted(seen) == sorted(ROWS * 5)
    assert len(batches) == 5
    assert "attention_mask" not in SequenceBatches(ROWS, batch_size=5, attention_mask=False)[0]


def test_long_sequences_are_cut_and_counted_and_prompts_carry_no_loss() -> None:
    rows = [list(range(8)), [1, 2, 3]]
    batches = SequenceBatches(rows, batch_size=2, context=4, loss_from=[3, 0], shuffle=False)
    assert batches.truncated == 1
    assert batches[0]["tokens"].tolist() == [[0, 1, 2, 3], [1, 2, 0, 0]]
    assert batches[0]["targets"].tolist() == [[-100, -100, 3, 4], [2, 3, -100, -100]]


def test_documents_of_shards_are_sequences(tmp_path: Path) -> None:
    texts = ["a", "bcd", "ef"]
    split = build(iter(texts), byte_level(), tmp_path / "s", valid_fraction=0).split("train")
    batch = SequenceBatches(split, batch_size=3, shuffle=False)[0]
    assert batch["tokens"].tolist() == [[97, 0, 0], [98, 99, 100], [101, 102, 0]]
    assert batch["targets"].tolist() == [[256, -100, -100], [99, 100, 256], [102, 256, -100]]


def test_a_batch_of_4096_tokens_takes_well_below_a_millisecond(tmp_path: Path) -> None:
    stream = ArrayTokens(np.arange(2_000_000) % 50_000)
    batches = PackedBatches(stream, batch_size=16, context=256)
    batches[0]
    best = min(_seconds(batches, start) for start in range(0, 1000, 20))
    assert best < 1e-3


def _seconds(batches: PackedBatches, start: int) -> float:
    started = time.perf_counter()
    for i in range(start, start + 20):
        batches[i]
    return (time.perf_counter() - started) / 20


def test_wrong_sizes_are_refused_in_one_sentence() -> None:
    for call, message in [
        (
            lambda: PackedBatches(STREAM, batch_size=2, context=1000),
            "has 1000 tokens, a window takes 1000 and one",
        ),
        (lambda: PackedBatches(STREAM, batch_size=0, context=10), "batch_size 0: must be at least 1"),
        (lambda: PackedBatches(STREAM, batch_size=2, context=0), "context 0: must be at least 1"),
        (
            lambda: PackedBatches(STREAM, batch_size=3, context=9, world=2),
            "must be a multiple of the 2 processes",
        ),
        (
            lambda: PackedBatches(STREAM, batch_size=2, context=9, rank=2, world=2),
            r"rank 2: must lie in \[0, 2\)",
        ),
        (lambda: SequenceBatches([], batch_size=1), "no sequences"),
        (lambda: SequenceBatches([[1, 2], [1]], batch_size=1), "sequence 1 has 1 ids"),
        (lambda: SequenceBatches([[1, 2]], batch_size=1, loss_from=[1, 2]), "loss_from has 2 entries for 1"),
    ]:
        with pytest.raises(LabError, match=message):
            call()
    with pytest.raises(IndexError, match="numbered from 0"):
        PackedBatches(STREAM, batch_size=2, context=9)[-1]


def test_the_smallest_stream_that_fills_a_window_works() -> None:
    batches = PackedBatches(ArrayTokens(range(5)), batch_size=3, context=4)
    assert batches.windows == 1
    assert batches[0]["tokens"].shape == (3, 4)
    assert batches[7]["targets"].shape == (3, 4)
