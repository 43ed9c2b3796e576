"""How many parameters a model has for a text: rows of the vocabulary that the text never uses hold nothing of it.

The paper counts only the rows of the embedding (and of a free head) that occur in the data: 3,275 of GPT-2's 50,257 for its
biographies, so that its GPT2-12-12 counts 88M parameters and not 124M.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gpt2lab.base.errors import LabError
from gpt2lab.model.backbone import Backbone
from gpt2lab.model.layer_kinds import count_weights


@dataclass(frozen=True)
class Parameters:
    """A model's parameters, counted both ways."""

    total: int
    """All of them, a tied head once."""
    used_rows: int
    """Rows of the vocabulary that occur in the data."""
    rows: int
    """Rows of the vocabulary."""
    counted: int
    """P: all but those of unused rows."""


def count_parameters(model: Backbone, used: Iterable[int]) -> Parameters:
    """Count a model's parameters, `used` being the ids that occur in the data.

    Rows are counted in the embedding and, where it is not tied, in the head, with its bias. Quantised weights count as the
    weights that they stand for. LabError for no ids, or one that the model does not have.
    """
    ids, config = set(used), model.config
    if not ids:
        raise LabError("no row of the vocabulary is used: a model of no parameters has no capacity")
    if not 0 <= min(ids) <= max(ids) < config.vocab_size:
        raise LabError(f"ids run from {min(ids)} to {max(ids)}, the model has {config.vocab_size} rows")
    row = config.d_model
    if config.head != "none":
        row += 0 if config.tied_head else config.d_model
        row += 1 if config.head == "transform" or config.head_bias else 0
    total, unused = count_weights(model), config.vocab_size - len(ids)
    return Parameters(total, len(ids), config.vocab_size, total - row * unused)  # P: without unused rows
