"""The one kind of error a user can cause."""

import difflib
import itertools
from collections.abc import Iterable


class LabError(ValueError):
    """A mistake the user can mend: one sentence that says what is wrong, where, and what would be right.

    The command line prints it without a traceback and exits with status 2.
    """


def system_error(error: OSError) -> str:
    """Return what the system says, and of which file, as a sentence."""
    if not error.strerror:
        return " ".join(str(error).split())
    return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror.lower()


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


def shown(value: object) -> str:
    """Write a wrong value into a sentence: on one line, of a long one the beginning."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of more digits than Python converts
        text = f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def brief(error: BaseException | str) -> str:
    """Return the beginning of a library's message: its first line, or a hundred characters of it."""
    line = str(error).strip().partition("\n")[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def unknown(what: str, given: str, choices: Iterable[str]) -> LabError:
    """Build the error for a name that is not among `choices`, with the nearest one."""
    known = sorted(choices)
    match = nearest(given, known)
    hint = f"did you mean {match}?" if match else f"known: {', '.join(known)}"
    name = given if len(given) <= _LONGEST and given.isprintable() else shown(given)
    return LabError(f"{name}: no such {what}; {hint}")
