"""The study: does contrastive search write as diversely as people do, and more coherently than sampling that does too?

Trained models: a generator, a scorer (one size up) and a small model are trained on the same text with different initial
weights. The generator continues held-out prefixes; all continuations are equally long (the end token is impossible), so
that nobody's coherence is that of a shorter text. Decoders and settings are chosen once, with the models of the tuning
seed, and judged with those of every other seed, at people's diversity.

Pretrained model, where it is at hand: the same with one fixed model, chosen on some books, judged over passages of others.
"""

from functools import partial
from typing import TYPE_CHECKING

from gpt2lab.papers.contrastive_search.study import loops, models, real, summary, trained
from gpt2lab.papers.contrastive_search.study.claims import CLAIMS
from gpt2lab.papers.contrastive_search.study.settings import PRESETS, Decoding, Settings, Shape
from gpt2lab.studies.graph import UnitSpec

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

__all__ = ["CLAIMS", "PRESETS", "Decoding", "Settings", "Shape", "run", "summarise", "units"]


def units(settings: Settings) -> list[UnitSpec]:
    """Return the tuning units, the pretrained model's work, which all seeds share, and each seed's models to train."""
    found: list[UnitSpec] = []
    if settings.real:
        found += [
            UnitSpec("real_tuning", real.tune, tuning=True),
            UnitSpec("real", real.judge_decoders, needs=("real_tuning",), shared=True),
        ]
    if settings.trained:
        found.append(UnitSpec("tuning", trained.tune, tuning=True))
        found += [UnitSpec(name, partial(trained.train_one, name=name)) for name in models.MODELS]
    return found


def run(settings: Settings, run: "Run") -> None:
    """Write with the chosen decoders, judge the texts, and time the two loops of contrastive search."""
    if settings.trained:
        trained.judge_decoders(settings, run)
    if settings.real:
        real.hand_over(run)
    else:
        run.result("real.at_hand", False)
    loops.compare_loops(settings, run)


def summarise(settings: Settings, study: "Study") -> None:
    """Add the scatter of coherence against diversity, and the table of all decoders over the seeds."""
    summary.add(settings, study)
