"""Isotropy against a loop over all pairs, and what the measure shows of a model."""

import io
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.papers.contrastive_search.isotropy import (
    Directions,
    Isotropy,
    isotropy,
    last_states,
    pair_sum,
    similarity,
    token_similarity,
    without,
)
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level
from tests.tiny import tiny


def texts() -> list[Tensor]:
    """Texts of unequal length; one of a single token, and one whose states are nearly alike."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(n, 6, generator=generator) for n in (5, 1, 9)]
    return [*drawn, torch.ones(3, 6) + 0.01 * torch.randn(3, 6, generator=generator)]


def slow(text: Tensor) -> tuple[float, int]:
    total, pairs = 0.0, 0
    for i in range(len(text)):
        for j in range(len(text)):
            if i != j:
                a, b = text[i].double(), text[j].double()
                total += float(a @ b / (a.norm() * b.norm()))
                pairs += 1
    return total, pairs


def test_both_weightings_are_those_of_a_loop_over_all_pairs() -> None:
    sums = [slow(text) for text in texts()]
    pairs = 1 - sum(total for total, _ in sums) / sum(n for _, n in sums)
    several = [total / n for total, n in sums if n]
    by_text = 1 - sum(several) / len(several)
    assert isotropy(texts()) == pytest.approx(pairs, abs=1e-12)
    assert isotropy(texts(), weighting="texts") == pytest.approx(by_text, abs=1e-12)
    assert abs(pairs - by_text) > 0.05
    assert similarity(texts()[0]).diagonal() == pytest.approx(torch.ones(5, dtype=torch.float64))


def test_values_that_are_known() -> None:
    assert isotropy([torch.ones(4, 3)]) == pytest.approx(0.0, abs=1e-12)
    assert isotropy([torch.eye(3)]) == pytest.approx(1.0)
    assert isotropy([torch.tensor([[1.0, 0.0], [-2.0, 0.0]])]) == pytest.approx(2.0)
    assert pair_sum(torch.ones(1, 3)) == (0.0, 0)
    with pytest.raises(LabError, match="pair"):
        isotropy([torch.ones(1, 3)])
    with pytest.raises(LabError, match="NaN"):
        isotropy([torch.full((2, 3), math.nan)])
    with pytest.warns(UserWarning, match="zero"):
        assert isotropy([torch.zeros(2, 3)]) == pytest.approx(1.0)


def test_taking_out_the_direction_in_which_states_vary_most() -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(400, 5, generator=generator)
    noise[:, 2] *= 30.0  # one huge dimension
    found = Directions(5)
    for part in noise.split(57):
        found.add(part)
    first = found.first(1)
    assert abs(float(first[2, 0])) > 0.999
    left = without(noise, first)
    assert float(left[:, 2].abs().max()) < 1.0
    assert torch.allclose(left @ first, torch.zeros(400, 1, dtype=torch.float64), atol=1e-9)


@pytest.fixture
def lm() -> LanguageModel:
    tokenizer = byte_level()
    return LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size), tokenizer)


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "texts.jsonl"
    words = ["x", "a longer text of some words", "short", "The quick brown fox jumps over the lazy dog."]
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in words))
    return str(path)


def test_the_measure_reads_the_states_after_the_final_norm(lm: LanguageModel, data: str) -> None:
    """Texts of one character are left out; padding enters no pair."""
    found = Isotropy(data=(data,), batch_size=3, layers=True, before_norm=True, remove=(1,))(lm)
    kept = [
        list(text.encode()) for text in ("a longer text of some words", "short", "The quick brown fox jumps")
    ]
    ids = [lm.tokenizer.encode(bytes(row).decode()) for row in kept] if lm.tokenizer else []
    assert found.about["texts"] == 3
    states = last_states(
        lm.model, [*ids[:2], lm.tokenizer.encode("The quick brown fox jumps over the lazy dog.")[:40]]
    )  # type: ignore[union-attr]
    with torch.no_grad():
        alone = lm.model.hidden(torch.tensor([ids[1]]))[0]
    assert torch.allclose(states[1], alone, atol=1e-5)
    assert found["isotropy"] == pytest.approx(isotropy(states), abs=1e-6)
    assert found["isotropy_by_texts"] == pytest.approx(isotropy(states, weighting="texts"), abs=1e-6)
    rows = {(row["states"], row["positions"], row["removed"]): row for row in found.tables["isotropy"]}
    assert rows["final", "0:8", 0]["pairs"] == pytest.approx(isotropy([s[:8] for s in states]), abs=1e-6)
    assert rows["final", "8:32", 0]["texts"] == pytest.approx(
        isotropy([s[8:32] for s in states], weighting="texts"), abs=1e-6
    )
    assert {"layer 1", "layer 2", "before final norm", "final"} == {key[0] for key in rows}
    assert rows["final", "0:", 0]["pairs"] != pytest.approx(
        rows["before final norm", "0:", 0]["pairs"], abs=1e-3
    )
    assert rows["final", "0:", 1]["pairs"] != pytest.approx(rows["final", "0:", 0]["pairs"], abs=1e-3)
    assert b"<svg" in found.figure_svg("token_similarity")


def test_no_number_depends_on_the_batch(lm: LanguageModel, data: str) -> None:
    one, three = (Isotropy(data=(data,), batch_size=size)(lm) for size in (1, 3))
    assert one["isotropy"] == pytest.approx(three["isotropy"], abs=1e-6)


def test_mistakes_are_named(lm: LanguageModel, data: str) -> None:
    with pytest.raises(LabError, match="FIRST:END"):
        Isotropy(positions=("8-32",))
    with pytest.raises(LabError, match="fewer than two"):
        Isotropy(positions=("3:4",))
    with pytest.raises(LabError, match="weighting"):
        Isotropy(weighting="tokens")  # type: ignore[arg-type]
    with pytest.raises(LabError, match="leave nothing"):
        Isotropy(data=(data,), remove=(24,))(lm)


def test_tokens_that_no_figure_can_hold_get_labels_that_it_can(lm: LanguageModel) -> None:
    assert lm.tokenizer is not None
    drawn = token_similarity(lm, lm.tokenizer.encode("\x00\x1f $x$ $\n\t z"))
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="svg")
    ElementTree.fromstring(buffer.getvalue())
