"""Inputs beside the tokens: a projector that puts an image in front of the text, and types of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.model import (
    Backbone,
    ExtraInput,
    Inner,
    Inputs,
    Transformer,
    Wrapper,
    attach,
    drawn,
    load_model,
    save_model,
)
from gpt2lab.model.soft_prompt import Prefix, SoftPrompt
from gpt2lab.papers.pondering.architecture import Pondering
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.objectives import masked_tokens, next_token
from tests.tiny import tiny, tokens


@dataclass(frozen=True, kw_only=True)
class Images:
    """An image in front of the text, as embeddings that a linear map makes of it."""

    width: int = 5
    """Numbers in an image."""
    length: int = 2
    """Embeddings that it becomes."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        projector = Projector(self.width, self.length, model.config.d_model)
        model.wrappers.append(drawn(projector, model, generator, std=0.5))


class Projector(Prefix):
    reads = (ExtraInput(name="images"),)

    def __init__(self, width: int, length: int, d_model: int) -> None:
        super().__init__(length)
        self.map = nn.Linear(width, length * d_model)

    def prefix(self, model: Backbone, inputs: Inputs) -> Tensor:
        images = inputs.extra_inputs["images"].to(model.dtype)  # [batch, width]
        return self.map(images).unflatten(-1, (self.positions_taken, model.config.d_model))


@dataclass(frozen=True, kw_only=True)
class Segments:
    """A learned vector for the segment that a token belongs to, by default 0."""

    count: int = 3
    """Segments."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        model.wrappers.append(
            drawn(SegmentTable(self.count, model.config.d_model), model, generator, std=0.5)
        )


class SegmentTable(Wrapper):
    reads = (ExtraInput(name="segments", by_token=True, required=False),)

    def __init__(self, count: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Embedding(count, d_model)

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        zeros = torch.zeros(inputs.embeddings.shape[:2], dtype=torch.int64, device=inputs.embeddings.device)
        added = self.table(inputs.token_inputs.get("segments", zeros))
        return inner(replace(inputs, embeddings=inputs.embeddings + added))


BOTH = {"images then segments": (Images(), Segments()), "segments then images": (Segments(), Images())}


def changed(*architectures: Images | Segments | SoftPrompt | Pondering, family: str = "llama") -> Transformer:
    model = tiny(family)
    for one in architectures:
        attach(model, one)
    return model.eval()


def pictures(rows: int, *, seed: int = 0) -> Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed))


def segments(rows: int, time: int, *, seed: int = 0) -> Tensor:
    return torch.randint(3, (rows, time), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("order", BOTH)
def test_an_image_and_segments_are_what_their_embeddings_are_by_hand(order: str) -> None:
    model, plain, ids = changed(*BOTH[order]), tiny("llama"), tokens(3, 7)
    images, kinds = pictures(3), segments(3, 7)
    wrappers = {type(one): one for one in model.wrappers}
    front = wrappers[Projector].map(images).view(3, 2, 24)
    table = wrappers[SegmentTable].table.weight
    if order == "segments then images":  # the prefix is put in front first, and has segment 0
        front = front + table[0]
    x = torch.cat([front, plain.embed(ids) + table[kinds]], dim=1)
    given = {"images": images, "segments": kinds}
    assert torch.allclose(model(ids, extra_inputs=given), plain(embeddings=x)[:, 2:], atol=1e-5)
    assert torch.allclose(model.hidden(ids, extra_inputs=given), plain.hidden(embeddings=x)[:, 2:], atol=1e-5)
    assert torch.equal(
        model.hidden_of({"tokens": ids, "targets": ids, **given}), model.hidden(ids, extra_inputs=given)
    )


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("around", [(), (SoftPrompt(length=3),), (Pondering(steps=2, feedback="pause"),)])
def test_neither_padding_nor_neighbours_change_a_row(side: str, around: Sequence[SoftPrompt]) -> None:
    model, ids = changed(Segments(), Images(), *around), tokens(3, 8)
    images, kinds = pictures(3), segments(3, 8)
    mask = (torch.arange(8) < torch.tensor([[8], [1], [5]])).long()
    mask = mask.flip(1) if side == "left" else mask
    together = model(ids, attention_mask=mask, extra_inputs={"images": images, "segments": kinds})
    for row in range(3):
        real = mask[row].bool()
        given = {"images": images[row : row + 1], "segments": kinds[row : row + 1, real]}
        alone = model(ids[row : row + 1, real], extra_inputs=given)
        assert torch.allclose(together[row, real], alone[0], atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("around", [(), (SoftPrompt(length=3),), (Pondering(steps=1),)])
def test_only_the_first_pass_over_a_cache_needs_them(around: Sequence[SoftPrompt]) -> None:
    model, ids, images = changed(Images(), *around), tokens(2, 6), pictures(2)
    whole = model(ids, extra_inputs={"images": images})
    cache = model.new_cache(batch=2, length=6)
    parts = [model(ids[:, :3], extra_inputs={"images": images}, cache=cache)]
    parts += [model(ids[:, place : place + 1], cache=cache) for place in range(3, 6)]
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=2e-5)
    cache.rewind(0)
    with pytest.raises(LabError, match="extra input images: an architecture of this model needs it"):
        model(ids[:, :3], cache=cache)


def test_what_is_unknown_missing_or_misshapen_is_named() -> None:
    model, ids, images = changed(Images(), Segments()), tokens(2, 6), pictures(2)
    for given, words in (
        (
            {},
            r'extra input images: an architecture of this model needs it; give extra_inputs={"images": \.\.\.}',
        ),
        (
            {"image": images},
            "extra input image: no architecture of this model reads it; did you mean images?",
        ),
        ({"images": images, "xyz": images}, "extra input xyz: .* they read images, segments"),
        ({"images": pictures(3)}, r"extra input images is \[3, 5\]; it begins with \[2\], as the tokens do"),
        (
            {"images": images, "segments": segments(2, 5)},
            r"extra input segments is \[2, 5\]; it begins with \[2, 6\]",
        ),
    ):
        with pytest.raises(LabError, match=words):
            model(ids, extra_inputs=given)
    with pytest.raises(
        LabError, match=r"extra input images: no architecture of this model reads it; .* none"
    ):
        tiny("llama")(ids, extra_inputs={"images": images})
    assert model.extra_inputs_read() == {
        "images": Projector.reads[0],
        "segments": SegmentTable.reads[0],
    }


class Described:
    """Batches in which an image decides the token that follows the first."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        images = torch.eye(5)[torch.arange(10) % 5]
        ids = torch.stack([torch.full((10,), 3), 10 + torch.arange(10) % 5, torch.full((10,), 4)], dim=1)
        return {"tokens": ids[:, :-1], "targets": ids[:, 1:], "images": images}


