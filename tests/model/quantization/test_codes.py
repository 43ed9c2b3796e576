import numpy as np
import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.quantization import NF4, Format
from gpt2lab.model.quantization.codes import (
    SCALES_PER_BLOCK,
    dequantise,
    effective_scales,
    empty,
    pack,
    quantise,
    signed_codes,
    unpack,
)
from tests.model.quantization import reference

FORMATS = {
    "int8": Format(bits=8),
    "int8, groups": Format(bits=8, group=5),
    "symmetric": Format(scheme="symmetric", group=16),
    "asymmetric": Format(group=16),
    "nf4": Format(scheme="nf4", group=16),
    "odd groups": Format(group=7),
    "a weight each": Format(group=1),
}
SHAPES = [(9, 48), (48, 9), (1, 33), (33, 1), (5, 65)]
LEVELS = np.array(NF4)


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Weights with a wide row, a one-sided row, a row of zeros and a group of zeros."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 0.1
    weight[0] *= 30
    if rows > 3:
        weight[1] = weight[1].abs() + 0.2
        weight[2] = 0.0
        weight[3, :16] = 0.0
        weight[4, 0] = 4.0  # an outlier
    return weight


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_rounding_is_that_of_the_formulas(name: str, shape: tuple[int, int]) -> None:
    how, weight = FORMATS[name], matrix(*shape)
    wanted = reference.rounded(weight.double().numpy(), how.levels, how.bits, how.width(shape[1]), LEVELS)
    found = dequantise(quantise(weight, how), how, shape[1]).double().numpy()
    # A weight half way between two levels may go to either: then the other one is as far from it.
    apart = ~np.isclose(found, wanted, rtol=1e-6, atol=0)
    distances = np.abs(np.stack([found, wanted]) - weight.double().numpy())[:, apart]
    assert np.allclose(*distances, rtol=1e-4)
    assert apart.mean() < 0.02


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "nf4"])
def test_no_weight_is_off_by_more_than_half_a_step(name: str) -> None:
    how = FORMATS[name]
    for seed in range(5):
        weight = matrix(12, 50, seed)
        stored = quantise(weight, how)
        steps = effective_scales(stored).double().repeat_interleave(how.width(50), 1)[:, :50]
        missed = (dequantise(stored, how, 50).double() - weight.double()).abs()
        assert (missed <= steps / 2 * (1 + 1e-6)).all()
        assert how.group == 1 or (missed > steps / 3).any()  # alone, every weight is met


def test_nf4_is_the_normal_distributions_quantiles() -> None:
    assert np.abs(reference.normal_float_4() - np.array(NF4)).max() < 3e-7  # published from float32
    assert NF4[7] == 0.0
    assert NF4[0] == -1.0 == -NF4[-1]
    assert list(NF4) == sorted(NF4)
    weight = torch.tensor([NF4]) * 0.5
    assert torch.equal(dequantise(quantise(weight, Format(scheme="nf4")), Format(scheme="nf4"), 16), weight)


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "nf4"])
@pytest.mark.parametrize("columns", [48, 33])
def test_what_is_stored_is_read_back_bit_by_bit(scheme: str, columns: int) -> None:
    how = Format(scheme=scheme, group=16)  # type: ignore[arg-type]  # one of the names
    stored = quantise(matrix(7, columns), how)
    assert stored["codes"].shape == (7, -(-columns // 2))
    arrays = {name: tensor.float().numpy() for name, tensor in stored.items()}
    wanted = reference.read_back(arrays, scheme, 16, columns, LEVELS)
    assert np.allclose(dequantise(stored, how, columns).numpy(), wanted, rtol=1e-6, atol=0)
    if scheme != "nf4":
        steps = effective_scales(stored).repeat_interleave(16, 1)[:, :columns]
        assert torch.equal(signed_codes(stored, how, columns) * steps, dequantise(stored, how, columns))


def test_double_scales_are_eight_bits_around_their_mean() -> None:
    how = Format(scheme="nf4", group=16, double_scales=True)
    weight = matrix(40, 160) + 0.3 * torch.randn(40, 160, generator=torch.Generator().manual_seed(9))
    stored = quantise(weight, how)
    assert stored["scale_codes"].dtype == torch.int8
    assert stored["scale_codes"].numel() == 400
    assert len(stored["scale_steps"]) == 2  # blocks of 256
    wanted = reference.double_scales(
        stored["scale_codes"].numpy(),
        stored["scale_steps"].double().numpy(),
        float(stored["scale_mean"]),
        SCALES_PER_BLOCK,
    )
    found = effective_scales(stored)
    assert np.allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-9)
    plain = effective_scales(quantise(weight, Format(scheme="nf4", group=16)))
    steps = stored["scale_steps"].float().repeat_interleave(256)[:400].view(40, 10)
    assert ((found - plain).abs() <= steps * 0.501).all()
    error = {
        name: float((dequantise(quantise(weight, f), f, 160) - weight).norm() / weight.norm())
        for name, f in (("double", how), ("plain", Format(scheme="nf4", group=16)))
    }
    assert error["double"] < 1.05 * error["plain"]


def test_four_bits_are_four_bits() -> None:
    weight = matrix(64, 640)
    for how, bits in (
        (Format(scheme="symmetric"), 4.25),
        (Format(), 4.3125),
        (Format(scheme="nf4"), 4.25),
        (Format(scheme="nf4", double_scales=True), 4.1266),
        (Format(bits=8), 8.025),
    ):
        stored = quantise(weight, how)
        assert 8 * sum(tensor.nbytes for tensor in stored.values()) / weight.numel() == pytest.approx(
            bits, 1e-3
        )
        like = empty(64, 640, how)
        assert {name: (t.shape, t.dtype) for name, t in like.items()} == {
            name: (t.shape, t.dtype) for name, t in stored.items()
        }


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "nf4"])
@pytest.mark.parametrize("shape", [(0, 8), (8, 0), (3, 8), (300, 2)])
def test_zeros_stay_zeros_and_empty_stays_empty(shape: tuple[int, int], scheme: str, double: bool) -> None:
    how = Format(scheme=scheme, double_scales=double)  # type: ignore[arg-type]  # one of the names
    found = dequantise(quantise(torch.zeros(shape), how), how, shape[1])
    assert found.shape == shape
    assert not found.any()


def test_bfloat16_and_float64_weights_are_rounded_as_their_float32_values() -> None:
    how, weight = Format(), matrix(6, 50).to(torch.bfloat16)
    for kind in (torch.bfloat16, torch.float64):
        again = quantise(weight.to(kind), how)
        assert all(
            torch.equal(a, b)
            for a, b in zip(quantise(weight.float(), how).values(), again.values(), strict=True)
        )


def test_pairs_of_codes_share_a_byte() -> None:
    codes = torch.randint(0, 16, (5, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unpack(pack(codes), 9), codes)
    assert pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8)).tolist() == [[0x21, 0x03]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    weight = matrix(5, 8)
    weight[3, 2] = bad
    with pytest.raises(LabError, match="NaN or infinity"):
        quantise(weight, Format())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 3}, "bits must be 4 or 8"),
        ({"bits": 8, "scheme": "nf4"}, "scheme nf4 is for 4 bits"),
        ({"scheme": "nf3"}, "did you mean nf4"),
        ({"group": 0}, "group must be at least 1"),
    ],
)
def test_formats_that_do_not_exist_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        Format(**options)


def test_nf4_has_no_whole_numbers() -> None:
    with pytest.raises(LabError, match="no whole numbers"):
        signed_codes(quantise(matrix(5, 8), Format(scheme="nf4")), Format(scheme="nf4"), 8)
