"""The transform `quantize`: a model's matrices in few bits, to the nearest level or calibrated on text."""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.architecture import attach
from gpt2lab.model.quantization import GPTQ, QuantizationOptions, Quantized, calibrate
from gpt2lab.text import sources
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.pieces import beginning

Method = Literal["nearest", "gptq"]

_LONGEST_WINDOW, _BATCH = 2048, 4
_OF_GPTQ = ("data", "field", "samples", "window", "act_order", "damping")


@dataclass(frozen=True, kw_only=True)
class Quantize(QuantizationOptions):
    """Round a model's matrices to 2 to 8 bits; it is saved as small as it is then."""

    method: Method = "nearest"
    """nearest: each weight to the nearest level, without data. gptq: column after column, the error of each passed on to
    those left, so that outputs for a text change least (Frantar et al. 2022)."""
    data: tuple[str, ...] = ()
    """gptq: text to calibrate on: files, folders, hub:ID or names of built-in sources; none means docstrings."""
    field: str = "text"
    """gptq: field of the text in jsonl, csv, parquet and hub rows."""
    samples: int = 128
    """gptq: windows of text, from the beginning of the data; fewer if it is shorter."""
    window: int | None = None
    """gptq: tokens in a window; none means the model's positions, at most 2048."""
    act_order: bool = False
    """gptq: round the columns with the largest inputs first."""
    damping: float = 0.01
    """gptq: added to the diagonal of the Hessian, as a share of its mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == "nearest":
            for one in dataclasses.fields(self):
                if one.name in _OF_GPTQ and getattr(self, one.name) != one.default:
                    raise LabError(
                        f"{one.name}: rounding to the nearest level reads no text; add method=gptq"
                    )
            return
        if self.levels == "nf4":
            raise LabError(
                "scheme nf4: its levels are no whole steps, which gptq needs; choose another scheme"
            )
        for field in ("samples", "window"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise LabError(f"{field} must be at least 1, got {value}")
        self._gptq()

    def __call__(self, lm: LanguageModel) -> LanguageModel:
        """Return the quantised model; the given one stays as it is. LabError as `Quantized.attach` and `calibrate`."""
        quantized = Quantized(**self.options())
        batches = self._batches(lm) if self.method == "gptq" else []
        new = copy.copy(lm)
        new.model = copy.deepcopy(lm.model)
        if self.method == "gptq":
            calibrate(new.model, quantized, batches, self._gptq())
        else:
            attach(new.model, quantized)
        return new

    def _gptq(self) -> GPTQ:
        return GPTQ(act_order=self.act_order, damping=self.damping)

    def _batches(self, lm: LanguageModel) -> list[Tensor]:
        """Windows of the text, [rows, window] each; a text that is shorter than one is one."""
        if lm.tokenizer is None:
            raise LabError(
                "method gptq reads text, and this model has no tokenizer; put its tokenizer.json beside it"
            )
        window = self.window or min(lm.model.context, _LONGEST_WINDOW)
        if window > lm.model.context and lm.config.positions != "none":
            raise LabError(f"window {window} is longer than the model's {lm.model.context} positions")
        ids, wanted = list[int](), self.samples * window
        for text in sources.documents(self.data or ("docstrings",), field=self.field):
            ids += beginning(lm.tokenizer, text, wanted - len(ids))[0]
            ids += [lm.tokenizer.eos] if lm.tokenizer.eos is not None else []
            if len(ids) >= wanted:
                break
        if not ids:
            raise LabError("data: there is no text to calibrate on")
        window = min(window, len(ids))
        count = min(len(ids) // window, self.samples)
        return list(
            torch.tensor(ids[: count * window], device=lm.model.device).view(count, window).split(_BATCH)
        )
