"""Frozen norms folded away: into the matrices that read them, or into gains that Hugging Face's code divides for us."""

import copy
import math

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.model.checkpoints.native import blueprint
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.norms import Norm
from gpt2lab.papers.layernorm_removal.architecture import StagedNorm, StagedNorms

COMPATIBLE_EPS = 1e12
"""√(variance + 1e12) is 1e6 whatever the variance: a real norm with this eps divides by a constant."""


@torch.no_grad()
def folded(model: Transformer) -> Transformer:
    """Return a model without norms that gives the logits of a model whose norms are all frozen; `model` stays as it is.

    For n = C x · g / σ̄ + b and a map n Wᵀ + c of it: W' = W diag(g / σ̄) C and c' = c + W b, C = I - 11ᵀ / d_model
    being the subtraction of the mean (none in an RMSNorm). The head is untied from the embedding and gets a bias.
    A compatible export (norm_eps 1e12) is folded likewise. LabError while a path is real, for a constant that is not
    above 0 and finite, and for a router of experts behind a LayerNorm, since it has no bias to take c'.
    """
    config = model.config
    require_foldable(config)
    layernorm = config.norm == "layernorm"
    state = {name: tensor.detach() for name, tensor in model.named_parameters() if not _of_a_norm(name)}
    state.setdefault("head.weight", state["embedding.weight"])
    readers = {"final_norm": ["head"]}
    for i in range(config.n_layers):
        routed = bool(config.layer(i).n_experts)
        readers[f"blocks.{i}.norm1"] = [f"blocks.{i}.attention.qkv"]
        readers[f"blocks.{i}.norm2"] = [f"blocks.{i}.mlp.up", *([f"blocks.{i}.mlp.router"] if routed else [])]
    for path, maps in readers.items():
        norm = model.get_submodule(path)
        assert isinstance(norm, Norm)
        gain = norm.weight.double() / frozen_scale(norm, config)
        for name in maps:
            state |= _folded_map(name, state, gain, norm.bias.double() if layernorm else None)
    fields = {"qkv_bias": True, "mlp_bias": True, "head_bias": True} if layernorm else {}
    new = blueprint(config.replace(norm="none", norm_eps=1e-5, tied_head=False, **fields))
    for name, like in new.named_parameters():  # biases beside those that were folded
        tensor = state[name] if name in state else torch.zeros(like.shape, device=model.device)
        state[name] = tensor.to(dtype=model.dtype).clone()
    new.load_state_dict(state, assign=True)
    return new.requires_grad_(True).eval()


@torch.no_grad()
def compatible(model: Transformer) -> Transformer:
    """Return a model of the same family that transformers opens: g · 1e6 / σ̄ as gains, and eps 1e12 in every norm.

    Logits are equal up to rounding (about 3e-5 in float32). LabError as for `folded`, and for weights in 16 bits: 1e12 is
    beyond float16, and bf16 rounds the gains.
    """
    if model.dtype not in (torch.float32, torch.float64):
        raise LabError(
            f"the compatible export keeps gains of 1e6 / sigma and an eps of 1e12, which {str(model.dtype)[6:]} cannot: "
            "load the model in float32, or fold the norms into the weights (output folded)"
        )
    state = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    for path, norm in _norms(model):
        gain = norm.weight.double() / frozen_scale(norm, model.config)
        # formula: compatible gain
        state[f"{path}.weight"] = (gain * math.sqrt(COMPATIBLE_EPS)).to(model.dtype)
    new = blueprint(model.config.replace(norm_eps=COMPATIBLE_EPS))
    if model.config.tied_head:
        state["head.weight"] = state["embedding.weight"]
    new.load_state_dict(state, assign=True)
    new.tie_head()
    return new.requires_grad_(True).eval()


