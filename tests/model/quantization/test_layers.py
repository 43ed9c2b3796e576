import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2lab.base.errors import LabError
from gpt2lab.model.experts import ExpertLinear
from gpt2lab.model.quantization import (
    Format,
    QuantizedEmbedding,
    QuantizedExperts,
    QuantizedLinear,
    TiedHead,
)

FORMATS = [
    Format(bits=8),
    Format(),
    Format(scheme="symmetric", group=7),
    Format(scheme="nf4", double_scales=True),
    Format(bits=3, group=7),
    Format(bits=5, scheme="affine"),
]
SHAPES = [(48, 20), (20, 48), (33, 1), (1, 5)]


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    made = nn.Linear(inputs, outputs, bias=bias)
    generator = torch.Generator().manual_seed(inputs + 100 * outputs)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_those_of_the_dequantised_weights(
    how: Format, shape: tuple[int, int], bias: bool
) -> None:
    layer = QuantizedLinear.of(linear(*shape, bias=bias).double(), how)
    weight = layer.dequantise().double()
    x = random(3, 4, shape[0]).requires_grad_()
    upstream = random(3, 4, shape[1], seed=1)
    y = layer(x)
    wanted = x @ weight.T + (layer.bias if bias else 0.0)
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(x.detach()), wanted, rtol=0, atol=1e-12)
    inputs = [x, layer.bias] if bias else [x]
    found = torch.autograd.grad(y, inputs, upstream)
    for ours, theirs in zip(found, torch.autograd.grad(wanted, inputs, upstream), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_it_can_be_differentiated_twice() -> None:
    layer = QuantizedLinear.of(linear(6, 5).double(), Format(group=4))
    x = random(3, 6).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(lambda x: layer(x).tanh(), (x,))


def test_the_backward_pass_keeps_no_weight() -> None:
    layer = QuantizedLinear.of(linear(64, 64, bias=False), Format())
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        layer(random(2, 64, dtype=torch.float32).requires_grad_()).sum().backward()
    assert not kept
    assert not any(parameter.numel() for parameter in layer.parameters())


def test_checkpointing_and_bf16_give_the_same_gradient_within_their_precision() -> None:
    layer = QuantizedLinear.of(linear(48, 32), Format(scheme="nf4", double_scales=True))
    x = random(7, 48, dtype=torch.float32)

    def gradient(kind: torch.dtype, again: bool, auto: bool = False) -> Tensor:
        y = x.to(kind).detach().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=auto):
            out = checkpoint(layer, y, use_reentrant=False) if again else layer(y)
        assert out.dtype is (torch.bfloat16 if auto else kind)
        out.float().square().sum().backward()
        assert y.grad is not None
        assert y.grad.dtype is kind
        return y.grad.float()

    exact = gradient(torch.float32, False)
    assert torch.equal(gradient(torch.float32, True), exact)
    for other in (gradient(torch.bfloat16, False), gradient(torch.float32, False, True)):
        assert (other - exact).norm() < 0.01 * exact.norm()
    assert torch.equal(gradient(torch.float32, True, True), gradient(torch.float32, False, True))


@pytest.mark.parametrize("how", FORMATS)
def test_another_number_type_leaves_the_weights_as_they_are(how: Format) -> None:
    layer = QuantizedLinear.of(linear(48, 20), how)
    before = {name: tensor.clone() for name, tensor in layer.stored().items()}
    moved = copy.deepcopy(layer).to(torch.bfloat16).double().float()
    assert moved.bias.dtype is torch.float32
    for name, tensor in moved.stored().items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype is before[name].dtype
    assert torch.equal(layer.dequantise(), moved.dequantise())


@pytest.mark.parametrize("how", FORMATS)
def test_another_weight_is_rounded_to_the_same_format(how: Format) -> None:
    layer = QuantizedLinear.of(linear(48, 20), how)
    other = linear(48, 20).weight.detach() * 2
    again = layer.requantised(other)
    assert torch.equal(again.dequantise(), QuantizedLinear.of(_with(other), how).dequantise())
    assert again.bias is layer.bias
    assert torch.equal(layer.to_linear().weight, layer.dequantise())
    assert layer.to_linear(torch.bfloat16).weight.dtype is torch.bfloat16


def _with(weight: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight = nn.Parameter(weight)
    return made


@pytest.mark.parametrize("how", FORMATS)
def test_a_table_reads_back_only_the_rows_it_is_asked_for(how: Format) -> None:
    table = nn.Embedding(31, 20)
    with torch.no_grad():
        table.weight.copy_(random(31, 20))
    small = QuantizedEmbedding.of(table, how)
    ids = torch.tensor([[3, 0, 3], [30, 7, 7]])
    assert torch.equal(small(ids), small.dequantise()[ids])
    assert small(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 3, 20)
    assert torch.equal(small.to_embedding()(ids), small(ids))
    for outside in (31, -1):
        with pytest.raises(IndexError):
            small(torch.tensor([[outside]]))


def test_a_tied_head_reads_with_the_table_and_holds_no_codes() -> None:
    table = QuantizedEmbedding.of(nn.Embedding(31, 20), Format())
    head = TiedHead(table, None)
    x = random(2, 20, dtype=torch.float32)
    assert torch.equal(head(x), F.linear(x, table.dequantise()))
    assert torch.equal(head.untied()(x), head(x))
    assert not head.state_dict()
    both = copy.deepcopy(nn.ModuleList([table, head]))
    assert both[1].table is both[0]


@pytest.mark.parametrize("bias", [True, False])
def test_experts_meet_their_own_rows(bias: bool) -> None:
    experts = ExpertLinear(3, 10, 4, bias=bias)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.copy_(random(*parameter.shape))
    small = QuantizedExperts.of(experts, Format(group=4))
    plain = small.to_experts()
    rows = random(5, 10, dtype=torch.float32).requires_grad_()
    for counts in ([2, 0, 3], [0, 5, 0]):
        torch.testing.assert_close(small(rows, counts), plain(rows, counts))
        ours, theirs = (torch.autograd.grad(m(rows, counts).square().sum(), rows)[0] for m in (small, plain))
        torch.testing.assert_close(ours, theirs)
    assert small(rows[:0], [0, 0, 0]).shape == (0, 4)


def test_an_input_of_another_width_is_refused() -> None:
    layer: Any = QuantizedLinear.of(linear(8, 4), Format())
    with pytest.raises(LabError, match="the input is 7 wide, the layer takes 8"):
        layer(torch.zeros(2, 7))
