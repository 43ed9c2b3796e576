"""Speed of generation and of training with meta-attention, gathered and dense, beside the plain model.

    python benchmarks/meta_tokens.py                        GPT-2 of width 256, 4 blocks; a tenth of the prompt is metas
    python benchmarks/meta_tokens.py --width 768 --blocks 12 --rounds 5

All forms run in turns in one process on one core; a figure is the least processor time of the rounds, and "x plain" its
ratio to the plain model's in the same rounds. "prefill" reads a prompt into the cache and is the time to the first token,
"token" is one decoded token behind it, "training" a forward and a backward pass.
"""

import argparse
import time
from collections.abc import Callable

import torch

from gpt2lab.model import Transformer, attach
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.meta_tokens import MetaAttention

META = 0
FORMS: dict[str, MetaAttention | None] = {
    "plain": None,
    "gathered": MetaAttention(token=META, draw="model"),
    "dense": MetaAttention(token=META, draw="model", backend="dense"),
    "second full attention": MetaAttention(among="all", draw="model"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--new", type=int, default=32, help="tokens decoded")
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the prompt that is metas")
    parser.add_argument("--vocab", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    models = {name: built(asked, form) for name, form in FORMS.items()}
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(1, asked.vocab, (1, asked.prompt), generator=generator)
    prompt[0, torch.randperm(asked.prompt, generator=generator)[: round(asked.fraction * asked.prompt)]] = (
        META
    )
    works: dict[str, Callable[[Transformer], float]] = {
        "prefill": lambda model: decoded(model, prompt, asked.new)[0],
        "token": lambda model: decoded(model, prompt, asked.new)[1],
        "training": lambda model: trained(model, prompt.expand(4, -1)),
    }
    print(f"{'':24}" + "".join(f"{name + ', ms':>14}{'x plain':>9}" for name in works))
    least = {(form, work): float("inf") for form in models for work in works}
    for _ in range(asked.rounds + 1):  # the first warms up
        for form, model in models.items():
            for work, run in works.items():
                least[form, work] = min(least[form, work], run(model))
    for form in models:
        cells = [(least[form, work], least[form, work] / least["plain", work]) for work in works]
        print(f"{form:24}" + "".join(f"{1000 * seconds:14.2f}{ratio:9.2f}" for seconds, ratio in cells))


def built(asked: argparse.Namespace, form: MetaAttention | None) -> Transformer:
    config = gpt2_config(
        vocab_size=asked.vocab,
        d_model=asked.width,
        n_layers=asked.blocks,
        n_heads=asked.heads,
        max_positions=asked.prompt + asked.new,
        positions="rotary",
    )
    model = Transformer(config)
    return model.eval() if form is None else attach(model, form).eval()


@torch.no_grad()
def decoded(model: Transformer, prompt: torch.Tensor, new: int) -> tuple[float, float]:
    """Return seconds of reading the prompt, and of one decoded token."""
    cache = model.new_cache(batch=1, length=prompt.shape[1] + new)
    start = time.process_time()
    model(prompt, cache=cache)
    read = time.process_time() - start
    start = time.process_time()
    for token in range(1, new + 1):
        model(torch.tensor([[token]]), cache=cache)
    return read, (time.process_time() - start) / new


def trained(model: Transformer, rows: torch.Tensor) -> float:
    """Return seconds of a forward and a backward pass over rows."""
    start = time.process_time()
    model.next_token_loss(rows).backward()
    model.zero_grad(set_to_none=True)
    return time.process_time() - start


if __name__ == "__main__":
    main()
