"""Extraction: questions and answers, losses on answers alone, adapters that leave the model as it is."""

import copy
from typing import Any

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.papers.knowledge_capacity.extraction import (
    PAIRS,
    QUESTIONS,
    KnowledgeExtraction,
    _Questions,
    question,
)
from gpt2lab.papers.knowledge_capacity.facts import fact_source, symbol_tokenizer
from gpt2lab.papers.knowledge_capacity.models import shape_config
from gpt2lab.text.generators.biographies import Biographies
from gpt2lab.text.generators.fact_text import NAME
from gpt2lab.text.generators.random_facts import RandomFacts
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level


def model(d_head: int = 16) -> LanguageModel:
    tokenizer = symbol_tokenizer(RandomFacts(people=1))
    config = shape_config(
        "gpt2", vocab_size=tokenizer.vocab_size, n_layers=1, n_heads=2, d_head=d_head, context=32
    )
    return LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(1)).eval(), tokenizer)


@pytest.mark.parametrize("kind", ["bios:5", "biod:5", "biod-symbols:5"])
def test_a_question_ends_with_its_answer(kind: str) -> None:
    source = fact_source(kind)
    for person in range(5):
        values = source.values(person)
        for name in QUESTIONS if kind == "bios:5" else source.information.values:
            asked = question(source, person, name)
            (span,) = asked.spans
            assert asked.text[span.start : span.end] == values[name] and span.end == len(asked.text)
            assert values[NAME] in asked.text[: span.start]


def test_batches_have_a_loss_on_answers_and_the_end_alone() -> None:
    source, tokenizer = Biographies(people=8, seed=2), byte_level()
    batches = _Questions(source, tokenizer, range(4), list(QUESTIONS), rows=6, seed=3)
    batch = batches[5]
    assert all(torch.equal(batch[name], batches[5][name]) for name in batch)
    known = {source.values(i)[name] for i in range(4) for name in QUESTIONS}
    for tokens, targets in zip(batch["tokens"], batch["targets"], strict=True):
        read = targets[targets >= 0].tolist()
        assert read[-1] == tokenizer.eos and tokenizer.decode(read[:-1]).strip() in known
        places = torch.nonzero(targets >= 0).flatten()
        assert torch.equal(tokens[places[1:]], targets[places[:-1]])


def test_adapters_learn_the_answers_and_the_model_stays_as_it_is() -> None:
    lm = model()
    before = copy.deepcopy(lm.model.state_dict())
    found = KnowledgeExtraction(
        facts="biod-symbols:12",
        limit=2,
        steps=150,
        rows=12,
        learning_rate=2e-2,
        embedding_rank=16,
        attributes=("id 1",),
    )(lm)
    assert found["trained_people"] == 1.0 > found["before"] and found["loss"] < 5.3  # of log 263 = 5.57
    assert found["extractable"] <= 0.5  # of people whose facts it never read
    assert found["extractable_people"] == pytest.approx(12 * found["extractable"])
    assert found["extractable_low"] <= found["extractable"] <= found["extractable_high"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in lm.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in lm.model.parameters())


def test_of_nine_pairs_of_ranks_other_people_choose_the_one_that_is_reported() -> None:
    options: dict[str, Any] = {
        "facts": "biod-symbols:32", "steps": 12, "rows": 8, "learning_rate": 3e-2, "attributes": ("id 1", "id 2"),
    }  # fmt: skip
    lm = model(d_head=64)
    found = KnowledgeExtraction(search=True, **options)(lm)
    tried = found.tables["pairs"]
    assert [(row["embedding rank"], row["rank"]) for row in tried] == list(PAIRS) and len(PAIRS) == 9
    best = max(tried, key=lambda row: float(row["chosen by"]))
    assert (found["embedding_rank"], found["rank"], found["loss"]) == (
        best["embedding rank"], best["rank"], best["loss"],
    )  # fmt: skip
    assert (found.about["people_asked"], found.about["people_judged"]) == (16, 12)
    alone = KnowledgeExtraction(
        rank=int(best["rank"]), embedding_rank=int(best["embedding rank"]), **options
    )(lm)
    assert alone["loss"] == found["loss"] and alone["trained_people"] == found["trained_people"]
    assert "pairs" not in alone.tables and alone.about["people_judged"] == 16
    narrow = KnowledgeExtraction(search=True, **{**options, "steps": 1})(model()).tables["pairs"]
    assert len(narrow) == 6 and all(row["embedding rank"] <= 32 for row in narrow)  # no rank above the width


def test_what_cannot_be_asked_is_refused() -> None:
    for wrong, words in (
        ({"facts": "biod-symbols:3"}, "give at least 4"),
        (
            {"facts": "biod-symbols:9", "attributes": ("major",)},
            "attributes: major is not asked for; .* has id 1",
        ),
        ({"steps": 0}, "steps must be at least 1"),
        ({"limit": 1}, "limit must be at least 2"),
        ({"search": True, "rank": 4}, "leave rank and embedding_rank out"),
        ({"search": True, "facts": "biod-symbols:4"}, "a quarter chooses"),
    ):
        with pytest.raises(LabError, match=words):
            KnowledgeExtraction(**wrong)(model())  # type: ignore[arg-type]  # a mistake each
