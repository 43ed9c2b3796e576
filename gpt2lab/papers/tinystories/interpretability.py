"""Measure `story-circuits`: which heads look at a distance, which at a kind of word, and what neurons fire on.

The paper describes this of its small models in words (Eldan and Li 2023, section 6); the numbers are ours. A head
whose attention is explained by distance alone (R² > 0.8) is a distance head; of the others the table tells which
class of word they look at. The most influential neurons are those with the largest mean |activation| times the
norm of their output weights; purity is the largest share of one word class among a neuron's top 20 tokens.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.corpus import need_tokenizer, start_token
from gpt2lab.measures.measurement import Measurement
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.interpret import output_vectors
from gpt2lab.papers.tinystories.characters import HE, NOT_NAMES, SHE
from gpt2lab.papers.tinystories.corpus import stories_of
from gpt2lab.papers.tinystories.lexicon import LEXICON
from gpt2lab.text.generators.stories import COLOURS, NAMES, OBJECTS, PLACES
from gpt2lab.text.pieces import piece_text

if TYPE_CHECKING:
    from gpt2lab.model import Transformer
    from gpt2lab.text.language_model import LanguageModel
    from gpt2lab.text.tokenizer import Tokenizer

DISTANCE_HEAD = 0.8
"""R² above which a head counts as looking at a distance."""
TOP = 20
"""Activations over which a neuron's purity is taken."""
CLASSES = ("name", "object", "colour", "place", "pronoun", "article", "punctuation", "verb", "other")
ACTION_VERBS = LEXICON["verbs"]

WordClass = Callable[[str], str]


@dataclass(frozen=True)
class HeadReport:
    """What one attention head looks at, averaged over stories."""

    layer: int
    head: int
    r_squared: float
    """Share of the variance of its attention weights that their distance explains."""
    mean_distance: float
    """Mean number of tokens it looks back."""
    by_class: dict[str, float]
    """Attention on each class of key words divided by what uniform attention would give it (1: no preference)."""
    by_distance: tuple[float, ...]
    """Mean attention at distance 0, 1, 2, …"""

    @property
    def kind(self) -> str:
        """`distance`, or the class it prefers most."""
        if self.r_squared > DISTANCE_HEAD:
            return "distance"
        return max(self.by_class, key=lambda name: self.by_class[name])


@dataclass(frozen=True)
class NeuronReport:
    """What one feed-forward neuron fires on."""

    layer: int
    neuron: int
    influence: float
    """Mean |activation| times the norm of its output weights."""
    purity: float
    """Largest share of one class among the tokens of its top activations."""
    baseline: float
    """Mean purity of as many random tokens of the same stories."""
    word_class: str
    tokens: tuple[str, ...]
    """The tokens of its top activations, strongest first."""


def word_class(word: str) -> str:
    """Return the class of a word by lists and form; words are looked at one by one, without their context."""
    plain = word.strip()
    lower = plain.lower()
    if plain in NAMES:
        return "name"
    for name, words in (("object", OBJECTS), ("colour", COLOURS), ("place", PLACES)):
        if lower in words:
            return name
    if lower in SHE | HE or lower in {"it", "they", "them", "their", "i", "you", "my"}:
        return "pronoun"
    if lower in {"a", "an", "the"}:
        return "article"
    if plain and not any(character.isalnum() for character in plain):
        return "punctuation"
    if lower in ACTION_VERBS:
        return "verb"
    if (
        plain[:1].isupper()
        and plain.isalpha()
        and lower not in NOT_NAMES
        and len(plain) > 2
        and word != plain
    ):
        return "name"  # free text: a capitalised piece with a blank before it
    return "other"


def encode_stories(
    tokenizer: "Tokenizer", stories: Sequence[str], longest: int
) -> tuple[list[list[int]], list[list[str]]]:
    """Return ids and token texts of each story after its start token, if the tokenizer has one, cut to `longest` tokens.

    A text has the blank before its word, as far as the token stands for one.
    """
    start = [] if tokenizer.bos is None and tokenizer.eos is None else [start_token(tokenizer)]
    own = [tokenizer.encode(story)[: longest - len(start)] for story in stories]
    words = [[""] * len(start) + [_piece(tokenizer, i, k) for k, i in enumerate(row)] for row in own]
    return [[*start, *row] for row in own], words


def _piece(tokenizer: "Tokenizer", id: int, place: int) -> str:
    """Return the text of a token at a place of its story."""
    if id in tokenizer.special_ids:
        return ""
    return piece_text(tokenizer, id) if place else tokenizer.decode([id])


