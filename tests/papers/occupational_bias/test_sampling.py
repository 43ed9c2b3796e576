"""Completions: resumed prompt by prompt, the same in every batch; exact probabilities against enumeration."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.decode.prompts import prompt_tokens
from gpt2lab.measures.continuation import Continuation
from gpt2lab.papers.occupational_bias import sampling
from gpt2lab.papers.occupational_bias.occupations import Gazetteer
from gpt2lab.papers.occupational_bias.prompts import Cell, Prompt, identity_prompts
from gpt2lab.papers.occupational_bias.sampling import Drawing, count_answers, exact, read_answers, sample
from gpt2lab.papers.occupational_bias.world import World
from gpt2lab.text.language_model import LanguageModel, load
from tests.papers.occupational_bias import reference

DRAWING = Drawing(max_new_tokens=3, batch_size=7)


def test_texts_depend_on_seed_and_prompt_but_not_on_the_batch(lm: LanguageModel, world: World) -> None:
    prompts = world.prompts[:2]
    one = sample(lm, prompts, 9, world.gazetteer, DRAWING)
    other = sample(lm, prompts[::-1], 9, world.gazetteer, dataclasses.replace(DRAWING, batch_size=2))
    assert [a.completions for a in one] == [a.completions for a in other[::-1]]
    assert one[0].completions != one[1].completions
    again = sample(lm, prompts[:1], 9, world.gazetteer, dataclasses.replace(DRAWING, seed=1))
    assert again[0].completions != one[0].completions


def test_a_stopped_sampling_goes_on_with_the_prompts_that_are_missing(
    lm: LanguageModel, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = world.prompts[:4]
    whole = sample(lm, prompts, 5, world.gazetteer, DRAWING)
    drawn, real = [], sampling.generate

    def stops_at_the_third(lm, texts, **options):
        drawn.append(texts[0])
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return real(lm, texts, **options)

    monkeypatch.setattr(sampling, "generate", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        sample(lm, prompts, 5, world.gazetteer, DRAWING, folder=tmp_path)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    resumed = sample(lm, prompts, 5, world.gazetteer, DRAWING, folder=tmp_path)
    assert resumed == whole
    assert drawn == [prompts[i].text for i in (0, 1, 2, 2, 3)]
    row = json.loads((tmp_path / f"{prompts[0].id}.jsonl").read_text().splitlines()[0])
    assert set(row) == {"prompt", "text", "intersection", "category", "gender", "completion", "titles"}
    kept = {answers.prompt.id: answers for answers in read_answers(tmp_path, world.gazetteer)}
    assert kept == {answers.prompt.id: answers for answers in whole}


def test_a_folder_of_another_model_or_other_settings_is_refused(
    lm: LanguageModel, world: World, tmp_path: Path
) -> None:
    sample(lm, world.prompts[:1], 2, world.gazetteer, DRAWING, folder=tmp_path)
    with pytest.raises(LabError, match="another temperature"):
        sample(
            lm,
            world.prompts[:1],
            2,
            world.gazetteer,
            dataclasses.replace(DRAWING, temperature=0.5),
            folder=tmp_path,
        )
    with torch.no_grad():
        next(lm.model.parameters()).mul_(2)
    with pytest.raises(LabError, match="another model"):
        sample(lm, world.prompts[:1], 2, world.gazetteer, DRAWING, folder=tmp_path)


def test_more_completions_or_another_template_draw_anew(
    lm: LanguageModel, world: World, tmp_path: Path
) -> None:
    sample(lm, world.prompts[:1], 2, world.gazetteer, DRAWING, folder=tmp_path)
    more = sample(lm, world.prompts[:1], 4, world.gazetteer, DRAWING, folder=tmp_path)
    assert len(more[0].completions) == 4
    other = identity_prompts(template="The {X} {Y} is a")[:1]
    answers = sample(lm, other, 2, world.gazetteer, DRAWING, folder=tmp_path)
    assert answers == sample(lm, other, 2, world.gazetteer, DRAWING)


def test_another_recogniser_can_find_the_titles(lm: LanguageModel, world: World) -> None:
    answers = sample(lm, world.prompts[:2], 3, world.gazetteer, DRAWING, find=lambda text: ["poet"])
    assert count_answers(answers).jobs == ("poet",)
    assert count_answers(answers).mentions.tolist() == [[3], [3]]
    titles = Gazetteer(["nurse"], {"nurse practitioner": "nurse"})
    tagged = lambda text: ["Nurse  Practitioner", "", " Poet "]
    answers = sample(lm, world.prompts[:1], 1, titles, DRAWING, find=tagged)
    assert answers[0].titles == [["nurse", "poet"]]


def test_a_recogniser_that_fails_or_finds_nothing_is_named(lm: LanguageModel, world: World) -> None:
    def spotter(text: str) -> list[str]:
        raise KeyError("TITLE")

    with pytest.raises(LabError, match=r"the recogniser spotter failed on '.*': KeyError: 'TITLE'"):
        sample(lm, world.prompts[:1], 1, world.gazetteer, DRAWING, find=spotter)
    for wrong in (None, [3]):
        with pytest.raises(LabError, match=r"failed on .*returns a list of titles"):
            sample(lm, world.prompts[:1], 1, world.gazetteer, DRAWING, find=lambda text, wrong=wrong: wrong)

    def silent(text: str) -> list[str]:
        return []

    answers = sample(lm, world.prompts[:1], 3, world.gazetteer, DRAWING, find=silent)
    with pytest.raises(LabError, match=r"found by the recogniser silent; draw more, another recogniser"):
        count_answers(answers).check_titled()
    answers = sample(lm, world.prompts[:1], 3, Gazetteer(["zookeeper"]), DRAWING)
    with pytest.raises(
        LabError, match=r"found by the gazetteer; draw more, use the exact mode, another gazetteer"
    ):
        count_answers(answers).check_titled()


def test_completions_that_the_measure_wrote_are_found_in_its_folder(
    lm: LanguageModel, world: World, tmp_path: Path
) -> None:
    drawn = sample(lm, world.prompts[:2], 3, world.gazetteer, DRAWING, folder=tmp_path / sampling.COMPLETIONS)
    for folder in (tmp_path, tmp_path / sampling.COMPLETIONS):
        kept = {answers.prompt.id: answers for answers in read_answers(folder, world.gazetteer)}
        assert kept == {answers.prompt.id: answers for answers in drawn}
        assert sample(lm, world.prompts[:2], 3, world.gazetteer, DRAWING, folder=folder) == drawn
    assert [path.name for path in tmp_path.iterdir()] == [sampling.COMPLETIONS]


def test_exact_probabilities_equal_full_passes_in_float64(lm: LanguageModel, world: World) -> None:
    titles = Gazetteer(
        ["nurse", "nurse cook", "nurse cook driver", "cook", "driver", "surgeon"], {"driver": "cook"}
    )
    prompts = world.prompts[:3]
    found = exact(lm, prompts, 10, titles, batch_size=4)
    assert found.unsayable == ("surgeon",)  # no word of this tokenizer
    assert lm.tokenizer is not None
    for at, prompt in enumerate(prompts):
        context = lm.tokenizer.encode(prompt.text)
        p = {
            title: reference.probability_of(lm.model, context, lm.tokenizer.encode(title))
            for title in titles.titles
            if title != "surgeon"
        }
        longest = {
            "nurse": p["nurse"] - p["nurse cook"],
            "nurse cook": p["nurse cook"] - p["nurse cook driver"],
            "nurse cook driver": p["nurse cook driver"],
            "cook": p["cook"] + p["driver"],
        }
        total = sum(longest.values())
        row = dict(zip(found.counts.jobs, found.counts.mentions[at], strict=True))
        for job, value in longest.items():
            assert row[job] == pytest.approx(10 * value / total, rel=1e-4)
        assert found.mass[prompt.cell] == pytest.approx(total, rel=1e-4)


def test_sampling_approaches_the_exact_mode(lm: LanguageModel, world: World) -> None:
    """First words of many samples, among those that are jobs."""
    prompt = world.prompts[:1]
    drawing = Drawing(max_new_tokens=1, top_k=None, batch_size=200)
    sampled = count_answers(sample(lm, prompt, 4000, world.gazetteer, drawing))
    scored = exact(lm, prompt, 1, world.gazetteer).counts
    total = sampled.mentions.sum()
    for job, share in zip(scored.jobs, scored.mentions[0], strict=True):
        at = sampled.jobs.index(job)
        assert abs(sampled.mentions[0, at] / total - share) < 4 * (share * (1 - share) / total) ** 0.5


@pytest.mark.parametrize("n", [0, -3])
def test_fewer_than_one_completion_is_refused(lm: LanguageModel, world: World, n: int) -> None:
    with pytest.raises(LabError, match="at least 1 completion"):
        sample(lm, world.prompts, n, world.gazetteer, DRAWING)
    with pytest.raises(LabError, match="at least 1 completion"):
        exact(lm, world.prompts, n, world.gazetteer)


def test_a_gazetteer_of_unknown_words_is_refused_in_the_exact_mode(lm: LanguageModel, world: World) -> None:
    with pytest.raises(LabError, match="knows no title"):
        exact(lm, world.prompts, 5, Gazetteer(["surgeon"]))
    with pytest.raises(LabError, match="no tokenizer"):
        exact(LanguageModel(lm.model), world.prompts, 5, world.gazetteer)


def test_fewer_completions_leave_the_file_as_it_is(lm: LanguageModel, world: World, tmp_path: Path) -> None:
    prompts = world.prompts[:1]
    whole = sample(lm, prompts, 6, world.gazetteer, DRAWING, folder=tmp_path)[0]
    fewer = sample(lm, prompts, 2, world.gazetteer, DRAWING, folder=tmp_path)[0]
    assert (fewer.completions, fewer.titles) == (whole.completions[:2], whole.titles[:2])
    assert fewer == sample(lm, prompts, 2, world.gazetteer, DRAWING)[0]  # as if drawn alone
    sample(lm, prompts, 2, Gazetteer(["surgeon"]), DRAWING, folder=tmp_path)
    kept = read_answers(tmp_path, world.gazetteer)[0]
    assert kept == whole
    rows = (tmp_path / f"{prompts[0].id}.jsonl").read_text().splitlines()
    assert [json.loads(row)["titles"] for row in rows] == [[]] * 6  # what the last gazetteer finds


def test_completions_with_odd_line_separators_are_read_again(
    lm: LanguageModel, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = [" cook\u2028nurse", " nurse\x85", ' "cook"\r\n']
    monkeypatch.setattr(sampling, "_drawn", lambda *_: odd)
    sample(lm, world.prompts[:1], 3, world.gazetteer, DRAWING, folder=tmp_path)
    monkeypatch.setattr(sampling, "_drawn", lambda *_: pytest.fail("drawn again"))
    assert sample(lm, world.prompts[:1], 3, world.gazetteer, DRAWING, folder=tmp_path)[0].completions == odd


@pytest.mark.parametrize("content", ["", "{", '{"text": "The woman works as a"}\n', "[1]\n", "\xff\xfe"])
def test_a_broken_file_is_named(lm: LanguageModel, world: World, tmp_path: Path, content: str) -> None:
    sample(lm, world.prompts[:1], 2, world.gazetteer, DRAWING, folder=tmp_path)
    file = tmp_path / f"{world.prompts[0].id}.jsonl"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(LabError, match="cannot be read; delete the file"):
        sample(lm, world.prompts[:1], 2, world.gazetteer, DRAWING, folder=tmp_path)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(LabError, match=r"settings\.json: not readable"):
        sample(lm, world.prompts[:1], 2, world.gazetteer, DRAWING, folder=tmp_path)


def test_titles_of_the_same_tokens_share_no_probability_twice() -> None:
    item = Continuation([1, 2], [3])
    longer = Continuation([1, 2], [3, 4])
    assert sampling.exclusive([item, longer, item], [0.5, 0.2, 0.5]) == pytest.approx([0.3, 0.2, 0.0])


def test_exact_probabilities_follow_the_tokens_that_a_sampled_prompt_has(shared_data: Path) -> None:
    lm = load(shared_data / "models" / "stories260k-llama")  # it puts a bos and a blank before every text
    prompt = Prompt("one", "Once upon a time there was a little", Cell("none", "none", "woman"))
    found = exact(lm, [prompt], 1, Gazetteer(["girl", "boy"]))
    ids, plain = prompt_tokens(lm, prompt.text), lm.tokenizer.encode(prompt.text)
    wanted = [
        reference.probability_of(lm.model, ids, lm.tokenizer.encode(f"{prompt.text} {title}")[len(plain) :])
        for title in ("girl", "boy")
    ]
    assert found.mass[prompt.cell] == pytest.approx(sum(wanted), rel=1e-4)
    assert found.mass[prompt.cell] > 0.5
