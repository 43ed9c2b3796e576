"""Tokens per second of greedy decoding beside transformers: same weights, same prompts, same minutes.

    python benchmarks/decoding.py                        GPT-2 124M, random weights, batch 1 and 8, both number types
    python benchmarks/decoding.py --new 32 --rounds 3    shorter
    python benchmarks/decoding.py --int8 --int4          8-bit and 4-bit weights beside them
    python benchmarks/decoding.py --contrastive          contrastive search beside the published algorithm on theirs:
                                                         batch 1, 4 and 8, float32, 64 + 128 tokens, about 5 minutes
    python benchmarks/decoding.py --contrastive --new 256 --rounds 1    longer texts, where copies of the cache cost more

Ours and theirs take turns (A B A B …), so that other work on the machine meets both; each round gives one ratio, and the
table has their median and range. Ours is the path of `generate`: weights packed anew in every call, the prompt read,
then a token at a time; "kept" is the same without the packing, for weights that are packed once. GB/s: the bytes of
the matrices, which every step has to read, times steps per second, beside what this machine reads at most. Two
processes that share the cores wait for each other at every matrix: run this alone. For contrastive search the last column
is the published algorithm on our model and our laid-out weights, once: what the copies and the head cost by themselves.
"""

import argparse
import contextlib
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import cast

import torch
from transformers import DynamicCache, GPT2LMHeadModel

from gpt2lab.decode import Decoder, Greedy, Limits, pack
from gpt2lab.decode.packed import Weights
from gpt2lab.model import Transformer, attach, save_model
from gpt2lab.model.checkpoints.families.gpt2 import gpt2_config
from gpt2lab.model.quantization import Quantized
from gpt2lab.papers.contrastive_search.decoder import ContrastiveSearch
from gpt2lab.papers.contrastive_search.published import CopyingContrastiveSearch

SIZES = {
    "124M": gpt2_config(vocab_size=50257, d_model=768, n_layers=12, n_heads=12),
    "10M": gpt2_config(vocab_size=4096, d_model=320, n_layers=8, n_heads=5),
}
PROMPT, CONTRASTIVE_PROMPT = 32, 64
WARM = 4  # tokens
K, ALPHA = 5, 0.6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="124M")
    parser.add_argument("--new", type=int, default=128, help="tokens after the prompt")
    parser.add_argument("--rounds", type=int, help="turns of each (5; contrastive 3)")
    parser.add_argument("--batch", type=int, nargs="+", help="rows (1 8; contrastive 1 4 8)")
    parser.add_argument("--types", nargs="+", choices=["float32", "bfloat16"], help="(contrastive float32)")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--int8", action="store_true", help="also weights=int8")
    parser.add_argument(
        "--int4", action="store_true", help="also a model with all matrices quantised to 4 bits"
    )
    parser.add_argument("--contrastive", action="store_true", help="contrastive search, k 5, alpha 0.6")
    asked = parser.parse_args()
    usual = (3, [1, 4, 8], ["float32"]) if asked.contrastive else (5, [1, 8], ["float32", "bfloat16"])
    rounds, batches, types = asked.rounds or usual[0], asked.batch or usual[1], asked.types or usual[2]
    if asked.threads:
        torch.set_num_threads(asked.threads)
    kinds = ["packed", *(["int8"] if asked.int8 else []), *(["int4"] if asked.int4 else [])]
    best = bandwidth()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, memory read at {best:.1f} GB/s")
    columns = (
        "weights", "batch", "ours tok/s", "theirs tok/s", "ratio", "kept tok/s", "ratio", "kept GB/s",
        "same tokens", *(["loop on ours"] if asked.contrastive else []),
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name in types:
        with both(asked.size, getattr(torch, name)) as (ours, theirs):
            for batch in batches:
                for weights in kinds:
                    compare(
                        ours, theirs, weights, batch=batch, new=asked.new, rounds=rounds,
                        contrastive=asked.contrastive,
                    )  # fmt: skip


def compare(
    ours: Transformer,
    theirs: GPT2LMHeadModel,
    weights: str,
    *,
    batch: int,
    new: int,
    rounds: int,
    contrastive: bool = False,
) -> None:
    """Print one row of the table; weights is a layout of `pack`, or int4."""
    four_bits = weights == "int4"
    model = attach(copy.deepcopy(ours), Quantized(layers=("*",))) if four_bits else ours
    layout = cast(Weights, "packed" if four_bits else weights)
    decoder = ContrastiveSearch(k=K, alpha=ALPHA) if contrastive else Greedy()
    run_peer = run_published if contrastive else run_theirs
    length = CONTRASTIVE_PROMPT if contrastive else PROMPT
    prompts = torch.randint(
        ours.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0)
    )
    packing, deciding, other = [], [], []
    run_ours(model, layout, prompts, WARM, decoder)
    run_peer(theirs, prompts, WARM)
    for _ in range(rounds):
        pack_seconds, seconds, mine = run_ours(model, layout, prompts, new, decoder)
        their_seconds, their_tokens = run_peer(theirs, prompts, new)
        packing.append(pack_seconds)
        deciding.append(seconds)
        other.append(their_seconds)
    whole = [a + b for a, b in zip(packing, deciding, strict=True)]
    tokens, bytes_read = batch * new, matrix_bytes(ours)
    if weights != "packed" and batch == 1:  # codes are bytes; several rows meet written-out weights
        bytes_read /= ours.dtype.itemsize
    same = (
        sum(a == b for x, y in zip(mine, their_tokens, strict=True) for a, b in zip(x, y, strict=True))
        / tokens
    )
    kept = statistics.median(deciding)
    label = f"{str(ours.dtype).removeprefix('torch.')}{f' as {weights}' if weights != 'packed' else ''}"
    loop = ""
    if contrastive:
        copying = CopyingContrastiveSearch(k=K, alpha=ALPHA)
        loop = f" {run_ours(model, layout, prompts, new, copying)[1] / kept:.2f} |"
    print(
        f"| {label} | {batch} | {tokens / statistics.median(whole):.1f} | {tokens / statistics.median(other):.1f} "
        f"| {ratio(other, whole)} | {tokens / kept:.1f} | {ratio(other, deciding)} "
        f"| {bytes_read * new / kept / 1e9:.1f} | {same:.0%} |{loop}"
    )
    sys.stdout.flush()


