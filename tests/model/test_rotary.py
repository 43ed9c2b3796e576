"""Rotary tables in the number type of the model that reads them."""

import math

import pytest
import torch

from gpt2lab.model.rotary import RotaryTables
from tests.tiny import tiny, tokens


def test_a_float64_model_turns_by_float64_angles() -> None:
    config = tiny("llama").config
    tables = RotaryTables(config.rotary_width, config.rotary_base, config.max_positions)
    positions = torch.tensor([[0, 7, config.max_positions - 1]])
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float64):
        cos, sin = tables.at(positions, dtype)
        assert cos.dtype == sin.dtype == dtype
    for place, position in enumerate(positions[0].tolist()):
        for pair in range(config.rotary_width // 2):
            angle = position * config.rotary_base ** (-2 * pair / config.rotary_width)
            assert float(cos[0, 0, place, pair]) == pytest.approx(math.cos(angle), abs=1e-15)
            assert float(sin[0, 0, place, pair]) == pytest.approx(math.sin(angle), abs=1e-15)


def test_a_model_made_float32_again_gives_the_numbers_that_it_gave() -> None:
    model, ids = tiny("llama"), tokens(2, 9)
    with torch.no_grad():
        before, exact, after = model(ids), model.double()(ids), model.float()(ids)
    assert torch.equal(before, after) and exact.dtype == torch.float64
    assert (exact - before).abs().max() < 1e-5