def head_reports(
    model: "Transformer",
    ids: Sequence[Sequence[int]],
    words: Sequence[Sequence[str]],
    classify: WordClass = word_class,
) -> list[HeadReport]:
    """Report on every head, over stories of any length, each read on its own.

    Pairs of a query with itself count; queries at position 0, which have nothing else to look at, do not.
    LabError if no story has two tokens.
    """
    rows = [(row, text) for row, text in zip(ids, words, strict=True) if len(row) > 1]
    if not rows:
        raise LabError("attention needs stories of at least two tokens")
    longest = max(len(row) for row, _ in rows)
    sums = _AttentionSums(model.config.n_layers, _heads(model), longest)
    # By name, one of each block: an architecture may add attentions of its own.
    names = [_pattern(layer) for layer in range(model.config.n_layers)]
    with evaluating(model), torch.inference_mode():
        for row, text in rows:
            with model.tap(read=names) as tap:
                model.hidden(torch.tensor([row], device=model.device))
            pattern = torch.stack([tap[name][0] for name in names])  # [layers, heads, time, time]
            if not pattern.isfinite().all():
                raise LabError(
                    "the model's attention is NaN; its weights are damaged or its training diverged"
                )
            sums.add(pattern.double().cpu(), [classify(word) for word in text])
    return sums.reports()


def attention_map(model: "Transformer", ids: Sequence[int], layer: int, head: int) -> list[list[float]]:
    """Return one head's attention on one text, [queries, keys]."""
    name = _pattern(layer)
    with evaluating(model), torch.inference_mode(), model.tap(read=[name]) as tap:
        model.hidden(torch.tensor([list(ids)], device=model.device))
    pattern: list[list[float]] = tap[name][0, head].tolist()
    return pattern


