"""Generated emergency-room notes: their ground truth, the levels, the control, the French surface."""

from collections import Counter
from itertools import pairwise
from statistics import fmean

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text.generators import french_notes
from gpt2lab.text.generators.clinical_notes import LEVELS, ClinicalNotes, Note
from gpt2lab.text.records import records

FRAME = {"homme", "femme", "ans", "atcd", "pour", "examen", "conduite"}


def kinds(world: ClinicalNotes, note: Note) -> list[str]:
    """What each cue of a note is a word of: its class, the other class, its cause, another cause."""
    words = note.text.split()
    pour, examen, conduite = (words.index(word) for word in ("pour", "examen", "conduite"))
    found = []
    for word in words[pour + 1 : examen] + words[examen + 2 : conduite]:
        of_class = [c for c, own in enumerate(world.class_words) if word in own]
        of_cause = [c for c, own in enumerate(world.cause_words) if word in own]
        assert len(of_class) + len(of_cause) == 1, word
        mine = of_class == [note.label] or of_cause == [note.cause]
        found.append(("class" if of_class else "cause") + (" of the note" if mine else " of another"))
    return found


@pytest.mark.parametrize("level", list(LEVELS))
def test_cues_are_of_the_note_s_class_or_cause_as_often_as_the_level_says(level: str) -> None:
    world = ClinicalNotes(level=level)
    ambiguity, cues = LEVELS[level]
    notes = list(world.notes(3000, seed=5))
    counts = Counter(kind for note in notes for kind in kinds(world, note))
    n = counts.total()
    assert n == cues * len(notes)
    expected = {
        "class of the note": 0.6 * (1 - ambiguity / 2),
        "class of another": 0.6 * ambiguity / 2,
        "cause of the note": 0.4 * (1 - ambiguity * 23 / 24),
    }
    for kind, share in expected.items():
        assert abs(counts[kind] - n * share) < 5 * (n * share * (1 - share)) ** 0.5, kind
    assert all(world.class_of[note.cause] == note.label for note in notes)
    assert abs(fmean(note.label for note in notes) - 1 / 3) < 0.04
    assert world.class_of.sum() == 8
    words = {word for note in notes for word in note.text.split()} - FRAME
    assert {word for word in words if not word.isdecimal()} <= set(world.words)


def test_words_are_drawn_by_their_rank() -> None:
    world = ClinicalNotes(align=1.0, level="easy")
    words = Counter(word for note in world.notes(4000) for word in note.text.split())
    for own in world.class_words:
        first, last = (sum(words[word] for word in own[start : start + 50]) for start in (0, 350))
        wanted = sum(r**-0.6 for r in range(1, 51)) / sum(r**-0.6 for r in range(351, 401))
        assert abs(first / last / wanted - 1) < 0.15
    assert words[world.shared_words[0]] > 3 * words[world.shared_words[20]]


def test_the_control_has_no_word_of_a_class() -> None:
    rows = [row for _, row in records("clinical-notes-unaligned:400:2")]
    world = ClinicalNotes(align=0.0, causes=60)
    of_classes = {word for own in world.class_words for word in own}
    assert not any(of_classes & set(row["text"].split()) for row in rows)
    assert {row["label"] for row in rows} == {0, 1} and len({row["cause"] for row in rows}) > 50


def test_a_note_depends_on_world_seed_and_number_alone() -> None:
    world = ClinicalNotes()
    few, many = list(world.notes(20, 3)), list(world.notes(1200, 3))
    assert many[:20] == few and list(world.notes(30, 3, first=490)) == many[490:520]
    assert [row for _, row in records("clinical-notes:20:3")] == [note.row() for note in few]
    assert list(world.notes(20, 4)) != few
    other = next(iter(ClinicalNotes(world=1).notes(1, 3)))
    assert not set(other.text.split()) - FRAME <= set(world.words)
    assert [row["text"] for _, row in records("clinical-notes:1:3:1")] == [other.text]
    assert len({note.id for note in many}) == 1200


def test_french_notes_have_their_traps_in_both_classes() -> None:
    rows = list(french_notes.rows(3000, 1))
    assert rows[:5] == list(french_notes.rows(5, 1)) != list(french_notes.rows(5, 2))
    small = [(row["text"].lower(), row["label"]) for row in rows]
    other = [text for text, label in small if not label]
    denied = sum(
        any(word in text for word in ("notion", "pas de chute", "cranien", "nie tout")) for text in other
    )
    assert 0.22 < denied / len(other) < 0.34  # 30 %, less what is misspelt
    for words in ("avp ancien", "fracture poignet 2012", "examen normal"):
        shares = [fmean(words in text for text, label in small if label == one) for one in (0, 1)]
        assert min(shares) > 0.01, words
    capitals = fmean(row["text"].isupper() for row in rows)
    assert 0.12 < capitals < 0.18
    assert 0.3 < fmean(row["label"] for row in rows) < 0.37
    assert all("{" not in row["text"] for row in rows)


def test_misspelt_words_lose_a_letter_or_swap_two() -> None:
    known = {
        word.lower()
        for part in (
            french_notes.FRAME, french_notes.TRAUMA, french_notes.INJURY, french_notes.REPAIR, french_notes.COMPLAINT,
            french_notes.FINDINGS, french_notes.PLAN, french_notes.DENIALS, french_notes.EITHER,
            *french_notes.SLOTS.values(),
        )
        for phrase in part
        for word in phrase.replace(",", " ").split()
    }  # fmt: skip
    words = [
        word.lower()
        for row in french_notes.rows(400, 9)
        for word in row["text"].replace(".", " ").replace(",", " ").split()
    ]
    wrong = [
        word for word in words if len(word) > 3 and word.isalpha() and word not in known and word != "ans"
    ]
    made = {
        one for word in known for one in (*(word[:i] + word[i + 1 :] for i in range(len(word))),
        *(word[:i] + b + a + word[i + 2 :] for i, (a, b) in enumerate(pairwise(word))))
    }  # fmt: skip
    assert 0.01 < len(wrong) / len(words) < 0.08
    assert set(wrong) <= made


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"level": "medum"}, "did you mean medium"),
        ({"align": 1.5}, "align must lie in"),
        ({"prevalence": 0.0}, "prevalence in"),
        ({"causes": 2}, "3 causes or more"),
        ({"world": -1}, "world of 0 or more"),
    ],
)
def test_worlds_that_make_no_sense_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(LabError, match=words):
        ClinicalNotes(**wrong)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(LabError, match="must not be negative"):
        next(ClinicalNotes().notes(3, -1))
    with pytest.raises(LabError, match="must not be negative"):
        next(french_notes.rows(-1))
