"""The pseudo-labeller: every tensor of its file is used, and its masks equal those of CXAS.

tests/originals compares it with CXAS's own code at the published size.
"""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from workflow_scripts.common.errors import InputError
from workflow_scripts.downstream.segmentation.convert_cxas import convert
from workflow_scripts.downstream.segmentation.cxas import (
    Cxas,
    check_cxas,
    draw_masks,
    load_cxas,
    prepare,
)

from .conftest import random_cxas

CLASSES = (2, 5)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_cxas((1, 2, 1, 1), classes=7).state_dict()


def saved(state: dict[str, Tensor], path: Path, prefix: str = "module.") -> Path:
    torch.save({"model": {f"{prefix}{key}": value for key, value in state.items()}}, path)
    return path


def test_at_full_size_it_has_the_published_files_tensors():
    with torch.device("meta"):
        full = Cxas().state_dict()
    assert len(full) == 383
    assert round(sum(value.numel() for value in full.values()) / 1e6, 1) == 73.4
    assert full["head.out.conv.weight"].shape == (159, 128, 1, 1)
    assert full["backbone.backbone.layer0.0.weight"].shape == (64, 3, 7, 7)
    assert full["backbone.backbone.layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert full["head.up1.conv1.conv.0.weight"].shape == (1024, 2048, 3, 3)
    assert full["head.up4.conv.double_conv.3.bias"].shape == (128,)


def test_prefixed_nested_and_plain_files_are_the_same_network(state, tmp_path):
    torch.save(state, tmp_path / "plain.pth")
    paths = [
        saved(state, tmp_path / "gpus.pth"),
        saved(state, tmp_path / "one.pth", prefix=""),
        tmp_path / "plain.pth",
    ]
    for path in paths:
        loaded = load_cxas(path).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in state.items())
        assert check_cxas(path, CLASSES) == f"CXAS with 7 classes, {len(state)} tensors"


@pytest.mark.parametrize("load", [load_cxas, lambda path: check_cxas(path, CLASSES)])
def test_tensors_that_do_not_fit_are_named(state, tmp_path, load):
    path = tmp_path / "weights.pth"
    lacking = {k: v for k, v in state.items() if k != "head.up3.conv.double_conv.1.bias"}
    with pytest.raises(InputError, match=r"1 missing: head\.up3\.conv\.double_conv\.1\.bias"):
        load(saved(lacking, path))
    with pytest.raises(InputError, match=r"1 unexpected: head\.up9\.weight"):
        load(saved(state | {"head.up9.weight": torch.zeros(1)}, path))
    wrong = state | {"backbone.backbone.layer2.0.bn1.bias": torch.zeros(3)}
    with pytest.raises(InputError, match=r"of another shape: .*layer2\.0\.bn1\.bias \(3,\)"):
        load(saved(wrong, path))
    with pytest.raises(InputError, match=r"not a CXAS network: head\.out\.conv\.weight"):
        load(saved({k: v for k, v in state.items() if "out.conv" not in k}, path))
    with pytest.raises(InputError, match="not a CXAS network"):
        load(saved({k: v for k, v in state.items() if "layer3" not in k}, path))


