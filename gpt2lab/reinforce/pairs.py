"""Pairs of answers to a prompt, the better and the worse one: read from files, checked, and in batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.continuation import split_continuations
from gpt2lab.reinforce.rollouts import continuations
from gpt2lab.text import rows, sources
from gpt2lab.text.batches import EpochBatches, Epochs
from gpt2lab.text.bounded import string
from gpt2lab.text.encoding import pad_id
from gpt2lab.text.labelled import SHARES
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.pieces import frame
from gpt2lab.text.records import records
from gpt2lab.text.splits import TRAIN, by_hash
from gpt2lab.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to a prompt."""

    prompt: str
    """What both answer; may be empty."""
    chosen: str
    """The better answer."""
    rejected: str
    """The worse one."""
    truth: str | None = None
    """A ground-truth answer, for an anchor."""
    where: str = ""
    """File and line, for messages."""


def read_pairs(
    source: sources.SourceLike,
    *,
    prompt: str = "prompt",
    chosen: str = "chosen",
    rejected: str = "rejected",
    truth: str | None = None,
) -> list[PreferencePair]:
    """Read rows of jsonl, csv, parquet or `hub:ID` as pairs; every name is that of a field.

    LabError, with file and line: a field is missing, an answer is empty, or both answers are the same.
    """
    found = []
    names = [prompt, chosen, rejected, *([truth] if truth is not None else [])]
    for where, row in records(source, *names):
        pair = PreferencePair(
            prompt=string(row[prompt], where, prompt),
            chosen=rows.text(row[chosen], where, chosen),
            rejected=rows.text(row[rejected], where, rejected),
            truth=rows.text(row[truth], where, truth) if truth is not None else None,
            where=where,
        )
        if pair.chosen == pair.rejected:
            raise LabError(f"{where}: both answers are the same; leave the row out")
        found.append(pair)
    return found


def split_pairs(
    pairs: Sequence[PreferencePair], fraction: float
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Split into training and validation by the hash of the prompt, so that a prompt's pairs stay on one side.

    Where all prompts are one, by the hash of the whole pair. LabError unless both sides get something.
    """
    alone = len({pair.prompt for pair in pairs}) > 1
    parts = by_hash(
        pairs,
        {"valid": fraction},
        key=lambda pair: pair.prompt if alone else f"{pair.chosen}\0{pair.rejected}",
        rule=SHARES,
        stratum=lambda pair: None,
    )
    return parts[TRAIN], parts["valid"]


class PreferenceBatches(EpochBatches):
    """Pairs as token batches for `DPO`.

    batches[i] has for each of chosen, rejected and (if pairs have one) truth: NAME_tokens and NAME_mask [batch, time],
    prompts padded on the left and answers on the right, and NAME_answer [batch, steps], true at the answer's tokens, which
    are the last `steps` columns. An answer ends with the tokenizer's eos, unless `end` is false. Pairs with an answer that
    the model's positions cannot hold beside its prompt are left out; `dropped` counts them.
    LabError: no tokenizer, no pair that fits, ground truths for some pairs only.
    """

    def __init__(
        self,
        pairs: Sequence[PreferencePair],
        lm: LanguageModel,
        *,
        batch_size: int,
        context: int | None = None,
        end: bool = True,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        tokenizer = lm.tokenizer
        if tokenizer is None:
            raise LabError("preference pairs are text, and this model has no tokenizer")
        if len({pair.truth is None for pair in pairs}) > 1:
            raise LabError("some pairs have a ground truth and others none; give all of them one")
        limit = min(context or lm.model.context, lm.model.context)
        ending = [tokenizer.eos] if end and tokenizer.eos is not None else []
        self.pad = pad_id(tokenizer)
        self.names = (
            ("chosen", "rejected", "truth")
            if pairs and pairs[0].truth is not None
            else ("chosen", "rejected")
        )
        every = [_split(tokenizer, pair, ending) for pair in pairs]
        self.rows = [row for row in every if all(len(x) + len(y) <= limit for x, y in row)]
        self.dropped = len(every) - len(self.rows)
        if not self.rows:
            raise LabError(
                f"none of {len(every)} pairs fits into {limit} tokens; there is nothing to train on"
            )
        self._epochs = Epochs(len(self.rows), batch_size, seed, shuffle, 0, 1)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.gather([item for _, item in self._epochs.rows(index)])

    def gather(self, items: Sequence[int]) -> dict[str, Tensor]:
        """Return the batch of these pairs, in this order."""
        batch: dict[str, Tensor] = {}
        for place, name in enumerate(self.names):
            answers = [self.rows[item][place] for item in items]
            laid = continuations([x for x, _ in answers], [y for _, y in answers], pad=self.pad)
            batch |= {
                f"{name}_tokens": laid.tokens,
                f"{name}_mask": laid.attention_mask,
                f"{name}_answer": laid.mask,
            }
        return batch


def _answers(pair: PreferencePair) -> list[str]:
    return [pair.chosen, pair.rejected, *([pair.truth] if pair.truth is not None else [])]


def _split(
    tokenizer: Tokenizer, pair: PreferencePair, ending: list[int]
) -> list[tuple[list[int], list[int]]]:
    """Ids of prompt and answer, for each answer, all cut at the same token; a bos opens the prompt where texts have one."""
    opens = bool(frame(tokenizer, pair.prompt)[0])
    cut = split_continuations(tokenizer, pair.prompt, _answers(pair), bos=opens)
    return [(one.context, [*one.tokens, *ending]) for one in cut]
