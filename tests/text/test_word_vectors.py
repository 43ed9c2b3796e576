"""Word vectors against slow float64 references: counts, PPMI, SVD, fastText's files and subwords, Procrustes."""

import gzip
import itertools
import math
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.text.procrustes import align, procrustes
from gpt2lab.text.vector_files import (
    SubwordVectors,
    read_bin,
    read_vec,
    read_vectors,
    subword_hash,
    write_bin,
    write_vec,
)
from gpt2lab.text.word_vectors import (
    CountOptions,
    WordVectors,
    cooccurrences,
    count_vectors,
    shifted_ppmi,
    truncated_svd,
)

DRAW = np.random.default_rng(0)
SENTENCES = [
    [f"w{min(int(DRAW.exponential(4)), 14)}" for _ in range(DRAW.integers(1, 9))] for _ in range(120)
]


def test_counts_are_those_of_a_walk_over_all_pairs() -> None:
    words = sorted({word for sentence in SENTENCES for word in sentence if word != "w3"})
    pairs: Counter[tuple[str, str]] = Counter()
    for sentence in SENTENCES:
        kept = [word for word in sentence if word != "w3"]
        for i, j in itertools.permutations(range(len(kept)), 2):
            pairs[kept[i], kept[j]] += abs(i - j) <= 3
    found = cooccurrences(SENTENCES, words, 3)
    assert all(
        found[i, j] == pairs[one, other] for i, one in enumerate(words) for j, other in enumerate(words)
    )


def test_a_harmonic_window_counts_a_word_by_its_distance_and_keeps_how_often_each_occurs() -> None:
    words = sorted({word for sentence in SENTENCES for word in sentence})
    pairs: Counter[tuple[str, str]] = Counter()
    for sentence in SENTENCES:
        for i, j in itertools.permutations(range(len(sentence)), 2):
            pairs[sentence[i], sentence[j]] += (abs(i - j) <= 4) / abs(i - j)  # type: ignore[assignment]  # a float
    found = cooccurrences(SENTENCES, words, 4, harmonic=True)
    for (i, one), (j, other) in itertools.product(enumerate(words), repeat=2):
        assert found[i, j] == pytest.approx(pairs[one, other])
    flat, harmonic = (count_vectors(SENTENCES, CountOptions(weighting=w)) for w in ("flat", "harmonic"))
    assert not np.allclose(flat.vectors, harmonic.vectors)
    counts = Counter(word for sentence in SENTENCES for word in sentence)
    assert harmonic.counts == tuple(counts[word] for word in harmonic.words)
    with pytest.raises(LabError, match="2 words with 1 counts"):
        WordVectors(("a", "b"), np.ones((2, 2)), (3,))


@pytest.mark.parametrize(("shift", "smoothing"), [(1.0, 1.0), (5.0, 1.0), (2.0, 0.75)])
def test_shifted_ppmi_is_its_formula(shift: float, smoothing: float) -> None:
    pairs = DRAW.integers(0, 4, (7, 7)).astype(float)
    total, found = pairs.sum(), shifted_ppmi(pairs, shift=shift, smoothing=smoothing)
    context = [pairs[:, c].sum() ** smoothing for c in range(7)]
    for w, c in itertools.product(range(7), repeat=2):
        slow = 0.0
        if pairs[w, c]:
            likely = (pairs[w].sum() / total) * (context[c] / sum(context))
            slow = max(0.0, math.log(pairs[w, c] / total / likely) - math.log(shift))
        assert found[w, c] == pytest.approx(slow, abs=1e-12)


def test_vectors_are_singular_vectors_weighed_by_their_values() -> None:
    plain = count_vectors(
        SENTENCES, CountOptions(dimensions=6, eigenvalue_weight=1.0, smoothing=1.0, least=1)
    )
    matrix = shifted_ppmi(cooccurrences(SENTENCES, plain.words, 2))
    eigenvalues, eigenvectors = np.linalg.eigh(matrix @ matrix.T)
    best = eigenvectors[:, ::-1][:, :6]
    gram = best * eigenvalues[::-1][:6] @ best.T
    np.testing.assert_allclose(plain.vectors @ plain.vectors.T, gram, atol=1e-9)
    for p in (0.0, 0.5):
        weighed = count_vectors(
            SENTENCES, CountOptions(dimensions=6, eigenvalue_weight=p, smoothing=1.0, least=1)
        )
        gram = best * eigenvalues[::-1][:6] ** p @ best.T
        np.testing.assert_allclose(weighed.vectors @ weighed.vectors.T, gram, atol=1e-9)
    counts = Counter(word for sentence in SENTENCES for word in sentence)
    assert [counts[word] for word in plain.words] == sorted(counts.values(), reverse=True)


