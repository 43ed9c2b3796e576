"""The parts against what they promise."""

import torch

from gpt2lab import LanguageModel, Transformer
from gpt2lab.model.checkpoints.families import llama_config
from prune_retrain.measure import Sparsity
from prune_retrain.optimizer import MaskedAdamW
from prune_retrain.transform import MagnitudePrune, matrices


def tiny() -> LanguageModel:
    config = llama_config(vocab_size=31, d_model=12, n_layers=2, n_heads=3, max_positions=16)
    return LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(0)).eval())


def test_every_removed_weight_is_smaller_than_every_weight_that_is_left() -> None:
    lm = tiny()
    pruned = MagnitudePrune(share=0.3)(lm)
    for (_, before), (_, after) in zip(matrices(lm.model), matrices(pruned.model), strict=True):
        removed = after == 0
        assert removed.sum() == round(0.3 * before.numel())
        assert before[removed].abs().max() <= before[~removed].abs().min()
        assert torch.equal(before[~removed], after[~removed])


def test_the_measure_counts_what_the_transform_removed() -> None:
    assert Sparsity()(tiny())["sparsity"] == 0
    assert abs(Sparsity()(MagnitudePrune(share=0.25)(tiny()))["sparsity"] - 0.25) < 0.01


def test_retraining_moves_what_is_left_and_only_that() -> None:
    model = MagnitudePrune(share=0.5)(tiny()).model
    before = {name: weight.detach().clone() for name, weight in matrices(model)}
    optimizer = MaskedAdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        model(torch.arange(10)[None]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, weight in matrices(model):
        assert torch.equal(weight == 0, before[name] == 0)
        assert not torch.equal(weight, before[name])
