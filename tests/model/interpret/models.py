"""Models on which every reading function is tried: all pre-norm families, and corners of the configuration."""

import torch

from gpt2lab.model import Transformer, TransformerConfig
from tests.tiny import CONFIGS, tiny

PRE_NORM: dict[str, TransformerConfig] = {
    **{name: config for name, config in CONFIGS.items() if config.norm_placement == "pre"},
    "no norm": CONFIGS["gpt2"].replace(norm="none"),
    "free head, no biases": CONFIGS["llama"].replace(tied_head=False),
    "heads by layer": CONFIGS["gpt2"].replace(n_heads=(3, 1, 2), d_head=8, d_mlp=(30, 50, 20)),
    "experts": CONFIGS["llama"].replace(n_experts=3, experts_per_token=2),
}


def model_of(name: str, *, seed: int = 0, training: bool = False) -> Transformer:
    """A random model of PRE_NORM; in training it has dropout everywhere."""
    changes: dict[str, object] = dict.fromkeys(
        ("embedding_dropout", "attention_dropout", "residual_dropout"), 0.3 if training else 0.0
    )
    config = PRE_NORM[name].replace(**changes)
    model = Transformer(config, generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    return model.train(training)


def post_norm() -> Transformer:
    """A random BERT."""
    return tiny("bert")
