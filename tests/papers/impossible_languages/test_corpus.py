"""Annotated files, the generator with its ground truth, rules for plain text, and corpora written to a folder."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.base.json_files import json_sha256
from gpt2lab.cli import main
from gpt2lab.papers.impossible_languages.annotations import annotated_sentences, features
from gpt2lab.papers.impossible_languages.corpus import sentences_of, write_corpus
from gpt2lab.papers.impossible_languages.generator import annotated, plural_of, vocabulary
from gpt2lab.papers.impossible_languages.hops import is_affected_verb, word_hops_complete
from gpt2lab.papers.impossible_languages.perturbing import perturb
from gpt2lab.papers.impossible_languages.tagger import split_sentences, split_words, tag_approximately
from gpt2lab.papers.impossible_languages.vocabulary import read_ids
from gpt2lab.text.manifests import read_manifest
from gpt2lab.text.tokenizer import byte_level
from gpt2lab.text.tokenizer_files import load_tokenizer

CONLLU = """\
# sent_id = 1
# text = He doesn't sing.
1\tHe\the\tPRON\tPRP\tCase=Nom|Number=Sing|Person=3\t4\tnsubj\t_\t_
2-3\tdoesn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdoes\tdo\tAUX\tVBZ\tMood=Ind|Number=Sing|Person=3|Tense=Pres|VerbForm=Fin\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\tPolarity=Neg\t4\tadvmod\t_\t_
4\tsing\tsing\tVERB\tVB\tVerbForm=Inf\t0\troot\t_\tSpaceAfter=No
4.1\tsing\tsing\tVERB\tVB\t_\t_\t_\t_\t_
5\t.\t_\tPUNCT\t.\t_\t4\tpunct\t_\t_

