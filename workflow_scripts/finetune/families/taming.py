"""VQGAN checkpoints of taming-transformers, read as diffusers' VQModel.

Esser et al., 2021 (arXiv 2012.09841). Both have the same architecture with different names of
weights, which `taming_key` translates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.checkpoints import build_device, load_exactly, load_state
from workflow_scripts.common.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_REMEDY = "use the yaml and the ckpt that were published together"
_NEEDED: Final = (
    "z_channels",
    "resolution",
    "in_channels",
    "out_ch",
    "ch",
    "ch_mult",
    "num_res_blocks",
    "attn_resolutions",
)
# Settings that change the network; only what diffusers' VQModel can express is accepted.
_FIXED: Final[dict[str, Any]] = {
    "double_z": False,
    "resamp_with_conv": True,
    "use_linear_attn": False,
    "attn_type": "vanilla",
}
_WITHOUT_EFFECT: Final = ("dropout",)
_NORM_GROUPS: Final = 32  # of every normalisation of taming-transformers

_NAMES: Final = (
    (r"\bconv_norm_out\b", "norm_out"),
    (r"\bconv_shortcut\b", "nin_shortcut"),
    (r"\bmid_block\.resnets\.0\b", "mid.block_1"),
    (r"\bmid_block\.resnets\.1\b", "mid.block_2"),
    (r"\bmid_block\.attentions\.0\b", "mid.attn_1"),
    (r"\bresnets\b", "block"),
    (r"\battentions\b", "attn"),
    (r"\bdownsamplers\.0\b", "downsample"),
    (r"\bupsamplers\.0\b", "upsample"),
    (r"\bdown_blocks\b", "down"),
    (r"\bgroup_norm\b", "norm"),
    (r"\bto_([qkv])\b", r"\1"),
    (r"\bto_out\.0\b", "proj_out"),
)


@dataclass(frozen=True)
class VqganConfig:
    """The architecture of a VQGAN, in the terms of taming's `ddconfig`.

    Attributes:
        embed_dim: values per codebook entry.
        n_embed: codebook entries.
        z_channels: channels between the encoder and the codebook's 1x1 convolutions.
        resolution: side of the images in pixels.
        in_channels: channels of the input images.
        out_ch: channels of the output images.
        ch: channels of the first level.
        ch_mult: channels of each level, as multiples of `ch`; every further level halves the side.
        num_res_blocks: per level of the encoder; the decoder has one more.
        attn_resolutions: sides at which attention follows every residual block.
    """

    embed_dim: int
    n_embed: int
    z_channels: int
    resolution: int
    in_channels: int
    out_ch: int
    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]

    @property
    def side(self) -> int:
        """The number of codes in a row of the image."""
        return self.resolution // 2 ** (len(self.ch_mult) - 1)

    @property
    def codes(self) -> int:
        """The number of codes of an image."""
        return self.side**2


def read_vqgan_config(path: Path) -> VqganConfig:
    """Read the architecture from a project file of taming-transformers (`model.params`).

    Raises:
        InputError: the file cannot be read, is incomplete, or has an architecture that VQModel
            cannot express.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise unreadable("not readable as YAML", error, path, _REMEDY) from None
    try:
        params = content["model"]["params"]
        details = dict(params["ddconfig"])
    except (KeyError, TypeError, ValueError):
        raise InputError("the VQGAN's yaml has no model.params.ddconfig", path, _REMEDY) from None
    missing = [name for name in ("embed_dim", "n_embed") if name not in params]
    missing += [f"ddconfig.{name}" for name in _NEEDED if name not in details]
    if missing:
        raise InputError(f"the VQGAN's yaml lacks {', '.join(missing)}", path, _REMEDY)
    unknown = sorted(details.keys() - {*_NEEDED, *_FIXED, *_WITHOUT_EFFECT})
    other = [
        f"ddconfig.{name}: {details[name]!r}"
        for name, wanted in _FIXED.items()
        if details.get(name, wanted) != wanted
    ]
    other += [f"ddconfig.{name}" for name in unknown]
    other += ["remap"] if params.get("remap") is not None else []
    if other:
        raise InputError(f"the VQGAN has {', '.join(other)}, which is not supported", path, _REMEDY)
    try:
        config = VqganConfig(
            embed_dim=int(params["embed_dim"]),
            n_embed=int(params["n_embed"]),
            ch_mult=tuple(int(value) for value in details["ch_mult"]),
            attn_resolutions=tuple(int(value) for value in details["attn_resolutions"]),
            **{
                name: int(details[name])
                for name in _NEEDED
                if name not in ("ch_mult", "attn_resolutions")
            },
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"a VQGAN setting is not a number: {error}", path, _REMEDY) from None
    if config.ch_mult[:1] != (1,) or config.ch % _NORM_GROUPS:
        raise InputError(
            f"ch is {config.ch} and ch_mult {list(config.ch_mult)}: the first level must "
            f"have ch channels, a multiple of {_NORM_GROUPS}",
            path,
            _REMEDY,
        )
    if config.resolution % 2 ** (len(config.ch_mult) - 1):
        raise InputError(
            f"{config.resolution} pixels cannot be halved {len(config.ch_mult) - 1} times",
            path,
            _REMEDY,
        )
    return config