def test_an_objective_trains_what_reads_an_image() -> None:
    model = changed(Images(), family="gpt2")
    before = model.wrappers[0].map.weight.clone()
    batch = Described()[0]
    with torch.no_grad():
        first = next_token(model, batch)[0]
    train(model, Described(), settings=TrainSettings(steps=40, learning_rate=1e-2, warmup=2))
    with torch.no_grad():
        last = next_token(model.eval(), batch)[0]
    assert not torch.equal(model.wrappers[0].map.weight, before)
    assert first > 2 and last < 0.2  # without the image, ln 5 / 2 = 0.8 is the least


def test_objectives_hand_on_what_a_batch_has() -> None:
    model, ids = changed(Segments(), family="bert"), tokens(2, 6)
    batch = {"tokens": ids, "targets": torch.where(ids % 2 == 0, ids, -100)}
    plain = masked_tokens(model, batch)[0]
    other = masked_tokens(model, {**batch, "segments": segments(2, 6)})[0]
    assert torch.equal(plain, masked_tokens(model, {**batch, "segments": torch.zeros_like(ids)})[0])
    assert not torch.equal(plain, other)


@torch.no_grad()
def test_a_model_that_reads_images_comes_back_from_its_folder(tmp_path: Path) -> None:
    model, ids = changed(Images(length=3), Segments()), tokens(2, 6)
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m", architectures=[Images, Segments])
    given = {"images": pictures(2), "segments": segments(2, 6)}
    assert torch.equal(again(ids, extra_inputs=given), model(ids, extra_inputs=given))


def test_two_architectures_agree_on_what_a_name_means() -> None:
    model = changed(Images())
    other = Wrapper()
    other.reads = (ExtraInput(name="images", by_token=True),)
    model.wrappers.append(other)
    with pytest.raises(
        LabError, match="extra input images: one architecture reads it for each token, another"
    ):
        model(tokens(1, 3), extra_inputs={"images": pictures(1)})
