"""Every built decoder on the same model and the same prompts: variety, plausibility and speed of what it writes.

Given text, each seed first trains a model on it; given a model, seeds differ in the prompts and in the draws. All write
equally many tokens. Plausibility is that under the model itself, as perplexity of the new tokens and as their mean
log-probability a text, which Su & Collier 2022 call coherence when another model gives it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from gpt2lab.actions.models import load, model_config, with_models
from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import build
from gpt2lab.base.wording import count, number
from gpt2lab.decode.generate import Generation, generate
from gpt2lab.decode.interface import Decoder
from gpt2lab.measures.scoring import Row, score_rows
from gpt2lab.measures.text_metrics import diversity, repetition_n
from gpt2lab.studies.claim import Claim
from gpt2lab.studies.data_names import check_sources, given_model
from gpt2lab.studies.entries import chosen_entries, labels, report_left_out
from gpt2lab.studies.race import clock
from gpt2lab.studies.seed_figures import interval_columns, seed_dots
from gpt2lab.studies.workload import TextWorkload
from gpt2lab.text import sources
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.pieces import frame
from gpt2lab.training import train

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

CLAIMS: list[Claim] = []
VARIANTS = ("sampling top_k=50", "sampling top_p=0.95", "sampling typical=0.95")
"""What papers set decoders beside, besides every decoder with its defaults; pure sampling is one of those."""
REAL = "real_text"
_LEAST = {"steps": 1, "prompts": 2, "prompt_tokens": 1, "new_tokens": 4, "batch_size": 1}
_DASH = "A dash: in some seed no continuation has n words for rep-n, 2 to 4; more new_tokens give longer ones"
_NUMBERS = {
    "diversity": "diversity",
    "rep_2": "rep-2",
    "perplexity": "perplexity",
    "log_probability": "log p",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The model, the prompts, and how much is written."""

    on: tuple[str, ...] = ("tinystories",)
    """A model (folder, hub id or run), or text to train one on first."""
    only: tuple[str, ...] = ()
    """Decoders to compare, with options if needed, `sampling top_p=0.9`; none: all built ones and usual variants."""
    data: tuple[str, ...] = ("docstrings",)
    """Texts whose beginnings a given model continues; a model trained here continues its own validation texts."""
    workload: TextWorkload = field(default_factory=lambda: TextWorkload(context=128, batch_size=16))
    """Shape and text of the model that is trained; its data are those of `on`."""
    steps: int = 600
    """Updates of its training."""
    learning_rate: float = 5e-3
    """Peak."""
    prompts: int = 48
    """Texts that are continued."""
    prompt_tokens: int = 16
    """Tokens of each prompt."""
    new_tokens: int = 48
    """New tokens, the same number for every decoder."""
    batch_size: int = 16
    """Prompts in one batch."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise LabError(
                    f"compare decoders: {name} must be at least {least}, got {getattr(self, name)}"
                )


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        on=("tinystories:300",),
        data=("docstrings:100000",),
        workload=TextWorkload(
            d_model=16, n_heads=2, context=32, batch_size=8, train_tokens=8000, valid_tokens=4000, vocab_size=300
        ),
        steps=5,
        prompts=4,
        prompt_tokens=8,
        new_tokens=16,
        batch_size=4,
    ),
    "laptop": Settings(),
    "gpu": Settings(
        on=("tinystories:100000",),
        workload=TextWorkload(
            n_layers=6, d_model=384, n_heads=6, context=256, batch_size=64, train_tokens=20_000_000,
            valid_tokens=400_000, vocab_size=4096, precision="auto",
        ),
        steps=4000,
        learning_rate=1e-3,
        prompts=500,
        prompt_tokens=32,
        new_tokens=128,
        batch_size=50,
    ),
}  # fmt: skip


def check(settings: Settings) -> None:
    """LabError for a model or data that are not there, and for a model without the positions that are asked for."""
    given = given_model(settings.on)
    check_sources(settings.on if given is None else settings.data)
    room = model_config(given).max_positions if given is not None else settings.workload.context
    if settings.prompt_tokens + settings.new_tokens > room:
        raise LabError(
            f"compare decoders: {settings.prompt_tokens} prompt_tokens and {settings.new_tokens} new_tokens, and the model "
            f"has {room} positions; --set new_tokens={max(room - settings.prompt_tokens, 4)}"
        )


def run(settings: Settings, run: "Run") -> None:
    """Let every decoder continue the same prompts. LabError if no decoder can."""
    lm, documents = _model(settings, run)
    prompts, real = _prompts(lm, documents, settings, run.seed)
    texts = {REAL: _text_numbers(lm, prompts, real, settings.batch_size)}
    left_out: dict[str, str] = {}
    written: dict[str, list[Generation]] = {}
    for entry in chosen_entries("decoder", settings.only, VARIANTS):
        try:
            made: Decoder = with_models(build(entry.load(), entry.options, f"decoder {entry.name}"))
            written[entry.label], seconds = _write(lm, prompts, made, settings, run)
        except (
            LabError
        ) as error:  # a decoder for models of another kind, or of a package that cannot be imported
            left_out[entry.label] = str(error)
            continue
        tokens = [one.tokens for one in written[entry.label]]
        texts[entry.arm] = _text_numbers(lm, prompts, tokens, settings.batch_size)
        texts[entry.arm]["tokens_per_second"] = sum(map(len, tokens)) / max(seconds, 1e-9)
    if not written:
        raise LabError(f"no decoder can continue the prompts: {next(iter(left_out.values()))}")
    for arm, numbers in texts.items():
        for name, value in numbers.items():
            run.result(f"{arm}.{name}", value)
    run.table("left_out", [{"decoder": label, "reason": reason} for label, reason in left_out.items()])
    run.text("texts", _samples(lm, prompts, real, written), "The first prompt, and how each goes on after ⟶")


def _model(settings: Settings, run: "Run") -> tuple[LanguageModel, Sequence[str]]:
    """Return the model, given or trained here, and documents that it was not trained on, as far as is known."""
    given = given_model(settings.on)
    if given is not None:
        lm = load(given, device=run.device)
        if lm.tokenizer is None:
            raise LabError(f"{given}: holds no tokenizer, so it can neither read nor write text")
        return lm, list(_some(settings))
    workload = _workload(settings)
    text = workload.text
    model = workload.model(run.seed).to(run.device)
    train(
        model,
        workload.batches(run.seed),
        settings=workload.settings(settings.steps, settings.learning_rate),
        log=run.log,
        checkpoints=run.checkpoints,
        resume=True,
        seed=run.seed,
        label=f"seed {run.seed}",
    )
    return LanguageModel(model.eval(), text.tokenizer), text.valid_documents


def _workload(settings: Settings) -> TextWorkload:
    return replace(settings.workload, data=settings.on)


def _some(settings: Settings) -> Sequence[str]:
    """Return enough documents to choose prompts from, 16 for each."""
    long = 8 * (settings.prompt_tokens + settings.new_tokens)  # characters
    found: list[str] = []
    for document in sources.documents(list(settings.data), field=settings.workload.field):
        if len(document) >= long:
            found.append(document[: 4 * long])
        if len(found) == 16 * settings.prompts:
            break
    return found


def _prompts(
    lm: LanguageModel, documents: Sequence[str], settings: Settings, seed: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Return beginnings of documents drawn by the seed, and the real tokens after them. LabError if there are too few.

    What the tokenizer puts before a text (a llama's bos) is a part of the prompt.
    """
    assert lm.tokenizer is not None
    length = settings.prompt_tokens + settings.new_tokens
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed)).tolist()
    rows: list[list[int]] = []
    for place in order:
        text = documents[place]
        ids = [*frame(lm.tokenizer, text)[0], *lm.tokenizer.encode(text)][:length]
        if len(ids) == length:
            rows.append(ids)
        if len(rows) == settings.prompts:
            break
    if len(rows) < settings.prompts:
        raise LabError(
            f"{count(len(rows), 'text')} of {length} tokens (prompt_tokens + new_tokens), {settings.prompts} are needed; "
            "take other data, or lower prompts or new_tokens"
        )
    return [row[: settings.prompt_tokens] for row in rows], [row[settings.prompt_tokens :] for row in rows]


