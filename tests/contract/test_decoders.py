"""What every decoder must do: ours, a paper's, a plug-in's."""

import dataclasses

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import Part
from gpt2lab.decode.interface import Decoded, Decoder, Limits, embedded_prompts
from tests.contract.parts import broken, built, is_frozen_settings, refuses_unknown_options
from tests.tiny import BIDIRECTIONAL, CAUSAL, tiny

pytestmark = pytest.mark.parametrize("part", built("decoder"))

PROMPTS = [[3], [5, 6, 7, 8, 9, 10, 11], [1, 2], [40, 41, 42, 43, 44]]
FIXED = Limits(max_new_tokens=9)


def decode(
    part: Part, family: str, prompts: list[list[int]], limits: Limits = FIXED, seed: int = 1
) -> list[list[int]]:
    generator = [torch.Generator().manual_seed(100 * seed + PROMPTS.index(prompt)) for prompt in prompts]
    return list(part.load()().decode(tiny(family), prompts, limits, generator=generator))


def test_it_is_a_decoder_with_documented_frozen_options(part: Part) -> None:
    is_frozen_settings(part)
    refuses_unknown_options(part)
    assert Decoder in part.load().__mro__  # so that every member generate asks for is there
    decoder = part.load()()
    assert decoder.rows_per_prompt >= 1
    assert not decoder.needs_prompt_tokens  # its defaults take embeddings
    fields = {field.name for field in dataclasses.fields(decoder)}
    assert {name for name in decoder.other_names.values() if name is not None} <= fields


def test_the_seed_decides_the_text_if_it_says_so(part: Part) -> None:
    drawn = {str(decode(part, "gpt2", PROMPTS, seed=seed)) for seed in range(1, 6)}
    assert (len(drawn) > 1) == part.load()().draws


def test_it_streams_if_it_says_so(part: Part) -> None:
    decoder, seen = part.load()(), []

    def on_token(row: int, token: int) -> None:
        seen.append((row, token))

    if not decoder.streams:
        with pytest.raises(LabError, match="cannot stream"):
            decoder.decode(tiny("gpt2"), PROMPTS, FIXED, on_token=on_token)
        return
    rows = decoder.decode(tiny("gpt2"), PROMPTS, FIXED, on_token=on_token)
    assert list(rows) == [[token for at, token in seen if at == row] for row in range(len(PROMPTS))]


def test_it_reads_the_last_token_if_it_says_so(part: Part) -> None:
    decoder, room = part.load()(), 40 - 3
    fits = room if decoder.reads_last else room + 1
    assert len(decoder.decode(tiny("gpt2"), [[1, 2, 3]], Limits(max_new_tokens=fits))[0]) == fits
    with pytest.raises(LabError, match=f"{fits} new tokens fit"):
        decoder.decode(tiny("gpt2"), [[1, 2, 3]], Limits(max_new_tokens=fits + 1))


def embedded(family: str, prompts: list[list[int]]) -> list[Tensor]:
    """The same prompts as embeddings, out of a padded batch: on the left for one half, on the right for the other."""
    model, width = tiny(family), max(map(len, prompts))
    padded = torch.full((len(prompts), width), 60)
    mask = torch.zeros(len(prompts), width)
    for row, prompt in enumerate(prompts):
        places = slice(width - len(prompt), None) if row % 2 else slice(len(prompt))
        padded[row, places], mask[row, places] = torch.tensor(prompt), 1
    with torch.no_grad():
        return embedded_prompts(model.embed(padded), mask)


def scored(part: Part, family: str, prompts: list[list[int]] | list[Tensor], **options: object) -> Decoded:
    generator = [torch.Generator().manual_seed(row) for row in range(len(prompts))]
    return part.load()(**options).decode(tiny(family), prompts, FIXED, generator=generator)


