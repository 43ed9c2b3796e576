"""Adapter folders against PEFT itself, both ways: equal logits for every family, foreign adapters refused."""

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, save_model
from gpt2lab.model.adapters import Lora, activate, adapters, load_adapter, save_adapter
from gpt2lab.model.architecture import attach
from tests.model.adapters.models import MORE, adapted_model, model_of, shake
from tests.tiny import tokens

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft.*"),
]
FAMILIES = list(MORE)
EVERYTHING = ("q", "v", "o", "up", "down", "embedding", "head")


def theirs(family: str, folder: Path) -> nn.Module:
    """The same random base in transformers."""
    save_model(model_of(family), folder)
    made = transformers.AutoModelForMaskedLM if family == "bert" else transformers.AutoModelForCausalLM
    return made.from_pretrained(folder).eval()


@torch.no_grad()
def same_logits(ours: Transformer, other: nn.Module) -> None:
    """Equal within 1e-5, with padding too."""
    ids = tokens(3, 9)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    for given in (None, mask):
        expected = other(input_ids=ids, attention_mask=given).logits
        found = ours.eval()(ids, attention_mask=given)
        kept = mask.bool() if given is not None else torch.ones(3, 9, dtype=torch.bool)
        assert (found - expected)[kept].abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "lora",
    [
        Lora(rank=3, alpha=7.0, rank_pattern={"blocks.0.*": 5}, alpha_pattern={"down": 2.0}),
        Lora(rank=2, rslora=True, targets=("q", "v", "*.mlp.down"), strength=0.5),
        Lora(rank=4, targets=EVERYTHING),
    ],
    ids=["whole matrices", "queries and values", "tables too"],
)
def test_our_folder_opens_in_peft(family: str, lora: Lora, tmp_path: Path) -> None:
    ours = adapted_model(family, lora)
    base = theirs(family, tmp_path / "base")
    save_adapter(ours, tmp_path / "adapter", base=str(tmp_path / "base"))
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    before = base(input_ids=tokens(3, 9)).logits
    opened = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    same_logits(ours, opened)
    assert (opened(input_ids=tokens(3, 9)).logits - before).abs().max() > 0.01
    again = model_of(family)
    load_adapter(again, tmp_path / "adapter")
    same_logits(again, opened)


NAMES = {
    "gpt2": ["c_attn", "mlp.c_proj"],
    "gpt_neo": ["q_proj", "v_proj", "c_fc"],
    "gpt_neox": ["query_key_value", "dense"],
    "llama": ["q_proj", "k_proj", "gate_proj", "down_proj"],
    "qwen2": ["q_proj", "v_proj", "up_proj", "o_proj"],
    "mistral": ["k_proj", "v_proj", "gate_proj"],
    "bert": ["query", "value", "attention.output.dense"],
}
OPTIONS = {
    "names": {"lora_dropout": 0.1},
    "regex": {"regex": r".*\.(0|1)\..*({names}).*", "use_rslora": True},
    "all-linear": {"target_modules": "all-linear", "exclude_modules": r".*(lm_head|cls).*"},
    "layers": {"layers_to_transform": [1], "init_lora_weights": "gaussian"},
    "tables": {"tables": True},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", list(OPTIONS))
def test_their_folder_opens_here(family: str, kind: str, tmp_path: Path) -> None:
    options = dict(OPTIONS[kind])
    base = theirs(family, tmp_path / "base")
    names: list[str] | str = NAMES[family]
    if regex := options.pop("regex", None):
        names = regex.format(names="|".join(names))
    if options.pop("tables", None):
        table = next(name for name, module in base.named_modules() if module is base.get_input_embeddings())
        names = [*NAMES[family], table.rpartition(".")[2]]
    layer = (
        "h"
        if family.startswith("gpt") and family != "gpt_neox"
        else "layer"
        if family == "bert"
        else "layers"
    )
    number = {"layers": 1}.get(kind, 0)
    config = peft.LoraConfig(
        **{
            "r": 3,
            "lora_alpha": 5,
            "target_modules": names,
            "rank_pattern": {NAMES[family][0]: 4},
            "alpha_pattern": {rf"{layer}\.{number}\..*": 11},
            "fan_in_fan_out": family == "gpt2",
            **options,
        }
    )
    adapted = peft.get_peft_model(base, config).eval()
    shake([p for name, p in adapted.named_parameters() if "lora_" in name], 0.2)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    ours = model_of(family)
    lora = load_adapter(ours, tmp_path / "adapter", name="theirs")
    assert adapters(ours) == {"theirs": lora}
    same_logits(ours, adapted)
    save_adapter(ours, tmp_path / "back", base="somewhere")
    written, read = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("back", "adapter"))
    assert all(torch.equal(written[name], read[name]) for name in written)
    assert {name for name in read if "base_layer" not in name} == set(written)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "bert"])
