"""Who takes part in a comparison: parts by name, with options where they are to differ from the defaults."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, Any

from gpt2lab.actions.optimizer_options import refuse_options
from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.outline import part_outline
from gpt2lab.base.registry import part, parts
from gpt2lab.base.settings import build, options, parse_assignments

if TYPE_CHECKING:
    from gpt2lab.studies.study import Study


@dataclass(frozen=True)
class Entry:
    """A part with its options."""

    kind: str
    """Kind of part."""
    name: str
    """Name of the part."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Its options as they are typed; the others keep their defaults."""

    @property
    def label(self) -> str:
        """What reports call it: `sampling top_p=0.9`."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def arm(self) -> str:
        """The label as the name of an arm and of results: `sampling_top_p_0_9`."""
        return re.sub(r"\W+", "_", self.label, flags=re.ASCII)

    def load(self) -> Any:
        """Import the part. LabError if that cannot be."""
        return part(self.kind, self.name)

    def check(self) -> None:
        """LabError if the part cannot be imported, lacks one of the options, or cannot have it so."""
        if self.kind == "optimizer":
            if self.name != "adamw":  # a comparison's own, which takes options
                refuse_options(self.name, self.options)
            from gpt2lab.actions.parts import typed_options  # torch, of which a wrong name need not wait

            typed_options(self.name, self.load(), self.options)
            return
        outline = part_outline(self.kind, self.name)
        known = {option.name: option.default for option in options(outline)}
        for option in self.options:
            if option not in known:
                raise unknown(f"option of {self.name}", option, known)
        if any(default is MISSING and name not in self.options for name, default in known.items()):
            self.load()  # the comparison gives the rest, such as data
            return
        build(outline, self.options, f"{self.kind} {self.name}")
        build(self.load(), self.options, f"{self.kind} {self.name}")


def chosen_entries(kind: str, only: Sequence[str], variants: Sequence[str] = ()) -> list[Entry]:
    """Return who takes part: those named by `only`, else every built part of the kind and the usual `variants`.

    Each is written `NAME` or `NAME OPTION=VALUE ...`. LabError for a part that does not exist or is not built, and
    for two that are the same.
    """
    everyone = [one.name for one in parts(kind) if one.built] + list(variants)
    entries = [_entry(kind, words) for words in only or everyone]
    arms = [entry.arm for entry in entries]
    twice = next((entry.label for entry in entries if arms.count(entry.arm) > 1), None)
    if twice is not None:
        raise LabError(f"--only {twice}: named twice")
    for entry in entries if only else ():
        entry.check()  # whoever is asked for by name must be there; of all, one that cannot be had is left out
    return entries


def labels(entries: Sequence[Entry]) -> dict[str, str]:
    """Return arm → label."""
    return {entry.arm: entry.label for entry in entries}


def report_left_out(study: "Study", left_out: Mapping[str, str]) -> None:
    """Put who was left out, and why, into the report."""
    if left_out:
        lines = [f"{label}: {reason}" for label, reason in left_out.items()]
        study.text("left_out", "\n".join(lines), "Left out, and why")


def _entry(kind: str, words: str) -> Entry:
    name, *chosen = words.split()
    return Entry(kind, name, parse_assignments(chosen, f"--only {name}"))
