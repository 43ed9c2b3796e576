"""Sophia: momentum over a clipped, cheap estimate of the Hessian's diagonal.

    from gpt2lab.papers.sophia import SophiaG

    optimizer = SophiaG(model.parameters(), lr=6e-4, gamma=0.05, weight_decay=0.2)
    ...
    optimizer.step()
    if step % 10 == 9:                                  # now and then, on other data
        logits = model(tokens).flatten(0, 1)
        optimizer.zero_grad()
        sampled_label_loss(logits).backward()           # labels drawn from the model itself
        optimizer.update_curvature(terms=len(logits))
        optimizer.zero_grad()

`gpt2lab train --optimizer sophia-g` does the same by itself.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2lab.papers.sophia.estimators import gauss_newton_bartlett as gauss_newton_bartlett
    from gpt2lab.papers.sophia.estimators import hutchinson as hutchinson
    from gpt2lab.papers.sophia.estimators import sampled_label_loss as sampled_label_loss
    from gpt2lab.papers.sophia.lion import Lion as Lion
    from gpt2lab.papers.sophia.optimizer import SophiaG as SophiaG
    from gpt2lab.papers.sophia.optimizer import SophiaH as SophiaH

_WHERE = {
    "Lion": "lion",
    "SophiaG": "optimizer",
    "SophiaH": "optimizer",
    "gauss_newton_bartlett": "estimators",
    "hutchinson": "estimators",
    "sampled_label_loss": "estimators",
}
__all__ = ["Lion", "SophiaG", "SophiaH", "gauss_newton_bartlett", "hutchinson", "sampled_label_loss"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
