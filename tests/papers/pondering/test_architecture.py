"""The pondering pass: values and gradients against float64 references, caches, decoders, memory, steps, refusals."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gpt2lab.base.errors import LabError
from gpt2lab.decode import Beam, Greedy, Limits
from gpt2lab.model import Transformer, attach, load_model, save_model
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.contrastive_search.decoder import ContrastiveSearch
from gpt2lab.papers.pondering import (
    Pondering,
    SetPonderingSteps,
    draw_small,
    find_pondering,
    mixture,
    pondering_steps,
    training_flops,
    with_steps,
)
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.training import TrainSettings, next_token, train
from tests.papers.pondering.reference import pondered
from tests.tiny import CAUSAL, tiny, tokens
from tests.training.data import Counting

PROMPTS = [[3, 4], [5, 6, 7, 8, 9, 10, 11], [1, 2, 3], [40, 41, 42, 43, 44]]

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({}, {}),
    "none": ({"steps": 0}, {"steps": 0}),
    "top-k": ({"top_k": 7, "temperature": 1.7}, {"top_k": 7, "temperature": 1.7}),
    "scaled": (
        {"scale_embeddings": True, "multiply_by_steps": True},
        {"scale": 24**0.5, "first": 2.0},
    ),
    "restart": ({"accumulate": False}, {"accumulate": False}),
    "hidden": ({"feedback": "hidden"}, {"feedback": "hidden"}),
    "hidden restart": (
        {"feedback": "hidden", "accumulate": False},
        {"feedback": "hidden", "accumulate": False},
    ),
    "hidden_linear": ({"feedback": "hidden_linear"}, {"feedback": "hidden"}),
    "loop": ({"feedback": "loop"}, {"feedback": "loop"}),
}
"""Options of the architecture, and what they are in the reference."""


def pondering(family: str, tied: bool | None = None, **options: Any) -> Transformer:
    """A tiny model that ponders."""
    changes = {} if tied is None else {"tied_head": tied}
    model = tiny(family, **changes)
    return attach(model, Pondering(**options), generator=torch.Generator().manual_seed(5)).eval()


def plain_of(model: Transformer) -> Transformer:
    """The plain model with the same weights, in float64."""
    plain = Transformer(model.config).double().eval()
    plain.load_state_dict({n: p for n, p in model.state_dict().items() if not n.startswith("wrappers")})
    return plain


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("family", "tied"), [("gpt2", True), ("gpt2", False), ("gpt_neox", None), ("llama", None)]
)
def test_logits_and_gradients_are_those_of_the_equations(
    variant: str, family: str, tied: bool | None
) -> None:
    options, reference = VARIANTS[variant]
    model = pondering(family, tied, **{"steps": 2, **options}).double()
    plain, ids = plain_of(model), tokens(2, 5)
    projector = model.wrappers[0].map.weight.detach() if variant == "hidden_linear" else None
    by_hand = family == "gpt2" and variant in ("full", "top-k", "scaled")
    expected = pondered(plain, ids, **{"steps": 2, **reference}, projector=projector, by_hand=by_hand)
    logits = model(ids)
    assert torch.allclose(logits, expected, atol=1e-10)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (expected * weights).sum().backward()
    (logits * weights).sum().backward()
    found = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.allclose(found[name].grad, parameter.grad, atol=1e-8), name  # type: ignore[arg-type]  # both are there


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    model = pondering("gpt2", False, steps=3, top_k=9).double()
    batch = {"tokens": tokens(2, 6), "targets": tokens(2, 6, seed=1)}
    next_token(model, batch)[0].backward()
    for name in ("embedding.weight", "head.weight", "blocks.0.mlp.up.weight"):
        parameter = dict(model.named_parameters())[name]
        assert parameter.grad is not None
        direction = torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        losses = []
        with torch.no_grad():
            for step in (1e-6, -2e-6):
                parameter.add_(direction, alpha=step)
                losses.append(float(next_token(model, batch)[0]))
            parameter.add_(direction, alpha=1e-6)
        slope = (losses[0] - losses[1]) / 2e-6
        assert float((parameter.grad * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"scale_embeddings": True}], ids=str)
@pytest.mark.parametrize("tied", [True, False])
def test_chunks_change_neither_values_nor_gradients_and_keep_no_distribution(
    options: dict[str, Any], tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradients(model: Transformer) -> tuple[Tensor, list[Tensor], int]:
        largest = 0

        def keep(x: Tensor) -> Tensor:
            nonlocal largest
            largest = max(largest, x.numel())
            return x

        with saved_tensors_hooks(keep, lambda x: x):
            loss, _ = next_token(model, batch)
        loss.backward()
        return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None], largest

    batch = {"tokens": tokens(8, 30), "targets": tokens(8, 30, seed=1)}
    whole = gradients(pondering("gpt2", tied, **options).double())
    assert whole[2] >= 240 * 61 or "top_k" in options  # all in one chunk: kept
    monkeypatch.setattr(mixture, "_CHUNK_ROWS", 7)
    monkeypatch.setitem(mixture.CHUNK_ELEMENTS, "cpu", 8)
    pieces = gradients(pondering("gpt2", tied, **options).double())
    assert torch.allclose(whole[0], pieces[0], atol=1e-12)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(whole[1], pieces[1], strict=True))
    assert pieces[2] <= 240 * 96  # the widest thing kept is the feed-forward's, [batch, time, 4 d_model]


def test_all_tokens_is_the_top_of_all() -> None:
    ids = tokens(2, 7)
    full, top = pondering("llama").double(), pondering("llama", top_k=61).double()
    with torch.no_grad():
        assert torch.allclose(full(ids), top(ids), atol=1e-12)
        assert not torch.allclose(full(ids), pondering("llama", top_k=3).double()(ids), atol=1e-3)


@pytest.mark.parametrize("options", [{"top_k": 5}, {}], ids=str)
def test_bf16_trains_and_under_autocast_too(options: dict[str, Any]) -> None:
    batch = {"tokens": tokens(2, 8), "targets": tokens(2, 8, seed=1)}
    exact = float(next_token(pondering("gpt2", False, **options), batch)[0].detach())
    low = pondering("gpt2", False, **options).to(torch.bfloat16)
    mixed = pondering("gpt2", False, **options)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = next_token(mixed, batch)
    for model, value in ((low, next_token(low, batch)[0]), (mixed, loss)):
        value.backward()
        assert float(value.detach()) == pytest.approx(exact, rel=0.05)
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_low_temperature_does_not_overflow_in_float16() -> None:
    logits = torch.tensor([[30.0, 20.0, -30.0]], dtype=torch.float16)
    table = torch.eye(3, dtype=torch.float16)
    assert mixture.mix_all(logits, table, 1e-4).tolist() == [[1.0, 0.0, 0.0]]
    assert mixture.mix_likeliest(logits, table, 2, 1e-4).tolist() == [[1.0, 0.0, 0.0]]


DECODED = [
    {},
    {"top_k": 6, "steps": 2},
    {"feedback": "hidden_linear", "accumulate": False},
    {"feedback": "loop"},
    {"feedback": "pause", "steps": 2},
    {"scale_embeddings": True, "multiply_by_steps": True, "detach": True, "random_steps": 4},
]


def slowly(model: Transformer, prompt: list[int], new: int) -> list[int]:
    row = list(prompt)
    with torch.no_grad():
        for _ in range(new):
            row.append(int(model(torch.tensor([row]))[0, -1].argmax()))
    return row[len(prompt) :]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, options) for family in ("gpt2", "llama") for options in DECODED),
        *((f, {}) for f in CAUSAL[1:3]),
    ],
    ids=str,
)
def test_every_decoder_with_caches_says_what_recomputing_says(family: str, options: dict[str, Any]) -> None:
    model, limits = pondering(family, **options), Limits(max_new_tokens=5)
    expected = [slowly(model, prompt, 5) for prompt in PROMPTS]
    assert list(Greedy().decode(model, PROMPTS, limits)) == expected
    assert list(Beam(beams=1).decode(model, PROMPTS, limits)) == expected
    assert list(ContrastiveSearch(k=3, alpha=0.0).decode(model, PROMPTS, limits)) == expected
    for decoder in (Beam(beams=3), ContrastiveSearch(k=3, alpha=0.6)):
        together = list(decoder.decode(model, PROMPTS, limits))
        assert together == [decoder.decode(model, [prompt], limits)[0] for prompt in PROMPTS]


def slow_contrastive(model: Transformer, prompt: list[int], new: int, k: int, alpha: float) -> list[int]:
    """Equation 2 of Su and Collier, everything computed anew for every candidate."""
    row = list(prompt)
    with torch.no_grad():
        for _ in range(new):
            probabilities = model(torch.tensor([row]))[0, -1].softmax(-1)
            scores = {}
            for v in probabilities.topk(k).indices.tolist():
                states = model.hidden(torch.tensor([[*row, v]]))[0]
                nearest = F.cosine_similarity(states[-1:], states[:-1], dim=-1).max()
                scores[v] = float((1 - alpha) * probabilities[v] - alpha * nearest)
            row.append(max(scores, key=lambda v: scores[v]))
    return row[len(prompt) :]


@pytest.mark.parametrize("options", [{}, {"feedback": "pause", "steps": 2}], ids=str)
def test_contrastive_search_is_that_of_its_equation(options: dict[str, Any]) -> None:
    model = pondering("gpt2", **options).double()
    found = ContrastiveSearch(k=4, alpha=0.6).decode(model, PROMPTS, Limits(max_new_tokens=5))
    assert list(found) == [slow_contrastive(model, prompt, 5, 4, 0.6) for prompt in PROMPTS]


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
@pytest.mark.parametrize("options", [{"top_k": 6}, {"feedback": "pause", "steps": 2}], ids=str)
def test_padding_on_either_side_changes_nothing(family: str, options: dict[str, Any]) -> None:
    model, ids = pondering(family, **options), tokens(3, 9)
    alone = model(ids)
    for left in (0, 4):
        padded, mask = torch.full((3, 13), 7), torch.zeros(3, 13)
        padded[:, left : left + 9], mask[:, left : left + 9] = ids, 1
        logits = model(padded, attention_mask=mask)
        assert torch.allclose(logits[:, left : left + 9], alone, atol=2e-5)


@torch.no_grad()
def test_pauses_are_further_tokens_at_the_position_of_theirs() -> None:
    model, ids = pondering("gpt2", feedback="pause", steps=2).double(), tokens(1, 4)
    plain, pause = plain_of(model), model.wrappers[0].weight
    table = plain.embedding.weight
    rows = torch.cat([torch.stack([table[token], pause[0], pause[0]]) for token in ids[0]])[None]
    places = torch.arange(4).repeat_interleave(3)[None]
    assert torch.allclose(model(ids), plain(embeddings=rows, positions=places)[:, 2::3], atol=1e-12)


def test_a_detached_step_trains_the_last_pass_only() -> None:
    batch = {"tokens": tokens(2, 6), "targets": tokens(2, 6, seed=1)}
    model = pondering("gpt2", False, detach=True, steps=2).double()
    plain, wrapper = plain_of(model), find_pondering(model)
    inputs: list[Tensor] = []
    wrapper.watch = lambda x, hidden: inputs.append(x.detach())
    next_token(model, batch)[0].backward()
    wrapper.watch = None
    constant = inputs[-1] - inputs[0]
    hidden = plain.hidden(embeddings=plain.embed(batch["tokens"]) + constant)
    F.cross_entropy(plain.unembed(hidden).flatten(0, 1), batch["targets"].flatten()).backward()
    for (name, a), b in zip(plain.named_parameters(), model.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-10), name  # type: ignore[arg-type]  # both are there


@pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"feedback": "loop"}], ids=str)
@pytest.mark.parametrize("blocks", [False, True], ids=["", "blocks too"])
def test_recomputed_passes_give_the_same_gradients_and_keep_less(
    options: dict[str, Any], blocks: bool
) -> None:
    batch, kept, gradients = Counting(padded=True)[0], [], []
    for again in (False, True):
        model = pondering("llama", checkpoint_passes=again, **options).train()
        model.gradient_checkpointing = blocks and again
        size = 0

        def keep(x: Tensor) -> Tensor:
            nonlocal size
            size += x.numel()
            return x

        with saved_tensors_hooks(keep, lambda x: x):
            loss, _ = next_token(model, batch)
        loss.backward()
        kept.append(size)
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))  # type: ignore[arg-type]  # none is None
    assert kept[1] < 0.6 * kept[0]


class Cut(Counting):
    """The stream, until the power goes."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index == 5:
            raise RuntimeError("power cut")
        return super().__getitem__(index)


