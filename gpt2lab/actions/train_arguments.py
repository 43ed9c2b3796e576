"""The settings of `train` as keyword arguments, so that an editor completes them and a type checker reads them."""

from collections.abc import Mapping
from typing import Literal, TypedDict

from gpt2lab.actions.train_settings import TaskSettings
from gpt2lab.model.adapters import Lora
from gpt2lab.model.quantization import QuantizationOptions
from gpt2lab.training import TrainSettings
from gpt2lab.training.callbacks import EarlyStopping, Watched
from gpt2lab.training.gradients import PrivateGradient
from gpt2lab.training.ramps import Ramp


class LoopOptions(TypedDict, total=False):
    """The fields of `gpt2lab.training.TrainSettings`, which `train` takes without the prefix `train.` too."""

    steps: int
    learning_rate: float
    schedule: Literal["cosine", "linear", "constant", "warmup-stable-decay"]
    warmup: int
    final_fraction: float
    laid_out: int
    decay_fraction: float
    weight_decay: float
    weight_decay_schedule: Ramp | None
    betas: tuple[float, float]
    eps: float
    clip: float
    privacy: PrivateGradient | None
    accumulation: int
    precision: Literal["float32", "bf16", "auto"]
    gradient_checkpointing: bool
    compile: bool
    evaluate_every: int
    evaluate_start: bool
    checkpoint_every: int
    keep_last: int
    keep: Literal["last", "best"]
    best: Watched
    early_stopping: EarlyStopping | None
    log_every: int


class TrainOptions(LoopOptions, total=False):
    """The fields of `gpt2lab.actions.train_settings.TrainingSettings` but `data` and `model`, which `train` names."""

    field: str
    valid_fraction: float
    family: Literal[
        "gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "mixtral", "qwen2", "bert", "roberta", "distilbert"
    ]
    d_model: int
    n_layers: int
    n_heads: int
    experts: int
    experts_per_token: int
    balance: float
    expert_capacity: float | None
    context: int
    tokenizer: str
    vocab_size: int
    batch_size: int
    train: TrainSettings
    optimizer: str
    objective: str | None
    objective_options: Mapping[str, str]
    optimizer_options: Mapping[str, str]
    lora: Lora | None
    quantize: QuantizationOptions | None
    task: TaskSettings
    architecture: str | None
    architecture_options: Mapping[str, str]
    evaluation_tokens: int
    samples: int
    seed: int
    device: str | None
