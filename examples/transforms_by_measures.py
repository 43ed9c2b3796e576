"""Every transform of the registry under every measure of it, on one small model: which work, and why others do not.

    python examples/composition.py --matrix           prints the table of docs/guide/composition.md, in about a minute

Parts of plug-ins are in the registry too. A cell is `gpt2lab.measure(MEASURE, gpt2lab.apply(TRANSFORM, model))`; one that is
refused has the sentence that the command line says. Anything else than an answer or such a sentence is an error.
"""

import copy
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import Part, part, parts
from gpt2lab.measures.measurement import Measurement
from gpt2lab.model import Transformer, attach
from gpt2lab.model.checkpoints.families import bert_config, gpt2_config
from gpt2lab.model.task_heads import Head
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer, for_masking, train_bpe

PLAIN = "none"
"""The column of the model as it is."""

HARNESS_TASK = """
task: passages
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
num_fewshot: 0
"""
"""The rows of the example as a task of lm-evaluation-harness."""

UNSAID = 188
"""Id of the byte 255, which no text holds: a model without meta-attention is told which is the meta-token."""

TRANSFORMS: Mapping[str, Mapping[str, Any]] = {
    "quantize": {"method": "gptq"},
    "reduce-vocabulary": {"vocabulary": 300},
    "remove-layernorm": {"mode": "instant", "data": ("tinyworld:30",), "context": 16},
    "pair-judge": {"first": "text", "second": "question", "label": "match", "valid_fraction": 0.3, "evaluations": 0},
    "wechsel": {"source_data": ("tinyworld:60",), "dictionary": "identical", "context": 64},
}  # fmt: skip
"""What makes a transform quick, or possible at all; one that is not here works with its defaults."""

MADE_FOR: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "dequantize": ("quantize", {"method": "gptq"}),
    "fold-layernorm": (
        "remove-layernorm", {"mode": "instant", "output": "staged", "data": ("tinyworld:30",), "context": 16},
    ),
}  # fmt: skip
"""Transforms of what another one leaves: that other one, with its options."""

NEEDS: Mapping[str, Any] = {
    "merge-lora": lambda: part("architecture", "lora")(rank=2),
    "pondering-steps": lambda: part("architecture", "pondering")(steps=2),
    "classification": lambda: Head(name="of_three", outputs=3),
    "word-attribution": lambda: Head(name="of_three", outputs=3),
    "regression": lambda: Head(name="number", kind="regression", outputs=1),
    "token-classification": lambda: Head(name="tags", kind="tokens", outputs=2, labels=("O", "B-NAME")),
    "retrieval": lambda: Head(name="vector", kind="embedding", outputs=0, pooling="mean"),
    "translation-pairs": lambda: Head(name="judge", outputs=2),
    "codon-attribution": lambda: Head(name="judge", outputs=2),
    "loss-by-steps": lambda: part("architecture", "pondering")(steps=2),
}
"""Architectures that a transform changes, attached before it, or that a measure reads, attached after the transform."""

