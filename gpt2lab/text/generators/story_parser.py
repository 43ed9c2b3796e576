"""The inverse of TinyWorld: reads a story back into sentences, references and facts, exactly.

Grammar is the share of sentences that some template of the variant could have produced. Consistency is the
share of later references (names, toy, colour, gender) equal to the first mention of the same thing. Both are
1 on the generator's own stories, whatever the seed; `tests/text/generators` asserts it. After the offline
grader of the reduced-scale study of tinystories.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from gpt2lab.base.errors import unknown
from gpt2lab.text.generators import nested
from gpt2lab.text.generators.stories import (
    COLOURS,
    GENDER_OF,
    NAMES,
    OBJECTS,
    PLACES,
    PRONOUNS,
    STANDARD_ENDINGS,
    VARIANTS,
    AnyFacts,
    BindingFacts,
    Ending,
    Facts,
    Gender,
    NestedFacts,
    Variant,
    templates,
)

KINDS = ("hero", "friend", "object", "colour", "pronoun", "binding", "agreement")
"""What a reference can be; `place` is checked too, and reported beside these, not in them."""

_GENDER_WORDS = frozenset(word for forms in PRONOUNS.values() for word in forms.values())
_REFERENCE_WORDS: dict[Variant, frozenset[str]] = {
    "standard": frozenset({*NAMES, *OBJECTS, *COLOURS, *_GENDER_WORDS}),
    "binding": frozenset({*NAMES, *OBJECTS, *COLOURS, *PLACES}),
    "nested": nested.words(),
}
_CHILD_SLOTS = {"hero", "friend", "child", "child_a", "child_b"}


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence read back: which template made it (None if no template can have) and what fills it."""

    words: tuple[str, ...]
    template: str | None
    slots: tuple[tuple[str, str], ...]
    """(slot, word) pairs in the order they stand."""

    @property
    def accepted(self) -> bool:
        """Whether the generating grammar has this sentence."""
        return self.template is not None


@dataclass(frozen=True, slots=True)
class Reference:
    """A later mention of something already introduced, and whether it agrees with the first mention."""

    kind: str
    word: str
    expected: str | None
    """The word that would have been right; None where nothing was introduced or the sentence is refused."""

    @property
    def right(self) -> bool:
        """Whether the mention equals the first one."""
        return self.word == self.expected


@dataclass(frozen=True, slots=True)
class Reading:
    """A story read back. Shares over many stories are pooled with `grammar`, `consistency`, `binding`."""

    variant: Variant
    sentences: tuple[Sentence, ...]
    references: tuple[Reference, ...]
    """Those that count towards consistency (towards binding: kind "binding")."""
    places: tuple[Reference, ...]
    """Later mentions of the meeting place (standard variant), reported apart."""

    @property
    def legal(self) -> bool:
        """Whether the events come in the order of the world, with one ending and two different children."""
        groups = templates(self.variant)
        if len(self.sentences) != len(groups):
            return False
        ordered = all(
            sentence.template in group for sentence, group in zip(self.sentences, groups, strict=True)
        )
        return ordered and (self.variant != "standard" or (self.ending != "none" and self._two_children()))

    @property
    def ending(self) -> Ending:
        """The ending that both last sentences belong to, else "none"."""
        last = [sentence.template for sentence in self.sentences[-2:]]
        for ending, groups in STANDARD_ENDINGS.items():
            if len(last) == 2 and last[0] in groups[0] and last[1] in groups[1]:
                return ending
        return "none"

    def _two_children(self) -> bool:
        names = _first_mentions(self.sentences)
        return names.get("hero") != names.get("friend")


def read(text: str, *, variant: Variant = "standard") -> Reading:
    """Read one story: words separated by blanks, sentences closed by "."; any text is accepted.

    A sentence without its full stop is refused by the grammar; a text without words is one refused sentence.
    Each word of a refused sentence that names, colours or points counts as a wrong reference, at least one a
    sentence: what cannot be read refers to nothing, and the consistency of gibberish must not be 1.
    """
    if variant not in VARIANTS:
        raise unknown("TinyWorld variant", str(variant), VARIANTS)
    sentences = tuple(_match(words, variant) for words in _split(text))
    if variant == "standard":
        return Reading(variant, sentences, *_standard_references(sentences))
    found = _binding_references(sentences) if variant == "binding" else _agreements(sentences)
    return Reading(variant, sentences, tuple(found), ())


