"""Regular expressions that somebody else wrote: those that can take for ever are refused before they are used."""

from gpt2lab.base.errors import LabError, shown


def check_pattern(pattern: str, where: str) -> None:
    r"""LabError if a repeated group of the pattern holds a repetition itself, as `(a+)+$`.

    Matching such a pattern takes time that doubles with every character of a text that does not match. No tokenizer of a
    published model has one.
    """
    if _repeats_a_repetition(pattern):
        raise LabError(
            f"{where}: the regular expression {shown(pattern)} repeats a group that repeats something itself, "
            "which can take for ever"
        )


def _repeats_a_repetition(pattern: str) -> bool:
    """Whether any group with + * or {n,} behind it holds one of these."""
    groups = [False]  # for each open group, whether something in it is repeated
    position = 0
    while position < len(pattern):
        character = pattern[position]
        inner = False
        if character == "\\":
            position += 2
        elif character == "[":
            position = _end_of_class(pattern, position)
        elif character == "(":
            groups.append(False)
            position += 1
            continue
        elif character == ")" and len(groups) > 1:
            inner = groups.pop()
            position += 1
        else:
            position += 1
        if _is_repeated(pattern, position):
            if inner:
                return True
            groups[-1] = True
        groups[-1] = groups[-1] or inner
    return False


def _end_of_class(pattern: str, start: int) -> int:
    """Return where the class of characters that begins at `start` ends; classes may hold classes."""
    depth, position = 0, start
    while position < len(pattern):
        if pattern[position] == "\\":
            position += 1
        elif pattern[position] == "[":
            depth += 1
        elif pattern[position] == "]" and position > start + 1:
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    return position


def _is_repeated(pattern: str, position: int) -> bool:
    """Whether what stands before `position` may be there any number of times."""
    if pattern[position : position + 1] in ("+", "*"):
        return True
    if pattern[position : position + 1] != "{":
        return False
    inside, closed, _ = pattern[position + 1 :].partition("}")
    least, comma, most = inside.partition(",")
    return (
        bool(closed)
        and bool(comma)
        and (most == "" or (most.isdecimal() and int(most[:9]) > 100))
        and least.isdecimal()
    )
