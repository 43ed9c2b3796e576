"""Options of an optimizer as they are typed, told by the source of its class: a mistake is found without torch."""

from collections.abc import Mapping
from typing import Any

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.outline import arguments
from gpt2lab.base.registry import parts
from gpt2lab.base.values import Mismatch, fit

OF_THE_LOOP = ("self", "cls", "params", "model", "lr", "weight_decay", "process_group")
"""Arguments that the loop gives."""


def refuse_options(name: str, given: Mapping[str, str]) -> None:
    """LabError for an option that the optimizer of this name lacks, or of another type.

    It is read from the source of the class; where that does not say it, the mistake is found when the optimizer is made.
    """
    if name == "adamw":
        refuse_for_adamw(given)
        return
    place = next((one.object for one in parts("optimizer") if one.name == name), "")
    known = arguments(place, ("for_model", "__init__"))
    if known is not None:
        fitted(name, known, given)


def refuse_for_adamw(given: Mapping[str, str]) -> None:
    """LabError for any option: those of adamw are the loop's."""
    if given:
        raise LabError("optimizer_options: adamw takes train.betas, train.eps and train.weight_decay instead")


def fitted(name: str, known: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return typed options as the types that they are known to have.

    LabError for an option that is not known, or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    for option, text in given.items():
        if option not in known or option in OF_THE_LOOP:
            raise unknown(f"option of {name}", option, [one for one in known if one not in OF_THE_LOOP])
        try:
            values[option] = fit(text, known[option], text=True)
        except Mismatch as mismatch:
            raise LabError(f"optimizer_options.{option} must be {mismatch}, got {text!r}") from None
    return values