def facts(reading: Reading) -> AnyFacts | None:
    """Return what a legal, consistent story says, as the generator's facts; None for any other."""
    wrong = any(not reference.right for reference in (*reading.references, *reading.places))
    if wrong or not reading.legal:
        return None
    if reading.variant == "binding":
        child, place, thing, colour = (
            _pair(reading, slot) for slot in ("child", "place", "object", "colour")
        )
        return BindingFacts(
            ((child[0], place[0]), (child[1], place[1])), ((thing[0], colour[0]), (thing[1], colour[1]))
        )
    if reading.variant == "nested":
        agreements = (nested.agreements(sentence.slots) for sentence in reading.sentences)
        return NestedFacts(tuple(one for each in agreements for one in each))
    first = _first_mentions(reading.sentences)
    return Facts(
        hero=first["hero"],
        gender=GENDER_OF[first["hero"]],
        friend=first["friend"],
        friend_gender=GENDER_OF[first["friend"]],
        colour=first["colour"],
        object=first["object"],
        home=first.get("home"),
        place=first["place"],
        ending=reading.ending,
    )


def grammar(readings: Iterable[Reading]) -> float:
    """Return the share of sentences, pooled over stories, that the grammar accepts; nan of nothing."""
    return _share(sentence.accepted for reading in readings for sentence in reading.sentences)


def consistency(readings: Iterable[Reading]) -> float:
    """Return the share of later references, pooled over stories, that are right; nan of nothing."""
    return _share(reference.right for reading in readings for reference in reading.references)


def consistency_by_kind(readings: Iterable[Reading]) -> dict[str, float]:
    """Return the same share for each kind of reference that occurs in accepted sentences, and for places."""
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for reading in readings:
        for reference in (*reading.references, *reading.places):
            outcomes[reference.kind].append(reference.right)
    outcomes.pop("refused", None)
    return {kind: _share(outcomes[kind]) for kind in (*KINDS, "place") if kind in outcomes}


def binding(readings: Iterable[Reading]) -> float:
    """Return the share of pairs told later (child, place) or (toy, colour) that were introduced together.

    Binding variant; a pair whose first word was never introduced is wrong; choosing blindly between the two
    introduced partners gives 0.5. nan if no such pair was told.
    """
    return _share(
        reference.right
        for reading in readings
        for reference in reading.references
        if reference.kind == "binding"
    )


def plot(readings: Iterable[Reading]) -> float:
    """Return the share of stories whose events come in a legal order; nan of nothing."""
    return _share(reading.legal for reading in readings)


def _share(outcomes: Iterable[bool]) -> float:
    values = list(outcomes)
    return sum(values) / len(values) if values else float("nan")


def _split(text: str) -> list[tuple[str, ...]]:
    sentences: list[tuple[str, ...]] = []
    words: list[str] = []
    for word in text.split():
        words.append(word)
        if word == ".":
            sentences.append(tuple(words))
            words = []
    if words or not sentences:
        sentences.append(tuple(words))
    return sentences


