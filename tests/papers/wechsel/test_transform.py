"""The transform: every family, tied and untied, every method, the tokenizer of the model's kind, and training afterwards."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, attach
from gpt2lab.papers.wechsel.freezing import inner_parameters
from gpt2lab.papers.wechsel.initialisation import Initialised, Method, Spaces, wechsel_init
from gpt2lab.papers.wechsel.mixing import mixed_rows, random_rows
from gpt2lab.papers.wechsel.target_tokenizer import trained_like
from gpt2lab.papers.wechsel.transform import Wechsel
from gpt2lab.runs.store import Store
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.text_vectors import text_vectors
from gpt2lab.text.tokenizer import Tokenizer, for_masking, train_bpe
from gpt2lab.text.vector_files import SubwordVectors, write_bin
from tests.tiny import CONFIGS, tiny

ENGLISH = documents(0, 60)


def ciphered(text: str) -> str:
    """Every word backwards and in capitals: no word of the two languages is the same."""
    return " ".join(word[::-1].upper() for word in text.split(" "))


OTHER = [ciphered(text) for text in documents(7, 60)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(ENGLISH, 330)


@pytest.fixture(scope="module")
def other(tokenizer: Tokenizer) -> Tokenizer:
    return trained_like(tokenizer, OTHER, 320)


@pytest.fixture(scope="module")
def spaces() -> Spaces:
    source, target = (text_vectors(texts) for texts in (ENGLISH, OTHER))
    pairs = [(word, ciphered(word)) for word in source.words[:90]]
    return Spaces(source, target, pairs)


def model(family: str, tokenizer: Tokenizer, **changes: object) -> LanguageModel:
    given = {"max_positions": 160, "eos": tokenizer.eos, "bos": tokenizer.bos, "pad": tokenizer.pad}
    return LanguageModel(tiny(family, vocab_size=tokenizer.vocab_size, **given, **changes), tokenizer)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_keeps_its_inner_weights_and_gets_mixed_rows_wherever_tokens_have_one(
    family: str, tied: bool, tokenizer: Tokenizer, other: Tokenizer, spaces: Spaces
) -> None:
    lm = model(family, tokenizer, tied_head=tied)
    made = wechsel_init(lm, other, spaces, k=3, tau=0.2, seed=5)
    old, new = lm.model.state_dict(), made.lm.model.state_dict()
    assert old.keys() == new.keys() and made.lm.config.vocab_size == other.vocab_size != tokenizer.vocab_size
    assert made.mixed is not None
    tables = [name for name in ("embedding.weight", "head.weight", "head.bias") if name in old]
    assert ("head.bias" in tables) == (not CONFIGS[family].causal)
    for name in old.keys() - set(tables):
        assert torch.equal(old[name], new[name]), name
    for name in tables:
        rows = mixed_rows(old[name], made.mixed, seed=5)
        rows[other.eos or 0] = old[name][tokenizer.eos or 0]
        assert torch.equal(new[name], rows), name
    shared = new["embedding.weight"].data_ptr() == new["head.weight"].data_ptr()
    assert shared == tied
    assert made.copied == ("<|endoftext|>",) and made.lm.config.eos == other.eos


def test_a_row_is_written_as_the_tokens_it_is_made_of(
    tokenizer: Tokenizer, other: Tokenizer, spaces: Spaces
) -> None:
    lm = model("gpt2", tokenizer)
    made = wechsel_init(lm, other, spaces, k=4)
    there = [id for id in range(other.vocab_size) if id not in made.not_found]
    assert made.found_share == pytest.approx(len(there) / other.vocab_size) and 0.1 < made.found_share < 1
    id = there[-1]
    parts = made.made_of(id)
    assert sum(weight for _, weight, _ in parts) == pytest.approx(1)
    assert [alike for *_, alike in parts] == sorted((alike for *_, alike in parts), reverse=True)
    row = made.rows([id], most=2)[0]
    assert row["made of"] == ", ".join(f"{weight:.2f} {name}" for name, weight, _ in parts[:2])
    drawn = made.rows([made.not_found[-1], other.eos or 0])
    assert (
        drawn[0]["made of"] == "drawn" and drawn[0]["similarity"] is None and drawn[1]["made of"] == "copied"
    )
    assert made.alignment is not None and made.alignment.precision_at_10 > 0.2


def rows_of(method: Method, lm: LanguageModel, other: Tokenizer, spaces: Spaces | None) -> torch.Tensor:
    made = wechsel_init(lm, other, spaces, method=method, k=3, seed=2)
    return made.lm.model.embedding.weight.detach()


def test_each_method_makes_its_rows(tokenizer: Tokenizer, other: Tokenizer, spaces: Spaces) -> None:
    lm = model("llama", tokenizer)
    table, eos = lm.model.embedding.weight.detach(), other.eos or 0
    mixed = wechsel_init(lm, other, spaces, k=3, seed=2)
    assert mixed.mixed is not None
    rows = mixed.lm.model.embedding.weight.detach()
    nearest = rows_of("nearest", lm, other, spaces)
    permuted = rows_of("permuted", lm, other, spaces)
    drawn = rows_of("transinner", lm, other, None)
    there = [id for id in np.flatnonzero(mixed.mixed.found).tolist() if id != eos]
    for id in there:
        assert torch.equal(nearest[id], table[mixed.mixed.sources[id, 0]])
    assert not torch.equal(permuted, rows)
    assert torch.equal(permuted[there].sort(0).values, rows[there].sort(0).values), "the same rows, dealt out"
    away = [id for id in range(len(rows)) if id not in there]
    assert torch.equal(permuted[away], rows[away])
    assert torch.equal(drawn[1:], random_rows(table, other.vocab_size, seed=2).float()[1:])
    assert torch.equal(drawn, rows_of("frozen", lm, other, None))
    assert torch.equal(drawn[eos], table[tokenizer.eos or 0])
    full = wechsel_init(lm, other, method="fullrand", seed=2).lm.model
    fresh = Transformer(full.config, generator=torch.Generator().manual_seed(2))
    assert all(torch.equal(x, fresh.state_dict()[name]) for name, x in full.state_dict().items())


def test_vectors_in_one_space_need_no_dictionary(tokenizer: Tokenizer) -> None:
    vectors = text_vectors(ENGLISH)
    lm = model("gpt2", tokenizer)
    made = wechsel_init(lm, tokenizer, Spaces(vectors, vectors, [], align=False), method="nearest")
    assert made.alignment is None and made.mixed is not None
    found = made.mixed.found
    assert np.allclose(made.mixed.similarities[found], 1), "each token is its own nearest one"


def test_rows_beyond_the_tokenizer_are_left_out_and_types_stay(
    tokenizer: Tokenizer, other: Tokenizer, spaces: Spaces
) -> None:
    padded = tiny("gpt2", vocab_size=tokenizer.vocab_size + 9, max_positions=160)
    plain = tiny("gpt2", vocab_size=tokenizer.vocab_size, max_positions=160)
    with torch.no_grad():
        plain.embedding.weight.copy_(padded.embedding.weight[:-9])
    one, same = (
        wechsel_init(LanguageModel(m, tokenizer), other, spaces).lm.model.embedding.weight
        for m in (padded, plain)
    )
    assert torch.equal(one, same)
    for dtype in (torch.bfloat16, torch.float64):
        made = wechsel_init(LanguageModel(plain.to(dtype), tokenizer), other, spaces).lm.model
        assert {parameter.dtype for parameter in made.parameters()} == {dtype}


def test_what_cannot_be_transferred_is_refused(
    tokenizer: Tokenizer, other: Tokenizer, spaces: Spaces
) -> None:
    from gpt2lab.base.registry import part

    lm = model("gpt2", tokenizer)
    for call, reason in (
        (lambda: wechsel_init(LanguageModel(lm.model), other, spaces), "no tokenizer"),
        (lambda: wechsel_init(lm, other), "needs word vectors of both languages"),
        (lambda: wechsel_init(lm, other, spaces, method="none"), "one of wechsel, nearest"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: wechsel_init(lm, other, spaces, k=999), "k 999"),
        (lambda: wechsel_init(lm, other, Spaces(spaces.source, spaces.target, [], mode="ngrams")), "dictionary is empty"),
        (lambda: wechsel_init(lm, other, Spaces(spaces.source, spaces.target, spaces.pairs, mode="ngrams")), "n-gram mode"),
        (lambda: Wechsel(k=0), "k must be at least 1"),
        (lambda: Wechsel(tau=0.0), "tau must be above 0"),
        (lambda: Wechsel(freeze=1.5), "freeze is a share"),
        (lambda: Wechsel(max_words=0), "max_words"),
        (lambda: Wechsel(steps=-1), "steps must not be negative"),
        (lambda: Wechsel()(lm), "data is missing"),
        (lambda: Wechsel(data=("tinyworld:9",))(lm), "source_data is missing"),
        (lambda: Wechsel(data=("tinyworld:9",), source_data=("tinyworld:9",))(lm), "dictionary is missing"),
        (lambda: Wechsel(tokenizer="x", method="transinner", k=9999)(lm), "k 9999: the model has 330"),
        (lambda: Wechsel(data=("tinyworld:9",), method="transinner", vocab_size=200)(lm), "257 ids are bytes"),
        (lambda: Wechsel(data=("tinyworld:9",), method="transinner", steps=1, context=999)(lm), "has 160 positions"),
    ):  # fmt: skip
        with pytest.raises(LabError, match=reason):
            call()
    attach(lm.model, part("architecture", "lora")(rank=2))
    with pytest.raises(LabError, match="without architectures"):
        wechsel_init(lm, other, spaces)
    nothing = SubwordVectors(
        ("q" * 50,), np.ones((5, 3), dtype=np.float32), 4, 40, 40
    )  # tokens are too short
    with pytest.warns(UserWarning, match="every row is drawn"):
        wechsel_init(model("gpt2", tokenizer), other, Spaces(nothing, nothing, [], align=False))


def backends() -> dict[str, tokenizers.Tokenizer]:
    """A tokenizer of every kind, with what it puts around a text."""
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    made = {}
    special = ["<s>", "</s>", "<unk>", "[MASK]"]
    for kind, trainer in (
        ("BPE", trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)),
        ("WordPiece", trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)),
        ("Unigram", trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)),
        ("WordLevel", trainers.WordLevelTrainer(vocab_size=200, special_tokens=special, show_progress=False)),
    ):  # fmt: skip
        model = models.Unigram() if kind == "Unigram" else getattr(models, kind)(unk_token="<unk>")
        backend = tokenizers.Tokenizer(model)
        backend.normalizer = normalizers.Lowercase()
        backend.pre_tokenizer = (
            pre_tokenizers.Metaspace() if kind == "Unigram" else pre_tokenizers.BertPreTokenizer()
        )
        backend.decoder = decoders.Metaspace() if kind == "Unigram" else None
        backend.train_from_iterator(ENGLISH, trainer)
        ids = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
        backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
        made[kind] = backend
    bert = tokenizers.Tokenizer.from_str(made["WordPiece"].to_str())
    bert.post_processor = processors.BertProcessing(("</s>", 1), ("<s>", 0))
    made["BertProcessing"] = bert
    return made


@pytest.mark.parametrize("kind", ["BPE", "WordPiece", "Unigram", "WordLevel", "BertProcessing"])
def test_a_tokenizer_of_every_kind_is_trained_anew_with_its_special_tokens_and_frame(kind: str) -> None:
    backend = backends()[kind]
    old = Tokenizer(backend, bos=0, eos=1, unk=2, mask=3)
    new = trained_like(old, OTHER, 150)
    assert 100 < new.vocab_size <= 150
    assert [new.token(id) for id in range(4)] == ["<s>", "</s>", "<unk>", "[MASK]"]
    assert (new.bos, new.eos, new.unk, new.mask) == (0, 1, 2, 3) and new.special_ids == {0, 1, 2, 3}
    text = OTHER[0].partition(".")[0]
    ids = new.encode(text, special=True)
    assert ids[0] == 0 and ids[-1] == 1 and new.encode(text) == ids[1:-1]
    assert new.encode(text.lower()) == new.encode(text), "the normalizer stays"
    assert len(new.encode(text)) < len(old.encode(text)) or kind == "WordLevel"
    if kind in ("BPE", "WordLevel"):  # the library's other trainers give other ids each time
        assert trained_like(old, OTHER, 150).fingerprint == new.fingerprint


def test_a_tokenizer_that_falls_back_on_bytes_keeps_them() -> None:
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.train_from_iterator(
        ENGLISH, trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>", "<s>"], show_progress=False)
    )
    new = trained_like(Tokenizer(backend, bos=1, unk=0), OTHER, 400)
    assert new.vocab_size <= 400 and new.id("<0x00>") == 2 and new.id("<0xFF>") == 257
    assert new.decode(new.encode("LRIG 東")).strip() == "LRIG 東"
    with pytest.raises(LabError, match="258 ids are bytes and special tokens"):
        trained_like(Tokenizer(backend), OTHER, 258)
    with pytest.raises(LabError, match="no text to train a tokenizer on"):
        trained_like(Tokenizer(backend), [" "], 400)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Text of both languages and a dictionary, as a user has them."""
    made = {}
    for name, texts in (("english", ENGLISH), ("other", OTHER)):
        file = tmp_path / f"{name}.txt"
        file.write_text("\n<|endoftext|>\n".join(texts))
        made[name] = str(file)
    words = text_vectors(ENGLISH).words
    dictionary = tmp_path / "words.tsv"
    dictionary.write_text("".join(f"{word}\t{ciphered(word)}\n" for word in words))
    return made | {"dictionary": str(dictionary)}


