"""What the control has learnt, as tables and figures of its report: by block, by codon and residue, and in a plane.

No claim reads it: it shows where a judge that does know the code keeps it, on genes that it was not trained on.
"""

from typing import TYPE_CHECKING

from gpt2lab.papers.central_dogma.attribution import CodonAttribution
from gpt2lab.papers.central_dogma.codon_probe import CodonProbe
from gpt2lab.papers.central_dogma.components import PairComponents
from gpt2lab.papers.central_dogma.study.settings import SEPARATOR, Settings

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.text.language_model import LanguageModel

_GENES, _PAIRS = 200, 128
"""Genes of the probe, and pairs of the others, at most."""


def analyse(settings: Settings, run: "Run", lm: "LanguageModel", seed: int) -> None:
    """Report probes, attributions and components of the control on generated genes of a seed."""
    genes = f"dna-protein:{min(settings.test_pairs, _GENES)}:{seed}:{settings.residues}"
    pairs = f"dna-protein-typed:{min(settings.test_pairs // 16 * 16, _PAIRS)}:{seed}:{settings.residues}"
    for measure, table, caption in (
        (
            CodonProbe(data=(genes,), separator=SEPARATOR),
            "places",
            "Linear probes of the control's states, on genes of their own: whether codon k codes for residue k, and the "
            "residue of a codon, also of codons that were never fitted",
        ),
        (
            CodonAttribution(data=(pairs,), separator=SEPARATOR, steps=8),
            "positions",
            "What each place adds to the control's answer that the pair matches (integrated gradients)",
        ),
        (
            PairComponents(data=(pairs,), separator=SEPARATOR),
            "types",
            "Principal components of the states that the control's head reads, mean of each kind of pair",
        ),
    ):
        found = measure(lm)
        for name, value in found.numbers.items():
            run.result(f"{found.name.replace('-', '_')}.{name}", value)
        run.table(found.name, found.tables[table], caption)
        for name in found.figures:
            run.figure(found.name, found.figure_svg(name), caption)
