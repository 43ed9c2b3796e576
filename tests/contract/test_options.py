"""Every option of every verb changes what is done, or is refused where it cannot: none is ignored.

The options are read from the verbs' own parsers, so that a new one without a case here fails. What a verb does is the
call that it makes, which is caught; the settings of `train` have a test of their own (tests/cli/test_training_options.py).
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import PART_KINDS, Part, part, parts
from gpt2lab.base.settings import options
from gpt2lab.cli import VERBS, main
from gpt2lab.cli.parser import Parser, add_common
from gpt2lab.measures.prediction import predict
from gpt2lab.model.architecture import attach
from gpt2lab.model.task_heads import Head
from gpt2lab.runs.run import Run
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import Tokenizer
from tests.tiny import tiny

Typed = Callable[[str, bool], Any]

CALLS = {
    "papers": "gpt2lab.cli.skeleton.new_paper",
    "reproduce": "gpt2lab.studies.study.reproduce",
    "train": "gpt2lab.actions.train.train",
    "generate": "gpt2lab.actions.generate.generate",
    "apply": "gpt2lab.actions.apply.apply",
    "measure": "gpt2lab.actions.measure.measure",
    "predict": "gpt2lab.actions.predict.predict",
    "write": "gpt2lab.actions.write.write",
    "split": "gpt2lab.actions.split.split",
    "vectors": "gpt2lab.actions.vectors.vectors",
    "export": "gpt2lab.actions.export.export",
    "report": "gpt2lab.runs.report.write.write_report",
    "compare": "gpt2lab.studies.comparison.compare_parts",
    "compare runs": "gpt2lab.actions.compare.compare",
    "resume": "gpt2lab.studies.resume.resume",
}
"""What each verb calls; runs prints what it finds, and `papers` too without `new`."""

BASES = {
    "papers": "papers new an-idea",
    "reproduce": "reproduce conda",
    "train": "train --data tinyworld:9",
    "generate": "generate MODEL once",
    "apply": "apply quantize MODEL",
    "measure": "measure perplexity MODEL",
    "predict": "predict MODEL once",
    "write": "write recall-task --task parity --out there",
    "split": "split FILE --out there",
    "vectors": "vectors --data tinyworld:9 --out there.bin",
    "export": "export MODEL --to gguf --out there",
    "report": "report a-run",
    "compare": "compare decoders",
    "compare runs": "compare one-1 two-1",
    "resume": "resume a-run",
}
"""What is typed without the option."""

EFFECTS = {
    "papers": ("--kind decoder", "--out there", "--package"),
    "reproduce": (
        "--scale smoke", "--seeds 5", "--seed 3", "--seed-list 7,8", "--workers 2", "--threads 2", "--device cpu",
        "--set sweep=1",
    ),
    "train": ("--name other", "--set samples=1"),
    "generate": (
        "--max-new-tokens 3", "--min-new-tokens 2", "--stop end", "--device cpu", "--dtype float32", "--chat",
        "--set repetition_penalty=2", "--decoder beam", "--decoder sampling --seed 1", "--prompts FILE -once",
        "--prompts FILE --field other -once",
    ),
    "apply": ("--out there", "--device cpu", "--dtype float32", "--set bits=4"),
    "measure": ("--device cpu", "--dtype float32", "--set limit=9"),
    "predict": (
        "--head class", "--pair second", "--truncate left", "--device cpu", "--dtype float32", "--data FILE -once",
        "--data FILE --field other -once",
    ),
    "write": ("--out elsewhere", "--set level=medium"),
    "split": (
        "--out elsewhere", "--field other", "--label other", "--positive one", "--id other", "--date other", "--by id",
        "--test 9", "--labelled 5", "--without-contacts", "--set test=9",
    ),
    "vectors": (
        "--data tinyworld:8", "--out there.vec", "--field other", "--vectors skipgram", "--set counting.window=3",
        "--counting.window 3", "--counting.weighting flat", "--counting.least 2", "--counting.shift 2",
        "--counting.smoothing 1", "--counting.dimensions 9", "--counting.eigenvalue-weight 1", "--skipgram.objective cbow",
        "--skipgram.dimensions 9", "--skipgram.window 3", "--skipgram.least 2", "--skipgram.shortest 2",
        "--skipgram.longest 5", "--skipgram.buckets 99", "--skipgram.negatives 3", "--skipgram.subsample 0",
        "--skipgram.epochs 2", "--skipgram.batch-size 64", "--skipgram.learning-rate 0.2", "--skipgram.seed 1",
    ),
    "export": ("--precision f16", "--to onnx", "--out elsewhere"),
    "report": ("--figures pdf", "--tables latex"),
    "compare": (
        "--on tinyworld:9", "--only greedy", "--scale smoke", "--seeds 5", "--seed 3", "--seed-list 7,8",
        "--workers 2", "--threads 2", "--device cpu", "--set updates=9",
    ),
    "compare runs": ("--out there",),
    "resume": ("--workers 2", "--take-over", "--seed-list 7,8"),
}  # fmt: skip
"""What is added to the base, and changes the call; `-once` takes the typed text away."""

REFUSED = (
    ("papers --kind decoder", "goes with `gpt2lab papers new NAME`"),
    ("papers --out there", "goes with `gpt2lab papers new NAME`"),
    ("papers --package", "goes with `gpt2lab papers new NAME`"),
    ("papers new an-idea --sort date", "--sort: orders the list of papers"),
    ("papers conda --sort date", "--sort: orders the list of papers"),
    ("reproduce conda --seed-list 0,2 --seed 1", "give one of the two"),
    ("compare decoders --seed-list 0,2 --seeds 2", "give one of the two"),
    ("generate MODEL once --seed 1", "the decoder greedy draws nothing"),
    ("generate MODEL once --decoder beam --seed 1", "the decoder beam draws nothing"),
    ("generate MODEL once --decoder contrastive-search --seed 1", "the decoder contrastive-search draws nothing"),
    ("generate MODEL once --decoder contrastive-search --top-p 0.5", "sampled is 0"),
    ("generate MODEL once --top-p 0.5", "no option of greedy"),
    ("generate MODEL once --k 4", "no option of greedy"),
    ("generate MODEL once --set batch_size=4", "--set batch_size: no option of a decoder"),
    ("generate MODEL once --set logprobs=true", "--set logprobs: no option of a decoder"),
    ("generate MODEL once --field other", "--field names a field of the rows of --prompts"),
    ("generate MODEL once --prompts FILE", "give one of the two"),
    ("predict MODEL once --field other", "--field names a field of the rows of --data"),
    ("predict MODEL once --data FILE", "give one of the two"),
    ("apply quantize MODEL --seed 1", "draws nothing"),
    ("apply quantize MODEL --steps 3", "--steps: no such option"),
    ("measure perplexity MODEL --seed 1", "draws nothing"),
    ("measure logit-lens MODEL --data FILE", "--data: no such option"),
    ("write recall-task --task parity --out there --field other", "--field: no such option"),
    ("write tinyworld:3 --out there.txt --set seed=1", "`field` is the one option, not seed"),
    ("write tinyworld:3 --out there.csv", "ends in .jsonl or .txt"),
    ("split FILE --out there --set source=x", "--set source: no option of a split"),
    ("split FILE --out there --by date", "by date: which field holds the date?"),
    ("vectors --data tinyworld:9 --out there.bin --skipgram.seed 1", "skipgram.seed is an option of skipgram vectors"),
    ("vectors --data tinyworld:9 --out there.bin --vectors skipgram --counting.least 2", "an option of ppmi vectors"),
    ("vectors --data tinyworld:9 --out there.bin --dimensions 9", "--counting.dimensions or --skipgram.dimensions"),
    ("vectors --data tinyworld:9 --out there.bin --seed 1", "give --skipgram.seed"),
    ("export MODEL --to onnx --out there --precision f16", "an ONNX file is written in f32"),
    ("runs --force", "goes with `gpt2lab runs delete`"),
    ("runs --dry-run", "goes with `gpt2lab runs clean`"),
    *(
        (f"runs {action} {option}", "chooses what `gpt2lab runs` lists")
        for action in ("delete one-1", "clean", "rebuild")
        for option in ("--kind measure", "--pieces", "--limit 3", "--limit 20")
    ),
    ("runs clean --force", "goes with `gpt2lab runs delete`"),
    ("runs rebuild --dry-run", "goes with `gpt2lab runs clean`"),
    ("compare one-1 two-1 --seeds 3", "--seeds: no such option"),
    ("compare decoders --out there", "--out: no such option"),
    ("resume one-1 --workers 2", "is one process"),
)  # fmt: skip
"""What is typed, and what is said: combinations in which an option has nothing to change."""

SHOWN = {
    "papers": (("papers", "--sort date"),),
    "runs": (
        ("runs", "--kind study"), ("runs", "--pieces"), ("runs", "--limit 1"), ("runs clean --dry-run", "--json"),
    ),
}  # fmt: skip
"""What changes what is printed."""

ELSEWHERE = {("runs", "--force"), ("runs", "--dry-run"), ("predict", "--out")}
"""Options whose effect follows the call, what is deleted or written: tests/cli/test_runs.py and test_predict.py."""


class _Caught(Exception):
    """Ends a verb at the call that it makes."""


@pytest.fixture(scope="module")
def place(word_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, rows of two fields, and a few runs; no test here writes to it."""
    place = tmp_path_factory.mktemp("options")
    save(LanguageModel(tiny("gpt2", vocab_size=word_tokenizer.vocab_size), word_tokenizer), place / "model")
    rows = [{"text": "a text", "other": "another text"}, {"text": "one", "other": "two"}]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for kind, name, parent in (
        ("train", "one", None), ("study", "two", None), ("measure", "two", None), ("seed", "piece", "two-1"),
    ):  # fmt: skip
        with Run.start(kind, name, home=place / "runs", parent=parent):
            pass
    return place