def run_ours(
    model: Transformer, weights: Weights, prompts: torch.Tensor, new: int, decoder: Decoder
) -> tuple[float, float, list[list[int]]]:
    """Return the seconds of packing and of decoding, and the new tokens."""
    start = time.perf_counter()
    rows = len(prompts) * decoder.rows_per_prompt
    packed = pack(model, rows=rows, weights=weights)
    middle = time.perf_counter()
    decoded = decoder.decode(packed, prompts.tolist(), Limits(max_new_tokens=new))
    return middle - start, time.perf_counter() - middle, decoded.tokens


def run_theirs(model: GPT2LMHeadModel, prompts: torch.Tensor, new: int) -> tuple[float, list[list[int]]]:
    """Return the seconds of transformers' generate, and the new tokens."""
    start = time.perf_counter()
    out = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    return time.perf_counter() - start, out[:, prompts.shape[1] :].tolist()


@torch.inference_mode()
def run_published(model: GPT2LMHeadModel, prompts: torch.Tensor, new: int) -> tuple[float, list[list[int]]]:
    """Contrastive search as it is published: the cache copied k times at every step, all candidates through the head.

    The rows of the batch have equal lengths here; transformers 5 ships no contrastive search, so the loop is written out.
    """
    start = time.perf_counter()
    cache = DynamicCache(config=model.config)
    out = model.transformer(prompts, past_key_values=cache)
    context = out.last_hidden_state
    logits, batch, said = model.lm_head(context[:, -1]), len(prompts), []
    for _ in range(new):
        p, candidates = logits.float().softmax(-1).topk(K, dim=1)
        cache.batch_repeat_interleave(K)
        hidden = model.transformer(candidates.view(-1, 1), past_key_values=cache).last_hidden_state
        every = model.lm_head(hidden[:, 0])
        unit = torch.nn.functional.normalize(hidden.float(), dim=-1)
        seen = torch.nn.functional.normalize(context.float(), dim=-1).repeat_interleave(K, dim=0)
        penalty = (seen @ unit.transpose(1, 2)).amax(dim=(1, 2)).view(batch, K)
        best = ((1 - ALPHA) * p - ALPHA * penalty).argmax(dim=1)
        rows = torch.arange(batch) * K + best
        cache.batch_select_indices(rows)
        context = torch.cat([context, hidden[rows]], dim=1)
        logits = every[rows]
        said.append(candidates[torch.arange(batch), best])
    return time.perf_counter() - start, torch.stack(said, dim=1).tolist()


@contextlib.contextmanager
def both(size: str, dtype: torch.dtype) -> Iterator[tuple[Transformer, GPT2LMHeadModel]]:
    """Give the same random weights to both."""
    ours = Transformer(SIZES[size], generator=torch.Generator().manual_seed(0)).eval()
    with tempfile.TemporaryDirectory() as folder:
        save_model(ours, folder)
        theirs = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).eval()
        yield ours.to(dtype), theirs


def ratio(theirs: list[float], ours: list[float]) -> str:
    """Median and range of how many times faster ours is."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def matrix_bytes(model: Transformer) -> float:
    """Bytes that each step reads: all but the position table (and the embedding table, where it is not the head)."""
    counts = model.count_parameters()
    head = model.config.vocab_size * model.config.d_model
    return (counts["non_embedding"] + head) * model.dtype.itemsize


def bandwidth() -> float:
    """Return GB/s of summing 1 GB, the best of ten."""
    data = torch.ones(250_000_000)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        data.sum()
        seconds.append(time.perf_counter() - start)
    return data.numel() * 4 / min(seconds) / 1e9


if __name__ == "__main__":
    main()
