"""Zeroing, sharpness, caching and the bottleneck against their definitions."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.papers.meta_tokens.bottleneck import Bottleneck, BottleneckSettings, rate_distortion
from gpt2lab.papers.meta_tokens.caching import caching
from gpt2lab.papers.meta_tokens.sharpness import boost_sharpens, entropy, sharpness
from gpt2lab.papers.meta_tokens.zeroing import zeroed
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import word_level
from tests.papers.meta_tokens import reference
from tests.papers.meta_tokens.test_architecture import META, sprinkled, with_metas
from tests.tiny import tiny


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@torch.no_grad()
def test_without_position_or_embedding_metas_alone_change(
    positions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_metas(changes={"positions": positions, "n_layers": 2})
    row = [3, META, 9, META, 12, 5]
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    rotary = positions == "rotary"
    with zeroed(model, "no_embed"):
        found = model.hidden(torch.tensor([row]))[0]
    silent = {**weights, "embedding.weight": weights["embedding.weight"].clone()}
    silent["embedding.weight"][META] = 0
    expected = reference.states(silent, row, META, 2, 3, rotary=rotary)
    assert torch.allclose(found, expected, atol=1e-10)
    with zeroed(model, "no_pos"):
        found = model.hidden(torch.tensor([row]))[0]
    if rotary:
        turned = reference.turned
        angle = {place: 0 if token == META else place for place, token in enumerate(row)}
        monkeypatch.setattr(reference, "turned", lambda x, position: turned(x, angle[position]))
        expected = reference.states(weights, row, META, 2, 3, rotary=True)
    else:
        still = {**weights, "position_embedding.weight": weights["position_embedding.weight"].clone()}
        still["position_embedding.weight"][[i for i, token in enumerate(row) if token == META]] = 0
        expected = reference.states(still, row, META, 2, 3, rotary=False)
    assert torch.allclose(found, expected, atol=1e-10)
    assert len(model.wrappers) == 1


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("what", ["no_pos", "no_embed"])
@torch.no_grad()
def test_zeroing_decodes_with_a_cache_and_padding_as_the_full_pass(family: str, what: Any) -> None:
    for model in (with_metas(family), tiny(family).double()):  # with meta-attention, and without
        ids = sprinkled(3, 12)
        mask = torch.ones(3, 12, dtype=torch.long)
        mask[0, :3] = 0
        with zeroed(model, what, token=META):
            whole = model(ids, attention_mask=mask)
            cache = model.new_cache(batch=3, length=12)
            parts = [
                model(ids[:, a:b], attention_mask=mask[:, a:b], cache=cache)
                for a, b in ((0, 6), (6, 7), (7, 12))
            ]
        assert (torch.cat(parts, 1) - whole)[mask.bool()].abs().max() < 1e-10
        assert not torch.allclose(model(ids, attention_mask=mask), whole, atol=1e-4)


def test_what_cannot_be_zeroed_is_refused() -> None:
    with pytest.raises(LabError, match="no_pos or no_embed"), zeroed(with_metas(), "both"):  # type: ignore[arg-type]  # wrong on purpose
        pass
    with pytest.raises(LabError, match="has no positions"), zeroed(tiny("gpt2", positions="none"), "no_pos"):
        pass


def test_entropy_is_the_definitions() -> None:
    scores = torch.tensor([0.3, -1.2, 2.0, -math.inf], dtype=torch.float64)
    exponentials = [math.exp(0.3), math.exp(-1.2), math.exp(2.0)]
    p = [one / sum(exponentials) for one in exponentials]
    assert float(entropy(scores)) == pytest.approx(-sum(one * math.log(one) for one in p), rel=1e-12)
    assert float(entropy(torch.zeros(7))) == pytest.approx(math.log(7))


def test_a_boost_lowers_entropy_only_where_the_key_is_above_the_attended_mean() -> None:
    """Theorem 4.1 with its condition: dH/dΔ = -p (z - E_p[z]), and the counterexample without it."""
    generator = torch.Generator().manual_seed(0)
    kinds = set()
    for _ in range(200):
        scores = torch.randn(5, generator=generator, dtype=torch.float64).mul(2).requires_grad_()
        key = int(torch.randint(5, (), generator=generator))
        slope = torch.autograd.grad(entropy(scores), scores)[0][key]
        p = scores.detach().softmax(-1)
        expected = -p[key] * (scores.detach()[key] - (p * scores.detach()).sum())
        assert float(slope) == pytest.approx(float(expected), abs=1e-12)
        sharpens = bool(boost_sharpens(scores.detach(), key))
        raised = []
        for delta in (1e-5, 0.3, 1.0, 3.0):
            more = scores.detach().clone()
            more[key] += delta
            raised.append(float(entropy(more)) < float(entropy(scores.detach())))
        assert sharpens == (float(slope) <= 0)
        assert all(raised) if sharpens else not raised[0]
        kinds.add(sharpens)
    assert kinds == {True, False}
    weak = torch.tensor([2.0, 0.0], dtype=torch.float64)
    assert float(entropy(weak + torch.tensor([0.0, 1.0]))) > float(entropy(weak)) and not boost_sharpens(
        weak, 1
    )


def test_sharpness_compares_rows_over_the_same_keys() -> None:
    model, ids = with_metas(), sprinkled(4, 12)
    with torch.no_grad():
        model.embedding.weight[META] *= 8
    found = sharpness(model, ids, batch_size=3)
    with torch.no_grad(), model.tap(read=["attn.hook_pattern"]) as tap:
        model(ids)
    total, count = 0.0, 0
    for row in range(4):
        behind = False
        for place, token in enumerate(ids[row].tolist()):
            behind = behind or token == META
            if behind and token != META:
                for layer in range(3):
                    for head in range(3):
                        p = tap[f"blocks.{layer}.attn.hook_pattern"][row, head, place, : place + 1]
                        total -= float((p * p.clamp_min(1e-300).log()).sum())
                        count += 1
    assert found.entropy == pytest.approx(total / count, rel=1e-5)
    assert found.drops.shape == found.boosts.shape == (count,)
    assert found.drop == pytest.approx(float(found.drops.mean()), abs=1e-5)
    assert found.boost == pytest.approx(float(found.boosts.mean()), abs=1e-5)
    assert found.sharper == pytest.approx(float((found.drops > 0).float().mean()), abs=1e-3)
    with pytest.raises(LabError, match="no ordinary token stands behind"):
        sharpness(model, ids[-1:])


@torch.no_grad()
def test_caching_is_the_cosine_by_distance_and_layer() -> None:
    model, ids = with_metas(dtype=torch.float32), sprinkled(9, 10)
    mask = torch.ones(9, 10, dtype=torch.long)
    mask[0, :3] = 0
    embeddings, states = caching(model, ids, mask=mask, distance=3, batch_size=4)
    with model.tap(read=["hook_embed", "resid_post"]) as tap:
        model(ids, attention_mask=mask)
    for layer in range(3):
        for distance in range(1, 4):
            found: tuple[list[float], list[float]] = ([], [])
            for row in range(9):
                for place in range(distance, 10):
                    earlier = place - distance
                    if (
                        not (mask[row, place] and mask[row, earlier])
                        or ids[row, place] != META
                        or ids[row, earlier] == META
                    ):
                        continue
                    state = tap["resid_post"][layer, row, place]
                    for kind, other in enumerate(
                        (tap["hook_embed"][row, earlier], tap["resid_post"][layer, row, earlier])
                    ):
                        found[kind].append(float(torch.cosine_similarity(state, other, dim=0)))
            for matrix, values in zip((embeddings, states), found, strict=True):
                assert float(matrix[layer, distance - 1]) == pytest.approx(
                    sum(values) / len(values), abs=1e-5
                )
    with pytest.raises(LabError, match="no meta-token has an ordinary token before it"):
        caching(model, ids[-1:])


def test_distortion_and_rate_are_the_definitions() -> None:
    made = Bottleneck(6, 4, 3, torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    states, noise = (torch.randn(5, size, generator=generator, dtype=torch.float64) for size in (6, 3))
    answers = torch.tensor([0, 3, 2, 2, 1])
    distortion, rate = made(states, answers, noise)
    for row in range(5):
        mean = made.mean.weight @ states[row] + made.mean.bias
        variance = (made.log_variance.weight @ states[row] + made.log_variance.bias).exp()
        z = mean + variance.sqrt() * noise[row]
        logits = made.decoder.weight @ z + made.decoder.bias
        expected = -float(logits.softmax(-1)[answers[row]].log().detach())
        assert float(distortion[row].detach()) == pytest.approx(expected, rel=1e-9)
        kl = torch.distributions.kl_divergence(
            torch.distributions.Normal(mean, variance.sqrt()),
            torch.distributions.Normal(torch.zeros(3).double(), torch.ones(3).double()),
        ).sum()
        assert float(rate[row].detach()) == pytest.approx(float(kl.detach()), rel=1e-9)


def planted(count: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """States that hold their answer under so much noise."""
    generator = torch.Generator().manual_seed(seed)
    answers = torch.randint(4, (count,), generator=generator)
    where = torch.eye(4).repeat(1, 2)[answers]  # [count, 8]
    return where + noise * torch.randn(count, 8, generator=generator), answers


def test_a_planted_state_that_knows_more_has_the_curve_below() -> None:
    settings = BottleneckSettings(betas=(0.01, 0.3), epochs=15, batch_size=50, learning_rate=2e-2, size=4)
    curves = {
        noise: rate_distortion(planted(300, noise, 0), planted(200, noise, 1), 4, settings)
        for noise in (0.1, 3.0)
    }
    for clear, blurred in zip(curves[0.1], curves[3.0], strict=True):
        assert clear["sum"] <= blurred["sum"] + 0.02
        assert clear["sum"] == pytest.approx(clear["distortion"] + clear["beta"] * clear["rate"])
    assert curves[0.1][0]["distortion"] < 0.3 < curves[3.0][0]["distortion"]
    rates = [row["rate"] for row in curves[0.1]]
    assert rates == sorted(rates, reverse=True), "a dearer nat of rate is bought less often"
    dear = replace(settings, betas=(0.3,))
    assert rate_distortion(planted(300, 0.1, 0), planted(200, 0.1, 1), 4, dear) == curves[0.1][1:]
    for wrong in ({"betas": ()}, {"betas": (0.0,)}, {"size": 0}, {"learning_rate": 0.0}):
        given: Any = wrong
        with pytest.raises(LabError, match="rate-distortion"):
            BottleneckSettings(**given)
    with pytest.raises(LabError, match="classes from 0 to 2"):
        rate_distortion(planted(9, 1, 0), planted(9, 1, 1), 3, settings)


def test_the_measure_scores_the_same_real_tokens_with_and_without_metas() -> None:
    texts = ["the cat sat on the mat and a dog ran to the cat and sat"] * 9
    tokenizer = word_level(texts)
    lm = LanguageModel(tiny("llama", vocab_size=tokenizer.vocab_size, max_positions=40), tokenizer)
    made = gpt2lab.apply("add-meta-token", lm, keep=False)
    found = gpt2lab.measure(
        "meta-effects", made, data=("tinyworld:20",), keep=False, fraction=0.2, distance=4
    )
    assert set(found.numbers) == {
        "loss", "loss_without_metas", "loss_no_pos", "loss_no_embed", "entropy_drop", "score_boost", "sharper",
    }  # fmt: skip
    assert found.about["window"] == 33 and found.about["metas in a row"] == 6
    again = gpt2lab.measure(
        "meta-effects", made, data=("tinyworld:20",), keep=False, fraction=0.2, distance=4, batch_size=3
    )
    assert again["loss"] == pytest.approx(found["loss"], rel=1e-6)
    assert all(found.figure_svg(name).startswith(b"<") for name in found.figures)
    with pytest.raises(LabError, match="has no meta-attention"):
        gpt2lab.measure("meta-effects", lm, keep=False)
    for options, words in (
        ({"fraction": 0.01}, "is no meta"),
        ({"window": 39}, "window must lie in"),
        ({"distance": 0}, "distance must be at least 1"),
        ({"fraction": 1.0}, "fraction must lie in"),
    ):
        given: Any = options
        with pytest.raises(LabError, match=words):
            gpt2lab.measure("meta-effects", made, data=("tinyworld:20",), keep=False, **given)
