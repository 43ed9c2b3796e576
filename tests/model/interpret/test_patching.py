"""Patching between runs: the fast sweep against one run for each cell, and its first-order estimate."""

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.interpret import ablate, attribution_patch, edited, patch_sweep
from tests.model.interpret.models import PRE_NORM, model_of, post_norm
from tests.tiny import tiny, tokens


@pytest.fixture(params=PRE_NORM)
def model(request: pytest.FixtureRequest) -> Transformer:
    return model_of(request.param)


CLEAN, CORRUPT = tokens(3, 7), tokens(3, 7, seed=9)


def metric(logits: Tensor) -> Tensor:
    return logits[:, -1, 5] - logits[:, -1, 8]


@torch.no_grad()
@pytest.mark.parametrize(
    ("site", "by", "rows"),
    [
        ("resid_pre", "position", 7),
        ("attn.hook_z", "head", None),
        ("hook_pattern", "head", 3),
        ("mlp_out", "layer", None),
    ],
)
def test_the_sweep_is_one_run_for_each_cell(model: Transformer, site: str, by: str, rows: int | None) -> None:
    sweep = patch_sweep(model, CLEAN, CORRUPT, site, metric, by=by, rows=rows)
    with model.tap(read=[site]) as clean:
        assert torch.allclose(sweep.clean, metric(model(CLEAN)), atol=1e-5)
    assert torch.allclose(sweep.corrupt, metric(model(CORRUPT)), atol=1e-5)
    assert len(sweep.names) == 3
    for layer, name in enumerate(sweep.names):
        axis = {"position": 2 if "pattern" in name else 1, "head": 1 if "pattern" in name else 2, "layer": 0}[
            by
        ]
        cells = 1 if by == "layer" else clean[name].shape[axis]
        for cell in range(sweep.values.shape[1]):
            if cell >= cells:
                assert sweep.values[layer, cell].isnan().all()
                continue

            def put(x: Tensor, _: str, name: str = name, cell: int = cell, axis: int = axis) -> Tensor:
                if by == "layer":
                    return clean[name]
                x.transpose(0, axis)[cell] = clean[name].transpose(0, axis)[cell]
                return x

            with model.tap(write={name: put}):
                expected = metric(model(CORRUPT))
            assert torch.allclose(sweep.values[layer, cell], expected, atol=2e-5)


@torch.no_grad()
def test_only_the_logits_that_the_metric_looks_at_can_be_computed(model: Transformer) -> None:
    whole = patch_sweep(model, CLEAN, CORRUPT, "resid_pre", metric)
    last = patch_sweep(model, CLEAN, CORRUPT, "resid_pre", metric, at=-1)
    assert torch.allclose(whole.values, last.values, atol=1e-5)


@torch.no_grad()
def test_patching_the_first_state_at_the_last_position_only_is_no_clean_run_but_all_positions_are() -> None:
    model = tiny("gpt2")
    sweep = patch_sweep(model, CLEAN, CORRUPT, "blocks.0.hook_resid_pre", metric, by="layer")
    assert torch.allclose(sweep.values[0, 0], sweep.clean, atol=1e-5)
    assert torch.allclose(sweep.restored[0, 0], torch.ones(3), atol=1e-4)
    same = patch_sweep(model, CLEAN, CLEAN, "resid_mid", metric)
    assert same.effects.abs().max() < 1e-5


