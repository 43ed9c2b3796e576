"""What the claims of a study read, beside what its runs reported: a misspelt name else shows after hours, in a verdict."""

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import paper
from gpt2lab.studies.claim import Claim
from gpt2lab.studies.evidence import RecordedItems
from gpt2lab.studies.experiment import load_experiment
from gpt2lab.studies.expression import names_in
from gpt2lab.studies.study import Study


def unreported(study: Study) -> dict[str, list[str]]:
    """Return what each claim reads and no run of the study reported, whatever scale the claim is for."""
    run = study.runs[0]
    found = dict[str, list[str]]()
    for claim in load_experiment(paper(study.paper)).claims:
        missing = [
            name
            for expression, known in ((claim.measure, _measured(claim, study)), (claim.needs, run.results))
            if isinstance(expression, str)
            for name in names_in(expression)
            if name not in known
        ]
        for function in (claim.measure, claim.needs):
            if callable(function):
                missing += _failing(claim, function is claim.needs, run.results)
        if missing:
            found[claim.name] = missing
    return found


def _measured(claim: Claim, study: Study) -> set[str]:
    run = study.runs[0]
    return set(RecordedItems(run)) if claim.over == "items" else set(run.results)


def _failing(claim: Claim, needs: bool, results: dict[str, float]) -> list[str]:
    try:
        claim.is_testable(results) if needs else claim.value(results)
    except LabError as error:
        return [str(error)]
    return []
