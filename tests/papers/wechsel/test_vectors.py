"""Dictionaries, alignment, token vectors and mixing, against slow references and by hand."""

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.papers.wechsel.alignment import align
from gpt2lab.papers.wechsel.dictionary import expanded, identical_words, read_dictionary
from gpt2lab.papers.wechsel.mixing import mixed_rows, mixture, random_rows
from gpt2lab.papers.wechsel.subwords import chosen_mode, frequency_vectors, ngram_vectors, token_vectors
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.text.vector_files import SubwordVectors, subword_hash
from gpt2lab.text.word_vectors import WordVectors
from tests.papers.wechsel import reference

DRAW = np.random.default_rng(0)
WORDS = ("house", "House", "dog", "cat", "mouse", "tree")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(["the house of the dog, the cat and the mouse; House, tree and dog"] * 4, 290)


def vectors(words: tuple[str, ...], size: int = 3, *, counted: bool = True) -> WordVectors:
    rows = DRAW.standard_normal((len(words), size))
    return WordVectors(words, rows, tuple(range(3, 3 + len(words))) if counted else None)


def subwords(words: tuple[str, ...], shortest: int = 5, longest: int = 5) -> SubwordVectors:
    rows = DRAW.standard_normal((len(words) + 40, 3)).astype(np.float32)
    return SubwordVectors(words, rows, 40, shortest, longest, tuple(range(len(words), 0, -1)))


def test_a_dictionary_is_read_from_tabs_or_blanks_and_other_lines_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "d.tsv"
    file.write_bytes(
        "\ufeffdog\tchien\n\ncat chat\r\nnew york\tnew york\tx\nalone\none two three\n\tx\n".encode()
    )
    found = read_dictionary(file)
    assert found.pairs == [("dog", "chien"), ("cat", "chat"), ("new york", "new york")]
    assert found.skipped == (5, 6, 7)
    for content, reason in ((b"alone\n", "holds no pair"), (b"\xff\n", "not UTF-8 .byte 0")):
        file.write_bytes(content)
        with pytest.raises(LabError, match=reason):
            read_dictionary(file)
    with pytest.raises(LabError, match="cannot be read"):
        read_dictionary(tmp_path / "none")


def test_pairs_are_expanded_by_case_on_both_sides_and_repetitions_stay() -> None:
    source, target = vectors(("dog", "Dog")), vectors(("hund", "Hund", "HUND"))
    for pair in (("dog", "Hund"), ("DOG", "HUND"), ("dog", "katze")):
        slow = [
            (a, b)
            for a, b in itertools.product(reference.cases(pair[0]), reference.cases(pair[1]))
            if a in source.words and b in target.words
        ]
        assert list(expanded([pair], source, target)) == slow
    assert len(list(expanded([("dog", "hund")], source, target))) == 9  # (dog, dog, Dog) x (hund, hund, Hund)
    assert identical_words(vectors(WORDS), vectors(("tree", "dog", "x"))) == [
        ("dog", "dog"),
        ("tree", "tree"),
    ]


def test_the_rotation_is_that_of_the_expanded_pairs_with_their_repetitions() -> None:
    source, target = vectors(WORDS), vectors(("maison", "Maison", "chien", "chat", "souris", "arbre"))
    pairs = [("house", "maison"), ("House", "Maison"), ("dog", "chien"), ("cat", "chat"), ("tree", "arbre")]
    used = list(expanded(pairs, source, target))
    rotation, report = align(source, target, pairs, held_out=0)
    slow = reference.rotation([(source[a], target[b]) for a, b in used])
    np.testing.assert_allclose(rotation, slow, atol=1e-10)
    once = reference.rotation([(source[a], target[b]) for a, b in dict.fromkeys(used)])
    assert np.abs(slow - once).max() > 1e-3, "repetitions matter"
    a, b = (np.stack([side[pair[i]] for pair in used]) for i, side in enumerate((source, target)))
    assert report.residual == pytest.approx(np.linalg.norm(a @ slow - b) / np.linalg.norm(b))
    assert (report.pairs_given, report.pairs_used, report.tested) == (5, len(used), 0)


