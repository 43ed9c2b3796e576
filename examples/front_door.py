"""The README's Python as a script: what the type checker reads strictly, so that an editor completes every name.

python examples/front_door.py [MODEL]    a run, a folder, or a hub id; none trains a small model
"""

import sys

import torch

import gpt2lab


def new_model() -> str:
    """Train a small model on generated stories; return the name of its run, which is a MODEL everywhere."""
    run = gpt2lab.train("tinyworld:200", steps=20, d_model=32, n_heads=2)
    return run.id


def main(model: str) -> float:
    """Write, measure, read out, change and save a model; return its perplexity in eight bits."""
    lm = gpt2lab.load(model)
    one = gpt2lab.generate(lm, "Ben was", decoder="sampling", top_p=0.9, seed=1)
    several = gpt2lab.generate(lm, ["Ben was", "Anna had"], decoder="contrastive-search", k=4, alpha=0.6)
    print(one.text, [text.finished for text in several])
    before = gpt2lab.measure("perplexity", lm, data="tinyworld:200")
    smaller = gpt2lab.apply("quantize", lm, bits=8)
    after = gpt2lab.measure("perplexity", smaller, data="tinyworld:200")
    print(before.numbers["perplexity"], after.numbers["perplexity"])
    assert lm.tokenizer is not None
    logits = lm.model(torch.tensor([lm.tokenizer.encode("Ben was")]))  # [batch, time, vocab]
    print(logits.shape)
    gpt2lab.save(smaller, "smaller")
    return after.numbers["perplexity"]


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else new_model())
