"""The same weights with another number of pondering steps."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError
from gpt2lab.papers.pondering.options import is_count
from gpt2lab.papers.pondering.steps import with_steps

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class SetPonderingSteps:
    """Set how many extra passes a pondering model makes, for evaluation, generation and further training."""

    steps: int = 3
    """Extra passes before every prediction. A model trained with a fixed number is best near that number."""

    def __post_init__(self) -> None:
        if not is_count(self.steps, 0):
            raise LabError(f"pondering-steps: steps must be a whole number of at least 0, got {self.steps!r}")

    def __call__(self, lm: "LanguageModel") -> "LanguageModel":
        """Return a copy of the model that takes so many steps. LabError for a model that does not ponder."""
        from gpt2lab.text.language_model import LanguageModel

        return LanguageModel(with_steps(copy.deepcopy(lm.model), self.steps), lm.tokenizer)