def test_files_that_are_no_weights_are_refused(state, tmp_path):
    path = saved(state, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"\[2, 7\] are not classes of a network with 7"):
        check_cxas(path, [2, 7])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="truncated"):
        load_cxas(path)
    path.write_text("<html>Google Drive: quota exceeded</html>")
    with pytest.raises(InputError, match="a web page stands where weights should"):
        load_cxas(path)
    torch.save({"model": {"a": 1}}, path)
    with pytest.raises(InputError, match="no state dict, neither"):
        load_cxas(path)
    torch.save(Cxas((1, 1, 1, 1), 2, 4, 7), path)  # runs code when it is loaded
    with pytest.raises(InputError, match="not a plain state dict"):
        load_cxas(path)


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Compute all logits with functional calls, the last layer at the images' size."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return functional.conv2d(
            x, weight, state.get(f"{name}.bias"), stride, padding=weight.shape[-1] // 2
        )

    def norm(x: Tensor, name: str) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{name}.{n}"] for n in names))

    def double(x: Tensor, name: str) -> Tensor:
        for i in (0, 3):
            x = norm(conv(x, f"{name}.{i}"), f"{name}.{i + 1}").relu()
        return x

    def up(x: Tensor, to: Tensor) -> Tensor:
        return functional.interpolate(x, to.shape[2:], mode="bilinear", align_corners=False)

    root = "backbone.backbone"
    y = norm(conv(x, f"{root}.layer0.0", 2), f"{root}.layer0.1").relu()
    maps = [functional.max_pool2d(y, 3, 2, 1)]
    for i, depth in enumerate((1, 2, 1, 1)):
        y = maps[-1]
        for j in range(depth):
            name = f"{root}.layer{i + 1}.{j}"
            stride = 2 if i and not j else 1
            z = norm(conv(y, f"{name}.conv1"), f"{name}.bn1").relu()
            z = norm(conv(z, f"{name}.conv2", stride), f"{name}.bn2").relu()
            z = norm(conv(z, f"{name}.conv3"), f"{name}.bn3")
            if f"{name}.downsample.0.weight" in state:
                y = norm(conv(y, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            y = (z + y).relu()
        maps.append(y)
    y = norm(conv(maps[4], "head.up1.conv1.conv.0"), "head.up1.conv1.conv.1").relu()
    y = double(torch.cat([maps[3], up(y, maps[3])], 1), "head.up1.conv2.double_conv")
    for i, skip in ((2, maps[2]), (3, maps[1]), (4, maps[0])):
        y = double(torch.cat([skip, up(y, skip)], 1), f"head.up{i}.conv.double_conv")
    return conv(up(y, x), "head.out.conv")


@torch.no_grad()
def test_logits_are_those_of_plain_functions(state, tmp_path):
    network = load_cxas(saved(state, tmp_path / "weights.pth"))
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    expected = reference(state, x)
    assert expected.std() > 0.1
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(x, CLASSES), expected[:, CLASSES], rtol=1e-4, atol=1e-5)


def test_a_mask_is_the_union_of_the_classes(state, tmp_path):
    network = load_cxas(saved(state, tmp_path / "weights.pth"))
    picture = np.random.default_rng(2).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    prepared = prepare(Image.fromarray(picture), 64)[None]
    one, two, both = (draw_masks(network, prepared, c) for c in ([2], [5], [2, 5]))
    assert both.shape == (1, 64, 64)
    assert one.any()
    assert two.any()
    assert not one.all()
    assert (both == (one | two)).all()


def test_images_are_prepared_as_cxas_does():
    picture = np.random.default_rng(3).integers(0, 256, (45, 77, 3), dtype=np.uint8)
    prepared = prepare(Image.fromarray(picture), 64)
    rows = (np.arange(64) * 45 / 64).astype(int)
    columns = (np.arange(64) * 77 / 64).astype(int)
    assert (prepared.permute(1, 2, 0).numpy() == picture[rows][:, columns]).all()


# Conversion


class Ran:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return print, ("code of the file ran",)


@pytest.mark.parametrize("higher", [False, True])
def test_a_training_checkpoint_is_refused_and_converted_without_its_code(
    state, higher, tmp_path, capsys
):
    """The file has arguments, NumPy objects and other layers, too; the names vary by one level."""
    source, target = tmp_path / "published.pth", tmp_path / "converted.safetensors"
    named = {
        f"module.{key.replace('backbone.backbone.', 'backbone.') if higher else key}": value
        for key, value in state.items()
    }
    more = {"module.auxiliary.weight": torch.zeros(2), "module.steps": 7}
    beside = {"args": Namespace(lr=1e-3), "best": np.float64(0.5), "hook": Ran(), "epoch": 3}
    torch.save({"model": named | more, **beside}, source)
    with pytest.raises(InputError, match="convert_cxas"):
        check_cxas(source, CLASSES)
    assert convert(source, target) == ["auxiliary.weight"]
    assert "code of the file ran" not in capsys.readouterr().out
    assert check_cxas(target, CLASSES) == f"CXAS with 7 classes, {len(state)} tensors"
    loaded = load_cxas(target).state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_what_lacks_a_tensor_is_not_converted(state, tmp_path):
    source, target = tmp_path / "published.pth", tmp_path / "converted.safetensors"
    lacking = {k: v for k, v in state.items() if k != "head.up3.conv.double_conv.1.bias"}
    with pytest.raises(InputError, match=r"1 missing: head\.up3"):
        convert(saved(lacking, source), target)
    source.write_text("<!DOCTYPE html><html><title>Virus scan warning</title></html>")
    with pytest.raises(InputError, match="a web page"):
        convert(source, target)
    assert not target.exists()


def test_a_backbone_one_level_higher_is_the_same_network(state, tmp_path):
    higher = {k.replace("backbone.backbone.", "backbone."): v for k, v in state.items()}
    loaded = load_cxas(saved(higher, tmp_path / "weights.pth", prefix="")).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
