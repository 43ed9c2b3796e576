"""Broken, lost and foreign files of a checkpoint are named; what a layout cannot express is not written."""

import errno
import json
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, load_model, save_model
from tests.tiny import CONFIGS, tiny


def saved(tmp_path: Path, **changes: object) -> Path:
    save_model(tiny("gpt2", **changes), tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, change) -> None:  # type: ignore[no-untyped-def]
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(LabError) as error:
        load_model(folder)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit(folder, lambda state: state.pop("transformer.h.1.mlp.c_fc.bias"))
    refused(folder, "transformer.h.1.mlp.c_fc.bias is missing")


def test_an_extra_tensor_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit(folder, lambda state: state.update({"transformer.h.3.ln_1.weight": torch.ones(24)}))
    refused(folder, "no place for transformer.h.3.ln_1.weight")


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit(folder, lambda state: state.update({"transformer.h.0.attn.c_attn.weight": torch.ones(72, 24)}))
    refused(folder, "transformer.h.0.attn.c_attn.weight is [72, 24]", "[24, 72]")


def test_a_misshapen_part_of_a_stacked_tensor_is_named(tmp_path: Path) -> None:
    save_model(tiny("llama"), tmp_path / "model")
    edit(
        tmp_path / "model", lambda s: s.update({"model.layers.2.self_attn.k_proj.weight": torch.ones(24, 24)})
    )
    refused(tmp_path / "model", "model.layers.2.self_attn.k_proj.weight is [24, 24]", "[8, 24]")


def test_a_tensor_with_nan_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit(folder, lambda state: state["transformer.ln_f.weight"].__setitem__(3, float("nan")))
    refused(folder, "transformer.ln_f.weight holds NaN")


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: float) -> None:
    folder = saved(tmp_path)
    data = (folder / "model.safetensors").read_bytes()
    size = keep if isinstance(keep, int) else int(len(data) * keep)
    (folder / "model.safetensors").write_bytes(data[:size])
    refused(folder, "truncated or not a safetensors file")


@pytest.mark.parametrize("lie", ["overlap", "gap", "twice", "metadata", "text", "behind", "padding"])
def test_a_header_that_does_not_fit_its_file_is_refused(lie: str, tmp_path: Path) -> None:
    path = saved(tmp_path) / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8 : 8 + size]), data[8 + size :]
    first, second, *_ = sorted(
        header.keys() - {"__metadata__"}, key=lambda name: header[name]["data_offsets"]
    )
    more = ""
    if lie == "overlap":
        start, stop = header[second]["data_offsets"]
        header[second]["data_offsets"] = [0, stop - start]
    elif lie == "gap":
        del header[second]
    elif lie == "twice":
        more = f', "{first}": {json.dumps(header[second])}'
    elif lie == "metadata":
        header["__metadata__"] = {"format": 3}
    elif lie == "text":
        header["__metadata__"] = "pt"
    elif lie == "behind":
        numbers += b"1234"
    text = (json.dumps(header)[:-1] + more + ("}x" if lie == "padding" else "}")).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)
    refused(path.parent, "not a safetensors file")


def test_a_file_that_may_not_be_read_is_not_called_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = saved(tmp_path), Path.open

    def denied(path: Path, *more: Any, **options: Any) -> Any:
        if path.suffix == ".safetensors":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *more, **options)

    monkeypatch.setattr(Path, "open", denied)  # root may read whatever a mode forbids
    refused(folder, "model.safetensors: cannot be read (Permission denied)")


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    save_model(tiny("gpt2"), tmp_path / "model", shard_bytes=4000)
    lost = sorted((tmp_path / "model").glob("model-*.safetensors"))[1]
    lost.unlink()
    refused(tmp_path / "model", f"names {lost.name}, which is missing")


def test_a_tied_head_that_differs_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit(folder, lambda state: state.update({"lm_head.weight": state["transformer.wte.weight"] + 1}))
    refused(folder, "lm_head.weight differs", "tie_word_embeddings")


