from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import tokenizers
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.decode import (
    Beam,
    Decoded,
    Decoder,
    Generation,
    Greedy,
    Sampling,
    build_decoder,
    generate,
)
from gpt2lab.decode.prompts import prompt_tokens
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.text.language_model import LanguageModel, load
from gpt2lab.text.tokenizer import Tokenizer, byte_level, word_level

PROMPTS = ["Once upon a time", "A naïve café", "x", "", "The quick brown fox jumps over the lazy dog. "] * 7


def _note(pieces: list[tuple[int, str]], index: int, piece: str) -> None:
    pieces.append((index, piece))


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    """A random model of bytes: it babbles, broken characters included."""
    config = TransformerConfig(
        vocab_size=257, d_model=24, n_layers=2, n_heads=3, max_positions=128, init_std=0.3, bos=256, eos=256
    )
    return LanguageModel(Transformer(config).eval(), byte_level())


@pytest.mark.parametrize("decoder", [Greedy(), Sampling(temperature=1.2, top_p=0.95), Beam(beams=3)])
def test_the_number_of_prompts_at_a_time_changes_no_text(
    lm: LanguageModel, decoder: Greedy | Sampling | Beam
) -> None:
    runs = [
        generate(lm, PROMPTS, decoder=decoder, max_new_tokens=20, batch_size=size, stop=["q"], seed=4)
        for size in (1, 5, 32)
    ]
    # A score may differ in its last digit: sums are taken in another order.
    runs = [[replace(one, score=None) for one in run] for run in runs]
    assert runs[0] == runs[1] == runs[2]
    assert [run.prompt for run in runs[0]] == PROMPTS


def test_one_prompt_gives_one_generation_and_a_list_gives_a_list(lm: LanguageModel) -> None:
    one = generate(lm, "Once", max_new_tokens=5)
    assert isinstance(one, Generation)
    assert generate(lm, ["Once"], max_new_tokens=5) == [one]
    assert generate(lm, [list(b"Once")], max_new_tokens=5) == [one]
    assert generate(lm, [], max_new_tokens=5) == []
    assert str(one) == "Once" + one.text
    assert (one.prompt, one.prompt_tokens, one.finished) == ("Once", list(b"Once"), "length")
    assert len(one.tokens) == 5


def test_seeds_decide_the_draws_and_prompts_differ(lm: LanguageModel) -> None:
    first = generate(lm, ["a"] * 4, decoder="sampling", max_new_tokens=12, seed=1)
    assert first == generate(lm, ["a"] * 4, decoder="sampling", max_new_tokens=12, seed=1)
    assert first != generate(lm, ["a"] * 4, decoder="sampling", max_new_tokens=12, seed=2)
    assert len({one.text for one in first}) == 4
    assert first[:2] == generate(lm, ["a"] * 2, decoder="sampling", max_new_tokens=12, seed=1)


def test_streamed_pieces_join_to_the_text(lm: LanguageModel) -> None:
    for stop in ([], ["e", "zz"]):
        pieces: list[tuple[int, str]] = []
        stream = partial(_note, pieces)
        options = {"decoder": "sampling", "max_new_tokens": 60, "stop": stop, "seed": 3, "batch_size": 2}
        told = generate(lm, PROMPTS[:3], stream=stream, **options)
        assert ["".join(piece for at, piece in pieces if at == index) for index in range(3)] == [
            one.text for one in told
        ]
        assert told == generate(lm, PROMPTS[:3], **options)


def test_a_stop_string_ends_a_text_for_every_decoder(lm: LanguageModel) -> None:
    for decoder in ("greedy", "sampling", "beam"):
        free = generate(lm, "Once", decoder=decoder, max_new_tokens=40, stop_at_eos=False)
        stop = free.text[5:7]
        at = free.text.index(stop)
        cut = generate(lm, "Once", decoder=decoder, max_new_tokens=40, stop_at_eos=False, stop=stop)
        kept = generate(
            lm, "Once", decoder=decoder, max_new_tokens=40, stop_at_eos=False, stop=[stop], keep_stop=True
        )
        assert (cut.text, cut.finished) == (free.text[:at], "stop")
        assert kept.text == free.text[: at + len(stop)]
        assert cut.tokens == free.tokens[: len(cut.tokens)]
        assert len(cut.tokens) < len(free.tokens)


def test_an_end_token_ends_a_text_unless_it_may_not(lm: LanguageModel) -> None:
    ended = [
        one for one in generate(lm, PROMPTS, decoder="sampling", max_new_tokens=60) if one.finished == "eos"
    ]
    assert ended
    assert all(one.tokens[-1] == 256 and 256 not in one.tokens[:-1] for one in ended)
    assert not any("<|endoftext|>" in one.text for one in ended)
    free = generate(lm, PROMPTS, decoder="sampling", max_new_tokens=60, stop_at_eos=False)
    assert all(len(one.tokens) == 60 and one.finished == "length" for one in free)


