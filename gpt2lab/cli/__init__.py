"""The command line: it parses, calls one function of the lab, and prints.

A verb is a module of this package with `add(parser, argv)` and `run(arguments)`; only the verb that was typed
is imported, and torch only when its work begins.
"""

import argparse
import contextlib
import gc
import importlib
import io
import os
import sys
import traceback
import types
import warnings
from collections.abc import Sequence
from typing import NoReturn

from gpt2lab.base.errors import LabError, system_error, unknown
from gpt2lab.base.signals import end_as_ctrl_c
from gpt2lab.base.wording import quoted, visible
from gpt2lab.cli.config_file import ConfigFile, preset, read_config, typed_names
from gpt2lab.cli.parser import Parser, add_common, rename_settings, typed
from gpt2lab.cli.show import Visible

VERBS = {
    "papers": "list, search and show the thirty papers, with the verdicts of the last run",
    "models": "list real pretrained models, and fetch them by name",
    "reproduce": "run a paper's study over its seeds: report and verdicts",
    "train": "pre-train or fine-tune any family on files, a hub data set or a built-in source",
    "generate": "continue a prompt with any decoder",
    "apply": "make a new model from a model by a transform",
    "measure": "measure a model",
    "predict": "print the predictions of a model's head for texts: classes, numbers, labels of words",
    "write": "write the documents of a source to files: generated, perturbed, or read",
    "split": "split labelled texts into files for pre-training, fine-tuning and a test that share no text",
    "vectors": "make word vectors of text, and write them as a file",
    "export": "write a model for other programs: Hugging Face's folder, GGUF, ONNX",
    "runs": "list, delete and repair runs",
    "report": "write a run's report again and print its path",
    "compare": "compare runs, or all optimizers, decoders or measures under equal conditions",
    "resume": "resume a run that was stopped",
}


STOPPED = 130
"""The exit status after Ctrl-C and other signals that ask a process to end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 done, 2 a mistake of the user's, 130 asked to end, 1 a defect."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    warnings.showwarning = _warn
    _prepare_streams()
    try:
        with (
            end_as_ctrl_c(),
            contextlib.redirect_stdout(Visible(sys.stdout))
            if sys.stdout.isatty()
            else contextlib.nullcontext(),
        ):
            return _dispatch(words)
    except KeyboardInterrupt as stop:
        return _fail(" ".join(str(stop).split()) or "stopped", STOPPED, debug)
    except BrokenPipeError:  # the reader of the output went away: `gpt2lab papers | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (LabError, OSError) as error:
        return _fail(_sentence(error), 2, debug)
    except Exception as error:
        return _fail(f"a defect: {_sentence(error)} (--debug shows where)", 1, debug)


def script() -> NoReturn:
    """Run `main` as a process of its own, and end it with the status.

    After Ctrl-C the process ends at once: what was open is closed by then, while taking apart the loaded libraries
    costs 1.5 s of processor time, and many times that beside other work, such as a thread that still computes.
    """
    status = main()
    if status == STOPPED:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # its reader went away
                stream.flush()
        os._exit(status)
    gc.freeze()  # a last search for garbage would go through all of torch: 0.6 s of processor time
    sys.exit(status)


def _prepare_streams() -> None:
    """Make standard output take every character, and open what the process was started without.

    Otherwise the next file that is opened would get the number of the closed stream, and what a library prints.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(opened)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # open as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["help"] and len(words) > 1:
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version", "version"):
        from gpt2lab.base.version import __version__

        print(f"gpt2lab {__version__}")
        return 0
    verb, rest = find_verb(words)
    if verb in ("train", "generate", "measure", "apply"):
        from gpt2lab.cli.early import refuse_early

        refuse_early(verb, rest)
    module, arguments = parse(words)
    try:
        module.run(arguments)
    except LabError as error:
        raise arguments.file.mistake(error, arguments.typed) from error
    return 0


def parse(words: Sequence[str]) -> tuple[types.ModuleType, argparse.Namespace]:
    """Return the module of the verb and what was typed for it. LabError for what is not understood."""
    verb, rest = find_verb(words)
    module = importlib.import_module(f"gpt2lab.cli.{verb}")
    summary, _, examples = (module.__doc__ or "").partition("\n\n")
    parser = Parser(prog=f"gpt2lab {verb}", description=summary, epilog=examples.rstrip())
    path = typed(rest, "--config")
    config = read_config(path) if path is not None else ConfigFile("", {})
    module.add(parser, [*rest, *config.words])
    add_common(parser)
    arguments = rename_settings(parser.parse_args(rest, preset(parser, config)))
    arguments.file, arguments.typed = config, typed_names(rest)
    arguments.line = " ".join(
        map(quoted, ["gpt2lab", *words])
    )  # what a run keeps as the command that repeats it
    return module, arguments


def find_verb(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the verb and the other words. LabError for a verb that does not exist."""
    verb = next((word for word in words if not word.startswith("-")), words[0])
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    rest = list(words)
    rest.remove(verb)
    return verb, rest


def overview() -> str:
    """Return what `gpt2lab --help` prints: the verbs, a sentence each."""
    lines = ["gpt2lab: published methods for GPT-2-class language models as parts of one transformer", ""]
    lines += [f"  gpt2lab {verb:<10} {summary}" for verb, summary in VERBS.items()]
    lines += [
        "",
        "gpt2lab VERB --help lists the options of a verb. Runs are kept in ./runs, or in the folder GPT2LAB_HOME.",
        "MODEL is a folder, a model of `gpt2lab models`, a hub id such as EleutherAI/pythia-70m, or the name of a run.",
    ]
    return "\n".join(lines)


def _sentence(error: Exception) -> str:
    """Return an exception as one line; what is no mistake of the user's keeps its type's name."""
    if isinstance(error, OSError):
        return system_error(error)
    text = " ".join(str(error).split())
    return text if isinstance(error, LabError) else f"{type(error).__name__}: {text}"


def _warn(message: Warning | str, *place: object, **more: object) -> None:
    """Show a warning as a sentence, without the line of code that gave it."""
    print(f"gpt2lab: {visible(' '.join(str(message).split()))}", file=sys.stderr)


def _fail(sentence: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"gpt2lab: {visible(sentence)}", file=sys.stderr)
    return status
