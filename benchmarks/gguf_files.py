"""A GGUF file read here, by transformers and by llama.cpp: seconds, memory, weights, logits, ids and greedy tokens.

    python benchmarks/gguf_files.py FILE.gguf [--texts 800] [--tokens 24]

transformers' loading and ours take turns, each in a process of its own, whose largest memory is printed. llama.cpp is
asked if the package xllamacpp is installed: for the ids of hard strings on the file itself, and for greedy tokens on
the same weights in float32, since it rounds activations to 8 bits beside rounded weights.
"""

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import torch

import gpt2lab
from gpt2lab.text.language_model import LanguageModel, save

OURS = "from gpt2lab.text.language_model import load; load({path!r})"
THEIRS = (
    "import pathlib, transformers as t; p = pathlib.Path({path!r}); "
    "t.AutoModelForCausalLM.from_pretrained(p.parent, gguf_file=p.name); "
    "t.AutoTokenizer.from_pretrained(p.parent, gguf_file=p.name)"
)
MEASURED = (
    "import resource, time, torch; torch.set_num_threads(1); {imports}; "
    "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024; before = peak(); start = time.monotonic(); "
    "{load}; print('\\n', time.monotonic() - start, before, peak())"
)


def loading(path: Path, rounds: int) -> None:
    """Print seconds and memory of both ways to load the file; the imports before are not counted."""
    kinds = {
        "gpt2lab": ("import gpt2lab.text.language_model, gguf", OURS),
        "transformers": ("import transformers, gguf, transformers.models.llama.modeling_llama", THEIRS),
    }
    for _ in range(rounds):
        for name, (imports, load) in kinds.items():
            code = MEASURED.format(imports=imports, load=load.format(path=str(path)))
            run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            seconds, before, peak = map(float, run.stdout.split("\n")[-2].split())
            print(f"{name:<14}{seconds:7.1f} s   memory {before:.0f} MiB before, {peak:.0f} MiB at most")


@torch.no_grad()
def compare_weights(lm: LanguageModel, path: Path, text: str) -> None:
    """Print whether every weight is that of transformers, and how far the logits differ."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name).eval()
    with tempfile.TemporaryDirectory() as folder:
        save(lm, Path(folder) / "model")
        saved = AutoModelForCausalLM.from_pretrained(Path(folder) / "model").state_dict()
    differ = [
        name for name, tensor in theirs.state_dict().items() if not torch.equal(tensor.float(), saved[name])
    ]
    assert lm.tokenizer is not None
    ids = torch.tensor([lm.tokenizer.encode(text)[:160]])
    ours, expected = lm.model(ids), theirs(ids).logits.float()
    print(f"weights       {len(differ)} of {len(saved)} tensors differ from transformers' {differ[:3]}")
    print(
        f"logits        {(ours - expected).abs().max():.1e} of {expected.abs().max():.1f} on {ids.shape[1]} tokens"
    )


def hard_texts(count: int) -> list[str]:
    """Pieces of this file, and strings of digits, accents, signs and blanks."""
    rng, source = random.Random(0), Path(__file__).read_text()
    texts = [
        "in 1789: 12½ or ٣٤",
        "  two  blanks\n\n and\ttabs \r\n",
        "naïve “café” 日本語 🙂🙃",
        "I'LL we'Ve it's x\u00a0y",
    ]
    ranges = (
        (32, 127),
        (48, 58),
        (160, 0x500),
        (0x2000, 0x2100),
        (0x4E00, 0x4F00),
        (0x660, 0x66A),
        (10, 11),
        (32, 33),
    )
    for i in range(count - len(texts)):
        at = rng.randrange(len(source) - 200)
        piece = "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(30))
        texts.append(piece if i % 2 else source[at : at + rng.randrange(1, 200)])
    return texts


def ask_llama_cpp(path: Path, requests: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the answers of a server of llama.cpp with this file."""
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path, options.n_ctx, options.n_parallel, options.warmup = str(path), 512, 1, False
    with socket.socket() as free:  # a port of its own: the server before this one may still hold another
        free.bind(("127.0.0.1", 0))
        options.fit_params, options.verbosity, options.port = False, -1, free.getsockname()[1]
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(options)
    found = []
    for where, body in requests:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(server.listening_address + where, data, kind)
        ) as answer:
            found.append(json.load(answer))
    return found


def compare_llama_cpp(
    lm: LanguageModel, path: Path, texts: list[str], prompts: list[str], tokens: int
) -> None:
    """Print how many texts have other ids there, and how many prompts another greedy continuation."""
    assert lm.tokenizer is not None
    asked = [("/tokenize", {"content": text, "add_special": False, "parse_special": True}) for text in texts]
    theirs = [answer["tokens"] for answer in ask_llama_cpp(path, asked)]
    other = sum(ids != lm.tokenizer.encode(text) for ids, text in zip(theirs, texts, strict=True))
    print(f"ids           {other} of {len(texts)} texts differ from llama.cpp's")
    with tempfile.TemporaryDirectory() as folder:
        gpt2lab.export(lm, to="gguf", out=Path(folder) / "f32.gguf", keep=False)
        ours = gpt2lab.generate(
            lm, prompts, max_new_tokens=tokens, stop_at_eos=False, batch_size=1, keep=False
        )
        greedy = {
            "n_predict": tokens,
            "top_k": 1,
            "return_tokens": True,
            "cache_prompt": False,
            "ignore_eos": True,
        }
        asked = [("/completion", {"prompt": one.prompt_tokens, **greedy}) for one in ours]
        theirs = [answer["tokens"] for answer in ask_llama_cpp(Path(folder) / "f32.gguf", asked)]
    other = sum(list(one.tokens) != ids for one, ids in zip(ours, theirs, strict=True))
    print(f"greedy        {other} of {len(prompts)} continuations of {tokens} tokens differ from llama.cpp's")


def main() -> None:
    """Compare one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=2, help="how often each loads the file")
    parser.add_argument("--texts", type=int, default=800)
    parser.add_argument("--tokens", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.file.resolve()
    loading(path, arguments.rounds)
    lm = gpt2lab.load(path)
    texts = hard_texts(arguments.texts)
    compare_weights(lm, path, Path(__file__).read_text())
    try:
        import xllamacpp  # noqa: F401  (asked for whether it is there)
    except ImportError:
        print("llama.cpp     not asked: the package xllamacpp is not installed")
        return
    prompts = [
        "The capital of France is",
        "Once upon a time",
        "In 1969,",
        "def fibonacci(n):",
        "The best way is",
    ]
    compare_llama_cpp(lm, path, texts, prompts, arguments.tokens)


if __name__ == "__main__":
    main()
