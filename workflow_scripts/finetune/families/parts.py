"""What several families share: components loaded key by key, and a KL autoencoder's latents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.checkpoints import load_state, reads_headers_only
from workflow_scripts.common.errors import InputError, first_line
from workflow_scripts.finetune.layout import read_json, weight_files

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from workflow_scripts.finetune.draws import Draws
    from workflow_scripts.finetune.families.base import SampleSettings

_REMEDY = "use the published checkpoint, all of its components from one repository"

WITHOUT_SAFETY_CHECKER: Final = MappingProxyType(
    {
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
        "requires_safety_checker": False,
    }
)
"""Arguments of Stable Diffusion's pipeline, without the checker, which is for photographs."""


def load_component(kind: Any, folder: Path, dtype: torch.dtype | None = None, **more: Any) -> Any:
    """Load a frozen component in eval mode; no key may be missing or left over.

    Within `headers_only` (common/checkpoints.py) it is built on the meta device, and its keys are
    compared with the headers of the files.

    Args:
        kind: a model class of diffusers or transformers.
        folder: its local folder.
        dtype: the precision of its weights; float32 by default.
        more: further arguments of `from_pretrained`.

    Raises:
        InputError: the component cannot be loaded, or keys are missing, unexpected or of another
            shape.
    """
    import torch

    of_diffusers = kind.__module__.startswith("diffusers")
    bare = reads_headers_only()
    try:
        if bare and of_diffusers:
            component, info = _build_diffusers(kind, folder, **more)
        else:
            given: dict[str, Any] = {
                "torch_dtype" if of_diffusers else "dtype": dtype or torch.float32,
                **({"device_map": "meta"} if bare else {}),
                **more,
            }
            component, info = kind.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, **given
            )
    except InputError:
        raise
    except Exception as error:  # libraries raise errors of any kind at a faulty config or file
        raise InputError(
            f"{kind.__name__} cannot be loaded{_other_class(kind, folder)}: {first_line(error)}",
            folder,
            _REMEDY,
        ) from None
    # Checkpoints of older transformers store the positions as a buffer.
    unexpected = [key for key in info["unexpected_keys"] if not key.endswith("position_ids")]
    faults = {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(unexpected),
        "of another shape": sorted(str(key) for key in info.get("mismatched_keys", ())),
    }
    lines = [
        f"{len(keys)} {fault}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for fault, keys in faults.items()
        if keys
    ]
    if lines:
        raise InputError(
            f"keys of {kind.__name__}{_other_class(kind, folder)}: {'; '.join(lines)}",
            folder,
            _REMEDY,
        )
    return component.requires_grad_(False).eval()


def _build_diffusers(kind: Any, folder: Path, **more: Any) -> tuple[Any, dict[str, list[str]]]:
    """Build a network of diffusers on the meta device; return it and how the headers differ.

    `from_pretrained` would read every value, with any `device_map`.
    """
    import torch
    from diffusers.models.model_loading_utils import _fetch_remapped_cls_from_config
    from diffusers.models.modeling_utils import LegacyModelMixin

    config = kind.load_config(folder, local_files_only=True)
    if issubclass(kind, LegacyModelMixin):
        kind = _fetch_remapped_cls_from_config(config, kind)
    with torch.device("meta"):
        network = kind.from_config(config, **more)
    files = weight_files(folder, "diffusion_pytorch_model")
    state = {
        name: value
        for file in files
        if file.suffix != ".json"
        for name, value in load_state(file).items()
    }
    if files[-1].suffix != ".json":  # old names of attention layers, which no sharded file has
        network._fix_state_dict_keys_on_load(state)
    expected = network.state_dict()
    ignored = network._keys_to_ignore_on_load_unexpected or ()
    return network, {
        "missing_keys": [name for name in expected if name not in state],
        "unexpected_keys": [
            name
            for name in state
            if name not in expected and not any(re.search(pattern, name) for pattern in ignored)
        ],
        "mismatched_keys": [
            f"{name} {tuple(state[name].shape)}, not {tuple(value.shape)}"
            for name, value in expected.items()
            if name in state and state[name].shape != value.shape
        ],
    }


def _other_class(kind: Any, folder: Path) -> str:
    """Return a note on the folder's class if it is not the one asked for."""
    try:
        config = read_json(folder / "config.json")
    except InputError:
        return ""
    if kind.__module__.startswith("diffusers"):
        given, asked = config.get("_class_name"), kind.__name__
    else:
        asked = getattr(kind.config_class, "model_type", None)
        given = config.get("model_type")
    differs = given and asked and given != asked
    return f" from a folder that holds {given}" if differs else ""


