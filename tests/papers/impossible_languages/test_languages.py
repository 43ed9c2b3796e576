"""The languages: the paper's own examples, permutations that are pinned, hops against a reference on text, one's own."""

import random

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.impossible_languages.annotations import Sentence, Word, features
from gpt2lab.papers.impossible_languages.generator import annotated
from gpt2lab.papers.impossible_languages.hops import hop_tokens, hop_words, word_hops_complete
from gpt2lab.papers.impossible_languages.languages import (
    NAMES,
    Language,
    P,
    S,
    language,
    shuffle_all,
    shuffle_local,
)
from gpt2lab.papers.impossible_languages.perturbing import perturb
from gpt2lab.papers.impossible_languages.vocabulary import spell, spelled, with_markers
from gpt2lab.text.tokenizer import Tokenizer, byte_level, train_bpe, word_level
from tests.papers.impossible_languages import reference

TOKENS = [1544, 20658, 465, 845, 24097, 3835, 258, 1652, 13]
"""He cleans his very messy bookshelf. in GPT-2's vocabulary."""
SPELLED = ["He", "cleans", "his", "very", "messy", "books", "he", "lf", "."]


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    text = " ".join(one.sentence.text for one in annotated(5, 300))
    return train_bpe([text, "He doesn't. They've it's I'm we'll you're 1984 (so) “odd” . . ,"], 400)


@pytest.mark.parametrize(
    ("name", "surface"),
    [
        ("shuffle_control", "He cleans his very messy books he lf ."),
        ("shuffle_deterministic21", "cleans He messy books he lf very . his"),
        ("shuffle_deterministic57", "cleans his He messy . he very lf books"),
        ("shuffle_deterministic84", "He messy . lf his very books cleans he"),
        ("shuffle_local3", "his He cleans books very messy . he lf"),
        ("shuffle_local5", "his messy very He cleans lf books he ."),
        ("shuffle_even_odd", "He his messy he . cleans very books lf"),
    ],
)
def test_the_examples_of_table_1_come_out(name: str, surface: str) -> None:
    shown = [SPELLED[TOKENS.index(token)] for token in perturb(name)(TOKENS)]
    assert " ".join(shown) == surface


def test_permutations_are_pinned_whatever_numpy_does_later() -> None:
    assert shuffle_all(range(12), seed=21) == [7, 8, 5, 4, 1, 0, 10, 6, 9, 3, 11, 2]
    assert shuffle_local(range(11), window=5) == [2, 4, 3, 0, 1, 7, 9, 8, 5, 6, 10]
    for length in (1, 2, 350):
        as_array = np.arange(length)
        np.random.default_rng(57).shuffle(as_array)
        assert shuffle_all(range(length), seed=57) == as_array.tolist()


def test_a_random_shuffle_carries_its_state_and_begins_with_that_of_a_window_of_ten() -> None:
    rule = perturb("shuffle_nondeterministic")
    first, second = rule(TOKENS), rule(TOKENS)
    assert first != second and sorted(first) == sorted(second) == sorted(TOKENS)
    assert first == perturb("shuffle_local10")(TOKENS)
    again = perturb("shuffle_nondeterministic")
    assert [again(TOKENS), again(TOKENS)] == [first, second]


def test_the_marker_of_reversal_stands_at_the_same_place_in_all_three() -> None:
    rules = [perturb(f"reverse_{kind}", first_marker=50257) for kind in ("control", "partial", "full")]
    generator = np.random.default_rng(21)
    for length in (1, 9, 4, 30):
        tokens = list(range(100, 100 + length))
        control, partial, full = (rule(tokens) for rule in rules)
        place = int(generator.choice(length + 1))
        assert control == [*tokens[:place], 50257, *tokens[place:]]
        assert partial == [*tokens[:place], 50257, *tokens[place:][::-1]]
        assert full == control[::-1]


VERB = "Person=3|Tense=Pres|VerbForm=Fin|Number="


