"""The offline grader: TinyWorld and free text, calibration, void grades, instruction following, the judge hook."""

import math
import random
from types import SimpleNamespace

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.text_metrics import cut_at_repetition
from gpt2lab.papers.tinystories import baselines, characters, following, free_text, grader, judge
from gpt2lab.papers.tinystories.corpus import write_stories
from gpt2lab.papers.tinystories.grading import Calibration
from gpt2lab.papers.tinystories.instruct import instruct_records
from gpt2lab.text.generators.stories import documents, stories
from gpt2lab.text.language_model import load, save
from tests.papers.tinystories.conftest import make_lm


def test_tinyworld_grades_its_own_stories_ten_trigrams_less_and_shuffled_ones_nothing():
    for variant in ("standard", "binding"):
        held_out, training = (documents(seed, 60, variant=variant) for seed in (9, 1))
        found = grader.calibrate_tinyworld(held_out, training, variant=variant)
        assert found.real == {"grammar": 10.0, "consistency": 10.0, "plot": 10.0}
        assert max(found.shuffled.values()) < 0.5
        for name in ("grammar", "consistency"):
            assert found.shuffled[name] < found.trigram[name] < 9.0
        assert found.void() == {}


def test_a_story_that_does_not_end_has_no_plot():
    texts = documents(3, 10)
    grades = grader.grade_tinyworld(texts, stopped=[True] * 5 + [False] * 5)
    assert grades.plot == grades.stops == 0.5 and grades.grammar == grades.consistency == 1.0
    with pytest.raises(LabError, match="no stories"):
        grader.grade_tinyworld([])


@pytest.mark.parametrize(
    ("real", "worst", "void"), [(9.0, 3.0, False), (8.9, 0.0, True), (10.0, 3.1, True), (math.nan, 0.0, True)]
)
def test_a_grade_is_void_if_its_calibration_fails(real, worst, void):
    found = Calibration({"plot": real}, {"plot": 5.0}, {"plot": worst})
    assert (found.void() != {}) is void
    assert found.rows({"plot": 7.0})[0]["model"] == 7.0


def test_trigram_stories_use_only_triples_of_the_training_stories():
    training = documents(0, 200)
    triples = {t for story in training for t in zip(*[story.split()[i:] for i in range(3)], strict=False)}
    made = baselines.TrigramModel(training).sample(50, seed=1, max_words=120)
    assert made == baselines.TrigramModel(training).sample(50, seed=1, max_words=120)
    for story in made:
        assert set(zip(*[story.split()[i:] for i in range(3)], strict=False)) <= triples
        assert len(story.split()) <= 120
    assert len(set(made) - set(training)) > 40


def test_shuffling_keeps_the_words():
    texts = documents(0, 5)
    mixed = baselines.shuffled(texts, seed=0)
    assert mixed == baselines.shuffled(texts, seed=0) and mixed != texts
    assert [sorted(a.split()) for a in mixed] == [sorted(b.split()) for b in texts]


def test_the_measure_prints_its_calibration_and_stays_the_same_for_a_seed(story_lm):
    part = grader.StoryQuality(samples=8, max_new_tokens=40, train="tinyworld:200", held_out="tinyworld:20:7")
    found, again = part(story_lm), part(story_lm)
    assert found.to_json() == again.to_json()
    assert {row["dimension"]: row["held-out"] for row in found.tables["calibration"]} == {
        "grammar": 10.0,
        "consistency": 10.0,
        "plot": 10.0,
    }
    assert found["grammar"] == 0.0 and "not GPT-Eval" in found.about["grader"]
    assert {row[""] for row in found.tables["creativity"]} >= {"distinct_2", "nearest_rouge_2"}


def test_fluent_text_of_another_world_is_not_graded_by_this_ones_grammar(monkeypatch, story_lm):
    english = [
        "One day, a little girl named Lily found a needle in her room .",
        "She smiled and said thanks .",
    ]
    for texts, graded in ((english, False), (documents(3, 2), True)):
        drawn = [SimpleNamespace(text=text, finished="eos") for text in texts]
        monkeypatch.setattr(grader, "sample_stories", lambda *_, drawn=drawn, **__: drawn)
        found = grader.StoryQuality(samples=2, train="tinyworld:200", held_out="tinyworld:20:7")(story_lm)
        assert math.isnan(found["grammar"]) is not graded
        assert found["grammar"] == 10.0 if graded else "reference=MODEL" in found.about["void"]
        assert found["stops"] == 1.0


def test_the_binding_variant_is_graded_by_its_own_grammar(story_lm):
    found = grader.StoryQuality(
        samples=4, max_new_tokens=30, train="tinyworld-binding:100", held_out="tinyworld-binding:10:7"
    )(story_lm)
    assert found["grammar"] == 0.0