def load_tokenizer(kind: Any, folder: Path, **more: Any) -> Any:
    """Load a tokenizer from its local folder, without running code from it.

    A tokenizer published as a SentencePiece model alone is compared with SentencePiece itself on
    some sentences, because transformers converts the model by rules of the class that the folder
    names.

    Args:
        kind: a tokenizer class of transformers, or AutoTokenizer, which takes the folder's class.
        folder: its local folder.
        more: further arguments of `from_pretrained`.

    Raises:
        InputError: the tokenizer cannot be loaded, or reads text in another way than SentencePiece.
    """
    if kind.__name__ == "AutoTokenizer":
        more["trust_remote_code"] = False
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True, **more)
    except Exception as error:  # of several libraries, over any of its files
        raise InputError(
            f"{kind.__name__} cannot be loaded: {first_line(error)}", folder, _REMEDY
        ) from None
    models = [folder / name for name in ("spiece.model", "tokenizer.model")]
    model = next((path for path in models if path.is_file()), None)
    if model and not (folder / "tokenizer.json").is_file():
        _require_pieces(tokenizer, model)
    return tokenizer


_SENTENCES = (
    "Mild cardiomegaly. No pleural effusion or pneumothorax.",
    "A 2.5 cm nodule in the right upper lobe, unchanged; the left lung is clear.",
)


def _require_pieces(tokenizer: Any, model: Path) -> None:
    import sentencepiece

    try:
        original = sentencepiece.SentencePieceProcessor(str(model))
    except (OSError, RuntimeError) as error:
        raise unreadable("not a SentencePiece model", error, model, _REMEDY) from None
    for sentence in _SENTENCES:
        ids = tokenizer(sentence, add_special_tokens=False).input_ids
        if ids != original.encode(sentence):
            raise InputError(
                f"{type(tokenizer).__name__} reads {tokenizer.tokenize(sentence)[:8]} where the "
                f"SentencePiece model has {original.encode(sentence, out_type=str)[:8]}",
                model,
                "correct `tokenizer_class` in tokenizer_config.json, or put the published "
                "tokenizer.json next to it",
            )


def require_fit(given: Any, wanted: Any, what: str, where: Path) -> None:
    """Refuse two components whose widths differ.

    Args:
        given: the width that one component gives.
        wanted: the width that the other takes.
        what: the middle of the message: "values per token of the text encoder and the UNet".
        where: the file to name.

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


def load_scheduler(folder: Path, name: str | None = None) -> Any:
    """Load the scheduler with a name, or the one that a folder's `scheduler_config.json` names.

    Raises:
        InputError: no class of diffusers has that name, or it cannot be made from the file.
    """
    import diffusers

    path = folder / "scheduler_config.json"
    name = name or str(read_json(path).get("_class_name"))
    kind = getattr(diffusers, name, None)
    if kind is None or not issubclass(kind, diffusers.SchedulerMixin):
        raise InputError(f"diffusers has no scheduler {name!r}", path, _REMEDY)
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # over any value of the file
        raise InputError(
            f"{kind.__name__} cannot be made: {first_line(error)}", path, _REMEDY
        ) from None


def with_caption_mask(shown: dict[str, Tensor], captions: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return conditions in which a dropped caption keeps its mask.

    For a dropped caption the trainers of PixArt and Sana show the network the empty caption's text
    with the mask of the dropped one. Otherwise the mask, too, is the empty caption's, as in
    diffusers' pipelines when they sample with guidance.

    Args:
        shown: `text` (n, tokens, width) and `mask` (n, tokens); a dropped caption is the empty one.
        captions: the same without any caption dropped.
    """
    return {**shown, "mask": captions["mask"]}


def with_negative(
    dropped: Sequence[bool], captions: tuple[Tensor, Tensor], negative: tuple[Any, Any]
) -> dict[str, Tensor]:
    """Return conditions in which each dropped caption is the pipeline's negative prompt.

    Args:
        dropped: which captions are empty.
        captions: text (n, tokens, width) and mask (n, tokens) of all captions.
        negative: the same of the negative prompt; None for both where no caption is dropped.
    """
    import torch

    text, mask = captions
    if negative[0] is not None:
        empty = torch.tensor(dropped, device=text.device)
        text = torch.where(empty[:, None, None], negative[0], text)
        mask = torch.where(empty[:, None], negative[1], mask)
    return {"text": text, "mask": mask}


def sample_images(
    pipeline: Any,
    captions: Sequence[str],
    seeds: Sequence[int],
    settings: SampleSettings,
    **more: Any,
) -> Any:
    """Call a pipeline of diffusers as `Family.sample` says; return its images.

    Args:
        pipeline: as loaded.
        captions: one for each image.
        seeds: one for each image, of a generator on the CPU.
        settings: steps, guidance and size. (The size is always passed: a pipeline may have another
            default than its checkpoint's.)
        more: further arguments of the pipeline's call.
    """
    import torch

    return pipeline(
        list(captions),
        height=settings.size,
        width=settings.size,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        **more,
    ).images


def decode_images(pipeline: Any, latents: Tensor) -> list[Image.Image]:
    """Decode latents in the autoencoder's precision, which may not be the pipeline's."""
    import torch

    vae = pipeline.vae
    with torch.no_grad():
        pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
    return pipeline.image_processor.postprocess(pixels, output_type="pil")


def text_tokens(tokenizer: Any, most: int) -> int:
    """Return the number of tokens to pad and cut captions to: `most`, or the tokenizer's limit."""
    return min(most, tokenizer.model_max_length)
