import zipfile

import pytest
import torch
from safetensors.torch import save_file

from workflow_scripts.common.checkpoints import (
    check_weight_file,
    headers_only,
    load_exactly,
    load_state,
    refuse_remote_code,
    safetensors_shapes,
)
from workflow_scripts.common.errors import InputError


def test_shapes_are_read_from_the_header(tmp_path):
    save_file({"a": torch.zeros(2, 3)}, tmp_path / "w.safetensors")
    assert safetensors_shapes(tmp_path / "w.safetensors") == {"a": (2, 3)}
    assert load_state(tmp_path / "w.safetensors")["a"].shape == (2, 3)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "pointer"])
def test_a_damaged_file_is_refused_by_name(tmp_path, suffix, damage):
    path = tmp_path / f"weights.{suffix}"
    state = {"a": torch.zeros(200, 30)}
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    check_weight_file(path)
    if damage == "missing":
        path.unlink()
    elif damage == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else -3000])
    with pytest.raises(InputError, match="weights"):
        check_weight_file(path)


def test_a_pickled_object_is_never_loaded(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(InputError, match="not a plain state dict"):
        load_state(path)


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="no torch checkpoint"):
        check_weight_file(path)


def test_every_key_must_fit_and_be_wanted():
    module = torch.nn.Linear(2, 3)
    with pytest.raises(InputError, match="1 missing: bias") as caught:
        load_exactly(module, {"weight": torch.zeros(3, 3), "extra": torch.zeros(1)}, "w.pth")
    assert "1 unexpected: extra" in str(caught.value)
    assert "weight (3, 3), not (3, 2)" in str(caught.value)
    load_exactly(module, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, "w.pth")
    assert module.weight.sum() == 6


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.bin"])
@pytest.mark.parametrize("page", ["<!DOCTYPE html><html>Quota exceeded", "\n <HTML>sign in</HTML>"])
def test_a_page_in_the_place_of_weights_is_told_as_one(name, page, tmp_path):
    (tmp_path / name).write_text(page)
    with pytest.raises(InputError, match="a web page stands where weights should"):
        check_weight_file(tmp_path / name)


@pytest.mark.parametrize("name", ["w.safetensors", "new.pth", "old.pth"])
def test_headers_alone_say_what_the_weights_say(name, tmp_path):
    module = torch.nn.Linear(2, 3)
    state, path = module.state_dict(), tmp_path / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name.startswith("new"))
    with headers_only():
        loaded = load_state(path)
        assert {k: v.shape for k, v in loaded.items()} == {k: v.shape for k, v in state.items()}
        assert all(value.is_meta for value in loaded.values())
        other = torch.nn.Linear(2, 3)
        load_exactly(other, loaded, path)
        assert other.weight.is_meta
        with pytest.raises(InputError, match="of another shape"):
            load_exactly(torch.nn.Linear(2, 4), loaded, path)
    assert torch.equal(load_state(path)["weight"], module.weight)


def test_code_that_any_json_of_a_folder_asks_for_is_refused(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "config.json").write_text('{"model_type": "bert"}')
    refuse_remote_code(tmp_path, "take another")
    (tmp_path / "deep" / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": 1}}')
    with pytest.raises(InputError, match="auto_map") as caught:
        refuse_remote_code(tmp_path, "take another")
    assert "deep/tokenizer_config.json" in str(caught.value)