def test_free_text_needs_a_larger_reference_and_grades_real_above_shuffled(tmp_path, story_lm):
    held_out, training = documents(5, 40), documents(0, 60)
    for name, texts in (("held.txt", held_out), ("train.txt", training)):
        write_stories(tmp_path / name, texts)
    options = {"samples": 4, "max_new_tokens": 20, "held_out": str(tmp_path / "held.txt")}
    options["train"] = str(tmp_path / "train.txt")
    with pytest.raises(LabError, match="needs --reference"):
        grader.StoryQuality(**options)(story_lm)
    save(make_lm(20, 2, seed=4), tmp_path / "small")
    with pytest.raises(LabError, match="at least 4 times"):
        grader.StoryQuality(**options, reference=str(tmp_path / "small"))(story_lm)
    save(make_lm(64, 2, seed=4), tmp_path / "large")
    found = grader.StoryQuality(**options, reference=str(tmp_path / "large"))(story_lm)
    assert {row["dimension"] for row in found.tables["calibration"]} == {"grammar", "consistency"}
    assert "name_cloze" in found.numbers


def slow_word_log_probability(lm, texts):
    total = words = 0.0
    lm.model.requires_grad_(False)
    for text in texts:
        ids = [lm.tokenizer.eos, *lm.tokenizer.encode(text)]
        logits = lm.model(torch.tensor([ids])).double().log_softmax(-1)[0]
        total += sum(float(logits[i, ids[i + 1]]) for i in range(len(ids) - 1))
        words += len(text.split())
    return total / words


def test_log_probability_per_word_is_the_slow_sum(story_lm):
    texts = [*documents(2, 3), "the ball ."]
    expected = slow_word_log_probability(story_lm, texts)
    for batch_size in (1, 4):
        assert free_text.word_log_probability(story_lm, texts, batch_size=batch_size) == pytest.approx(
            expected
        )
    assert math.isnan(free_text.word_log_probability(story_lm, [""]))


def test_stories_are_drawn_after_the_token_that_the_model_begins_texts_with(shared_data):
    lm = load(shared_data / "models" / "tinystories-656k-llama")
    drawn = grader.sample_stories(lm, 2, temperature=0.7, seed=0, max_new_tokens=6)
    assert [story.prompt_tokens for story in drawn] == [[lm.tokenizer.bos]] * 2


def test_the_reference_reads_a_text_from_the_token_that_it_begins_texts_with(shared_data):
    lm = load(shared_data / "models" / "tinystories-656k-llama")
    assert lm.tokenizer.bos != lm.tokenizer.eos
    ids = [lm.tokenizer.bos, *lm.tokenizer.encode("Once upon a time.")]
    logits = lm.model(torch.tensor([ids])).detach().double().log_softmax(-1)[0]
    expected = sum(float(logits[i, ids[i + 1]]) for i in range(len(ids) - 1)) / 4
    assert free_text.word_log_probability(lm, ["Once upon a time."]) == pytest.approx(expected, rel=1e-5)


def test_the_scale_puts_real_at_ten_and_shuffled_at_nought():
    scale = free_text.Scale(real=-2.0, shuffled=-6.0)
    assert [scale.grade(raw) for raw in (-2.0, -6.0, -4.0, -1.0, -9.0)] == [10.0, 0.0, 5.0, 10.0, 0.0]
    assert math.isnan(free_text.Scale(real=1.0, shuffled=1.0).grade(1.0))


def test_reference_and_graded_model_must_not_share_stories(story_lm):
    with pytest.raises(LabError, match="1 stories train both"):
        free_text.check_disjoint(["a", "b"], ["b", "c"])
    free_text.check_disjoint(["a"], ["b"])
    with pytest.raises(LabError, match="grade itself"):
        free_text.check_reference(story_lm, story_lm)


def test_the_name_cloze_compares_the_right_name_with_the_other(story_lm):
    story = "one day Anna met Ben . then Ben saw Anna . then Anna hugged Ben ."
    share, count = free_text.name_cloze(story_lm, [story, "nobody was there ."])
    assert count == 1
    before = story[: story.rindex(" Ben")]
    ids = [story_lm.tokenizer.eos, *story_lm.tokenizer.encode(before)]
    logits = story_lm.model(torch.tensor([ids]))[0, -1]
    better = logits[story_lm.tokenizer.id("Ben")] > logits[story_lm.tokenizer.id("Anna")]
    assert share == float(better)


