"""How each rule of a fair trial was met: tuning, trials, preconditions and what each unit cost."""

from collections.abc import Mapping
from pathlib import Path

from gpt2lab.runs.report.document import Command, DataTable, Prose
from gpt2lab.runs.report.trial import trial_section
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.runs.trial import SPLITS, TUNING_SEED, Splits, write_plain
from gpt2lab.runs.verdicts import JudgedClaim, RecordedClaim, Status, Verdict


def unit(
    folder: Path,
    seed: int,
    arm: str,
    results: Mapping[str, float],
    seconds: float = 60.0,
    chose: bool = False,
) -> RunRecord:
    place = folder / f"{seed}-{arm}"
    place.mkdir()
    if chose:
        (place / SPLITS).write_text(write_plain(Splits({"tuning windows": "learning rate"}, {})))
    return RunRecord(place.name, place, dict(results), seed, arm, seconds=seconds)


def lines(*units: RunRecord, claims: tuple[JudgedClaim, ...] = ()) -> dict[str, str]:
    """Return the line of every rule by its number."""
    blocks = trial_section(claims, None, units).blocks
    return {
        block.text[2]: block.text for block in blocks if isinstance(block, Prose) and block.text[2].isdigit()
    }


def test_settings_that_were_chosen_once_name_the_tuning_seed_and_the_trials(tmp_path: Path) -> None:
    units = [
        unit(tmp_path, TUNING_SEED, arm, {"trials": 8}, chose=True)
        for arm in ("adamw.tuning", "conda.tuning")
    ]
    said = lines(*units, unit(tmp_path, 0, "adamw", {}))
    assert (
        "Chosen: learning rate on tuning windows, once for all seeds, on the tuning seed 1000, which no claim"
        in said["4"]
    )
    assert "Each choice was made among 8 trials: adamw.tuning and conda.tuning." in said["6"]
    assert "**" not in said["6"].partition("** ")[2]


def test_unequal_trials_and_a_best_setting_at_the_edge_are_warnings(tmp_path: Path) -> None:
    said = lines(
        unit(tmp_path, TUNING_SEED, "a", {"trials": 8, "at_edge": 0.0}, chose=True),
        unit(tmp_path, TUNING_SEED, "b", {"trials": 4, "at_edge": 1.0}, chose=True),
    )
    assert "**Unequal trials: a 8 and b 4.**" in said["6"]
    assert "**The best setting lies at the edge of what was tried in b.**" in said["6"]


def test_a_choice_of_every_seed_says_so_and_trials_that_are_not_reported_too(tmp_path: Path) -> None:
    said = lines(unit(tmp_path, 0, "a", {}, chose=True))
    assert "within every seed anew" in said["4"]
    assert "How many trials each arm had is not reported." in said["6"]
    assert (
        "and again within seeds"
        in lines(unit(tmp_path, 1, "a", {}, chose=True), unit(tmp_path, TUNING_SEED, "b", {}, chose=True))[
            "4"
        ]
    )


def test_what_each_unit_cost_is_a_table(tmp_path: Path) -> None:
    blocks = trial_section(
        (),
        None,
        [
            unit(tmp_path, 0, "adamw", {"flops": 2e12, "seconds": 50.0}, seconds=60.0),
            unit(tmp_path, 1, "adamw", {"flops": 4e12, "seconds": 70.0}, seconds=120.0),
            unit(tmp_path, 0, "probe", {}, seconds=3.0),
        ],
    ).blocks
    (table,) = [block for block in blocks if isinstance(block, DataTable)]
    assert [dict(row) for row in table.rows] == [
        {"unit": "adamw", "runs": 2, "time": "1m30s", "processor time": "1m00s", "TFLOP": 3.0},
        {"unit": "probe", "runs": 1, "time": "3s"},
    ]
    assert not any(isinstance(block, DataTable | Command) for block in trial_section((), None, []).blocks)


def test_a_precondition_says_whether_it_was_met() -> None:
    def judged(name: str, status: Status, met: str, needs: str = "a > 1") -> JudgedClaim:
        return JudgedClaim(
            RecordedClaim(name, "So", needs=needs, expressions=("needs",)),
            Verdict(status, "So.", ((0, 1.0),), precondition=met),
        )

    said = lines(
        claims=(
            judged("A", Status.HOLDS, "met in all 3 seeds (a 2 to 3)"),
            judged("B", Status.NOT_TESTED, "not met in seed 0 (a 0.5 to 3)"),
            judged("C", Status.NOT_TESTED, ""),
            judged("D", Status.HOLDS, "", needs=""),
        )
    )["2"]
    assert "A: `a > 1`, met in all 3 seeds (a 2 to 3)." in said
    assert "B: `a > 1`, **not met in seed 0 (a 0.5 to 3)**." in said
    assert "C: `a > 1`. D: none is stated." in said
