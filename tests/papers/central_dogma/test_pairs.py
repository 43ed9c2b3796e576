"""Reading pairs, the rule judge, shortcuts and the audit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.central_dogma.measure import rule_predictions
from gpt2lab.papers.central_dogma.pairs import (
    Fields,
    audit,
    read_pairs,
    refuse_shared,
    require_sequences,
    unseen,
)
from gpt2lab.papers.central_dogma.rules import translated
from gpt2lab.papers.central_dogma.shortcuts import (
    SHORTCUTS,
    composition,
    gc_content,
    kmer_overlap,
    lengths,
    shortcut_predictions,
)
from gpt2lab.text.generators.genes import Genes
from gpt2lab.text.generators.sequence_pairs import NEGATIVES, Pair, TranslationPairs
from tests.papers.central_dogma import reference


def typed(
    size: int, seed: int = 2, negatives: tuple[str, ...] = tuple(NEGATIVES), **genes: Any
) -> list[Pair]:
    pairs = TranslationPairs(
        genes=Genes(seed=seed, **(genes or {"shortest": 12, "longest": 12})), negatives=negatives
    )
    return [pairs[i] for i in range(size)]


def test_the_rule_judge_is_that_of_a_slow_search() -> None:
    for pair in typed(48, shortest=5, longest=14):
        said = translated(pair.first, pair.second)
        assert said.exact == (reference.frames(pair.first)[0] == pair.second) == bool(pair.label)
        assert said.any_frame == pytest.approx(reference.best_identity(pair.first, pair.second))
        assert said.stretch == reference.longest_stretch(pair.first, pair.second)
    said = translated("ATGAAATAA", "MK")
    assert said.exact and said.frame0 == said.any_frame == 1.0
    assert translated("ATGAAATAA", "MKK").frame0 == pytest.approx(2 / 3)
    assert translated("ATG", "") == translated("ATG", "*")


def test_the_frame_0_rule_is_always_right_and_the_any_frame_rule_is_fooled_by_near_misses() -> None:
    pairs = typed(320)
    rules, labels = rule_predictions(pairs), np.array([pair.label for pair in pairs])
    kinds = np.array([pair.type for pair in pairs])
    assert (rules["rule.frame0"] == labels).all()
    fooled = {kind: float(rules["rule.any_frame"][kinds == kind].mean()) for kind in set(kinds)}
    assert fooled["match"] == fooled["frame_shift"] == fooled["reverse_complement"] == 1
    assert fooled["one_substitution"] == fooled["sister_species"] == 1
    assert max(fooled[kind] for kind in ("random_same_length", "shuffled_composition", "other_gene")) < 0.1


def test_features_of_shortcuts_are_counted() -> None:
    pairs = [Pair("ATGG", "MK", 1), Pair("CCC", "AACC", 0)]
    assert lengths(pairs).tolist() == [[4, 2, 0.5], [3, 4, 4 / 3]]
    assert gc_content(pairs).tolist() == [[0.5, 0], [1, 0.5]]
    shares = composition(pairs)
    assert shares.shape == (2, 4 + 4) and shares.sum(1).tolist() == [2, 2]
    assert shares[1].tolist() == [0, 1, 0, 0, 0.5, 0.5, 0, 0]
    assert kmer_overlap(pairs).tolist() == [[0, 0, 0], [0.5, 1 / 3, 0]]


def test_shortcuts_read_small_letters_as_capitals() -> None:
    pairs = typed(80, negatives=("random_same_length",))
    mixed = [
        replace(pair, first=pair.first.lower(), second=pair.second.lower()) if place % 3 else pair
        for place, pair in enumerate(pairs)
    ]
    for features in SHORTCUTS.values():
        assert np.array_equal(features(mixed), features(pairs))
    before, after = shortcut_predictions(pairs), shortcut_predictions(mixed)
    assert all(np.array_equal(before[name], after[name]) for name in SHORTCUTS)


def test_length_gives_negatives_of_other_lengths_away_and_nothing_gives_away_the_order_of_residues() -> None:
    pairs = typed(400, negatives=("random_any_length",))
    labels = np.array([pair.label for pair in pairs])
    said = shortcut_predictions(pairs)
    assert set(said) == set(SHORTCUTS) and (said["length"] == labels).mean() > 0.95
    shuffled = typed(400, negatives=("shuffled_composition",))
    labels = np.array([pair.label for pair in shuffled])
    assert all(abs((one == labels).mean() - 0.5) < 0.09 for one in shortcut_predictions(shuffled).values())


def test_an_audit_counts_what_makes_pairs_easy_or_wrong() -> None:
    pairs = typed(80, negatives=("other_gene", "random_any_length"))
    found = audit([*pairs, pairs[0], Pair(pairs[0].first, pairs[0].second, 1 - pairs[0].label)])
    assert found.pairs == 82 and found.repeated == 2 and found.contradictory == 1 and found.both_labels >= 1
    assert found.exact[0] > 0.95 and found.exact[1] < 0.05 and found.starts == (1, 1)
    assert found.three_times[0] > 0.95 and 0.4 < found.three_times[1] < 0.6
    assert [row["matches"] for row in found.table()] == [
        found.exact[0],
        found.found[0],
        found.three_times[0],
        1,
    ]
    clean = audit(pairs)
    assert clean.exact == (1, 0) and clean.found[0] == 1 and clean.found[1] < 0.1 and clean.repeated == 0


def test_tsv_is_read_as_paws_x_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "dev_2k.tsv"
    rows = [("1", 'He said "no', "“No”, he said", "1"), ("2", "a, b", "c", "0")]
    file.write_text("id\tsentence1\tsentence2\tlabel\n" + "".join("\t".join(row) + "\n" for row in rows))
    assert read_pairs((str(file),)) == [Pair(*rows[0][1:3], 1, "match"), Pair(*rows[1][1:3], 0, "negative")]
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"dna": "ATG", "protein": "M", "y": 1, "kind": "odd"}) + "\n"
    )
    fields = Fields(first="dna", second="protein", label="y", type="kind")
    assert read_pairs((str(tmp_path / "p.jsonl"),), fields) == [Pair("ATG", "M", 1, "odd")]
    assert len(read_pairs(("dna-protein:9", str(tmp_path / "p.jsonl")), limit=4)) == 4


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1\ta\tb\t2", r"line 2: label '2' is neither"),
        ("1\ta\tb\t-1", "label '-1' is neither"),
        ("1\ta\tb\t", "line 2: field 'label' is empty"),
        ("1\t\tb\t1", "field 'sentence1' is empty"),
        ("1\ta\tb", "line 2: 3 of 4 columns"),
        ("", "no pairs there"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "x.tsv").write_text(f"id\tsentence1\tsentence2\tlabel\n{line}" + ("\n" if line else ""))
    with pytest.raises(LabError, match=said):
        read_pairs((str(tmp_path / "x.tsv"),))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: require_sequences([Pair("ATG", "M", 1), Pair("ATB", "M", 1)]),
            r"pair 2, DNA: 'B' at base 3",
        ),
        (lambda: require_sequences([Pair("ATG", "MJ", 1)]), r"pair 1, protein: 'J' at residue 2"),
        (lambda: require_sequences([Pair("AT", "M", 1)]), "pair 1: DNA of 2 bases holds no codon"),
        (lambda: refuse_shared([Pair("b ", "C", 0)], [Pair("B", "c", 1)]), "1 of 1 pairs were fine-tuned on"),
        (lambda: audit([Pair("ATG", "M", 1)]), "one label only"),
        (lambda: shortcut_predictions([Pair("ATG", "M", 1)] * 60), "40 pairs of both labels"),
        (lambda: read_pairs(("paraphrases:3",), Fields(second="sentence3")), "sentence3"),
    ],
)
def test_a_mistake_gets_one_sentence(call: Any, said: str) -> None:
    with pytest.raises(LabError, match=said):
        call()


def test_what_is_left_of_pairs_that_were_trained_on_is_not_refused() -> None:
    pairs, training = [Pair("b ", "C", 0), Pair("b", "d", 0), Pair("b", "d", 0)], [Pair("B", "c", 1)]
    assert unseen(pairs, training) == pairs[1:]  # small letters and blanks aside, as the refusal has it
    refuse_shared(unseen(pairs, training), training)
