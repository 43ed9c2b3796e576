"""A pretrained model, where it is at hand: its decoders are chosen on some books, and judged over passages of others.

Its weights are fixed, so the test items are passages: every array that a claim reads has one value a passage.
"""

from typing import TYPE_CHECKING, Literal

import torch

from gpt2lab.actions.models import is_at_hand, load
from gpt2lab.base.errors import LabError
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.model import Transformer
from gpt2lab.papers.contrastive_search.isotropy import model_sums, of_sums
from gpt2lab.papers.contrastive_search.quality import Sample, held_out_samples
from gpt2lab.papers.contrastive_search.study.lines import choose, lines_of
from gpt2lab.papers.contrastive_search.study.models import in_order_of
from gpt2lab.papers.contrastive_search.study.settings import Settings
from gpt2lab.papers.contrastive_search.study.trained import report_numbers
from gpt2lab.papers.contrastive_search.study.writing import (
    BASELINES,
    BEAM,
    DEFAULT,
    GREEDY,
    Desk,
    match,
    read_chosen,
    report_chosen,
    report_texts,
    try_lines,
    write_all,
)
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.pieces import beginning
from gpt2lab.text.records import records
from gpt2lab.text.splits import TRAIN, HashRule, by_group

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

AT_HAND = "at_hand"
_UNTRAINED_TEXTS = 8
_TUNING = 0.25  # of the books, or of the texts where none says of which book it is
_ORDER = 0


def tune(settings: Settings, run: "Run") -> None:
    """Choose each side's decoder for the pretrained model on the tuning passages."""
    if not _reported_at_hand(settings, run):
        return
    run.chooses("family and settings of each side, pretrained model", on="passages of the tuning books")
    lm, scorer = _models(settings, run)
    decoding = settings.real_decoding
    people = _passages(settings, lm, "tuning", decoding.tuning_texts)
    desk = Desk(lm, scorer, people, decoding, run.seed)
    lines = lines_of(decoding)
    tried = try_lines(desk, lines, run)
    report_chosen(choose(tried, lines, desk.people.point.diversity, decoding.offsets), run)


def judge_decoders(settings: Settings, run: "Run") -> None:
    """Let the pretrained model write with the chosen decoders; report arrays over passages for claims I to L."""
    if not _reported_at_hand(settings, run):
        return
    run.judges("coherence, diversity and isotropy, pretrained model", on="passages of the other books")
    lm, scorer = _models(settings, run)
    decoding = settings.real_decoding
    desk = Desk(lm, scorer, _passages(settings, lm, "judged", decoding.texts), decoding, run.seed)
    lines = lines_of(decoding)
    chosen = read_chosen(run.needed["real_tuning"].tables["chosen"], lines)
    trials = [*(trial for one in chosen.values() for trial in one.trials), *BASELINES]
    judged = write_all(desk, trials, run)
    report_numbers({desk.people.name: desk.people, **judged}, run)
    for side, values in match(desk, chosen, judged, run).items():
        run.array(f"real_{side}", values, f"Coherence of the {side} at people's diversity, by passage")
    for short, trial in (("contrastive", DEFAULT), ("greedy", GREEDY), ("beam", BEAM)):
        values = judged[trial.name].point.diversity
        run.array(f"real_{short}_diversity", values, f"Diversity of {trial.name}, by passage, %")
    run.array("real_people_diversity", desk.people.point.diversity, "Diversity of people, by passage, %")
    report_texts(desk, judged, run)
    _isotropy(settings, lm, run)


def hand_over(run: "Run") -> None:
    """Give a seed's end what the pretrained model has reported: the same in every seed, since its weights are."""
    real = run.arms["real"]
    for name, value in real.results.items():
        run.result(f"real.{name}", value)
    for name, values in real.arrays.items():
        run.array(name, values, real.captions("arrays")[name])


def _reported_at_hand(settings: Settings, run: "Run") -> bool:
    there = is_at_hand(settings.real)
    run.result(AT_HAND, there)
    return there


def _models(settings: Settings, run: "Run") -> tuple[LanguageModel, LanguageModel]:
    lm = load(settings.real, device=run.device)
    return lm, load(settings.real_scorer, device=run.device) if settings.real_scorer else lm


def texts_of(settings: Settings, part: Literal["tuning", "judged"]) -> list[str]:
    """Return the texts of a part, in an order that mixes the books; each begins with a paragraph."""
    rows = [row for _, row in records(settings.real_data, "text")]
    rule = HashRule(salt="contrastive-search")
    parts = by_group(
        rows, {"tuning": _TUNING}, group=lambda row: str(row.get("book", row["text"])), rule=rule
    )
    texts = [
        _opening(str(row["text"]), settings.real_decoding.skip)
        for row in parts["tuning" if part == "tuning" else TRAIN]
    ]
    return in_order_of({text for text in texts if text}, _ORDER)


def _opening(text: str, skip: int) -> str:
    """Return a text from the paragraph that begins after `skip` characters; empty if none does."""
    if not skip:
        return text
    at = text.find("\n\n", skip)
    return text[at + 2 :] if at >= 0 else ""


def _passages(
    settings: Settings, lm: LanguageModel, part: Literal["tuning", "judged"], limit: int
) -> list[Sample]:
    lengths = settings.real_decoding
    found = held_out_samples(
        texts_of(settings, part), need_tokenizer(lm, "contrastive-search"),
        prefix=lengths.prefix, new=lengths.new, limit=limit,
    )  # fmt: skip
    if len(found) < limit:
        raise LabError(f"{settings.real_data}: {len(found)} texts are long enough; {limit} are asked for")
    return found


def _isotropy(settings: Settings, lm: LanguageModel, run: "Run") -> None:
    """Report the isotropy of each judged text, and that of the same architecture before it has learnt anything."""
    texts = texts_of(settings, "judged")[: settings.isotropy_texts]
    rows = _rows(lm, texts, settings.isotropy_tokens)
    sums = model_sums(lm.model, rows)
    run.array("real_isotropy", [1 - total / pairs for total, pairs in sums], "Isotropy by text")
    run.result("isotropy", of_sums(sums, "pairs"))
    before = Transformer(lm.config, generator=torch.Generator().manual_seed(run.seed)).to(run.device)
    run.result("isotropy_untrained", of_sums(model_sums(before, rows[:_UNTRAINED_TEXTS]), "pairs"))
    table: list[dict[str, object]] = [{"model": settings.real, "isotropy": of_sums(sums, "pairs")}]
    for name in settings.real_isotropy:
        other = load(name, device=run.device)
        found = of_sums(model_sums(other.model, _rows(other, texts, settings.isotropy_tokens)), "pairs")
        table.append({"model": name, "isotropy": found})
    run.table("isotropy", table, "Isotropy of pretrained models on the same texts, by pairs")


def _rows(lm: LanguageModel, texts: list[str], tokens: int) -> list[list[int]]:
    tokenizer, most = need_tokenizer(lm, "isotropy"), min(tokens, lm.model.context)
    rows = [list(beginning(tokenizer, text, most)[0][:most]) for text in texts]
    return [row for row in rows if len(row) > 1]