@torch.no_grad()
def test_what_both_runs_share_changes_nothing_and_is_not_run(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, corrupt = torch.full((2, 6), 5), torch.full((2, 6), 5)
    clean[:, 4], corrupt[:, 4] = 7, 9
    rows, hidden = list[int](), model.hidden

    def counted(tokens: Tensor) -> Tensor:
        rows.append(len(tokens))
        return hidden(tokens)

    monkeypatch.setattr(model, "hidden", counted)
    effects = patch_sweep(model, clean, corrupt, "resid_pre", metric).effects
    assert not effects[:, :4].any(), "positions before the other token"
    assert not effects[0, 5].any(), "the same token after it, which no block has read yet"
    assert effects[:, 4].abs().min() > 0
    layers = len(effects)
    assert sum(rows) == 2 * (2 + 2 * layers - 1), (
        "clean, corrupt, and two positions of each layer but the last of the first"
    )


@torch.no_grad()
def test_a_model_in_training_is_swept_without_dropout_and_stays_in_training() -> None:
    model = model_of("gpt2", training=True)
    quiet = model_of("gpt2")
    loud = patch_sweep(model, CLEAN, CORRUPT, "resid_pre", metric)
    assert torch.allclose(
        loud.values, patch_sweep(quiet, CLEAN, CORRUPT, "resid_pre", metric).values, atol=1e-5
    )
    assert all(module.training for module in model.modules())


SITES = ("resid_pre", "attn.hook_z", "mlp_out", "hook_pattern")


def test_the_estimate_is_the_patch_to_first_order(model: Transformer) -> None:
    """With clean and corrupt drawn together by writes, halving the distance quarters the error."""
    model = model.double()
    ids, start = CORRUPT, "blocks.0.hook_resid_pre"
    with torch.no_grad(), model.tap(read=[start]) as base:
        model(ids)
    direction = torch.randn(
        base[start].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4)
    )
    errors = []
    for size in (1e-3, 5e-4):
        moved = base[start] + size * direction
        slope = _gradient(model, ids, "blocks.1.hook_resid_pre")
        with torch.no_grad():
            with model.tap(write={start: moved}, read=["blocks.1.hook_resid_pre"]) as near:
                model(ids)
            with model.tap(read=["blocks.1.hook_resid_pre"]) as here:
                plain = metric(model(ids))
            change = near["blocks.1.hook_resid_pre"] - here["blocks.1.hook_resid_pre"]
            with model.tap(write={"blocks.1.hook_resid_pre": near["blocks.1.hook_resid_pre"]}):
                true = metric(model(ids)) - plain
        errors.append((true - (slope * change).sum((1, 2))).abs().max().item())
    assert errors[1] < 0.35 * errors[0]


def _gradient(model: Transformer, ids: Tensor, name: str) -> Tensor:
    with model.tap(read=[name], grad=True) as tap:
        metric(model(ids)).sum().backward()
    return tap.grad[name]


def test_the_estimate_is_gradient_times_difference_at_every_site(model: Transformer) -> None:
    sites = [
        site
        for site in SITES
        if site == "resid_pre" or len({model.config.layer(i).n_heads for i in range(3)}) == 1
    ]
    found = attribution_patch(model, CLEAN, CORRUPT, sites, metric)
    assert all(parameter.grad is None for parameter in model.parameters())
    for site in sites:
        with torch.no_grad(), model.tap(read=[site]) as clean:
            model(CLEAN)
        with model.tap(read=[site], grad=True) as corrupt:
            metric(model(CORRUPT)).sum().backward()
        for layer in range(3):
            name = corrupt.asked[site][layer]
            expected = (corrupt.grad[name] * (clean[name] - corrupt[name])).sum(-1)
            assert torch.allclose(found[site][layer], expected, rtol=1e-4, atol=1e-5)


def test_estimates_approach_patches_as_the_prompts_do() -> None:
    """Two prompts that differ in one token, whose embeddings are drawn together."""
    model = tiny("gpt2").double()
    clean, corrupt = tokens(2, 6), tokens(2, 6)
    corrupt[:, 2] = (corrupt[:, 2] + 1) % 61
    difference = model.embedding.weight.detach().clone()
    ratios = []
    for share in (0.02, 0.01):
        with torch.no_grad():
            rows = difference[corrupt[:, 2]] + share * (difference[clean[:, 2]] - difference[corrupt[:, 2]])
        with edited(model, {"embedding.weight": lambda w, rows=rows: w.index_copy(0, clean[:, 2], rows)}):
            sweep = patch_sweep(model, clean, corrupt, "resid_pre", metric)
            estimate = attribution_patch(model, clean, corrupt, ["resid_pre"], metric)["resid_pre"]
        error = (estimate.transpose(1, 2) - sweep.effects).abs().max()
        ratios.append((error / sweep.effects.abs().max()).item())
    assert ratios[1] < 0.6 * ratios[0] < 0.1


def test_frozen_and_training_models_are_patched_alike_and_no_gradient_is_left() -> None:
    free, frozen = tiny("gpt2"), tiny("gpt2").requires_grad_(False)
    loud = model_of("gpt2", training=True)
    one = attribution_patch(free, CLEAN, CORRUPT, "resid_mid", metric)["resid_mid"]
    two = attribution_patch(frozen, CLEAN, CORRUPT, ["resid_mid"], metric)["resid_mid"]
    assert torch.allclose(one, two, atol=1e-6)
    with torch.inference_mode():
        three = attribution_patch(loud, CLEAN, CORRUPT, ["resid_mid"], metric, at=-1)["resid_mid"]
    expected = attribution_patch(model_of("gpt2"), CLEAN, CORRUPT, ["resid_mid"], metric)["resid_mid"]
    assert torch.allclose(three, expected, atol=1e-5)
    assert all(parameter.grad is None for model in (free, loud) for parameter in model.parameters())