def sentence(text: str, verbs: dict[str, tuple[str, str]]) -> Sentence:
    words = [
        Word(word, verbs[word][0], features(VERB + verbs[word][1]))
        if word in verbs
        else Word(word, word.lower())
        for word in text.split()
    ]
    return Sentence(text, tuple(words))


@pytest.mark.parametrize(
    ("text", "verb", "lemma", "number", "surface"),
    [
        ("He cleans his very messy bookshelf .", "cleans", "clean", "Sing", f"He clean his very messy bookshelf {S} ."),
        (
            "The girl keeps a small green frog in her pocket .", "keeps", "keep", "Sing",
            f"The girl keep a small green frog {S} in her pocket .",
        ),
        ("It rains , however , all day here .", "rains", "rain", "Sing", f"It rain , however , all day here {S} ."),
        ("They see him .", "see", "see", "Plur", f"They see him {P} ."),
    ],
)  # fmt: skip
def test_the_published_surfaces_of_word_hop_come_out(
    text: str, verb: str, lemma: str, number: str, surface: str
) -> None:
    given = sentence(text, {verb: (lemma, number)})
    tokenizer = word_level([text + " " + lemma], punctuation=False)
    ours = with_markers(tokenizer, language("hop_words4"))
    ids = perturb("hop_words4", ours, first_marker=tokenizer.vocab_size)(given)
    assert [ours.token(id) for id in ids] == surface.split()
    assert word_hops_complete(given, 4) == ("see" not in text)


def random_rows(draw: random.Random) -> list[reference.Row]:
    """Sentences that no grammar makes: verbs, clitics and punctuation everywhere."""
    rows: list[reference.Row] = []
    for _ in range(draw.randint(1, 14)):
        kind = draw.random()
        if kind < 0.25:
            rows.append(("sees", "see", draw.choice(["Sing", "Plur"])))
        elif kind < 0.4:
            rows.append((draw.choice(reference.CLITICS), "x", ""))
        elif kind < 0.6:
            rows.append((draw.choice([".", ",", "...", "(", "“"]), "x", ""))
        else:
            rows.append((draw.choice(["dog", "boat", "slowly", "1984", "the"]), "x", ""))
    return rows


@pytest.mark.parametrize("k", [0, 1, 4])
def test_hops_are_those_of_a_reference_on_text(bpe: Tokenizer, k: int) -> None:
    ours = with_markers(bpe, language("hop_words4"))
    ids = {"Sing": bpe.vocab_size, "Plur": bpe.vocab_size + 1}
    draw = random.Random(k)
    for _ in range(400):
        rows = random_rows(draw)
        words = tuple(
            Word(text, lemma, features(VERB + number) if number else ()) for text, lemma, number in rows
        )
        given = Sentence("", words)
        text, complete = reference.word_hop_text(rows, k, {"Sing": S, "Plur": P})
        found = hop_words(given, bpe.encode, tuple(ids.values()), k)
        assert found == ours.encode(text), rows  # the whole text at once, markers in it
        assert word_hops_complete(given, k) == (bool(complete) and all(complete))
        expected = reference.token_hop(rows, k, bpe.encode, ids)
        assert hop_tokens(given, bpe.encode, tuple(ids.values()), k) == expected, rows


def test_the_hop_family_shares_sentences_and_differs_in_the_place_of_the_marker_only(bpe: Tokenizer) -> None:
    given = [one.sentence for one in annotated(1, 200)]
    found = {name: perturb(name, bpe).corpus(given) for name in ("hop_control", "hop_tokens4", "hop_words4")}
    for one in found.values():
        assert one.counts == found["hop_control"].counts
        assert [index for index, _ in one.affected] == [index for index, _ in found["hop_control"].affected]
    markers = {bpe.vocab_size, bpe.vocab_size + 1}
    texts = [
        [bpe.decode([t for t in ids if t not in markers]) for _, ids in one.affected]
        for one in found.values()
    ]
    assert texts[0] == texts[1] == texts[2]
    for _, ids in found["hop_tokens4"].affected:
        assert sum(token in markers for token in ids) == 1


