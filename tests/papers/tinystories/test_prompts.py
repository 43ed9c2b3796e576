"""Short prompts: reading, scoring, answering."""

import json
import random

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.tinystories.prompts import GROUPS, ShortPrompt, read_prompts, score


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("kate", True),
        (' "Kate', True),
        ("“ Kate said", True),
        ("the Kate", True),
        ("a the kate", False),
        ("Katey", False),
        ("so Kate", False),
        ("to ask", False),
        ("Kate.", True),
        ("", False),
        ("2 apples", True),
        ("2.", True),
    ],
)
def test_a_completion_is_right_if_it_begins_with_an_accepted_answer(completion, right):
    assert ShortPrompt("…", ("kate", "2")).accepts(completion) is right


def test_an_answer_that_begins_with_an_article_is_accepted_as_it_stands():
    assert ShortPrompt("…", ("the toy", "an apple")).accepts(" an apple.")
    assert ShortPrompt("…", ("the toy",)).accepts("The toy!")


def test_the_lab_s_own_prompts_are_whole_and_no_prompt_gives_its_answer_away_by_itself():
    groups = read_prompts()
    assert tuple(groups) == GROUPS and all(len(items) >= 7 for items in groups.values())
    for items in groups.values():
        for item in items:
            assert item.prompt == item.prompt.rstrip()
            assert all(answer == answer.lower() for answer in item.accepted)


def test_shares_are_counted_by_group():
    groups = read_prompts()
    draw = random.Random(0)
    right = {group: [draw.random() < 0.5 for _ in items] for group, items in groups.items()}
    completions = {
        group: [
            f" {item.accepted[-1]} …" if ok else "qqq" for item, ok in zip(items, right[group], strict=True)
        ]
        for group, items in groups.items()
    }
    assert score(groups, completions) == {group: sum(oks) / len(oks) for group, oks in right.items()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.pop("context"), "not a file of prompts"),
        (lambda c: c["factual"][0].update(prompt="  "), "factual prompt 1 is empty"),
        (lambda c: c["reasoning"][1].update(accepted_prefixes_lowercase=[]), "reasoning prompt 2"),
        (lambda c: c["factual"].append("text"), "not a file of prompts"),
    ],
)
def test_broken_files_of_prompts_are_refused(tmp_path, change, says):
    content = {
        group: [{"prompt": "a b", "accepted_prefixes_lowercase": ["c"]} for _ in range(3)] for group in GROUPS
    }
    change(content)
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(content))
    with pytest.raises(LabError, match=says):
        read_prompts(path)
    with pytest.raises(LabError, match="no such file"):
        read_prompts(tmp_path / "nothing.json")