def test_a_post_norm_model_is_patched_too() -> None:
    bert = post_norm()
    sweep = patch_sweep(bert, CLEAN, CORRUPT, "blocks.0.hook_resid_pre", metric, by="layer")
    assert torch.allclose(sweep.values[0, 0], sweep.clean, atol=1e-5)
    assert attribution_patch(bert, CLEAN, CORRUPT, ["resid_post"], metric)["resid_post"].shape == (3, 3, 7)


def test_mistakes_are_named() -> None:
    model = tiny("gpt2")
    with pytest.raises(LabError, match=r"same shape .* \[3, 7\] and \[3, 6\]"):
        patch_sweep(model, CLEAN, CORRUPT[:, :6], "resid_pre", metric)
    with pytest.raises(LabError, match="not split into heads"):
        patch_sweep(model, CLEAN, CORRUPT, "resid_pre", metric, by="head")
    with pytest.raises(LabError, match=r"one number for each row, \[3\], not \[\]"):
        patch_sweep(model, CLEAN, CORRUPT, "resid_pre", lambda logits: metric(logits).mean())
    with pytest.raises(LabError, match="the metric does not depend on blocks"):
        embedding = model.embedding.weight[:3].sum(1)
        attribution_patch(model, CLEAN, CORRUPT, ["blocks.2.hook_resid_post"], lambda logits: embedding)
    with pytest.raises(LabError, match="another shape in every layer"):
        attribution_patch(model_of("heads by layer"), CLEAN, CORRUPT, ["attn.hook_z"], metric)


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_ablated_heads_write_nothing_their_mean_or_what_another_row_says(name: str) -> None:
    model, reference, site = model_of(name), tokens(4, 9, seed=5), "blocks.1.attn.hook_z"
    with model.tap(read=[site]) as other:
        model(reference)
    with model.tap(read=[site]) as plain:
        model(CLEAN)
    expected = {
        "zero": lambda: torch.zeros(3, 7, 2, model.config.layer(1).d_head),
        "mean": lambda: other[site][:, :, [2, 0]].mean((0, 1)).expand(3, 7, -1, -1),
        "resample": lambda: other[site][torch.randint(4, (3,), generator=torch.Generator().manual_seed(7))][
            :, :7, [2, 0]
        ],
    }
    for mode, wanted in expected.items():
        options = {} if mode == "zero" else {"reference": reference}
        options |= {"generator": torch.Generator().manual_seed(7)} if mode == "resample" else {}
        with ablate(model, site, (2, 0), mode=mode, **options), model.tap(read=[site]) as seen:
            model(CLEAN)
        assert torch.allclose(seen[site][:, :, [2, 0]], wanted(), atol=1e-6)
        rest = [head for head in range(model.config.layer(1).n_heads) if head not in (0, 2)]
        assert torch.equal(seen[site][:, :, rest], plain[site][:, :, rest])
    assert model.open_tap is None


@torch.no_grad()
def test_ablations_follow_cached_steps_and_name_neurons() -> None:
    model, ids = tiny("gpt2"), tokens(2, 8)
    reference = tokens(3, 8, seed=3)

    def options() -> dict[str, object]:
        return {"mode": "resample", "reference": reference, "generator": torch.Generator().manual_seed(1)}

    with ablate(model, "mlp.hook_post", (7, 90), **options()):
        whole = model(ids)
    cache = model.new_cache(batch=2, length=8)
    with ablate(model, "mlp.hook_post", (7, 90), **options()):
        steps = torch.cat([model(part, cache=cache) for part in ids.split([3, 1, 4], dim=1)], dim=1)
    assert torch.allclose(steps, whole, atol=1e-5)
    assert not torch.allclose(model(ids), whole, atol=1e-3)
    with pytest.raises(LabError, match=r"entries 0 to 95, got \[96\]"), ablate(model, "mlp.hook_post", 96):
        model(ids)
    with pytest.raises(LabError, match="the reference gives"), ablate(model, "mlp_out", **options()):
        model(tokens(2, 9))
    with pytest.raises(LabError, match="mode mean: "):
        ablate(model, "mlp_out", mode="mean")
    with pytest.raises(LabError, match="has no mean"):
        ablate(model, "hook_pattern", mode="mean", reference=reference)
