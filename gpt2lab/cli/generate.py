"""Continue a prompt, or several, with any decoder.

examples:
  gpt2lab generate train-1 "It is a truth"
  gpt2lab generate EleutherAI/pythia-70m "Once upon a time" --decoder sampling --top-p 0.9 --seed 1
  gpt2lab generate train-1 --prompts prompts.txt --json
  gpt2lab generate smollm2-135m "Why is the sky blue?" --chat
  gpt2lab generate MODEL --decoder beam --help     the options of a decoder
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.outline import part_outline
from gpt2lab.base.registry import parts
from gpt2lab.base.settings import add_arguments, build
from gpt2lab.base.settings import options as options_of
from gpt2lab.base.wording import listed
from gpt2lab.cli.parser import MODEL, Parser, add_device, add_dtype, add_seed, add_set, typed, whole
from gpt2lab.cli.part_options import typed_options
from gpt2lab.cli.show import print_json
from gpt2lab.cli.texts import typed_texts


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add model, prompts, limits, and the options of the decoder that was typed."""
    decoder = typed(argv, "--decoder") or "greedy"
    names = [one.name for one in parts("decoder") if one.built]
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "prompt", nargs="*", metavar="PROMPT", help="text to continue; several give several texts"
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="file of prompts: the lines of a text, or the rows of jsonl, csv, parquet or a source",
    )
    parser.add_argument(
        "--field", metavar="NAME", help="field of the prompt in the rows of --prompts (default: text)"
    )
    parser.add_argument(
        "--decoder",
        default="greedy",
        metavar="NAME",
        help=f"decoder: {', '.join(names)} (default: greedy)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=whole,
        metavar="N",
        help="longest continuation, in tokens (default: 64, or what fits)",
    )
    parser.add_argument(
        "--min-new-tokens",
        type=whole,
        default=0,
        metavar="N",
        help="shortest continuation, in tokens (default: 0)",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="string that ends a text; may be repeated",
    )
    parser.add_argument(
        "--chat",
        action="store_true",
        help="take each prompt for a user's message and put it into the model's chat template",
    )
    add_seed(parser, "seed of a decoder that samples", default=None)
    add_device(parser)
    add_dtype(parser)
    add_set(parser)
    parser.elsewhere = lambda name: _of_decoder(name, decoder)
    group = parser.add_argument_group(f"decoder {decoder}")
    add_arguments(group, part_outline("decoder", decoder), skip=_OWN)


def _of_decoder(name: str, chosen: str) -> str | None:
    """Say which other decoders have an option of this name."""
    others = [one.name for one in parts("decoder") if one.built and one.name != chosen]
    having = [
        other
        for other in others
        if name in {option.name for option in options_of(part_outline("decoder", other))}
    ]
    if not having:
        return None
    return f"no option of {chosen}, but of {listed(having)}; choose the decoder with --decoder {having[0]}"


_OWN = ("seed", "device", "dtype", "stop", "max_new_tokens", "min_new_tokens", "chat")


def run(arguments: argparse.Namespace) -> None:
    """Print each prompt with its continuation, of a chat the answers; one prompt is streamed as it grows."""
    from gpt2lab.actions.generate import generate

    options = _options(arguments, generate)
    missing = 'what to go on from is missing; give a prompt, "Once upon a time"'
    prompts = typed_texts(
        arguments.prompt, arguments.prompts, arguments.field, flag="--prompts", missing=missing
    )
    from gpt2lab.decode.generate import build_decoder  # torch, of which a wrong word need not wait

    decoder = build_decoder(arguments.decoder, options)  # a mistake is told before a model is loaded
    if arguments.seed is not None and not decoder.draws:
        raise LabError(
            f"--seed {arguments.seed}: the decoder {arguments.decoder} draws nothing with these options, so that no seed "
            "changes the text; leave it out"
        )
    streamed = len(prompts) == 1 and not arguments.json and decoder.streams
    stream = _Stream("" if arguments.chat else prompts[0]) if streamed else None
    results = generate(
        arguments.model,
        prompts,
        decoder=arguments.decoder,
        device=arguments.device,
        dtype=arguments.dtype,
        command=arguments.line,
        max_new_tokens=arguments.max_new_tokens,
        min_new_tokens=arguments.min_new_tokens,
        stop=[text.replace("\\n", "\n").replace("\\t", "\t") for text in arguments.stop],
        seed=arguments.seed or 0,
        chat=arguments.chat,
        stream=stream,
        **options,
    )
    if stream is not None:
        stream(0, "\n")
    elif arguments.json:
        print_json([asdict(result) for result in results])
    else:
        shown = [""] * len(prompts) if arguments.chat else prompts
        texts = [prompt + result.text for prompt, result in zip(shown, results, strict=True)]
        print("\n\n".join(texts))


def _options(arguments: argparse.Namespace, generate: Callable[..., Any]) -> dict[str, Any]:
    """Return the options of the decoder, checked before torch is imported. LabError for a name or value that it lacks.

    Names that it shares with another library are left to the decoder itself.
    """
    name = arguments.decoder
    outline = part_outline("decoder", name)
    options = typed_options(arguments, outline, generate, "a decoder")
    known = {option.name for option in options_of(outline)}
    others = vars(outline).get("other_names") or {}
    for option in options:
        if option not in known and option not in others:
            raise unknown(f"option of generate with decoder {name}", option, known)
    build(outline, {option: value for option, value in options.items() if option in known}, f"decoder {name}")
    return options


class _Stream:
    """Write a prompt when its first new piece is there, and every piece as it comes."""

    def __init__(self, prompt: str) -> None:
        self.waiting = prompt

    def __call__(self, index: int, piece: str) -> None:
        sys.stdout.write(self.waiting + piece)
        sys.stdout.flush()
        self.waiting = ""
