"""The study: does contrastive search write as diversely as people do, and more coherently than sampling that does too?

A generator, a scorer (one size up) and a small model are trained on the same text with different initial weights. The
generator continues held-out prefixes under every decoder and setting; all continuations are equally long (the end token is
impossible), so that nobody's coherence is that of a shorter text. Settings are chosen on one half of the prefixes, and
reported on the other. With `given` and `given_scorers` pretrained models take the place of the trained ones.
"""

from typing import TYPE_CHECKING

from gpt2lab.papers.contrastive_search.study import decoding, models, summary
from gpt2lab.papers.contrastive_search.study.claims import CLAIMS
from gpt2lab.papers.contrastive_search.study.decoding import trials_of
from gpt2lab.papers.contrastive_search.study.settings import PRESETS, Settings, Shape

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

__all__ = ["CLAIMS", "PRESETS", "Settings", "Shape", "arms", "run", "run_arm", "summarise", "trials_of"]

MODELS = ("scorer", "generator", "small")


def arms(settings: Settings) -> list[str]:
    """Return the models to train, the largest first; none with pretrained models."""
    return [] if settings.given else list(MODELS)


def run_arm(settings: Settings, arm: str, run: "Run") -> None:
    """Train one model and measure its isotropy."""
    models.train_one(settings, arm, run)


def run(settings: Settings, run: "Run") -> None:
    """Write with every decoder, judge the texts, and time the two loops of contrastive search."""
    setup = models.prepared(settings, run)
    decoding.compare_decoders(settings, setup, run)
    decoding.compare_loops(settings, run)


def summarise(settings: Settings, study: "Study") -> None:
    """Add the scatter of coherence against diversity, and the table of all decoders over the seeds."""
    summary.add(settings, study)
