"""The verb `export`: a model for other programs; a run keeps what was written where."""

from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lab.actions.models import loaded
from gpt2lab.actions.record import recorded

if TYPE_CHECKING:
    from gpt2lab.text.export import Exported, Kind, Precision
    from gpt2lab.text.language_model import LanguageModel


def export(
    model: "str | Path | LanguageModel",
    *,
    to: "Kind",
    out: str | Path,
    precision: "Precision | None" = None,
    keep: bool = True,
    command: str = "",
) -> "Exported":
    """Write a model for other programs; see `gpt2lab.text.export.export`.

    A model by name is read on the CPU in the type of its file. keep: leave a run that says what was written where;
    command: what it notes as the command that repeats it.
    """
    lm = loaded(model, "cpu" if isinstance(model, (str, Path)) else None)
    from gpt2lab.text.export import export as write  # torch, of which a wrong name need not wait

    settings = {"to": to, "out": str(out), "precision": precision}
    with recorded("export", "export", model, lm, settings, keep=keep, command=command) as run:
        done = write(lm, to, out, precision=precision)
        if run is not None:
            run.result("bytes", done.size)
            for sentence in done.notes:
                run.note(sentence)
    return done
