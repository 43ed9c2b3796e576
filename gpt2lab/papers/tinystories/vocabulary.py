"""The 10K-vocabulary reduction: keep the most frequent ids of a tokenizer, call everything else <unk>.

"GPT-Neo tokenizer but only keep the top 10K most common tokens" (Eldan and Li 2023). Ids are counted over the
training stream, the K - 1 most frequent are kept (ties: the lower id), the end-of-text id always, the rest
becomes <unk>. See `gpt2lab.text.reduction`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.model import Transformer
from gpt2lab.text import sources
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.reduction import ReducedTokenizer, VocabularyReduction, count_tokens, reduce_vocabulary


@dataclass(frozen=True, kw_only=True)
class ReduceVocabulary:
    """A model that knows the most frequent ids of a corpus only.

    Rows of the embedding (and of an untied head) of the kept ids stay as they are; the row of <unk> is the mean
    of the dropped ones.
    """

    vocabulary: int = 10_000
    """Rows of the reduced vocabulary, <unk> included."""
    data: tuple[str, ...] = ("docstrings",)
    """Text whose ids are counted: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""

    def __call__(self, lm: LanguageModel, documents: Iterable[str] | None = None) -> LanguageModel:
        """Count `data`, or `documents`, with the model's tokenizer and return the reduced model; `lm` stays as it is.

        LabError for a model with architectures attached, for one that reads in both directions (it would lose the id
        that hides a token), and for one whose tokenizer has no end of text.
        """
        lm.config.require_causal("reduce-vocabulary")
        if lm.model.architectures:
            raise LabError(
                "reduce-vocabulary works on a model without architectures; reduce first, then attach"
            )
        documents = sources.documents(self.data, field=self.field) if documents is None else documents
        tokenizer = need_tokenizer(lm, "reduce-vocabulary")
        eos = tokenizer.eos
        ids = ([*tokenizer.encode(text), *([eos] if eos is not None else [])] for text in documents)
        reduction = reduce_vocabulary(count_tokens(ids, tokenizer), size=self.vocabulary, eos=eos)
        return LanguageModel(reduce_model(lm.model, reduction), ReducedTokenizer(tokenizer, reduction))


def reduce_model(model: Transformer, reduction: VocabularyReduction) -> Transformer:
    """Return a copy of a model with the reduction's rows; LabError if its vocabulary has fewer rows."""
    if model.config.vocab_size < reduction.rows:
        raise LabError(
            f"the model has {model.config.vocab_size} rows, the reduction is of a vocabulary of {reduction.rows}"
        )
    eos = reduction.encode([reduction.eos])[0]
    smaller = Transformer(model.config.replace(vocab_size=reduction.size, eos=eos, bos=eos, pad=None))
    smaller.to(device=model.device, dtype=model.dtype)
    kept = torch.tensor(reduction.kept, device=model.device)
    state = model.state_dict()
    for name in ("embedding.weight", "head.weight", "head.bias"):
        if name in state:
            state[name] = _rows(state[name], kept)
    smaller.load_state_dict(state)
    return smaller


def _rows(weight: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """weight [rows, d_model] → [kept + 1, d_model]; the last row is the mean of those left out."""
    left_out = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
    left_out[kept] = False
    rest = weight[left_out] if bool(left_out.any()) else weight
    mean = rest.to(torch.promote_types(weight.dtype, torch.float32)).mean(0, keepdim=True)
    return torch.cat([weight[kept], mean.to(weight.dtype)])
