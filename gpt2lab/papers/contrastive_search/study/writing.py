"""A model continues prefixes with one decoder after the other, and its texts are judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.decode import Limits
from gpt2lab.decode.generate import build_decoder
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.text_metrics import diversity
from gpt2lab.papers.contrastive_search.costs import peak_bytes, seconds
from gpt2lab.papers.contrastive_search.isotropy import token_similarity
from gpt2lab.papers.contrastive_search.mauve import mauve, text_features
from gpt2lab.papers.contrastive_search.quality import (
    Sample,
    coherence,
    continue_samples,
    jsonl,
    mauve_of,
    mean_of,
    variety,
)
from gpt2lab.papers.contrastive_search.study.lines import (
    SIDES,
    Chosen,
    Line,
    Point,
    Side,
    Trial,
    at_diversity,
)
from gpt2lab.papers.contrastive_search.study.settings import Decoding
from gpt2lab.text.language_model import LanguageModel

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

DEFAULT = Trial("contrastive_5_60", "contrastive_5", "contrastive-search", {"k": 5, "alpha": 0.6})
"""The paper's setting for English."""
GREEDY = Trial("greedy", "greedy", "greedy")
BEAM = Trial("beam_4", "beam", "beam", {"beams": 4})
BASELINES = (DEFAULT, GREEDY, BEAM, Trial("nucleus_95", "nucleus", "sampling", {"top_p": 0.95}))
"""What is judged beside the chosen settings."""
PEOPLE = "people"


@dataclass(frozen=True)
class Judged:
    """The texts of one decoder, or people's, and what was found of them."""

    name: str
    texts: list[Sample]
    point: Point
    """Diversity and coherence of each text."""
    numbers: dict[str, float]


class Desk:
    """Where one model writes and another judges, on one set of prefixes."""

    def __init__(
        self,
        generator: LanguageModel,
        scorer: LanguageModel,
        people: Sequence[Sample],
        decoding: Decoding,
        seed: int,
    ) -> None:
        """seed: of the draws."""
        self.generator, self.scorer, self.decoding, self.seed = generator, scorer, decoding, seed
        self.tokenizer = need_tokenizer(generator, "contrastive-search")
        self.prefixes = list(people)
        self.people = self._judged(PEOPLE, self.prefixes)

    def write(self, trial: Trial) -> Judged:
        """Let a decoder continue every prefix, and judge; ms_per_token is its time."""
        written: list[Sample] = []

        def decode() -> None:
            written.extend(
                continue_samples(
                    self.generator,
                    self.prefixes,
                    decoder=trial.decoder,
                    options=trial.options,
                    new=self.decoding.new,
                    stop_at_eos=self.decoding.stop_at_eos,
                    seed=self.seed,
                    batch_size=self.decoding.batch,
                )
            )

        spent = seconds(decode, self.generator.model.device)
        judged = self._judged(trial.name, written)
        judged.numbers["ms_per_token"] = 1000 * spent / max(sum(len(text.tokens) for text in written), 1)
        return judged

    def _judged(self, name: str, texts: list[Sample]) -> Judged:
        on_tokens = self.decoding.on_tokens
        varieties = [100 * diversity([text.tokens if on_tokens else text.text]) for text in texts]
        scored = coherence(self.scorer, texts, tokenizer=self.tokenizer, batch_size=32)
        numbers = variety(texts, on_tokens=on_tokens)
        numbers["coherence"] = mean_of(scored)
        numbers["words"] = mean_of(float(text.words) for text in texts)
        return Judged(name, texts, Point(np.array(varieties), np.array(scored)), numbers)

    def mauve(self, judged: Judged) -> float:
        """Return MAUVE in percent beside people's texts, with the scorer's states as features."""
        own = need_tokenizer(self.scorer, "MAUVE")
        if own.fingerprint != self.tokenizer.fingerprint:
            return mauve_of(self.scorer, self.prefixes, judged.texts)
        sides = [
            text_features(self.scorer.model, [text.tokens for text in side if text.tokens])
            for side in (self.prefixes, judged.texts)
        ]
        return 100 * mauve(*sides)

    def mebibytes(self, trial: Trial) -> float:
        """Return the most memory that a batch of 8 prefixes takes for 16 tokens, beside the weights."""
        decoder = build_decoder(trial.decoder, trial.options)
        prompts = [sample.prefix_tokens for sample in self.prefixes[:8]]
        limits = Limits(max_new_tokens=min(16, self.decoding.new))
        model = self.generator.model
        return peak_bytes(lambda: decoder.decode(model, prompts, limits), model.device) / 2**20


