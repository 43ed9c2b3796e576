import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.matrices import Form
from gpt2lab.model.quantization import Format
from gpt2lab.model.quantization.bits import pack, packed_width, unpack
from gpt2lab.model.quantization.codes import dequantise, empty, scale_table, signed_codes
from gpt2lab.model.quantization.rounding import quantise
from tests.model.quantization import reference

FORMATS = {
    "int8": Format(bits=8),
    "int8, groups": Format(bits=8, group=5),
    "symmetric": Format(scheme="symmetric", group=16),
    "asymmetric": Format(group=16),
    "affine": Format(scheme="affine", group=16),
    "affine, odd groups": Format(scheme="affine", group=7),
    "odd groups": Format(group=7),
    "a weight each": Format(group=1),
    **{
        f"{scheme}, {bits} bits": Format(bits=bits, scheme=scheme, group=16)  # type: ignore[arg-type]  # one of each
        for bits in range(2, 9)
        for scheme in ("symmetric", "asymmetric", "affine")
    },
}
SHAPES = [(9, 48), (48, 9), (1, 33), (33, 1), (5, 65)]


def read(weight: Tensor, how: Format) -> Tensor:
    """Round a matrix and read it back."""
    return dequantise(quantise(weight, how), how, weight.shape[1], Form((len(weight),)))


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
    wanted = reference.rounded(weight.double().numpy(), how.levels, how.bits, how.width(shape[1]))
    found = read(weight, how).double().numpy()
    # A weight half way between two levels may go to either: then the other one is as far from it.
    apart = ~np.isclose(found, wanted, rtol=1e-6, atol=0)
    distances = np.abs(np.stack([found, wanted]) - weight.double().numpy())[:, apart]
    assert np.allclose(*distances, rtol=1e-4)
    assert apart.mean() < 0.02