@pytest.fixture
def typed(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type words; return the call that they make (`caught`), or else what is printed."""
    monkeypatch.setenv("GPT2LAB_HOME", str(place / "runs"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(line: str, caught: bool) -> Any:
        found: list[Any] = []

        def catch(*given: Any, **named: Any) -> None:
            found.append((given, {name: value for name, value in named.items() if name != "command"}))
            raise _Caught

        words = line.replace("MODEL", str(place / "model")).replace("FILE", str(place / "rows.jsonl")).split()
        words = [word for word in words if word != "once"] if "-once" in words else words
        with pytest.MonkeyPatch.context() as patch:
            for function in CALLS.values() if caught else ():
                module, _, name = function.rpartition(
                    "."
                )  # the package has the verbs under the modules' names
                patch.setattr(importlib.import_module(module), name, catch)
            status = main([word for word in words if word != "-once"])
        said = capsys.readouterr()
        if caught:
            assert found, said.err
            return found
        return status, said.out, said.err

    return call


def _options(verb: str) -> set[str]:
    """Return the options of a verb itself, by their first spelling: those of its part, and everybody's, left out."""
    words = BASES.get(verb, verb).replace("MODEL", "m").split()[1:]
    parser, common = Parser(prog=verb), Parser(prog=verb)
    importlib.import_module(f"gpt2lab.cli.{verb.split()[0]}").add(parser, words)
    add_common(common)
    owner = {"apply": "transform", "measure": "measure", "generate": "decoder", "write": "source"}.get(verb)
    skipped = set(common._option_string_actions)
    if owner is not None:
        chosen = part(owner, {"generate": "greedy"}.get(verb, words[0]))
        skipped |= {f"--{option.name.replace('_', '-')}" for option in options(chosen)}
    if verb == "train":  # settings, which have a test of their own
        skipped |= {one for one in parser._option_string_actions if one not in ("--name", "--set")}
    actions = [action for action in parser._actions if action.option_strings]
    return {action.option_strings[0] for action in actions if not skipped & set(action.option_strings)}


@pytest.mark.parametrize("verb", [*VERBS, "compare runs"])
def test_every_option_of_a_verb_has_a_case(verb: str) -> None:
    cases = {word for case in EFFECTS.get(verb, ()) for word in case.split() if word.startswith("--")}
    cases |= {option.split()[0] for _, option in SHOWN.get(verb, ())}
    cases |= {option for other, option in ELSEWHERE if other == verb}
    assert _options(verb) - cases == set()


@pytest.mark.parametrize(("verb", "option"), [(verb, option) for verb in EFFECTS for option in EFFECTS[verb]])
def test_an_option_changes_the_call(verb: str, option: str, typed: Typed) -> None:
    base = BASES[verb]
    fewer = " ".join(word for word in option.replace("--field other", "").replace("--seed 1", "").split())
    assert typed(f"{base} {option}", True) != typed(base, True)
    assert option == fewer or typed(f"{base} {option}", True) != typed(f"{base} {fewer}", True)


@pytest.mark.parametrize(("line", "sentence"), REFUSED, ids=[line for line, _ in REFUSED])
def test_an_option_that_has_nothing_to_change_is_refused(line: str, sentence: str, typed: Typed) -> None:
    status, out, error = typed(line, False)
    assert (status, out) == (2, ""), error
    assert sentence in error and error.count("\n") == 1


@pytest.mark.parametrize(("line", "option"), [case for cases in SHOWN.values() for case in cases])
def test_an_option_changes_what_is_printed(line: str, option: str, typed: Typed) -> None:
    before, after = typed(line, False), typed(f"{line} {option}", False)
    assert (before[0], after[0]) == (0, 0)
    assert before[1] != after[1]


def test_second_texts_are_refused_by_a_head_of_words(lm: LanguageModel) -> None:
    attach(lm.model, Head(name="tags", kind="tokens", outputs=2, labels=("O", "B-NAME")))
    with pytest.raises(LabError, match="head tags labels the words of one text, and takes no second texts"):
        predict(lm, ["a text"], pairs=["a second one"])


ALL_PARTS = [pytest.param(one, id=one.name) for kind in PART_KINDS for one in parts(kind) if one.built]


@pytest.mark.parametrize("one", ALL_PARTS)
def test_every_option_of_a_part_is_read_after_it_was_checked(one: Part) -> None:
    made = one.load()
    if not dataclasses.is_dataclass(made):
        return  # what is no dataclass has no flags
    names = {field.name for field in dataclasses.fields(made) if field.init}
    assert names - set(_read(made)) == set()


def _read(made: type) -> Iterator[str]:
    """Yield the attributes that a part's class, its bases and what stands beside it read outside of `__post_init__`."""
    for cls in made.__mro__:
        if cls.__module__.startswith("gpt2lab.") or cls is made:
            yield from _read_in(Path(inspect.getfile(sys.modules[cls.__module__])).parent)


@functools.cache
def _read_in(folder: Path) -> frozenset[str]:
    """Return the attributes that the modules of a folder read; many parts share one."""
    found = set()
    for path in folder.rglob("*.py"):
        waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.FunctionDef) and node.name == "__post_init__":
                continue
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            waiting += ast.iter_child_nodes(node)
    return frozenset(found)
