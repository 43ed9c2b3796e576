"""The probe of codons, the attribution of a judge's answer, the components of its states: against slow and planted ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.prediction import encoder_for
from gpt2lab.model import Backbone, Inner, Inputs, Transformer, Wrapper, attach
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.model.task_heads import Head
from gpt2lab.papers.central_dogma.alignment import align, states_of
from gpt2lab.papers.central_dogma.attribution import (
    CodonAttribution,
    _spotted,
    integrated_gradients,
)
from gpt2lab.papers.central_dogma.codon_probe import (
    CodonProbe,
    half_exchanged,
    held_out_codons,
    unit_states,
)
from gpt2lab.papers.central_dogma.components import PairComponents, between, principal_components
from gpt2lab.text.codon_tokenizer import codon_level
from gpt2lab.text.encoding import Encoder
from gpt2lab.text.generators.genes import Genes
from gpt2lab.text.generators.sequence_pairs import Pair
from gpt2lab.text.genetic_code import AMINO_ACIDS, CODE, translate
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from tests.papers.central_dogma import reference

SHAPE: dict[str, Any] = {"d_model": 12, "n_layers": 2, "n_heads": 2, "max_positions": 64, "init_std": 0.3}


def small(tokenizer: Tokenizer | None = None, **changes: Any) -> LanguageModel:
    tokenizer = tokenizer or codon_level()
    config = gpt2_config(vocab_size=tokenizer.vocab_size, eos=tokenizer.eos, **{**SHAPE, **changes})
    model = Transformer(config, generator=torch.Generator().manual_seed(0))
    return LanguageModel(attach(model, Head(outputs=2)).double().eval(), tokenizer)


@pytest.fixture(scope="module")
def joint() -> Tokenizer:
    """Tokens of one to several letters, that heed no codon."""
    genes = Genes(seed=8)
    return train_bpe([text for i in range(200) for text in (genes[i].dna, genes[i].protein)], 400)


@pytest.mark.parametrize("separator", ["", "|"])
def test_letters_of_tokens_are_shared_among_codons_and_residues(joint: Tokenizer, separator: str) -> None:
    gene = Genes(seed=1, shortest=9, longest=9)[0]
    found = align(Encoder(joint, 64, separator=separator), gene.dna + "AC", gene.protein)
    pieces = [joint.decode([id]) for id in found.row.ids]
    own = joint.encode(gene.dna + "AC")
    first, rest = pieces[: len(own)], pieces[len(own) :]
    assert "".join(first) == gene.dna + "AC" and max(map(len, first)) > 3
    expected = reference.letters_of(first, gene.dna + "AC", 3)
    assert found.codons[:, : len(own)].tolist() == pytest.approx(np.array(expected))
    assert not found.codons[:, len(own) :].any() and len(found.codons) == 9
    assert "".join(rest) == separator + gene.protein
    if not separator:
        expected = reference.letters_of(rest, gene.protein, 1)
        assert found.residues[:, len(own) :].tolist() == pytest.approx(np.array(expected))
    assert not found.residues[:, : len(own)].any()
    with pytest.raises(LabError, match="pair 4: more than the 9 tokens"):
        align(Encoder(joint, 9), gene.dna, gene.protein, "pair 4")


def test_the_state_of_a_codon_is_the_mean_of_its_tokens_whatever_the_batch(joint: Tokenizer) -> None:
    lm, genes = small(joint), Genes(seed=3, shortest=5, longest=9)
    encoder = encoder_for(lm)
    rows = [align(encoder, genes[i].dna, genes[i].protein) for i in range(5)]
    found = unit_states(lm.model, rows, batch_size=3)
    place = 0
    for row in rows:
        ids = torch.tensor([row.row.ids])
        with torch.no_grad(), lm.model.tap(read=["blocks.1.hook_resid_post"]) as tap:
            lm.model.hidden(ids)
        states = tap["blocks.1.hook_resid_post"][0]
        for k in range(1, len(row.codons)):
            for part, shares in zip(found["1"], (row.codons, row.residues), strict=True):
                weights = shares[k].tolist()
                mean = sum(w * state for w, state in zip(weights, states, strict=True)) / sum(weights)
                assert torch.allclose(part[place], torch.as_tensor(mean), atol=1e-9)
            place += 1
    assert place == len(found["1"][0]) == len(found["embed"][1])
    assert torch.allclose(states_of(row.codons[1:3], states * 0 + 2.0), torch.full((2, 12), 2.0).double())


def test_half_of_the_residues_are_exchanged_each_by_itself_for_others_of_the_same_distribution() -> None:
    proteins = [Genes(seed=5, shortest=30, longest=30)[i].protein for i in range(400)]
    changed = half_exchanged(proteins, 3)
    same = np.array(
        [[a == b for a, b in zip(x, y, strict=True)] for x, y in zip(proteins, changed, strict=True)]
    )
    assert same[:, 0].all() and same[:, 1:].mean() == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(same[:, 1:-1].ravel(), same[:, 2:].ravel())[0, 1]) < 0.04
    for residue in AMINO_ACIDS:
        before, after = (sum(one[1:].count(residue) for one in of) for of in (proteins, changed))
        assert after == pytest.approx(before, rel=0.2)
    assert half_exchanged(proteins, 3) == changed != half_exchanged(proteins, 4)
    with pytest.raises(LabError, match="fewer than two kinds"):
        half_exchanged(["MAAA", "MA"], 0)


class Oracle(Wrapper):
    """Adds to the embedding of residue k whether codon k codes for it; reads codon tokens, a separator, residues."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.words = [tokenizer.decode([id]) for id in range(tokenizer.vocab_size)]

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        x = inputs.embeddings.clone()
        for row in x:
            words = [self.words[i] for i in torch.cdist(row, model.embedding.weight).argmin(1).tolist()]
            if "|" not in words:
                continue
            middle = words.index("|")
            for k, residue in enumerate(words[middle + 1 : 2 * middle + 1]):
                row[middle + 1 + k, 0] += 9.0 * (CODE.get(words[k]) == residue)
        return inner(replace(inputs, embeddings=x))


