"""The method against its definition, and its way through a folder and back."""

from pathlib import Path

import torch

from gpt2lab.cli.skeletons.architecture.architecture import ExampleArchitecture
from gpt2lab.model import Transformer, load_model, save_model
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.families import gpt2_config

CONFIG = gpt2_config(vocab_size=31, d_model=12, n_layers=2, n_heads=3, max_positions=16)
TOKENS = torch.arange(10)[None]


def small() -> Transformer:
    """Return a random model."""
    return Transformer(CONFIG, generator=torch.Generator().manual_seed(0)).eval()


@torch.no_grad()
def test_scales_of_one_change_nothing_and_of_zero_leave_the_embedding() -> None:
    """With λ = 0 no block adds anything: what stays is the final norm of token plus position."""
    plain = small()
    ones = attach(small(), ExampleArchitecture(start=1.0))
    assert torch.equal(plain(TOKENS), ones(TOKENS))
    zeros = attach(small(), ExampleArchitecture(start=0.0))
    for name, parameter in plain.named_parameters():
        if ".attention.out." in name or ".mlp.down." in name:
            parameter.zero_()
    assert torch.allclose(plain(TOKENS), zeros(TOKENS), atol=1e-6)


def test_a_saved_model_comes_back_with_its_scales(tmp_path: Path) -> None:
    """The folder holds the architecture's name and options beside the weights."""
    model = attach(small(), ExampleArchitecture(start=0.3))
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model", architectures=[ExampleArchitecture])
    assert torch.equal(model(TOKENS), again(TOKENS))
