"""The one kind of error a user can cause."""

import difflib
from collections.abc import Iterable


class LabError(ValueError):
    """A mistake the user can mend: one sentence that says what is wrong, where, and what would be right.

    The command line prints it without a traceback and exits with status 2.
    """


def nearest(given: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `given`, or None if nothing is near."""
    matches = difflib.get_close_matches(given, list(choices), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown(what: str, given: str, choices: Iterable[str]) -> LabError:
    """Build the error for a name that is not among `choices`, with the nearest one."""
    known = sorted(choices)
    match = nearest(given, known)
    hint = f"did you mean {match}?" if match else f"known: {', '.join(known)}"
    return LabError(f"{given}: no such {what}; {hint}")