def test_translation_is_judged_on_words_that_the_rotation_has_not_seen() -> None:
    words = tuple(f"w{i}" for i in range(120))
    source = vectors(words, 6)
    hidden = np.linalg.qr(DRAW.standard_normal((6, 6)))[0]
    hidden[:, 0] *= -np.sign(np.linalg.det(hidden))  # a reflection
    other = tuple(f"v{i}" for i in range(120))
    target = WordVectors(other, 2 * source.vectors @ hidden)
    pairs = [(f"w{i}", f"v{i}") for i in range(120)]
    rotation, report = align(source, target, pairs)
    np.testing.assert_allclose(rotation, hidden, atol=1e-10)
    assert np.linalg.det(rotation) == pytest.approx(-1)
    assert 3 <= report.tested <= 30 and report.precision_at_1 == 1.0 == report.precision_at_10
    # w5 has two translations, of which one is right; w6 has none that is
    _, given = align(source, target, pairs[:40], test=[("w5", "v7"), ("w5", "v5"), ("w6", "v99")])
    assert given.tested == 2 and given.precision_at_1 == 0.5
    _, few = align(source, target, pairs[:40], test=[("w90", "v90")], candidates=50)
    assert few.tested == 0 and np.isnan(few.precision_at_1)
    noise = WordVectors(other, DRAW.standard_normal((120, 6)))
    with pytest.warns(UserWarning, match=r"translates 0.0% of \d+ words"):
        align(source, noise, pairs[:60], test=[(f"w{i}", f"v{119 - i}") for i in range(60, 75)])


def test_alignments_that_cannot_be_are_refused_and_undetermined_ones_warned_of() -> None:
    source, target = vectors(WORDS), vectors(("maison", "chien"))
    with pytest.warns(UserWarning, match="2 usable pairs for vectors of 3"):
        align(vectors(("HOUSE",)), vectors(("M",)), [("HOUSE", "M")])
    for pairs, other, reason in (
        ([], target, "dictionary is empty"),
        ([("x", "y")], target, "no pair of the dictionary has a vector on both sides"),
        ([("dog", "chien")], vectors(("chien",), 4), "3 and 4 numbers"),
        ([("dog", "chien")], WordVectors(("chien",), np.full((1, 3), np.nan)), "finite"),
    ):
        with pytest.raises(LabError, match=reason):
            align(source, other, pairs)
    with pytest.raises(LabError, match="held_out"):
        align(source, target, [("dog", "chien")], held_out=1.0)


def test_a_tokens_ngram_vector_is_that_of_its_stripped_text(tokenizer: Tokenizer) -> None:
    known = subwords(WORDS)
    found = ngram_vectors(tokenizer, known)
    for id in range(tokenizer.vocab_size):
        text = tokenizer.decode([id], skip_special=False).strip()
        marked = f"<{text}>"
        rows = [known.rows[WORDS.index(text)]] if text in WORDS else []
        rows += [known.rows[6 + subword_hash(marked[i : i + 5]) % 40] for i in range(len(marked) - 4)]
        slow = np.mean(np.array(rows, dtype=np.float64), 0) if rows else np.zeros(3)
        np.testing.assert_allclose(found[id], slow, atol=1e-7)
    the, dog, blank = (tokenizer.id(token) for token in ("Ġthe", "Ġdog", "Ġ"))
    assert not found[blank].any() and found[the].any() and found[dog].any()
    with pytest.raises(LabError, match="n-gram mode needs vectors with n-grams"):
        token_vectors(tokenizer, vectors(WORDS), "ngrams")
    assert (
        chosen_mode("auto", known, known) == "ngrams"
        and chosen_mode("auto", known, vectors(WORDS)) == "frequency"
    )
    assert chosen_mode("frequency", known, known) == "frequency"


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("most", [None, 4])
def test_a_tokens_frequency_vector_is_the_weighed_mean_of_the_words_that_hold_it(
    tokenizer: Tokenizer, counted: bool, most: int | None
) -> None:
    known = vectors(WORDS, counted=counted)
    counts = known.counts or tuple(range(len(WORDS), 0, -1))
    used = WORDS[:most]
    words = {word: (counts[i], known.vectors[i]) for i, word in enumerate(used)}
    tokens_of = {form: tokenizer.encode(form) for word in used for form in (word, " " + word)}
    assert any(len(ids) > 1 for ids in tokens_of.values())
    slow = reference.by_frequency(tokenizer.vocab_size, words, tokens_of, 3)
    np.testing.assert_allclose(frequency_vectors(tokenizer, known, max_words=most), slow, atol=1e-12)
    assert 0 < (slow.any(1)).sum() < tokenizer.vocab_size
    with pytest.raises(LabError, match="not finite"):
        token_vectors(tokenizer, WordVectors(("dog",), np.full((1, 3), np.inf)), "frequency")