def test_all_linear_is_every_matrix_that_peft_takes_for_one(family: str, tmp_path: Path) -> None:
    base = theirs(family, tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules="all-linear"))
    ours = attach(model_of(family), Lora(rank=2))
    save_adapter(ours, tmp_path / "adapter", base="b")
    chosen = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["target_modules"]
    expected = {
        name.removeprefix("base_model.model.") for name, m in adapted.named_modules() if hasattr(m, "lora_A")
    }
    assert set(chosen) == expected
    written = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    shapes = {name: tensor.shape for name, tensor in adapted.state_dict().items() if "lora_" in name}
    assert {
        name.replace(".weight", ".default.weight"): tensor.shape for name, tensor in written.items()
    } == shapes


def test_one_of_several_adapters_is_saved_by_name(tmp_path: Path) -> None:
    model = adapted_model("gpt2", Lora(rank=2, name="first"))
    attach(model, Lora(rank=3, name="second", targets=("q",)))
    with pytest.raises(LabError, match="this model has first, second; say which"):
        save_adapter(model, tmp_path / "a", base="b")
    save_adapter(model, tmp_path / "a", base="b", name="second")
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["r"] == 3
    activate(model, {"first": 1.0})
    with pytest.raises(LabError, match="second: this adapter is switched off"):
        save_adapter(model, tmp_path / "b", base="b", name="second")
    assert not (tmp_path / "b").exists()


