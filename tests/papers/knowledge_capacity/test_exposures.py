"""Training batches by exposures: everybody once each, in windows too, resumable, beside junk, behind a mark."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.papers.knowledge_capacity.alignment import aligned
from gpt2lab.papers.knowledge_capacity.exposures import (
    ExposureBatches,
    FreshPeople,
    Marked,
    PersonRows,
    WindowRows,
)
from gpt2lab.papers.knowledge_capacity.facts import symbol_tokenizer
from gpt2lab.text.generators.biographies import Biographies
from gpt2lab.text.generators.fact_text import NAME
from gpt2lab.text.generators.random_facts import RandomFacts
from gpt2lab.text.tokenizer import byte_level

PEOPLE = RandomFacts(people=12, seed=4)
TOKENIZER = symbol_tokenizer(PEOPLE, "domain")


def names(rows: torch.Tensor, place: int = 1) -> list[str]:
    """The name of the person of each row."""
    return [TOKENIZER.decode(row[place : place + 3].tolist()) for row in rows]


def test_everybody_stands_once_in_every_exposure_in_another_order() -> None:
    batches = ExposureBatches(PersonRows(PEOPLE, TOKENIZER, seed=1), batch_size=4)
    assert batches.batches_for(3) == 9
    orders = []
    known = sorted(PEOPLE.values(i)[NAME] for i in range(12))
    for exposure in range(3):
        rows = torch.cat([batches[3 * exposure + i]["tokens"] for i in range(3)])
        orders.append(names(rows))
        assert sorted(orders[-1]) == known
    assert len({tuple(order) for order in orders}) == 3
    batch = batches[0]
    assert batch["tokens"].shape == batch["targets"].shape == (4, 1 + 3 + 6 * 3)
    assert torch.equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])
    assert set(batch["targets"][:, -1].tolist()) == set(batch["tokens"][:, 0].tolist()) == {TOKENIZER.eos}


def test_a_batch_is_a_function_of_its_number() -> None:
    source = Biographies(people=30)
    for make in (
        lambda: PersonRows(source, byte_level(), seed=2),
        lambda: WindowRows(source, byte_level(), context=100, seed=2),
    ):
        first, second = (ExposureBatches(make(), batch_size=7) for _ in range(2))
        later = second[23]
        assert all(torch.equal(first[i]["tokens"], second[i]["tokens"]) for i in (23, 3, 11))
        assert torch.equal(first[23]["tokens"], later["tokens"])


def test_windows_hold_the_texts_of_an_exposure_one_after_the_other() -> None:
    source, tokenizer = Biographies(people=20, seed=3, variant="fixed"), byte_level()
    rows = WindowRows(source, tokenizer, context=64, seed=5)
    ids = [id for told in source.told(0) for id in (tokenizer.eos, *tokenizer.encode(told.text))]
    assert rows.of_an_exposure == len(ids) // 64
    for exposure in range(3):
        count = rows.of_an_exposure
        windows = [rows.read(exposure * count + i) for i in range(count)]
        assert {len(window) for window in windows} == {65}
        seen = Counter(itertools.chain.from_iterable(window[:-1].tolist() for window in windows))
        missing = Counter(ids) - seen
        assert not seen - Counter(ids) and sum(missing.values()) == len(ids) - 64 * count < 64
    with pytest.raises(LabError, match=r"an exposure has \d+ tokens, a window takes 9000 and one more"):
        WindowRows(source, tokenizer, context=9000)


def test_junk_stands_beside_the_facts_and_is_new_or_always_the_same() -> None:
    rows = PersonRows(PEOPLE, TOKENIZER)
    few = replace(PEOPLE, people=3, seed=77)
    fresh = ExposureBatches(rows, batch_size=2, junk=PersonRows(FreshPeople(few), TOKENIZER), junk_size=6)
    same = ExposureBatches(rows, batch_size=2, junk=PersonRows(few, TOKENIZER), junk_size=6)
    useful = {PEOPLE.values(i)[NAME] for i in range(12)}
    seen: list[list[str]] = [[], []]
    for i in range(12):
        for batches, names_seen in zip((fresh, same), seen, strict=True):
            tokens = batches[i]["tokens"]
            assert tokens.shape[0] == 8 and set(names(tokens[:2])) <= useful
            assert torch.equal(tokens[:2], ExposureBatches(rows, batch_size=2)[i]["tokens"])
            names_seen += names(tokens[2:])
    assert len(set(seen[0])) == 72 and set(Counter(seen[1]).values()) == {24}
    with pytest.raises(LabError, match="a batch needs rows, got 2 of facts and 0 of junk"):
        ExposureBatches(rows, batch_size=2, junk=rows)


def test_marked_texts_begin_with_the_mark_and_keep_their_facts() -> None:
    marked = Marked(PEOPLE)
    for plain, told in zip(PEOPLE.judged(1), marked.judged(1), strict=True):
        assert told.text == f" domain{plain.text}"
        for before, after in zip(plain.spans, told.spans, strict=True):
            assert told.text[after.start : after.end] == plain.text[before.start : before.end]
        assert aligned(TOKENIZER, told).ids == [TOKENIZER.id("domain"), *aligned(TOKENIZER, plain).ids]
    assert marked.information == PEOPLE.information and marked.values(3) == PEOPLE.values(3)
    assert next(marked.inventory()) == " domain" and marked.people == 12


def test_rows_of_different_lengths_are_filled_up_without_a_loss() -> None:
    rows = PersonRows(Biographies(people=6), byte_level())
    batch = ExposureBatches(rows, batch_size=6, pad=7)[0]
    for i in range(6):
        ids = rows.read(i)
        assert batch["tokens"][i, : len(ids) - 1].tolist() == ids[:-1].tolist()
        assert batch["targets"][i, : len(ids) - 1].tolist() == ids[1:].tolist()
        assert set(batch["tokens"][i, len(ids) - 1 :].tolist()) <= {7}
        assert set(batch["targets"][i, len(ids) - 1 :].tolist()) <= {-100}