def test_log_probabilities_come_with_the_text(lm: LanguageModel) -> None:
    one = generate(lm, "Once", decoder="sampling", top_k=3, max_new_tokens=8, logprobs=True)
    with torch.no_grad():
        logp = lm.model(torch.tensor([[*one.prompt_tokens, *one.tokens]]))[0].log_softmax(-1)
    wanted = [float(logp[len(one.prompt_tokens) - 1 + at, token]) for at, token in enumerate(one.tokens)]
    assert one.logprobs == pytest.approx(wanted, abs=1e-4)
    assert one.sampling_logprobs is not None
    assert sum(one.sampling_logprobs) > sum(one.logprobs)


def test_an_empty_prompt_starts_from_the_first_token_of_texts(lm: LanguageModel) -> None:
    assert generate(lm, "", max_new_tokens=3).prompt_tokens == [256]
    bare = LanguageModel(Transformer(lm.config.replace(bos=None, eos=None)))
    with pytest.raises(LabError, match="no bos or eos token to start from"):
        generate(bare, [[]], max_new_tokens=3)


def test_a_model_without_a_tokenizer_goes_on_from_ids(lm: LanguageModel) -> None:
    bare = LanguageModel(lm.model)
    one = generate(bare, [[1, 2, 3]], max_new_tokens=4)[0]
    assert (one.text, one.prompt, len(one.tokens)) == ("", "", 4)
    with pytest.raises(LabError, match="need a tokenizer"):
        generate(bare, "Once")
    with pytest.raises(LabError, match="need a tokenizer"):
        generate(bare, [[1]], stop="a")


def test_a_blank_between_words_belongs_to_the_new_text() -> None:
    tokenizer = word_level(["the cat sat on the mat"])
    model = Transformer(
        TransformerConfig(vocab_size=tokenizer.vocab_size, d_model=8, n_layers=1, n_heads=1, max_positions=16)
    )
    one = generate(LanguageModel(model, tokenizer), "the cat", max_new_tokens=3, stop_at_eos=False)
    assert str(one) == tokenizer.decode([*one.prompt_tokens, *one.tokens])


def test_special_tokens_stand_where_the_tokenizer_puts_them(real: Callable[[str], Path]) -> None:
    told = load(real("stories260k-llama"))
    assert prompt_tokens(told, "Once")[0] == told.config.bos
    assert prompt_tokens(told, "") == [told.config.bos]
    joined = generate(told, ["Once upon a time", "Lily and"], max_new_tokens=30)
    streamed: list[str] = ["", ""]

    def stream(index: int, piece: str) -> None:
        streamed[index] += piece

    generate(told, ["Once upon a time", "Lily and"], max_new_tokens=30, stream=stream)
    assert streamed == [one.text for one in joined]


def test_what_does_not_fit_is_refused_with_how_much_does(lm: LanguageModel) -> None:
    with pytest.raises(
        LabError, match="prompt 1 has 100 tokens and the model 128 positions: 29 new tokens fit, not 64"
    ):
        generate(lm, ["a", "b" * 100])


def test_options_are_checked_by_name(lm: LanguageModel) -> None:
    for settings, sentence in (
        ({"decoder": "gredy"}, "gredy: no such decoder; did you mean greedy?"),
        ({"decoder": "sampling", "topp": 0.9}, "topp: no such option .* did you mean top_p?"),
        ({"decoder": "greedy", "max_new_token": 9}, "did you mean max_new_tokens?"),
        ({"decoder": "greedy", "top_k": 5}, "top_k: no such option of generate with decoder greedy"),
        ({"decoder": Greedy(), "repetition_penalty": 2.0}, "set them on the object"),
        ({"decoder": "sampling", "top_k": "many"}, "top_k"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"stop": [""]}, "a stop string is empty"),
        ({"decoder": "beam", "stream": print}, "cannot stream"),
        ({"decoder": "beam", "logprobs": True}, "no log-probabilities"),
    ):
        with pytest.raises(LabError, match=sentence):
            generate(lm, "Once", **settings)
    with pytest.raises(LabError, match="several are a list of those"):
        generate(lm, [1, 2])


def test_options_as_text_become_their_types() -> None:
    assert build_decoder("sampling", {"top_p": "0.9", "top_k": "none"}) == Sampling(top_p=0.9)
    assert build_decoder("beam", {"beams": "3", "early_stopping": "never"}) == Beam(
        beams=3, early_stopping="never"
    )
    assert build_decoder("beam", {"early_stopping": "true"}) == Beam(early_stopping=True)


@dataclass(frozen=True, kw_only=True)
class Parrot(Decoder):
    """A foreign decoder: repeats the prompt's last token."""

    def decode(
        self, model: Transformer, prompts: list[list[int]], limits: object, **others: object
    ) -> Decoded:
        return Decoded(tokens=[[prompt[-1]] * 3 for prompt in prompts], finished=["length"] * len(prompts))


def test_a_foreign_decoder_is_used_as_an_object(lm: LanguageModel) -> None:
    assert generate(lm, "ab", decoder=Parrot()).text == "bbb"