def test_the_randomised_svd_finds_what_the_exact_one_does() -> None:
    left = np.linalg.qr(DRAW.standard_normal((300, 60)))[0]
    right = np.linalg.qr(DRAW.standard_normal((200, 60)))[0]
    matrix = left * 0.9 ** np.arange(60) @ right.T
    exact, values = truncated_svd(matrix, 10, exact=True)
    found, close = truncated_svd(matrix, 10, exact=False)
    np.testing.assert_allclose(close, values, rtol=1e-10)
    np.testing.assert_allclose(found, exact, atol=1e-7)
    assert (exact[np.abs(exact).argmax(0), np.arange(10)] > 0).all()


def test_words_of_like_contexts_are_neighbours() -> None:
    animals, foods = ["cat", "dog", "cow"], ["bread", "soup", "rice"]
    draw = np.random.default_rng(1)
    text = [[str(draw.choice(animals)), "runs", "far"] for _ in range(90)]
    text += [[str(draw.choice(foods)), "tastes", "good"] for _ in range(90)]
    vectors = count_vectors(text, CountOptions(dimensions=4))
    assert {word for word, _ in vectors.neighbours("cat", 2)} == {"dog", "cow"}
    assert vectors.neighbours("soup", 1)[0][1] == pytest.approx(1.0, abs=0.05)
    assert vectors.neighbours(vectors["cat"], 1)[0] == ("cat", pytest.approx(1.0))
    assert "cat" not in dict(vectors.neighbours(vectors["cat"], 9, leave_out=["cat"]))
    with pytest.raises(LabError, match="'caat' has no vector; did you mean 'cat'"):
        vectors.neighbours("caat")
    with pytest.raises(LabError, match="has length 0"):
        vectors.neighbours(np.zeros(4))


@pytest.mark.parametrize(
    ("sentences", "options", "reason"),
    [
        ([["a"]], {}, "no word occurs 2 times"),
        ([["a"], ["a"]], {}, "no two kept words"),
        (SENTENCES, {"smoothing": 0.0}, "smoothing in"),
        (SENTENCES, {"window": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_counted_is_refused(sentences: list[list[str]], options: dict, reason: str) -> None:
    with pytest.raises(LabError, match=reason):
        count_vectors(sentences, CountOptions(**options))


def test_a_text_file_of_vectors_comes_back_to_the_bit(tmp_path: Path) -> None:
    vectors = WordVectors(("a", "é–", "東 京"), DRAW.standard_normal((3, 5)).astype(np.float32))
    write_vec(vectors, tmp_path / "x.vec")
    assert (tmp_path / "x.vec").read_text().startswith("3 5\na ")
    again = read_vec(tmp_path / "x.vec")
    assert again.words == vectors.words and np.array_equal(again.vectors, vectors.vectors)
    content = (tmp_path / "x.vec").read_bytes()
    (tmp_path / "g.txt.gz").write_bytes(
        gzip.compress(content.partition(b"\n")[2].replace("東 京".encode(), b"x"))
    )
    glove = read_vec(tmp_path / "g.txt.gz", most=2)
    assert glove.words == ("a", "é–") and np.array_equal(glove.vectors, vectors.vectors[:2])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"2 3\na 1 2 3\nb 1 2\n", "line 3: expected a word and 3 numbers"),
        (b"1 3\na 1 x 3\n", "line 2: expected a word and 3 numbers"),
        (b"1 2\na 1 nan\n", "line 2: a number is not finite"),
        (b"4000000 4000000\na 1\n", "line 1: 4,000,000 words of 4,000,000 numbers"),
        (b"\xff 1 2\n", "line 1: not UTF-8"),
        (b"", "no vectors there"),
        (b"a\n", "expected a word"),
    ],
)
def test_a_damaged_file_of_vectors_is_named_with_its_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "x.vec").write_bytes(content)
    with pytest.raises(LabError, match=reason):
        read_vec(tmp_path / "x.vec")


