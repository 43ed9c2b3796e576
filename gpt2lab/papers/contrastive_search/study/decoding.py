"""All decoders on the same prefixes, judged; and the two loops of contrastive search, timed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpt2lab.decode import Limits
from gpt2lab.decode.generate import build_decoder
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families.gpt2 import gpt2_config
from gpt2lab.papers.contrastive_search.costs import compare, peak_bytes, seconds
from gpt2lab.papers.contrastive_search.decoder import ContrastiveSearch
from gpt2lab.papers.contrastive_search.isotropy import token_similarity
from gpt2lab.papers.contrastive_search.mauve import mauve, text_features
from gpt2lab.papers.contrastive_search.published import CopyingContrastiveSearch
from gpt2lab.papers.contrastive_search.quality import (
    Sample,
    coherence,
    continue_samples,
    jsonl,
    mauve_of,
    mean_of,
    variety,
)
from gpt2lab.papers.contrastive_search.study.settings import Settings

if TYPE_CHECKING:
    from gpt2lab.papers.contrastive_search.study.models import Setup
    from gpt2lab.runs.run import Run

BAND = 5.0
"""Points of diversity from people's within which claim A compares."""
SAMPLERS = ("top-k", "nucleus", "typical")


@dataclass(frozen=True)
class Trial:
    """A decoder with its options."""

    name: str
    family: str
    decoder: str
    options: dict[str, Any] = field(default_factory=dict)


