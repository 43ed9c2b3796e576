"""Architectures against slow references: wrappers, masks, prefixes, caches, taps; and the lab's own layout on disk."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.base.json_files import sealed
from gpt2lab.decode import Beam, Greedy, Limits
from gpt2lab.decode.packed import has_kernels, pack
from gpt2lab.model import Inner, Inputs, Transformer, Wrapper, attach, drawn, load_model, save_model
from gpt2lab.model.checkpoints.huggingface import read_config
from gpt2lab.model.soft_prompt import SoftPrompt
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import Tokenizer, word_level
from gpt2lab.training import TrainSettings, next_token, train
from tests.architectures import CLASSES, Again, FixedNorms, MarkedAttention, PrefixLM
from tests.tiny import CONFIGS, tiny, tokens
from tests.training.data import Counting

UNEVEN = {
    "llama": CONFIGS["llama"].replace(n_heads=(6, 4, 2), n_kv_heads=(2, 4, 1), d_head=4, d_mlp=(40, 9, 1)),
    "gpt2, a layer without heads, one without neurons": CONFIGS["gpt2"].replace(
        n_heads=(3, 0, 1), d_head=5, d_mlp=(0, 50, 7)
    ),
}


# What a wrapper, a mask and a prefix compute.


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_repeated_passes_are_the_plain_model_run_by_hand(family: str) -> None:
    plain, ids = tiny(family).double(), tokens(2, 9)
    embeddings = plain.embed(ids)
    for _ in range(2):
        expected = plain(embeddings=embeddings).softmax(-1) @ plain.embedding.weight
        embeddings = embeddings + expected
    by_hand = plain(embeddings=embeddings)
    model = attach(tiny(family).double(), Again(steps=2))
    assert torch.allclose(model(ids), by_hand, atol=1e-12)
    assert not torch.allclose(model(ids), plain(ids), atol=1e-2)


def test_gradients_flow_through_every_repeated_pass() -> None:
    ids, targets = tokens(2, 6), tokens(2, 6, seed=1)
    plain = tiny("gpt2").double()
    x = plain.embed(ids)
    for _ in range(2):
        x = x + plain(embeddings=x).softmax(-1) @ plain.embedding.weight
    torch.nn.functional.cross_entropy(plain(embeddings=x).flatten(0, 1), targets.flatten()).backward()
    model = attach(tiny("gpt2").double(), Again(steps=2))
    next_token(model, {"tokens": ids, "targets": targets})[0].backward()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-12), name


@torch.no_grad()
def test_the_mask_of_a_prefix_counts_real_tokens_of_each_row() -> None:
    model = attach(tiny("gpt2"), PrefixLM(prefix=3))
    mask = torch.ones(2, 6)
    mask[1, :2] = 0
    with model.tap(read=["blocks.1.attn.hook_pattern"]) as tap:
        model(tokens(2, 6), attention_mask=mask)
    seen = tap["blocks.1.attn.hook_pattern"][:, 0] > 0
    whole = torch.tensor([[1, 1, 1, 0, 0, 0]] * 3 + [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1] * 6])
    late = torch.tensor([[0, 0, 1, 1, 1, 0]] * 5 + [[0, 0, 1, 1, 1, 1]])
    assert torch.equal(seen[0], whole.bool())
    assert torch.equal(seen[1, 2:], late[2:].bool())


@torch.no_grad()
def test_a_mask_keeps_local_windows() -> None:
    model = attach(tiny("gpt_neo"), PrefixLM(prefix=9))
    with model.tap(read=["blocks.1.attn.hook_pattern"]) as tap:
        model(tokens(1, 9))
    seen = tap["blocks.1.attn.hook_pattern"][0, 0] > 0
    query, key = torch.arange(9)[:, None], torch.arange(9)[None]
    assert torch.equal(seen, key > query - 5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "roberta"])
@torch.no_grad()
def test_a_soft_prompt_is_embeddings_in_front(family: str) -> None:
    model, plain, ids = attach(tiny(family), SoftPrompt(length=5)), tiny(family), tokens(2, 7)
    prompt = model.wrappers[0].weight
    assert all(any(torch.equal(row, token) for token in plain.embedding.weight) for row in prompt)
    joined = torch.cat([prompt.expand(2, -1, -1), plain.embed(ids)], 1)
    assert torch.allclose(model(ids), plain(embeddings=joined)[:, 5:], atol=1e-6)
    shifted = model(ids, positions=torch.arange(3, 10)[None])
    places = torch.cat([torch.arange(5), torch.arange(8, 15)])[None]
    assert torch.allclose(shifted, plain(embeddings=joined, positions=places)[:, 5:], atol=1e-6)


def test_a_frozen_model_is_left_as_it_was_while_its_prompt_learns() -> None:
    model = attach(tiny("gpt2"), SoftPrompt(length=4))
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["wrappers.0.weight"]
    train(model, Counting(), settings=TrainSettings(steps=4, learning_rate=1e-2, precision="float32"))
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert changed == ["wrappers.0.weight"]


def test_text_that_a_prompt_leaves_no_positions_for_is_refused() -> None:
    model = attach(tiny("gpt2"), SoftPrompt(length=10))
    assert model.context == 30
    with pytest.raises(LabError, match="the model 30 positions"):
        Greedy().decode(model, [[1] * 25], Limits(max_new_tokens=9))
    with pytest.raises(LabError, match=r"soft-prompt: length must lie in \[1, 40\), got 40"):
        attach(tiny("gpt2"), SoftPrompt(length=40))


@torch.no_grad()
def test_a_later_architecture_stands_around_an_earlier_one() -> None:
    ids = tokens(1, 6)
    inside = attach(attach(tiny("gpt2"), Again(steps=1)), SoftPrompt(length=3))
    outside = attach(attach(tiny("gpt2"), SoftPrompt(length=3)), Again(steps=1))
    assert torch.equal(inside.wrappers[1].weight, outside.wrappers[0].weight)
    assert not torch.allclose(inside(ids), outside(ids), atol=1e-3)  # there, no pass feeds back at the prompt
    joined = torch.cat([inside.wrappers[1].weight[None], inside.embed(ids)], 1)
    assert torch.allclose(
        attach(tiny("gpt2"), Again(steps=1))(embeddings=joined)[:, 3:], inside(ids), atol=1e-6
    )


@torch.no_grad()
def test_blocks_read_what_a_wrapper_notes_and_cache_what_they_need() -> None:
    """An attention among marked positions against loops; with the marks of earlier passes from the cache."""
    model, ids = attach(tiny("gpt2"), MarkedAttention(layers=(1,))).double(), tokens(2, 9)
    block = model.blocks[1]
    marks = model.embed(ids)[..., 0] > 0
    assert 0 < int(marks.sum()) < marks.numel()
    with model.tap(read=["blocks.0.hook_resid_post", "blocks.1.marked.hook_z"]) as tap:
        whole = model(ids)
    q, k, v = block.marked.qkv(tap["blocks.0.hook_resid_post"]).chunk(3, dim=-1)
    for row in range(2):
        for at in range(9):
            keys = [key for key in range(at + 1) if marks[row, key]]
            expected = torch.zeros(24, dtype=torch.float64)
            if marks[row, at]:
                weights = (k[row, keys] @ q[row, at] / 24**0.5).softmax(0)
                expected = weights @ v[row, keys]
            assert torch.allclose(tap["blocks.1.marked.hook_z"][row, at], expected, atol=1e-12)
    cache = model.new_cache(batch=2, length=9)
    parts = [model(ids[:, a:b], cache=cache) for a, b in ((0, 4), (4, 5), (5, 9))]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-10)


# Caches.


def test_gradients_flow_through_a_differentiable_cache() -> None:
    """Two latent steps: the last state is fed back as the next input, once through the cache and once all anew."""
    results = []
    for cached in (True, False):
        model = tiny("gpt2").double().train()
        cache = model.new_cache(batch=2, length=9, differentiable=True) if cached else None
        embeddings = model.embed(tokens(2, 5))
        hidden = model.hidden(embeddings=embeddings, cache=cache)
        for _ in range(2):
            latent = hidden[:, -1:]
            embeddings = torch.cat([embeddings, latent], 1)
            hidden = model.hidden(embeddings=latent if cached else embeddings, cache=cache)
        loss = model.unembed(hidden[:, -1:]).square().mean()
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*results, strict=True))
    assert results[0][1].abs().sum() > 0


@torch.no_grad()
def test_a_cache_made_in_inference_mode_is_written_to_outside_of_it() -> None:
    model, ids = tiny("gpt2"), tokens(1, 6)
    cache = model.new_cache(batch=1, length=6)
    with torch.inference_mode():
        model(ids[:, :3], cache=cache)
    assert torch.allclose(model(ids[:, 3:], cache=cache), model(ids)[:, 3:], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_decode_with_what_is_attached(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt2lab.decode.packed._SMALLEST", {torch.float32: 1, torch.bfloat16: 1})
    model = tiny("gpt2")
    for architecture in (MarkedAttention(), SoftPrompt(length=3), Again(steps=1)):
        attach(model, architecture)
    model = model.to(dtype)
    packed, limits = pack(model, rows=2), Limits(max_new_tokens=6)
    assert type(packed.blocks[0].block.mlp.up) is not nn.Linear or not has_kernels(model)
    texts = Greedy().decode(packed, [[1, 2, 3], [4]], limits)
    assert [len(text) for text in texts] == [6, 6]
    if dtype is torch.float32:
        assert list(texts) == list(Greedy().decode(model, [[1, 2, 3], [4]], limits))


# Activations.


@torch.no_grad()
def test_a_tap_tells_repeated_passes_apart() -> None:
    model, plain, ids = attach(tiny("gpt2"), Again(steps=2)), tiny("gpt2"), tokens(2, 6)
    with model.tap(read=["resid_post", "again.0:logits", "again.1:hook_embed", "hook_embed"]) as tap:
        model(ids)
    assert torch.allclose(tap["again.0:logits"], plain(ids), atol=1e-6)
    once = plain.embed(ids) + plain(ids).softmax(-1) @ plain.embedding.weight
    assert torch.allclose(tap["again.1:hook_embed"], once, atol=1e-6)
    assert not torch.allclose(tap["hook_embed"], once, atol=1e-3)
    assert tap["resid_post"].shape == (3, 2, 6, 24)  # short names mean the last pass
    with model.tap(read=["again.*:blocks.1.hook_resid_mid"]) as tap:
        model(ids)
    assert tap["again.*:blocks.1.hook_resid_mid"].shape == (2, 2, 6, 24)
    with model.tap(write={"again.0:logits": lambda x, name: 0 * x}):
        assert not torch.allclose(model(ids), attach(tiny("gpt2"), Again(steps=2))(ids), atol=1e-3)
    before = model(ids)
    with model.tap(read=["again.0:blocks.0.hook_resid_post"], stop_after="again.0:blocks.0.hook_resid_post"):
        model(ids)
    assert model.open_tap is None
    assert torch.equal(model(ids), before)


# Attaching.


def test_new_weights_follow_the_generator_even_those_that_torch_draws() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Plain:
        """Adds a linear map as torch initialises it."""

        def attach(self, model: Transformer, *, generator: torch.Generator | None = None) -> None:
            model.extra_map = nn.Linear(24, 24)

    def weight(seed: int) -> Tensor:
        return attach(tiny("gpt2"), Plain(), generator=torch.Generator().manual_seed(seed)).extra_map.weight

    state = torch.get_rng_state()
    assert torch.equal(weight(3), weight(3))
    assert not torch.equal(weight(3), weight(4))
    assert torch.equal(torch.get_rng_state(), state)


def test_drawn_weights_depend_on_neither_number_type_nor_device() -> None:
    model = tiny("gpt2")
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    exact = drawn(nn.Linear(24, 9), model, generators[0])
    rough = drawn(nn.Linear(24, 9), model.to(torch.bfloat16), generators[1])
    assert torch.equal(exact.weight.to(torch.bfloat16), rough.weight)
    assert abs(float(exact.weight.detach().std()) - 0.02) < 0.005
    assert not exact.bias.any()


def test_an_architecture_that_changes_the_config_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wider:
        """Another vocabulary."""

        def attach(self, model: Transformer, *, generator: torch.Generator | None = None) -> None:
            model.config = model.config.replace(vocab_size=62)

    with pytest.raises(LabError, match="Wider changed the model's config"):
        attach(tiny("gpt2"), Wider())


# The lab's own layout.


@pytest.mark.parametrize("sizes", UNEVEN)
def test_heads_and_widths_per_layer_train_decode_and_come_back(sizes: str, tmp_path: Path) -> None:
    model = Transformer(UNEVEN[sizes], generator=torch.Generator().manual_seed(0))
    result = train(
        model, Counting(), settings=TrainSettings(steps=30, learning_rate=1e-2, precision="float32")
    )
    assert result.losses[-1] < result.losses[0] - 0.5
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.config == read_config(tmp_path / "model") == UNEVEN[sizes]
    with torch.no_grad(), model.tap(read=model.activation_names()):
        assert torch.allclose(again(tokens(2, 9)), model(tokens(2, 9)), atol=1e-4)
    with torch.no_grad():
        assert torch.equal(again(tokens(2, 9)), model(tokens(2, 9)))
    prompts, limits = [[1, 2, 3], [7], [9, 10, 11, 12]], Limits(max_new_tokens=8)
    anew = list(prompts)
    for _ in range(8):
        anew = [[*row, int(model(torch.tensor([row]))[0, -1].argmax())] for row in anew]
    for decoder in (Greedy(), Beam(beams=1)):
        texts = decoder.decode(again, prompts, limits)
        assert [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)] == anew


def test_every_field_of_a_config_comes_back(tmp_path: Path) -> None:
    rotary = CONFIGS["llama"].replace(
        windows=(None, 3, 5),
        norm="none",
        rotary_fraction=0.5,
        activation="relu",
        init_std=0.3,
        eos=5,
        extra={"a": [1, None]},
    )
    save_model(tiny("llama", windows=rotary.windows), tmp_path / "one", layout="gpt2lab")
    assert read_config(tmp_path / "one").windows == (None, 3, 5)
    save_model(Transformer(rotary), tmp_path / "two")
    again = read_config(tmp_path / "two")
    assert again == rotary
    assert again.extra == {"a": [1, None]}


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_any_family_can_be_kept_in_the_labs_layout(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    save_model(model, tmp_path / "own", layout="gpt2lab")
    save_model(model, tmp_path / "theirs")
    own, theirs = load_model(tmp_path / "own"), load_model(tmp_path / "theirs")
    assert own.config == theirs.config
    assert torch.equal(own(tokens(2, 5)), theirs(tokens(2, 5)))
    assert own.config.tied_head == (own.head.weight is own.embedding.weight)


def saved(tmp_path: Path, *architectures: object) -> Path:
    model = tiny("gpt2")
    for architecture in architectures or (SoftPrompt(length=3), Again(project=True)):
        attach(model, architecture)  # type: ignore[arg-type]  # wrong ones are tried too
    save_model(model, tmp_path / "model")
    return tmp_path / "model"


def test_the_file_names_what_is_attached_and_its_options(tmp_path: Path) -> None:
    entries = json.loads((saved(tmp_path) / "config.json").read_text())
    assert entries["model_type"] == "gpt2lab"
    assert entries["gpt2lab"]["architectures"] == [
        {"name": "soft-prompt", "options": {"freeze": True, "length": 3}},
        {"name": "Again", "options": {"project": True, "steps": 2}},
    ]
    assert entries["gpt2lab"]["config"]["d_model"] == 24
    state = load_file(tmp_path / "model" / "model.safetensors")
    assert {"wrappers.0.weight", "wrappers.1.map.weight", "blocks.2.attention.qkv.bias"} <= state.keys()
    assert "head.weight" not in state  # tied


def test_transformers_says_that_it_does_not_know_such_a_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gpt2lab"):
        AutoModelForCausalLM.from_pretrained(saved(tmp_path))


def test_an_architecture_that_cannot_be_found_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        LabError,
        match=r"made with the architecture Again, which is not installed here.*architectures=\[CLASS\]",
    ):
        load_model(saved(tmp_path))
    assert load_model(tmp_path / "model", architectures=[Again]).architectures[1] == Again(project=True)
    assert read_config(tmp_path / "model") == CONFIGS["gpt2"]  # needs no class
    path = tmp_path / "model" / "config.json"
    entries = json.loads(path.read_text().replace('"soft-prompt"', '"SoftPrompt"'))  # as before it was a part
    path.write_text(json.dumps({**entries, "gpt2lab": sealed(entries["gpt2lab"])}))
    assert load_model(tmp_path / "model", architectures=[Again]).architectures[0] == SoftPrompt(length=3)


def test_options_that_an_architecture_does_not_have_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path) / "config.json"
    path.write_text(path.read_text().replace('"length"', '"lenght"'))
    with pytest.raises(LabError, match="architecture soft-prompt: no setting lenght; did you mean length"):
        load_model(tmp_path / "model", architectures=CLASSES)
    path.write_text('{"model_type": "gpt2lab", "gpt2lab": {"config": {}}}')
    with pytest.raises(LabError, match="vocab_size is missing"):
        load_model(tmp_path / "model")
    path.write_text('{"model_type": "gpt2lab", "gpt2lab": {"config": {}, "architectures": [3]}}')
    with pytest.raises(LabError, match="vocab_size is missing"):
        load_model(tmp_path / "model")
    path.write_text('{"model_type": "gpt2lab"}')
    with pytest.raises(LabError, match="not as gpt2lab writes it"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("tensor wrappers.0.weight is missing", lambda s: s.pop("wrappers.0.weight")),
        ("no place for wrappers.7.weight", lambda s: s.update({"wrappers.7.weight": torch.ones(2)})),
        (
            r"wrappers.0.weight is torch.float32 \[4, 24\], config.json makes it .*\[3, 24\]",
            lambda s: s.update({"wrappers.0.weight": torch.ones(4, 24)}),
        ),
        (
            "wrappers.0.weight is torch.int32",
            lambda s: s.update({"wrappers.0.weight": torch.ones(3, 24).int()}),
        ),
        ("final_norm.bias holds NaN", lambda s: s["final_norm.bias"].__setitem__(3, float("nan"))),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, message: str, change) -> None:  # type: ignore[no-untyped-def]
    folder = saved(tmp_path)
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(LabError, match=message) as error:
        load_model(folder, architectures=CLASSES)
    assert "\n" not in str(error.value)


def test_a_folder_that_was_changed_and_can_still_be_read_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, SoftPrompt(length=3))
    config, weights = folder / "config.json", folder / "model.safetensors"
    text, data = config.read_text(), weights.read_bytes()
    config.write_text(text.replace('"norm_eps": 1e-05', '"norm_eps": 1e-03'))
    with pytest.raises(LabError, match=r"config\.json: damaged, or changed by hand"):
        load_model(folder)
    config.write_text(text)
    weights.write_bytes(data[:-4] + bytes([data[-4] ^ 1]) + data[-3:])
    with pytest.raises(LabError, match=r"model\.safetensors: damaged, it does not match its checksum"):
        load_model(folder)
    weights.write_bytes(data)
    assert load_model(folder).architectures == (SoftPrompt(length=3),)


def test_numbers_are_converted_and_frozen_weights_stay_frozen(tmp_path: Path) -> None:
    model = load_model(
        saved(tmp_path, FixedNorms(), SoftPrompt()), dtype=torch.bfloat16, architectures=CLASSES
    )
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["wrappers.1.weight"]
    assert model.blocks[0].norm1.scale.dtype is torch.bfloat16
    assert not model.training


def test_a_model_changed_by_hand_is_not_written(tmp_path: Path) -> None:
    model = tiny("gpt2")
    model.blocks[1].probe = nn.Linear(24, 3)
    with pytest.raises(LabError, match=r"blocks.1.probe.weight, blocks.1.probe.bias: changed by hand"):
        save_model(model, tmp_path / "model")
    wide = tiny("gpt2")
    wide.blocks[0].mlp.up.weight = nn.Parameter(torch.zeros(97, 24))
    with pytest.raises(LabError, match=r"blocks.0.mlp.up.weight: changed by hand"):
        save_model(wide, tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Opaque:
    """No dataclass."""

    def attach(self, model: Transformer, *, generator: torch.Generator | None = None) -> None:
        model.wrappers.append(Wrapper())


def test_an_architecture_that_cannot_be_written_down_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="Opaque is no dataclass"):
        saved(tmp_path, Opaque())

    @dataclass(frozen=True, kw_only=True)
    class Holder:
        """Holds a tensor."""

        weight: Tensor

        def attach(self, model: Transformer, *, generator: torch.Generator | None = None) -> None:
            pass

    with pytest.raises(LabError, match="weight holds a Tensor, which has no plain form"):
        saved(tmp_path, Holder(weight=torch.ones(2)))


def test_a_language_model_keeps_its_tokenizer_and_special_ids_beside_what_is_attached(tmp_path: Path) -> None:
    tokenizer = word_level(["a b c d e f"])
    model = attach(tiny("gpt2", vocab_size=tokenizer.vocab_size, eos=None, bos=None), Again())
    save(LanguageModel(model, tokenizer), tmp_path / "lm")
    with pytest.raises(LabError, match="architecture Again, which is not installed"):
        gpt2lab.load(tmp_path / "lm", device="cpu")
    lm = gpt2lab.load(tmp_path / "lm", device="cpu", architectures=CLASSES)
    assert lm.config.eos == tokenizer.eos
    assert isinstance(lm.tokenizer, Tokenizer)
    assert gpt2lab.generate(lm, "a b", max_new_tokens=3).prompt == "a b"
    with pytest.raises(LabError, match="no place for what the architecture Again changes"):
        save(lm, tmp_path / "theirs", layout="huggingface")


def test_a_buffer_that_is_not_saved_is_named(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Table:
        """Keeps a table that is not written."""

        def attach(self, model: Transformer, *, generator: torch.Generator | None = None) -> None:
            model.register_buffer("table", torch.arange(3.0), persistent=False)

    with pytest.raises(LabError, match="table is neither saved nor made on loading"):
        load_model(saved(tmp_path, Table()), architectures=[Table])


def test_a_wrapper_that_only_watches_changes_no_bit() -> None:
    class Watching(Wrapper):
        seen: tuple[int, ...] = ()

        def forward(self, model: Transformer, inner: Inner, inputs: Inputs) -> Tensor:
            self.seen = tuple(inputs.embeddings.shape)
            return inner(replace(inputs))

    model, plain = tiny("llama"), tiny("llama")
    model.wrappers.append(Watching())
    assert torch.equal(model(tokens(2, 5)), plain(tokens(2, 5)))
    assert model.wrappers[0].seen == (2, 5, 24)