def test_a_run_of_the_command_keeps_the_table_and_trains(
    files: dict[str, str], tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "home"))
    lm = model("gpt2", tokenizer)
    options = {"data": files["other"], "source_data": files["english"], "dictionary": files["dictionary"]}
    new = gpt2lab.apply(
        "wechsel", lm, **options, steps=6, context=32, batch_size=2, inspect=9, out=tmp_path / "new"
    )
    results = json.loads(Store(tmp_path / "home").find("wechsel").results)
    assert results["alignment.precision_at_10"] > 0.2 and 0 < results["tokens_found"] < 1
    assert results["validation_loss"] < results["before.validation_loss"]
    again = gpt2lab.load(str(tmp_path / "new"))
    assert again.tokenizer is not None and again.tokenizer.fingerprint == new.tokenizer.fingerprint  # type: ignore[union-attr]  # it has one
    start = Wechsel(
        data=(files["other"],), source_data=(files["english"],), dictionary=files["dictionary"]
    ).initialise(lm)
    assert isinstance(start, Initialised) and not torch.equal(
        start.lm.model.embedding.weight, new.model.embedding.weight
    )


def test_vectors_and_tokenizer_of_files_need_no_text(
    files: dict[str, str], tokenizer: Tokenizer, other: Tokenizer, tmp_path: Path
) -> None:
    from gpt2lab.text.tokenizer_files import save_tokenizer

    for name, texts in (("s", ENGLISH), ("t", OTHER)):
        write_bin(text_vectors(texts), tmp_path / f"{name}.bin")
    save_tokenizer(other, tmp_path / "other")
    given = {"source_vectors": str(tmp_path / "s.bin"), "target_vectors": str(tmp_path / "t.bin")}
    lm = model("gpt2", tokenizer)
    made = Wechsel(tokenizer=str(tmp_path / "other"), dictionary=files["dictionary"], **given).initialise(lm)
    from_text = Wechsel(
        tokenizer=str(tmp_path / "other"), dictionary=files["dictionary"], data=(files["other"],),
        source_data=(files["english"],),
    ).initialise(lm)  # fmt: skip
    assert made.mixed is not None and from_text.mixed is not None
    np.testing.assert_allclose(made.mixed.similarities, from_text.mixed.similarities, atol=1e-5)
    same = {"source_vectors": given["source_vectors"], "target_vectors": given["source_vectors"]}
    alike = Wechsel(tokenizer=str(tmp_path / "other"), dictionary="identical", **same).initialise(lm)
    assert alike.alignment is not None and alike.alignment.precision_at_1 == 1
    assert alike.alignment.residual == pytest.approx(0, abs=1e-5)
    trained = Wechsel(
        data=(files["other"],), source_data=(files["english"],), dictionary=files["dictionary"], vectors="skipgram",
        skipgram=Wechsel().skipgram.__class__(dimensions=8, buckets=500, epochs=1, least=2),
    ).initialise(lm)  # fmt: skip
    assert trained.mode == "ngrams" and trained.found_share > made.found_share


