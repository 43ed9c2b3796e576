"""The probe of constituents: parses, spans, pooled states and the logistic regression, each against something else."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.papers.impossible_languages.generator import annotated
from gpt2lab.papers.impossible_languages.probe import (
    Span,
    balanced,
    find_span,
    fit_and_judge,
    parts_of,
    phrases,
    span_states,
)
from gpt2lab.papers.impossible_languages.span_probe import SpanProbe
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level, word_level
from tests.papers.impossible_languages import reference
from tests.tiny import tiny


def test_phrases_of_more_than_one_word_are_read_from_a_parse() -> None:
    parse = (
        "(ROOT (S (NP-SBJ (DT The) (NN dog)) "
        "(VP (VBZ runs) (ADVP (RB very) (RB fast)) (PP (IN in) (NP (NN it)))) (. .)))"
    )
    assert phrases(parse) == [
        ("NP", ("The", "dog")), ("ADVP", ("very", "fast")), ("PP", ("in", "it")),
        ("VP", ("runs", "very", "fast", "in", "it")),
    ]  # fmt: skip
    assert phrases("(NP (-LRB- -LRB-) (NN x) (-RRB- -RRB-))") == [("NP", ("(", "x", ")"))]
    for broken in ("(NP (DT a)", "(NP a))"):
        with pytest.raises(LabError, match="brackets"):
            phrases(broken)


def test_the_parses_of_generated_sentences_hold_their_words_in_order() -> None:
    for one in annotated(2, 200):
        whole = one.sentence.parse.replace("(", " ( ").replace(")", " ) ").split()
        leaves = [piece for before, piece in pairwise(whole) if before not in "()" and piece not in "()"]
        assert leaves == [word.text for word in one.sentence.words]
        found = phrases(one.sentence.parse)
        assert {label for label, _ in found} <= {"NP", "VP", "PP"}
        assert all(" ".join(words) in one.sentence.text for _, words in found)


def test_a_span_is_the_first_place_of_its_tokens_and_turns_with_the_sentence() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("a dog, a dog")
    first, later = find_span(ids, "a dog", "NP", tokenizer), find_span(ids, ", a", "NP", tokenizer)
    assert first is not None and later is not None and find_span(ids, "cat", "NP", tokenizer) is None
    assert (first.start, first.stop, later.start) == (0, 5, 5)
    turned = later.reversed()
    assert list(turned.ids[turned.start : turned.stop]) == tokenizer.encode(", a")[::-1]
    assert turned.reversed() == later


def test_states_are_pooled_over_the_span_alone() -> None:
    model = tiny("gpt2").double()
    spans = [Span((3, 7, 8, 2, 9), 1, 3, "NP"), Span((5, 6, 1), 0, 3, "VP")]
    for pool in ("mean", "max"):
        found = span_states(model, spans, pool=pool, batch_size=2)  # type: ignore[arg-type]  # one of two words
        for i, span in enumerate(spans):
            _, outputs = reference.gpt2_logits(model, list(span.ids))
            for place, states in [
                *((str(n), x) for n, x in enumerate(outputs)),
                ("last4", torch.stack(outputs).mean(0)),
            ]:
                part = states[span.start : span.stop]
                expected = part.mean(0) if pool == "mean" else part.amax(0)
                assert torch.allclose(found[place][i], expected, atol=1e-9)


def test_a_fifth_of_each_label_is_judged_and_what_is_there_is_found() -> None:
    labels = ["NP"] * 20 + ["VP"] * 30
    fitted, judged = parts_of(labels, seed=1)
    assert int(judged[:20].sum()) == 4 and int(judged[20:].sum()) == 6 and not (fitted & judged).any()
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 5)))
    told = noise.clone()
    told[:20, 2] += 8
    assert bool(fit_and_judge(told, labels, seed=1).all())
    assert float(fit_and_judge(noise, labels, seed=1).double().mean()) < 0.9
    with pytest.raises(LabError, match="two kinds"):
        parts_of(["NP"] * 9 + ["VP"] * 3, seed=0)
    with pytest.raises(LabError, match="NaN"):
        fit_and_judge(noise * float("nan"), labels, seed=0)


def test_the_measure_reads_generated_parses_in_either_order() -> None:
    made = annotated(1, 60)
    tokenizer = word_level([one.sentence.text for one in made], punctuation=False)
    lm = LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size), tokenizer)
    forward = SpanProbe(annotated=("agreement:60:1",), per_label=30)(lm)
    backward = SpanProbe(annotated=("agreement:60:1",), per_label=30, order="reversed")(lm)
    assert forward.about["phrases"] == backward.about["phrases"]
    assert forward["embed"] == backward["embed"] or forward["last4"] != backward["last4"]
    assert forward["embed"] > forward["majority"]  # words tell noun phrases from the others
    assert b"<svg" in forward.figure_svg("accuracy")
    with pytest.raises(LabError, match="at least 5"):
        SpanProbe(per_label=2)


def test_few_of_each_kind_are_drawn() -> None:
    spans = [Span((1, 2), 0, 2, label) for label in ["NP"] * 9 + ["PP"] * 2]
    assert [span.label for span in balanced(spans, 4, seed=0)] == ["NP"] * 4 + ["PP"] * 2