def build_vqmodel(config: VqganConfig) -> Any:
    """Return a diffusers VQModel of the architecture, with random weights."""
    from diffusers import VQModel

    sides = [config.resolution // 2**level for level in range(len(config.ch_mult))]
    attends = [side in config.attn_resolutions for side in sides]
    return VQModel(
        in_channels=config.in_channels,
        out_channels=config.out_ch,
        down_block_types=tuple(
            "AttnDownEncoderBlock2D" if here else "DownEncoderBlock2D" for here in attends
        ),
        up_block_types=tuple(
            "AttnUpDecoderBlock2D" if here else "UpDecoderBlock2D" for here in reversed(attends)
        ),
        block_out_channels=tuple(config.ch * multiple for multiple in config.ch_mult),
        layers_per_block=config.num_res_blocks,
        latent_channels=config.z_channels,
        sample_size=config.resolution,
        num_vq_embeddings=config.n_embed,
        vq_embed_dim=config.embed_dim,
        norm_num_groups=_NORM_GROUPS,
    )


def taming_key(key: str, levels: int) -> str:
    """Return the name of a VQModel weight in a taming checkpoint.

    Args:
        key: the name in `VQModel.state_dict()`.
        levels: length of `ch_mult`; the two count the decoder's levels from opposite ends.
    """
    key = re.sub(
        r"\bup_blocks\.(\d+)\b", lambda match: f"up.{levels - 1 - int(match.group(1))}", key
    )
    for pattern, name in _NAMES:
        key = re.sub(pattern, name, key)
    return key


def load_taming_vqgan(config: VqganConfig, path: Path) -> Any:
    """Load a taming checkpoint into a frozen float32 VQModel, without the weights of its losses.

    Raises:
        InputError: the file is not a checkpoint of tensors, or keys are missing, unexpected or of
            another shape.
    """
    try:
        content = load_state(path)
    except InputError as error:
        if not error.what.startswith("not a plain state dict"):
            raise
        raise InputError(
            error.what,
            path,
            "if you trust the file, keep its weights only: torch.save({'state_dict': "
            "torch.load(FILE, map_location='cpu', weights_only=False)['state_dict']}, FILE)",
        ) from None
    state: Any = content.get("state_dict", content)
    if not isinstance(state, Mapping):
        raise InputError("`state_dict` is not a state dict", path, _REMEDY)
    with build_device():
        model = build_vqmodel(config)
    expected = model.state_dict()
    names: dict[str, Any] = {taming_key(key, len(config.ch_mult)): key for key in expected}
    renamed: dict[Any, Tensor] = {}
    for key, value in state.items():
        if not key.startswith("loss."):
            name = names.get(key, key)
            renamed[name] = _as_linear(value, expected.get(name))
    load_exactly(model, renamed, path)
    return model.requires_grad_(False).eval()


def _as_linear(weight: Tensor, expected: Tensor | None) -> Tensor:
    """Return the weights of taming's 1x1 attention convolutions as those of linear layers."""
    if expected is not None and expected.ndim == 2 and weight.shape[2:] == (1, 1):
        return weight[:, :, 0, 0]
    return weight
