"""The method against its definition."""

import torch

from gpt2lab.cli.skeletons.transform.transform import ExampleTransform
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import llama_config
from gpt2lab.model.matrices import matrices
from gpt2lab.text.language_model import LanguageModel


def small() -> LanguageModel:
    """Return a random model of two blocks."""
    config = llama_config(vocab_size=31, d_model=12, n_layers=2, n_heads=3, d_mlp=20, max_positions=16)
    return LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(0)).eval())


def test_the_last_blocks_matrices_lose_rank_and_nothing_else_changes() -> None:
    """Half of rank 12 stays; the error is what the removed singular values say (Eckart and Young 1936)."""
    lm = small()
    before, after = (
        {one.name: one.of(model.state_dict()[f"{one.module}.weight"]) for one in matrices(model)}
        for model in (lm.model, ExampleTransform(keep=0.5)(lm).model)
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"blocks.1.mlp.up.gate", "blocks.1.mlp.up.up", "blocks.1.mlp.down"}
    for name in changed:
        assert int(torch.linalg.matrix_rank(after[name], rtol=1e-4)) == 6
        removed = torch.linalg.svdvals(before[name].double())[6:]
        error = (before[name] - after[name]).double().norm()
        assert torch.allclose(error, removed.norm(), rtol=1e-4)


def test_all_of_the_rank_is_the_model_itself() -> None:
    """Up to rounding."""
    lm = small()
    same = ExampleTransform(keep=1.0, blocks=2)(lm)
    tokens = torch.arange(10)[None]
    assert torch.allclose(lm.model(tokens), same.model(tokens), atol=1e-5)
