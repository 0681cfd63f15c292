"""BioViL-T's image encoder for single images (Bannur et al., 2023; hi-ml multimodal).

`weights` is biovil_t_image_model_proj_size_128.pt: a state dict of 372 tensors. A ResNet-50 gives
patches (2048 channels), and a 1 x 1 convolution reduces them to 256. The learnt embedding of a
missing previous image (256) is appended to each, which makes 512. The projector (1 x 1 convolution,
batch norm, ReLU, 1 x 1 convolution) maps patches to the joint space. The feature is the mean over
patches, L2-normalised, 128 wide. The transformer that compares two images (`vit_pooler`) is in the
file and checked, but not used for single images.

Preprocessing: the range of the whole array is stretched to 0..255, gray, shorter side 512 bilinear,
centre crop 448, 1/255, three equal channels; no mean or standard deviation. 16-bit images arrive as
8 bits. A `preprocessor_config.json` beside the weights may give other sizes, for a smaller network.

For the alignment score the official release does not squash images, so `as_published` does not
change this encoder.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Resampling
from torch import Tensor, nn

from workflow_scripts.common.as_published import Deviations
from workflow_scripts.common.checkpoints import load_exactly, load_state
from workflow_scripts.common.resnet import ResNet, resnet_for
from workflow_scripts.common.speed import Takes
from workflow_scripts.features.encoders.layout import check_shapes, need, strip_prefix
from workflow_scripts.features.encoders.transform import (
    SIDECAR,
    ImageTransform,
    read_transform,
    to_device,
)

PUBLISHED: Final = ImageTransform(
    size=512,
    crop=(448, 448),
    resample=Resampling.BILINEAR,
    odd_crop_rounds=True,
    stretch_gray=True,
)


class _Attention(nn.Module):
    """Parameters of one attention layer; see `_Pooler`."""

    def __init__(self, width: int):
        super().__init__()
        self.proj_q = nn.Linear(width, width, bias=False)
        self.proj_k = nn.Linear(width, width, bias=False)
        self.proj_v = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)


class _Block(nn.Module):
    """Parameters of one transformer block; see `_Pooler`."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = _Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(width, width)
        self.mlp.fc2 = nn.Linear(width, width)


class _Pooler(nn.Module):
    """The parameters for comparing two images; they are checked, but not used here."""

    def __init__(self, width: int, blocks: int):
        super().__init__()
        self.type_embed = nn.Parameter(torch.zeros(2, 1, width))
        self.blocks = nn.ModuleList([_Block(width) for _ in range(blocks)])
        self.norm_post = nn.LayerNorm(width)


class _MultiImageEncoder(nn.Module):
    """Map images (n, 3, h, w) to patches (n, 2 * width, h / 32, w / 32), without a prior image."""

    def __init__(self, backbone: ResNet, width: int, blocks: int):
        super().__init__()
        self.encoder = backbone
        self.backbone_to_vit = nn.Conv2d(backbone.channels, width, 1, bias=False)
        self.vit_pooler = _Pooler(width, blocks)
        self.missing_previous_emb = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        patches = self.backbone_to_vit(self.encoder.features(x))
        return torch.cat([patches, self.missing_previous_emb.expand_as(patches)], dim=1)


class _Projector(nn.Module):
    def __init__(self, channels: int, hidden: int, outputs: int):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class ImageModel(nn.Module):
    """The network, in hi-ml's key layout.

    Args:
        backbone: a ResNet; the published one is a ResNet-50 with its unused `fc` of 1000.
        width: channels of a patch after `backbone_to_vit`, 256 as published.
        blocks: blocks of the unused pooler, 3 as published.
        hidden: hidden width of the projector, 128 as published.
        outputs: output width of the projector, 128 as published.
    """

    def __init__(
        self,
        backbone: ResNet,
        width: int = 256,
        blocks: int = 3,
        hidden: int = 128,
        outputs: int = 128,
    ):
        super().__init__()
        self.dimension = outputs
        self.encoder = _MultiImageEncoder(backbone, width, blocks)
        self.projector = _Projector(2 * width, hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, 3, h, w) to L2-normalised joint embeddings (n, outputs)."""
        embedding = self.projector(self.encoder(x)).mean(dim=(2, 3))
        return nn.functional.normalize(embedding, dim=1)


def image_model_for(state: Mapping[str, Tensor], path: Path) -> ImageModel:
    """Build the network with the widths of `state`.

    Raises:
        InputError: a key that gives a width is missing.
    """
    try:
        backbone = resnet_for(strip_prefix(state, "encoder.encoder."))
    except KeyError as error:
        need(state, f"encoder.encoder.{error.args[0]}", path)
        raise
    pattern = re.compile(r"encoder\.vit_pooler\.blocks\.(\d+)\.")
    blocks = {int(m[1]) for key in state if (m := pattern.match(key))}
    last = need(state, "projector.model.3.weight", path)
    return ImageModel(
        backbone,
        width=need(state, "encoder.backbone_to_vit.weight", path).shape[0],
        blocks=max(blocks, default=2) + 1,
        hidden=last.shape[1],
        outputs=last.shape[0],
    )


def files(weights: Path) -> list[Path]:
    """Return the files that the features depend on, besides the sizes in the preprocessing."""
    return [weights]


def check(weights: Path) -> None:
    """Check every tensor's name and shape, and the sidecar file beside the weights, if any.

    Raises:
        InputError: see `Encoder`'s package.
    """
    state = load_state(weights)
    with torch.device("meta"):
        network = image_model_for(state, weights)
    check_shapes(
        {key: tuple(value.shape) for key, value in state.items()},
        {key: tuple(value.shape) for key, value in network.state_dict().items()},
        weights,
    )
    _transform(weights)


class BioVilTImage:
    """The encoder; see the module."""

    name = "biovil_t_image"
    reads = "image"
    takes = Takes(
        compile=("network",),
        channels_last=True,
        why="it has no attention, and no blocks that are alike",
    )

    def __init__(self, network: ImageModel, transform: ImageTransform, device: torch.device):
        self.network = network.eval().to(device)
        self.computes = network
        self.transform = transform
        self.device = device
        self.dimension = network.dimension
        self.preprocessing = transform.describe()
        self.extras: dict[str, NDArray[np.float32]] = {}

    def prepare(self, source: Any) -> Tensor:
        """Map an image to float32 (3, h, w) in [0, 1]."""
        return self.transform(source)

    @torch.inference_mode()
    def encode(self, batch: Sequence[Tensor]) -> NDArray[np.float32]:
        """Map n images to L2-normalised (n, 128)."""
        return self.network(to_device(batch, self.device)).float().cpu().numpy()


def load(weights: Path, device: torch.device, switches: Deviations, purpose: str) -> BioVilTImage:
    """Load the network from its state dict.

    Raises:
        InputError: see `check`.
    """
    state = load_state(weights)
    network = image_model_for(state, weights)
    load_exactly(network, state, weights)
    return BioVilTImage(network, _transform(weights), device)


def _transform(weights: Path) -> ImageTransform:
    sidecar = weights.parent / SIDECAR
    return read_transform(sidecar, PUBLISHED) if sidecar.exists() else PUBLISHED