def test_names_that_come_from_nowhere_are_seen():
    prompt = "Once there was a girl named Lily. "
    assert characters.known_names(prompt, "Then Lily ran. So Lily sat.") == [True, True]
    assert characters.known_names(prompt, "Then she saw Tom. And Tom ran.") == [False, False]
    assert characters.known_names(prompt, "Then a boy named Tom came. She saw Tom.") == [True, True]
    assert characters.known_names(prompt, '"Hi," said Tom. She saw Tom.') == [True, True]
    assert characters.known_names(prompt, "Her mom and I saw the Sunday.") == []


def test_pronouns_fit_the_last_named_gender():
    fits = characters.fitting_pronouns
    assert fits("Lily ran. She fell. He cried.") == [True, False]
    assert fits("Tom saw Lily. She fell.") == []
    assert fits("A boy ran. A dog ran. A cat ran. A cow ran. She fell.") == []
    assert fits("A girl had his hat and her ball.") == [False, True]


def test_prompts_are_cut_between_words():
    story = "One  two three\nfour five."
    prompt, rest = characters.split_prompt(story, 0.4)
    assert (prompt, rest) == ("One  two ", "three\nfour five.") and prompt + rest == story
    assert characters.split_prompt("one", 0.5) == ("one", "")
    assert characters.split_prompt(story, 0.999)[1] == "five."


def test_instructions_are_followed_by_the_stories_they_were_made_of():
    told = stories(1, 200)
    records = instruct_records(told, seed=0)
    shares = following.following(records, [story.text for story in told])
    assert shares == {"words": 1.0, "features": 1.0, "sentences": 1.0}
    mixed = [story.text for story in told]
    random.Random(0).shuffle(mixed)
    worse = following.following(records, mixed)
    assert worse["words"] < 0.4 and worse["sentences"] < 0.2 and worse["features"] < 1.0
    assert math.isnan(following.following([], [])["words"])


def test_features_are_detected_by_their_surface():
    assert following.has_dialogue('He said, "hello".') and not following.has_dialogue('A 5" stick.')
    assert following.has_dialogue("He said, â€œhelloâ€\x9d.")
    assert following.has_bad_ending("They ran. He fell. He was sad and alone.")
    assert not following.has_bad_ending("He was sad and cried. Then mom came. They hugged and were happy.")


ANSWER = "It reads well.\nGrammar: 8/10\nCreativity: 6.5\nConsistency = 7\nPlot: 5\nAge: C"


def test_an_external_judge_is_asked_about_each_pair_and_its_grades_are_averaged():
    asked = []

    def teacher(request: str) -> str:
        asked.append(request)
        return ANSWER if len(asked) == 1 else ANSWER.replace("8/10", "4")

    means = judge.judge_stories(teacher, ["Once a", "Then the"], ["dog ran.", "cat sat."])
    assert means == {"grammar": 6.0, "creativity": 6.5, "consistency": 7.0, "plot": 5.0}
    assert "Once a *** dog ran." in asked[0] and len(asked) == 2
    assert judge.read_age(ANSWER) == "C" and judge.read_age("no idea") is None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ANSWER.replace("8/10", "11"), "graded grammar with 11"),
        (ANSWER.replace("Plot: 5", "Plot: -1"), "graded plot with -1"),
        (ANSWER.replace("Plot: 5", ""), "no grade for plot"),
    ],
)
def test_grades_out_of_range_or_missing_are_refused(answer, says):
    with pytest.raises(LabError, match=says):
        judge.judge_stories(lambda _: answer, ["a"], ["b"])


def test_a_judge_is_not_asked_about_nothing():
    with pytest.raises(LabError, match="empty"):
        judge.judge_request("  ", "b")
    with pytest.raises(LabError, match="at least one"):
        judge.judge_stories(lambda _: ANSWER, [], [])


def test_the_stop_rule_cuts_baselines_at_the_first_repeated_four_gram():
    text = "once upon a time he ran and once upon a time he sat"
    assert grader.cut_story(text) == "once upon a time he ran and"
    assert grader.cut_story("all words differ here") == "all words differ here"
    assert list(cut_at_repetition(text.split(), 4)) == grader.cut_story(text).split()


def test_the_names_of_the_cloze_are_the_tokens_of_the_running_story(shared_data):
    lm = load(shared_data / "models" / "stories260k-llama")  # it puts a blank before every text
    story = "One day Lily met Tim . then Tim saw Lily . then Lily hugged Tim ."
    before = story[: story.rindex(" Tim")]
    share, count = free_text.name_cloze(lm, [story])
    with torch.no_grad():
        logits = lm.model(torch.tensor([[lm.tokenizer.bos, *lm.tokenizer.encode(before)]]))[0, -1]
    assert (share, count) == (float(logits[lm.tokenizer.id("▁Tim")] > logits[lm.tokenizer.id("▁Lily")]), 1)
