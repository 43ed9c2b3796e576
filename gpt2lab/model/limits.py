"""The largest sizes that are believed, because a configuration of a few bytes may ask for any."""

from gpt2lab.base.errors import LabError, shown

_ANY = 2**31 - 1

SIZES: dict[str, tuple[int, int]] = {
    "vocab_size": (1, 2**24),  # the largest in use has 2^18
    "d_model": (1, 2**18),
    "n_layers": (0, 10_000),  # none: embedding and head alone
    "n_heads": (0, 2**16),  # none: a layer whose heads were all pruned
    "n_kv_heads": (0, 2**16),
    "d_head": (1, 2**18),
    "d_mlp": (0, 2**22),
    "max_positions": (1, _ANY),
    "position_offset": (0, _ANY),
    "token_types": (0, 2**16),
    "windows": (1, _ANY),
    "n_experts": (0, 2**14),
    "experts_per_token": (0, 2**14),
    "bos": (-_ANY, _ANY),  # -1 stands for none in some files
    "eos": (-_ANY, _ANY),
    "pad": (-_ANY, _ANY),
}
"""Whole numbers of a configuration: the least and the most that is accepted."""


def check_size(name: str, value: object) -> None:
    """LabError unless `value` is a whole number within the limits of the configuration's field `name`."""
    least, most = SIZES[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise LabError(f"{name} must be a whole number from {least:,} to {most:,}, got {shown(value)}")
