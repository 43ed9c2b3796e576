"""What the tests of the adapters share: adapted models, and their dense form worked out from the equations."""

import torch

from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.model.adapters import Lora, adapter_parameters
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.families import llama_config
from gpt2lab.model.checkpoints.families.bert import bert_config
from tests.tiny import CONFIGS, tiny

MORE: dict[str, TransformerConfig] = {
    **{name: CONFIGS[name] for name in ("gpt2", "gpt_neo", "gpt_neox", "llama")},
    "qwen2": llama_config(
        vocab_size=61,
        d_model=24,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        d_mlp=36,
        max_positions=40,
        qkv_bias=True,
        tied_head=True,
        family="qwen2",
    ),
    "mistral": llama_config(
        vocab_size=61,
        d_model=24,
        n_layers=2,
        n_heads=6,
        n_kv_heads=3,
        d_mlp=36,
        max_positions=40,
        windows=(4, 4),
        family="mistral",
    ),
    "bert": bert_config(vocab_size=61, d_model=24, n_layers=2, n_heads=3, max_positions=40),
}


def model_of(family: str, **changes: object) -> Transformer:
    """A random model of any family that PEFT is compared on."""
    if family in CONFIGS:
        return tiny(family, **changes)
    model = Transformer(MORE[family].replace(**changes), generator=torch.Generator().manual_seed(3))
    shake(list(model.parameters()), 0.15, add=True)
    return model.eval()


def shake(tensors: list[torch.Tensor], size: float, *, add: bool = False, seed: int = 7) -> None:
    """Fill tensors with N(0, size²), or add that to them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in tensors:
            drawn = size * torch.randn(tensor.shape, generator=generator)
            tensor.copy_(tensor + drawn if add else drawn)


def adapted_model(family: str, lora: Lora, **changes: object) -> Transformer:
    """A model with an adapter whose A and B are both away from zero."""
    model = attach(model_of(family, **changes), lora)
    shake(list(adapter_parameters(model, [lora.name]).values()), 0.2)
    return model


def dense(
    model: Transformer,
    family: str,
    *,
    scale: float,
    strength: float = 1.0,
    name: str = "default",
    **changes: object,
) -> Transformer:
    """The same function without adapters, float64: W[i, j] + strength · scale · Σ_r B[i, r] A[r, j], by loops."""
    layer = model.config.layer(0)
    q, kv = layer.n_heads * layer.d_head, layer.n_kv_heads * layer.d_head
    first = {"all": 0, "q": 0, "k": q, "v": q + kv, "gate": 0, "up": layer.d_mlp}
    plain = model_of(family, **changes).double()
    weights = dict(plain.named_parameters(remove_duplicate=False))
    for key, A in adapter_parameters(model, [name]).items():
        if not key.endswith(".A"):
            continue
        path, _, rest = key.partition(".adapters.")
        B = model.get_parameter(key[:-1] + "B").detach().double()
        start = first[rest.split(".")[1]]
        with torch.no_grad():
            weight = weights[f"{path}.weight"]
            for i in range(B.shape[0]):
                for r in range(B.shape[1]):
                    weight[start + i] += strength * scale * B[i, r] * A[r].detach().double()
    return plain
