"""What several families share: components loaded key by key, and a KL autoencoder's latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.common.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from workflow_scripts.finetune.draws import Draws

_REMEDY = "use the published checkpoint, all of its components from one repository"


def load_component(kind: Any, folder: Path, dtype: torch.dtype | None = None, **more: Any) -> Any:
    """Load a frozen component in eval mode and make sure that every key was there and wanted.

    Args:
        kind: a model class of diffusers or transformers.
        folder: its local folder.
        dtype: of its weights; float32 by default.
        more: further arguments of `from_pretrained`.

    Raises:
        InputError: not loadable; keys missing, unexpected or of another shape.
    """
    import torch

    name = "torch_dtype" if kind.__module__.startswith("diffusers") else "dtype"
    try:
        component, info = kind.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            **{name: dtype or torch.float32},
            **more,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{kind.__name__} cannot be loaded: {str(error).splitlines()[0]}", folder, _REMEDY
        ) from None
    # Checkpoints of older transformers store the positions as a buffer.
    unexpected = [key for key in info["unexpected_keys"] if not key.endswith("position_ids")]
    faults = {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(unexpected),
        "of another shape": sorted(str(key) for key in info.get("mismatched_keys", ())),
    }
    found = [
        f"{len(keys)} {fault}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for fault, keys in faults.items()
        if keys
    ]
    if found:
        raise InputError(f"keys of {kind.__name__}: {'; '.join(found)}", folder, _REMEDY)
    return component.requires_grad_(False).eval()


def require_fit(given: Any, wanted: Any, what: str, where: Path) -> None:
    """Refuse two components whose widths differ.

    Args:
        given: what one component gives.
        wanted: what the other takes.
        what: the sentence's middle: "values per token of the text encoder and the UNet".
        where: the file to look at.

    Raises:
        InputError: they differ.
    """
    if given != wanted:
        raise InputError(
            f"components do not fit each other: {what}: {given} and {wanted}", where, _REMEDY
        )


def moments_shape(vae: Any, size: int) -> tuple[int, ...]:
    """Return the shape of one image's posterior moments (mean and log-variance)."""
    side = size // 2 ** (len(vae.config.block_out_channels) - 1)
    return (2 * vae.config.latent_channels, side, side)


def encode_moments(vae: Any, pixels: Tensor) -> Tensor:
    """Return the posterior's moments, float32; pixels float (n, 3, size, size) in [-1, 1]."""
    return vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.parameters.float()


def draw_latents(vae: Any, moments: Tensor, draws: Draws) -> Tensor:
    """Draw from the posterior, shifted and scaled as the denoiser expects, float32."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    posterior = DiagonalGaussianDistribution(moments)
    latents = posterior.mean + posterior.std * draws.normal(posterior.mean.shape[1:])
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (latents - shift) * vae.config.scaling_factor


def load_scheduler(folder: Path) -> Any:
    """Load the scheduler that a folder's `scheduler_config.json` names.

    Raises:
        InputError: no class of diffusers has that name.
    """
    import diffusers

    from workflow_scripts.finetune.layout import read_json

    path = folder / "scheduler_config.json"
    kind = getattr(diffusers, str(read_json(path).get("_class_name")), None)
    if kind is None or not issubclass(kind, diffusers.SchedulerMixin):
        raise InputError("diffusers has no scheduler of the name in `_class_name`", path, _REMEDY)
    return kind.from_pretrained(folder, local_files_only=True)


def with_caption_mask(shown: dict[str, Tensor], captions: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return conditions of which a dropped caption keeps the mask that it had.

    In the trainers of PixArt and Sana the network is shown the empty caption's text, and as many
    tokens of it as the caption had. Otherwise it is shown the empty caption's own tokens, as
    diffusers' pipelines show it when they sample with guidance.

    Args:
        shown: `text` (n, tokens, width) and `mask` (n, tokens), dropped captions as the empty one.
        captions: the same with every caption as it is.
    """
    return {**shown, "mask": captions["mask"]}


def decode_images(pipeline: Any, latents: Tensor) -> list[Image.Image]:
    """Decode latents in the autoencoder's own precision, which its pipeline need not work in."""
    import torch

    vae = pipeline.vae
    with torch.no_grad():
        pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
    return pipeline.image_processor.postprocess(pixels, output_type="pil")


def text_tokens(tokenizer: Any, most: int) -> int:
    """Return to how many tokens captions are padded and cut: `most`, or fewer if it knows fewer."""
    return min(most, tokenizer.model_max_length)
