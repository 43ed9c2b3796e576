"""Judges of pairs that differ in pre-training and in the pairs they were fine-tuned on, all tested on DNA and proteins.

Every arm fine-tunes the same model on as many pairs, in as many updates, at the rate that was best for its own task on the
tuning seed: nothing is chosen on pairs of DNA and protein but by the two arms that may see their labels. The test sets of a
seed are the same for all arms; so are a corpus's weights for all arms that begin with it.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpt2lab.measures.held_out import windows_loss
from gpt2lab.measures.measurement import Measurement
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.central_dogma.measure import Judged, judge, measurement
from gpt2lab.papers.central_dogma.pairs import read_pairs, unseen
from gpt2lab.papers.central_dogma.study import pictures
from gpt2lab.papers.central_dogma.study.analysis import analyse
from gpt2lab.papers.central_dogma.study.claims import CLAIMS
from gpt2lab.papers.central_dogma.study.settings import (
    ARMS,
    CORPORA,
    PRESETS,
    SEPARATOR,
    Arm,
    Corpus,
    Settings,
)
from gpt2lab.papers.central_dogma.transform import PairJudge
from gpt2lab.studies.graph import UnitSpec
from gpt2lab.studies.sweep import best_on_grid
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.text.codon_tokenizer import codon_level
from gpt2lab.text.generators.sequence_pairs import Pair
from gpt2lab.text.language_model import LanguageModel, load
from gpt2lab.text.mixture import mixture
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.loop import NotFinite

__all__ = [
    "ARMS", "CLAIMS", "CORPORA", "PRESETS", "Settings", "fine_tune", "pretrain", "run", "summarise", "test_sets", "tune",
    "units",
]  # fmt: skip

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

_TOKENIZER = "tokenizer"
_TUNING, _TEST = "pairs of the arm's own task", "test pairs"
_FURTHER = 1
"""Learning rates that are tried beyond the grid."""
_TRAIN, _VALID, _OWN, _TARGET = 1, 2, 3, 4
"""Purposes of pairs: what is generated for one has another seed than for the others."""
_TOKENIZER_DOCUMENTS = 6000
_HELD_OUT = 50
"""Every such document of a corpus is not trained on."""


def units(settings: Settings) -> list[UnitSpec]:
    """Return the tokenizer, the pre-training of every corpus, the tuning of every arm and the arms."""
    made = [UnitSpec(_TOKENIZER, make_tokenizer, shared=True)]
    for corpus in settings.corpora:
        made.append(UnitSpec(_corpus(corpus), partial(pretrain, corpus=corpus), needs=(_TOKENIZER,)))
        made.append(
            UnitSpec(
                f"tuning.{_corpus(corpus)}",
                partial(pretrain, corpus=corpus),
                needs=(_TOKENIZER,),
                tuning=True,
            )
        )
    for arm in settings.arms:
        corpus = ARMS[arm].corpus
        tuned = (f"tuning.{_corpus(corpus)}",) if corpus else ()
        own = (_corpus(corpus),) if corpus else ()
        made.append(UnitSpec(_tuning(arm), partial(tune, arm=arm), needs=(_TOKENIZER, *tuned), tuning=True))
        made.append(UnitSpec(arm, partial(fine_tune, arm=arm), needs=(_TOKENIZER, _tuning(arm), *own)))
    return made


def _corpus(name: str) -> str:
    return f"corpus.{name}"


def _tuning(arm: str) -> str:
    return f"tuning.{arm}"


def _seed(run: "Run", purpose: int) -> int:
    """Return the seed of what is generated for one purpose; no two seeds of a study share one."""
    return 10 * run.seed + purpose


def documents(settings: Settings, corpus: Corpus, seed: int) -> list[str]:
    """Return the documents of a corpus, mixed by its weights."""
    size = settings.documents
    weights = {
        f"retold:{size}:{seed}:3": corpus.text,
        f"genes:{size}:{seed}:{corpus.parallel}": corpus.genes,
    }
    return list(mixture(weights, size, seed=seed))


def make_tokenizer(settings: Settings, run: "Run") -> None:
    """Train the joint BPE on all languages, DNA and proteins."""
    few = min(settings.documents, _TOKENIZER_DOCUMENTS)
    weights = {f"retold:{few}:{_seed(run, 0)}:3": 2.0, f"genes:{few}:{_seed(run, 0)}": 1.0}
    tokenizer = train_bpe(mixture(weights, few), settings.vocab_size, split_words=settings.split_words)
    save_tokenizer(tokenizer, run.folder / "tokenizer")
    run.result("vocabulary", tokenizer.vocab_size)
    bases = [text for text in mixture(weights, few) if set(text) <= set("ACGT")]
    run.result("bases_per_token", sum(map(len, bases)) / sum(map(len, tokenizer.encode_batch(bases))))


def new_model(settings: Settings, tokenizer: Tokenizer, seed: int) -> LanguageModel:
    """Return a model with the initial weights of a seed."""
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size, d_model=settings.d_model, n_layers=settings.n_layers, n_heads=settings.n_heads,
        max_positions=settings.context, eos=tokenizer.eos, pad=tokenizer.eos, init_std=settings.init_std,
    )  # fmt: skip
    return LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(seed)), tokenizer)


def pretrain(settings: Settings, run: "Run", *, corpus: str) -> None:
    """Train a language model on a corpus and keep it."""
    tokenizer = load_tokenizer(run.needed[_TOKENIZER].folder / "tokenizer")
    texts = documents(settings, CORPORA[corpus], _seed(run, 0))
    held = _tokens(tokenizer, texts[::_HELD_OUT])
    training = _tokens(tokenizer, [text for place, text in enumerate(texts) if place % _HELD_OUT])
    lm = new_model(settings, tokenizer, run.seed)
    lm.model.to(run.device)
    rows, context, steps = settings.batch_size, settings.context, settings.pretraining_steps
    train(
        lm.model,
        PackedBatches(ArrayTokens(training), batch_size=rows, context=context, seed=run.seed),
        settings=TrainSettings(
            steps=steps,
            learning_rate=settings.pretraining_rate,
            warmup=steps // 20,
            weight_decay=0.01,
            precision=settings.precision,  # type: ignore[arg-type]  # checked by TrainSettings
            log_every=max(1, steps // 50),
        ),
        log=run.log,
        checkpoints=run.checkpoints,
        resume=True,
        seed=run.seed,
        label=f"corpus {corpus}",
    )
    windows = PackedBatches(ArrayTokens(held), batch_size=rows, context=context, shuffle=False)
    counts = np.bincount(training, minlength=tokenizer.vocab_size) + 1.0
    run.result("loss", windows_loss(lm.model, windows).loss)
    run.result("unigram_loss", float(-np.log(counts / counts.sum())[held].mean()))
    run.result("tokens", len(training))
    run.model(lm)


def _tokens(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    assert tokenizer.eos is not None
    return np.array(
        [token for ids in tokenizer.encode_batch(texts) for token in (*ids, tokenizer.eos)], dtype=np.int64
    )


def _start(settings: Settings, run: "Run", arm: Arm, unit: str) -> LanguageModel:
    """Return the model that an arm fine-tunes: what its corpus has made of it, or random weights."""
    if arm.corpus:
        lm = load(run.needed[unit].folder / "model")
    elif arm.codons:
        lm = new_model(settings, codon_level(), run.seed)
    else:
        lm = new_model(settings, load_tokenizer(run.needed[_TOKENIZER].folder / "tokenizer"), run.seed)
    lm.model.to(run.device)
    return lm


class _Trial:
    """A journal of one training of a unit that makes several: a folder for its checkpoints, and no log."""

    def __init__(self, folder: Path) -> None:
        self.checkpoints = folder
        self.results: dict[str, Any] = {}

    def log(self, step: int, **numbers: Any) -> None:
        """Keep nothing."""

    def result(self, name: str, value: Any) -> None:
        """Keep a number for the unit."""
        self.results[name] = value

    def table(self, *given: Any, **more: Any) -> None:
        """Keep nothing."""

    def note(self, sentence: str) -> None:
        """Keep nothing."""


def _judge_of(settings: Settings, arm: Arm, run: "Run", rate: float, steps: int) -> PairJudge:
    def source(size: int, purpose: int) -> tuple[str, ...]:
        return (f"{arm.task}:{size}:{_seed(run, purpose)}:{_third(settings, arm)}",)

    return PairJudge(
        data=source(settings.pairs, _TRAIN),
        valid=source(settings.tuning_pairs, _VALID),
        separator=SEPARATOR if arm.codons else "",
        steps=steps,
        learning_rate=rate,
        batch_size=settings.batch_size,
        precision=settings.precision,  # type: ignore[arg-type]  # checked by TrainSettings
        seed=run.seed,
    )


def _third(settings: Settings, arm: Arm) -> int:
    return arm.third if arm.task == "paraphrases" else settings.residues


def tune(settings: Settings, run: "Run", *, arm: str) -> None:
    """Choose an arm's learning rate in short trials by the loss on pairs of its own task."""
    run.chooses("learning rate", on=_TUNING)
    spec, steps = ARMS[arm], max(1, round(settings.trial * settings.steps))
    trials = len(settings.rates) + (_FURTHER if len(settings.rates) > 1 else 0)
    tried = list[dict[str, float]]()

    def loss_of(rate: float) -> float:
        lm, journal = (
            _start(settings, run, spec, f"tuning.{_corpus(spec.corpus)}"),
            _Trial(run.checkpoints / f"{len(tried)}"),
        )
        try:
            _judge_of(settings, spec, run, rate, steps).train(lm, journal)
            loss, right = journal.results["validation_loss"], journal.results["accuracy"]
        except NotFinite:
            loss, right = float("inf"), float("nan")
        tried.append({"learning_rate": rate, "loss": loss, "accuracy": right})
        run.share(len(tried) / trials)
        return float(loss)

    rate, loss, at_edge = best_on_grid(settings.rates, loss_of, further=trials - len(settings.rates))
    run.table("sweep", tried, f"Loss and accuracy on {_TUNING} after {steps} updates, of every rate tried")
    run.result("learning_rate", rate)
    run.result("loss", loss)
    run.result("at_edge", at_edge and trials > 1)
    run.result("trials", len(tried))


