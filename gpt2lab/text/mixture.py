"""Documents of several sources mixed by weights."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.text import sources


def mixture(weights: Mapping[str, float], size: int, *, seed: int = 0, field: str = "text") -> Iterator[str]:
    """Yield `size` documents, each the next one of a source drawn with probability weight / sum of weights.

    weights: by source, files or built-in names as everywhere. The same arguments give the same documents.
    LabError for weights that are negative or all 0, and, while reading, for a source that has too few documents.
    """
    values = np.array(list(weights.values()), dtype=np.float64)
    if not len(values) or not np.isfinite(values).all() or (values < 0).any() or not values.sum():
        raise LabError(
            f"mixture: weights must be finite and not negative, one of them above 0; got {dict(weights)}"
        )
    names = list(weights)
    texts = {name: sources.documents(name, field=field) for name, weight in weights.items() if weight}
    return _mixed(
        names, texts, np.random.default_rng(seed).choice(len(names), size=size, p=values / values.sum())
    )


def _mixed(
    names: list[str], texts: Mapping[str, Iterator[str]], drawn: npt.NDArray[np.int64]
) -> Iterator[str]:
    counts = dict.fromkeys(names, 0)
    for place in drawn.tolist():
        name = names[place]
        text = next(texts[name], None)
        if text is None:
            wanted = int((drawn == place).sum())
            raise LabError(
                f"{name}: {counts[name]:,} documents, and this mixture needs {wanted:,}; give it more"
            )
        counts[name] += 1
        yield text