def test_the_probe_finds_what_is_planted_and_nothing_where_there_is_nothing() -> None:
    lm = small(d_model=40, n_layers=1)
    probe = CodonProbe(data=("dna-protein:60:3:12",), separator="|")
    plain = probe(lm)
    rows = {row["place"]: row for row in plain.tables["places"]}
    assert list(rows) == ["embed", "0"]
    assert rows["embed"]["residue"] > 0.9 > plain["residue_majority"] + 0.5  # 61 codons as tokens
    assert rows["embed"]["match"] == pytest.approx(0.5, abs=0.12)  # a residue by itself says nothing
    assert rows["embed"]["synonyms"] < 0.4
    with torch.no_grad():  # codons of one residue get one embedding
        for codon, residue in CODE.items():
            id = lm.tokenizer.encode(codon)  # type: ignore[union-attr]  # the codon tokenizer
            generator = torch.Generator().manual_seed(ord(residue))
            lm.model.embedding.weight[id] = torch.randn(40, generator=generator, dtype=torch.float64)
    lm.model.wrappers.append(Oracle(lm.tokenizer))  # type: ignore[arg-type]  # the codon tokenizer
    planted = {row["place"]: row for row in probe(lm).tables["places"]}
    assert planted["embed"]["synonyms"] > 0.95 and planted["embed"]["match"] > 0.95
    assert planted["0"]["match"] > 0.9
    assert b"<svg" in plain.figure_svg("places")


def test_synonyms_are_held_out_of_fitting() -> None:
    codons = [codon for codon in CODE if codon not in ("TAA", "TAG", "TGA")]
    out = held_out_codons(codons, 4)
    assert len(out) == 18 and not {CODE[codon] for codon in out} & set("MW")
    assert {CODE[codon] for codon in out} == {CODE[codon] for codon in codons} - set("MW")
    assert held_out_codons(["GCT", "GCC", "ATG"], 0) <= {"GCT", "GCC"} and not held_out_codons(["ATG"], 0)