def test_a_copy_of_the_tied_table_is_accepted(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit(folder, lambda state: state.update({"lm_head.weight": state["transformer.wte.weight"].clone()}))
    assert torch.equal(load_model(folder).embedding.weight, tiny("gpt2").embedding.weight)


def test_names_without_the_prefix_and_mask_buffers_are_read_as_the_first_gpt2_files_have_them(
    tmp_path: Path,
) -> None:
    folder = saved(tmp_path)

    def strip(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            state[name.removeprefix("transformer.")] = state.pop(name)
        state["h.0.attn.bias"] = torch.ones(1, 1, 40, 40)

    edit(folder, strip)
    assert torch.equal(load_model(folder).blocks[1].mlp.up.weight, tiny("gpt2").blocks[1].mlp.up.weight)


def test_folders_that_hold_no_model_say_so(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no model here, config.json is missing")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "small.gguf").write_bytes(b"GGUF")
    said = f"config.json is missing; of GGUF files one is given, such as {tmp_path / 'files' / 'small.gguf'}"
    refused(tmp_path / "files", said)
    folder = saved(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin is a pickle file, which is never read")
    (folder / "config.json").write_text("{")
    refused(folder, "not JSON, or cut off")
    (folder / "config.json").write_text('{"model_type": "gpt3"}')
    refused(folder, "gpt3: no such model family; did you mean gpt2?")
    (folder / "config.json").write_text('{"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": "yes"}')
    refused(folder, "scale_attn_by_inverse_layer_idx must be true or false, got 'yes'")
    (folder / "config.json").write_text('{"model_type": "gpt2", "activation_function": "mish"}')
    refused(folder, "activation_function 'mish' is not supported")


def test_a_failed_save_leaves_the_old_folder_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path)
    before = (folder / "model.safetensors").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpt2lab.model.checkpoints.tensor_files.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(tiny("gpt2", seed=5), folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_layout_cannot_express_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"gpt2 checkpoint has norm='layernorm', this model 'none'"):
        save_model(
            Transformer(CONFIGS["gpt2"].replace(norm="none")), tmp_path / "model", layout="huggingface"
        )
    uneven = CONFIGS["gpt2"].replace(n_heads=(3, 2, 1), d_head=8)
    with pytest.raises(LabError, match="one n_heads for all layers"):
        save_model(Transformer(uneven), tmp_path / "model", layout="huggingface")
    assert not (tmp_path / "model").exists()


def test_a_full_disk_while_weights_are_written_is_the_systems_error_and_leaves_the_old_model(
    tmp_path: Path,
) -> None:
    save_model(tiny("gpt2"), tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert (tmp_path / "model" / "model.safetensors").stat().st_mode & 0o777 == 0o644
    handler, limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            save_model(tiny("gpt2"), tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.errno == errno.EFBIG
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_index_decides_which_file_a_tensor_is_read_from(tmp_path: Path) -> None:
    model = tiny("gpt2")
    save_model(model, tmp_path / "m", shard_bytes=4000)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())["weight_map"]
    first, last = min(index.values()), max(index.values())
    name = min(name for name, file in index.items() if file == first)
    stale = load_file(tmp_path / "m" / first)[name] + 1
    for file in {*index.values()} - {first}:  # whichever is read last or first holds an older copy
        save_file({**load_file(tmp_path / "m" / file), name: stale}, tmp_path / "m" / file)
    again = load_model(tmp_path / "m")
    assert first != last
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_a_model_whose_replacement_died_half_way_is_loaded(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    folder.rename(tmp_path / ".model.old-17")
    assert load_model(folder).config == tiny("gpt2").config
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_index_with_a_name_that_no_file_can_have_is_one_short_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(tiny("gpt2"), folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"transformer.wte.weight": "é" * 5000}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LabError, match=r"the index names é+…, which is missing") as error:
        load_model(folder)
    assert len(str(error.value)) < 500
    index = {"metadata": {}, "weight_map": {"h[" * 5000: "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LabError, match="the index promises") as error:
        load_model(folder)
    assert len(str(error.value)) < 500


def test_experts_that_the_config_denies_are_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(Transformer(CONFIGS["llama"].replace(family="mixtral", n_experts=2)), folder)
    entries = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(entries | {"num_local_experts": 0}))
    with pytest.raises(LabError):
        load_model(folder)
