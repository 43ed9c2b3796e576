"""The loss on held-out text against a slow float64 computation from whole logits."""

import math

import numpy as np
import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.held_out import HeldOutLoss, held_out_loss, scores_loss, windows_loss
from gpt2lab.measures.scoring import Row, score_rows
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families.gpt2 import gpt2_config
from gpt2lab.text.batches import ArrayTokens, PackedBatches, SequenceBatches

MODEL = Transformer(
    gpt2_config(vocab_size=23, d_model=16, n_layers=2, n_heads=2, max_positions=12, residual_dropout=0.5),
    generator=torch.Generator().manual_seed(1),
).double()
TEXT = torch.randint(23, (100,), generator=torch.Generator().manual_seed(2)).numpy()


def slow(tokens: list[int]) -> np.ndarray:
    """-log p of every id but the first, from whole logits."""
    MODEL.eval()
    with torch.no_grad():
        logits = MODEL(torch.tensor([tokens[:-1]]))[0].numpy()
    return np.array([np.log(np.exp(row).sum()) - row[id] for row, id in zip(logits, tokens[1:], strict=True)])


def test_windows_are_counted_once_and_without_dropout() -> None:
    windows = PackedBatches(ArrayTokens(TEXT), batch_size=3, context=7, shuffle=False)
    losses = np.stack([slow(TEXT[i * 7 : i * 7 + 8].tolist()) for i in range(14)])
    MODEL.train()
    found = windows_loss(MODEL, windows, n_bytes=50)
    assert MODEL.training, "the model is as it was"
    assert found.loss == pytest.approx(losses.mean(), rel=1e-12) and found.tokens == 98
    np.testing.assert_allclose(found.row_nats, losses.sum(1))
    assert found.bits_per_byte == pytest.approx(losses.sum() / math.log(2) / 50)
    assert found.standard_error == pytest.approx(losses.mean(1).std(ddof=1) / math.sqrt(14))
    assert windows_loss(MODEL, windows, most=5).loss == pytest.approx(losses[:5].mean(), rel=1e-12)
    assert math.isnan(HeldOutLoss(1.0, found.row_nats, found.row_tokens).bits_per_byte)


def test_rows_of_all_lengths_agree_whether_scored_or_read_from_batches() -> None:
    rows = [TEXT[i : i + n].tolist() for i, n in ((0, 5), (9, 12), (30, 2), (41, 8))]
    losses = [slow(row) for row in rows]
    batched = held_out_loss(MODEL, SequenceBatches(rows, batch_size=2, shuffle=False))
    scored = scores_loss(score_rows(MODEL, [Row(torch.tensor(row), len(row) - 1) for row in rows]))
    every = np.concatenate(losses)
    for found in (batched, scored):
        assert found.loss == pytest.approx(every.mean()) and found.tokens == len(every)
        assert found.row_loss == pytest.approx(np.mean([row.mean() for row in losses]))
        apart = [row.sum() - every.mean() * len(row) for row in losses]
        assert found.standard_error == pytest.approx(math.sqrt(4 / 3 * np.square(apart).sum()) / len(every))


def test_the_standard_error_is_the_spread_of_the_loss_over_draws_of_rows() -> None:
    draw = np.random.default_rng(0)
    tokens = draw.integers(1, 40, (4000, 50)).astype(float)
    nats = tokens * (2 + draw.normal(size=(4000, 50))) + draw.normal(size=(4000, 50))
    losses = nats.sum(1) / tokens.sum(1)
    said = np.mean([HeldOutLoss(n.sum(), n, t).standard_error for n, t in zip(nats, tokens, strict=True)])
    assert said == pytest.approx(losses.std(), rel=0.05)


def test_a_row_without_targets_counts_for_nothing_and_nothing_at_all_is_refused() -> None:
    batch = {
        "tokens": torch.tensor([[1, 2, 3], [4, 5, 6]]),
        "targets": torch.tensor([[2, -100, 4], [-100] * 3]),
    }
    found = held_out_loss(MODEL, [batch])
    assert found.tokens == 2 and len(found.row_nats) == 1 and math.isnan(found.standard_error)
    with pytest.raises(LabError, match="no token to predict"):
        held_out_loss(MODEL, [{**batch, "targets": torch.full((2, 3), -100)}])
    with pytest.raises(LabError, match="no token to predict"):
        scores_loss([])
