"""What the tools of interpretability say of the models with and without norms."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from gpt2lab.model import Transformer
from gpt2lab.papers.layernorm_removal.measure import head_attributions
from gpt2lab.papers.layernorm_removal.neurons import ablation_effects
from gpt2lab.papers.layernorm_removal.patching import Prompts, compare_patching, prefers

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run


def add(
    run: "Run",
    models: Mapping[str, Transformer],
    rows: Tensor,
    prompts: Prompts,
    *,
    neurons: list[int],
    by_prompt: bool,
) -> None:
    """Report attribution of heads, confidence neurons and patching, of every model; rows [samples, length + 1].

    The neurons are the same in every model, as in the paper: those of the model from which all of them were trained.
    """
    for name, model in models.items():
        heads = head_attributions(model, rows)
        run.result(f"attribution_error.{name}", heads.error)
        low, high = heads.interval(1000, run.seed)
        run.result(f"attribution_error.{name}_low", low)
        run.result(f"attribution_error.{name}_high", high)
        each = heads.by_head.tolist()
        run.table(f"heads_{name}", [{"head": h, "error": e} for h, e in zip(heads.names, each, strict=True)])
        effects = ablation_effects(model, rows, neurons)
        loss, entropy = effects.medians()
        run.result(f"neuron_effect.{name}", loss)
        run.result(f"neuron_entropy.{name}", entropy)
        together = ablation_effects(model, rows, neurons, cumulative=True)
        run.table(
            f"neurons_{name}",
            [
                {"neuron": n, "median change of loss": float(effects.loss[i].median()),
                 "median change of entropy": float(effects.entropy[i].median()),
                 "with those above": float(together.loss[i].median())}
                for i, n in enumerate(neurons)
            ],
        )  # fmt: skip
    _patching(run, models, prompts, by_prompt)


def _patching(run: "Run", models: Mapping[str, Transformer], prompts: Prompts, by_prompt: bool) -> None:
    for name, model in models.items():
        found = compare_patching(model, *prompts, position=prompts.position, by_prompt=by_prompt)
        run.result(f"patching_error.{name}", found.error)
        liked = prefers(model, prompts.clean, prompts.answer, prompts.against)
        run.result(f"preferred.{name}", float(liked.double().mean()))
        patch, estimate = found.heat_maps
        run.table(
            f"patching_{name}",
            [
                {
                    "layer": layer,
                    "position": p,
                    "patched": float(patch[layer, p]),
                    "estimated": float(estimate[layer, p]),
                }
                for layer in range(patch.shape[0])
                for p in range(patch.shape[1])
            ],
        )
    run.result(
        "patching_ratio",
        run.results["patching_error.sequential"] / max(run.results["patching_error.control"], 1e-12),
    )
