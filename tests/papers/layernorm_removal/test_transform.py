"""Folding, both exports, the transforms: against transformers, in float64, for every family; what is refused."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.measures.held_out import HeldOutLoss
from gpt2lab.model import Transformer, attach, load_model, save_model
from gpt2lab.papers.layernorm_removal import transform
from gpt2lab.papers.layernorm_removal.architecture import StagedNorms, calibrate, fire, stage_of, unit_table
from gpt2lab.papers.layernorm_removal.fold import compatible, export_errors, folded
from gpt2lab.papers.layernorm_removal.massive import LARGEST_RATIO, explained, widest_token
from gpt2lab.papers.layernorm_removal.schedule import Schedule
from gpt2lab.papers.layernorm_removal.transform import FoldLayerNorm, RemoveLayerNorm
from gpt2lab.runs.store import Store
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import Tokenizer, word_level
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.loop import NotFinite
from tests.tiny import BIDIRECTIONAL, CONFIGS, tiny, tokens
from tests.training.data import Counting

FAMILIES = ["gpt2", "gpt_neo", "gpt_neox", "llama", "qwen2", "mistral", "mixtral"]


def model_of(family: str, **changes: object) -> Transformer:
    if family in CONFIGS:
        return tiny(family, **changes)
    own = {"qwen2": {"qkv_bias": True}, "mistral": {}, "mixtral": {"n_experts": 3}}[family]
    model = Transformer(CONFIGS["llama"].replace(family=family, **own, **changes))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    return model.eval()


def frozen(family: str, **changes: object) -> Transformer:
    """A model whose norms are all fake, with constants that differ from norm to norm."""
    model = attach(model_of(family, **changes), StagedNorms()).eval()
    calibrate(model, [{"tokens": tokens(3, 8, seed=3)}])
    for unit in stage_of(model).steps:
        fire(model, unit)
    return model


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_folding_changes_no_logit_in_any_family(family: str) -> None:
    model, ids = frozen(family).double(), tokens(3, 11)
    assert not torch.allclose(model(ids), model_of(family).double()(ids), atol=1e-3)
    new = folded(model)
    assert new.config.norm == "none" and not new.architectures
    assert not any("norm" in name for name, _ in new.named_parameters())
    assert torch.allclose(new(ids), model(ids), atol=1e-11, rtol=0)
    size = float(model(ids).abs().max())  # the variance over 1e12 is what a real norm still sees
    assert torch.allclose(compatible(model)(ids), model(ids), atol=1e-6 * size, rtol=0)
    assert torch.allclose(folded(compatible(model))(ids), model(ids), atol=1e-11 * size, rtol=0)


@torch.no_grad()
def test_folding_is_the_papers_equation() -> None:
    """W' = C diag(g/σ) W and c' = c + b W, with their W [in, out]; the last norm goes into an untied head with a bias."""
    model = frozen("gpt2").double()
    new, block, d = folded(model), model.blocks[1], 24
    centring = torch.eye(d).double() - torch.ones(d, d).double() / d
    for norm, ours, theirs in (
        (block.norm1, block.attention.qkv, new.blocks[1].attention.qkv),
        (block.norm2, block.mlp.up, new.blocks[1].mlp.up),
        (model.final_norm, model.head, new.head),
    ):
        weight = ours.weight.T
        expected = centring @ torch.diag(norm.weight / norm.constant[1].double()) @ weight
        assert torch.allclose(theirs.weight.T, expected, atol=1e-12)
        bias = norm.bias @ weight + (0 if ours.bias is None else ours.bias)
        assert torch.allclose(theirs.bias, bias, atol=1e-12)
    assert torch.equal(new.embedding.weight, model.embedding.weight)
    assert new.head.weight is not new.embedding.weight


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gpt_neox", "llama"])
def test_transformers_opens_the_compatible_export_with_equal_logits(family: str, tmp_path: Path) -> None:
    import transformers  # slow to import

    model, ids = frozen(family), tokens(2, 9)
    save_model(compatible(model), tmp_path / "hf", layout="huggingface")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    assert torch.allclose(theirs(ids).logits, model(ids), atol=2e-4)
    again = load_model(tmp_path / "hf")
    assert torch.allclose(folded(again)(ids), model(ids), atol=2e-4)
    with pytest.raises(LabError, match=r"beyond float16.*float32 or bfloat16"):
        load_model(tmp_path / "hf", dtype=torch.float16)
    with pytest.raises(LabError, match="switches this model's norms off"):
        train(again, Counting(), settings=TrainSettings(steps=1))


def test_the_folded_model_has_a_layout_of_its_own_with_the_reason(tmp_path: Path) -> None:
    new = folded(frozen("gpt2"))
    with pytest.raises(LabError, match="norm"):
        save_model(new, tmp_path / "hf", layout="huggingface")
    save_model(new, tmp_path / "own")
    assert json.loads((tmp_path / "own" / "config.json").read_text())["model_type"] == "gpt2lab"
    ids = tokens(2, 7)
    assert torch.equal(load_model(tmp_path / "own")(ids), new(ids))


def test_export_errors_are_those_of_rounding() -> None:
    errors = export_errors(frozen("gpt2"), tokens(2, 9))
    assert errors["folded.float64"] < 1e-12 and errors["compatible.float64"] < 1e-7
    assert 0 < errors["folded.float32"] < 1e-4 and 0 < errors["compatible.float32"] < 1e-3


def test_exports_of_what_is_not_frozen_are_refused() -> None:
    half = attach(tiny("gpt2"), StagedNorms())
    calibrate(half, [{"tokens": tokens(2, 5)}])
    fire(half, "mlp.0")
    for make in (folded, compatible):
        with pytest.raises(LabError, match="still real"):
            make(half)
        with pytest.raises(LabError, match="real norm"):
            make(tiny("gpt2"))
    with pytest.raises(LabError, match="cannot"):
        compatible(frozen("gpt2").half())
    for value in (0.0, float("nan"), float("inf")):
        model = frozen("gpt2")
        model.final_norm.constant.fill_(value)
        with pytest.raises(LabError, match="finite and above 0"):
            folded(model)
    special = attach(tiny("gpt2"), StagedNorms(special_positions=True))
    calibrate(special, [{"tokens": tokens(2, 5)}])
    for unit in stage_of(special).steps:
        if unit not in ("eot", "bos"):
            fire(special, unit)
    with pytest.raises(LabError, match="position 0"):
        folded(special)
    with pytest.raises(LabError, match="no norms any more"):
        FoldLayerNorm()(LanguageModel(folded(frozen("gpt2"))))
    with pytest.raises(LabError, match="router"):
        folded(frozen("gpt2", n_experts=2))


# The transform.


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return word_level(documents(0, 60))


@pytest.fixture
def lm(tokenizer: Tokenizer) -> LanguageModel:
    model = tiny("gpt2", vocab_size=tokenizer.vocab_size, max_positions=64, eos=tokenizer.eos)
    return LanguageModel(model, tokenizer)


SMALL = {"data": ("tinyworld:40",), "context": 16, "batch_size": 4}


def test_apply_takes_the_norms_out(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    new = gpt2lab.apply("remove-layernorm", lm, **SMALL, steps=12)
    assert new.config.norm == "none" and lm.config.norm == "layernorm"
    assert gpt2lab.generate(new, "one day a", max_new_tokens=4).text
    found = Store().find(new.source).folder(Store().home)
    rows = [json.loads(line) for line in (found / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert {"cross_entropy", "spread", "sigma", "gradient_norm", "fake_units"} <= rows[0].keys()
    assert rows[-1]["fake_units"] == 10 and "validation_loss" in rows[-1]
    assert (found / "log.txt").read_text().count("frozen are") > 1
    assert (found / "tables" / "units.csv").read_text().count("fake") == 10
    assert {"before.validation_loss", "validation_loss"} <= Store().find(new.source).numbers.keys()


def test_all_modes_and_outputs(lm: LanguageModel, tmp_path: Path) -> None:
    staged = RemoveLayerNorm(**SMALL, mode="instant", output="staged")(lm)
    assert all(row["state"] == "fake" for row in unit_table(staged.model))
    hf = RemoveLayerNorm(**SMALL, mode="at-once", steps=4, output="compatible")(lm)
    assert hf.config.norm_eps == 1e12 and not hf.model.architectures
    control = RemoveLayerNorm(**SMALL, mode="control", steps=3)(lm)
    assert control.config == lm.config
    assert any(
        not torch.equal(a, b) for a, b in zip(control.model.parameters(), lm.model.parameters(), strict=True)
    )
    save(staged, tmp_path / "staged")
    again = gpt2lab.load(tmp_path / "staged")
    both = [gpt2lab.apply("fold-layernorm", again, output=output) for output in ("folded", "compatible")]
    ids = torch.arange(20)[None]
    with torch.no_grad():
        for one in both:
            assert torch.allclose(one.model(ids), staged.model(ids), atol=1e-4)


def test_a_stopped_removal_resumes_bit_for_bit(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2lab.papers.layernorm_removal.objective import EvenScales

    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    save(lm, tmp_path / "given")
    options = {**SMALL, "steps": 9, "checkpoint_every": 4, "output": "staged"}
    whole = gpt2lab.apply("remove-layernorm", tmp_path / "given", save=True, **options)
    calls, original = [0], EvenScales.__call__

    def cut(self: EvenScales, *arguments: object) -> object:
        calls[0] += 1
        if calls[0] == 7:
            raise RuntimeError("power cut")
        return original(self, *arguments)  # type: ignore[arg-type]  # model and batch

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(EvenScales, "__call__", cut)
        gpt2lab.apply("remove-layernorm", tmp_path / "given", save=True, **options)
    broken = next(row for row in Store().rows(kind="apply") if row.status == "failed")
    with pytest.raises(LabError, match="has finished"):
        gpt2lab.resume(whole.source)
    done = gpt2lab.resume(broken.id)
    rows = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 10))
    state = whole.model.state_dict()
    again = gpt2lab.load(broken.id).model.state_dict()
    assert (
        all(torch.equal(state[name], tensor) for name, tensor in again.items())
        and again.keys() == state.keys()
    )
    assert {name: value for name, value in done.results.items() if name != "seconds"} == {
        name: value for name, value in Store().find(whole.source).numbers.items() if name != "seconds"
    }


def test_a_removal_of_another_model_or_other_data_is_not_resumed(lm: LanguageModel, tmp_path: Path) -> None:
    journal = Kept(tmp_path / "state")
    RemoveLayerNorm(**SMALL, steps=3).train(lm, journal)
    RemoveLayerNorm(**SMALL, steps=3, output="staged").train(lm, journal)  # the same run, seen otherwise
    with pytest.raises(LabError, match="the data has changed"):
        RemoveLayerNorm(**{**SMALL, "data": ("tinyworld:41",)}, steps=4).train(lm, journal)
    with torch.no_grad():
        lm.model.embedding.weight[0, 0] += 1
    with pytest.raises(LabError, match="the model has changed"):
        RemoveLayerNorm(**SMALL, steps=3).train(lm, journal)
    (tmp_path / "state" / "work.json").write_text("[]")
    with pytest.raises(LabError, match=r"work\.json: damaged"):
        RemoveLayerNorm(**SMALL, steps=3).train(lm, journal)


class Kept:
    """A journal that keeps nothing but checkpoints."""

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints = checkpoints

    def log(self, step: int, **numbers: object) -> None: ...

    def result(self, name: str, value: object) -> None: ...

    def table(self, name: str, rows: object, caption: str = "") -> None: ...

    def note(self, sentence: str) -> None: ...


def test_what_could_not_be_written_at_the_end_is_refused_before_training(tokenizer: Tokenizer) -> None:
    size = tokenizer.vocab_size
    routed = LanguageModel(tiny("gpt2", vocab_size=size, n_experts=2), tokenizer)
    with pytest.raises(LabError, match="router"):
        RemoveLayerNorm(data=("nowhere",), steps=2)(routed)


def test_a_model_in_16_bits_is_folded_from_its_float32_weights(lm: LanguageModel) -> None:
    options = {**SMALL, "steps": 3, "precision": "float32"}
    rounded = lm.model.bfloat16()
    wide = LanguageModel(Transformer(lm.config), lm.tokenizer)
    wide.model.load_state_dict(rounded.state_dict())
    expected = RemoveLayerNorm(**options)(wide).model
    found = RemoveLayerNorm(**options)(LanguageModel(rounded, lm.tokenizer)).model
    assert found.dtype == torch.bfloat16
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other.bfloat16())
    staged = RemoveLayerNorm(**options, output="staged")(LanguageModel(rounded, lm.tokenizer))
    assert FoldLayerNorm()(staged).model.dtype == staged.model.dtype == torch.bfloat16
    assert FoldLayerNorm(output="compatible")(staged).model.dtype == torch.float32
    assert staged.model.dtype == torch.bfloat16
    hf = RemoveLayerNorm(**options, output="compatible")(LanguageModel(rounded, lm.tokenizer)).model
    assert hf.dtype == torch.float32 and torch.allclose(
        hf(tokens(2, 9)), expected(tokens(2, 9)), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("family", BIDIRECTIONAL)
def test_a_post_norm_family_is_told_why_not(family: str, tokenizer: Tokenizer) -> None:
    given = LanguageModel(tiny(family, vocab_size=tokenizer.vocab_size), tokenizer)
    with pytest.raises(LabError, match="residual stream"):
        RemoveLayerNorm(**SMALL, steps=2)(given)


def test_the_presets_are_the_authors_and_bad_options_are_refused(lm: LanguageModel) -> None:
    large = RemoveLayerNorm(preset="large")
    loop = large.training()
    assert (loop.steps, loop.laid_out, loop.learning_rate, loop.warmup) == (600, 1200, 3e-4, 15)
    assert loop.accumulation == 18 and loop.betas == (0.9, 0.999) and loop.weight_decay == 0.01
    assert large.staging(36).momentum == pytest.approx(0.9119, abs=1e-4)
    assert large.staging(36).schedule.steps_of(36)["f"] == 534
    for options, words in (
        ({"steps": 0}, "steps"), ({"penalty": -0.1}, "penalty"), ({"momentum": 1.0}, "momentum"),
    ):  # fmt: skip
        with pytest.raises(LabError, match=words):
            RemoveLayerNorm(**options)  # type: ignore[arg-type]  # of the table
    with pytest.raises(LabError, match="ends after 60"):
        RemoveLayerNorm(**SMALL, preset="small", steps=20 + 40)(
            LanguageModel(tiny("gpt2", vocab_size=lm.config.vocab_size, n_layers=12), lm.tokenizer)
        )
    with pytest.raises(LabError, match="no tokenizer"):
        RemoveLayerNorm(**SMALL, steps=2)(LanguageModel(lm.model))
    with pytest.raises(LabError, match="no norms any more"):
        RemoveLayerNorm(**SMALL, steps=2)(LanguageModel(folded(frozen("gpt2"))))


def test_a_model_that_is_ruined_is_said_to_be(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    row = np.ones(1)
    for end in ("5.000", "nan"):
        losses = iter([2.0, float(end), float(end)])  # before, and at the end twice: in the loop and after it
        monkeypatch.setattr(
            transform,
            "windows_loss",
            lambda model, windows, losses=losses: HeldOutLoss(next(losses), row, row),
        )
        with pytest.warns(UserWarning, match=f"validation loss rose from 2.000 to {end}"):
            RemoveLayerNorm(**SMALL, steps=4)(lm)


# Massive activations.


def massive(tokenizer: Tokenizer, family: str = "llama", longer: float = 500.0) -> LanguageModel:
    """A random model in which one frequent word's state is hundreds of times longer than all others'."""
    model = tiny(family, vocab_size=tokenizer.vocab_size, max_positions=64, eos=tokenizer.eos)
    with torch.no_grad():
        model.embedding.weight[tokenizer.encode("the")[0]] *= longer
    return LanguageModel(model, tokenizer)


def with_sink(tokenizer: Tokenizer, sigma: float) -> LanguageModel:
    """A llama in which, as in SmolLM2, a neuron of the first block makes one token's state about `sigma` long."""
    model = tiny("llama", vocab_size=tokenizer.vocab_size, max_positions=64, eos=tokenizer.eos)
    the, block = tokenizer.encode("the")[0], model.blocks[0]
    with torch.no_grad():
        model.embedding.weight[:, 5] = 0.0  # what only this token has, and attention does not spread
        model.embedding.weight[the, 5] = 1.0
        block.attention.out.weight[5] = 0.0
        with model.tap(read=["blocks.0.ln2.hook_normalized"]) as tap:
            model(torch.tensor([[the, 7, 9]]))
        seen = float(tap["blocks.0.ln2.hook_normalized"][0, 0, 5])
        for row in (0, block.mlp.d_mlp):  # the gate and the value of neuron 0
            block.mlp.up.weight[row] = 0.0
            block.mlp.up.weight[row, 5] = 6.0 / seen
        block.mlp.down.weight[:, 0] = 0.0
        block.mlp.down.weight[5, 0] = sigma * 24**0.5 / 36.0
    return LanguageModel(model, tokenizer)


