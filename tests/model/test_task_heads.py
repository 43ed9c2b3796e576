"""Heads: pooling under padding on either side, shapes, several at once, and what is refused."""

import copy

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.task_heads import Head, find_head, heads, pooled, read_out
from tests.tiny import CONFIGS, tiny, tokens

KINDS = ("classification", "multilabel", "regression", "tokens", "embedding")


def headed(family: str = "gpt2", *specs: Head, **changes: object) -> Transformer:
    model = tiny(family, **changes)
    for i, spec in enumerate(specs or (Head(outputs=3),)):
        spec.attach(model, generator=torch.Generator().manual_seed(i))
    return model


def pad(ids: torch.Tensor, side: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    filler = torch.full((len(ids), count), 7)
    real, none = torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(filler, dtype=torch.bool)
    parts, masks = ([ids, filler], [real, none]) if side == "right" else ([filler, ids], [none, real])
    return torch.cat(parts, 1), torch.cat(masks, 1)


@pytest.mark.parametrize("pooling", ["last", "mean", "first"])
def test_pooling_equals_a_loop_over_real_tokens_wherever_the_padding_stands(pooling: str) -> None:
    hidden = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]])
    for row, real in enumerate(mask.bool().tolist()):
        states = [hidden[row, t] for t in range(6) if real[t]]
        expected = {"last": states[-1], "first": states[0], "mean": sum(states) / len(states)}[pooling]
        torch.testing.assert_close(pooled(hidden, mask, pooling)[row], expected)


@pytest.mark.parametrize("pooling", ["last", "mean", "first"])
def test_no_mask_is_a_mask_of_ones(pooling: str) -> None:
    hidden = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pooled(hidden, None, pooling), pooled(hidden, torch.ones(2, 4), pooling))


@pytest.mark.parametrize("family", list(CONFIGS))
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["last", "mean", "first"])
def test_padding_changes_nothing_that_a_head_says(family: str, side: str, pooling: str) -> None:
    model = headed(family, Head(outputs=3, pooling=pooling), Head(name="tag", kind="tokens", outputs=4))
    ids = tokens(3, 7)
    plain = read_out(model, ("label", "tag"), ids)
    wide, mask = pad(ids, side, 4)
    said = read_out(model, ("label", "tag"), wide, attention_mask=mask)
    torch.testing.assert_close(said["label"], plain["label"], rtol=1e-4, atol=1e-5)
    real = said["tag"][:, :7] if side == "right" else said["tag"][:, 4:]
    torch.testing.assert_close(real, plain["tag"], rtol=1e-4, atol=1e-5)


