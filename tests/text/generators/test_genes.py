"""Generated genes, pairs of sequences by type, and paraphrases."""

from collections import Counter
from typing import Any

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text import sources
from gpt2lab.text.generators.genes import PERCENT, Genes
from gpt2lab.text.generators.paraphrases import _SLOTS, Paraphrases, cipher
from gpt2lab.text.generators.sequence_pairs import MATCH, NEGATIVES, SimilarityPairs, TranslationPairs
from gpt2lab.text.genetic_code import reverse_complement, translate
from gpt2lab.text.labelled import Target, read_examples
from gpt2lab.text.records import records


def differences(first: str, second: str) -> int:
    return sum(a != b for a, b in zip(first, second, strict=True))


def test_genes_code_for_their_proteins_and_have_the_residues_of_nature() -> None:
    genes = Genes(seed=3)
    found = [genes[i] for i in range(2000)]
    assert all(translate(gene.dna) == gene.protein and gene.protein[0] == "M" for gene in found)
    assert {len(gene.protein) for gene in found} == set(range(10, 41))
    rest = Counter("".join(gene.protein[1:] for gene in found))
    n, percent = sum(rest.values()), sum(PERCENT.values())
    for residue, share in PERCENT.items():
        p = share / percent
        assert abs(rest[residue] - n * p) < 5 * (n * p * (1 - p)) ** 0.5
    assert genes[7] == Genes(seed=3)[7] != Genes(seed=4)[7]


@pytest.mark.parametrize("residues", [3, 12, 40])
def test_every_kind_of_negative_is_what_it_says(residues: int) -> None:
    genes = Genes(seed=1, shortest=residues, longest=residues)
    pairs = TranslationPairs(genes=genes, negatives=tuple(NEGATIVES))
    found = [pairs[i] for i in range(160)]
    assert Counter(pair.type for pair in found) == {MATCH: 80, **dict.fromkeys(NEGATIVES, 10)}
    for pair in found:
        dna, protein, right = pair.first, pair.second, translate(pair.first)
        assert pair.label == (pair.type == MATCH) == (right == protein)
        assert dna.startswith("ATG") and protein[0] == "M" and "*" not in right
        assert len(dna) == 3 * residues
        match pair.type:
            case "random_any_length":
                assert len(protein) != residues and residues // 2 <= len(protein) <= 2 * residues
            case "shuffled_composition":
                assert sorted(protein) == sorted(right)
            case "one_substitution":
                assert differences(protein, right) == 1
            case "sister_species":
                assert differences(protein, right) == max(2, round(residues / 10))
            case "frame_shift":
                frames = [translate(dna[3 + count :]) for count in (1, 2)]
                assert protein[1:-1] in (frame[: residues - 2] for frame in frames)
            case "reverse_complement":
                assert translate(reverse_complement(dna[3:])) == protein[1:]
            case "other_gene":
                assert protein in [genes[i].protein for i in range(200)]
            case _:
                assert len(protein) == residues