def _fasttext_bin(words: list[str], rows: NDArray[np.float32], buckets: int, minn: int, maxn: int) -> bytes:
    """Written from the published format."""
    made = struct.pack("<2i", 793712314, 12)
    made += struct.pack("<12id", rows.shape[1], 5, 5, 1, 5, 1, 2, 2, buckets, minn, maxn, 100, 1e-4)
    made += struct.pack("<3i2q", len(words) + 1, len(words), 1, 99, -1)
    for number, word in enumerate([*words, "__label__x"]):
        made += word.encode() + b"\0" + struct.pack("<qb", 9, number == len(words))
    made += struct.pack("<?2q", False, *rows.shape) + rows.astype("<f4").tobytes()
    return made + struct.pack("<?2q", False, 1, rows.shape[1]) + bytes(4 * rows.shape[1])


def test_the_hash_is_fnv_with_signed_bytes() -> None:
    assert (
        subword_hash("a") == 0xE40C292C and subword_hash("foobar") == 0xBF9CF968
    )  # FNV-1a's published values
    value = 2166136261
    for byte in struct.unpack("2b", "é".encode()):
        value = ((value ^ (byte % 2**32)) * 16777619) % 2**32
    assert subword_hash("é") == value


def test_subword_vectors_are_the_mean_of_hashed_ngrams(tmp_path: Path) -> None:
    words, buckets = ["</s>", "fox", "naïf"], 11
    rows = DRAW.standard_normal((3 + buckets, 4)).astype(np.float32)
    (tmp_path / "x.bin").write_bytes(_fasttext_bin(words, rows, buckets, 3, 4))
    found = read_bin(tmp_path / "x.bin")
    assert found.words == tuple(words)
    for word, grams in (
        ("fox", ["<fo", "<fox", "fox", "fox>", "ox>"]),
        ("naïf", ["<na", "<naï", "naï", "naïf", "aïf", "aïf>", "ïf>"]),
        ("a", ["<a>"]),
    ):
        mine = [rows[words.index(word)]] if word in words else []
        slow = np.mean([*mine, *(rows[3 + subword_hash(gram) % buckets] for gram in grams)], 0)
        np.testing.assert_allclose(found[word], slow, rtol=1e-6)
    assert np.array_equal(found["</s>"], rows[0])
    assert found.known(2).words == ("</s>", "fox") and np.array_equal(found.known()["fox"], found["fox"])
    with pytest.raises(LabError, match="too short for n-grams of 3"):
        found[""]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: b"x" + raw[1:], "no model file of fastText"),
        (lambda raw: raw[:30], "truncated"),
        (lambda raw: raw[:110], "truncated among its words|truncated"),
        (lambda raw: raw[: len(raw) - 40], "truncated"),
        (lambda raw: raw[:8] + struct.pack("<i", 9) + raw[12:], "damaged: a matrix of 5 x 4"),
    ],
)
def test_a_damaged_binary_file_is_refused(tmp_path: Path, change, reason: str) -> None:
    raw = _fasttext_bin(["a", "b"], np.ones((5, 4), np.float32), 3, 1, 2)
    (tmp_path / "x.bin").write_bytes(change(raw))
    with pytest.raises(LabError, match=reason):
        read_bin(tmp_path / "x.bin")


def test_a_written_model_file_has_the_published_bytes_and_comes_back_with_counts_and_ngrams(
    tmp_path: Path,
) -> None:
    rows = DRAW.standard_normal((2 + 7, 4)).astype(np.float32)
    vectors = SubwordVectors(("fox", "naïf"), rows, 7, 3, 5, (12, 5))
    write_bin(vectors, tmp_path / "x.bin")
    head = struct.pack("<2i12id", 793712314, 12, 4, 5, 5, 1, 5, 1, 2, 2, 7, 3, 5, 100, 1e-4)
    dictionary = struct.pack("<3i2q", 2, 2, 0, 17, -1)
    dictionary += b"fox\0" + struct.pack("<qb", 12, 0) + "naïf".encode() + b"\0" + struct.pack("<qb", 5, 0)
    matrices = (
        struct.pack("<?2q", False, 9, 4) + rows.tobytes() + struct.pack("<?2q", False, 2, 4) + bytes(32)
    )
    assert (tmp_path / "x.bin").read_bytes() == head + dictionary + matrices
    again = read_vectors(tmp_path / "x.bin")
    assert isinstance(again, SubwordVectors) and again.has_ngrams and again.counts == (12, 5)
    for word in ("fox", "naïf", "foxes"):
        assert np.array_equal(again[word], vectors[word])
    assert again.known().counts == (12, 5) and again.known(1).counts == (12,)
    counted = count_vectors(SENTENCES, CountOptions(dimensions=3))
    write_bin(counted, tmp_path / "counted.bin")
    whole = read_vectors(tmp_path / "counted.bin")
    assert isinstance(whole, SubwordVectors) and not whole.has_ngrams and whole.counts == counted.counts
    assert np.array_equal(whole.known().vectors, counted.vectors.astype(np.float32))
    with pytest.raises(LabError, match="keeps counts, and these vectors have none"):
        write_bin(WordVectors(("a",), np.ones((1, 2))), tmp_path / "none.bin")