def _write(
    lm: LanguageModel, prompts: list[list[int]], decoder: Decoder, settings: Settings, run: "Run"
) -> tuple[list[Generation], float]:
    """Return the continuations and the seconds they took; a first short one, which warms up, is not counted."""
    options: dict[str, Any] = {
        "decoder": decoder,
        "stop_at_eos": False,
        "seed": run.seed,
        "batch_size": settings.batch_size,
    }
    generate(lm, prompts[:1], max_new_tokens=2, **options)
    now = clock(run.device)
    began = now()
    written = generate(lm, prompts, max_new_tokens=settings.new_tokens, **options)
    return written, now() - began


def _text_numbers(
    lm: LanguageModel, prompts: list[list[int]], continuations: list[list[int]], batch_size: int
) -> dict[str, float]:
    """Return diversity and repetition of the texts, and what the model gives their tokens."""
    assert lm.tokenizer is not None
    texts = [lm.tokenizer.decode(tokens) for tokens in continuations]
    rows = [
        Row(torch.tensor([*prompt, *tokens]), len(tokens))
        for prompt, tokens in zip(prompts, continuations, strict=True)
    ]
    losses = [score.losses.double() for score in score_rows(lm.model, rows, batch_size=batch_size)]
    return {
        "diversity": diversity(texts),
        "rep_2": repetition_n(texts, 2),
        "perplexity": math.exp(float(torch.cat(losses).mean())),
        "log_probability": -fmean(float(loss.mean()) for loss in losses),
    }


