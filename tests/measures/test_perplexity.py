"""Perplexity against a float64 loop, closed forms, and the arithmetic of the public WikiText evaluation."""

import json
import math
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lab.base.errors import LabError
from gpt2lab.measures import corpus
from gpt2lab.measures.perplexity import Perplexity, adjust, score_sequences, token_losses, windows
from gpt2lab.measures.scoring import Row, score_rows
from gpt2lab.model import Transformer
from gpt2lab.text.language_model import LanguageModel, load
from gpt2lab.text.pieces import aligned
from gpt2lab.text.tokenizer import byte_level, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer
from tests.measures.tools import START, TEXT, ignorant, reader, slow_losses
from tests.tiny import CAUSAL, CONFIGS, tiny, tokens

FAMILIES = CAUSAL


@given(st.integers(1, 60), st.integers(1, 20), st.data())
@settings(max_examples=300, deadline=None)
def test_windows_score_every_target_exactly_once(n_targets: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    scored: list[int] = []
    for cut in windows(n_targets, window, stride):
        assert 0 < cut.stop - cut.start <= window and 0 < cut.scored <= cut.stop - cut.start
        assert cut.start % stride == 0
        targets = range(cut.stop - cut.scored + 1, cut.stop + 1)
        # a target has window - stride tokens before it, or all there are
        assert all(target - cut.start >= min(target, window - stride + 1) for target in targets)
        scored += targets
    assert scored == list(range(1, n_targets + 1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("window", "stride"), [(7, 3), (40, 40), (5, 1), (6, 6), (1, 1)])
def test_losses_equal_the_float64_loop(family: str, window: int, stride: int) -> None:
    model, ids = tiny(family), tokens(1, 53)[0].tolist()
    found = token_losses(model, ids, window, stride, batch_size=3)
    assert found.dtype == torch.float64 and found.shape == (52,)
    assert found.tolist() == pytest.approx(slow_losses(model, ids, window, stride), abs=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_loss_depends_on_the_batch_size(family: str) -> None:
    model, ids = tiny(family), tokens(1, 300)[0]
    alone = token_losses(model, ids, 16, 5, batch_size=1)
    for batch_size in (5, 32):
        assert torch.allclose(
            alone, token_losses(model, ids, 16, 5, batch_size=batch_size), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("documents", [False, True])
def test_no_number_depends_on_the_batch_size(documents: bool, tmp_path: Path) -> None:
    data = tmp_path / "documents.jsonl"
    data.write_text("".join(json.dumps({"text": TEXT[i:]}) + "\n" for i in range(0, 200, 7)))
    lm = reader()
    found = [
        Perplexity(data=(str(data),), documents=documents, window=30, stride=11, batch_size=b)(lm)
        for b in (1, 5, 32)
    ]
    for other in found[1:]:
        assert other.numbers == pytest.approx(found[0].numbers, rel=1e-6)
        assert other.about == found[0].about


def test_sequences_of_unequal_length_do_not_see_each_other() -> None:
    model = tiny("gpt2")
    sequences = [tokens(1, n, seed=n)[0] for n in (2, 19, 7, 33, 7)]
    together = score_sequences(model, sequences, window=10, stride=4, batch_size=4)
    for sequence, score in zip(sequences, together, strict=True):
        alone = score_sequences(model, [sequence], window=10, stride=4, batch_size=1)[0]
        assert torch.allclose(score.losses, alone.losses, atol=1e-6)
        assert torch.equal(score.hits, alone.hits)


def test_hits_are_the_tokens_that_the_model_finds_likeliest() -> None:
    model, ids = tiny("llama"), tokens(1, 20)[0]
    score = score_sequences(model, [ids], window=20, stride=20)[0]
    likeliest = model(ids[None, :-1])[0].argmax(-1)
    assert torch.equal(score.hits, likeliest == ids[1:])


def test_the_logits_of_a_batch_are_never_held_at_once() -> None:
    seen: list[int] = []

    class Watched(Transformer):
        def unembed(self, hidden: torch.Tensor) -> torch.Tensor:
            seen.append(hidden.shape[:-1].numel())
            return super().unembed(hidden)

    model = Watched(CONFIGS["gpt2"].replace(vocab_size=200_000, d_model=3, max_positions=40))
    row = Row(torch.arange(41), 40)
    score_rows(model, [row, row], batch_size=2)
    assert max(seen) == (1 << 22) // 200_000 and sum(seen) == 80


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_left_as_it_was_and_can_be_trained_on(family: str) -> None:
    model = Transformer(CONFIGS[family].replace(residual_dropout=0.5, embedding_dropout=0.5))
    model.train()
    model.blocks[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = tokens(1, 30)[0]
    kept = ids.clone()
    first, second = token_losses(model, ids), token_losses(model, ids)
    assert torch.equal(first, second), "dropout was on"
    assert torch.equal(ids, kept)
    assert model.training and model.blocks[0].training and not model.blocks[1].training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model(ids[None]).sum().backward()  # nothing of the inference mode is left behind


def test_bf16_gives_nearly_the_same_and_float32_losses() -> None:
    model, ids = tiny("gpt2"), tokens(1, 40)[0]
    exact = token_losses(model, ids)
    assert token_losses(model.bfloat16(), ids).mean().item() == pytest.approx(exact.mean().item(), rel=0.02)


@pytest.mark.parametrize(("window", "stride"), [(32, 16), (9, 2)])
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("bos", [False, True])
def test_where_all_bytes_are_equally_likely_a_byte_costs_its_bits(
    window: int, stride: int, documents: bool, bos: bool, tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    measure = Perplexity(data=(str(file),), window=window, stride=stride, documents=documents, bos=bos)
    found = measure(LanguageModel(ignorant(257), byte_level()))
    n_bytes = len(TEXT.encode()) - (0 if bos else 1)
    assert found.about["tokens"] == found.about["bytes"] == n_bytes
    assert found["perplexity"] == pytest.approx(257, rel=1e-6)
    assert found["loss"] == pytest.approx(math.log(257), rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(math.log2(257), rel=1e-6)


def test_bits_per_byte_count_the_bytes_of_the_text_and_not_the_tokens(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("one two three two one", encoding="utf-8")
    tokenizer = word_level(["one two three"], eos=None)
    found = Perplexity(data=(str(file),), window=8)(LanguageModel(ignorant(tokenizer.vocab_size), tokenizer))
    assert found.about["tokens"] == 4 and found.about["bytes"] == len(" two three two one")
    assert found["bits_per_byte"] == pytest.approx(4 * math.log2(tokenizer.vocab_size) / 18, rel=1e-6)


def test_the_limit_counts_scored_tokens_and_their_bytes(tmp_path: Path) -> None:
    file = tmp_path / "documents.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("abcdef", "ghi", "jklmno")))
    lm = LanguageModel(ignorant(257), byte_level())
    whole = Perplexity(data=(str(file),), documents=True)(lm)
    assert (whole.about["tokens"], whole.about["documents"]) == (15, 3)
    some = Perplexity(data=(str(file),), documents=True, limit=8)(lm)
    assert (some.about["tokens"], some.about["bytes"], some.about["documents"]) == (8, 8, 2)
    stream = Perplexity(data=(str(file),), limit=8)(lm)  # bcdef <eos> gh
    assert (stream.about["tokens"], stream.about["bytes"]) == (8, 7)


def test_a_stream_has_an_eos_between_documents_and_an_intact_text_file(tmp_path: Path) -> None:
    lines, book, stories = tmp_path / "a.jsonl", tmp_path / "b.txt", tmp_path / "c.txt"
    lines.write_text('{"text": "ab"}\n{"text": "c"}\n')
    book.write_text("\n d\n\n" * 9000, encoding="utf-8")  # longer than one document of the reader
    stories.write_text("e\n<|endoftext|>\nf\n")
    eos = byte_level().eos
    texts = corpus.read_texts([str(lines), str(stories)])
    ids = corpus.stream(texts, byte_level()).ids
    assert ids == [*b"ab", eos, *b"c", eos, *b"e", eos, *b"f"]
    whole = corpus.stream(corpus.read_texts(str(book)), byte_level()).ids
    assert bytes(whole) == book.read_bytes()


def test_documents_are_scored_apart_and_listed(tmp_path: Path) -> None:
    file = tmp_path / "documents.jsonl"
    texts = ["A first document.", "Another, somewhat longer document.", "x"]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    lm = reader()
    found = Perplexity(data=(str(file),), documents=True, window=20, stride=10)(lm)
    means = []
    for text, row in zip(texts, found.tables["documents"], strict=True):
        ids = [START, *text.encode()]
        losses = token_losses(lm.model, ids, 20, 10)
        means.append(losses.mean().item())
        assert row["loss"] == pytest.approx(means[-1], rel=1e-6) and row["bytes"] == len(text)
    assert found["document_perplexity"] == pytest.approx(math.exp(sum(means) / 3), rel=1e-6)


def test_the_table_by_context_adds_up_to_the_loss(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT * 3, encoding="utf-8")
    found = Perplexity(data=(str(file),), window=24, stride=7)(reader())
    rows = found.tables["by_context"]
    assert [row["context"] for row in rows] == [1, 2, 4, 8, 16, 24]
    assert sum(row["tokens"] for row in rows) == found.about["tokens"]
    total = sum(row["tokens"] * row["loss"] for row in rows)
    assert total / found.about["tokens"] == pytest.approx(found["loss"], rel=1e-9)
    assert found.figure_svg("by_context").startswith(b"<svg")


def test_adjusted_perplexity_is_the_public_codes_formula() -> None:
    numbers = adjust(total=900.0, n_words=101, n_targets=250)
    assert numbers["adjusted_perplexity"] == pytest.approx(math.exp(3.6 * 250 / 100))
    assert numbers["adjusted_perplexity_paper"] == pytest.approx(math.exp(900 / 101))
    assert numbers["token_ratio"] == 2.5
    capped = adjust(total=90000.0, n_words=101, n_targets=250)
    assert capped["adjusted_perplexity"] == math.exp(20) and capped["adjusted_loss"] == 900.0
    assert capped["adjusted_perplexity_paper"] == math.inf


def test_a_capped_perplexity_says_so(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("incomprehensibilities antidisestablishmentarianism")
    found = Perplexity(data=(str(file),), word_adjusted=True)(LanguageModel(ignorant(257), byte_level()))
    assert found.about["capped"] is True and found["adjusted_perplexity"] == math.exp(20)


def test_wikitext_arithmetic_on_the_real_file(shared_data: Path) -> None:
    file = shared_data / "megatron" / "wikitext2_test.txt"
    tokenizer = load_tokenizer(shared_data / "gpt2-tokenizer")
    passage = corpus.stream(corpus.read_texts(str(file)), tokenizer, style="wikitext")
    assert passage.n_words == 245_566  # the paper's To
    # The paper's T is 270,329, on WikiText-103, where these 15,218 "<unk>" (3 tokens each) are mostly words.
    assert len(passage.ids) == 278_365
    assert passage.n_bytes == len(tokenizer.decode(passage.ids[1:]).encode())
    cuts = windows(len(passage.ids) - 1, 1024, 32)
    assert sum(cut.scored for cut in cuts) == 278_364 and len(cuts) == 1 + math.ceil((278_364 - 1024) / 32)


def test_adjusted_perplexity_of_an_ignorant_model_on_the_real_file(shared_data: Path) -> None:
    file = shared_data / "megatron" / "wikitext2_test.txt"
    measure = Perplexity(
        data=(str(file),), detokenize="wikitext", word_adjusted=True, window=512, stride=512, batch_size=64
    )
    found = measure(LanguageModel(ignorant(257, 512), byte_level()))
    targets = found.about["tokens"]
    assert found["words"] == 245_566 and found["token_ratio"] == targets / 245_565
    assert found["adjusted_loss"] == pytest.approx(targets * math.log(257) / 245_565, rel=1e-6)


def _write(folder: Path, text: str) -> tuple[str, ...]:
    (folder / "text.txt").write_text(text)
    return (str(folder / "text.txt"),)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 41}, "window 41 is longer than the model's 40 positions"),
        ({"window": 0}, "window must be at least 1"),
        ({"window": 10, "stride": 11}, "stride must lie between 1 and the window of 10, got 11"),
        ({"stride": 0}, "stride must lie between 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"limit": 5, "word_adjusted": True}, "leave limit out"),
        ({"detokenize": "wiki"}, "did you mean wikitext"),
        ({"data": ("no/such/file.txt",)}, "no such file"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(
    options: dict[str, object], words: str, tmp_path: Path
) -> None:
    measure = Perplexity(**{"data": _write(tmp_path, TEXT), **options})  # type: ignore[arg-type]  # on purpose
    with pytest.raises(LabError, match=words) as error:
        measure(reader())
    assert "\n" not in str(error.value)


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    lm = reader()
    with pytest.raises(LabError, match="too little text"):
        Perplexity(data=_write(tmp_path, "x"))(lm)
    with pytest.raises(LabError, match="empty"):
        Perplexity(data=_write(tmp_path, ""))(lm)
    with pytest.raises(LabError, match="no document has two tokens"):
        Perplexity(data=_write(tmp_path, "x"), documents=True, bos=False)(lm)
    with pytest.raises(LabError, match="at least two words"):
        Perplexity(data=_write(tmp_path, "word"), word_adjusted=True)(lm)
    assert Perplexity(data=_write(tmp_path, "x"), bos=True)(lm).about["tokens"] == 1
    with pytest.raises(LabError, match="at least two tokens"):
        token_losses(lm.model, [1])


def test_a_model_without_tokenizer_or_start_token_is_refused(tmp_path: Path) -> None:
    data = _write(tmp_path, "one two three")
    with pytest.raises(LabError, match="no tokenizer"):
        Perplexity(data=data)(LanguageModel(ignorant(5), None))
    plain = word_level(["one two three"], eos=None)
    lm = LanguageModel(ignorant(plain.vocab_size), plain)
    with pytest.raises(LabError, match="no bos or eos"):
        Perplexity(data=data, bos=True)(lm)
    assert (
        Perplexity(data=data, documents=True)(lm).about["tokens"] == 2
    )  # the first word has nothing before it


def test_nan_logits_and_foreign_ids_are_refused() -> None:
    model = tiny("gpt2")
    with pytest.raises(LabError, match="token 61 is outside the model's vocabulary of 61"):
        token_losses(model, [1, 61])
    with pytest.raises(LabError, match="token -3 is outside"):
        token_losses(model, [1, -3])
    with torch.no_grad():
        model.final_norm.weight[0] = math.nan
    with pytest.raises(LabError, match="logits are NaN"):
        token_losses(model, [1, 2, 3])


def test_real_stories_are_far_likelier_than_their_words_shuffled(shared_data: Path) -> None:
    from gpt2lab.model import load_model

    folder = shared_data / "models" / "stories260k-llama"
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    text = (shared_data / "tinystories" / "tinystories_sample.txt").read_text(encoding="utf-8")[:4000]
    words = text.split()
    shuffled = " ".join(
        words[i] for i in torch.randperm(len(words), generator=torch.Generator().manual_seed(1))
    )
    real, noise = (
        float(token_losses(model, tokenizer.encode(one), 256, 128).mean()) for one in (text, shuffled)
    )
    assert real < 2.1 and noise > real + 1.5


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("limit", [None, 1, 2, 3, 5, 6])
def test_bytes_are_those_of_the_characters_whose_tokens_are_all_scored(
    tmp_path: Path, documents: bool, limit: int | None
) -> None:
    (tmp_path / "a.txt").write_text("🙂é!\n", encoding="utf-8")
    found = Perplexity(data=(str(tmp_path / "a.txt"),), documents=documents, bos=False, limit=limit)(reader())
    # The first of the emoji's four tokens is context only, and the character counts with its last one.
    assert found.about["bytes"] == {None: 8, 1: 0, 2: 0, 3: 4, 5: 6, 6: 7}[limit]
    assert found.about["tokens"] == limit or limit is None


def test_unknown_words_and_what_a_normalizer_drops_count_with_the_bytes_they_have_in_the_text(
    tmp_path: Path,
) -> None:
    tokenizer = word_level(["the cat saw the dog"])
    tokenizer.backend.normalizer = tokenizers.normalizers.Replace("\u200b", "")
    text = "the zébra saw\u200b the cat"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    lm = LanguageModel(ignorant(tokenizer.vocab_size), tokenizer)
    for limit, scored in ((None, text), (1, "the zébra"), (2, "the zébra saw")):
        found = Perplexity(data=(str(tmp_path / "a.txt"),), bos=True, limit=limit and limit + 1)(lm)
        assert found.about["bytes"] == len(scored.encode())


def test_a_blank_that_the_tokenizer_adds_is_no_byte_of_the_text(tmp_path: Path, shared_data: Path) -> None:
    lm = load(shared_data / "models" / "stories260k-llama")
    (tmp_path / "a.txt").write_text("Lily had a ball", encoding="utf-8")
    first = aligned(lm.tokenizer, "Lily had a ball")[1][0]
    for bos, expected in ((True, 15), (False, 15 - first[1])):
        assert Perplexity(data=(str(tmp_path / "a.txt"),), bos=bos)(lm).about["bytes"] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_float64_model_is_scored_in_float64(family: str) -> None:
    model = tiny(family).double()
    ids = tokens(1, 20)[0].tolist()
    found = token_losses(model, ids, 12, 5)
    assert found.tolist() == pytest.approx(slow_losses(model, ids, 12, 5), abs=1e-11)
    assert score_rows(model, [Row(torch.tensor(ids), 3)])[0].losses.dtype == torch.float64
