"""The four tasks: an answer follows from its prompt, levels and curriculum, no overlap, batches and scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.model import attach
from gpt2lab.papers.meta_tokens import MetaAttention
from gpt2lab.papers.meta_tokens.levels import LEVELS, Curriculum, example, examples, level, side
from gpt2lab.papers.meta_tokens.task_data import TaskBatches, TaskEncoder, score, task_tokenizer
from gpt2lab.papers.meta_tokens.tasks import PAUSE, TASKS, WORDS, Example, draw, solve, verify, vocabulary
from gpt2lab.text.manifests import read_manifest
from gpt2lab.text.tokenizer import train_bpe, word_level
from tests.tiny import tiny

every_task = pytest.mark.parametrize("task", TASKS)


def slow_answer(one: Example) -> list[str]:
    """The answer once more, from the text by other means than `solve`."""
    text = " ".join(one.prompt)
    before, _, asked = text.rpartition(" Q: ")
    if one.task == "parity":
        return [str(before.split(PAUSE)[0].replace("Bits :", "").replace(" ", "").count("1") & 1)]
    if one.task == "copying":
        return before.split(f"[ {PAUSE} ")[1].split(f" {PAUSE} ]")[0].split()
    if one.task == "segment-counting":
        return list(str(f" {before.split(PAUSE)[1]} ".replace(" ", "  ").count(f" {asked.split()[1]} ")))
    name, number = asked.split("List ")[1][0], int(asked.split("item ")[1].split(" of")[0].replace(" ", ""))
    held = before.split(f"List {name} : ")[1].split(" .")[0]
    return [held.replace(f" {PAUSE}", "").split()[number - 1]]


@every_task
@pytest.mark.parametrize("name", LEVELS)
def test_answers_follow_from_prompts_of_the_levels_length(task: str, name: str) -> None:
    shortest, longest = level(name)
    lengths = set()
    for number in range(25):
        made = example(task, number, [level(name)])
        assert shortest <= len(made.prompt) <= longest
        assert verify(made) and list(made.answer) == slow_answer(made)
        assert len(made.pauses) == (2 if task in ("copying", "segment-counting") else 1)
        assert set(made.prompt) - {PAUSE} <= set(vocabulary()) and set(made.answer) <= set(vocabulary())
        assert not made.without_pauses().pauses
        lengths.add(len(made.prompt))
    assert len(lengths) > 8


def test_the_pause_stands_where_the_task_says() -> None:
    generator = np.random.default_rng(0)
    for _ in range(40):
        made = draw("list-recall", generator, 40, 64)
        name = made.prompt[made.prompt.index("?") - 1]
        start = next(i for i, word in enumerate(made.prompt) if word == name and made.prompt[i - 1] == "List")
        end = made.prompt.index(".", start)
        assert made.prompt[end - 1] == PAUSE
        copied = draw("copying", generator, 40, 64).prompt
        first, last = (i for i, word in enumerate(copied) if word == PAUSE)
        assert copied[first - 1] == "[" and copied[last + 1] == "]"


def test_a_wrong_answer_or_another_prompt_is_found_out() -> None:
    made = example("parity", 0, [(24, 64)])
    assert not verify(Example("parity", made.prompt, ("1" if made.answer == ("0",) else "0",)))
    with pytest.raises(LabError, match="not a prompt of this task"):
        solve("copying", ["no", "question"])
    with pytest.raises(LabError, match="no such task"):
        solve("sums", made.prompt)


def test_there_are_500_words_and_each_is_one_token() -> None:
    assert len(WORDS) == len(set(WORDS)) == 500 and all(word.isalpha() and word.islower() for word in WORDS)
    tokenizer = task_tokenizer()
    encoder = TaskEncoder(tokenizer)
    for task in TASKS:
        made = example(task, 3, [(24, 64)])
        assert tokenizer.encode(made.text()) == encoder.ids([*made.prompt, *made.answer])
    assert encoder.pause in tokenizer.special_ids
    with pytest.raises(LabError, match="words must lie in 2 to 500"):
        vocabulary(501)
    with pytest.raises(LabError, match="has no token _PAUSE_"):
        TaskEncoder(word_level(["a b"]))
    with pytest.raises(LabError, match="'List' is not among"):
        TaskEncoder(word_level(["a b"], unk=None, special=(PAUSE,))).ids(["List"])
    pieces = TaskEncoder(train_bpe(["List of words"] * 3, 300, special=(PAUSE,)))
    ids = pieces.ids(["List", PAUSE, "bab"])
    assert len(ids) > 3 and ids.count(pieces.pause) == 1


@every_task
def test_no_prompt_is_both_trained_and_tested_on(task: str) -> None:
    ranges = [(24, 40)]
    train = {example(task, number, ranges, words=3).without_pauses().prompt for number in range(300)}
    test = {one.without_pauses().prompt for one in examples(task, 60, ranges, words=3, seed=5)}
    assert not train & test
    assert all(side(Example(task, prompt, ())) == "train" for prompt in train)
    shares = [side(draw(task, np.random.default_rng(i), 24, 40)) == "test" for i in range(400)]
    assert 0.05 < sum(shares) / 400 < 0.16
    assert example(task, 7, ranges) == example(task, 7, ranges) != example(task, 7, ranges, seed=1)


def test_too_few_different_prompts_and_odd_lengths_are_refused() -> None:
    with pytest.raises(LabError, match="at least 24 words"):
        draw("parity", np.random.default_rng(0), 10, 20)
    with pytest.raises(LabError, match="no such task"):
        draw("sums", np.random.default_rng(0), 24, 40)
    with pytest.raises(LabError, match="no such level"):
        level("easier")


def test_the_curriculum_adds_longer_prompts_phase_by_phase() -> None:
    ranges = ((24, 30), (31, 40), (41, 60))
    curriculum = Curriculum(ranges=ranges, steps=9)
    assert [len(curriculum.known(step)) for step in (0, 2, 3, 5, 6, 8, 30)] == [1, 1, 2, 2, 3, 3, 3]
    encoder = TaskEncoder(task_tokenizer(20))
    batches = TaskBatches(encoder=encoder, tasks=tuple(TASKS), curriculum=curriculum, batch_size=8, words=20)
    longest = [int((batches[step]["targets"] == -100).sum(1).max()) for step in range(9)]
    assert longest[2] < 40 and max(longest[6:]) > 40
    for wrong in (
        {"ranges": (), "steps": 3},
        {"ranges": ((40, 24),), "steps": 3},
        {"ranges": ((41, 60), (24, 30)), "steps": 3},
    ):
        with pytest.raises(LabError, match="curriculum"):
            Curriculum(**wrong)


def test_only_the_answer_and_the_end_have_a_loss() -> None:
    encoder = TaskEncoder(task_tokenizer(30))
    rows = [example("copying", number, [(24, 50)], words=30) for number in range(5)]
    batch = encoder.batch(rows)
    for one, tokens, targets, mask, metas in zip(rows, *batch.values(), strict=True):
        ids = encoder.ids([*one.prompt, *one.answer])
        assert tokens[mask.bool()].tolist() == ids
        assert targets[targets != -100].tolist() == [*encoder.ids(one.answer), encoder.eos]
        first = int((targets != -100).nonzero()[0])
        assert first == len(one.prompt) - 1
        assert metas.nonzero().flatten().tolist() == list(one.pauses)


def test_a_score_is_what_greedy_decoding_would_say() -> None:
    tokenizer = task_tokenizer(20)
    encoder = TaskEncoder(tokenizer)
    model = tiny("llama", vocab_size=tokenizer.vocab_size, max_positions=64, n_layers=1)
    attach(model, MetaAttention(token=encoder.pause, draw="model"))
    rows = [example("parity", number, [(24, 40)], words=20) for number in range(12)]
    right = score(model, encoder, rows, batch_size=5)
    with torch.no_grad():
        for one, exact in zip(rows, right.exact, strict=True):
            ids = encoder.ids(one.prompt)
            first = int(model(torch.tensor([ids]))[0, -1].argmax())
            second = int(model(torch.tensor([[*ids, *encoder.ids(one.answer)]]))[0, -1].argmax())
            assert exact == ([first, second] == [*encoder.ids(one.answer), encoder.eos])
    one_of = score(model, encoder, rows, batch_size=12)
    assert one_of.exact == right.exact and one_of.tokens == right.tokens
    with pytest.raises(LabError, match="no examples"):
        score(model, encoder, [])
    with pytest.raises(LabError, match="beyond the model's 64 positions"):
        score(model, encoder, [example("parity", 0, [(80, 90)])])


def test_the_verb_writes_two_parts_and_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["write", "recall-task", "--task", "copying", "--train", "30", "--test", "10"]
    folder = tmp_path / "copying"
    assert main([*words, "--out", str(folder), "--pause", "<|meta|>", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["train"], said["test"], said["out"]) == (30, 10, str(folder))
    assert said["sha256"] == read_manifest(folder)["sha256"]
    rows = {
        part: [json.loads(line) for line in (folder / f"{part}.jsonl").read_text().splitlines()]
        for part in ("train", "test")
    }
    assert {part: len(found) for part, found in rows.items()} == {"train": 30, "test": 10}
    assert not {row["prompt"] for row in rows["train"]} & {row["prompt"] for row in rows["test"]}
    for row in rows["test"]:
        assert row["text"] == f"{row['prompt']} {row['answer']}" and row["prompt"].count("<|meta|>") == 2
        assert [row["prompt"].split()[place] for place in row["pauses"]] == ["<|meta|>"] * 2
    place = ["--out", str(tmp_path / "none")]
    for wrong, sentence in (
        (["--task", "sums"], "no such task"),
        (["--task", "parity", "--level", "easier"], "no such level"),
        (["--task", "parity", "--train", "0"], "must be at least 1"),
        (["--task", "copying", "--words", "501"], "words must lie in 2 to 500"),
    ):
        assert main(["write", "recall-task", *wrong, *place]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
