"""What is read: for each kind of loader a small valid folder, and a function that reads it as a user would."""

import dataclasses
import gzip
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.registry import read_paper
from gpt2lab.base.settings import build, from_plain, parse_assignments, to_plain
from gpt2lab.measures.choice import MultipleChoice
from gpt2lab.measures.index import Index
from gpt2lab.measures.measurement import Measurement
from gpt2lab.model import Transformer, attach, load_model, save_model
from gpt2lab.model.adapters import Lora
from gpt2lab.model.adapters.peft_files import load_adapter, save_adapter
from gpt2lab.model.checkpoints.families import CONSTRUCTORS, gpt2_config
from gpt2lab.model.quantization.quantized import Quantized
from gpt2lab.model.soft_prompt import SoftPrompt
from gpt2lab.model.task_heads import Head
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.text import records, shards, sources
from gpt2lab.text.labelled import Target, read_examples
from gpt2lab.text.reduction import VocabularyReduction, count_tokens, reduce_vocabulary
from gpt2lab.text.tokenizer import byte_level, train_bpe, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer
from gpt2lab.training.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint

SENTENCE = "low lower the lowest of them, é 12  <|endoftext|> end"
IDS = torch.tensor([[6, 5, 7, 5, 8, 12, 5, 9], [10, 11, 11, 5, 6, 8, 5, 8]])  # none is the padding of RoBERTa
SMALL = {"vocab_size": 13, "d_model": 16, "n_layers": 2, "n_heads": 2, "max_positions": 16}


@dataclass(frozen=True)
class Kind:
    """A kind of loader."""

    make: Callable[[Path], object]
    """Writes a valid folder."""
    load: Callable[[Path], object]
    """Reads a folder and returns what can be compared (tensors, lists, text), None for what has no one answer."""
    oracle: Callable[[Path], object] | None = None
    """What another program makes of the folder: a changed folder may read differently only if it says the same."""
    weight: int = 1
    """How often it is tried."""


def kinds() -> dict[str, Kind]:
    """Return every kind by name."""
    found: dict[str, Kind] = {}
    for family in CONSTRUCTORS:
        found[f"model.{family}"] = Kind(_model(family), _logits, _their_logits, weight=3)
    found |= {
        "model.index": Kind(_in_shards, _logits, _their_logits, weight=4),
        "model.classifier": Kind(_classifier, _states, _their_states, weight=2),
        "model.own": Kind(_own(), _logits, weight=2),
        "model.own.prompt": Kind(_own(SoftPrompt(length=2)), _logits, weight=2),
        "model.own.quantized": Kind(_own(Quantized(bits=4)), _logits, weight=2),
        "adapter": Kind(_adapter, _adapted, _theirs_adapted, weight=3),
        "tokenizer.json": Kind(_tokenizer_json, _ids, _their_ids, weight=6),
        "tokenizer.merges": Kind(_tokenizer_merges, _ids, _their_ids, weight=4),
        "tokenizer.words": Kind(_tokenizer_words, _encoded, weight=3),
        "tokenizer.reduced": Kind(_reduced, _ids, weight=2),
        "shards": Kind(_shards, _tokens, weight=4),
        "checkpoint": Kind(_checkpoint, _resumed, weight=3),
        "run": Kind(_run, _record, weight=5),
        "index": Kind(_index, lambda folder: Index.load(folder).vectors, weight=3),
        "measurement": Kind(_measurement, _measured, weight=4),
        "settings": Kind(_settings, _given, weight=5),
        "typed": Kind(_typed, _assigned, weight=5),
        "paper": Kind(_paper, _described, weight=5),
        "choice": Kind(_choice, _questions, weight=4),
        "text": Kind(_text, _documents, weight=12),
        "labelled": Kind(_labelled, _examples, weight=6),
    }  # fmt: skip
    return found


