"""The one kind of error a user can cause."""

import difflib
import itertools
from collections.abc import Iterable


class LabError(ValueError):
    """A mistake the user can mend: one sentence that says what is wrong, where, and what would be right.

    The command line prints it without a traceback and exits with status 2.
    """


_COMPARED = 1000
_LONGEST = 100


def nearest(given: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `given`, or None if nothing is near.

    Of many choices, or long ones, as a file may hold, the first thousand of at most a hundred characters are compared.
    """
    short = (choice for choice in choices if len(choice) <= _LONGEST)
    matches = difflib.get_close_matches(
        given[:_LONGEST], list(itertools.islice(short, _COMPARED)), n=1, cutoff=0.5
    )
    return matches[0] if matches else None


def unknown(what: str, given: str, choices: Iterable[str]) -> LabError:
    """Build the error for a name that is not among `choices`, with the nearest one."""
    known = sorted(choices)
    match = nearest(given, known)
    hint = f"did you mean {match}?" if match else f"known: {', '.join(known)}"
    shown = given if len(given) <= _LONGEST else f"{given[:_LONGEST]}…"
    return LabError(f"{shown}: no such {what}; {hint}")
