"""Tiny random models that the tests of several floors share."""

import torch

from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.model.checkpoints.families import (
    bert_config,
    distilbert_config,
    gpt2_config,
    gpt_neo_config,
    gpt_neox_config,
    llama_config,
    roberta_config,
)

CONFIGS: dict[str, TransformerConfig] = {
    "gpt2": gpt2_config(vocab_size=61, d_model=24, n_layers=3, n_heads=3, max_positions=40),
    "gpt_neo": gpt_neo_config(
        vocab_size=61, d_model=24, n_layers=3, n_heads=4, max_positions=40, local_window=5
    ),
    "gpt_neox": gpt_neox_config(vocab_size=61, d_model=24, n_layers=3, n_heads=3, max_positions=40),
    "llama": llama_config(
        vocab_size=61, d_model=24, n_layers=3, n_heads=6, n_kv_heads=2, d_mlp=40, max_positions=40
    ),
    "bert": bert_config(vocab_size=61, d_model=24, n_layers=3, n_heads=3, max_positions=40),
    "roberta": roberta_config(vocab_size=61, d_model=24, n_layers=3, n_heads=4, max_positions=40),
    "distilbert": distilbert_config(
        vocab_size=61, d_model=24, n_layers=3, n_heads=3, d_mlp=50, max_positions=40
    ),
}
CAUSAL = [family for family, config in CONFIGS.items() if config.causal]
BIDIRECTIONAL = [family for family, config in CONFIGS.items() if not config.causal]


def tiny(family: str, *, seed: int = 0, **changes: object) -> Transformer:
    """A random model of a family in evaluation mode, with every parameter (biases and gains too) away from its start."""
    model = Transformer(CONFIGS[family].replace(**changes), generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    return model.eval()


def tokens(batch: int, time: int, *, vocab: int = 61, seed: int = 0) -> torch.Tensor:
    """Random ids [batch, time]."""
    return torch.randint(0, vocab, (batch, time), generator=torch.Generator().manual_seed(seed))
