"""Where the numbers of a report come from: the processes that computed them, and the data that they read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpt2lab.base.settings import show
from gpt2lab.base.wording import count, listed, number
from gpt2lab.runs.provenance import Facts as Known
from gpt2lab.runs.provenance import Origins, Provenance, origins
from gpt2lab.runs.report.document import Block, DataTable, Fact, Facts, Prose, Section
from gpt2lab.runs.run_record import RunRecord

_FEW = 4  # runs that are named; of more the number is said
_OF_A_PROCESS = ("threads",)  # differs between the process that judges and those that compute, as it should


def provenance_section(run: RunRecord, pieces: Sequence[RunRecord] = ()) -> Section:
    """Return the section of a run or, given its pieces, of a study: then what they were computed in, and who judged."""
    names = {piece.id: piece.id.partition("/")[2] for piece in pieces}
    units = {names[piece.id]: piece.provenance for piece in pieces} or {"": run.provenance}
    found = origins(units)
    blocks: list[Block | Section] = [
        Facts("", [Fact(name, show(value) or "none") for name, value in found.common.items()])
    ]
    if found.differing:
        blocks += [
            Prose("The units were not all computed alike:", strong=True),
            DataTable("", [{**_shown(facts), "units": _names(who)} for facts, who in found.differing]),
        ]
    if pieces and (elsewhere := _elsewhere(run.provenance, found)):
        blocks.append(Prose(f"Judged and written elsewhere, or by other code: {_words(elsewhere)}."))
    if found.data:
        blocks.append(DataTable("Data that was read", list(_data(found, alone=not pieces))))
    return Section("Environment", blocks, folded=True)


def _data(found: Origins, alone: bool) -> Iterable[dict[str, Any]]:
    for data, who in found.data:
        row = {
            "source": data.name,
            "documents": data.documents,
            "size": f"{number(data.size)} {data.unit}",
            "sha256": data.sha256[:16],
        }
        yield row if alone else {**row, "read by": _names(who)}


def _elsewhere(judged: Provenance, found: Origins) -> dict[str, object]:
    """Return what the process that judged last does not share with all those that computed."""
    return {
        name: value
        for name, value in judged.latest.items()
        if name not in _OF_A_PROCESS and (name not in found.common or found.common[name] != value)
    }


def _shown(facts: Known) -> dict[str, str]:
    return {name: show(value) for name, value in facts.items()}


def _words(facts: Mapping[str, object]) -> str:
    return listed([f"{name} {show(value)}" for name, value in facts.items()])


def _names(runs: Sequence[str]) -> str:
    return listed(runs) if len(runs) <= _FEW else count(len(runs), "unit")