def written(tmp_path: Path, family: str = "gpt2", **entries: object) -> Path:
    """An adapter folder, some entries of its configuration replaced."""
    folder = tmp_path / "adapter"
    save_adapter(adapted_model(family, Lora(rank=2, targets=("q", "down"))), folder, base="b")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    return folder


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA"),
        ({"bias": "all"}, "bias='all' trains biases of the base"),
        ({"target_modules": 3}, "target_modules must be names of modules, got 3"),
        ({"target_modules": "((a|.)+)+x"}, "can take for ever"),
        ({"layers_pattern": "h"}, "layers_pattern is given, and layers_to_transform is not"),
        ({"task_type": False}, "task_type must be one of CAUSAL_LM"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save replaces \['lm_head'\]"),
        ({"use_dora": True}, "use_dora=True is not supported"),
        ({"init_lora_weights": "pissa"}, "'pissa' changes the base too"),
        ({"target_modules": ["c_fc"]}, "for which adapter_model.safetensors has no matrices"),
        ({"target_modules": ["attn.c_attn"]}, "which target_modules do not choose"),
        ({"target_modules": "("}, "no regular expression"),
        ({"r": 3}, r"lora_A of transformer.h.0.attn.c_attn is \[2, 24\]"),
        ({"r": None}, "None"),
        ({"lora_alpha": "x"}, "wrong type|number"),
    ],
)
def test_what_cannot_be_read_is_refused_and_the_model_stays_as_it_was(
    entries: dict[str, object], message: str, tmp_path: Path
) -> None:
    folder, model = written(tmp_path, **entries), model_of("gpt2")
    names = list(model.state_dict())
    with pytest.raises(LabError, match=message):
        load_adapter(model, folder)
    assert list(model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("gpt_neo", {}, "has no place in a gpt_neo with 3 layers; the adapter belongs to another base model"),
        ("gpt2", {"n_layers": 2}, "h.2.*no place in a gpt2 with 2 layers"),
        ("gpt2", {"d_model": 27}, r"is \[2, 24\], this model and adapter_config.json make it \[2, 27\]"),
    ],
)
def test_an_adapter_of_another_base_is_refused(
    family: str, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(LabError, match=message):
        load_adapter(model_of(family, **changes), written(tmp_path))


def test_another_table_than_the_adapters_own_is_refused(tmp_path: Path) -> None:
    base = theirs("llama", tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(target_modules=["embed_tokens"]))
    adapted.save_pretrained(str(tmp_path / "adapter"))
    load_adapter(model_of("llama"), tmp_path / "adapter")
    foreign = model_of("llama")
    with torch.no_grad():
        foreign.embedding.weight[5] += 1
    with pytest.raises(LabError, match="differs from this model's"):
        load_adapter(foreign, tmp_path / "adapter")


def test_broken_files_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] * float("nan")}, path)
    with pytest.raises(LabError, match="holds NaN"):
        load_adapter(model_of("gpt2"), folder)
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, path)
    with pytest.raises(LabError, match="but not the other matrix"):
        load_adapter(model_of("gpt2"), folder)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(LabError, match="truncated"):
        load_adapter(model_of("gpt2"), folder)
    path.rename(folder / "adapter_model.bin")
    with pytest.raises(LabError, match="pickle file, which is never read"):
        load_adapter(model_of("gpt2"), folder)


def test_a_module_listed_by_its_whole_name_is_adapted_whatever_layers_are_asked_for(tmp_path: Path) -> None:
    base = theirs("llama", tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"], layers_to_transform=[1])
    adapted = peft.get_peft_model(base, config).eval()
    shake([p for name, p in adapted.named_parameters() if "lora_" in name], 0.2)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    ours = model_of("llama")
    load_adapter(ours, tmp_path / "adapter")
    same_logits(ours, adapted)


@pytest.mark.parametrize(
    ("kind", "name", "read"),
    [
        ("q", "lora_A.default.weight", True),
        ("q", "lora_A.wekght", False),
        ("q", "lora_A", False),
        ("q", "lora_A.weight.default", False),
        ("q", "lora_A.other.weight", False),
        ("embedding", "lora_embedding_A.default", True),
        ("embedding", "lora_embedding_A.weight", False),
        ("embedding", "lora_embedding_A.other", False),
    ],
)
def test_matrices_under_a_name_that_peft_passes_over_are_refused(
    kind: str, name: str, read: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    save_adapter(adapted_model("gpt2", Lora(rank=2, targets=(kind,))), folder, base="b")
    path = folder / "adapter_model.safetensors"
    own = "lora_embedding_A" if kind == "embedding" else "lora_A.weight"
    tensors = {full.replace(own, name): tensor for full, tensor in load_file(path).items()}
    save_file(tensors, path)
    if read:
        assert load_adapter(model_of("gpt2"), folder).rank == 2
    else:
        with pytest.raises(LabError, match="has no place in a gpt2"):
            load_adapter(model_of("gpt2"), folder)
    adapted = peft.PeftModel.from_pretrained(theirs("gpt2", tmp_path / "base"), str(folder)).state_dict()
    first = next(full for full in tensors if full.endswith(name))
    module = first.removesuffix(name) + own.removesuffix(".weight")
    assert (
        torch.equal(
            next(tensor for full, tensor in adapted.items() if full.startswith(module)), tensors[first]
        )
        == read
    )
