"""The baseline optimizer, and how parameters are grouped for decay."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from gpt2lab.model.adapters.layers import AdaptedLinear
from gpt2lab.model.experts import ExpertLinear
from gpt2lab.model.matrices import stacks
from gpt2lab.training.optimizer_protocols import MadeForModel
from gpt2lab.training.settings import TrainSettings


@dataclass(frozen=True)
class LinearWeight:
    """The tensor of a linear map in a model: one matrix, or several that are stored together."""

    name: str
    """Of its module, as in `named_modules`."""
    weight: Tensor
    """[out, in], unless one of the following says otherwise."""
    transposed: bool = False
    """Stored [in, out], as Hugging Face's Conv1D does."""
    stacked: bool = False
    """[experts, out, in], each expert by itself."""
    rows: tuple[int, ...] = ()
    """Rows of the matrices that lie one below the other in it (in each expert); () is one matrix."""


def linear_weights(model: nn.Module) -> list[LinearWeight]:
    """Return the trainable weights of a model's linear maps, each once: nn.Linear, experts, low-rank adapters.

    Hugging Face's Conv1D and Mixtral's experts and routers are linear maps too. Which matrices a tensor of the lab's own
    models holds is as in the published form (`gpt2lab.model.matrices`).
    """
    together = {path: tuple(stack.parts.values()) for path, stack in stacks(model).items() if stack.apart}
    found = dict[int, LinearWeight]()
    for name, module in model.named_modules():
        # The layer below an adapter is named `base`.
        rows = together.get(name.removesuffix(".base"), ())
        for one in _weights(name, module, rows):
            if isinstance(one.weight, nn.Parameter) and one.weight.requires_grad:
                found.setdefault(id(one.weight), one)
    return list(found.values())


def _weights(name: str, module: nn.Module, rows: tuple[int, ...]) -> list[LinearWeight]:
    if isinstance(module, nn.Linear):
        return [LinearWeight(name, module.weight, rows=rows)]
    if isinstance(module, ExpertLinear):
        return [LinearWeight(name, module.weight, stacked=True, rows=rows)]
    if isinstance(module, AdaptedLinear):
        ranks = [part for adapter in module.adapters for part in module.parts(adapter).values()]
        return [LinearWeight(name, weight) for part in ranks for weight in (part.A, part.B)]
    return _of_hugging_face(name, module)


def _of_hugging_face(name: str, module: nn.Module) -> list[LinearWeight]:
    """Linear maps of transformers' that are no nn.Linear; found by name, since that package is not imported here."""
    own = dict(module.named_parameters(recurse=False))
    match type(module).__name__:
        case "Conv1D":
            return [LinearWeight(name, own["weight"], transposed=True)]
        case "MixtralTopKRouter":
            return [LinearWeight(name, own["weight"])]
        case "MixtralExperts":  # its files have gates and ups of every expert apart
            half = own["gate_up_proj"].shape[1] // 2
            both = LinearWeight(name, own["gate_up_proj"], stacked=True, rows=(half, half))
            return [both, LinearWeight(name, own["down_proj"], stacked=True)]
    return []


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split trainable parameters in two groups: matrices and embeddings decay, vectors (biases, norms) do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.dim() >= 2]
    vectors = [parameter for parameter in trained if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def adamw(model: nn.Module, settings: TrainSettings) -> AdamW:
    """AdamW with decoupled decay (Loshchilov & Hutter 2019, algorithm 2), in torch's fused form.

    One kernel a tensor: on two CPU cores a step takes a third of the for-loop form's time (benchmarks/training.py).
    """
    groups = parameter_groups(model, settings.weight_decay)
    return AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps, fused=True)


def make_optimizer(
    cls: type[Optimizer], model: nn.Module, *, learning_rate: float, weight_decay: float, **options: Any
) -> Optimizer:
    """Make an optimizer of this class for a model's trainable parameters.

    A class that is `MadeForModel` groups them itself; any other gets `parameter_groups`. LabError or ValueError for
    options out of range.
    """
    if isinstance(cls, MadeForModel):
        return cls.for_model(model, lr=learning_rate, weight_decay=weight_decay, **options)
    return cls(parameter_groups(model, weight_decay), lr=learning_rate, **options)  # type: ignore[call-arg]  # every optimizer has lr