MEASURES: Mapping[str, Mapping[str, Any]] = {
    "text-statistics": {"texts": 4, "prompt_tokens": 5, "new_tokens": 16},
    "classification": {"head": "of_three", "label": ("answer",), "resamples": 100},
    "word-attribution": {"text": "Once upon a time there was", "head": "of_three"},
    "label-efficiency": {
        "label": "match", "test": "0.4", "budgets": (2,), "repeats": 1, "least_steps": 2, "most_steps": 2,
    },
    "regression": {"head": "number", "label": ("answer",), "resamples": 100},
    "token-classification": {"head": "tags", "field": "words", "label": ("label",), "resamples": 100},
    "retrieval": {"head": "vector", "resamples": 100},
    "lm-eval": {"tasks": ("passages",)},
    "logit-lens": {"prompt": "Once upon a time there was"},
    "attribution": {"prompt": "Once upon a time there was"},
    "patching": {"clean": "there was a little girl named", "corrupt": "there was a little boy named"},
    "activations": {"prompt": "Once upon a time there was", "read": ("resid_post", "hook_pattern")},
    "pseudo-perplexity": {"limit": 40},
    "translation-pairs": {
        "head": "judge", "kind": "texts", "first": "text", "second": "question", "label": "match", "baselines": False,
    },
    "codon-probe": {"data": ("dna-protein:5:3:6",)},
    "codon-attribution": {"data": ("dna-protein:8:3:8",), "head": "judge", "label": "label", "steps": 2},
    "pair-components": {"data": ("dna-protein:8:3:8",)},
    "isotropy": {"texts": 6, "max_tokens": 20},
    "meta-effects": {"token": UNSAID},
    "generation-quality": {"texts": 4, "prefix": 5, "new": 16},
    "language-perplexity": {"languages": ("shuffle_control", "shuffle_local3", "shuffle_nondeterministic")},
    "marker-surprisal": {"annotated": ("agreement:40",), "markers": (",", ".")},
    "interchange-intervention": {
        "base": (" there was a little girl",), "source": (" there was a little boy",), "markers": (",", "."),
    },
    "span-probe": {"annotated": ("agreement:60:1",), "per_label": 5},
    "knowledge-bits": {
        "facts": "biod-symbols:12", "attributes": 2, "diversity": 8, "alphabet": 8, "name_symbols": 9,
    },
    "knowledge-extraction": {
        "facts": "biod-symbols:12", "steps": 2, "rows": 4, "rank": 2, "embedding_rank": 2,
    },
    "patching-exactness": {"prompts": "two_names.csv"},
    "occupational-bias": {"mode": "exact", "n": 50, "gazetteer": "titles.csv"},
    "loss-by-steps": {"limit": 60},
    "story-quality": {"held_out": "tinyworld:12:9", "train": "tinyworld:40", "samples": 4, "max_new_tokens": 9},
    "story-diversity": {"held_out": "tinyworld:12:9", "train": "tinyworld:40", "prompts": 4, "max_new_tokens": 9},
    "short-prompts": {"max_new_tokens": 3},
    "story-circuits": {"stories": 4, "neurons": 2},
}  # fmt: skip
"""What a measure has to be given, and what makes it quick; one that is not here works with its defaults."""

ROTARY = {"extend-context"}
"""Transforms of rotary positions: their GPT-2 has those in place of learned ones."""

BIDIRECTIONAL = {"pseudo-perplexity"}
"""Measures of bidirectional models: a BERT of the same size is transformed for them."""


@dataclass(frozen=True)
class Cell:
    """What a measure says of a transformed model."""

    measured: Measurement | None
    refused: str = ""
    """Why there is no measurement, in one sentence."""


Cells = dict[str, dict[str, Cell]]


def built(kind: str) -> list[Part]:
    """Return the built parts of a kind, those of plug-ins included."""
    return [one for one in parts(kind) if one.built]


class Matrix:
    """The transformed models, each made once, and what every measure says of them."""

    def __init__(self, folder: Path) -> None:
        """Write the texts into `folder`."""
        self.folder = folder
        self.tokenizer = train_bpe(documents(0, 200), 480)
        write_texts(folder)
        self._made: dict[tuple[str, bool], LanguageModel | str] = {}

    def cells(self) -> Cells:
        """Return the outcome of every measure by transform."""
        transforms = [PLAIN, *(one.name for one in built("transform"))]
        return {one.name: {name: self.cell(one, name) for name in transforms} for one in built("measure")}

    def cell(self, measure: Part, transform: str) -> Cell:
        """Measure a transformed model."""
        lm = self.model(transform, causal=measure.name not in BIDIRECTIONAL)
        if isinstance(lm, str):
            return Cell(None, lm)
        try:
            if measure.name in NEEDS:
                lm = with_architecture(lm, NEEDS[measure.name]())
            options = given("measure", measure.name, MEASURES.get(measure.name, {}), self.folder)
            return Cell(gpt2lab.measure(measure.name, lm, keep=False, **options))
        except LabError as error:
            return Cell(None, str(error))

    def model(self, transform: str, *, causal: bool = True) -> LanguageModel | str:
        """Return the transformed model, or why the transform refuses it."""
        key = transform, causal
        if key not in self._made:
            try:
                self._made[key] = self._transformed(transform, causal)
            except LabError as error:
                self._made[key] = str(error)
        return self._made[key]

    def _transformed(self, transform: str, causal: bool) -> LanguageModel:
        lm = small_model(self.tokenizer, causal=causal, rotary=causal and transform in ROTARY)
        if transform == PLAIN:
            return lm
        if transform in NEEDS:
            lm = with_architecture(lm, NEEDS[transform]())
        if transform in MADE_FOR:
            before, options = MADE_FOR[transform]
            lm = gpt2lab.apply(before, lm, keep=False, **given("transform", before, options, self.folder))
        options = given("transform", transform, TRANSFORMS.get(transform, {}), self.folder)
        return gpt2lab.apply(transform, lm, keep=False, **options)