def spaces() -> tuple[np.ndarray, np.ndarray]:
    source, target = DRAW.standard_normal((30, 4)), DRAW.standard_normal((11, 4))
    source[7] = source[3]  # exact ties
    source[20] = source[3]
    source[5] = 0
    target[2] = source[3]
    target[4] = 0
    return source, target


@pytest.mark.parametrize(("k", "tau"), [(1, 0.1), (2, 1.0), (10, 0.1), (30, 0.05)])
def test_rows_are_softmax_means_of_the_nearest_and_fall_back_to_the_drawn_ones(k: int, tau: float) -> None:
    source, target = spaces()
    table = torch.tensor(DRAW.standard_normal((30, 5)))
    found = mixture(source, target, k=k, tau=tau)
    drawn = np.random.RandomState(4).normal(table.numpy().mean(0), table.numpy().std(0), size=(11, 5))
    rows, shares = reference.mixed(source, target, table.numpy(), k, tau, drawn)
    np.testing.assert_allclose(mixed_rows(table, found, seed=4).numpy(), rows, atol=1e-10)
    for token, parts in enumerate(shares):
        if parts:
            assert found.sources[token].tolist() == [source for source, _ in parts]
            np.testing.assert_allclose(found.weights[token], [weight for _, weight in parts], atol=1e-12)
    assert found.found.tolist() == [token != 4 for token in range(11)]
    assert found.sources[2][:3].tolist() == [3, 7, 20][:k], "of equals the lower id first"
    assert not found.weights[4].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_rows_have_the_tables_type_and_a_small_temperature_does_not_overflow(dtype: torch.dtype) -> None:
    source, target = spaces()
    table = torch.tensor(DRAW.standard_normal((30, 5))).to(dtype)
    rows = mixed_rows(table, mixture(source, target, k=3, tau=1e-4), seed=0)
    assert rows.dtype is dtype and bool(rows.isfinite().all())
    bias = mixed_rows(table[:, 0], mixture(source, target, k=3, tau=0.1), seed=0)
    assert bias.shape == (11,) and bias.dtype is dtype
    many = random_rows(table, 20_000, seed=1)
    wide = table.double()
    np.testing.assert_allclose(many.mean(0), wide.mean(0), atol=0.05)
    np.testing.assert_allclose(many.std(0), wide.std(0, correction=0), atol=0.05)
    assert torch.equal(random_rows(table, 7, seed=1), many[:7])


def test_mixtures_that_cannot_be_are_refused() -> None:
    source, target = spaces()
    for changed, reason in (
        ({"k": 0}, "k 0"), ({"k": 31}, "1 to 30"), ({"tau": 0.0}, "above 0"), ({"tau": float("nan")}, "above 0"),
    ):  # fmt: skip
        with pytest.raises(LabError, match=reason):
            mixture(source, target, **changed)
    with pytest.raises(LabError, match="different sizes"):
        mixture(source, target[:, :3])
    with pytest.raises(LabError, match="not finite"):
        mixture(source, np.where(target == 0, np.nan, target))
    with pytest.raises(LabError, match="the table has 9 rows"), warnings.catch_warnings():
        mixed_rows(torch.ones(9, 2), mixture(source, target), seed=0)
