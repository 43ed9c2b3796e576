"""Write a model for other programs: Hugging Face's folder, llama.cpp's GGUF, or ONNX.

examples:
  gpt2lab export train-1 --to huggingface --out my-model
  gpt2lab export train-1 --to gguf --precision f16 --out my-model.gguf
  gpt2lab export my-model.gguf --to huggingface --precision bf16 --out my-model
  gpt2lab export EleutherAI/pythia-70m --to onnx --out pythia.onnx
"""

import argparse
from collections.abc import Sequence

from gpt2lab.base.wording import size
from gpt2lab.cli.parser import MODEL, Parser
from gpt2lab.cli.show import print_json


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add model, --to, --out and --precision."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=MODEL,
    )
    parser.add_argument(
        "--to", choices=("huggingface", "gguf", "onnx"), required=True, help="format to write"
    )
    parser.add_argument("--out", metavar="PATH", required=True, help="the file, or Hugging Face's folder")
    parser.add_argument(
        "--precision",
        choices=("f32", "f16", "bf16"),
        help="of the matrices in a GGUF file (default: f32), or of all weights in Hugging Face's folder (default: the "
        "model's own); ONNX is f32",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print what was written and what it does not hold."""
    from gpt2lab.actions.export import export

    done = export(
        arguments.model,
        to=arguments.to,
        out=arguments.out,
        precision=arguments.precision,
        command=arguments.line,
    )
    if arguments.json:
        print_json(
            {
                "path": str(done.path),
                "kind": done.kind,
                "bytes": done.size,
                "dtype": done.dtype,
                "notes": list(done.notes),
            }
        )
        return
    print(f"wrote   {done.path}")
    print(f"size    {size(done.size)}, matrices in {done.dtype}")
    for note in done.notes:
        print(f"note    {note}")