@pytest.mark.parametrize("sigma", [1e3, 1e5])
def test_no_norm_of_a_gated_model_is_frozen_while_a_token_stands_out(
    tokenizer: Tokenizer, sigma: float
) -> None:
    lm = with_sink(tokenizer, sigma)
    with pytest.raises(LabError, match=r"massive activation.*times the median token's.*mode=full"):
        RemoveLayerNorm(**SMALL, mode="instant")(lm)
    for mode in ("full", "at-once"):
        with pytest.raises(LabError, match=r"after 4 updates .*still has a massive.*more steps"):
            RemoveLayerNorm(**SMALL, mode=mode, steps=12)(lm)
    with pytest.raises(LabError, match="after 0 updates"):
        RemoveLayerNorm(**SMALL, steps=30, schedule=Schedule(start=0, mlp_gap=1, qk_gap=1, v_gap=1))(lm)
    RemoveLayerNorm(**SMALL, steps=2, mode="control")(lm)


def test_a_massive_activation_comes_down_while_the_norms_are_there_and_then_they_go(
    tokenizer: Tokenizer,
) -> None:
    lm = with_sink(tokenizer, 1e3)
    ids = torch.tensor([tokenizer.encode("one day the dog saw a cat and the cat saw the dog")])
    assert widest_token(lm.model, ids).ratio > 100
    new = RemoveLayerNorm(**SMALL, steps=120, learning_rate=1e-2, output="staged")(lm)
    assert widest_token(new.model, ids).ratio < LARGEST_RATIO
    assert all(row["state"] == "fake" for row in unit_table(new.model))
    without = FoldLayerNorm()(new).model
    text = torch.tensor(tokenizer.encode(" ".join(documents(1, 20)))[:64])[None]
    loss = torch.nn.functional.cross_entropy(without(text[:, :-1])[0], text[0, 1:])
    assert float(loss) < np.log(tokenizer.vocab_size)  # it has learnt something since


