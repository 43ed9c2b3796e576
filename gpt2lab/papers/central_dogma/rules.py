"""Rule judges: what the code table says of a pair of DNA and protein, without any model."""

from dataclasses import dataclass

import numpy as np

from gpt2lab.text.genetic_code import STOP, clean_protein, six_frames, translate


@dataclass(frozen=True)
class Translated:
    """How far a protein is what a DNA sequence codes for, by the standard table."""

    exact: bool
    """The frame-0 translation is the protein; a stop at either's end does not count."""
    frame0: float
    """Share of the residues that agree with the frame-0 translation, place by place, of the longer one's length."""
    any_frame: float
    """Share of the protein's residues in the best alignment without gaps to one of the six frames."""
    stretch: int
    """Residues of the longest stretch that the protein has in common with one of the six frames."""


def translated(dna: str, protein: str) -> Translated:
    """Compare a protein with the six translations of DNA. LabError for letters that are neither's."""
    wanted = clean_protein(protein).removesuffix(STOP)
    own = translate(dna).removesuffix(STOP)
    longest = max(len(own), len(wanted))
    same = sum(a == b for a, b in zip(own, wanted, strict=False))
    aligned, stretch = 0, 0
    for frame in six_frames(dna):
        here, run = _aligned(frame, wanted)
        aligned, stretch = max(aligned, here), max(stretch, run)
    return Translated(
        exact=own == wanted,  # frame-0 rule
        frame0=same / longest if longest else 0.0,
        any_frame=aligned / len(wanted) if wanted else 0.0,  # any-frame identity
        stretch=stretch,
    )


def _aligned(first: str, second: str) -> tuple[int, int]:
    """Return the most equal letters, and the longest run of them, over all alignments without gaps."""
    if not first or not second:
        return 0, 0
    a, b = (np.frombuffer(text.encode("ascii"), dtype=np.uint8) for text in (first, second))
    best = longest = 0
    for shift in range(1 - len(b), len(a)):
        start, stop = max(0, shift), min(len(a), shift + len(b))
        if stop - start <= min(best, longest):
            continue
        equal = a[start:stop] == b[start - shift : stop - shift]
        best = max(best, int(equal.sum()))
        ends = np.flatnonzero(np.concatenate([[True], ~equal, [True]]))
        longest = max(longest, int(np.diff(ends).max()) - 1)
    return best, longest
