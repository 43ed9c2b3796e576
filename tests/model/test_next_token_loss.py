"""The loss of the next token against the open formula, row by row without padding, in float64."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model import loss as module
from tests.tiny import CAUSAL, tiny, tokens


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_ROWS", 3)  # so that tests cross the borders of chunks
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", {"cpu": 1})


def reference(model: Transformer, row: Tensor) -> Tensor:
    """-(z_next - ln Σ exp z) at every token of one row but the last."""
    z = model(row[None])[0, :-1]
    return torch.stack([line.exp().sum().log() - line[next_] for line, next_ in zip(z, row[1:], strict=True)])


def padded(rows: list[Tensor], side: str) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    ids, mask = torch.full((len(rows), width), 7), torch.zeros(len(rows), width, dtype=torch.int64)
    for i, row in enumerate(rows):
        part = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, part], mask[i, part] = row, 1
    return ids, mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", CAUSAL)
def test_values_and_gradients_are_those_of_rows_without_padding(family: str, side: str) -> None:
    model = tiny(family).double()
    rows = [tokens(1, length, seed=length)[0] for length in (7, 1, 4, 2)]
    ids, mask = padded(rows, side)
    expected = [reference(model, row) for row in rows if len(row) > 1]
    each = model.next_token_loss(ids, attention_mask=mask, reduction="none")
    assert each.shape == (4, 6)
    assert torch.allclose(each[each != 0], torch.cat(expected), rtol=0, atol=1e-10)
    total = torch.cat(expected).sum()
    for reduction, value in (("sum", total), ("mean", total / 10)):
        ours = model.next_token_loss(ids, attention_mask=mask, reduction=reduction)  # type: ignore[arg-type]  # a Literal
        assert torch.allclose(ours, value, rtol=0, atol=1e-10)
    weights = list(model.parameters())
    ours = torch.autograd.grad(
        model.next_token_loss(ids, attention_mask=mask, reduction="sum"), weights, allow_unused=True
    )
    theirs = torch.autograd.grad(total, weights, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=0, atol=1e-9)


def test_own_targets_count_where_they_are_given() -> None:
    model, ids = tiny("llama").double(), tokens(2, 6)
    targets = torch.where(torch.arange(6) % 3 == 1, -100, ids.roll(2, dims=1))
    log = model(ids).log_softmax(-1)
    expected = -log.gather(-1, targets.clamp_min(0)[..., None])[..., 0] * (targets >= 0)
    each = model.next_token_loss(ids, targets, reduction="none")
    assert each.shape == targets.shape
    assert torch.allclose(each, expected, rtol=0, atol=1e-10)
    assert torch.allclose(model.next_token_loss(ids, targets), expected.sum() / 8, rtol=0, atol=1e-10)


def test_one_token_has_no_target_and_no_gradient() -> None:
    model, ids = tiny("gpt2"), tokens(3, 1)
    assert model.next_token_loss(ids, reduction="none").shape == (3, 0)
    for reduction in ("sum", "mean"):
        loss = model.next_token_loss(ids, reduction=reduction)  # type: ignore[arg-type]  # a Literal
        assert loss == 0 and loss.dtype == torch.float32
        loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_losses_of_a_bf16_model_are_summed_in_float32() -> None:
    ids = tokens(8, 30)
    exact = tiny("gpt2").next_token_loss(ids, reduction="sum")
    rough = tiny("gpt2").bfloat16().next_token_loss(ids, reduction="sum")
    assert rough.dtype == torch.float32
    assert abs(rough - exact) < 0.01 * exact


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, Tensor):
                self.numel = max(self.numel, one.numel())
        return made


def test_the_logits_of_all_places_are_never_held_at_once() -> None:
    model, ids = tiny("gpt2", vocab_size=3000), tokens(4, 20)
    with Largest() as largest:
        model.next_token_loss(ids).backward()
    assert largest.numel < ids.numel() * 3000 / 4 + 3000 * 24


def test_a_bidirectional_model_is_refused() -> None:
    with pytest.raises(LabError, match="predicting the next token needs a causal model"):
        tiny("bert").next_token_loss(tokens(1, 4))
