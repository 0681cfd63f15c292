"""RAD-DINO: a ViT-B/14 trained by DINOv2 on chest radiographs (Pérez-García et al., 2024).

`weights` is a folder in transformers' Dinov2 layout (microsoft/rad-dino): config.json,
model.safetensors, preprocessor_config.json. The feature is `pooler_output`: the class token after
the final layer norm, 768 wide in the published network.

Preprocessing comes from preprocessor_config.json. The published file has: shorter side 518,
bicubic; centre crop 518 x 518; 1/255; mean 0.5307, standard deviation 0.2583 in each channel.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Resampling

from workflow_scripts.common.as_published import Deviations
from workflow_scripts.common.checkpoints import check_weight_file, safetensors_shapes
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import ATTENTIONS, Takes
from workflow_scripts.features.encoders.layout import check_shapes, read_json, read_number
from workflow_scripts.features.encoders.transform import (
    SIDECAR,
    ImageTransform,
    published_squash,
    read_transform,
    to_device,
)

PUBLISHED: Final = ImageTransform(
    size=518,
    crop=(518, 518),
    resample=Resampling.BICUBIC,
    mean=(0.5307, 0.5307, 0.5307),
    std=(0.2583, 0.2583, 0.2583),
)


def files(weights: Path) -> list[Path]:
    """Return the files that the features depend on."""
    return [weights / "config.json", weights / "model.safetensors", weights / SIDECAR]


def check(weights: Path) -> None:
    """Check config, preprocessing and every tensor's name and shape, from the header alone.

    Raises:
        InputError: see `Encoder`'s package.
    """
    config = read_json(weights / "config.json")
    if config.get("model_type") != "dinov2" or config.get("use_swiglu_ffn"):
        raise InputError(
            f"not RAD-DINO's kind of network (model_type {config.get('model_type')!r})",
            weights / "config.json",
            "download microsoft/rad-dino",
        )
    read_transform(weights / SIDECAR, PUBLISHED)
    file = weights / "model.safetensors"
    check_weight_file(file)
    check_shapes(safetensors_shapes(file), expected_shapes(config, weights / "config.json"), file)


def expected_shapes(config: dict[str, Any], path: Path) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor in the file (223 in the published network)."""
    width = read_number(config, "hidden_size", path)
    image, patch = read_number(config, "image_size", path), read_number(config, "patch_size", path)
    inner = int(width * config.get("mlp_ratio", 4))
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, (image // patch) ** 2 + 1, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    if config.get("use_mask_token", True):
        shapes["embeddings.mask_token"] = (1, width)
    for i in range(read_number(config, "num_hidden_layers", path)):
        layer = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            shapes[f"{layer}.attention.attention.{name}.weight"] = (width, width)
            if config.get("qkv_bias", True):
                shapes[f"{layer}.attention.attention.{name}.bias"] = (width,)
        shapes[f"{layer}.attention.output.dense.weight"] = (width, width)
        shapes[f"{layer}.attention.output.dense.bias"] = (width,)
        for j in (1, 2):
            shapes[f"{layer}.layer_scale{j}.lambda1"] = (width,)
            shapes[f"{layer}.norm{j}.weight"] = (width,)
            shapes[f"{layer}.norm{j}.bias"] = (width,)
        shapes[f"{layer}.mlp.fc1.weight"] = (inner, width)
        shapes[f"{layer}.mlp.fc1.bias"] = (inner,)
        shapes[f"{layer}.mlp.fc2.weight"] = (width, inner)
        shapes[f"{layer}.mlp.fc2.bias"] = (width,)
    return shapes


class RadDino:
    """The encoder; see the module."""

    name = "rad_dino"
    reads = "image"
    takes = Takes(compile=("blocks", "network"), attention=ATTENTIONS)

    def __init__(self, network: Any, transform: ImageTransform, device: torch.device):
        self.network = network.eval().to(device)
        self.computes = network
        self.transform = transform
        self.device = device
        self.dimension = int(network.config.hidden_size)
        self.preprocessing = transform.describe()
        self.extras: dict[str, NDArray[np.float32]] = {}

    def prepare(self, source: Any) -> torch.Tensor:
        """Map an image to float32 (3, h, w)."""
        return self.transform(source)

    @torch.inference_mode()
    def encode(self, batch: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Map n images to (n, hidden size)."""
        pixels = to_device(batch, self.device)
        return self.network(pixel_values=pixels).pooler_output.float().cpu().numpy()


def load(weights: Path, device: torch.device, switches: Deviations, purpose: str) -> RadDino:
    """Load the network from its local folder.

    Raises:
        InputError: see `check`.
    """
    check(weights)
    from transformers import Dinov2Model

    loaded: Any = Dinov2Model.from_pretrained(
        weights,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    network, info = loaded
    faults = {kind: sorted(map(str, info[kind])) for kind in info if kind.endswith("_keys")}
    if any(faults.values()):
        raise InputError(f"transformers did not load every key: {faults}", weights)
    # The official release squashes images for fidelity in RAD-DINO and for the latent distance.
    transform = read_transform(weights / SIDECAR, PUBLISHED)
    transform = replace(transform, squash=published_squash(purpose, switches))
    return RadDino(network, transform, device)
