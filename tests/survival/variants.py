"""The kinds of training that are killed: what each differs in, and the small data they learn from."""

import json
import random
import re
from pathlib import Path

from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.settings import build

WORDS = re.findall(
    r"\w+", "the a small old cat dog ship sea house ran saw found lost and but near under with it"
)

SMALL = {
    "d_model": 16, "n_layers": 2, "n_heads": 2, "context": 16, "vocab_size": 300, "batch_size": 4, "tokenizer": "bytes",
    "valid_fraction": 0.2, "evaluation_tokens": 64, "samples": 1, "device": "cpu", "train.steps": 13, "train.warmup": 2,
    "train.evaluate_every": 4, "train.checkpoint_every": 3, "train.log_every": 2,
}  # fmt: skip

VARIANTS: dict[str, dict[str, object]] = {
    "plain": {"family": "llama"},
    "bpe": {"tokenizer": "auto"},
    "accumulation": {"train.accumulation": 3, "tokenizer": "words"},
    "lora": {"model": "base", "lora.rank": "3", "lora.dropout": "0.1"},
    "qlora": {"model": "base", "lora.rank": "3", "quantize.bits": "4"},
    "masked": {"family": "bert", "tokenizer": "words"},
    "classification": {"task.kind": "classification", "task.label": "label", "task.dropout": "0.1"},
    "tokens": {"task.kind": "tokens", "task.label": "tags", "tokenizer": "auto"},
    "soft-prompt": {
        "model": "base",
        "context": 12,
        "architecture": "soft-prompt",
        "architecture_options.length": "4",
    },
    "pondering": {"architecture": "pondering"},
    "conda": {"optimizer": "conda", "train.learning_rate": 1e-3},
    "sophia": {"optimizer": "sophia-g", "train.learning_rate": 1e-3},
    "experts": {"family": "mixtral", "experts": 2},
    "bf16": {"train.precision": "bf16"},
    "simctg": {"objective": "simctg"},
    "ends-early": {
        "train.keep": "best",
        "train.keep_last": 1,
        "train.evaluate_every": 2,
        "train.best.mode": "max",
        "train.early_stopping.patience": 3,
        "train.early_stopping.min_delta": 0.1,
    },
    "private": {"train.privacy.noise": 0.1, "train.accumulation": 2},
    "distillation": {"objective": "distillation", "model": "base"},
}
"""What each variant differs in from `SMALL`; the model `base` is one that was trained before."""


def write_data(folder: Path) -> None:
    """Write forty short texts and forty labelled rows, the same at every call."""
    draw = random.Random(0)
    texts = [[draw.choice(WORDS) for _ in range(60)] for _ in range(40)]
    (folder / "text.txt").write_text("\n<|endoftext|>\n".join(" ".join(words) + "." for words in texts))
    rows = [
        {
            "text": " ".join(words[:8]),
            "label": "sea" if "ship" in words[:8] else "land",
            "words": words[:8],
            "tags": ["B-ANIMAL" if word in ("cat", "dog") else "O" for word in words[:8]],
        }
        for words in texts
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def settings(variant: str, data: Path) -> TrainingSettings:
    """Return the settings of a variant; `data` is the folder of `write_data`, with the run `base` in `data/home`."""
    changes = dict(VARIANTS[variant])
    if "model" in changes:
        changes["model"] = str(data / "home" / "base-1" / "model")
    labelled = "task.kind" in changes
    changes["data"] = (str(data / ("rows.jsonl" if labelled else "text.txt")),)
    if changes.get("task.kind") == "tokens":
        changes["field"] = "words"
    return build(TrainingSettings, SMALL | changes, variant)