def test_the_first_pairs_of_more_are_the_same_and_lengths_of_another_gene_are_near() -> None:
    pairs = TranslationPairs(genes=Genes(seed=5), negatives=("other_gene",))
    negatives = [pair for pair in (pairs[i] for i in range(100)) if not pair.label]
    assert len(negatives) == 50
    away = [abs(len(pair.first) // 3 - len(pair.second)) for pair in negatives]
    assert max(away) <= 8 and sum(gap == 0 for gap in away) > 25
    few, more = ([row for _, row in records(f"dna-protein-typed:{size}:4")] for size in (5, 20))
    assert few == more[:5]


def test_similar_sequences_are_mutated_copies() -> None:
    for protein, letters in ((False, 36), (True, 12)):
        pairs = SimilarityPairs(genes=Genes(seed=2, shortest=12, longest=12), protein=protein)
        found = [pairs[i] for i in range(1000)]
        assert Counter(pair.type for pair in found) == {"mutated": 500, "random": 500}
        assert all(len(pair.first) == len(pair.second) == letters for pair in found)
        changed = sum(differences(pair.first, pair.second) for pair in found if pair.label)
        n = 500 * (letters - (1 if protein else 3))  # the start stays
        assert abs(changed - 0.12 * n) < 5 * (n * 0.12 * 0.88) ** 0.5


def test_neither_start_nor_stop_tells_a_copy_from_an_unrelated_sequence() -> None:
    for protein, start in ((False, "ATG"), (True, "M")):
        pairs = SimilarityPairs(genes=Genes(seed=5, shortest=12, longest=12), protein=protein, rate=0.3)
        for pair in (pairs[i] for i in range(400)):
            assert pair.first.startswith(start) and pair.second.startswith(start)
            assert protein or "*" not in translate(pair.second)


@pytest.mark.parametrize("languages", [1, 3])
def test_a_paraphrase_says_the_same_and_a_negative_one_thing_else_or_all(languages: int) -> None:
    concepts = {
        word: (slot, i) for slot, words in enumerate(_SLOTS) for i, pair in enumerate(words) for word in pair
    }
    back = [{word: word for word in [*concepts, "the", "near"]}]
    back += [{made: word for word, made in cipher(language).items()} for language in range(1, languages)]
    source = Paraphrases(seed=4, languages=languages)
    found = [source.pair(i) for i in range(400 * languages)]
    counts = Counter(pair.type for pair in found)
    assert counts == {MATCH: 200 * languages, "one_word": 100 * languages, "unrelated": 100 * languages}
    for number, pair in enumerate(found):
        english = back[number % languages]
        read = [[english[word] for word in text.split()] for text in (pair.first, pair.second)]
        bags = [sorted(str(concepts.get(word, word)) for word in words) for words in read]
        apart = sum((Counter(bags[0]) - Counter(bags[1])).values())
        assert pair.first != pair.second and pair.label == (pair.type == MATCH)
        assert {MATCH: apart == 0, "one_word": apart == 1, "unrelated": apart >= 0}[pair.type]
        assert sorted(map(len, read)) == [10, 10]
        words = [english[word] for word in source.retold(number).split()]
        told = [sorted(str(concepts.get(word, word)) for word in part) for part in (words[:10], words[10:])]
        assert told[0] == told[1]


def test_ciphers_are_one_to_one_and_share_no_word() -> None:
    tables = [cipher(language) for language in range(1, 8)]
    assert all(len(set(table.values())) == len(table) == 72 for table in tables)
    assert tables[0] != tables[1] and not set(tables[0]) & set(tables[0].values())


@pytest.mark.parametrize("parallel", [0, 50, 100])
def test_a_corpus_pairs_genes_in_the_share_that_was_asked_for(parallel: int) -> None:
    found = list(sources.documents(f"genes:2000:6:{parallel}"))
    proteins, coding = (list(sources.documents(f"{name}:2000:6")) for name in ("proteins", "coding-dna"))
    kinds = Counter(
        "both"
        if text == dna + protein
        else "dna"
        if text == dna
        else "protein"
        if text == protein
        else "none"
        for text, dna, protein in zip(found, coding, proteins, strict=True)
    )
    assert not kinds["none"] and abs(kinds["both"] - 20 * parallel) <= 5 * 500**0.5
    assert abs(kinds["dna"] - kinds["protein"]) <= 1


def test_pairs_are_labelled_rows_for_every_verb() -> None:
    (example, *rest) = read_examples(
        "dna-protein:8:2:20",
        field="sentence1",
        pair="sentence2",
        targets=[Target("label", "classification", ("label",))],
    )
    assert len(example.text) == 60 and len(example.pair or "") == 20
    assert {one.values["label"] for one in [example, *rest]} == {"0", "1"}
    assert all(row["text"] == row["sentence1"] + row["sentence2"] for _, row in records("protein-pairs:4"))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: list(sources.documents("genes:5:0:101")), "0 to 100 percent"),
        (lambda: list(sources.documents("proteins:5:0:1")), "from 2 to"),
        (lambda: list(sources.documents("dna-protein:5:0:2")), "3 residues or more"),
        (lambda: list(sources.documents("sentences:5:0:9")), "languages 1 to 8"),
        (lambda: TranslationPairs(negatives=("frameshift",)), "did you mean frame_shift"),
        (lambda: TranslationPairs(negatives=()), "name a kind of negative"),
        (lambda: SimilarityPairs(rate=2), r"\[0, 1\]"),
        (lambda: cipher(8), "numbered 0"),
        (lambda: Genes()[-1], "begin at 0"),
        (lambda: Genes(seed=-1), "seed must be at least 0"),
    ],
)
def test_a_mistake_gets_one_sentence(call: Any, said: str) -> None:
    with pytest.raises(LabError, match=said):
        call()