@pytest.mark.parametrize("family", CAUSAL)
def test_embeddings_of_tokens_are_continued_as_the_tokens_are(part: Part, family: str) -> None:
    from_tokens = scored(part, family, PROMPTS)
    found = scored(part, family, embedded(family, PROMPTS))
    assert (found.tokens, found.finished) == (from_tokens.tokens, from_tokens.finished)
    assert found.scores == pytest.approx(from_tokens.scores, abs=1e-5)
    alone = [scored(part, family, [one]).tokens[0] for one in embedded(family, PROMPTS)[:1]]
    assert alone == found.tokens[:1]


def test_embeddings_are_refused_where_token_ids_decide(part: Part) -> None:
    kind = part.load()
    if "repetition_penalty" in {field.name for field in dataclasses.fields(kind)}:
        assert kind(repetition_penalty=1.3).needs_prompt_tokens
        with pytest.raises(LabError, match="reads the token ids of its prompts"):
            scored(part, "gpt2", embedded("gpt2", PROMPTS), repetition_penalty=1.3)
    with pytest.raises(LabError, match="some prompts are token ids and some embeddings"):
        kind().decode(tiny("gpt2"), [*embedded("gpt2", PROMPTS), [1, 2]], FIXED)
    with pytest.raises(LabError, match="is empty"):
        kind().decode(tiny("gpt2"), [torch.zeros(0, 24)], FIXED)


@pytest.mark.parametrize("family", CAUSAL)
def test_no_text_depends_on_the_batch(part: Part, family: str) -> None:
    together = decode(part, family, PROMPTS)
    assert together == [decode(part, family, [prompt])[0] for prompt in PROMPTS]
    backwards = decode(part, family, PROMPTS[::-1])
    assert together == backwards[::-1]
    assert all(len(row) == 9 for row in together)


@pytest.mark.parametrize("family", CAUSAL)
def test_the_same_seed_gives_the_same_tokens(part: Part, family: str) -> None:
    assert decode(part, family, PROMPTS) == decode(part, family, PROMPTS)


def test_an_end_token_ends_its_row_only(part: Part) -> None:
    free = decode(part, "gpt2", PROMPTS, Limits(max_new_tokens=9))
    end = free[1][4]
    limits = Limits(max_new_tokens=9, eos=(end,), pad=60)
    for row in decode(part, "gpt2", PROMPTS, limits):
        assert end not in row[:-1]
        assert len(row) == 9 or row[-1] == end


def test_one_new_token_is_one_new_token(part: Part) -> None:
    assert [len(row) for row in decode(part, "llama", PROMPTS, Limits(max_new_tokens=1))] == [1, 1, 1, 1]


def test_prompts_and_model_are_left_as_they_were(part: Part) -> None:
    model, prompts = tiny("gpt2"), [list(prompt) for prompt in PROMPTS]
    before = [parameter.clone() for parameter in model.parameters()]
    part.load()().decode(model, prompts, FIXED)
    assert prompts == PROMPTS
    assert not model.training
    assert model.open_tap is None
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_bf16_models_decode(part: Part) -> None:
    rows = part.load()().decode(tiny("llama").to(torch.bfloat16), PROMPTS, FIXED)
    assert [len(row) for row in rows] == [9, 9, 9, 9]


def test_what_cannot_be_continued_is_refused(part: Part) -> None:
    decoder = part.load()()
    with pytest.raises(LabError, match="no prompts"):
        decoder.decode(tiny("gpt2"), [], FIXED)
    with pytest.raises(LabError, match="empty"):
        decoder.decode(tiny("gpt2"), [[1], []], FIXED)
    with pytest.raises(LabError, match="40"):
        decoder.decode(tiny("gpt2"), [[1] * 35], FIXED)
    with pytest.raises(LabError, match=r"NaN|not numbers|not finite"):
        decoder.decode(broken(), PROMPTS, FIXED)


@pytest.mark.parametrize("family", BIDIRECTIONAL)
def test_bidirectional_models_are_refused(part: Part, family: str) -> None:
    with pytest.raises(LabError, match=f"needs a causal model, and this {family} reads in both directions"):
        part.load()().decode(tiny(family), PROMPTS, FIXED)