def _model(family: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        sizes = {**SMALL, **({"pad": 1} if family == "roberta" else {})}
        config = CONSTRUCTORS[family](**sizes)
        save_model(Transformer(config.replace(bos=0, eos=1)), folder, layout="huggingface")

    return make


def _in_shards(folder: Path) -> None:
    save_model(Transformer(gpt2_config(**SMALL)), folder, shard_bytes=2000)


def _classifier(folder: Path) -> None:
    model = Transformer(CONSTRUCTORS["bert"](**SMALL).replace(pooler=True, head="none"))
    attach(model, Head(name="label", outputs=3, pooling="pooler", bias=True))
    save_model(model, folder, layout="huggingface")


def _own(*architectures: Any) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        model = Transformer(gpt2_config(**SMALL).replace(norm="rmsnorm"))
        for architecture in architectures:
            attach(model, architecture)
        save_model(model, folder, layout="gpt2lab")

    return make


def _logits(folder: Path) -> object:
    model = load_model(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(IDS) if model.config.head != "none" else model.hidden(IDS)


def _states(folder: Path) -> object:
    model = load_model(folder, dtype=torch.float32)
    with torch.no_grad():
        return model.hidden(IDS)


def _their_logits(folder: Path) -> object:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    masked = AutoConfig.from_pretrained(folder).model_type in ("bert", "roberta", "distilbert")
    kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    with torch.no_grad():
        return (
            kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
            .eval()(IDS, return_dict=True)
            .logits
        )


def _adapter(folder: Path) -> None:
    model = attach(_base(), Lora(rank=2, targets=("qkv", "mlp.up")))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".B"):
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    save_adapter(model, folder, base="base")


def _base() -> Transformer:
    return Transformer(gpt2_config(**SMALL)).eval()


def _adapted(folder: Path) -> object:
    model = _base()
    load_adapter(model, folder)
    with torch.no_grad():
        return model.eval()(IDS)


def _theirs_adapted(folder: Path) -> object:
    import tempfile

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as base:
        save_model(_base(), Path(base) / "base", layout="huggingface")
        theirs = AutoModelForCausalLM.from_pretrained(Path(base) / "base", attn_implementation="eager")
        with torch.no_grad():
            return PeftModel.from_pretrained(theirs, str(folder)).eval()(IDS, return_dict=True).logits


def _their_states(folder: Path) -> object:
    from transformers import AutoModelForSequenceClassification

    theirs = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        return theirs.eval()(IDS, output_hidden_states=True).hidden_states[-1]


def _tokenizer_json(folder: Path) -> None:
    save_tokenizer(train_bpe([SENTENCE] * 3, 290), folder)


def _tokenizer_merges(folder: Path) -> None:
    model = json.loads(train_bpe([SENTENCE] * 3, 290).backend.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps({"<extra>": len(model["vocab"])}), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))


def _tokenizer_words(folder: Path) -> None:
    words = {
        word: id
        for id, word in enumerate(["<unk>", "low", "lower", "the", "lowest", "of them,", "12", "end"])
    }
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")


def _reduced(folder: Path) -> None:
    full = byte_level()
    save_tokenizer(full, folder)
    reduction = reduce_vocabulary(count_tokens([full.encode(SENTENCE)], full), size=20, eos=full.eos)
    reduction.save(folder)
    assert isinstance(VocabularyReduction.load(folder), VocabularyReduction)


def _ids(folder: Path) -> object:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(SENTENCE)
    tokenizer.decode(ids)
    return ids


def _encoded(folder: Path) -> None:
    """A changed list of words is another list of words."""
    _ids(folder)


def _their_ids(folder: Path) -> object:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))(SENTENCE, add_special_tokens=False)["input_ids"]


def _shards(folder: Path) -> None:
    shards.build(
        iter([SENTENCE, "low " * 20, "end"] * 3), byte_level(), folder / "shards", valid_fraction=0.3
    )


def _tokens(folder: Path) -> object:
    opened = shards.Shards.open(folder / "shards", tokenizer=byte_level())
    streams = [opened.split(name) for name in ("train", "valid") if opened.has(name)]
    return [[stream.document(i) for i in range(stream.documents)] for stream in streams]


