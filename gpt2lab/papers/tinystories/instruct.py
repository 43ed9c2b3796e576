"""TinyStories-Instruct: records of an instruction and its story, read, written and made.

A record has a random subset, in random order, of the lines `Features: a, b`, `Words: w1, w2, w3`, `Summary: …`
and `Random sentence: …`, then `Story: `, a blank line and the story (Eldan and Li 2023, section 5; spelling
as in the published files). Our own records are made from TinyWorld stories, whose facts say what is true.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.text.generators.stories import Facts, Story

FIELDS = ("Features", "Words", "Summary", "Random sentence")
FEATURES = ("Dialogue", "BadEnding", "MoralValue", "Twist", "Foreshadow", "Conflict")
"""Feature tags seen in the data; the spelling of the last three is not established, so others are read too."""
STORY = "Story:"


@dataclass(frozen=True)
class Record:
    """An instruction and its story."""

    lines: tuple[tuple[str, str], ...]
    """(field, content) in the order written; fields of `FIELDS`, each at most once."""
    story: str

    def field(self, name: str) -> str | None:
        """Return the content of a field, None if the record does not have it; LabError for no such field."""
        if name not in FIELDS:
            raise unknown("field of an instruct record", name, FIELDS)
        return dict(self.lines).get(name)

    @property
    def features(self) -> tuple[str, ...]:
        """The feature tags asked for."""
        return _listed(self.field("Features"))

    @property
    def words(self) -> tuple[str, ...]:
        """The words that the story must use."""
        return _listed(self.field("Words"))

    @property
    def instruction(self) -> str:
        """The text before the story, as a prompt: it ends where the story begins."""
        return "".join(f"{name}: {content}\n" for name, content in self.lines) + f"{STORY} \n\n"

    @property
    def text(self) -> str:
        """The whole record as it stands in the files."""
        return self.instruction + self.story


def parse_record(text: str) -> Record:
    """Read one record; a line that opens no field goes on with the field before it.

    LabError without a `Story:` line, for text before the first field, and for a field that comes twice.
    """
    lines: list[tuple[str, str]] = []
    rest = text.lstrip("\r\n").splitlines(keepends=True)
    for number, line in enumerate(rest):
        if line.startswith(STORY):
            same_line = line[len(STORY) :].strip()  # some records begin on this very line
            story = same_line + "".join(rest[number + 1 :])
            return Record(tuple((name, content.rstrip()) for name, content in lines), story.strip())
        name, colon, content = line.partition(":")
        if colon and name in FIELDS:
            if any(name == other for other, _ in lines):
                raise LabError(f"instruct record has {name} twice: {text[:60]!r}")
            lines.append((name, content.strip()))
        elif lines:
            lines[-1] = (lines[-1][0], f"{lines[-1][1]}\n{line.rstrip()}")
        elif line.strip():
            raise LabError(
                f"instruct record begins with {line.strip()[:40]!r}; it may begin with {', '.join(FIELDS)} or Story"
            )
    raise LabError(f"instruct record without a line {STORY} {text[:60]!r}")


def parse_records(stories: Iterable[str]) -> Iterator[Record]:
    """Read every record of a stream such as `corpus.iterate_stories` of an Instruct file; empty ones are left out."""
    return (parse_record(text) for text in stories if text.strip())


def feature_statistics(records: Iterable[Record]) -> dict[str, int]:
    """Count records, fields and feature tags: {"records": …, "field Words": …, "feature Dialogue": …}."""
    counts: Counter[str] = Counter()
    for record in records:
        counts["records"] += 1
        counts.update(f"field {name}" for name, _ in record.lines)
        counts.update(f"feature {name}" for name in record.features)
    return dict(counts)


def without_both(records: Iterable[Record], first: str, second: str) -> Iterator[Record]:
    """Leave out records that have both fields: the paper's out-of-distribution test trains so, then asks for both."""
    return (r for r in records if r.field(first) is None or r.field(second) is None)


def instruct_records(stories: Sequence[Story], *, seed: int) -> list[Record]:
    """Make a record of each standard TinyWorld story: a random non-empty subset of fields in random order.

    Deterministic in (stories, seed), record by record. LabError for stories of another variant.
    """
    return [_instruct(story, random.Random(f"{seed} {i}")) for i, story in enumerate(stories)]


def encode_record(record: Record, encode: Callable[[str], list[int]], eos: int) -> tuple[list[int], int]:
    """Return the ids of a record (eos, instruction, story, eos) and the index of the story's first id.

    The index is `loss_from` of `SequenceBatches` for training on the story alone (an option of ours: the paper
    trains on everything). `encode` turns text into ids.
    """
    instruction = encode(record.instruction)
    return [eos, *instruction, *encode(record.story), eos], 1 + len(instruction)


def _instruct(story: Story, draw: random.Random) -> Record:
    facts = story.facts
    if not isinstance(facts, Facts):
        raise LabError("instruct records are made of standard TinyWorld stories, not of its other variants")
    sentences = [f"{sentence.strip()} ." for sentence in story.text.split(" .") if sentence.strip()]
    features = ["Dialogue", *(["BadEnding"] if facts.ending == "bad" else [])]
    words = draw.sample([facts.colour, facts.object, facts.place], 3)
    outcome = "find" if facts.ending == "good" else "can not get back"
    contents = {
        "Features": ", ".join(draw.sample(features, len(features))),
        "Words": ", ".join(words),
        "Summary": f"{facts.hero} and {facts.friend} {outcome} the {facts.colour} {facts.object} .",
        "Random sentence": draw.choice(sentences),
    }
    chosen = draw.sample(FIELDS, draw.randint(1, len(FIELDS)))  # section 5: fields of a record
    return Record(tuple((name, contents[name]) for name in chosen), story.text)


def _listed(content: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (content or "").split(",") if part.strip())
