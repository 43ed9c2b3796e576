"""A model of the lab as a text back end: texts by the generation loop, scores by the arithmetic of measures."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpt2lab.base.errors import LabError
from gpt2lab.decode.backend import Completion, Score, TextBackend, check_groups, check_sampling
from gpt2lab.decode.generate import generate
from gpt2lab.decode.greedy import Greedy
from gpt2lab.decode.interface import Decoder
from gpt2lab.decode.sampling import Sampling
from gpt2lab.measures.continuation import score_continuations, split_continuations
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.scoring import RowScore
from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class LabBackend(TextBackend):
    """A language model with its tokenizer."""

    lm: LanguageModel
    """Who answers."""
    batch_size: int = 16
    """Rows in one forward pass; changes speed and memory, not the answers."""
    bos: bool = False
    """Put a start token before each context that is scored."""
    label: str = "scoring"
    """What the progress bar says."""

    @property
    def name(self) -> str:
        """The family of the model."""
        return f"a {self.lm.config.family} of the lab"

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        n: int = 1,
        logprobs: bool = False,
    ) -> list[list[Completion]]:
        """Continue by `gpt2lab.decode.generate`, sampling or greedily; see `TextBackend.generate`."""
        check_sampling(max_new_tokens=max_new_tokens, stop=stop, temperature=temperature, top_p=top_p, n=n)
        decoder: Decoder = Sampling(temperature=temperature, top_p=top_p) if temperature > 0 else Greedy()
        found = generate(
            self.lm,
            [prompt for prompt in prompts for _ in range(n)],
            decoder=decoder,
            max_new_tokens=max_new_tokens,
            stop=stop,
            seed=seed,
            batch_size=self.batch_size,
            logprobs=logprobs,
        )
        texts = [
            Completion(
                text=one.text,
                finished=one.finished,
                tokens=len(one.tokens),
                logprobs=tuple(one.logprobs) if one.logprobs is not None else None,
            )
            for one in found
        ]
        return [texts[at : at + n] for at in range(0, len(texts), n)]

    def score(self, contexts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[list[Score]]:
        """Score with teacher forcing; see `TextBackend.score`. A context that does not fit loses its beginning."""
        check_groups(contexts, continuations)
        tokenizer = need_tokenizer(self.lm, self.label)
        items = [
            item
            for context, texts in zip(contexts, continuations, strict=True)
            for item in split_continuations(tokenizer, context, texts, bos=self.bos)
        ]
        rows = iter(
            score_continuations(
                self.lm.model, items, batch_size=self.batch_size, keep=int(self.bos), label=self.label
            )
        )
        return [[_score(next(rows)) for _ in texts] for texts in continuations]


def back_end_row(model: LanguageModel | TextBackend) -> dict[str, str]:
    """Return what a measurement's `about` says of a back end that is not the lab's."""
    return {} if isinstance(model, LanguageModel) else {"back_end": model.name}


def _score(row: RowScore) -> Score:
    return Score(
        logprob=-float(row.losses.double().sum()), tokens=len(row.losses), likeliest=bool(row.hits.all())
    )


def text_backend(
    model: LanguageModel | TextBackend, *, batch_size: int = 16, bos: bool = False, label: str = "scoring"
) -> TextBackend:
    """Return a back end as it is, and a language model as one. LabError for bos with a back end that is not the lab's."""
    if isinstance(model, LanguageModel):
        need_tokenizer(model, label)  # before anything is read or asked
        return LabBackend(lm=model, batch_size=batch_size, bos=bos, label=label)
    if bos:
        raise LabError(
            f"{model.name}: reads texts as they are, so bos cannot be put before them; leave bos out"
        )
    return model
