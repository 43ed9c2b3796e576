"""The verdicts that come with the package: what the studies of docs/results said, for who has run none yet."""

import tomllib
from dataclasses import dataclass

from gpt2lab.base.registry import Paper


@dataclass(frozen=True)
class Shipped:
    """What one published study said."""

    scale: str
    """Scale of the study."""
    seeds: int
    """How many seeds finished."""
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
    return Shipped(found["scale"], found["seeds"], dict(found["verdicts"]))
