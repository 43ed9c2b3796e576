"""Codons and residues are tokens of their own, text is kept, and transformers reads the files alike; BPE beyond words."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from gpt2lab.text.codon_tokenizer import codon_level
from gpt2lab.text.encoding import Encoder
from gpt2lab.text.generators.genes import Genes
from gpt2lab.text.tokenizer import train_bpe
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer

TEXTS = {
    "ATGAAATT": ["ATG", "AAA", "T", "T"],
    "|MKACG": [*"|MKACG"],
    "ATGAAAMK": [*"ATGAAAMK"],
    "MACG ACG": [*"MACG", "Ġ", "ACG"],
    "the ACGTTT": [*"the", "Ġ", "ACG", "TTT"],
    "ATGNAA": [*"ATGNAA"],
    "atgé": [*"atg", "Ã", "©"],
    "<|endoftext|>ATG": ["<|endoftext|>", "ATG"],
    "": [],
}


@pytest.mark.parametrize("text", TEXTS)
def test_dna_is_codons_and_all_else_bytes(text: str) -> None:
    tokenizer = codon_level()
    ids = tokenizer.encode(text)
    assert [tokenizer.token(id) for id in ids] == TEXTS[text]
    assert tokenizer.decode(ids, skip_special=False) == text
    assert tokenizer.vocab_size == 256 + 64 + 1


def test_a_pair_is_as_many_codons_as_residues(tmp_path: Path) -> None:
    save_tokenizer(codon_level(), tmp_path)
    ours, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert ours.fingerprint == codon_level().fingerprint
    encoder = Encoder(ours, 90, separator="|")
    for number in range(50):
        gene = Genes(seed=9)[number]
        row = encoder.text(gene.dna, gene.protein)
        residues = len(gene.protein)
        assert len(row.ids) == 2 * residues + 1
        assert row.ids == theirs(gene.dna)["input_ids"] + theirs("|" + gene.protein)["input_ids"]


def test_a_bpe_without_words_merges_beyond_blanks_and_keeps_the_text() -> None:
    texts = ["to be or not to be " * 80, "", "ATGATG" * 700]
    words, unsplit = train_bpe(texts, 300), train_bpe(texts, 300, split_words=False)
    assert not any("Ġ" in token[1:] for token in words.vocabulary)
    assert any("Ġ" in token[1:-1] for token in unsplit.vocabulary)
    for text in texts:
        assert unsplit.decode(unsplit.encode(text)) == text
    assert unsplit.fingerprint == train_bpe(texts, 300, split_words=False).fingerprint
