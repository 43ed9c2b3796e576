"""Five papers on one model: train it with Conda, remove LayerNorm, write with contrastive search, measure before and after.

    python examples/composition.py                    about six minutes on one core
    python examples/composition.py --data books/*.txt --steps 600
    python examples/composition.py --matrix           which transform works under which measure, and why others do not
    python examples/composition.py --help

Every step is a run that notes the model it worked on, so the report at the end shows the whole chain with its numbers.
The same chain as commands: gpt2lab train, then apply, generate and measure with the name of the run before.
"""

import argparse
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpt2lab
from gpt2lab.base.registry import parts

PROMPTS = ("Return a list of", "The woman works as a", "The man works as a")


def main(argv: Sequence[str] | None = None) -> Path | None:
    """Do the chain and return its report; with --matrix print the table of transforms and measures instead."""
    asked = _arguments(argv)
    if asked.matrix:
        runpy.run_path(str(Path(__file__).with_name("transforms_by_measures.py")), run_name="__main__")
        return None
    shape: dict[str, Any] = {"d_model": asked.d_model, "n_layers": asked.n_layers, "context": asked.context}
    trained = gpt2lab.train(
        name="composition",
        data=tuple(asked.data),
        optimizer=_built("optimizer", "conda") or "adamw",
        learning_rate=asked.learning_rate,
        steps=asked.steps,
        vocab_size=asked.vocab_size,
        samples=0,
        seed=asked.seed,
        **shape,
    )
    print(f"trained   {trained.id}: perplexity {trained.results['perplexity']:.1f}")
    look(trained.id, asked)
    last = trained.id
    if transform := _built("transform", "remove-layernorm"):
        options: dict[str, Any] = {
            "data": tuple(asked.data),
            "steps": asked.removal_steps,
            "seed": asked.seed,
        }
        last = gpt2lab.apply(transform, trained.id, save=True, **options).source
        print(f"applied   {last}: {transform}")
        look(last, asked)
    report = gpt2lab.report(last)
    print(f"report    {report}")
    return report


def look(model: str, asked: argparse.Namespace) -> None:
    """Let a model write, and measure it; every run is kept beside the model's."""
    if decoder := _built("decoder", "contrastive-search"):
        texts = gpt2lab.generate(model, PROMPTS, decoder=decoder, max_new_tokens=asked.new_tokens)
        print(f"wrote     {str(texts[0])!r}")
    measures: dict[str, dict[str, Any]] = {
        "perplexity": {"data": tuple(asked.data), "limit": asked.limit},
        # A small model hardly ever names an occupation when it is free to; the probability of each title is exact.
        "occupational-bias": {"mode": "exact", "intersections": tuple(asked.intersections)},
    }
    for name, options in measures.items():
        if _built("measure", name):
            measured = gpt2lab.measure(name, model, **options)
            shown = ", ".join(f"{key} {value:.4g}" for key, value in list(measured.numbers.items())[:3])
            print(f"measured  {name}: {shown}")


def _built(kind: str, name: str) -> str | None:
    """Return the name of a part; None, with a sentence, for one that a paper has announced and not built."""
    found = next((one for one in parts(kind) if one.name == name), None)
    if found is not None and not found.built:
        print(f"skipped   {name}: this {kind} is not built yet")
        return None
    return name  # one that does not exist is an error, which its own verb tells


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["docstrings:3000000"], help="text for every step")
    parser.add_argument("--steps", type=int, default=600, help="updates of the training")
    parser.add_argument(
        "--removal-steps", type=int, default=300, help="updates in which the norms are removed"
    )
    parser.add_argument("--learning-rate", type=float, default=1.2e-2, help="Conda's peak")
    parser.add_argument("--d-model", type=int, default=128)
    parser.add_argument("--n-layers", type=int, default=3)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--new-tokens", type=int, default=40, help="tokens of each text")
    parser.add_argument("--limit", type=int, default=20_000, help="tokens that the perplexity reads")
    parser.add_argument(
        "--intersections", nargs="*", default=["ethnicity"], help="groups beside woman and man"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--matrix",
        action="store_true",
        help="print every transform under every measure, on a tiny model, instead",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
