"""Four synthetic recall tasks in which a pause stands at a place that matters, each with a solver that verifies it.

The paper gives the tasks in words; the strings are ours. Words are lower case, digits and letters tokens of their own.
An example is a pure function of its generator, and `solve` finds the answer from the prompt alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt2lab.base.errors import LabError, unknown

PAUSE = "_PAUSE_"
"""The pause, which is the meta-token of a model that has one."""
_ONSETS = ("b br d dr f fl g gr h k kl l m", "n p pl r s sl st t tr v w z")
_RIMES = ("ab ag al am an ard ek el en er", "id il in irt ob ol on ort ug um")
WORDS = tuple(onset + rime for onset in " ".join(_ONSETS).split() for rime in " ".join(_RIMES).split())
"""500 words without a meaning."""
_NAMES = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_SIGNS = (
    "List",
    ":",
    ".",
    "Bits",
    "[",
    "]",
    "Q:",
    "item",
    "of",
    "?",
    "A:",
    "count",
    "between",
    "pauses",
    "parity",
    "copy",
)
_DIGITS = tuple("0123456789")
_FEW = 3
"""Different words in the lists of segment counting, so that some occur several times."""


@dataclass(frozen=True)
class Example:
    """One question with its answer, as words."""

    task: str
    prompt: tuple[str, ...]
    answer: tuple[str, ...]

    @property
    def pauses(self) -> tuple[int, ...]:
        """Places of the pauses in the prompt."""
        return tuple(place for place, word in enumerate(self.prompt) if word == PAUSE)

    def without_pauses(self) -> "Example":
        """Return the same question without pauses, for a baseline that never sees one."""
        return Example(self.task, tuple(word for word in self.prompt if word != PAUSE), self.answer)

    def text(self, pause: str = PAUSE) -> str:
        """Return prompt and answer as one text, the pause written as `pause`."""
        return " ".join(pause if word == PAUSE else word for word in (*self.prompt, *self.answer))


def vocabulary(words: int = len(WORDS)) -> list[str]:
    """Return all words of the tasks, the first `words` of the list of words among them; without the pause."""
    if not 2 <= words <= len(WORDS):
        raise LabError(f"words must lie in 2 to {len(WORDS)}, got {words}")
    return [*_SIGNS, *_NAMES, *_DIGITS, *WORDS[:words]]


def draw(
    task: str, generator: np.random.Generator, shortest: int, longest: int, *, words: int = len(WORDS)
) -> Example:
    """Draw an example whose prompt has `shortest` to `longest` words, pauses and question included.

    LabError for an unknown task, or lengths that the task cannot have.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    if not SHORTEST <= shortest <= longest:
        raise LabError(f"{task}: prompts have at least {SHORTEST} words; got {shortest} to {longest}")
    for _ in range(200):
        made = TASKS[task](generator, int(generator.integers(shortest, longest + 1)), WORDS[:words])
        if shortest <= len(made.prompt) <= longest:
            return made
    raise LabError(f"{task}: no prompt of {shortest} to {longest} words was found; widen the range")