1\tGo\tgo\tVERB\tVB\t_\t0\troot\t_\tSpaceAfter=No
2\t!\t!\tPUNCT\t.\t_\t1\tpunct\t_\t_
"""
PRESENT = "Number=Sing|Person=3|Tense=Pres|VerbForm=Fin"
AUTHORS = [
    {
        "sent_annotations": [
            {
                "sent_text": "It is.", "constituency_parse": "(ROOT (S (NP (PRP It)) (VP (VBZ is)) (. .)))",
                "word_annotations": [
                    {"id": 1, "text": "It", "lemma": "it", "upos": "PRON", "feats": None},
                    {"id": 2, "text": "is", "lemma": "be", "upos": "AUX", "feats": PRESENT},
                    {"id": 3, "text": ".", "lemma": None, "upos": "PUNCT", "feats": None},
                ],
            },
            {"sent_text": "Ah", "constituency_parse": None, "word_annotations": [{"text": "Ah", "lemma": "ah"}]},
        ]
    }
]  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_conllu_gives_syntactic_words_with_lemma_and_features(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("a.conllu.gz" if packed else "a.conllu")
    path.write_bytes(gzip.compress(CONLLU.encode()) if packed else CONLLU.encode())
    first, second = annotated_sentences(path)
    assert first.text == "He doesn't sing." and [word.text for word in first.words] == [
        "He",
        "does",
        "n't",
        "sing",
        ".",
    ]
    assert [is_affected_verb(word) for word in first.words] == [False, True, False, False, False]
    assert (first.words[1].lemma, first.words[4].lemma) == ("do", None)
    assert first.words[1].feature("Number") == "Sing" and first.words[3].tag == "VERB"
    assert second.text == "Go!"


@pytest.mark.parametrize("lines", [False, True])
def test_the_authors_json_gives_words_parses_and_failed_parses(tmp_path: Path, lines: bool) -> None:
    path = tmp_path / ("a.jsonl" if lines else "a.json")
    path.write_text("\n".join(map(json.dumps, AUTHORS)) if lines else json.dumps(AUTHORS))
    first, second = annotated_sentences(path)
    assert first.parsed and first.parse.startswith("(ROOT") and first.words[2].lemma is None
    assert is_affected_verb(first.words[1]) and not second.parsed and second.parse == ""
    assert len(list(sentences_of([str(path)], annotated=True))) == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.conllu", "1\tHe\the\n", "10 columns"),
        ("a.conllu", "x" + "\ta" * 9, "numbers the word"),
        ("a.conllu", CONLLU.replace("Polarity=Neg", "Polarity"), "line 6: features are"),
        ("a.conllu", "", "no sentence"),
        ("a.json", "{}", "expected a JSON list"),
        ("a.json", '[{"sent_text": "x"}]', "entry 0: a sentence has"),
        ("a.json", '[{"sent_text": "x", "word_annotations": [{"text": 3}]}]', "object with a text"),
        ("a.json", '[{"sent_text": "x", "word_annotations": [{"text": "x", "feats": 3}]}]', "feats of"),
        ("a.txt", "x", "ends in .conllu"),
    ],
)
def test_a_file_that_is_not_annotated_so_is_refused_with_its_place(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(LabError, match=words):
        list(annotated_sentences(path))


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu"
    path.write_bytes(b"# text = \xff\n")
    with pytest.raises(LabError, match="line 1"):
        list(annotated_sentences(path))


def test_generated_sentences_are_what_their_annotation_says() -> None:
    made = annotated(3, 2000)
    assert made == annotated(3, 2500)[:2000] and made != annotated(4, 2000)
    known = set(vocabulary())
    for one in made:
        words = one.sentence.words
        verb = next(i for i, word in enumerate(words) if word.tag == "VERB")
        assert {word.text for word in words} <= known and words[-1].text == "."
        assert is_affected_verb(words[verb]) == one.present
        assert words[verb].feature("Number") == ("Plur" if one.plural else "Sing")
        if one.present:
            assert (words[verb].text == words[verb].lemma) == one.plural
            assert word_hops_complete(one.sentence, 4)
        subject = next(word.text for word in words[:verb] if plural_of(word.text) or word.text in _PLURALS)
        assert (subject in _PLURALS) == one.plural
        assert 5 <= sum(word.text not in ",." for word in words[verb + 1 :]) <= 12
    for share, wanted in (("plural", 0.5), ("present", 0.5), ("attractor", 0.3)):
        assert abs(sum(getattr(one, share) for one in made) / len(made) - wanted) < 0.04
    with pytest.raises(LabError):
        annotated(0, 0)


_PLURALS = {plural_of(word) for word in vocabulary() if plural_of(word)}


def test_plain_text_is_cut_into_sentences_and_tagged_by_rules() -> None:
    text = 'He said: "Go!" She\nwent.  Mr. X? yes. “So.” It rains'
    assert list(split_sentences(text)) == [
        'He said: "Go!"',
        "She went.",
        "Mr.",
        "X? yes.",
        "“So.”",
        "It rains",
    ]
    assert split_words("He doesn't see it’s fine, they'll") == [
        "He", "does", "n't", "see", "it", "'s", "fine", ",", "they", "'ll",
    ]  # fmt: skip
    found = tag_approximately("He knows the dogs want it, and they are here but the cat sees cats.")
    verbs = [(w.text, w.lemma, w.feature("Number")) for w in found.words if is_affected_verb(w)]
    assert verbs == [
        ("knows", "know", "Sing"), ("want", "want", "Plur"), ("are", "be", "Plur"), ("sees", "see", "Sing"),
    ]  # fmt: skip
    assert not any(map(is_affected_verb, tag_approximately("I see you. The works of man.").words))


def test_a_corpus_holds_the_same_sentences_as_tokens_and_as_ids(tmp_path: Path) -> None:
    out = tmp_path / "hop"
    manifest = write_corpus("hop_words4", ["agreement:120:7"], byte_level(), out, test=40, seed=3).manifest
    assert manifest == read_manifest(out)
    counts = manifest["sentences"]
    assert isinstance(counts, dict)
    assert sum(counts["test"].values()) == 40 and sum(counts["train"].values()) == 80
    tokens, plain = load_tokenizer(out / "tokens"), load_tokenizer(out / "tokenizer")
    for part in ("train", "test", "unaffected"):
        rows = [json.loads(line)["text"] for line in (out / f"{part}.jsonl").read_text().splitlines()]
        ids = read_ids((out / f"{part}.ids").read_text().splitlines(), part)
        assert tokens.encode_batch(rows) == ids
        assert all((257 in one or 258 in one) == (part == "test") for one in ids if part != "train")
    assert manifest["sha256"]["train"] == json_sha256(
        read_ids((out / "train.ids").read_text().splitlines(), "")
    )  # type: ignore[index]
    assert plain.encode("see 🅂 it") == [*b"see", 257, *b" it"] and plain.vocab_size == 259
    again = write_corpus("hop_words4", ["agreement:120:7"], byte_level(), out, test=40, seed=3)
    assert again.manifest == manifest  # takes the place of the old one


@pytest.mark.parametrize("name", ["reverse_partial", "shuffle_nondeterministic"])
def test_the_random_state_begins_anew_in_each_part(name: str, tmp_path: Path) -> None:
    write_corpus(name, ["tinyworld:20"], byte_level(), tmp_path / "out", test=20)
    rule = perturb(name, load_tokenizer(tmp_path / "out" / "tokenizer"))
    whole = list(sentences_of(["tinyworld:20"], annotated=False))
    held_out = sorted(np.random.default_rng(0).permutation(len(whole)).tolist()[-20:])
    ids = read_ids((tmp_path / "out" / "test.ids").read_text().splitlines(), "test")
    assert ids == [rule(whole[place]) for place in held_out]
    assert rule.corpus(whole).evaluation() == rule.corpus(whole).evaluation()


def test_another_seed_holds_out_others_and_a_language_does_not_depend_on_it(tmp_path: Path) -> None:
    files = []
    for seed in (0, 1):
        write_corpus(
            "shuffle_control", ["tinyworld:20"], byte_level(), tmp_path / str(seed), test=20, seed=seed
        )
        files.append(
            [(tmp_path / str(seed) / f"{part}.ids").read_text().splitlines() for part in ("train", "test")]
        )
    assert files[0][1] != files[1][1]
    assert sorted(files[0][0] + files[0][1]) == sorted(files[1][0] + files[1][1])


@pytest.mark.parametrize(
    ("language", "data", "changed", "words"),
    [
        ("hop_control", "tinyworld:20", {}, "need words with lemma"),
        ("shuffle_control", "tinyworld:1", {"test": 400}, "held out of"),
        ("shuffle_control", "nosuch.txt", {}, "no such file"),
        ("hop_control", "agreement:20:x", {}, "expected agreement:SIZE:SEED"),
        ("hop_control", "tinyworld:20", {"approximate": True, "test": 3}, "no sentence is left"),
    ],
)
def test_a_corpus_that_cannot_be_made_is_refused_and_leaves_nothing(
    tmp_path: Path, language: str, data: str, changed: dict[str, object], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        write_corpus(language, [data], byte_level(), tmp_path / "out", **{"test": 10, **changed})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(LabError, match="no corpus of a language"):
        write_corpus("shuffle_control", ["tinyworld:20"], byte_level(), tmp_path, test=5)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_ids_of_a_file_are_read_and_anything_else_is_refused() -> None:
    assert read_ids(["1 2", "", " 30 "], "x") == [[1, 2], [30]]
    with pytest.raises(LabError, match=r"line 2.*'-3'"):
        read_ids(["1", "2 -3"], "x")


def test_the_verb_writes_a_corpus_and_answers_mistakes_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["write", "impossible-language", "--data", "tinyworld:30", "--vocab-size", "280", "--test", "20"]
    assert main([*words, "--language", "shuffle_local3", "--out", str(tmp_path / "a"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    manifest = read_manifest(tmp_path / "a")
    assert {name: printed[name] for name in manifest} == manifest
    for wrong, sentence in (
        (["--language", "shuffle_lokal3"], "did you mean"),
        (["--language", "shuffle_local3", "--test", "many"], "test must be a whole number"),
        ([], "language"),
    ):
        assert main([*words, *wrong, "--out", str(tmp_path / "b")]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_features_are_read_and_broken_ones_refused() -> None:
    assert features("A=b|C=d") == (("A", "b"), ("C", "d")) and features("_") == features("") == ()
    with pytest.raises(LabError, match="Name=Value"):
        features("A=")