def test_a_sentence_with_one_incomplete_hop_is_filtered_and_one_whose_parse_failed_is_unaffected() -> None:
    verbs = {"sees": ("see", "Sing"), "likes": ("like", "Sing")}
    long, short = sentence("he sees the big red dog", verbs), sentence("he sees the big dog he likes", verbs)
    failed = Sentence(long.text, long.words, parsed=False)
    found = perturb("hop_tokens4", byte_level()).corpus([long, short, failed, sentence("so be it", verbs)])
    assert found.counts == {"affected": 1, "unaffected": 2, "short": 0, "filtered": 1}
    assert found.unaffected[0][1].count(257) == 1  # the authors' code moves its marker all the same


def test_the_shuffle_family_keeps_sentences_of_2_to_350_tokens_and_dropped_ones_take_random_numbers() -> None:
    given = [[1], list(range(351)), list(range(350)), [4, 5, 6]]
    found = perturb("shuffle_nondeterministic").corpus(given)
    assert found.counts == {"affected": 2, "unaffected": 0, "short": 1, "filtered": 1}
    rule = perturb("shuffle_nondeterministic")
    assert [rule(ids) for ids in given][2:] == [ids for _, ids in found.affected]
    assert (
        perturb("reverse_full", first_marker=9).corpus([[7]]).counts["short"] == 1
    )  # its marker does not count


def test_markers_of_a_vocabulary_are_found_one_by_one() -> None:
    other_way_round = word_level(["see the dog 🄿 🅂 x"], punctuation=False)
    ids = perturb("hop_control", other_way_round).coding.markers
    assert ids == (other_way_round.id("🅂"), other_way_round.id("🄿")) and ids[0] > ids[1]  # type: ignore[operator]  # both are there


def test_a_number_at_the_end_of_a_name_makes_a_language_of_ones_own() -> None:
    assert perturb("shuffle-local4")(range(8)) == [2, 0, 1, 3, 6, 4, 5, 7]
    assert perturb("shuffle_local2")(range(5)) == [0, 1, 2, 3, 4]  # two tokens stay as they are under seed 0
    assert language("Shuffle-Deterministic7").name == "shuffle_deterministic7"
    assert len(NAMES) == len({language(name).name for name in NAMES}) == 15
    mirror = Language.of_tokens("mirror", lambda ids: ids[::-1])
    assert perturb(mirror)([1, 2, 3]) == [3, 2, 1]
    assert perturb(mirror).corpus([[1, 2], [3, 4]]).evaluation() == [[2, 1], [4, 3]]


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("shuffle_locl3", [1, 2], "did you mean shuffle_local3"),
        ("shuffle_deterministic", [1, 2], "needs its seed"),
        ("shuffle_local1", [1, 2], "at least 2 tokens"),
        ("hop_words", [1, 2], "needs a distance"),
        ("reverse_full", [1, 2], "markers need ids"),
        ("shuffle_control", "some text", "needs a tokenizer"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, given: object, words: str) -> None:
    with pytest.raises(LabError, match=words):
        perturb(name)(given)  # type: ignore[arg-type]  # wrong on purpose


def test_hop_languages_refuse_text_without_annotation_and_numbers_that_are_neither() -> None:
    rule = perturb("hop_words4", byte_level())
    with pytest.raises(LabError, match="not annotated"):
        rule("he sees it")
    with pytest.raises(LabError, match="neither Sing nor Plur"):
        rule(sentence("he sees it", {"sees": ("see", "Dual")}))


def test_spelled_sentences_come_back_as_the_same_ids(bpe: Tokenizer) -> None:
    ours = with_markers(bpe, language("hop_tokens4"))
    read = spelled(ours)
    for ids in perturb("hop_tokens4", bpe).corpus([one.sentence for one in annotated(2, 50)]).evaluation():
        assert read.encode(spell(ours, ids)) == ids
        assert read.decode(ids) == ours.decode(ids)
    assert (read.eos, read.vocab_size) == (bpe.eos, bpe.vocab_size + 2)
    assert with_markers(ours, language("hop_words4")) is ours
    with pytest.raises(LabError, match="outside"):
        spell(bpe, [bpe.vocab_size])
