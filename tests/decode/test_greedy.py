from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.decode.greedy import Greedy
from gpt2lab.decode.interface import Limits
from gpt2lab.model import Transformer, TransformerConfig
from tests.decode.conftest import VOCAB, Pair

PROMPTS = [[5, 9, 11, 2, 8], [7], [4, 30, 22], [12, 12, 13, 14, 15, 16, 17, 18]]


def recomputed(model: Transformer, prompt: Sequence[int], new: int, eos: int | None) -> list[int]:
    """Greedy decoding without a cache: the whole text through the model for every token."""
    tokens = list(prompt)
    for _ in range(new):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        if tokens[-1] == eos:
            break
    return tokens[len(prompt) :]


def end(model: Transformer) -> int:
    """A token that greedy decoding does come to."""
    return Greedy().decode(model, PROMPTS, Limits(max_new_tokens=5))[0][4]


@pytest.mark.parametrize("with_eos", [False, True])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_unequal_prompts_go_on_as_in_transformers(tiny: Pair, with_eos: bool, penalty: float) -> None:
    eos = end(tiny.ours) if with_eos else None
    limits = Limits(max_new_tokens=20, eos=() if eos is None else (eos,))
    ours = Greedy(repetition_penalty=penalty).decode(tiny.ours, PROMPTS, limits)
    theirs = tiny.generate(PROMPTS, eos=eos, max_new_tokens=20, repetition_penalty=penalty)
    assert ours.tokens == theirs
    assert ours.finished == ["eos" if row[-1] == eos else "length" for row in theirs]


def test_min_new_tokens_holds_the_end_back_as_in_transformers(tiny: Pair) -> None:
    eos = end(tiny.ours)
    limits = Limits(max_new_tokens=20, min_new_tokens=9, eos=(eos,))
    theirs = tiny.generate(PROMPTS, eos=eos, max_new_tokens=20, min_new_tokens=9)
    assert Greedy().decode(tiny.ours, PROMPTS, limits).tokens == theirs


def test_the_cache_changes_no_token(tiny: Pair) -> None:
    for eos in (None, end(tiny.ours)):
        limits = Limits(max_new_tokens=20, eos=() if eos is None else (eos,))
        ours = Greedy().decode(tiny.ours, PROMPTS, limits)
        assert ours.tokens == [recomputed(tiny.ours, prompt, 20, eos) for prompt in PROMPTS]


def test_a_row_alone_says_what_it_says_in_a_batch(tiny: Pair) -> None:
    limits = Limits(max_new_tokens=20, eos=(end(tiny.ours),), pad=1)
    together = Greedy().decode(tiny.ours, PROMPTS, limits)
    for row, prompt in enumerate(PROMPTS):
        assert Greedy().decode(tiny.ours, [prompt], limits).tokens == [together[row]]


def test_log_probabilities_are_those_of_a_full_forward_pass(tiny: Pair) -> None:
    decoded = Greedy(repetition_penalty=1.5).decode(
        tiny.ours, PROMPTS, Limits(max_new_tokens=6), logprobs=True
    )
    assert decoded.logprobs is not None
    assert decoded.sampling_logprobs is not None
    for prompt, new, logprobs, processed in zip(
        PROMPTS, decoded, decoded.logprobs, decoded.sampling_logprobs, strict=True
    ):
        with torch.no_grad():
            logp = tiny.ours(torch.tensor([[*prompt, *new]]))[0].double().log_softmax(-1)
        wanted = logp[len(prompt) - 1 : -1].gather(1, torch.tensor(new)[:, None])[:, 0]
        torch.testing.assert_close(logprobs.double(), wanted, rtol=1e-4, atol=1e-5)
        assert processed.shape == logprobs.shape
        assert not torch.allclose(processed, logprobs)


def test_recorded_log_probabilities_may_enter_a_loss(tiny: Pair) -> None:
    decoded = Greedy().decode(tiny.ours, [[5, 9]], Limits(max_new_tokens=4), logprobs=True)
    assert decoded.logprobs is not None
    weight = torch.ones(4, requires_grad=True)
    (weight * decoded.logprobs[0]).exp().sum().backward()
    assert weight.grad is not None


def test_forced_tokens_come_first_and_are_scored(tiny: Pair) -> None:
    limits = Limits(max_new_tokens=8)
    forced = [[20, 21, 22], [], [9], [1, 1]]
    decoded = Greedy().decode(tiny.ours, PROMPTS, limits, forced=forced, logprobs=True)
    assert decoded.logprobs is not None
    for prompt, said, new in zip(PROMPTS, forced, decoded, strict=True):
        assert new[: len(said)] == said
        rest = Greedy().decode(tiny.ours, [[*prompt, *said]], Limits(max_new_tokens=8 - len(said)))
        assert new[len(said) :] == rest[0]
    assert [len(row) for row in decoded.logprobs] == [8] * 4


def test_a_true_answer_of_on_token_ends_that_row_only(tiny: Pair) -> None:
    seen: list[tuple[int, int]] = []

    def on_token(row: int, token: int) -> bool:
        seen.append((row, token))
        return row == 1 and sum(r == 1 for r, _ in seen) == 3

    limits = Limits(max_new_tokens=10)
    decoded = Greedy().decode(tiny.ours, PROMPTS, limits, on_token=on_token)
    free = Greedy().decode(tiny.ours, PROMPTS, limits)
    assert decoded.finished == ["length", "stop", "length", "length"]
    assert decoded.tokens == [free[0], free[1][:3], free[2], free[3]]
    assert [token for row, token in seen if row == 2] == decoded[2]


