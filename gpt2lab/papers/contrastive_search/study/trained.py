"""The study's own models: settings are chosen with those of the tuning seed, and judged with those of every other seed."""

from typing import TYPE_CHECKING

from gpt2lab.actions.models import load
from gpt2lab.papers.contrastive_search.study import models
from gpt2lab.papers.contrastive_search.study.lines import choose, lines_of
from gpt2lab.papers.contrastive_search.study.settings import Settings
from gpt2lab.papers.contrastive_search.study.writing import (
    BASELINES,
    Desk,
    Judged,
    match,
    read_chosen,
    report_chosen,
    report_texts,
    try_lines,
    write_all,
)

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run


def tune(settings: Settings, run: "Run") -> None:
    """Train a generator and a scorer with the tuning seed, and choose each side's decoder on held-out texts."""
    run.chooses("family and settings of each side", on="held-out texts with the models of the tuning seed")
    text = models.read_text(settings, run.seed)
    generator, scorer = (
        models.train_model(settings, text, name, run.seed, run.device) for name in ("generator", "scorer")
    )
    people = models.held_out_prefixes(settings, text, settings.decoding.tuning_texts)
    desk = Desk(generator, scorer, people, settings.decoding, run.seed)
    lines = lines_of(settings.decoding)
    tried = try_lines(desk, lines, run)
    report_chosen(choose(tried, lines, desk.people.point.diversity, settings.decoding.offsets), run)


def train_one(settings: Settings, run: "Run", name: str) -> None:
    """Train one model of a seed and report its loss and isotropy."""
    text = models.read_text(settings, run.seed)
    lm = models.train_model(settings, text, name, run.seed, run.device, run.log)
    models.report_model(settings, text, name, lm, run)
    run.model(lm)


def judge_decoders(settings: Settings, run: "Run") -> None:
    """Let the seed's generator write with the chosen decoders; report what claims A, B, C and E read."""
    run.judges("coherence and diversity", on="held-out texts with the models of each seed")
    _report_models(run)
    text = models.read_text(settings, run.seed)
    generator, scorer = (
        load(run.arms[arm].folder / "model", device=run.device) for arm in ("generator", "scorer")
    )
    people = models.held_out_prefixes(settings, text, settings.decoding.texts)
    desk = Desk(generator, scorer, people, settings.decoding, run.seed)
    lines = lines_of(settings.decoding)
    chosen = read_chosen(run.arms["tuning"].tables["chosen"], lines)
    trials = [
        *(trial for one in chosen.values() for trial in one.trials),
        *BASELINES,
    ]
    judged = write_all(desk, trials, run)
    for trial in trials:
        judged[trial.name].numbers["mauve"] = desk.mauve(judged[trial.name])
        judged[trial.name].numbers["mebibytes"] = desk.mebibytes(trial)
    report_numbers({desk.people.name: desk.people, **judged}, run)
    match(desk, chosen, judged, run)
    report_texts(desk, judged, run)


def report_numbers(judged: dict[str, Judged], run: "Run", prefix: str = "", table: str = "decoders") -> None:
    """Report the numbers of people and of every decoder as results and as a table."""
    for name, one in judged.items():
        for key, value in one.numbers.items():
            run.result(f"{prefix}{name}.{key}", value)
    rows = [{"decoder": name, **one.numbers} for name, one in judged.items()]
    run.table(
        table,
        rows,
        "Every decoder on the same prefixes: diversity, rep and MAUVE in %, coherence in nats a token",
    )


def _report_models(run: "Run") -> None:
    found = {arm: run.arms[arm].results for arm in models.MODELS}
    changes = [results["isotropy"] - results["isotropy_untrained"] for results in found.values()]
    run.result("isotropy.lowest", min(results["isotropy"] for results in found.values()))
    run.result("isotropy.lowest_change", min(changes))
    run.result("learnt", min(results["unigram_loss"] - results["loss"] for results in found.values()))
    rows = [
        {"model": arm, **{key: results[key] for key in
         ("parameters", "loss", "unigram_loss", "isotropy_untrained", "isotropy", "isotropy_by_texts")}}
        for arm, results in found.items()
    ]  # fmt: skip
    run.table(
        "models",
        rows,
        "The models of this seed: held-out loss in nats a token, isotropy before and after training",
    )
