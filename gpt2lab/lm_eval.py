"""lm-evaluation-harness with our models in it: `python -m gpt2lab.lm_eval` is the command `lm_eval`, with one model more.

examples:
  python -m gpt2lab.lm_eval --model gpt2lab --model_args path=train-1 --tasks lambada_openai
  python -m gpt2lab.lm_eval --model gpt2lab --model_args path=FOLDER,dtype=float32 --tasks mine --include_path tasks

The harness (0.4) finds the models of other packages only once something has imported them; this module is that import.
In Python `import gpt2lab.lm_eval` does it: afterwards `lm_eval.simple_evaluate(model="gpt2lab", ...)` works.
"""

import importlib
import sys
from typing import Any

import torch

from gpt2lab.actions import models
from gpt2lab.base.errors import LabError
from gpt2lab.measures.harness import HarnessModel


class GPT2LabModel(HarnessModel):
    """The model `gpt2lab` of the harness: a folder, a hub id or a run, as everywhere in gpt2lab."""

    def __init__(
        self,
        path: str,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        """Load `path`. dtype: float32, bfloat16, float16, or auto, that of the file. `options` as `HarnessModel`'s.

        Without --device the harness says cuda:0 on every machine; on one without a GPU that is the CPU, as for `hf`.
        """
        if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
            device = "cpu"
        super().__init__(
            models.load(path, device=device, dtype=_dtype(dtype)), batch_size=batch_size, **options
        )


def _dtype(name: str | None) -> torch.dtype | None:
    found = getattr(torch, name, None) if name not in (None, "auto") else None
    if name not in (None, "auto") and not isinstance(found, torch.dtype):
        raise LabError(f"dtype={name}: no such number type; float32, bfloat16, float16 or auto")
    return found


def register() -> None:
    """Tell the harness of the model `gpt2lab`; more than once does no harm."""
    importlib.import_module("lm_eval.models")  # its own first: the harness reads them only into an empty list
    from lm_eval.api.registry import model_registry

    if "gpt2lab" not in model_registry:
        model_registry.register("gpt2lab", target="gpt2lab.lm_eval:GPT2LabModel")


def main() -> int:
    """Run the harness's own command line; a mistake is one sentence and status 2."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except LabError as error:
        sys.stderr.write(f"gpt2lab: {error}\n")
        return 2
    return 0


register()

if __name__ == "__main__":
    sys.exit(main())