def small_model(tokenizer: Tokenizer, *, causal: bool = True, rotary: bool = False) -> LanguageModel:
    """Return a random GPT-2, or BERT, of two blocks."""
    shape: dict[str, Any] = {
        "d_model": 24,
        "n_layers": 2,
        "n_heads": 3,
        "max_positions": 160,
        "init_std": 0.15,
    }
    tokenizer = tokenizer if causal else for_masking(tokenizer)
    shape["vocab_size"] = tokenizer.vocab_size
    config = gpt2_config(eos=tokenizer.eos, **shape) if causal else bert_config(**shape)
    if rotary:
        config = config.replace(positions="rotary")
    return LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(0)).eval(), tokenizer)


def with_architecture(lm: LanguageModel, architecture: Any) -> LanguageModel:
    """Return the model with an architecture attached, untrained; one that has it already stays as it is."""
    if any(type(one) is type(architecture) and not isinstance(one, Head) for one in lm.model.architectures):
        return lm
    model = copy.deepcopy(lm.model)
    attach(model, architecture, generator=torch.Generator().manual_seed(0))
    return LanguageModel(model, lm.tokenizer)


def given(kind: str, name: str, options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the options of a part: its own, files by their paths, and the rows of the example wherever it reads text."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(part(kind, name))}
    rows = folder / ("collection" if name == "retrieval" else "rows.jsonl")
    common: dict[str, Any] = {"data": str(rows), "include_path": str(folder), "window": 64, "steps": 2}
    found = {key: value for key, value in (common | dict(options)).items() if key in fields}
    return {
        key: str(folder / value) if isinstance(value, str) and (folder / value).is_file() else value
        for key, value in found.items()
    }


def write_texts(folder: Path) -> None:
    """Write rows of text with labels of every kind, the same as a retrieval task and a harness task, and two lists."""
    texts = documents(1, 6)
    rows = [
        {
            "text": text, "question": text.split(".")[0], "choices": ["the ball", "a hat", "Anna"], "answer": i % 3,
            "match": i % 2, "words": text.split()[:12],
            "label": ["B-NAME" if word[0].isupper() else "O" for word in text.split()[:12]],
        }
        for i, text in enumerate(texts)
    ]  # fmt: skip
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "passages.yaml").write_text(HARNESS_TASK.format(file=file))
    (folder / "collection").mkdir()
    for name, field in (("corpus", "text"), ("queries", "question")):
        lines = [json.dumps({"_id": str(i), "text": row[field]}) + "\n" for i, row in enumerate(rows)]
        (folder / "collection" / f"{name}.jsonl").write_text("".join(lines))
    judged = [f"{i}\t{i}\t1\n" for i in range(len(rows))]
    (folder / "collection" / "qrels.tsv").write_text("".join(["query-id\tcorpus-id\tscore\n", *judged]))
    (folder / "titles.csv").write_text("job,update_match\ngirl,\nboy,\nfriend,\nkey,\n")
    told = [
        f'"then , the girl and the boy went . the{giver} gave a ball to the","{other}","{giver}"\n'
        for giver, other in ((" girl", " boy"), (" boy", " girl"))
    ]
    (folder / "two_names.csv").write_text("".join(["prompt,answer_io,answer_s\n", *told]))


def reasons(cells: Cells) -> dict[str, int]:
    """Number the sentences of what is refused, from 1, in the order of the table."""
    found = [cell.refused for row in cells.values() for cell in row.values() if cell.measured is None]
    return {sentence: number for number, sentence in enumerate(dict.fromkeys(found), start=1)}


def table(cells: Cells) -> str:
    """Return the outcomes as Markdown: `yes`, or the number of the reason below."""
    numbers = reasons(cells)
    columns = list(next(iter(cells.values())))
    lines = ["| measure | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for measure, row in cells.items():
        shown = ["yes" if cell.measured is not None else str(numbers[cell.refused]) for cell in row.values()]
        lines.append("| " + " | ".join([measure, *shown]) + " |")
    return "\n".join([*lines, "", *(f"{number}. {said}" for said, number in numbers.items())])


@contextmanager
def matrix() -> Iterator[Matrix]:
    """Make the matrix in a folder of its own, which is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Matrix(Path(folder))


def main() -> None:
    """Print the table."""
    with matrix() as made:
        print(table(made.cells()))


if __name__ == "__main__":
    main()