def test_frozen_inner_weights_wait_for_their_share_of_the_updates(
    files: dict[str, str], tokenizer: Tokenizer
) -> None:
    lm = model("gpt2", tokenizer)
    given = {"data": (files["other"],), "method": "frozen", "context": 16, "batch_size": 2, "steps": 4}
    first = Wechsel(**given, freeze=1.0)(lm)
    old = [parameter.detach() for parameter in inner_parameters(lm.model)]
    assert all(torch.equal(a, b) for a, b in zip(old, inner_parameters(first.model), strict=True))
    assert not torch.equal(
        first.model.embedding.weight, Wechsel(**given | {"steps": 0})(lm).model.embedding.weight
    )
    later = Wechsel(**given, freeze=0.5)(lm)
    assert not any(
        torch.equal(a, b) for a, b in zip(old, inner_parameters(later.model), strict=True) if b.dim() > 1
    )
    assert all(parameter.requires_grad for parameter in first.model.parameters())


def test_a_bidirectional_model_is_trained_on_hidden_tokens(
    files: dict[str, str], tokenizer: Tokenizer
) -> None:
    lm = model("bert", for_masking(tokenizer))
    options = {
        "data": (files["other"],),
        "source_data": (files["english"],),
        "dictionary": files["dictionary"],
    }
    new = Wechsel(**options, steps=2, context=16, batch_size=2)(lm)
    assert new.tokenizer is not None and new.tokenizer.mask is not None
    assert new.config.vocab_size == new.tokenizer.vocab_size
    with pytest.raises(LabError, match="no mask token"):
        Wechsel(**options, steps=1)(model("bert", tokenizer))