def _trainable() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(3, 2)
    torch.nn.init.ones_(model.weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def _checkpoint(folder: Path) -> None:
    model, optimizer = _trainable()
    save_checkpoint(folder / "checkpoints", 1, model, optimizer, {"validation_loss": 1.0})
    save_checkpoint(
        folder / "checkpoints", 2, model, optimizer, {"validation_loss": 0.5, "losses": [1.0, 2.0]}
    )


def _resumed(folder: Path) -> object:
    """The newest whole checkpoint; that the damaged one was passed over for the one before is right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = newest_checkpoint(folder / "checkpoints")
    if path is None:
        return None
    model, optimizer = _trainable()
    step, notes = load_checkpoint(path, model, optimizer)
    if step == 1 and notes == {"validation_loss": 1.0}:
        return None
    state = optimizer.state_dict()["state"][0]
    return [step, json.dumps(notes), model.weight.detach().clone(), *(state[name] for name in sorted(state))]


def _run(folder: Path) -> None:
    captions = {"tables": {"t": "a table"}, "figures": {}, "texts": {"x": "a text"}}
    (folder / "captions.json").write_text(json.dumps(captions))
    (folder / "settings.json").write_text(json.dumps({"steps": 3, "train": {"learning_rate": 0.1}}))
    (folder / "environment.json").write_text(json.dumps({"torch": "2", "cores": 2}))
    lines = [json.dumps({"step": i, "seconds": 0.1 * i, "loss": 1.0}) for i in range(5)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "tables").mkdir()
    (folder / "tables" / "t.csv").write_text("a,b\n1,x\n2,y\n")
    (folder / "texts").mkdir()
    (folder / "texts" / "x.txt").write_text("words")


def _record(folder: Path) -> object:
    run = RunRecord(id="r", folder=folder, results={})
    for name in ("settings.json", "environment.json"):
        run.json(name)
    run.series("loss")
    assert run.tables is not None and run.texts is not None and run.figures is not None
    return None


def _index(folder: Path) -> None:
    vectors = torch.nn.functional.normalize(torch.arange(12.0).view(4, 3) + 1, dim=1)
    Index(["a", "b", "c", "d"], vectors, fingerprint="x").save(folder / "index")
    for path in (folder / "index").iterdir():
        path.rename(folder / path.name)
    (folder / "index").rmdir()


def _measurement(folder: Path) -> None:
    found = Measurement(
        name="m", numbers={"a": 1.0, "b": float("inf")}, units={"a": "nats"}, tables={"t": [{"x": 1}]}
    )
    (folder / "m.json").write_text(found.to_json())


def _measured(folder: Path) -> None:
    text = (folder / "m.json").read_bytes().decode("utf-8", "surrogateescape")
    str(Measurement.from_json(text))


def _settings(folder: Path) -> None:
    (folder / "settings.json").write_text(json.dumps(to_plain(TrainingSettings(data=("x",)))))


def _given(folder: Path) -> None:
    from gpt2lab.runs.run_record import read_json

    from_plain(TrainingSettings, read_json(folder / "settings.json"), "settings.json")


def _typed(folder: Path) -> None:
    pairs = [
        "d_model=16",
        "train.steps=300",
        "train.learning_rate=1e-3",
        "data=a,b",
        "lora.rank=8",
        "model=x",
        "seed=1",
    ]
    (folder / "pairs.txt").write_text("\n".join(pairs))


def _assigned(folder: Path) -> None:
    text = (folder / "pairs.txt").read_bytes().decode("utf-8", "surrogateescape")
    build(TrainingSettings, parse_assignments(text.split("\n")), "train")


def _paper(folder: Path) -> None:
    import gpt2lab.papers

    source = Path(gpt2lab.papers.__file__).parent / "conda" / "paper.toml"
    (folder / "paper.toml").write_bytes(source.read_bytes())


def _described(folder: Path) -> None:
    read_paper(folder, "x")


def _questions(folder: Path) -> None:
    MultipleChoice(data=str(folder / "q.jsonl")).read()


def _choice(folder: Path) -> None:
    rows = [{"question": "Is it?", "choices": ["yes", "no"], "answer": i % 2} for i in range(3)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _text(folder: Path) -> None:
    rows = [{"text": f"{SENTENCE} {i}", "n": i, "l": ["a"]} for i in range(5)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "b.csv").write_text("n,text\n" + "".join(f'{i},"low ""x"" {i}"\n' for i in range(5)))
    (folder / "c.tsv").write_text("n\ttext\n1\tlow\n2\tlower\n")
    (folder / "d.txt").write_text(f"{SENTENCE}\n\n" * 20)
    (folder / "e.jsonl.gz").write_bytes(gzip.compress((folder / "a.jsonl").read_bytes(), mtime=0))
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "f.parquet")


def _documents(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in sources.documents(folder):
            pass
        for path in sorted(folder.iterdir()):
            if path.suffix != ".txt":
                for _ in records.records(path):
                    pass


def _labelled(folder: Path) -> None:
    rows = [
        {"text": f"low {i}", "kind": str(i % 2), "many": ["a", "b"], "score": 0.5, "pair": "x"}
        for i in range(5)
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "b.csv").write_text("text,kind,many,score,pair\n" + "low,1,a|b,0.5,x\n" * 3)


def _examples(folder: Path) -> None:
    targets = [
        Target(name="kind", kind="classification", fields=("kind",)),
        Target(name="many", kind="multilabel", fields=("many",)),
        Target(name="score", kind="regression", fields=("score",)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(folder.iterdir()):
            read_examples(str(path), targets=targets, pair="pair")


def same(one: object, other: object) -> bool:
    """Whether two results of `load` are equal, tensors to 1e-4."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not one.isfinite().all() and not other.isfinite().all():
            return one.shape == other.shape  # numbers that ran over do so elsewhere in another order of sums
        return one.shape == other.shape and torch.allclose(
            one.float(), other.float(), atol=1e-4, rtol=1e-3, equal_nan=True
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        return repr(one) == repr(other)
    return one == other


__all__ = ["Kind", "kinds", "same", "word_level"]