def test_packed_weights_tell_the_same_story(real: Callable[[str], Path]) -> None:
    lm = load(real("tinystories-656k-llama"))
    prompts = ["Once upon a time ", "Tom had a red "]
    plain = generate(lm, prompts, max_new_tokens=60, weights="plain")
    assert generate(lm, prompts, max_new_tokens=60, weights="packed") == plain
    assert generate(lm, prompts, max_new_tokens=60, weights="packed", batch_size=1) == plain


def test_the_prompt_is_shown_as_it_was_given(lm: LanguageModel) -> None:
    for text in ("<|endoftext|>user: hi", " a  b", ""):
        assert generate(lm, text, max_new_tokens=2).prompt == text
    ids = [256, *b"hi", 256]
    assert generate(lm, [ids], max_new_tokens=2)[0].prompt == "<|endoftext|>hi<|endoftext|>"


@pytest.mark.parametrize("stop", [(), ("never",)])
def test_a_character_that_the_prompt_leaves_open_belongs_to_the_new_text(
    lm: LanguageModel, stop: tuple[str, ...]
) -> None:
    first, *rest = "🙂!".encode()
    limits = {"max_new_tokens": len(rest), "stop": stop, "decoder": Says(tokens=rest)}
    (found,) = generate(lm, [[*b"a", first]], **limits)
    assert found.text == "🙂!"


@dataclass(frozen=True, kw_only=True)
class Says(Decoder):
    """Says the same tokens whatever the model."""

    tokens: list[int]

    def decode(self, model, prompts, limits, *, generator=None, on_token=None) -> Decoded:
        for token in self.tokens:
            if on_token is not None:
                on_token(0, token)
        return Decoded(tokens=[self.tokens for _ in prompts], finished=["length" for _ in prompts])


def test_a_blank_that_begins_the_new_text_is_kept(shared_data: Path) -> None:
    llama = load(shared_data / "models" / "stories260k-llama")
    for prompt in ("Once upon a time, there was a little girl", "Lily saw a"):
        greedy = generate(llama, prompt, max_new_tokens=4)
        assert greedy.text.startswith(" ")
        assert llama.tokenizer.encode(str(greedy)) == [*llama.tokenizer.encode(prompt), *greedy.tokens]


def test_what_closes_texts_is_no_part_of_a_prompt(lm: LanguageModel) -> None:
    backend = tokenizers.Tokenizer.from_str(lm.tokenizer.backend.to_str())
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 256)]
    )
    closing = LanguageModel(lm.model, Tokenizer(backend, bos=256, eos=256))
    assert prompt_tokens(closing, "hi") == [256, *b"hi"]
    assert prompt_tokens(closing, "hi<|endoftext|>") == [256, *b"hi", 256]
    assert prompt_tokens(closing, "") == [256]


def test_ids_without_a_token_are_not_said_but_one_may_end_a_text() -> None:
    words = {"a": 0, "b": 2, "c": 5}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="a"))
    config = TransformerConfig(vocab_size=9, d_model=8, n_layers=1, n_heads=1, max_positions=16, eos=7)
    lm = LanguageModel(Transformer(config).eval(), Tokenizer(backend))
    assert lm.tokenizer.holes == (1, 3, 4)
    texts = generate(lm, [[0]] * 40, decoder="sampling", max_new_tokens=12)
    assert {token for text in texts for token in text.tokens} == {0, 2, 5, 7}
    assert all(text.finished == "eos" for text in texts if 7 in text.tokens)


def test_embeddings_beside_text_are_continued_as_their_tokens_are(lm: LanguageModel) -> None:
    with torch.no_grad():
        embedded = lm.model.embed(torch.tensor([list(b"Once upon")]))[0]
    for options in ({}, {"decoder": "sampling", "temperature": 0.7}, {"decoder": "beam"}):
        texts = generate(lm, ["a", "Once upon", "bc"], max_new_tokens=12, stop="qq", batch_size=2, **options)
        mixed = generate(lm, ["a", embedded, "bc"], max_new_tokens=12, stop="qq", batch_size=2, **options)
        assert [(one.tokens, one.text) for one in mixed] == [(one.tokens, one.text) for one in texts]
        assert (mixed[1].prompt, mixed[1].prompt_tokens) == ("", [])


def test_log_probabilities_follow_embeddings_too(lm: LanguageModel) -> None:
    with torch.no_grad():
        embedded = lm.model.embed(torch.tensor([list(b"Once upon")]))[0]
    (from_tokens,) = generate(lm, ["Once upon"], max_new_tokens=6, logprobs=True)
    (found,) = generate(lm, [embedded], max_new_tokens=6, logprobs=True)
    assert found.logprobs == pytest.approx(from_tokens.logprobs, abs=1e-6)


def test_what_is_no_decoder_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(LabError, match=r"str is no decoder|dict is no decoder"):
        build_decoder({}, {})
    with pytest.raises(LabError, match=r"embeddings are real numbers \[time, 24\]"):
        generate(lm, [torch.zeros(3, 7)], max_new_tokens=2)
    with pytest.raises(LabError, match="token ids are a list"):
        generate(lm, [torch.tensor([1, 2])], max_new_tokens=2)
