"""Generated emergency-room notes in a telegraphic French, for demonstrations: real phrases, invented patients.

A traumatic note has a mechanism, an injury and its treatment, another one a complaint, findings and a plan. What makes
counting words hard: 30 % of the other notes deny a trauma ("pas de notion de traumatisme"), histories mention old fractures
and accidents in both classes, sections that say nothing stand in both, words are misspelt (4 to 10 % of a note's), 15 % of
the notes are in capitals and half of the others in small letters. Note i is a pure function of the seed and i.
"""

import datetime
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from gpt2lab.base.errors import LabError

PREVALENCE = 1 / 3
AMBIGUOUS = 0.25
"""How often each section that says nothing of the class is there."""
_DENIED, _CAPITALS, _SMALL = 0.30, 0.15, 0.5

SLOTS: dict[str, tuple[str, ...]] = {
    "n": ("2", "3", "4", "5", "6", "8", "10"),
    "p": (
        "main dte", "main gche", "poignet", "cheville", "genou", "epaule", "coude", "pied", "doigt", "face", "crane",
        "hanche", "avant-bras", "orteil", "thorax",
    ),
    "z": ("abdo", "thoracique", "lombaire", "FID", "epigastrique", "pelvienne", "mollet", "flanc"),
    "s": ("foot", "rugby", "judo", "basket", "ski", "hand", "tennis"),
    "o": ("escabeau", "echelle", "velo", "toit", "lit", "cheval", "table", "portail", "escalier", "tabouret"),
    "l": ("escaliers", "douche", "rue", "jardin", "cour d'ecole", "couloir EHPAD"),
    "v": ("VL", "scooter", "velo", "moto", "pieton", "trottinette"),
    "a": ("couteau", "cutter", "marteau", "scie", "verre casse", "tondeuse"),
    "q": ("au repos", "a l'effort", "cette nuit", "ce matin", "apres repas", "au travail"),
    "h": ("HTA", "diabete", "0", "asthme", "AVC", "tabac", "PTH", "depression", "appendicectomie",
          "fracture poignet 2012", "AVP ancien"),
    "b": ("chien", "chat", "rat"),
    "w": ("huile", "eau bouillante", "fer", "four"),
    "y": ("seul", "avec sa mere", "avec collegue", "en ambulance"),
    "m": ("med traitant", "SAMU", "pompiers", "EHPAD"),
    "t": ("kardegic", "metformine", "0"),
    "r": ("0", "penicilline"),
    "f": ("38.5", "39", "40"),
    "c": ("convulsive", "d'asthme", "de goutte"),
    "d": ("dte", "gche"),
}  # fmt: skip
"""What a slot `{p}` of a phrase may hold."""

FRAME = ("adresse par {m}", "vient {y}", "atcd {h}", "ttt {t}", "allergie {r}")
TRAUMA = (
    "chute de {o}", "chute dans {l}", "chute de sa hauteur", "AVP {v}", "coup de {a}", "s'est coupe avec {a}",
    "a recu {o} sur {p}", "torsion {p} en jouant au {s}", "choc {p} contre {o}", "morsure de {b} {p}",
    "brulure {p} avec {w}", "ecrasement {p} par {o}", "rixe, coups {p}", "CE oeil", "CE {p}", "retrouve au sol",
)  # fmt: skip
INJURY = (
    "plaie {p} {n} cm", "oedeme {p}", "hematome {p}", "deformation {p}", "impotence fonctionnelle", "pas de deficit",
    "dermabrasions", "PC +", "PC -",
)  # fmt: skip
REPAIR = (
    "radio {p}", "suture {n} points", "attelle", "platre", "SAT VAT", "pansement", "avis ortho", "RAD, antalgiques",
)  # fmt: skip
COMPLAINT = (
    "douleur {z} depuis {n} j", "fievre {f}", "dyspnee {q}", "vomissements x{n}", "malaise {q}", "cephalees {q}",
    "palpitations", "toux", "diarrhee", "AEG", "crise {c}", "RAU", "eruption", "vertiges", "metrorragies", "angoisse",
    "idees noires", "IMV",
)  # fmt: skip
FINDINGS = (
    "TA normale", "sat normale", "abdomen souple", "crepitants base {d}", "BU +", "BU -", "ECG sinusal", "OMI",
    "sibilants",
)  # fmt: skip
PLAN = (
    "bilan bio", "scanner", "ATB", "troponine neg", "hospit medecine", "aerosol", "avis cardio", "O2", "surveillance",
    "RAD",
)  # fmt: skip
DENIALS = ("pas de notion de traumatisme", "pas de chute", "pas de trauma cranien", "nie tout choc")
EITHER = (
    "douleur {p}", "gene a la marche", "refait le pst", "pas de sd inflammatoire", "examen normal par ailleurs",
    "EVA {n}", "surveillance", "antalgiques, RAD", "qq heures",
)  # fmt: skip
_SLOT = re.compile(r"\{(\w)\}")