def test_the_model_is_left_as_it_was(tiny: Pair) -> None:
    model = tiny.ours
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prompts = [list(prompt) for prompt in PROMPTS]
    model.train()
    model.blocks[0].eval()
    Greedy().decode(model, prompts, Limits(max_new_tokens=3))
    assert model.training
    assert not model.blocks[0].training
    assert model.blocks[1].training
    model.eval()
    assert prompts == PROMPTS
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()


def test_dropout_is_off_while_decoding() -> None:
    config = TransformerConfig(
        vocab_size=VOCAB,
        d_model=16,
        n_layers=2,
        n_heads=2,
        max_positions=32,
        residual_dropout=0.5,
        init_std=0.5,
    )
    model = Transformer(config)
    limits = Limits(max_new_tokens=12)
    model.train()
    assert (
        Greedy().decode(model, PROMPTS, limits).tokens
        == Greedy().decode(model.eval(), PROMPTS, limits).tokens
    )


def test_bfloat16_decodes(tiny: Pair) -> None:
    import copy

    model = copy.deepcopy(tiny.ours).to(torch.bfloat16)
    decoded = Greedy().decode(model, PROMPTS, Limits(max_new_tokens=5))
    assert [len(row) for row in decoded] == [5, 5, 5, 5]


def test_a_tap_around_decoding_reads_every_position(tiny: Pair) -> None:
    with tiny.ours.tap(read=["blocks.1.hook_resid_post"]) as tap:
        decoded = Greedy().decode(tiny.ours, [[5, 9, 11]], Limits(max_new_tokens=4))
    with tiny.ours.tap(read=["blocks.1.hook_resid_post"]) as whole:
        tiny.ours(torch.tensor([[5, 9, 11, *decoded[0][:-1]]]))
    name = "blocks.1.hook_resid_post"
    torch.testing.assert_close(tap[name], whole[name], rtol=1e-4, atol=1e-5)


def test_rows_that_have_ended_stay_in_the_batch_while_a_tap_reads(tiny: Pair) -> None:
    limits = Limits(max_new_tokens=9)
    with tiny.ours.tap(read=["blocks.1.hook_resid_post"]) as tap:
        decoded = Greedy().decode(tiny.ours, PROMPTS, limits, on_token=lambda row, token: row < 3)
    assert tap["blocks.1.hook_resid_post"].shape == (4, 8 + 9 - 1, 24)
    alone = Greedy().decode(tiny.ours, PROMPTS, limits, on_token=lambda row, token: row < 3)
    assert decoded.tokens == alone.tokens
    assert [len(row) for row in decoded] == [1, 1, 1, 9]


def test_a_tap_that_writes_changes_the_text(tiny: Pair) -> None:
    limits = Limits(max_new_tokens=6)
    with tiny.ours.tap(write={"blocks.1.hook_mlp_out": lambda x, name: 0 * x}):
        ablated = Greedy().decode(tiny.ours, [[5, 9, 11]], limits)
    assert ablated.tokens != Greedy().decode(tiny.ours, [[5, 9, 11]], limits).tokens


def test_the_last_token_needs_no_position(tiny: Pair) -> None:
    prompt = [5] * 60
    assert len(Greedy().decode(tiny.ours, [prompt], Limits(max_new_tokens=5))[0]) == 5
    with pytest.raises(
        LabError, match=r"prompt 1 has 60 tokens and the model 64 positions: 5 new tokens fit, not 6"
    ):
        Greedy().decode(tiny.ours, [[3], prompt], Limits(max_new_tokens=6))


def test_mistakes_are_sentences(tiny: Pair) -> None:
    decode: Callable[..., object] = Greedy().decode
    with pytest.raises(LabError, match="prompt 1 is empty"):
        decode(tiny.ours, [[1], []], Limits())
    with pytest.raises(LabError, match="no prompts"):
        decode(tiny.ours, [], Limits())
    with pytest.raises(LabError, match="at least 1, got 0"):
        Limits(max_new_tokens=0)
    with pytest.raises(LabError, match="between 0 and max_new_tokens"):
        Limits(max_new_tokens=4, min_new_tokens=5)
    with pytest.raises(LabError, match="forced has 1 rows for 2 prompts"):
        decode(tiny.ours, [[1], [2]], Limits(max_new_tokens=4), forced=[[1]])
    with pytest.raises(LabError, match="5 forced tokens are more than"):
        decode(tiny.ours, [[1]], Limits(max_new_tokens=4), forced=[[1] * 5])
    with pytest.raises(LabError, match="repetition_penalty must be positive"):
        Greedy(repetition_penalty=0.0)
    with pytest.raises(TypeError):
        Greedy(repetition_penalti=1.2)  # type: ignore[call-arg]  # the mistake under test


def test_weights_that_are_not_numbers_are_refused() -> None:
    model = Transformer(
        TransformerConfig(vocab_size=VOCAB, d_model=16, n_layers=1, n_heads=2, max_positions=32)
    )
    with torch.no_grad():
        model.blocks[0].mlp.down.bias[3] = float("nan")
    with pytest.raises(LabError, match="not numbers"):
        Greedy().decode(model, [[1, 2]], Limits(max_new_tokens=4))


def test_the_sorting_model_sorts(real: Callable[[str], Path]) -> None:
    from gpt2lab.model import load_model

    model = load_model(real("gpt-nano-sort-85k"))
    inputs = torch.cartesian_prod(*[torch.arange(3)] * 6).tolist()
    decoded = Greedy().decode(model, inputs, Limits(max_new_tokens=6))
    assert decoded.tokens == [sorted(row) for row in inputs]
