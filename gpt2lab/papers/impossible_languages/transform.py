"""The paper's second architecture as a transform: the same model without any positional encoding."""

from dataclasses import dataclass

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class RemovePositions:
    """A model without positional encoding: a causal mask is all that tells it of order."""

    fresh: bool = False
    """Draw all weights anew, for training from scratch as in the paper; otherwise the other weights stay as they are."""
    seed: int = 0
    """Seed of the new weights."""

    def __call__(self, lm: LanguageModel) -> LanguageModel:
        """Return the new model. LabError for one that reads in both directions, has no positions, or has more attached.

        Learned positions and rotary ones alike are left out. A bidirectional model would see a bag of words.
        """
        config = lm.config
        config.require_causal("remove-positions")
        if config.positions == "none":
            raise LabError("remove-positions: this model has no positional encoding")
        if lm.model.architectures:
            raise LabError(
                "remove-positions works on a model without architectures; remove first, then attach"
            )
        generator = torch.Generator().manual_seed(self.seed)
        model = Transformer(config.replace(positions="none", rotary_scaling=None), generator=generator)
        model.to(device=lm.model.device, dtype=lm.model.dtype)
        if not self.fresh:
            state = lm.model.state_dict()
            model.load_state_dict({name: state[name] for name in model.state_dict()})
        return LanguageModel(model.eval(), lm.tokenizer)
