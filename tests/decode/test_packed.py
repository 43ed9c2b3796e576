import pytest
import torch
from torch import nn

from gpt2lab.base.errors import LabError
from gpt2lab.decode.beam import Beam
from gpt2lab.decode.greedy import Greedy
from gpt2lab.decode.interface import Limits
from gpt2lab.decode.packed import INT8, BlockedLinear, CodesLinear, StripLinear, has_kernels, pack
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.model.architecture import attach
from gpt2lab.model.quantization import Format, Quantized, QuantizedLinear, dequantised

PROMPTS = [[5, 9, 11, 2, 8], [7], [4, 30, 22], [12, 12, 13, 14, 15, 16, 17, 18]]
CONFIG = TransformerConfig(
    vocab_size=1030, d_model=320, n_layers=2, n_heads=4, max_positions=64, norm="rmsnorm", init_std=0.2
)


@pytest.fixture(scope="module")
def model() -> Transformer:
    made = Transformer(CONFIG).eval()
    if not has_kernels(made):
        pytest.skip("no packed layouts on this processor (tests/SKIPPED.md)")
    return made


def layer(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    made = nn.Linear(inputs, outputs, bias=bias)
    generator = torch.Generator().manual_seed(inputs * outputs)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


@pytest.mark.parametrize("shape", [(256, 256), (300, 50), (50, 1000), (768, 5021), (17, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_both_layouts_compute_the_same_product(
    model: Transformer, shape: tuple[int, int], bias: bool
) -> None:
    plain = layer(*shape, bias=bias)
    with torch.inference_mode():
        for rows in ((1, 1), (1, 7), (5, 1)):
            x = torch.randn(*rows, shape[0], generator=torch.Generator().manual_seed(0))
            wanted = nn.functional.linear(
                x.double(), plain.weight.double(), plain.bias.double() if bias else None
            )
            for made in (StripLinear(plain), BlockedLinear(plain)):
                y = made(x)
                assert y.shape == wanted.shape
                assert float((y - wanted).abs().max() / wanted.abs().max()) < 2e-6


def test_bfloat16_layouts_round_no_more_than_the_plain_one(model: Transformer) -> None:
    if torch.backends.cpu.get_cpu_capability() != "AVX512":  # the package refuses them there too
        pytest.skip("no packed layouts on this processor (tests/SKIPPED.md)")
    plain = layer(512, 700).to(torch.bfloat16)
    x = torch.randn(1, 1, 512, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    wanted = nn.functional.linear(x.double(), plain.weight.double(), plain.bias.double())
    with torch.inference_mode():
        error = {
            kind: float((kind(x) - wanted).norm() / wanted.norm())
            for kind in (plain, StripLinear(plain), BlockedLinear(plain))
        }
    first, *others = error.values()
    assert all(other < 1.5 * first for other in others)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        (INT8, 0.01),
        (Format(bits=8, group=7), 0.01),
        (Format(), 0.12),
        (Format(scheme="symmetric", group=64, double_scales=True), 0.15),
        (Format(group=301), 0.2),
        (Format(scheme="affine"), 0.12),
        (Format(scheme="affine", group=7), 0.12),
        (Format(bits=2), 0.7),
        (Format(bits=3, scheme="symmetric", group=7), 0.4),
        (Format(bits=7), 0.02),
        (Format(bits=7, scheme="affine"), 0.02),
    ],
)
@pytest.mark.parametrize("shape", [(300, 1000), (50, 7), (64, 193)])
def test_one_row_and_many_meet_the_same_rounded_weights(
    model: Transformer, how: Format, error: float, shape: tuple[int, int]
) -> None:
    plain = layer(*shape)
    x = torch.randn(1, 5, shape[0], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        small = CodesLinear(QuantizedLinear.of(plain, how))
        together = small(x)
        apart = torch.cat([small(x[:, at : at + 1]) for at in range(5)], dim=1)
        written_out = x.double() @ small.weight.double().T + plain.bias.double()
        exact = plain(x)
    assert float((apart - written_out).norm() / written_out.norm()) < 2e-6
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)
    assert 1e-4 < float((apart - exact).norm() / exact.norm()) < error


@pytest.mark.parametrize("weights", ["packed", "int8"])
def test_packed_weights_change_no_token_of_their_model(model: Transformer, weights: str) -> None:
    limits = Limits(max_new_tokens=24)
    reference = model
    if weights == "int8":  # the model that int8 stands for, written out
        reference = Transformer(CONFIG).eval()
        for module in list(reference.modules()):
            for name, child in module.named_children():
                if type(child) is nn.Linear and child.weight.numel() >= 1 << 18:
                    setattr(module, name, QuantizedLinear.of(child, INT8).to_linear())
    wanted = Greedy().decode(reference, PROMPTS, limits).tokens
    assert Greedy().decode(pack(model, rows=4, weights=weights), PROMPTS, limits).tokens == wanted
    single = pack(model, rows=1, weights=weights)
    assert [Greedy().decode(single, [prompt], limits)[0] for prompt in PROMPTS] == wanted
    assert type(model.blocks[0].mlp.up) is nn.Linear  # the model itself is as it was


@pytest.mark.parametrize(
    "how",
    [
        {"bits": 8},
        {},
        {"scheme": "affine"},
        {"scheme": "nf4", "double_scales": True},
        {"bits": 5},
        {"bits": 8, "scheme": "asymmetric"},
    ],
)
@pytest.mark.parametrize("layers", [("blocks.*",), ("*",)])
def test_a_quantised_model_says_the_same_packed_and_written_out(
    model: Transformer, how: dict[str, object], layers: tuple[str, ...]
) -> None:
    limits = Limits(max_new_tokens=12)
    small = attach(Transformer(CONFIG).eval(), Quantized(layers=layers, **how))
    wanted = Greedy().decode(dequantised(small), PROMPTS, limits).tokens
    assert Greedy().decode(small, PROMPTS, limits).tokens == wanted
    for kind in ("packed", "auto", "int8") if layers == ("*",) else ("packed", "auto"):
        assert Greedy().decode(pack(small, rows=4, weights=kind), PROMPTS, limits).tokens == wanted
        single = pack(small, rows=1, weights=kind, steps=12)
        assert [Greedy().decode(single, [prompt], limits)[0] for prompt in PROMPTS] == wanted
    codes = [module for module in pack(small, rows=1).modules() if isinstance(module, CodesLinear)]
    assert bool(codes) == Quantized(**how).fits_int8
    assert not any(isinstance(module, QuantizedLinear) for module in pack(small, rows=4).modules())


def test_a_packed_model_can_be_kept_and_packed_again(model: Transformer) -> None:
    kept, limits = pack(model, rows=1), Limits(max_new_tokens=9)
    again = pack(kept, rows=1, weights="auto", steps=1000)
    assert Greedy().decode(again, [[5]], limits).tokens == Greedy().decode(model, [[5]], limits).tokens


def test_beams_of_packed_weights_are_the_same(model: Transformer) -> None:
    limits, beam = Limits(max_new_tokens=12, eos=(3,)), Beam(beams=3)
    assert (
        beam.decode(pack(model, rows=12), PROMPTS, limits).tokens
        == beam.decode(model, PROMPTS, limits).tokens
    )


def test_a_row_in_the_blocked_layout_has_the_same_bits_in_any_batch(model: Transformer) -> None:
    x = torch.randn(32, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made = BlockedLinear(layer(256, 1000))
        whole = made(x)
        for rows in (2, 5, 8):
            assert torch.equal(made(x[:rows]), whole[:rows])


def test_packing_waits_until_it_pays_and_steps_back_from_a_tap(model: Transformer) -> None:
    assert pack(model, rows=1, weights="auto", steps=3) is model
    assert pack(model, rows=1, weights="auto", steps=300) is not model
    assert pack(model, rows=1, weights="plain", steps=300) is model
    with model.tap(read=["blocks.0.hook_resid_post"]) as tap:
        assert pack(model, rows=1, weights="auto", steps=300) is model
        model(torch.tensor([[1]]))
    assert tap["blocks.0.hook_resid_post"].shape == (1, 1, 320)


def test_a_tap_works_on_a_packed_model_too(model: Transformer) -> None:
    small = pack(model, rows=1)
    tokens = torch.tensor([[1, 2, 3]])
    with small.tap(read=["blocks.1.hook_resid_post"]) as ours:
        small(tokens)
    with model.tap(read=["blocks.1.hook_resid_post"]) as theirs:
        model(tokens)
    name = "blocks.1.hook_resid_post"
    torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4)


def test_a_layer_with_a_hook_keeps_it(model: Transformer) -> None:
    seen: list[int] = []
    handle = model.head.register_forward_hook(lambda module, inputs, output: seen.append(1))
    Greedy().decode(pack(model, rows=1), [[1, 2]], Limits(max_new_tokens=3))
    handle.remove()
    assert len(seen) == 3


def test_unknown_layouts_are_refused(model: Transformer) -> None:
    with pytest.raises(LabError, match="weights int4: no such layout"):
        pack(model, rows=1, weights="int4")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(LabError, match="int8 needs an x86 CPU"):
        pack(Transformer(CONFIG).double(), rows=1, weights="int8")
