"""The folder that a report generator starts from: transformers' own layout of a LLaVA.

    config.json                     LlavaConfig: vision_config (any tower that transformers knows),
                                    text_config, the layer whose features the projector takes
    model*.safetensors              all weights
    tokenizer.json                  with `<image>` as an added token
    preprocessor_config.json        size, crop, filter, mean and standard deviation of the input

`convert_llava_rad` writes two of them: `base/` and `released/`.
"""

import json
from pathlib import Path
from typing import Any, Final

from PIL.Image import Resampling

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.checkpoints import check_weight_file, safetensors_shapes
from workflow_scripts.common.errors import InputError
from workflow_scripts.features.encoders.layout import read_json
from workflow_scripts.features.encoders.transform import SIDECAR, ImageTransform, read_transform

IMAGE_TOKEN: Final = "<image>"
PUBLISHED: Final = ImageTransform(
    size=518,
    crop=(518, 518),
    resample=Resampling.BICUBIC,
    odd_crop_rounds=True,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
"""open_clip's evaluation transform with its default mean and standard deviation, at LLaVA-Rad's
size."""

_REMEDY: Final = "write it with workflow_scripts.downstream.report_generation.convert_llava_rad"
_PROJECTOR: Final = "multi_modal_projector.linear_1.weight"


def check_start(folder: Path) -> None:
    """Check a folder without importing torch: its files, their headers, and sizes that must agree.

    Raises:
        InputError: a file is missing or damaged, or parts do not fit together.
    """
    config = read_llava_config(folder)
    transform(folder)
    if not (folder / "tokenizer.json").is_file():
        raise InputError("a tokenizer is missing", folder / "tokenizer.json", _REMEDY)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(folder):
        check_weight_file(file)
        shapes |= safetensors_shapes(file)
    width, vocabulary = (config["text_config"][key] for key in ("hidden_size", "vocab_size"))
    expected = {
        _PROJECTOR: (width, config["vision_config"]["hidden_size"]),
        "embed_tokens.weight": (vocabulary, width),
        "lm_head.weight": (vocabulary, width),
    }
    for ending, shape in expected.items():
        found = [shapes[name] for name in shapes if name.endswith(ending)]
        if found != [shape]:
            raise InputError(
                f"*{ending} has the shape(s) {found}, but config.json says {shape}",
                folder,
                _REMEDY,
            )


def read_llava_config(folder: Path) -> dict[str, Any]:
    """Read `config.json`.

    Raises:
        InputError: the file is missing, damaged, or not the config of a LLaVA that is supported
            here.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise InputError("not a converted LLaVA: config.json is missing", folder, _REMEDY)
    config = read_json(path)
    try:
        if config["model_type"] != "llava":
            raise ValueError(f"model_type is {config['model_type']!r}, not 'llava'")
        if config.get("vision_feature_select_strategy", "default") != "default":
            raise ValueError("vision_feature_select_strategy must be 'default' (no class token)")
        for part in ("vision_config", "text_config"):
            int(config[part]["hidden_size"])
        int(config["text_config"]["vocab_size"])
        image_tokens(config)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a LLaVA's config: {error}", path, _REMEDY) from None
    return config


def image_tokens(config: dict[str, Any]) -> int:
    """Return the number of tokens of an image: its patches, without the class token."""
    vision = config["vision_config"]
    return (int(vision["image_size"]) // int(vision["patch_size"])) ** 2


def transform(folder: Path) -> ImageTransform:
    """Return the preprocessing of the tower's input.

    Raises:
        InputError: the file is missing or unusable, or its crop is not the tower's input size.
    """
    path = folder / SIDECAR
    if not path.is_file():
        raise InputError("the preprocessing is missing", path, _REMEDY)
    preprocessing = read_transform(path, PUBLISHED)
    side = int(read_llava_config(folder)["vision_config"]["image_size"])
    if preprocessing.crop != (side, side):
        raise InputError(
            f"the crop is {preprocessing.crop}, but the tower takes {side} pixels", path, _REMEDY
        )
    return preprocessing


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files: a single one, or the shards that the index names.

    Raises:
        InputError: there is neither.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise unreadable("cannot read the index of weights", error, index, _REMEDY) from None
        return [folder / name for name in names]
    if not (folder / "model.safetensors").is_file():
        raise InputError("the weights are missing", folder / "model.safetensors", _REMEDY)
    return [folder / "model.safetensors"]