def _pattern(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_pattern"


class _AttentionSums:
    """Running sums over stories of what is needed for R² and for the share of each class."""

    def __init__(self, layers: int, heads: int, longest: int) -> None:
        self.count = torch.zeros(longest, dtype=torch.float64)
        self.total = torch.zeros(layers, heads, longest, dtype=torch.float64)
        self.squares = torch.zeros(layers, heads, dtype=torch.float64)
        self.on_class = torch.zeros(layers, heads, len(CLASSES), dtype=torch.float64)
        self.uniform = torch.zeros(len(CLASSES), dtype=torch.float64)

    def add(self, pattern: Tensor, classes: list[str]) -> None:
        """Add one story; pattern [layers, heads, time, time], float64."""
        time = pattern.shape[-1]
        query, key = torch.tril_indices(time, time)
        query, key = query[query > 0], key[query > 0]
        distance = query - key
        weights = pattern[:, :, query, key]  # [layers, heads, pairs]
        self.count.index_add_(0, distance, torch.ones(len(distance), dtype=torch.float64))
        self.total.index_add_(2, distance, weights)
        self.squares += weights.square().sum(-1)
        of_key = torch.tensor([CLASSES.index(name) for name in classes])[key]
        self.on_class.index_add_(2, of_key, weights)
        self.uniform.index_add_(0, of_key, 1.0 / (query + 1).double())

    def reports(self) -> list[HeadReport]:
        """Finish: R² = 1 - Σ (a - mean at its distance)² / Σ (a - mean)²."""
        seen = self.count > 0
        mean_at = self.total[..., seen] / self.count[seen]  # [layers, heads, distances]
        pairs = self.count.sum()
        overall = self.total.sum(-1) / pairs
        total_ss = self.squares - pairs * overall.square()
        residual_ss = self.squares - (self.count[seen] * mean_at.square()).sum(-1)
        # section 6: distance heads
        r_squared = torch.where(total_ss > 1e-12, 1.0 - residual_ss / total_ss, torch.zeros_like(total_ss))
        distances = torch.arange(len(self.count), dtype=torch.float64)
        mean_distance = (self.total * distances).sum(-1) / self.total.sum(-1)
        present = [i for i in range(len(CLASSES)) if self.uniform[i] > 0]
        return [
            HeadReport(
                layer=layer,
                head=head,
                r_squared=float(r_squared[layer, head]),
                mean_distance=float(mean_distance[layer, head]),
                by_class={
                    CLASSES[i]: float(self.on_class[layer, head, i] / self.uniform[i]) for i in present
                },
                by_distance=tuple(mean_at[layer, head].tolist()),
            )
            for layer in range(self.squares.shape[0])
            for head in range(self.squares.shape[1])
        ]


def neuron_reports(
    model: "Transformer",
    ids: Sequence[Sequence[int]],
    words: Sequence[Sequence[str]],
    *,
    neurons: int = 10,
    classify: WordClass = word_class,
    seed: int = 0,
) -> list[NeuronReport]:
    """Report on the `neurons` most influential neurons of each layer, the most influential first.

    LabError unless the stories have at least `TOP` tokens together.
    """
    texts = [word for row in words for word in row]
    if len(texts) < TOP:
        raise LabError(f"neurons are judged by {TOP} tokens, the stories have {len(texts)}")
    classes = [classify(word) for word in texts]
    baseline = _shuffled_purity(classes, seed=seed)
    reports = []
    for layer, activations in enumerate(_activations(model, ids)):  # [tokens, d_mlp]
        norms = output_vectors(model, layer).float().norm(dim=1).cpu()
        influence = activations.abs().mean(0) * norms
        for neuron in influence.topk(min(neurons, len(influence))).indices.tolist():
            top = activations[:, neuron].topk(TOP).indices.tolist()
            name, count = Counter(classes[i] for i in top).most_common(1)[0]
            reports.append(
                NeuronReport(
                    layer=layer,
                    neuron=neuron,
                    influence=float(influence[neuron]),
                    purity=count / TOP,
                    baseline=baseline,
                    word_class=name,
                    tokens=tuple(texts[i].strip() for i in top),
                )
            )
    return sorted(reports, key=lambda report: -report.influence)


def _activations(model: "Transformer", ids: Sequence[Sequence[int]]) -> list[Tensor]:
    """Feed-forward activations of all tokens of all stories, by layer: [tokens, d_mlp] float32 on the CPU."""
    parts: list[list[Tensor]] = [[] for _ in range(model.config.n_layers)]
    with evaluating(model), torch.inference_mode():
        for row in ids:
            with model.tap(read=["mlp.hook_post"]) as tap:
                model.hidden(torch.tensor([list(row)], device=model.device))
            for layer, part in enumerate(parts):
                part.append(tap[f"blocks.{layer}.mlp.hook_post"][0].float().cpu())
    return [torch.cat(part) for part in parts]


def _shuffled_purity(classes: Sequence[str], *, seed: int, times: int = 200) -> float:
    """Mean purity of TOP tokens drawn at random: what a neuron that fires on anything would get."""
    generator = torch.Generator().manual_seed(seed)
    purities = []
    for _ in range(times):
        drawn = torch.randperm(len(classes), generator=generator)[:TOP].tolist()
        purities.append(Counter(classes[i] for i in drawn).most_common(1)[0][1] / TOP)
    return sum(purities) / times


def _heads(model: "Transformer") -> int:
    counts = {model.config.layer(i).n_heads for i in range(model.config.n_layers)}
    if len(counts) != 1:
        raise LabError(f"the report needs as many heads in every layer, this model has {sorted(counts)}")
    return counts.pop()


@dataclass(frozen=True, kw_only=True)
class StoryCircuits:
    """Measure `story-circuits`: distance heads, what the other heads look at, what neurons fire on."""

    data: str = "tinyworld:20:1000000"
    """Stories to read: a source, or a file with separator lines. The paper reads about 20."""
    field: str = "text"
    """Field of the story in jsonl, csv, parquet and hub rows."""
    stories: int = 20
    """Number of stories, from the first."""
    neurons: int = 10
    """Most influential neurons to report, of each layer."""
    seed: int = 0
    """Seed of the random tokens with which purity is compared."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model; LabError for data that cannot be used."""
        tokenizer = need_tokenizer(lm, "story-circuits")
        texts = stories_of(self.data, field=self.field)[: self.stories]
        ids, words = encode_stories(tokenizer, texts, lm.config.max_positions)
        heads = head_reports(lm.model, ids, words)
        found = neuron_reports(lm.model, ids, words, neurons=self.neurons, seed=self.seed)
        return Measurement(
            name="story-circuits",
            numbers={
                "distance_heads": sum(head.kind == "distance" for head in heads) / len(heads),
                "largest_r_squared": max(head.r_squared for head in heads),
                "purity": sum(neuron.purity for neuron in found) / len(found) if found else math.nan,
                "purity_of_random_tokens": found[0].baseline if found else math.nan,
            },
            units={"distance_heads": "share of heads"},
            tables={"heads": head_rows(heads), "neurons": neuron_rows(found)},
            about={
                "stories": len(texts),
                "tokens": sum(map(len, ids)),
                "R² of a distance head": DISTANCE_HEAD,
            },
        )


def head_rows(heads: Sequence[HeadReport]) -> list[dict[str, object]]:
    """Return the table of heads: one row each, with the preference for every class."""
    return [
        {
            "layer": head.layer, "head": head.head, "kind": head.kind, "R²": head.r_squared,
            "mean distance": head.mean_distance, **head.by_class,
        }
        for head in heads
    ]  # fmt: skip


def neuron_rows(neurons: Sequence[NeuronReport]) -> list[dict[str, object]]:
    """Return the table of neurons, with their top tokens and how often each occurs."""
    return [
        {
            "layer": neuron.layer, "neuron": neuron.neuron, "influence": neuron.influence, "purity": neuron.purity,
            "random": neuron.baseline, "class": neuron.word_class,
            "top tokens": " ".join(f"{word}×{count}" for word, count in Counter(neuron.tokens).most_common(6)),
        }
        for neuron in neurons
    ]  # fmt: skip