def rows(size: int, seed: int = 0, *, ambiguous: float = AMBIGUOUS) -> Iterator[dict[str, Any]]:
    """Yield notes as rows with id, date, text and label (1: traumatic). LabError for numbers that make no sense."""
    if min(size, seed) < 0 or not 0 <= ambiguous <= 1:
        raise LabError(
            f"french notes: size and seed must not be negative and ambiguous in [0, 1], got {size}, {seed}, {ambiguous}"
        )
    for number in range(size):
        draw = random.Random(f"french notes {seed} {number}")
        label = int(draw.random() < PREVALENCE)
        text = _misspelt(_note(label, ambiguous, draw), draw)
        kind = draw.random()
        if kind < _CAPITALS:
            text = text.upper()
        elif kind < _CAPITALS + (1 - _CAPITALS) * _SMALL:
            text = text.lower()
        date = datetime.date(2024, 1, 1) + datetime.timedelta(days=draw.randrange(730))
        yield {"id": f"{seed}-{number}", "date": str(date), "text": text, "label": label}


def _note(label: int, ambiguous: float, draw: random.Random) -> str:
    """Write a note of a class, its sections between full stops."""
    sections = [f"{draw.choice('HF')} {draw.randrange(1, 96)} ans"]
    sections += [_filled(phrase, draw) for phrase in FRAME if draw.random() < 0.5]
    reasons, found, done = (TRAUMA, INJURY, REPAIR) if label else (COMPLAINT, FINDINGS, PLAN)
    sections += _some(reasons, 1, 2, draw)
    if not label and draw.random() < _DENIED:
        sections += _some(DENIALS, 1, 1, draw)
    sections += _some(found, 0, 2, draw) + _some(done, 0, 2, draw)
    for _ in range(3):
        if draw.random() < ambiguous:
            sections.insert(draw.randrange(1, len(sections) + 1), _some(EITHER, 1, 1, draw)[0])
    return ". ".join(sections)


def _some(phrases: Sequence[str], least: int, most: int, draw: random.Random) -> list[str]:
    """Return `least` to `most` different phrases with their slots filled."""
    return [_filled(phrase, draw) for phrase in draw.sample(phrases, draw.randint(least, most))]


def _filled(phrase: str, draw: random.Random) -> str:
    return _SLOT.sub(lambda slot: draw.choice(SLOTS[slot[1]]), phrase)


def _misspelt(text: str, draw: random.Random) -> str:
    """Drop a letter of 4 to 10 % of the words, or swap two neighbours; words of up to three letters stay."""
    share = draw.uniform(0.04, 0.10)
    words = text.split(" ")
    for place, word in enumerate(words):
        if len(word) > 3 and draw.random() < share:
            at = draw.randrange(1, len(word) - 1)
            swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            words[place] = word[:at] + word[at + 1 :] if draw.random() < 0.5 else swapped
    return " ".join(words)
