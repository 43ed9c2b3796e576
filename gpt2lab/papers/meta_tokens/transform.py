"""Two transforms: a meta-token with its attention for any causal model, and longer windows for a rotary one."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, attach
from gpt2lab.model.rotary import RotaryScaling
from gpt2lab.papers.meta_tokens.architecture import MetaAttention
from gpt2lab.papers.meta_tokens.token import META, with_row, with_token
from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class AddMetaToken:
    """A meta-token for the tokenizer and the table, and meta-attention that changes nothing until it is trained."""

    token: str = META
    """How it is written in texts; if the tokenizer has it as a special token, it keeps its id and its embedding."""
    attention: bool = True
    """Attach meta-attention; otherwise the token is all that is added, and the model keeps its family's layout."""
    backend: Literal["gathered", "dense"] = "gathered"
    """Of meta-attention: computed for the metas alone, or for all positions by a mask."""
    seed: int = 0
    """Seed of the new projections; those of the output begin as zero."""

    def __call__(self, lm: LanguageModel) -> LanguageModel:
        """Return the new model. LabError for one without a tokenizer, that is not causal, or has architectures attached."""
        lm.config.require_causal("add-meta-token")
        if lm.tokenizer is None:
            raise LabError("add-meta-token: this model has no tokenizer that could hold the token")
        tokenizer, token = with_token(lm.tokenizer, self.token)
        model = with_row(lm.model, token, fresh=tokenizer is not lm.tokenizer)
        if self.attention:
            made = MetaAttention(token=token, backend=self.backend)
            attach(model, made, generator=torch.Generator().manual_seed(self.seed))
        return LanguageModel(model.eval(), tokenizer)


@dataclass(frozen=True, kw_only=True)
class ExtendContext:
    """Longer windows for a rotary model by YaRN: fast pairs stay, slow ones are interpolated; the weights stay."""

    factor: float = 4.0
    """How many times longer: 4 and 8 in the paper."""
    beta_fast: float = 32.0
    """Pairs that turn more often than this over the original window stay as they are."""
    beta_slow: float = 1.0
    """Pairs that turn less often than this are interpolated whole."""
    extrapolation_factor: float = 1.0
    """Share by which fast pairs stay as they are, 1 in the paper; at 0 every pair is interpolated whole."""
    attention_factor: float = 1.0
    """Multiplies 0.1 ln(factor) + 1, by which cos and sin are multiplied; scores get its square."""

    def __call__(self, lm: LanguageModel) -> LanguageModel:
        """Return the model for longer windows, with its architectures.

        LabError for a model without rotary positions, or whose positions are scaled already, and for factors outside their
        ranges.
        """
        config = lm.config
        if config.positions != "rotary":
            raise LabError(
                f"extend-context: YaRN stretches rotary positions, and this {config.family} has {config.positions} ones"
            )
        if config.rotary_scaling is not None:
            raise LabError("extend-context: the positions of this model are scaled already")
        if not self.factor > 1:
            raise LabError(f"extend-context: factor must be above 1, got {self.factor}")
        if not 0 <= self.extrapolation_factor <= 1:
            raise LabError(
                f"extend-context: extrapolation_factor must lie in [0, 1], got {self.extrapolation_factor}"
            )
        if not self.attention_factor > 0:
            raise LabError(f"extend-context: attention_factor must be above 0, got {self.attention_factor}")
        scaling = RotaryScaling(
            kind="yarn",
            factor=self.factor,
            original_positions=config.max_positions,
            beta_fast=self.beta_fast,
            beta_slow=self.beta_slow,
            extrapolation=self.extrapolation_factor,  # eq. m
        )
        if self.attention_factor != 1:
            scaling = replace(scaling, magnitude=scaling.amplitude * self.attention_factor)  # eq. mscale
        longer = config.replace(
            rotary_scaling=scaling, max_positions=round(self.factor * config.max_positions)
        )
        model = Transformer(longer).to(device=lm.model.device, dtype=lm.model.dtype)
        for architecture in lm.model.architectures:
            attach(model, architecture)
        model.load_state_dict(lm.model.state_dict())
        for new, old in zip(model.parameters(), lm.model.parameters(), strict=True):
            new.requires_grad_(old.requires_grad)
        return LanguageModel(model.eval(), lm.tokenizer)