def list_recall(generator: np.random.Generator, length: int, words: Sequence[str]) -> Example:
    """Item j of a named list; a pause closes the list that is asked for."""
    items = int(generator.integers(3, max(4, min(9, length // 8)) + 1))
    lists = min(len(_NAMES), max(2, (length - 10) // (items + 4)))
    items = max(items, (length - 10) // lists - 4)
    names, asked = _named(generator, lists), int(generator.integers(lists))
    prompt: list[str] = []
    item = int(generator.integers(items))
    for index, name in enumerate(names):
        held = _drawn(generator, words, items)
        prompt += ["List", name, ":", *held, *([PAUSE] if index == asked else []), "."]
        if index == asked:
            answer = held[item]
    prompt += ["Q:", "item", *str(item + 1), "of", "List", names[asked], "?", "A:"]
    return Example("list-recall", tuple(prompt), (answer,))


def segment_counting(generator: np.random.Generator, length: int, words: Sequence[str]) -> Example:
    """How often a word occurs between two pauses that stand in one of the lists."""
    words = _drawn(generator, words, min(_FEW, len(words)), different=True)
    lists = int(generator.integers(1, max(1, min(4, length // 24)) + 1))
    items = max(3, (length - 9) // lists - 4)
    names, chosen, prompt = _named(generator, lists), int(generator.integers(lists)), list[str]()
    asked = str(generator.choice(words))
    for index, name in enumerate(names):
        held = _drawn(generator, words, items)
        if index == chosen:
            first, last = sorted(generator.choice(items + 1, size=2, replace=False).tolist())
            count = held[first:last].count(asked)
            held = [*held[:first], PAUSE, *held[first:last], PAUSE, *held[last:]]
        prompt += ["List", name, ":", *held, "."]
    prompt += ["Q:", "count", asked, "between", "pauses", "?", "A:"]
    return Example("segment-counting", tuple(prompt), tuple(str(count)))


def parity(generator: np.random.Generator, length: int, words: Sequence[str]) -> Example:
    """The exclusive or of the bits before the pause."""
    bits = [str(bit) for bit in generator.integers(0, 2, size=max(2, length - 7))]
    place = int(generator.integers(1, len(bits)))
    prompt = ("Bits", ":", *bits[:place], PAUSE, *bits[place:], "Q:", "parity", "?", "A:")
    return Example("parity", prompt, (str(bits[:place].count("1") % 2),))


def copying(generator: np.random.Generator, length: int, words: Sequence[str]) -> Example:
    """The words of a bracketed span, whose two ends are pauses."""
    text = _drawn(generator, words, max(3, length - 8))
    span = int(generator.integers(1, max(1, len(text) // 3) + 1))
    first = int(generator.integers(0, len(text) - span + 1))
    copied = text[first : first + span]
    inside = ["[", PAUSE, *copied, PAUSE, "]"]
    prompt = (*text[:first], *inside, *text[first + span :], "Q:", "copy", "?", "A:")
    return Example("copying", prompt, tuple(copied))


TASKS = {
    "list-recall": list_recall,
    "segment-counting": segment_counting,
    "parity": parity,
    "copying": copying,
}
SHORTEST = 24
"""Words of the shortest prompt that every task can have."""


def solve(task: str, prompt: Sequence[str]) -> tuple[str, ...]:
    """Return the answer of a prompt with pauses, found from its words alone. LabError for a prompt of another form."""
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    words = list(prompt)
    try:
        question = len(words) - 1 - words[::-1].index("Q:")
        before, asked = words[:question], words[question + 1 :]
        if task == "list-recall":
            number = int("".join(asked[1 : asked.index("of")]))
            return (_lists(before)[asked[asked.index("List") + 1]][number - 1],)
        first = before.index(PAUSE)
        if task == "parity":
            return (str(sum(word == "1" for word in before[:first]) % 2),)
        span = before[first + 1 : before.index(PAUSE, first + 1)]
        return tuple(span) if task == "copying" else tuple(str(span.count(asked[1])))
    except (ValueError, IndexError, KeyError) as error:
        raise LabError(f"{task}: not a prompt of this task ({' '.join(words[:8])} …)") from error


def verify(example: Example) -> bool:
    """Say whether an example's answer is that of its prompt."""
    return solve(example.task, example.prompt) == example.answer


def _lists(words: Sequence[str]) -> dict[str, list[str]]:
    """The named lists of a prompt, without pauses."""
    found: dict[str, list[str]] = {}
    name = ""
    for place, word in enumerate(words):
        if place and words[place - 1] == "List":
            name = word
            found[name] = []
        elif name and word not in ("List", ":", ".", PAUSE):
            found[name].append(word)
    return found


def _named(generator: np.random.Generator, count: int) -> list[str]:
    return [str(name) for name in generator.choice(_NAMES, size=count, replace=False)]


def _drawn(
    generator: np.random.Generator, words: Sequence[str], count: int, *, different: bool = False
) -> list[str]:
    return [words[place] for place in generator.choice(len(words), size=count, replace=not different)]