def test_each_kind_of_file_is_read_by_what_is_in_it(tmp_path: Path) -> None:
    rows = DRAW.standard_normal((2, 3)).astype(np.float32)
    body = b"2 3\n" + b"a " + rows[0].tobytes() + b"\n" + "東".encode() + b" " + rows[1].tobytes() + b"\n"
    (tmp_path / "w2v.bin").write_bytes(body)
    found = read_vectors(tmp_path / "w2v.bin")
    assert (
        isinstance(found, WordVectors) and found.words == ("a", "東") and np.array_equal(found.vectors, rows)
    )
    write_vec(found, tmp_path / "x.vec")
    assert read_vectors(tmp_path / "x.vec").words == found.words
    for content, reason in (
        (body[:-9], "truncated at word 2 of 2"),
        (b"neither\n", "neither a model file of fastText nor vectors of word2vec"),
        (b"999999999 3\na ", "999,999,999 words"),
        (b"1 1\na " + struct.pack("<f", float("nan")), "not finite"),
    ):
        (tmp_path / "bad.bin").write_bytes(content)
        with pytest.raises(LabError, match=reason):
            read_vectors(tmp_path / "bad.bin")
    with pytest.raises(LabError, match="cannot be read"):
        read_vectors(tmp_path / "missing.vec")


@pytest.mark.parametrize("scaling", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_procrustes_finds_a_hidden_map_and_no_other_is_nearer(scaling: bool, centred: bool) -> None:
    draw = np.random.default_rng(3)
    hidden = np.linalg.qr(draw.standard_normal((5, 5)))[0]
    x = draw.standard_normal((40, 5))
    factor, moved = (2.5 if scaling else 1.0), (draw.standard_normal(5) if centred else 0.0)
    found = procrustes(x, factor * x @ hidden + moved, scaling=scaling, centred=centred)
    np.testing.assert_allclose(found.rotation, hidden, atol=1e-10)
    assert found.scale == pytest.approx(factor)
    y = x @ hidden + draw.standard_normal((40, 5))
    found = procrustes(x, y, scaling=scaling, centred=centred)
    np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(5), atol=1e-12)
    error = np.square(found(x) - y).sum()
    for _ in range(50):
        turn = np.linalg.qr(np.eye(5) + 0.1 * draw.standard_normal((5, 5)))[0]
        turn *= np.sign(np.diag(turn))
        other = found.scale * (1 + 0.1 * draw.standard_normal() * scaling)
        assert (
            np.square(other * (x - found.from_mean) @ found.rotation @ turn + found.to_mean - y).sum()
            >= error
        )


def test_two_languages_are_aligned_over_a_dictionary() -> None:
    draw = np.random.default_rng(4)
    english = WordVectors(tuple(f"e{i}" for i in range(30)), draw.standard_normal((30, 6)))
    hidden = np.linalg.qr(draw.standard_normal((6, 6)))[0]
    german = WordVectors(tuple(f"g{i}" for i in range(30)), 3 * english.vectors @ hidden)
    found = align(english, german, [(f"e{i}", f"g{i}") for i in range(12)] + [("e1", "missing")])
    for i in range(12, 30):
        assert german.neighbours(found(english[f"e{i}"]), 1)[0][0] == f"g{i}"
    with pytest.raises(LabError, match="no pair of the dictionary"):
        align(english, german, [("x", "y")])
    with pytest.raises(LabError, match="pairs of vectors of one size"):
        procrustes(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(LabError, match="not all 0 after centring"):
        procrustes(np.ones((2, 3)), np.ones((2, 3)), centred=True)
    with pytest.raises(LabError, match="finite"):
        procrustes(np.full((2, 2), np.nan), np.ones((2, 2)))