def try_lines(desk: Desk, lines: Sequence[Line], run: "Run") -> dict[str, list[Point]]:
    """Return every setting of every line on the desk's texts, by family; report the table of all as `tried`."""
    found: dict[str, list[Point]] = {line.family: [] for line in lines}
    rows: list[dict[str, object]] = [_row(PEOPLE, PEOPLE, desk.people)]
    every = [(line, value) for line in lines for value in line.values]
    for line, value in run.progress(every, label="tuning"):
        judged = desk.write(line.trial(value))
        found[line.family].append(judged.point)
        rows.append(_row(line.family, f"{value:g}", judged))
    run.table("tried", rows, "Every setting on the tuning texts: diversity in %, coherence in nats a token")
    return found


def _row(family: str, setting: str, judged: Judged) -> dict[str, object]:
    numbers = {key: judged.numbers[key] for key in ("diversity", "coherence")}
    return {"family": family, "setting": setting, **numbers}


def report_chosen(chosen: Mapping[Side, Chosen], run: "Run") -> None:
    """Report the table `chosen`: the settings that are judged."""
    rows = [
        {"side": side, "family": one.line.family, "parameter": one.line.parameter, "value": value}
        for side, one in chosen.items()
        for value in one.values
    ]
    run.table("chosen", rows, "The settings that are judged, by side")


def read_chosen(rows: Sequence[Mapping[str, object]], lines: Sequence[Line]) -> dict[Side, Chosen]:
    """Return what `report_chosen` wrote."""
    by_family = {line.family: line for line in lines}
    found: dict[Side, Chosen] = {}
    for side in SIDES:
        own = [row for row in rows if row["side"] == side]
        line = by_family[str(own[0]["family"])]
        found[side] = Chosen(line, tuple(float(str(row["value"])) for row in own))
    return found


def write_all(desk: Desk, trials: Sequence[Trial], run: "Run") -> dict[str, Judged]:
    """Let every decoder write, each once; keep prefix, reference and text of each as a line of JSON. By name."""
    found: dict[str, Judged] = {}
    different = {trial.name: trial for trial in trials}
    for name, trial in run.progress(different.items(), label="decoders"):
        found[name] = desk.write(trial)
        run.write_file(f"generations/{name}.jsonl", jsonl(desk.prefixes, found[name].texts))
    return found


def match(
    desk: Desk, chosen: Mapping[Side, Chosen], judged: Mapping[str, Judged], run: "Run", prefix: str = ""
) -> dict[Side, np.ndarray]:
    """Report each side's coherence at people's diversity, and return what each text adds to it.

    Results: SIDE.matched in nats a token, SIDE.outside in points of diversity.
    """
    found = {}
    for side, one in chosen.items():
        points = [judged[trial.name].point for trial in one.trials]
        matched = at_diversity(points, desk.people.point.diversity)
        run.result(f"{prefix}{side}.matched", matched.mean)
        run.result(f"{prefix}{side}.outside", matched.outside)
        found[side] = matched.values
    return found


def report_texts(desk: Desk, judged: Mapping[str, Judged], run: "Run") -> None:
    """Show one prefix with its continuations, and how alike the states of their tokens are."""
    shown = {
        PEOPLE: desk.prefixes[0],
        "greedy": judged["greedy"].texts[0],
        DEFAULT.name: judged[DEFAULT.name].texts[0],
    }
    pieces = [
        f"PREFIX\n{desk.prefixes[0].prefix}",
        *(f"{name.upper()}\n{one.text}" for name, one in shown.items()),
    ]
    run.text("continuations", "\n\n".join(pieces), "One held-out prefix and how it goes on")
    for name, sample in shown.items():
        run.figure(
            f"similarity_{name}",
            token_similarity(desk.generator, [*sample.prefix_tokens, *sample.tokens][:96]),
            f"Cosines between the generator's last states over a text: {name}. Repetition shows beside the diagonal",
        )
