"""Contrastive search: of the likeliest tokens, the one whose hidden state resembles the text so far the least.

    from gpt2lab.papers.contrastive_search import ContrastiveSearch

    texts = gpt2lab.generate(lm, prompts, decoder=ContrastiveSearch(k=5, alpha=0.6))

For models of transformers: `model.generate(..., custom_generate=contrastive_search, penalty_alpha=0.6, top_k=4)`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2lab.papers.contrastive_search.decoder import ContrastiveSearch as ContrastiveSearch
    from gpt2lab.papers.contrastive_search.huggingface import contrastive_search as contrastive_search
    from gpt2lab.papers.contrastive_search.isotropy import Isotropy as Isotropy
    from gpt2lab.papers.contrastive_search.objective import SimCTG as SimCTG
    from gpt2lab.papers.contrastive_search.quality import GenerationQuality as GenerationQuality
    from gpt2lab.papers.contrastive_search.quality import coherence as coherence

_WHERE = {
    "ContrastiveSearch": "decoder",
    "GenerationQuality": "quality",
    "Isotropy": "isotropy",
    "SimCTG": "objective",
    "coherence": "quality",
    "contrastive_search": "huggingface",
}

__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