def test_documents_begin_with_the_bos_that_the_tokenizer_writes(tokenizer: Tokenizer) -> None:
    backend, name = copy.deepcopy(tokenizer.backend), tokenizer.token(tokenizer.eos)
    backend.post_processor = TemplateProcessing(single=f"{name} $A", special_tokens=[(name, tokenizer.eos)])
    begun = Tokenizer(backend, bos=tokenizer.eos, eos=tokenizer.eos)
    texts = ["one day a dog", "a cat"]
    found = list(transform._encoded(iter(texts), begun))
    assert found == [[begun.eos, *tokenizer.encode(text), begun.eos] for text in texts]
    assert list(transform._encoded(iter(texts), tokenizer)) == [row[1:] for row in found]


def test_a_plain_feed_forward_lets_a_massive_activation_through_once(tokenizer: Tokenizer) -> None:
    new = gpt2lab.apply("remove-layernorm", massive(tokenizer, "gpt2"), **SMALL, mode="instant")
    assert new.config.norm == "none"


@torch.no_grad()
def test_the_widest_token_is_found_where_it_stands(tokenizer: Tokenizer) -> None:
    lm = massive(tokenizer)
    the, other = tokenizer.encode("the")[0], tokenizer.encode("a")[0]
    found = widest_token(lm.model, torch.tensor([[other, other, other, the, other]]))
    assert (found.place, found.position) == ("blocks.0.hook_resid_pre", 3)
    states = lm.model.embedding.weight.double()
    assert found.sigma == pytest.approx(float(states[the].square().mean().sqrt()))
    assert found.ratio == pytest.approx(found.sigma / float(states[other].square().mean().sqrt()))


def test_a_removal_that_blows_up_is_explained_by_the_token_that_grew(lm: LanguageModel) -> None:
    ids = tokens(2, 9, vocab=50)
    start = widest_token(lm.model, ids)
    with (
        pytest.raises(
            NotFinite, match=r"remove-layernorm: the loss is nan at step 7; .*one token has blown up"
        ) as error,
        explained(lm.model, ids, start),
    ):
        with torch.no_grad():
            lm.model.embedding.weight[ids[0, 0]] *= 1e4
        raise NotFinite("the loss is nan at step 7", "a lower learning rate may help")
    assert "learning rate may help" not in str(error.value)
    with (
        pytest.raises(NotFinite, match="a lower learning rate"),
        explained(lm.model, ids, widest_token(lm.model, ids)),
    ):
        raise NotFinite("the loss is nan at step 7", "a lower learning rate may help")
