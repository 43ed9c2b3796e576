import numpy as np
import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.matrices import Form
from gpt2lab.model.quantization import GPTQ, Format
from gpt2lab.model.quantization.codes import dequantise, empty, scale_table, signed_codes
from gpt2lab.model.quantization.gptq import add_inputs
from gpt2lab.model.quantization.rounding import quantise
from tests.model.quantization import reference

SHAPES = [(5, 24), (24, 5), (7, 150), (1, 33), (3, 300)]


def weight_of(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.1


def inputs_of(columns: int, samples: int = 400, seed: int = 1) -> Tensor:
    """Inputs [samples, columns] that depend on each other, of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(samples, columns, generator=generator) @ torch.randn(
        columns, columns, generator=generator
    )
    return (mixed + 0.5) * torch.logspace(0, 1.5, columns)[torch.randperm(columns, generator=generator)]


def hessian_of(inputs: Tensor) -> Tensor:
    made = torch.zeros(inputs.shape[1], inputs.shape[1], dtype=torch.float64)
    for part in inputs.split(150):  # batches add up
        add_inputs(made, part[None])
    return made


def test_the_hessian_is_twice_the_sum_of_products() -> None:
    inputs = inputs_of(9)
    wanted = 2 * inputs.double().T @ inputs.double()
    torch.testing.assert_close(hessian_of(inputs.double()), wanted, rtol=1e-12, atol=0)
    assert (hessian_of(inputs) - wanted).norm() < 1e-6 * wanted.norm()
    rounded = inputs.to(torch.bfloat16)
    assert (hessian_of(rounded) - hessian_of(rounded.double())).norm() < 1e-6 * wanted.norm()


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("shape", SHAPES)
def test_codes_are_those_of_one_column_at_a_time(shape: tuple[int, int], bits: int, act_order: bool) -> None:
    scheme = "asymmetric" if bits % 2 else "symmetric"
    weight, hessian = weight_of(*shape), hessian_of(inputs_of(shape[1]))
    for group in (7, 64, 1000) if bits == 3 else (16,):
        how = Format(bits=bits, scheme=scheme, group=group)  # type: ignore[arg-type]  # one of each
        if how.signed_bytes:
            continue  # the least level there is -127; see the test below
        stored = GPTQ(act_order=act_order).quantise(weight, hessian, how, Form((len(weight),)))
        numbers, values = reference.gptq(
            weight.double().numpy(),
            hessian.numpy(),
            scheme,
            bits,
            how.width(shape[1]),
            act_order=act_order,
            damping=0.01,
        )
        assert np.array_equal(signed_codes(stored, how, shape[1]).numpy(), numbers)
        assert np.allclose(
            dequantise(stored, how, shape[1], Form((shape[0],))).numpy(), values, rtol=1e-6, atol=0
        )
        like = empty(shape[1], how, Form((shape[0],)))
        assert {n: (t.shape, t.dtype) for n, t in like.items()} == {
            n: (t.shape, t.dtype) for n, t in stored.items()
        }


@pytest.mark.parametrize(
    "how",
    [
        Format(bits=2),
        Format(bits=3, group=16),
        Format(bits=3, scheme="affine", group=16),
        Format(bits=4, double_scales=True, group=16),
        Format(bits=8),
        Format(bits=8, scheme="asymmetric"),
    ],
)
@pytest.mark.parametrize("act_order", [False, True])
def test_outputs_are_nearer_than_those_of_the_nearest_levels(how: Format, act_order: bool) -> None:
    weight, inputs = weight_of(24, 80), inputs_of(80)
    form = Form((10, 14))
    by_gptq = GPTQ(act_order=act_order).quantise(weight, hessian_of(inputs), how, form)
    missed = [
        float(((dequantise(stored, how, 80, form) - weight) @ inputs.T).norm())
        for stored in (by_gptq, quantise(weight, how, form))
    ]
    assert missed[0] < 0.9 * missed[1]
    like = empty(80, how, form)
    assert {n: (t.shape, t.dtype) for n, t in like.items()} == {
        n: (t.shape, t.dtype) for n, t in by_gptq.items()
    }


@pytest.mark.parametrize("act_order", [False, True])
def test_a_column_without_inputs_goes_to_the_nearest_levels_and_moves_no_other(act_order: bool) -> None:
    how, form = Format(bits=3, scheme="symmetric", group=100), Form((6,))
    weight, inputs = weight_of(6, 20), inputs_of(20)
    inputs[:, [3, 11]] = 0.0
    stored = GPTQ(act_order=act_order).quantise(weight, hessian_of(inputs), how, form)
    nearest = quantise(weight, how, form)
    assert torch.equal(scale_table(stored, how, 20, form), scale_table(nearest, how, 20, form))
    ours, theirs = (signed_codes(one, how, 20) for one in (stored, nearest))
    assert torch.equal(ours[:, [3, 11]], theirs[:, [3, 11]])
    assert not torch.equal(ours, theirs)
    # The mean of the diagonal, of which damping is a share, counts the columns without inputs.
    numbers, _ = reference.gptq(
        weight.double().numpy(),
        hessian_of(inputs).numpy(),
        "symmetric",
        3,
        20,
        act_order=act_order,
        damping=0.01,
    )
    assert np.array_equal(ours.numpy(), numbers)


def test_independent_inputs_give_the_nearest_levels() -> None:
    how, form = Format(bits=3, group=16), Form((9,))
    weight = weight_of(9, 50)
    for hessian in (torch.eye(50).double() * 3, torch.zeros(50, 50).double()):
        stored = GPTQ().quantise(weight, hessian, how, form)
        assert all(torch.equal(stored[name], tensor) for name, tensor in quantise(weight, how, form).items())


def test_parts_with_inputs_of_their_own_are_rounded_apart() -> None:
    weight, form = weight_of(12, 20), Form((2, 4, 2, 4))  # gate and up of two experts
    hessians = [hessian_of(inputs_of(20, seed=seed)) for seed in (1, 2)]
    for how in (Format(bits=3, group=7), Format(bits=3, scheme="affine"), Format(bits=3, double_scales=True)):
        stored = GPTQ().rounding(hessians)(weight, how, form)
        like = empty(20, how, form)
        assert {n: (t.shape, t.dtype) for n, t in like.items()} == {
            n: (t.shape, t.dtype) for n, t in stored.items()
        }
        found = dequantise(stored, how, 20, form)
        for part, hessian in zip((slice(0, 6), slice(6, 12)), hessians, strict=True):
            alone = GPTQ().quantise(weight[part], hessian, how, Form((2, 4)))
            assert torch.equal(found[part], dequantise(alone, how, 20, Form((2, 4))))


def test_bfloat16_weights_and_empty_ones_are_rounded() -> None:
    weight, hessian = weight_of(4, 20).to(torch.bfloat16), hessian_of(inputs_of(20))
    how = Format(bits=3)
    ours, theirs = (GPTQ().quantise(w, hessian, how, Form((4,))) for w in (weight, weight.float()))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    empty_one = GPTQ().quantise(torch.zeros(0, 20), hessian, how, Form((0,)))
    assert empty_one["codes"].shape == (0, 8)


def test_mistakes_are_refused() -> None:
    weight, hessian, form = weight_of(4, 20), hessian_of(inputs_of(20)), Form((4,))
    with pytest.raises(LabError, match=r"damping must be above 0, got 0; 0.01 is the paper's value"):
        GPTQ(damping=0)
    with pytest.raises(LabError, match=r"needs whole steps, which nf4 has not"):
        GPTQ().quantise(weight, hessian, Format(scheme="nf4"), form)
    with pytest.raises(LabError, match=r"the weight holds NaN"):
        GPTQ().quantise(torch.full((4, 20), float("nan")), hessian, Format(), form)
    with pytest.raises(LabError, match=r"NaN or infinite inputs"):
        GPTQ().quantise(weight, hessian * float("inf"), Format(), form)
    with pytest.raises(LabError, match=r"too much alike for damping=1e-30; raise it"):
        GPTQ(damping=1e-30).quantise(weight, hessian_of(torch.ones(3, 20)), Format(), form)