def test_random_steps_are_drawn_for_every_batch_and_resume_exactly(tmp_path: Path) -> None:
    def fresh() -> Transformer:
        return pondering("gpt2", random_steps=4)

    taken: list[int] = []
    model = fresh().train()
    find_pondering(model).watch = lambda x, hidden: taken.append(1)
    counts = set()
    for seed in range(30):
        taken.clear()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            next_token(model, Counting()[0])
        counts.add(len(taken) - 1)
    assert counts == {1, 2, 3, 4}
    taken.clear()
    next_token(model.eval(), Counting()[0])
    assert len(taken) == 4  # the model's own three steps
    settings = TrainSettings(steps=8, learning_rate=3e-3, precision="float32", checkpoint_every=4)
    whole, again = fresh(), fresh()
    train(whole, Counting(), settings=settings)
    with pytest.raises(RuntimeError, match="power cut"):
        train(fresh(), Cut(), settings=settings, checkpoints=tmp_path)
    train(again, Counting(), settings=settings, checkpoints=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@torch.no_grad()
def test_the_number_of_steps_can_differ_after_training_for_a_while_or_for_good(tmp_path: Path) -> None:
    model, ids = pondering("gpt2", steps=2, top_k=9), tokens(2, 6)
    five, usual = pondering("gpt2", steps=5, top_k=9)(ids), model(ids)
    cache = model.new_cache(batch=2, length=6)
    with pondering_steps(model, 5):
        assert torch.equal(model(ids), five)
        assert torch.allclose(model(ids, cache=model.new_cache(batch=2, length=6)), five, atol=1e-5)
        with pytest.raises(LabError, match="made for another model"):
            model(ids, cache=cache)
    with pondering_steps(model, 0):
        assert torch.allclose(model(ids), tiny("gpt2")(ids), atol=1e-6)
    assert torch.equal(model(ids), usual)
    changed = SetPonderingSteps(steps=5)(LanguageModel(model, None)).model
    assert torch.equal(model(ids), usual)
    save_model(changed, tmp_path / "five")
    again = load_model(tmp_path / "five")
    assert torch.equal(again(ids), five)
    assert again.architectures == (Pondering(steps=5, top_k=9),)
    assert with_steps(copy.deepcopy(again), 2)(ids).equal(usual)
    with pytest.raises(LabError, match="at least 0"), pondering_steps(model, -1):
        pass
    with pytest.raises(LabError, match="whole number"):
        with_steps(model, 1.5)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(LabError, match="does not ponder"):
        with_steps(tiny("gpt2"), 2)


def test_a_tap_sees_every_pass_and_what_it_writes_is_fed_back() -> None:
    model, ids = pondering("gpt2", steps=2), tokens(1, 5)
    with torch.no_grad():
        usual = model(ids)
        with model.tap(read=["ponder.0:logits", "ponder.1:hook_embed", "hook_embed"]) as tap:
            assert torch.allclose(model(ids), usual, atol=1e-5)
        expected = model.embed(ids) + tap["ponder.0:logits"].softmax(-1) @ model.embedding.weight
        assert torch.allclose(tap["ponder.1:hook_embed"], expected, atol=1e-6)
        with model.tap(write={"ponder.0:logits": lambda x, name: 0 * x}):
            changed = model(ids)
    assert not torch.allclose(changed, usual, atol=1e-3)
    assert "ponder.0:logits" not in pondering("gpt2", feedback="loop").activation_names()


@torch.no_grad()
def test_a_cache_whose_pass_was_broken_off_is_refused_until_it_is_rewound() -> None:
    model, ids = pondering("gpt2", steps=2), tokens(1, 6)
    cache = model.new_cache(batch=1, length=6)
    with model.tap(stop_after="ponder.1:blocks.0.hook_resid_post"):
        model(ids[:, :4], cache=cache)
    with pytest.raises(LabError, match="broken off"):
        model(ids[:, 4:], cache=cache)
    cache.rewind(0)
    assert torch.allclose(model(ids, cache=cache), model(ids), atol=1e-5)


def test_the_published_initialisation() -> None:
    config = gpt2_config(vocab_size=500, d_model=64, n_layers=2, n_heads=2, max_positions=64, tied_head=False)
    std = (2 / (5 * 64)) ** 0.5
    for draw, passes in (("layers", 1), ("passes", 4)):
        model = attach(Transformer(config), Pondering(draw=draw), generator=torch.Generator().manual_seed(0))
        for name, parameter in model.named_parameters():
            residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
            own = std / (4 * passes) ** 0.5 if residual else std
            if parameter.dim() < 2:
                assert bool((parameter == (1 if name.endswith("weight") else 0)).all()), name
            else:
                assert float(parameter.detach().abs().max()) <= 3 * own
                # cut at 3 sigma, the standard deviation is 0.9866 of the whole normal's
                assert float(parameter.detach().std()) == pytest.approx(0.9866 * own, rel=0.04), name
    with pytest.raises(LabError, match="has been trained"):
        attach(tiny("gpt2"), Pondering(draw="layers"))
    with pytest.raises(LabError, match="has been trained"):
        draw_small(tiny("llama"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": -1}, "at least 0"),
        ({"steps": 1.5}, "whole number"),
        ({"random_steps": True}, "whole number"),
        ({"detach": "no"}, "True or False"),
        ({"top_k": 2.5}, "top_k must be at least 1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"temperature": 0.0}, "temperature"),
        ({"feedback": "echo"}, "feedback is one of embedding, hidden"),
        ({"feedback": "loop", "top_k": 5}, "has no top_k"),
        ({"feedback": "loop", "accumulate": False}, "has no accumulate"),
        ({"feedback": "pause", "detach": True}, "has no detach"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LabError, match=words):
        Pondering(**options)


def narrow(model: Transformer) -> Transformer:
    model.embedding = torch.nn.Embedding(61, 8)
    return model


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda: tiny("bert"), {}, "reads in both directions"),
        (lambda: tiny("gpt2"), {"top_k": 62}, "exceeds the vocabulary"),
        (lambda: narrow(tiny("gpt2")), {"feedback": "loop"}, "width"),
        (lambda: pondering("gpt2"), {}, "ponders already"),
        (lambda: tiny("gpt_neo"), {"feedback": "pause"}, "windows"),
    ],
)
def test_models_that_it_does_not_fit_are_refused_and_stay_as_they_were(
    make: Callable[[], Transformer], options: dict[str, Any], words: str
) -> None:
    model = make()
    before = len(model.wrappers)
    with pytest.raises(LabError, match=words):
        attach(model, Pondering(**options))
    assert len(model.wrappers) == before


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 2},
        {"steps": 2, "top_k": 10},
        {"steps": 2, "feedback": "hidden_linear"},
        {"steps": 2, "feedback": "pause"},
        {"steps": 2, "detach": True},
        {"steps": 2, "detach": True, "top_k": 10},
    ],
    ids=str,
)
def test_operations_are_those_that_are_counted(options: dict[str, Any]) -> None:
    config = gpt2_config(vocab_size=150, d_model=64, n_layers=2, n_heads=2, max_positions=8, tied_head=False)
    model = attach(Transformer(config), Pondering(**options))
    ids = tokens(16, 8, vocab=150)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(ids).flatten(0, 1), tokens(16, 8, vocab=150, seed=1).flatten()).backward()
    found, expected = counter.get_total_flops() / ids.numel(), training_flops(model, 8)
    assert found == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("feedback", ["embedding", "pause"])
def test_training_reports_the_share_of_the_peak_that_all_passes_need(feedback: str) -> None:
    def operations(model: Transformer) -> float:
        rows: list[dict[str, float]] = []
        settings = TrainSettings(steps=1, learning_rate=1e-3, precision="float32")
        train(model, Counting(), settings=settings, log=lambda step, **numbers: rows.append(numbers))
        return rows[-1]["mfu"] / rows[-1]["tokens_per_second"]  # times the peak, which is measured once

    model = pondering("gpt2", steps=3, feedback=feedback)
    time_steps = Counting()[0]["tokens"].shape[1]
    expected = training_flops(model, time_steps) / training_flops(tiny("gpt2"), time_steps)
    assert operations(model) / operations(tiny("gpt2")) == pytest.approx(expected)
    assert expected > 3
