"""The method against its definition."""

import torch

from gpt2lab.cli.skeletons.decoder.decoder import ExampleDecoder
from gpt2lab.decode.interface import Limits
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config

NONE = torch.zeros(1, 0)


def test_tokens_below_the_threshold_are_impossible_and_the_others_keep_their_ratio() -> None:
    """p = (0.6, 0.3, 0.08, 0.02) and epsilon 0.05 leave the first three."""
    p = torch.tensor([[0.6, 0.3, 0.08, 0.02]])
    left = ExampleDecoder(epsilon=0.05).process(p.log(), NONE, NONE).softmax(-1)
    assert torch.allclose(left, torch.tensor([[0.6, 0.3, 0.08, 0.0]]) / 0.98)


def test_the_likeliest_token_stays_however_flat_the_distribution() -> None:
    """Of a hundred nearly equal tokens none reaches epsilon; the best is drawn."""
    logits = torch.zeros(1, 100)
    logits[0, 42] = 0.01
    left = ExampleDecoder(epsilon=0.5).process(logits, NONE, NONE)
    assert left.isfinite().nonzero().tolist() == [[0, 42]]


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    """Padding and neighbours change no text."""
    config = gpt2_config(vocab_size=31, d_model=16, n_layers=1, n_heads=2, max_positions=32)
    model = Transformer(config, generator=torch.Generator().manual_seed(0)).eval()
    prompts, limits = [[1, 2, 3], [4]], Limits(max_new_tokens=6)

    def drawn(rows: list[list[int]]) -> list[list[int]]:
        generators = [torch.Generator().manual_seed(row[0]) for row in rows]
        return list(ExampleDecoder().decode(model, rows, limits, generator=generators))

    assert drawn(prompts) == [drawn([prompt])[0] for prompt in prompts]