def frozen_scale(norm: Norm, config: TransformerConfig) -> float:
    """Return what a norm divides every token by. LabError unless it is one number above 0, the same for all tokens."""
    if not isinstance(norm, StagedNorm):
        if config.norm_eps < COMPATIBLE_EPS:
            raise LabError(
                f"{norm.name} is a real norm: it divides each token by its own standard deviation, and only a frozen one "
                "can be folded; freeze the norms first (gpt2lab apply remove-layernorm)"
            )
        return math.sqrt(config.norm_eps)
    for path, name in enumerate(norm.paths):
        if not bool(norm.fake[path]):
            raise LabError(f"{name} is still real; go on until the last event of the schedule, then fold")
    first, usual = (float(value) for value in norm.constant)
    if not (math.isfinite(usual) and usual > 0):
        raise LabError(f"{norm.name}: its constant is {usual}, and it must be finite and above 0")
    if norm.special and not (bool(norm.late.all()) and first == usual):
        raise LabError(
            f"{norm.name}: position 0 still has a constant of its own; go on until the events eot and bos"
        )
    return usual


def is_frozen(model: Transformer) -> bool:
    """Tell whether a model has staged norms that are all frozen, so that it can be folded."""
    norms = [norm for _, norm in _norms(model) if isinstance(norm, StagedNorm)]
    routed = model.config.has_experts and model.config.norm == "layernorm"
    done = all(bool(norm.fake.all()) and (not norm.special or bool(norm.late.all())) for norm in norms)
    return bool(norms) and done and not routed


def export_errors(model: Transformer, tokens: Tensor) -> dict[str, float]:
    """Return the largest difference between the logits of a frozen model, its compatible export and its folded form.

    tokens [batch, time]; keys are `folded.float32`, `compatible.float32` and the same for float64. The model is copied.
    """
    errors = dict[str, float]()
    for dtype in (torch.float32, torch.float64):
        exact = copy.deepcopy(model).to(dtype)
        with evaluating(exact), torch.inference_mode():
            logits = exact(tokens)
            for name, form in (("folded", folded(exact)), ("compatible", compatible(exact))):
                errors[f"{name}.{str(dtype)[6:]}"] = float((form(tokens) - logits).abs().max())
    return errors


def require_foldable(config: TransformerConfig) -> None:
    """Refuse what no frozen norm could be folded into. LabError for a LayerNorm before experts."""
    if config.has_experts and config.norm == "layernorm":
        raise LabError(
            "the router of this model's experts has no bias, into which that of a LayerNorm could be folded; a compatible "
            "export (output compatible) keeps the norms"
        )


def require_staged(model: Transformer) -> None:
    """LabError unless staged norms are all that is attached, or the model is a compatible export."""
    others = [one for one in model.architectures if not isinstance(one, StagedNorms)]
    if others:
        raise LabError(
            f"{type(others[0]).__name__} is attached to this model too, and would be lost; fold the norms of the model alone"
        )
    if model.config.norm == "none":
        raise LabError("this model has no norms any more: there is nothing to fold")
    if model.config.norm_placement == "post":
        raise LabError(
            f"the norms of this {model.config.family} stand on the residual stream itself, and no matrix could take them in"
        )


def _folded_map(name: str, state: dict[str, Tensor], gain: Tensor, shift: Tensor | None) -> dict[str, Tensor]:
    """Fold n = C x · gain + shift into the map `name`; weight [out, in] or, of experts, [experts, out, in]."""
    weight = state[f"{name}.weight"].double()
    new = {f"{name}.weight": weight * gain}
    if shift is not None:
        new[f"{name}.weight"] = new[f"{name}.weight"] - new[f"{name}.weight"].mean(  # formula: W'
            -1, keepdim=True
        )  # W diag(g/σ̄) C
        bias = state.get(f"{name}.bias")
        new[f"{name}.bias"] = weight @ shift + (0 if bias is None else bias.double())  # formula: c'
    return new


def _norms(model: Transformer) -> list[tuple[str, Norm]]:
    return [
        (path, norm) for path, norm in model.named_modules() if isinstance(norm, Norm) and norm.kind != "none"
    ]


def _of_a_norm(name: str) -> bool:
    return name.startswith("final_norm.") or ".norm1." in name or ".norm2." in name
