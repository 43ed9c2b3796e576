"""The study runs from end to end at its smallest scale."""

import math
from pathlib import Path

from gpt2lab.studies.study import reproduce


def test_the_study_runs_and_reports_every_number_its_claims_read(tmp_path: Path) -> None:
    """One seed gives results but no verdicts; three would."""
    study = reproduce("example-paper", scale="smoke", seeds=1, workers=1, home=tmp_path)
    assert not study.failures
    assert study.report.is_file()
    assert all(math.isfinite(value) for judged in study.claims for _, value in judged.verdict.values)
    assert all(judged.verdict.values for judged in study.claims)