def trials(
    *,
    top_k: Sequence[int],
    top_p: Sequence[float],
    typical: Sequence[float],
    k: Sequence[int],
    alpha: Sequence[float],
) -> list[Trial]:
    """Return greedy, beam 4, and every setting of the others."""
    return [
        Trial("greedy", "greedy", "greedy"),
        Trial("beam_4", "beam", "beam", {"beams": 4}),
        *(Trial(f"top_k_{n}", "top-k", "sampling", {"top_k": n}) for n in top_k),
        *(Trial(f"nucleus_{_percent(p)}", "nucleus", "sampling", {"top_p": p}) for p in top_p),
        *(Trial(f"typical_{_percent(p)}", "typical", "sampling", {"typical": p}) for p in typical),
        *(
            Trial(f"contrastive_{n}_{_percent(a)}", "contrastive", "contrastive-search", {"k": n, "alpha": a})
            for n in k
            for a in alpha
        ),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


@dataclass
class Judged:
    """One trial's texts, and what was found of them."""

    trial: Trial
    texts: list[Sample]
    coherence: dict[str, list[float]]
    """By scorer: nats a token of each text, the mean over repeats."""
    numbers: dict[str, float]


def trials_of(settings: Settings) -> list[Trial]:
    """Return every decoder with every setting that is compared."""
    return trials(
        top_k=settings.top_k,
        top_p=settings.top_p,
        typical=settings.typical,
        k=settings.k,
        alpha=settings.alpha,
    )


def compare_decoders(settings: Settings, setup: "Setup", run: "Run") -> None:
    """Let every decoder continue the prefixes; report the table, the artefacts and the quantities of the claims."""
    main = next(iter(setup.scorers))
    judge = _Judge(settings, setup)
    people = judge.people()
    for name, value in people.numbers.items():
        run.result(f"people.{name}", value)
    judged = [judge.trial(trial, run) for trial in run.progress(trials_of(settings), label="decoders")]
    for one in judged:
        for name, value in one.numbers.items():
            run.result(f"{one.trial.name}.{name}", value)
        run.write_file(f"generations/{one.trial.name}.jsonl", jsonl(setup.people, one.texts))
    rows = [{"decoder": one.trial.name, **one.numbers} for one in (people, *judged)]
    run.table(
        "decoders",
        rows,
        "Every decoder on the same prefixes: diversity, rep and MAUVE in %, coherence in nats a token",
    )
    half = len(setup.people) // 2
    headline(people, judged, half, main, run, on_tokens=settings.on_tokens)
    _samples(settings, setup, judged, run)


class _Judge:
    """Writes and judges the texts of one trial after the other."""

    def __init__(self, settings: Settings, setup: "Setup") -> None:
        self.settings, self.setup = settings, setup
        self.tokenizer = setup.generator.tokenizer
        self.main = next(iter(setup.scorers.values()))
        same = self.main.tokenizer is not None and self.tokenizer is not None
        self.same = same and self.main.tokenizer.fingerprint == self.tokenizer.fingerprint  # type: ignore[union-attr]  # both are there
        self.features = self._features(setup.people) if self.same else None

    def _features(self, texts: Sequence[Sample]) -> Any:
        return text_features(self.main.model, [sample.tokens for sample in texts if sample.tokens])

    def people(self) -> Judged:
        """Judge the real continuations."""
        texts = self.setup.people
        scored = self._coherence([texts])
        return Judged(Trial("people", "people", ""), texts, scored, self._numbers([texts], scored))

    def trial(self, trial: Trial, run: "Run") -> Judged:
        """Let one decoder write, as often as its draws are repeated, and judge."""
        repeats = self.settings.repeats if trial.family in SAMPLERS else 1
        written = list[list[Sample]]()
        device = self.setup.generator.model.device
        spent = math.fsum(seconds(lambda n=n: written.append(self._write(trial, 1000 * run.seed + n)), device)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                          for n in range(repeats))  # fmt: skip
        scored = self._coherence(written)
        numbers = self._numbers(written, scored)
        numbers["mauve"] = fmean(self._mauve(texts) for texts in written)
        tokens = sum(len(sample.tokens) for texts in written for sample in texts)
        numbers["ms_per_token"] = 1000 * spent / max(tokens, 1)
        numbers["mebibytes"] = self._peak(trial) / 2**20
        return Judged(trial, written[0], scored, numbers)

    def _write(self, trial: Trial, seed: int) -> list[Sample]:
        return continue_samples(
            self.setup.generator,
            self.setup.people,
            decoder=trial.decoder,
            options=trial.options,
            new=self.settings.new,
            stop_at_eos=self.settings.stop_at_eos,
            seed=seed,
            batch_size=self.settings.decode_batch,
        )

    def _coherence(self, written: Sequence[Sequence[Sample]]) -> dict[str, list[float]]:
        found = {}
        for name, scorer in self.setup.scorers.items():
            each = [coherence(scorer, texts, tokenizer=self.tokenizer, batch_size=32) for texts in written]
            found[name] = [fmean(values) for values in zip(*each, strict=True)]
        return found

    def _numbers(
        self, written: Sequence[Sequence[Sample]], scored: dict[str, list[float]]
    ) -> dict[str, float]:
        varieties = [variety(texts, on_tokens=self.settings.on_tokens) for texts in written]
        numbers = {name: fmean(one[name] for one in varieties) for name in varieties[0]}
        numbers["diversity_sd"] = float(np.std([one["diversity"] for one in varieties]))
        compat = [variety(texts, on_tokens=self.settings.on_tokens, compat=True) for texts in written]
        numbers["diversity_compat"] = fmean(one["diversity"] for one in compat)
        for name, values in scored.items():
            numbers["coherence" if name == next(iter(scored)) else f"coherence_{name}"] = mean_of(values)
        numbers["words"] = fmean(mean_of(float(sample.words) for sample in texts) for texts in written)
        return numbers

    def _mauve(self, texts: Sequence[Sample]) -> float:
        if self.features is None:
            return mauve_of(self.main, self.setup.people, texts)
        return 100 * mauve(self.features, self._features(texts))

    def _peak(self, trial: Trial) -> float:
        """Most bytes that a batch of 8 prefixes takes for 16 tokens, beside the weights."""
        decoder = build_decoder(trial.decoder, trial.options)
        prompts = [sample.prefix_tokens for sample in self.setup.people[:8]]
        limits = Limits(max_new_tokens=min(16, self.settings.new))
        model = self.setup.generator.model
        return float(peak_bytes(lambda: decoder.decode(model, prompts, limits), model.device))


def headline(
    people: Judged, judged: Sequence[Judged], half: int, scorer: str, run: "Run", *, on_tokens: bool
) -> None:
    """Report what claims A and D read: settings chosen on the first half of the prefixes, measured on the second.

    A setting is in the band if its diversity there is at most `BAND` points from people's. difference: coherence of the
    best contrastive setting in the band minus that of the best sampler in it, paired over prefixes; nan without both.
    """
    run.chooses("setting of each decoder", on="first half of the prefixes")
    run.judges("coherence of the chosen settings", on="second half of the prefixes")

    def chosen_diversity(one: Judged) -> float:
        return variety(one.texts[:half], on_tokens=on_tokens)["diversity"]

    def mean_coherence(one: Judged, part: slice) -> float:
        return mean_of(one.coherence[scorer][part])

    def best(candidates: Sequence[Judged]) -> Judged | None:
        known = [one for one in candidates if not math.isnan(mean_coherence(one, slice(0, half)))]
        return max(known, key=lambda one: mean_coherence(one, slice(0, half)), default=None)

    real = chosen_diversity(people)
    inside = [one for one in judged if abs(chosen_diversity(one) - real) <= BAND]
    ours = [one for one in inside if one.trial.family == "contrastive"]
    theirs = [one for one in inside if one.trial.family in SAMPLERS]
    run.result("band.contrastive", len(ours))
    run.result("band.samplers", len(theirs))
    first, second = best(ours), best(theirs)
    run.result("band.difference", _paired(first, second, slice(half, None), scorer))
    names = [one.trial.name if one else "none" for one in (first, second)]
    run.text(
        "chosen",
        f"contrastive: {names[0]}\nsampler: {names[1]}\n",
        "The settings that claim A compares in this seed",
    )
    searches = best([one for one in judged if one.trial.family == "contrastive"])
    nucleus = next((one for one in judged if one.trial.name == "nucleus_95"), None)
    run.result("over_nucleus", _paired(searches, nucleus, slice(half, None), scorer))


def _paired(first: Judged | None, second: Judged | None, part: slice, scorer: str) -> float:
    if first is None or second is None:
        return math.nan
    pairs = zip(first.coherence[scorer][part], second.coherence[scorer][part], strict=True)
    return mean_of(a - b for a, b in pairs)


def _samples(settings: Settings, setup: "Setup", judged: Sequence[Judged], run: "Run") -> None:
    """Show one prefix with its continuations, and how alike the states of their tokens are."""
    by_name = {one.trial.name: one for one in judged}
    default = by_name.get("contrastive_5_60") or next(
        (one for one in judged if one.trial.family == "contrastive"), None
    )
    shown = {"people": setup.people[0], "greedy": by_name["greedy"].texts[0]}
    if default is not None:
        shown[default.trial.name] = default.texts[0]
    prefix = setup.people[0].prefix
    pieces = [f"PREFIX\n{prefix}", *(f"{name.upper()}\n{one.text}" for name, one in shown.items())]
    run.text("continuations", "\n\n".join(pieces), "One held-out prefix and how it goes on")
    for name, sample in shown.items():
        tokens = [*sample.prefix_tokens, *sample.tokens][:96]
        run.figure(
            f"similarity_{name}",
            token_similarity(setup.generator, tokens),
            f"Cosines between the generator's last states over a text: {name}. Repetition shows beside the diagonal",
        )


def compare_loops(settings: Settings, run: "Run") -> None:
    """Time our loop and the published one on the same untrained model and prompts; report ratio and equality."""
    shape = settings.speed_model
    config = gpt2_config(
        vocab_size=4096, d_model=shape.d_model, n_layers=shape.n_layers, n_heads=shape.n_heads,
        max_positions=max(settings.speed_prompts) + settings.speed_new,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(run.seed)
    model = Transformer(config, generator=generator).to(run.device)
    prompts = [torch.randint(4096, (n,), generator=generator).tolist() for n in settings.speed_prompts]
    found = compare(
        model,
        prompts,
        Limits(max_new_tokens=settings.speed_new),
        ContrastiveSearch(),
        CopyingContrastiveSearch(),
        rounds=settings.speed_rounds,
    )
    for name, value in found.items():
        run.result(f"speed.{name}", value)