def _samples(
    lm: LanguageModel,
    prompts: list[list[int]],
    real: list[list[int]],
    written: dict[str, list[Generation]],
) -> str:
    assert lm.tokenizer is not None
    lines = [f"{lm.tokenizer.decode(prompts[0])}\n", f"real text ⟶ {lm.tokenizer.decode(real[0])}"]
    return "\n\n".join([*lines, *(f"{label} ⟶ {texts[0].text}" for label, texts in written.items())])


def summarise(settings: Settings, study: "Study") -> None:
    """Add the table, variety against plausibility, and speed."""
    from gpt2lab.plots import figures

    names = {REAL: "real text", **labels(chosen_entries("decoder", settings.only, VARIANTS))}
    ran = [arm for arm in names if all(f"{arm}.diversity" in run.results for run in study.runs)]
    values = {
        arm: {name: study.values(f"{arm}.{name}") for name in (*_NUMBERS, "tokens_per_second")} for arm in ran
    }
    short = any(map(math.isnan, (value for arm in ran for name in _NUMBERS for value in values[arm][name])))
    caption = f"{_caption(settings)}. {_DASH}" if short else _caption(settings)
    study.table("decoders", [_row(names[arm], values[arm]) for arm in ran], caption)
    study.figure(
        "diversity_perplexity",
        figures.scatter(
            {names[arm]: (values[arm]["perplexity"], values[arm]["diversity"]) for arm in ran},
            x_label="perplexity of the text under the model", y_label="diversity", log_x=True,
        ),
        "Variety against plausibility of the continuations; a small dot a seed, the large one their mean",
    )  # fmt: skip
    timed = [arm for arm in ran if values[arm]["tokens_per_second"]]
    study.figure(
        "speed",
        seed_dots({names[arm]: values[arm]["tokens_per_second"] for arm in timed}, label="tokens a second"),
        f"Speed at batch {settings.batch_size}; on a CPU in processor time of one thread unless --threads says else",
    )
    _head(settings, study, {arm: names[arm] for arm in ran})
    reasons = {row["decoder"]: row["reason"] for run in study.runs for row in run.tables.get("left_out", ())}
    report_left_out(study, {str(label): str(reason) for label, reason in reasons.items()})


def _head(settings: Settings, study: "Study", names: Mapping[str, str]) -> None:
    """Say which decoder comes nearest to the variety of real text."""
    real = study.mean(f"{REAL}.diversity")
    known = {arm: study.mean(f"{arm}.diversity") for arm in names if arm != REAL}
    known = {arm: value for arm, value in known.items() if math.isfinite(value)}
    found = ""
    if known and math.isfinite(real):
        nearest = min(known, key=lambda arm: abs(known[arm] - real))
        perplexity, of_real = (number(study.mean(f"{arm}.perplexity"), 3) for arm in (nearest, REAL))
        found = (
            f"{names[nearest]} comes nearest to the diversity of real text ({number(known[nearest], 3)} against "
            f"{number(real, 3)}), at a perplexity of {perplexity} against {of_real}."
        )
    study.head(
        asked=f"What do {count(len(names) - (REAL in names), 'decoder')} write after the same {settings.prompts} prompts, "
        "beside what really follows?",
        found=found,
        means="A perplexity below that of real text is no virtue, only text more predictable than what people write; a "
        "decoder is better than another where it is nearer to real text in both numbers.",
        figure="diversity_perplexity",
    )


def _row(label: str, values: dict[str, list[float]]) -> dict[str, Any]:
    """Return one line of the table: means, with intervals where several seeds give them."""
    row: dict[str, Any] = {"decoder": label}
    for name, words in _NUMBERS.items():
        row[words] = fmean(values[name])
        if name in ("diversity", "perplexity"):
            row |= interval_columns(name, values[name])
    row["tokens/s"] = fmean(values["tokens_per_second"]) if values["tokens_per_second"] else None
    return row


def _caption(settings: Settings) -> str:
    return (
        f"Continuations of {settings.prompts} prompts of {settings.prompt_tokens} tokens by {settings.new_tokens} tokens: "
        "means over seeds with 95 % intervals. Diversity is the product of 1 - rep-n for n = 2, 3, 4; perplexity and log p "
        "(nats a token, mean over texts) are the model's own of what was written"
    )
