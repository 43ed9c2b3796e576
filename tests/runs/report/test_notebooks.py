"""What a notebook shows of runs, studies and measurements: tables, with anybody's text as text."""

import re
from pathlib import Path

from gpt2lab.measures.measurement import Measurement
from gpt2lab.runs.run import Run
from gpt2lab.studies.study import reproduce

HOSTILE = "<script>alert(1)</script>\x1b[31m<img src=x onerror=alert(1)>"


def elements(page: str) -> set[str]:
    return set(re.findall(r"<(\w+)", page))


def test_a_run_is_one_line_and_a_table_of_its_results(home: Path) -> None:
    with Run.start("train", "own", home=home, settings={}) as run:
        for place in range(6):
            run.result(f"r{place}", place + 0.5)
    assert repr(run) == "<Run own-1: finished, r0 0.5, r1 1.5, r2 2.5, r3 3.5>"
    page = run._repr_html_()
    assert "<code>own-1</code>, finished" in page
    assert "<td>r5</td>" in page


def test_a_study_shows_its_verdicts(tide: object, home: Path) -> None:
    study = reproduce("tide", home=home, workers=1, scale="smoke")
    page = study._repr_html_()
    assert "Tide ends with a lower loss than the baseline" in page
    assert "tide-smoke-1" in page
    assert page.count("<tr>") == 2 + len(study.claims)
    assert page.index("Claims of the paper") < page.index("Checks of the implementation")


def test_a_measurement_shows_numbers_and_tables_with_every_text_as_text() -> None:
    found = Measurement(
        name=HOSTILE,
        numbers={HOSTILE: 1.0},
        units={HOSTILE: HOSTILE},
        tables={HOSTILE: [{HOSTILE: HOSTILE}, {"b": 2}]},
    )
    page = found._repr_html_()
    assert elements(page) == {"table", "caption", "thead", "tr", "th", "tbody", "td"}
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;") == 6
    assert "<td>1</td>" in page
