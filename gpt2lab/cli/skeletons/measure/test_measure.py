"""The measure against its definition, window by window, in float64."""

from pathlib import Path

import torch

from gpt2lab.cli.skeletons.measure.measure import ExampleMeasure
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import word_level

TEXT = "the cat sat on the mat and the dog sat on the cat while the sun was low and the mat was warm"


def small() -> LanguageModel:
    """Return a random model of the words of TEXT."""
    tokenizer = word_level([TEXT])
    config = gpt2_config(vocab_size=tokenizer.vocab_size, d_model=16, n_layers=1, n_heads=2, max_positions=16)
    return LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(0)).eval(), tokenizer)


@torch.no_grad()
def test_the_score_is_late_minus_early_loss(tmp_path: Path) -> None:
    """Two windows of 8 tokens; the quarters are positions 0-1 and 6-7."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    lm = small()
    assert lm.tokenizer is not None
    measured = ExampleMeasure(data=(str(tmp_path / "text.txt"),), window=8)(lm)
    ids = lm.tokenizer.encode(TEXT)
    early, late = [], []
    for start in (0, 8):
        logits = lm.model(torch.tensor([ids[start : start + 8]]))[0].double()
        for position in range(8):
            loss = -float(logits[position].log_softmax(-1)[ids[start + position + 1]])
            early += [loss] if position < 2 else []
            late += [loss] if position >= 6 else []
    assert measured.about["windows"] == 2
    assert abs(measured["score"] - (sum(late) - sum(early)) / 4) < 1e-5


def test_no_number_depends_on_the_batch(tmp_path: Path) -> None:
    """Windows do not see each other."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    data = (str(tmp_path / "text.txt"),)
    measures = [ExampleMeasure(data=data, window=4, batch_size=size) for size in (1, 8)]
    one, many = (measure(small()) for measure in measures)
    assert abs(one["score"] - many["score"]) < 1e-6
