"""Multiple choice: what is chosen by sum, per token and per byte, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.choice import RULES, Choice, MultipleChoice, Question, choose
from gpt2lab.measures.continuation import (
    Continuation,
    score_continuations,
    split_continuation,
    split_continuations,
)
from gpt2lab.model import Transformer
from gpt2lab.text.language_model import LanguageModel, load
from gpt2lab.text.tokenizer import byte_level, train_bpe
from tests.measures.tools import START, TEXT, ignorant, reader
from tests.tiny import tiny

QUESTIONS = [
    Question("The girl had a", (" ball", " dog named Max", " day"), 0),
    Question("They played", (" all day", " red"), 1),
    Question("", (" one", " two"), 0),
]


def _slow_loss(model: Transformer, context: list[int], tokens: list[int]) -> float:
    exact = Transformer(model.config).double().eval()
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        logprobs = torch.log_softmax(exact(torch.tensor([(context + tokens)[:-1]]))[0], -1)
    return -sum(float(logprobs[len(context) + i - 1, token]) for i, token in enumerate(tokens))


@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_losses_equal_the_float64_loop_at_any_batch_size(batch_size: int) -> None:
    lm = reader("gpt_neo")
    for question, found in zip(QUESTIONS, choose(lm, QUESTIONS, batch_size=batch_size), strict=True):
        context = list(question.prompt.encode()) or [START]
        expected = [_slow_loss(lm.model, context, list(choice.encode())) for choice in question.choices]
        assert found.losses == pytest.approx(expected, abs=1e-4)
        assert found.n_bytes == [len(choice.strip()) for choice in question.choices]
        assert found.answer == question.answer


def test_the_three_rules_can_choose_differently() -> None:
    found = Choice(losses=[3.0, 4.0, 4.5], n_tokens=[1, 2, 2], n_bytes=[3, 4, 9], answer=2)
    assert [found.chosen(rule) for rule in RULES] == [0, 1, 2]
    weights = [math.exp(-3.0), math.exp(-4.0), math.exp(-4.5)]
    assert found.share() == pytest.approx(weights[2] / sum(weights))


def test_a_token_across_the_border_belongs_to_the_continuation() -> None:
    bpe = train_bpe([TEXT] * 3, 300)
    whole = bpe.encode("She had a red ball")
    clean = split_continuation(bpe, "She had a", " red ball")
    assert clean.context + clean.tokens == whole
    assert bpe.decode(clean.tokens) == " red ball"
    inside = split_continuation(
        bpe, "She had a ", "red ball"
    )  # the blank belongs to the token " red" (or its start)
    assert inside.context + inside.tokens == whole
    assert bpe.decode(inside.tokens).endswith("red ball")


def test_a_long_context_loses_its_beginning_but_not_its_start_token() -> None:
    model = tiny("gpt2", vocab_size=257)  # 40 positions
    context, tokens = list(range(100, 160)), [7, 8, 9]
    cut = score_continuations(model, [Continuation([256, *context], tokens)], keep=1)[0]
    assert float(cut.losses.sum()) == pytest.approx(
        _slow_loss(model, [256, *context[-37:]], tokens), abs=1e-4
    )
    cut = score_continuations(model, [Continuation(context, tokens)])[0]
    assert float(cut.losses.sum()) == pytest.approx(_slow_loss(model, context[-38:], tokens), abs=1e-4)


def _file(folder: Path, rows: list[Any]) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_questions_are_read_from_a_file_and_measured(tmp_path: Path) -> None:
    rows = [
        {
            "question": "The girl had a",
            "choices": ["ball", "dog named Max", "day"],
            "answer": 0,
            "topic": "toys",
        },
        {"question": "They played", "choices": ["all day", "red"], "answer": "red", "topic": "time"},
    ]
    lm = reader()
    measure = MultipleChoice(data=_file(tmp_path, rows), prompt="About {topic}: {question}")
    assert measure.read()[1] == Question("About time: They played", (" all day", " red"), 1)
    found = measure(lm)
    direct = choose(lm, measure.read())
    assert found["accuracy"] == sum(one.chosen("sum") == one.answer for one in direct) / 2
    assert found["chance"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert found.tables["questions"][1]["answer"] == "red"


def test_an_ignorant_model_prefers_the_short_choice_and_the_first_of_equals(tmp_path: Path) -> None:
    lm = LanguageModel(ignorant(257), byte_level())
    found = choose(lm, [Question("q", (" long answer", " no"), 1), Question("q", (" aa", " bb"), 0)])
    assert [one.chosen("sum") for one in found] == [1, 0]
    assert found[1].share() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{not json", "line 1: not JSON"),
        ([1, 2], "an object with fields"),
        ({"question": "q", "choices": ["a", "b"]}, "no field 'answer'"),
        ({"question": "q", "choices": "a", "answer": 0}, "a list of texts"),
        ({"question": "q", "choices": ["a"], "answer": 0}, "two choices"),
        ({"question": "q", "choices": ["a", " "], "answer": 0}, "not empty"),
        ({"question": "q", "choices": ["[" * 3000, " "], "answer": 0}, "not empty"),
        ({"question": "q", "choices": ["a", "b"], "answer": 2}, "choices are 0 to 1"),
        ({"question": "q", "choices": ["a", "b"], "answer": "c"}, "neither a place"),
    ],
)
def test_a_row_that_is_no_question_is_one_sentence_with_its_line(
    row: object, words: str, tmp_path: Path
) -> None:
    with pytest.raises(LabError, match=words) as error:
        MultipleChoice(data=_file(tmp_path, [row]))(reader())
    assert "line 1" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500


def test_other_mistakes_are_one_sentence(tmp_path: Path) -> None:
    good = {"question": "q", "choices": ["a", "b"], "answer": 0}
    with pytest.raises(LabError, match="no such file"):
        MultipleChoice(data=tmp_path / "missing.jsonl")(reader())
    with pytest.raises(LabError, match="no questions"):
        MultipleChoice(data=_file(tmp_path, [""]))(reader())
    with pytest.raises(LabError, match="which is no field"):
        MultipleChoice(data=_file(tmp_path, [good]), prompt="{topic}")(reader())
    with pytest.raises(LabError, match="no tokenizer"):
        MultipleChoice(data=_file(tmp_path, [good]))(LanguageModel(ignorant(257), None))
    with pytest.raises(LabError, match="at least one question"):
        choose(reader(), [])
    with pytest.raises(LabError, match="at least one token"):
        score_continuations(tiny("gpt2"), [Continuation([1], [])])
    with pytest.raises(LabError, match="continuation needs text"):
        split_continuation(byte_level(), "a", "")


@pytest.mark.parametrize("null", ["null", "NaN"])
def test_a_field_that_the_prompt_reads_is_never_written_as_none(null: str, tmp_path: Path) -> None:
    whole = {"question": "q", "choices": ["a", "b"], "answer": 0, "passage": "p"}
    for field in ("question", "passage"):
        row = json.dumps(whole).replace(json.dumps({field: whole[field]})[1:-1], f'"{field}": {null}')
        (tmp_path / "a.jsonl").write_text(row + "\n")
        asked = MultipleChoice(data=str(tmp_path / "a.jsonl"), prompt="{passage} {question}")
        with pytest.raises(LabError, match=f"line 1: field '{field}' is empty, and the prompt reads it"):
            asked.read()


def test_all_choices_of_a_question_are_scored_from_the_same_token_on() -> None:
    tokenizer = train_bpe(["ab ab ab"] * 9, 259)
    (merged,), (a, b, x) = tokenizer.encode("ab"), (tokenizer.encode(letter)[0] for letter in "abx")
    lm = LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size), tokenizer)
    first, second = split_continuations(tokenizer, "xa", ["b", "x"])
    assert (first.context, first.tokens) == ([x], [merged])
    assert (second.context, second.tokens) == ([x], [a, x])
    assert split_continuation(tokenizer, "xa", "x") == Continuation([x, a], [x])
    (found,) = choose(lm, [Question("xa", ("b", "x"), 0)])
    assert found.losses == [
        pytest.approx(_slow_loss(lm.model, [x], [merged]), abs=1e-4),
        pytest.approx(_slow_loss(lm.model, [x], [a, x]), abs=1e-4),
    ]
    assert found.n_bytes == [1, 1] and found.n_tokens == [1, 2]
    alone = split_continuations(tokenizer, "a", ["b", "x"])
    assert alone == [Continuation([tokenizer.bos], [merged]), Continuation([tokenizer.bos], [a, x])]
    assert b != merged


def test_choices_after_a_tokenizer_that_puts_a_blank_before_texts(shared_data: Path) -> None:
    lm = load(shared_data / "models" / "stories260k-llama")
    prompt = "Once upon a time there was a little girl named"
    for question, choices in ((prompt, (" Lily", " Tim")), (prompt + " ", ("Lily", "Tim"))):
        (found,) = choose(lm, [Question(question, choices, 0)])
        assert found.n_tokens == [1, 1] and found.n_bytes == [4, 3] and found.share() > 0.9
