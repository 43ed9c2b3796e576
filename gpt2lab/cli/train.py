"""Pre-train a new model or fine-tune a given one; the run's folder has the model, checkpoints, metrics and a report.

examples:
  gpt2lab train --data tinyworld:3000 --d-model 64 --steps 200
  gpt2lab train --data books --steps 300
  gpt2lab train --data notes.txt --steps 300
  gpt2lab train --data docstrings --family llama --d-model 256 --n-layers 6 --optimizer adamw
  gpt2lab train --data reviews.csv --model gpt2 --set task.kind=classification --set task.label=stars
  gpt2lab train --data notes.jsonl --model gpt2 --architecture soft-prompt --set architecture_options.length=50
  gpt2lab train --data notes.jsonl --model EleutherAI/pythia-70m
  gpt2lab train --data pairs.jsonl --model gpt2 --objective dpo --set objective_options.beta=0.1
  gpt2lab train --data notes.jsonl --model gpt2 --set lora.rank=8 --set lora.targets=q,v

The default learning rate for a given model is 5e-4 · (128 / d_model)², at least 2e-5 and at most 5e-4, for AdamW; ten times
that if only an adapter or a soft prompt is trained. Its validation loss is also measured before the first
update. A setting that the training would not read is refused.
"""

import argparse
import shlex
from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gpt2lab.actions.optimizer_options import refuse_options
from gpt2lab.actions.train_rules import refuse_no_data, refuse_unused
from gpt2lab.base.outline import outline, part_outline
from gpt2lab.base.settings import add_arguments, build, given, nested_settings, options, show
from gpt2lab.cli.parser import Parser, add_set, settings_help, typed
from gpt2lab.cli.runs import plain
from gpt2lab.cli.show import pairs, print_json
from gpt2lab.runs.lineage import settings_of

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

_LOOP = (
    "steps",
    "learning_rate",
    "schedule",
    "warmup",
    "weight_decay",
    "accumulation",
    "precision",
    "compile",
)
_RARE = (
    "valid_fraction",
    "optimizer_options",
    "architecture_options",
    "objective_options",
    "lora",
    "quantize",
    "evaluation_tokens",
    "samples",
)


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add the common settings as flags; --help lists the others, which --set reaches."""
    usual = _settings()()
    parser.section = "train"
    loop = [option.name for option in options(type(usual.train))]
    rare = [*_RARE, *(f"train.{name}" for name in loop if name not in _LOOP)]
    tasks = [f"task.{option.name}" for option in options(type(usual.task))]
    rare += tasks
    nested = [*(f"train.{name}" for name in loop), *tasks]
    add_arguments(parser, type(usual), skip=[*_RARE, *nested])
    add_arguments(parser, type(usual.train), only=_LOOP, default=usual.train)
    parser.add_argument(
        "--name", default="train", metavar="NAME", help="of the run: NAME-1, NAME-2, ... (default: train)"
    )
    add_set(parser)
    every = list(options(type(usual)))
    listing = [option for option in every if option.name in rare]
    for option in every:
        kind = nested_settings(option.type)
        listing += options(kind, f"{option.name}.") if kind is not None else ()
    names = [option.name for option in listing]
    flags = {option.name for option in every} - set(names)
    parser.elsewhere = lambda name: _by_set(name, names, flags)
    of_parts = "".join(f"\n\n{text}" for text in _of_parts(argv)) if {"-h", "--help"} & set(argv) else ""
    parser.epilog = f"{parser.epilog}\n\n{settings_help('further settings', listing)}{of_parts}"


def _of_parts(argv: Sequence[str]) -> Iterator[str]:
    """Yield the part of --help that lists the options of each part that was typed: optimizer, architecture, objective."""
    from gpt2lab.actions.parts import optimizer_defaults

    optimizer = typed(argv, "--optimizer")
    if optimizer is not None:
        lines = [
            f"  optimizer_options.{name}={show(value)}"
            for name, value in optimizer_defaults(optimizer).items()
        ]
        yield "\n".join(
            [
                f"options of {optimizer} (--set NAME=VALUE):",
                *(lines or ["  those of the loop: train.betas, train.eps"]),
            ]
        )
    for kind in ("architecture", "objective"):
        name = typed(argv, f"--{kind}")
        if name is not None:
            yield settings_help(f"options of {name}", options(part_outline(kind, name), f"{kind}_options."))


def _by_set(name: str, settings: Sequence[str], flags: Container[str]) -> str | None:
    """Say how a setting without a flag of its own is given; `--layers` means the flag --n-layers."""
    if f"n_{name}" in flags:
        return None
    found = next((one for one in settings if name in (one, one.rpartition(".")[2])), None)
    return f"a setting without a flag of its own; give it as --set {found}=VALUE" if found else None


def run(arguments: argparse.Namespace) -> None:
    """Train, then print the results and where the model is."""
    chosen = _chosen(arguments)
    from gpt2lab.actions.train import train  # torch, of which a wrong word need not wait

    show_training(train(name=arguments.name, **chosen), as_json=arguments.json)


def _settings() -> type:
    """Return the settings of a training, read from their source: names, types, defaults and docs, without torch."""
    found = outline("gpt2lab.actions.train_settings:TrainingSettings")
    assert found is not None, "the lab's own settings are written so that they can be read"
    return found


def _chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were typed. LabError, before torch is there, for a misspelt name or a wrong type."""
    kind = _settings()
    loop = type(kind().train)
    chosen = {**given(arguments, kind), **given(arguments, loop), **arguments.settings}
    names = {option.name for option in options(loop)}
    full = {f"train.{name}" if name in names else name: value for name, value in chosen.items()}
    made: Any = build(kind, full, "train")
    refuse_no_data(made)
    for part_kind, name, own in (
        ("architecture", made.architecture, made.architecture_options),
        ("objective", made.objective, made.objective_options),
    ):
        if name is not None:
            build(part_outline(part_kind, name), own, f"train: {part_kind} {name}")
    refuse_options(made.optimizer, made.optimizer_options)
    refuse_unused(made, sorted(full))
    return chosen


def show_training(run: "Run", as_json: bool) -> None:
    """Print what a training run found."""
    if as_json:
        print_json(
            {**plain(run.row), "model": str(run.folder / "model"), "report": str(run.folder / "report.html")}
        )
        return
    from gpt2lab.actions.train_data import risen

    print(f"{run.id}\n{pairs(run.results.items())}")
    before, after = (run.results.get(name) for name in ("before.validation_loss", "validation_loss"))
    if before is not None and after is not None and after > before:
        print(f"note    {risen(before, after)}")
    print(f"\nmodel   {run.folder / 'model'}")
    print(f"report  {run.folder / 'report.html'}")
    fills_in = "masked_perplexity" in run.results  # a bidirectional model, which does not go on from a prompt
    following = f"measure pseudo-perplexity {run.id}" if fills_in else f'generate {run.id} "..."'
    if "validation_examples" in run.results:  # a head, which has a measure of its kind
        following = _measure_of(run)
    print(f"next    gpt2lab {following}")


def _measure_of(run: "Run") -> str:
    """Return the words that measure what a run's head has learnt, on its validation data if it was given some."""
    settings = settings_of(run.row)
    task = settings["task"]
    measure = {"regression": "regression", "tokens": "token-classification"}.get(
        task["kind"], "classification"
    )
    if task["kind"] in ("contrastive", "simcse"):
        measure = "retrieval"
    data = "FOLDER" if measure == "retrieval" else shlex.join(task["valid"]) or "FILE"
    return f"measure {measure} {run.id} --data {data}"