def test_a_head_is_the_linear_map_of_the_pooled_state() -> None:
    spec = Head(outputs=3, pooling="mean", bias=True, dense="tanh")
    model = headed("gpt2", spec)
    own = model.heads["label"]
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    ids = tokens(2, 5)
    state = model.hidden(ids).double().mean(1)
    first = torch.tanh(state @ own.dense.weight.double().T + own.dense.bias.double())
    expected = first @ own.output.weight.double().T + own.output.bias.double()
    said = read_out(model, ("label",), ids)["label"]
    torch.testing.assert_close(said.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("outputs", [0, 7])
def test_an_embedding_has_length_one_with_or_without_a_projection(outputs: int) -> None:
    model = headed("gpt2", Head(kind="embedding", outputs=outputs, pooling="mean"))
    vectors = read_out(model, ("label",), tokens(3, 5))["label"]
    assert vectors.shape == (3, outputs or 24)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    free = headed("gpt2", Head(kind="embedding", outputs=outputs, pooling="mean", normalize=False))
    assert read_out(free, ("label",), tokens(3, 5))["label"].norm(dim=-1).sub(1).abs().min() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_types_and_gradients_of_every_kind(kind: str) -> None:
    model = headed("llama", Head(kind=kind, outputs=3)).to(torch.bfloat16)
    said = read_out(model, ("label",), tokens(2, 1))["label"]
    assert said.shape == ((2, 1, 3) if kind == "tokens" else (2, 3))
    assert bool(said.isfinite().all())
    (said[..., 0].sum() * 3).backward()
    assert model.embedding.weight.grad is not None
    assert model.heads["label"].output.weight.grad is not None


def test_several_heads_read_one_pass_and_keep_their_order() -> None:
    model = headed("gpt2", Head(name="b", outputs=2), Head(name="a", kind="regression", outputs=1))
    passes = []
    model.final_norm.register_forward_hook(lambda *_: passes.append(1))
    said = read_out(model, ("a", "b"), tokens(2, 3))
    assert list(heads(model)) == ["b", "a"] and said["a"].shape == (2, 1) and said["b"].shape == (2, 2)
    assert len(passes) == 1


def test_the_weights_come_from_the_generator_and_leave_the_global_one_alone() -> None:
    state = torch.get_rng_state()
    first, second = headed(), headed()
    assert torch.equal(first.heads["label"].output.weight, second.heads["label"].output.weight)
    assert torch.equal(state, torch.get_rng_state())
    other = tiny("gpt2")
    Head(outputs=3).attach(other, generator=torch.Generator().manual_seed(9))
    assert not torch.equal(first.heads["label"].output.weight, other.heads["label"].output.weight)


def test_a_tied_language_head_stays_and_a_free_one_goes_unless_kept() -> None:
    ids = tokens(1, 3)
    assert headed("gpt2")(ids).shape[-1] == 61
    dropped = headed("llama")
    with pytest.raises(LabError, match="lost its language head"):
        dropped(ids)
    assert not any(name.startswith("head.") for name, _ in dropped.named_parameters())
    assert dropped.count_parameters()["total"] == sum(p.numel() for p in dropped.parameters())
    kept = headed("llama", Head(language_head=True))
    assert kept(ids).shape[-1] == 61


def test_taps_checkpointing_and_copies_work_with_heads() -> None:
    model = headed("gpt2", Head(outputs=3, pooling="mean"))
    ids = tokens(2, 5)
    with model.tap(read=["blocks.1.hook_resid_post"]) as tap:
        plain = read_out(model, ("label",), ids)["label"]
    assert tap["blocks.1.hook_resid_post"].shape == (2, 5, 24)
    twin = copy.deepcopy(model).train()
    twin.gradient_checkpointing = True
    again = read_out(twin, ("label",), ids)["label"]
    torch.testing.assert_close(again, plain)
    again.sum().backward()
    assert twin.blocks[0].mlp.up.weight.grad is not None


def test_dropout_acts_in_training_only() -> None:
    model = headed("gpt2", Head(outputs=3, dropout=0.5))
    ids = tokens(2, 5)
    assert torch.equal(read_out(model, ("label",), ids)["label"], read_out(model, ("label",), ids)["label"])
    model.train()
    torch.manual_seed(0)
    views = [read_out(model, ("label",), ids)["label"] for _ in range(2)]
    assert not torch.equal(*views)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "a b"}, "letters, digits and underscores"),
        ({"outputs": 0}, "outputs must be at least 1"),
        ({"outputs": 1}, "at least two classes"),
        ({"labels": ("a",)}, "1 labels for 2 outputs"),
        ({"labels": ("a", "a")}, "two of its labels are the same"),
        ({"dropout": 1.0}, "dropout must lie in"),
    ],
)
def test_a_head_that_makes_no_sense_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(LabError, match=words):
        Head(**options)


def test_heads_are_found_by_name_or_kind_or_the_sentence_says_what_to_do() -> None:
    model = headed("gpt2", Head(name="stars"), Head(name="score", kind="regression", outputs=1))
    assert find_head(model, "stars").name == "stars"
    assert find_head(model, kinds=("regression",)).name == "score"
    with pytest.raises(LabError, match="did you mean stars"):
        find_head(model, "star")
    with pytest.raises(LabError, match="reads out classification; asked for is regression"):
        find_head(model, "stars", ("regression",))
    with pytest.raises(LabError, match="several heads: stars, score"):
        find_head(model)
    with pytest.raises(LabError, match="no head for embedding; train one"):
        find_head(model, kinds=("embedding",))
    with pytest.raises(LabError, match="a head of this name already"):
        Head(name="stars").attach(model)


def test_a_row_without_a_real_token_is_refused() -> None:
    mask = torch.tensor([[1, 1], [0, 0]])
    with pytest.raises(LabError, match="row 1 of the batch has no real token"):
        pooled(torch.zeros(2, 2, 3), mask, "last")
    with pytest.raises(LabError, match="no tokens"):
        pooled(torch.zeros(2, 0, 3), None, "last")