@pytest.mark.parametrize("name", FORMATS)
def test_no_weight_is_off_by_more_than_half_a_step(name: str) -> None:
    how = FORMATS[name]
    for seed in range(5):
        weight = matrix(12, 50, seed)
        stored = quantise(weight, how)
        steps = scale_table(stored, how, 50, Form((12,))).double().repeat_interleave(how.width(50), 1)[:, :50]
        missed = (read(weight, how).double() - weight.double()).abs()
        # An affine group's ends are rounded to float16: each of its steps at 2^-12, and its minimum's own.
        more = (
            2 ** (how.bits - 12) * steps + weight.abs() * 2**-11 if how.levels == "affine" else 1e-6 * steps
        )
        assert (missed <= steps / 2 + more).all()
        assert how.group == 1 or (missed > steps / 3).any()  # alone, every weight is met


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "affine"])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("columns", [48, 33])
def test_what_is_stored_is_read_back_bit_by_bit(scheme: str, bits: int, columns: int) -> None:
    how = Format(bits=bits, scheme=scheme, group=16)  # type: ignore[arg-type]  # one of the names
    stored = quantise(matrix(7, columns), how)
    assert stored["codes"].shape == (7, -(-columns * bits // 8))
    arrays = {name: tensor.float().numpy() for name, tensor in stored.items()}
    if how.signed_bytes:
        arrays["codes"] += 128  # level 0 is code 128 there
    wanted = reference.read_back(arrays, scheme, bits, 16, columns)
    found = dequantise(stored, how, columns, Form((7,)))
    assert np.allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-7 if scheme == "affine" else 0)
    some = torch.tensor([6, 2, 2])
    assert torch.equal(dequantise(stored, how, columns, Form((7,)), some), found[some])
    if scheme != "affine" and how.fits_int8:
        steps = scale_table(stored, how, columns, Form((7,))).repeat_interleave(16, 1)[:, :columns]
        assert torch.equal(signed_codes(stored, how, columns) * steps, found)


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_double_scales_cost_a_twentieth_of_the_error_at_most(scheme: str) -> None:
    weight = matrix(40, 160) + 0.3 * torch.randn(40, 160, generator=torch.Generator().manual_seed(9))
    error = [
        float((read(weight, Format(scheme=scheme, double_scales=double)) - weight).norm())  # type: ignore[arg-type]  # a name
        for double in (False, True)
    ]
    assert error[1] < 1.05 * error[0]


@pytest.mark.parametrize("size", [2.0**-100, 2.0**-20, 1.0, 2.0**20, 2.0**100])
def test_weights_that_lie_on_sixteen_levels_in_groups_come_back_as_they_were(size: float) -> None:
    """As those of a GGUF file in Q4_1 do: groups of 32, scale and minimum in float16."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (12, 3, 32), generator=generator)
    codes[..., 0], codes[..., 5] = 0, 15  # the ends of a group are among its weights
    scales = torch.rand(12, 3, 1, generator=generator).half().float()
    minima = -torch.rand(12, 3, 1, generator=generator).half().float()
    weight = ((codes * scales + minima) * size).flatten(1)
    error = {}
    for scheme in ("affine", "asymmetric"):
        found = read(weight, Format(scheme=scheme, group=32))  # type: ignore[arg-type]  # one of the names
        error[scheme] = float(((found - weight) / size).norm() / (weight / size).norm())
    assert error["affine"] < 1e-6
    assert error["asymmetric"] > 0.03


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_weights_of_a_gguf_file_come_back_as_they_were(kind: str) -> None:
    drawn = np.random.default_rng(0).normal(0, [[0.05], [3.0]] * 4, (8, 96)).astype(np.float32)
    drawn[3, :32] = 0
    type_ = gguf.GGMLQuantizationType[kind]
    weight = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(drawn, type_), type_))
    assert torch.equal(read(weight, Format(bits=int(kind[1]), scheme="affine", group=32)), weight)  # type: ignore[arg-type]  # 4, 5 or 8


def test_so_many_bits_are_so_many_bits() -> None:
    weight = matrix(64, 640)
    for how, bits in (
        (Format(scheme="symmetric"), 4.25),
        (Format(), 4.3125),
        (Format(scheme="affine"), 4.5008),
        (Format(scheme="nf4"), 4.5),
        (Format(scheme="nf4", double_scales=True), 4.1285),
        (Format(double_scales=True), 4.191),
        (Format(bits=8), 8.025),
        (Format(bits=2), 2.2875),  # a zero point has as many bits as a weight, rows of 10 groups whole bytes
        (Format(bits=3, scheme="symmetric"), 3.25),
        (Format(bits=5), 5.3375),
        (Format(bits=6, scheme="affine"), 6.5008),
        (Format(bits=7, scheme="symmetric", group=640), 7.025),
        (Format(bits=8, scheme="asymmetric", group=640), 8.0375),
    ):
        stored = quantise(weight, how)
        assert 8 * sum(tensor.nbytes for tensor in stored.values()) / weight.numel() == pytest.approx(
            bits, 1e-3
        )
        like = empty(640, how, Form((64,)))
        assert {name: (t.shape, t.dtype) for name, t in like.items()} == {
            name: (t.shape, t.dtype) for name, t in stored.items()
        }


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "affine", "nf4"])
@pytest.mark.parametrize("shape", [(0, 8), (8, 0), (3, 8), (300, 2)])
def test_zeros_stay_zeros_and_empty_stays_empty(shape: tuple[int, int], scheme: str, double: bool) -> None:
    how = Format(scheme=scheme, double_scales=double and scheme != "affine")  # type: ignore[arg-type]  # one of the names
    found = read(torch.zeros(shape), how)
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


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("columns", [0, 1, 7, 8, 9, 33])
def test_codes_are_a_stream_of_bits_in_each_row(bits: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 1 << bits, (5, columns), dtype=torch.uint8, generator=generator)
    packed = pack(codes, bits)
    assert packed.shape == (5, packed_width(columns, bits)) == (5, -(-columns * bits // 8))
    assert [reference.codes_in(row, bits, columns) for row in packed.numpy()] == codes.tolist()
    assert torch.equal(unpack(packed, columns, bits), codes)
    assert unpack(packed[:0], columns, bits).shape == (0, columns)


def test_of_two_codes_in_a_byte_the_first_is_in_the_lower_half() -> None:
    assert pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8), 4).tolist() == [[0x21, 0x03]]
    assert pack(torch.tensor([[1, 7, 4]], dtype=torch.uint8), 3).tolist() == [[0b00_111_001, 0b1]]


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_row_of_one_number_keeps_it(bits: int) -> None:
    for scheme in ("symmetric", "asymmetric", "affine"):
        how = Format(bits=bits, scheme=scheme, group=5)  # type: ignore[arg-type]  # one of each
        for size in (0.0, 3.0, -0.7):
            found = read(torch.full((1, 13), size), how)
            torch.testing.assert_close(found, torch.full((1, 13), size), rtol=2**-7, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    weight = matrix(5, 8)
    weight[3, 2] = bad
    with pytest.raises(LabError, match="NaN or infinity"):
        quantise(weight, Format())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits must be a whole number from 2 to 8, got 1"),
        ({"bits": 9}, "bits must be a whole number from 2 to 8, got 9"),
        ({"bits": 8, "scheme": "nf4"}, "scheme nf4 has 16 levels, which are 4 bits"),
        ({"scheme": "affine", "double_scales": True}, "one number a group; affine has two"),
        ({"scheme": "nf3"}, "did you mean nf4"),
        ({"group": 0}, "group must be at least 1"),
    ],
)
def test_formats_that_do_not_exist_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        Format(**options)


@pytest.mark.parametrize("scheme", ["asymmetric", "affine"])
def test_eight_bits_without_a_sign_have_no_signed_bytes(scheme: str) -> None:
    how = Format(bits=8, scheme=scheme)  # type: ignore[arg-type]  # one of the names
    with pytest.raises(LabError, match=f"8 bits {scheme} do not fit into signed bytes"):
        signed_codes(quantise(matrix(5, 8), how), how, 8)


def test_nf4_has_no_whole_numbers_and_no_groups_of_a_row() -> None:
    how = Format(scheme="nf4")
    stored = quantise(matrix(5, 8), how)
    with pytest.raises(LabError, match="no whole numbers"):
        signed_codes(stored, how, 8)
    with pytest.raises(LabError, match="run on from row to row"):
        scale_table(stored, how, 8, Form((5,)))
