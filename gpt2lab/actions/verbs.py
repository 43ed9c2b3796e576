"""What people type, as functions: each verb of the command line is one of them."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.actions.models import load, pick_device, with_models
from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import part
from gpt2lab.base.settings import build
from gpt2lab.base.wording import listed
from gpt2lab.runs.store import Store

if TYPE_CHECKING:
    import torch

    from gpt2lab.decode import Decoder, Generation
    from gpt2lab.measures.measurement import Measurement
    from gpt2lab.measures.prediction import Prediction
    from gpt2lab.runs.run import Run
    from gpt2lab.text.export import Exported, Kind, Precision
    from gpt2lab.text.language_model import LanguageModel


def generate(
    model: "str | Path | LanguageModel",
    prompts: "str | Sequence[str]",
    *,
    decoder: "str | Decoder" = "greedy",
    max_new_tokens: int | None = None,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    **settings: Any,
) -> "Generation | list[Generation]":
    """Continue a prompt, or each of several, with any decoder of the floors or of a paper.

    max_new_tokens None is 64, or what the model has positions for. `settings` are those of
    `gpt2lab.decode.generate` and the decoder's own options, such as top_p=0.9.
    """
    from gpt2lab import decode

    if isinstance(decoder, str):
        decoder, settings = _made(decoder, settings)  # what is wrong with it is said before a model is loaded
    lm = _loaded(model, device, dtype)
    if lm.tokenizer is None:
        raise LabError(f"{_called(model)}: holds no tokenizer, so it can neither read nor write text")
    _refuse_read_out(lm, _called(model))
    limit = max_new_tokens if max_new_tokens is not None else _room(lm, prompts)
    return decode.generate(lm, prompts, decoder=decoder, max_new_tokens=limit, **settings)


def measure(
    name: str,
    model: "str | Path | LanguageModel",
    *,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    **options: object,
) -> "Measurement":
    """Measure a model with the measure of that name; `options` are the measure's own fields, text or typed.

    LabError: no such measure or option, an option of the wrong type.
    """
    made = with_models(build(part("measure", name), options, f"measure {name}"))
    result: Measurement = made(_loaded(model, device, dtype))
    return result


def apply(
    name: str,
    model: "str | Path | LanguageModel",
    *,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    **options: object,
) -> "LanguageModel":
    """Return a new model, made of this one by the transform of that name; the given one stays as it is.

    `options` are the transform's own fields, text or typed. LabError: no such transform or option, an option of the
    wrong type, and whatever the transform cannot work on.
    """
    made = with_models(build(part("transform", name), options, f"apply {name}"))
    return transformed(name, made, _loaded(model, device, dtype))


def transformed(name: str, made: "Callable[[LanguageModel], object]", lm: "LanguageModel") -> "LanguageModel":
    """Call a transform. LabError if what it returns is no new language model, or gives NaN or infinite logits."""
    from gpt2lab.model.evaluating import refuse_not_finite
    from gpt2lab.text.language_model import LanguageModel

    result = made(lm)
    if not isinstance(result, LanguageModel):
        raise LabError(f"transform {name} returned {type(result).__name__}; it must return a LanguageModel")
    if result.model is lm.model:
        raise LabError(f"transform {name} returned the model it was given; it must return a new one")
    result.model.eval()
    refuse_not_finite(result.model, f"apply {name}")
    result.inherit(lm)
    return result


def predict(
    model: "str | Path | LanguageModel",
    texts: "Sequence[str] | Sequence[Sequence[str]]",
    *,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    **options: Any,
) -> "list[Prediction]":
    """Say of each text what a model's head has learnt: its class with probabilities, its number, its words' labels.

    `options` are those of `gpt2lab.measures.prediction.predict`: head, pairs, batch_size, truncate, separator.
    """
    from gpt2lab.measures import prediction

    return prediction.predict(_loaded(model, device, dtype), texts, **options)


def embed(
    model: "str | Path | LanguageModel",
    texts: Sequence[str],
    *,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    **options: Any,
) -> "torch.Tensor":
    """Return a vector for each text, [texts, width], from a model's embedding head, or from its states by `pooling`.

    `options` are those of `gpt2lab.measures.prediction.embed`: head, pooling, prefix, batch_size, truncate.
    """
    from gpt2lab.measures import prediction

    return prediction.embed(_loaded(model, device, dtype), texts, **options)


def train(*, name: str = "train", **settings: object) -> "Run":
    """Train a model as `settings` say, text or typed, and return its finished run.

    The settings are those of `gpt2lab.actions.train.TrainingSettings`; those of the loop go without their prefix
    too: steps=300 is train.steps=300. A run shorter than ten warm-ups warms up for a tenth of its steps unless told;
    a given model is trained at a rate and a context of its own (`gpt2lab.actions.train_defaults`).
    LabError for settings or data that do not fit, and for a setting that this training would ignore.
    """
    from gpt2lab.actions.train import train_model
    from gpt2lab.actions.train_defaults import training_settings

    return train_model(training_settings(settings), name=name)


def export(
    model: "str | Path | LanguageModel", *, to: "Kind", out: str | Path, precision: "Precision | None" = None
) -> "Exported":
    """Write a model for other programs; see `gpt2lab.text.export.export`.

    The model is read on the CPU in the type of its file.
    """
    lm = load(model, device="cpu") if isinstance(model, (str, Path)) else model
    from gpt2lab.text.export import export as write  # torch, of which a wrong name need not wait

    return write(lm, to, out, precision=precision)


def compare(names: Sequence[str], *, out: Path | str | None = None) -> dict[str, Any]:
    """Put runs side by side: {"results": rows, "settings": rows that differ, "html": path of the report}.

    LabError if there are fewer than two runs, or one of them does not exist.
    """
    from gpt2lab.runs.report.side_by_side import comparison_rows
    from gpt2lab.runs.report.write import write_comparison

    html = write_comparison(names, out=out)
    rows = list({row.id: row for row in map(Store().find, names)}.values())
    return {**comparison_rows(rows), "html": html}


def _refuse_read_out(lm: "LanguageModel", called: str) -> None:
    """LabError for a model that was trained to read out classes, numbers or vectors, and no longer to write text."""
    from gpt2lab.model.task_heads import heads

    found = heads(lm.model)
    if found and not any(head.language_head for head in found.values()):
        kinds = listed([f"{head.kind} ({name})" for name, head in found.items()])
        raise LabError(
            f"{called}: trained for {kinds}, not to write text; gpt2lab.predict or a measure reads it out "
            "(trained with task.language=1 it goes on writing)"
        )


def _made(decoder: str, settings: dict[str, Any]) -> "tuple[Decoder, dict[str, Any]]":
    """Return the decoder with its own settings, and those that are left for `gpt2lab.decode.generate`."""
    from gpt2lab import decode

    own = inspect.signature(decode.generate).parameters
    options = {name: value for name, value in settings.items() if name not in own}
    rest = {name: value for name, value in settings.items() if name in own}
    return with_models(decode.build_decoder(decoder, options)), rest


def _room(lm: "LanguageModel", prompts: "str | Sequence[str]", most: int = 64) -> int:
    """Return how many tokens fit behind the longest prompt, at most `most`; `most` if none fits."""
    from gpt2lab.decode.prompts import prompt_row

    longest = max((len(prompt_row(lm, one)) for one in _several(prompts)), default=0)
    if longest > lm.model.context:
        return most  # decoding says what is wrong
    return min(most, max(lm.model.context - longest, 1))  # some decoders read the last new token too


def _several(prompts: "str | Sequence[str]") -> "Sequence[str]":
    return [prompts] if isinstance(prompts, str) else prompts


def _called(model: "str | Path | LanguageModel") -> str:
    return str(model) if isinstance(model, (str, Path)) else "this model"


def _loaded(
    model: "str | Path | LanguageModel",
    device: "torch.device | str | None",
    dtype: "torch.dtype | str | None" = None,
) -> "LanguageModel":
    if isinstance(model, (str, Path)):
        return load(model, device=device, dtype=dtype)
    if dtype is not None:
        raise LabError(f"dtype {dtype}: this model is loaded already; say so to gpt2lab.load")
    if device is not None and pick_device(device).type != model.model.device.type:
        raise LabError(f"device {device}: this model is on {model.model.device}; say so to gpt2lab.load")
    return model