def test_attributions_are_those_of_finite_differences_and_sum_to_the_difference() -> None:
    lm = small()
    encoder = encoder_for(lm, separator="|")
    rows = [align(encoder, "ATGGCA", "MA"), align(encoder, "ATGGCATTT", "MWF")]
    found = integrated_gradients(lm.model, rows, "label", 1, steps=3, batch_size=2)

    def answer(embeddings: Tensor) -> float:
        with torch.no_grad():
            hidden = lm.model.hidden(embeddings=embeddings[None])[0, -1]
            head: Any = lm.model.heads["label"]
            low, high = head.output(hidden).tolist()
        return float(high - low)

    for row, one in zip(rows, found, strict=True):
        embeddings = lm.model.embed(torch.tensor([row.row.ids]))[0].detach()
        slow = reference.integrated_gradients(answer, embeddings, 3)
        assert one.tokens.tolist() == pytest.approx(slow, abs=1e-6)
        assert one.whole == pytest.approx(answer(embeddings) - answer(embeddings * 0), abs=1e-9)
    fine = integrated_gradients(lm.model, rows, "label", 1, steps=300)
    for one in fine:
        assert float(one.tokens.sum()) == pytest.approx(one.whole, abs=1e-3)
    other = integrated_gradients(lm.model, rows, "label", 0, steps=3)
    assert torch.allclose(other[0].tokens, -found[0].tokens)


def test_the_measure_splits_the_attribution_and_finds_the_residue_that_speaks_against_a_match() -> None:
    found = CodonAttribution(data=("dna-protein-typed:32:2:12",), separator="|", steps=2)(small())
    assert 0 < found["dna_share"] < 1 and found["dna_share"] + found["protein_share"] <= 1 + 1e-9
    assert 0 <= found["substitution_found"] <= 1
    assert found["substitution_chance"] == pytest.approx(1 / 12)
    rows = found.tables["positions"]
    assert {row["part"] for row in rows} == {"codon", "residue"} and rows[0]["pairs"] == 32
    assert b"<svg" in found.figure_svg("positions")
    pairs = [Pair("ATGGCATTT", "MWF", 0), Pair("ATGGCATTT", "MAW", 0), Pair("ATGGCATTT", "MAF", 1)]
    values = [torch.tensor([0.0, -2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0])]
    assert translate(pairs[0].first) == "MAF"
    assert _spotted(pairs, values) == {"substitution_found": 0.5, "substitution_chance": pytest.approx(1 / 3)}
    assert _spotted(pairs[2:], values[2:]) == {}


def test_components_are_those_of_scikit_learn() -> None:
    vectors = torch.randn(40, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vectors[:, 3] *= 4
    found, other = principal_components(vectors), PCA(n_components=2).fit(vectors.numpy())
    assert found.explained.tolist() == pytest.approx(other.explained_variance_ratio_)
    assert found.scores.abs().numpy() == pytest.approx(np.abs(other.transform(vectors.numpy())), abs=1e-9)
    for bad in (vectors[:2], torch.ones(5, 4)):
        with pytest.raises(LabError, match="at least three pairs whose states differ"):
            principal_components(bad)


def test_variance_between_kinds_is_that_of_their_means() -> None:
    values = torch.tensor([[0.0, 1.0], [2.0, 1.0], [5.0, 0.0], [7.0, 3.0]], dtype=torch.float64)
    mean = values.mean(0)
    outer = sum(2 * float((values[i : i + 2].mean(0) - mean).square().sum()) for i in (0, 2))
    assert between(values, [1, 1, 0, 0]) == pytest.approx(outer / float((values - mean).square().sum()))
    assert between(values[:, :1], [1, 1, 0, 0]) == pytest.approx(25 / 29)


def test_pairs_lie_in_a_plane_by_kind(tmp_path: Path) -> None:
    lm = small()
    found = PairComponents(data=("dna-protein-typed:32:2:12",), separator="|")(lm)
    assert 0 < found["explained_2"] <= found["explained_1"] < 1 and 0 <= found["between"] <= 1
    assert len(found.tables["types"]) == 9 and found.arrays["components"].shape == (32, 2)
    assert b"<svg" in found.figure_svg("components")
    with pytest.raises(LabError, match="32 of 32 pairs have more than the 64 tokens"):
        PairComponents(data=("dna-protein:32:2:40",), separator="|")(lm)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["ATGGCA"] * 4, "at least 5, got 4"),
        (["ATGTAA"] * 6, "line 1: fewer than two codons"),
        (["ATG"] * 6, "line 1: fewer than two codons"),
        (["ATGGCZ"] * 6, "line 1: 'Z' at base 6"),
        (["ATGGCA"] * 6, "fewer than two kinds"),
    ],
)
def test_genes_that_cannot_be_probed_are_refused(lines: list[str], said: str, tmp_path: Path) -> None:
    file = tmp_path / "genes.jsonl"
    file.write_text("".join(f'{{"sentence1": "{line}"}}\n' for line in lines))
    with pytest.raises(LabError, match=said):
        CodonProbe(data=(str(file),))(small())
