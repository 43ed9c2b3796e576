"""Hidden tokens: how many, which, what stands in their place, and that it is a function of seed and number alone."""

import math

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model.loss import IGNORE
from gpt2lab.text.batches import ArrayTokens, MaskedBatches, PackedBatches, SequenceBatches

MASK, WORDS = 99, 100


def masked(seed: int = 0, rows: int = 8, context: int = 40, **options) -> MaskedBatches:
    """Windows over the ids 2 … 97, which all say where they come from."""
    stream = ArrayTokens([2 + i % 96 for i in range(5000)])
    batches = PackedBatches(stream, batch_size=rows, context=context, seed=1)
    return MaskedBatches(batches, mask=MASK, vocab_size=WORDS, seed=seed, **{"special": [0, 1], **options})


def test_fifteen_percent_of_each_row_are_chosen_and_the_targets_are_what_stood_there():
    batches = masked()
    for index in range(5):
        batch, plain = batches[index], batches.batches[index]["tokens"]
        chosen = batch["targets"] != IGNORE
        assert (chosen.sum(1) == 6).all()  # 15 % of 40
        assert torch.equal(batch["targets"][chosen], plain[chosen])
        assert torch.equal(batch["tokens"][~chosen], plain[~chosen])


def test_of_the_chosen_80_percent_are_masked_10_random_and_10_as_they_were():
    batches = masked(rows=100, context=100)
    masks = kept = drawn = total = 0
    for index in range(6):
        batch = batches[index]
        chosen = batch["targets"] != IGNORE
        now, before = batch["tokens"][chosen], batch["targets"][chosen]
        total += len(now)
        masks += int((now == MASK).sum())
        kept += int((now == before).sum())
        drawn += int(((now != MASK) & (now != before)).sum())
        assert not set(now.tolist()) & {0, 1}  # special tokens are not drawn
    assert total == 9000
    # The counts are binomial; six standard deviations.
    for count, share in ((masks, 0.8), (kept, 0.1 + 0.1 / 97), (drawn, 0.1 * 96 / 97)):
        assert abs(count - total * share) < 6 * math.sqrt(total * share * (1 - share))


def test_every_place_is_chosen_equally_often():
    batches = masked(rows=100, context=20)
    counts = sum((batches[i]["targets"] != IGNORE).sum(0) for i in range(20))
    expected = 20 * 100 * 3 / 20
    assert ((counts - expected).abs() < 6 * math.sqrt(expected * 0.85)).all()


def test_a_batch_is_a_function_of_seed_and_number():
    first, again, other = masked(seed=3), masked(seed=3), masked(seed=4)
    second = first[7]
    first[2]
    for name in ("tokens", "targets"):
        assert torch.equal(first[7][name], second[name])
        assert torch.equal(again[7][name], second[name])
    assert not torch.equal(other[7]["targets"], second["targets"])
    assert not torch.equal(first[8]["targets"] == IGNORE, second["targets"] == IGNORE)


def test_the_global_generator_and_the_wrapped_batch_are_left_alone():
    state = torch.get_rng_state()
    batches = masked()
    before = batches.batches[0]["tokens"].clone()
    batches[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batches.batches[0]["tokens"], before)


def test_padding_and_special_tokens_are_never_chosen_and_short_rows_lose_one_token():
    rows = [[0, 5, 6, 1], [0, 7, 1], [0, *range(10, 60), 1], [0, 1, 0, 1]]
    batches = MaskedBatches(
        SequenceBatches(rows, batch_size=4, shuffle=False), mask=MASK, vocab_size=WORDS, special=[0, 1]
    )
    batch = batches[0]
    chosen = batch["targets"] != IGNORE
    assert chosen.sum(1).tolist() == [1, 1, 8, 0]  # round(0.15 · 50) = 8; a row of special tokens has none
    assert not (chosen & ~batch["attention_mask"]).any()
    assert (batch["targets"][chosen] >= 5).all()


def test_other_fields_pass_through():
    class Plain:
        def __getitem__(self, index: int):
            return {"tokens": torch.full((2, 9), 5), "token_types": torch.ones(2, 9)}

    batch = MaskedBatches(Plain(), mask=9, vocab_size=10)[0]
    assert set(batch) == {"tokens", "targets", "token_types"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": 10}, "mask token 10: outside the vocabulary of 10 ids"),
        ({"share": 0.0}, "share 0.0: how much is hidden must lie between 0 and 1"),
        ({"special": range(10)}, "all 10 ids are special tokens"),
    ],
)
def test_what_cannot_be_masked_is_refused(options, message):
    with pytest.raises(LabError, match=message):
        MaskedBatches([], **{"mask": 9, "vocab_size": 10, **options})