@cache
def _patterns(variant: Variant) -> dict[int, list[tuple[str, tuple[str, ...]]]]:
    """Return the templates by number of words: a sentence is compared with three or four, not with all."""
    by_length: dict[int, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    for template in dict.fromkeys(text for group in templates(variant) for text in group):
        words = tuple(template.split())
        by_length[len(words)].append((template, words))
    return by_length


def _match(words: tuple[str, ...], variant: Variant) -> Sentence:
    for template, pattern in _patterns(variant).get(len(words), []):
        slots = []
        for word, part in zip(words, pattern, strict=True):
            if part[0] != "{":
                if word != part:
                    break
            elif word in _lexicon(part[1:-1]):
                slots.append((part[1:-1], word))
            else:
                break
        else:
            if variant != "nested" or nested.agree(slots):
                return Sentence(words, template, tuple(slots))
    return Sentence(words, None, ())


@cache
def _lexicon(slot: str) -> frozenset[str]:
    if slot in _CHILD_SLOTS:
        return frozenset(NAMES)
    if (form := _form(slot)) is not None:
        return frozenset(forms[form] for forms in PRONOUNS.values())
    if (known := nested.lexicon(slot)) is not None:
        return known
    lexicons: Mapping[str, tuple[str, ...]] = {
        "colour": COLOURS,
        "object": OBJECTS,
        "place": PLACES,
        "home": PLACES,
    }
    return frozenset(lexicons[slot.split("_")[0]])


def _form(slot: str) -> str | None:
    """Return the form (boy, he, him, his) a gendered slot asks for, None for any other slot."""
    form = slot.removeprefix("friend_")
    return form if form in PRONOUNS["boy"] else None


def _refused(sentence: Sentence, variant: Variant) -> Iterator[Reference]:
    mentions = [word for word in sentence.words if word in _REFERENCE_WORDS[variant]]
    yield from (Reference("refused", word, None) for word in mentions or [""])


def _first_mentions(sentences: Iterable[Sentence]) -> dict[str, str]:
    first: dict[str, str] = {}
    for sentence in sentences:
        for slot, word in sentence.slots:
            first.setdefault(slot, word)
    return first


def _standard_references(
    sentences: Iterable[Sentence],
) -> tuple[tuple[Reference, ...], tuple[Reference, ...]]:
    first: dict[str, str] = {}
    genders: dict[str, Gender] = {}
    references: list[Reference] = []
    places: list[Reference] = []
    for sentence in sentences:
        if not sentence.accepted:
            references.extend(_refused(sentence, "standard"))
        # names first: in "a little girl named N" the name says who she is, and "girl" must agree with it
        for slot, word in sorted(sentence.slots, key=lambda pair: pair[0] not in _CHILD_SLOTS):
            who = "friend" if slot.startswith("friend") else "hero"
            form = _form(slot)
            if form is not None and who in genders:
                references.append(Reference("pronoun", word, PRONOUNS[genders[who]][form]))
            elif form is not None:
                genders[who] = "girl" if word in PRONOUNS["girl"].values() else "boy"
            elif slot not in first:
                first[slot] = word
                if slot in _CHILD_SLOTS:
                    genders.setdefault(who, GENDER_OF[word])
            elif slot == "place":
                places.append(Reference("place", word, first[slot]))
            else:
                references.append(Reference(slot, word, first[slot]))
    return tuple(references), tuple(places)


def _pair(reading: Reading, slot: str) -> tuple[str, str]:
    first = _first_mentions(reading.sentences)
    return first[f"{slot}_a"], first[f"{slot}_b"]


def _binding_references(sentences: Iterable[Sentence]) -> Iterator[Reference]:
    partners: dict[str, list[str]] = defaultdict(list)
    for sentence in sentences:
        if not sentence.accepted:
            yield from _refused(sentence, "binding")
            continue
        if any(slot.endswith("_a") for slot, _ in sentence.slots):
            for letter in "ab":
                first, second = (word for slot, word in sentence.slots if slot.endswith(f"_{letter}"))
                partners[first].append(second)
                partners[second].append(first)
        elif sentence.slots:
            (slot, given), (_, told) = sentence.slots
            yield Reference("hero" if slot == "child" else slot, given, given if given in partners else None)
            right = partners.get(given, [])
            yield Reference("binding", told, told if told in right else next(iter(right), None))


def _agreements(sentences: Iterable[Sentence]) -> Iterator[Reference]:
    """The verbs of accepted sentences, all of them right: the grammar refuses any other."""
    for sentence in sentences:
        if not sentence.accepted:
            yield from _refused(sentence, "nested")
        for agreement in nested.agreements(sentence.slots):
            yield from (Reference("agreement", word, word) for word in agreement[1:])
