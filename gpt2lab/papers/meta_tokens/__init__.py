"""Language Modeling with Learned Meta-Tokens."""

from typing import Any

_NAMES = {
    "META": "token",
    "AddMetaToken": "transform",
    "ExtendContext": "transform",
    "Injector": "injection",
    "MetaAttention": "architecture",
    "MetaEffects": "measure",
    "MetaInjection": "objective",
    "RecallTask": "source",
    "boost_sharpens": "sharpness",
    "caching": "caching",
    "mask_metas": "injection",
    "meta_id": "token",
    "meta_token": "architecture",
    "rate_distortion": "bottleneck",
    "sharpness": "sharpness",
    "zeroed": "zeroing",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: papers are listed without torch."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