def test_sets(settings: Settings, arm: Arm, seed: int) -> dict[str, list[Pair]]:
    """Return the test pairs of a seed by set: the arm's own task, then those that no judge of sentences has seen.

    seed: `10 · seed of the study`, to which the purpose is added.
    """
    size, residues = settings.test_pairs, settings.residues
    typed = -(-size // 16) * 16
    own = f"{arm.task}:{size}:{seed + _OWN}:{_third(settings, arm)}"
    return {
        name: read_pairs((source,))
        for name, source in {
            "own": own,
            "order": f"dna-protein-shuffled:{size}:{seed + _TARGET}:{residues}",
            "dna_protein": f"dna-protein:{size}:{seed + _TARGET}:{residues}",
            "typed": f"dna-protein-typed:{typed}:{seed + _TARGET}:{residues}",
            "dna_dna": f"dna-pairs:{size}:{seed + _TARGET}:{residues}",
            "protein_protein": f"protein-pairs:{size}:{seed + _TARGET}:{residues}",
        }.items()
    }


def fine_tune(settings: Settings, run: "Run", *, arm: str) -> None:
    """Fine-tune an arm at the rate that its tuning chose, and judge all test sets of the seed."""
    run.judges("accuracies", on=_TEST)
    spec, chosen = ARMS[arm], run.needed[_tuning(arm)].results
    transform = _judge_of(settings, spec, run, chosen["learning_rate"], settings.steps)
    lm = transform.train(_start(settings, run, spec, _corpus(spec.corpus)), run)
    run.result("learning_rate", chosen["learning_rate"])
    run.result("at_edge", chosen["at_edge"])
    trained_on = read_pairs(transform.data)
    for name, pairs in test_sets(settings, spec, 10 * run.seed).items():
        fresh = unseen(pairs, trained_on)  # of short sentences a few are drawn twice
        judged, _ = judge(lm, fresh, head=None, separator=transform.separator)
        found = judged.numbers()
        run.result(name, found["accuracy"])
        for number in ("auroc", "p_value", "said_match"):
            run.result(f"{name}.{number}", found[number])
        run.result(f"{name}.left_out", len(pairs) - len(fresh))
        if name == "typed":
            _report_types(run, judged, fresh)
    if spec.codons:
        analyse(settings, run, lm, 10 * run.seed + _TARGET)
    run.model(lm)


def _report_types(run: "Run", judged: Judged, pairs: list[Pair]) -> None:
    found = measurement(judged, pairs, baselines=False)
    run.table("types", found.tables["types"], "Accuracy by kind of pair, with Wilson's 95 % interval")
    run.table("confusion", found.tables["confusion"], "Pairs by label and judgement")


def run(settings: Settings, run: "Run") -> None:
    """Put the arms of one seed together, with the rule judge and the shortcuts on the pairs that they judged."""
    for arm in settings.arms:
        for name, value in run.arms[arm].results.items():
            run.result(f"{arm}.{name}", value)
    for corpus in settings.corpora:
        for name in ("loss", "unigram_loss"):
            run.result(f"{_corpus(corpus)}.{name}", run.arms[_corpus(corpus)].results[name])
    sets = test_sets(settings, ARMS["english"], 10 * run.seed)
    for name in ("order", "dna_protein"):
        found = beside(sets[name])
        for number, value in found.numbers.items():
            if number.startswith(("rule.", "shortcut.")):
                run.result(f"{name}.{number}", value)
        run.table(
            f"audit_{name}",
            found.tables["audit"],
            f"What gives the pairs of {name} away: shares of either label",
        )
    run.table("judges", _rows(settings, run.results), "Accuracy of every judge on every set of the seed")


def beside(pairs: list[Pair]) -> Measurement:
    """Return what rules and shortcuts say of pairs, beside a judge that calls none a match."""
    labels = np.array([pair.label for pair in pairs])
    return measurement(Judged(labels, np.zeros_like(labels), np.zeros(len(labels))), pairs)


def _rows(settings: Settings, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    sets = ("own", "order", "dna_protein", "typed", "dna_dna", "protein_protein")
    return [
        {
            "judge": arm,
            "pre-training": ARMS[arm].corpus or "none",
            "fine-tuned on": ARMS[arm].task,
            **{name.replace("_", "-"): results[f"{arm}.{name}"] for name in sets},
            "p, two-sided": results[f"{arm}.order.p_value"],
            "learning rate": results[f"{arm}.learning_rate"],
        }
        for arm in settings.arms
    ]


def summarise(settings: Settings, study: "Study") -> None:
    """Add the figures and tables over all seeds."""
    pictures.add(settings, study)
