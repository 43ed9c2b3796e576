"""The verdicts that come with the package: what the studies of docs/results said, for who has run none yet."""

import tomllib
from dataclasses import dataclass

from gpt2lab.base.registry import Paper
from gpt2lab.base.wording import count


@dataclass(frozen=True)
class Shipped:
    """What one published study said."""

    found: str
    """What was found, in one line."""
    scale: str
    """Scale of the study."""
    seeds: int
    """How many seeds finished."""
    took: str
    """How long it took on two cores that other work shared, as its page says: `58m54s`."""
    verdicts: dict[str, str]
    """The verdict on each claim, by its letter."""

    def __str__(self) -> str:
        return " · ".join(f"{name} {verdict}" for name, verdict in self.verdicts.items())


def shipped_verdicts(paper: Paper) -> Shipped | None:
    """Return what verdicts.toml in a paper's folder says, which scripts/publish_results.py writes; None without one."""
    path = paper.folder / "verdicts.toml"
    if not path.is_file():
        return None
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    return Shipped(found["found"], found["scale"], found["seeds"], found["took"], dict(found["verdicts"]))


def published_study(shipped: Shipped) -> str:
    """Return what a published study was and how long it took, in words."""
    seeds = count(shipped.seeds, "seed")
    return f"{shipped.scale} scale, {seeds}, which took {shipped.took} on two cores that other work shared"
