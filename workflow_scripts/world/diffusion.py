"""Tiny Stable Diffusion checkpoints of the embedded world, in the layout of the published ones.

`tiny-sd-v1` predicts the noise, like Stable Diffusion 1.x. `tiny-sd-v2` predicts the velocity and
has a wider text encoder and linear projections, like 2.x. Both share a VAE that is trained for some
seconds on the world's radiographs. The text encoders are random. The UNet of `tiny-sd-v1` is
trained for some seconds on pictures of soft shapes and never sees a radiograph before fine-tuning,
just as the published bases were trained on photographs. The UNet of `tiny-sd-v2`, which only the
run of all eleven systems uses, is random. The networks work at 64 pixels.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workflow_scripts.common.files import whole_folder, write_text
from workflow_scripts.common.progress import Progress

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

PIXELS: Final = 64
MERGES: Final = 600
VAE_STEPS: Final = 500
VAE_BATCH: Final = 4
BASE_STEPS: Final = 150
BASE_BATCH: Final = 16

_NOISE_SCHEDULE: Final[dict[str, Any]] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def write_diffusion_checkpoints(
    images: np.ndarray, captions: Sequence[str], out_dir: Path, seed: int
) -> None:
    """Write `tiny-sd-v1` and `tiny-sd-v2` under `out_dir`.

    Args:
        images: uint8 (n, height, width), radiographs whose sides are multiples of 64 pixels.
        captions: the texts that the tokenizer's vocabulary is made from.
        out_dir: folder for the two diffusers folders.
        seed: seed of all weights and of the VAE's training.
    """
    tokenizer_files = clip_tokenizer_files(captions, MERGES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = train_vae(_at_working_size(images), VAE_STEPS, VAE_BATCH)
        for name, version, steps in (("tiny-sd-v1", 1, BASE_STEPS), ("tiny-sd-v2", 2, 0)):
            torch.manual_seed(seed + version)
            with whole_folder(out_dir / name) as folder:
                write_tiny_pipeline(version, tokenizer_files, vae, folder, steps)


def write_tiny_pipeline(
    version: int, tokenizer_files: dict[str, str], vae: Any, folder: Path, base_steps: int = 0
) -> None:
    """Write a Stable Diffusion 1 or 2 of the smallest useful size, drawn by torch's generator.

    Args:
        version: 1 (epsilon) or 2 (velocity).
        tokenizer_files: from `clip_tokenizer_files`.
        vae: from `train_vae`.
        folder: the diffusers folder to write.
        base_steps: training steps of the UNet on pictures of soft shapes.
    """
    tokenizer = write_clip_tokenizer(tokenizer_files, folder / "tokenizer")
    pipeline = _tiny_pipeline(version, tokenizer, vae)
    if base_steps:
        _train_base(pipeline, base_steps, BASE_BATCH)
    pipeline.save_pretrained(folder)
    # transformers 5 saves a tokenizer.json; the published folders have vocab.json and merges.txt.
    write_clip_tokenizer(tokenizer_files, folder / "tokenizer")


def _tiny_pipeline(version: int, tokenizer: "CLIPTokenizer", vae: Any) -> Any:
    from diffusers import (
        DDIMScheduler,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    width = 64 if version == 1 else 96
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=77,
            # Random, but with attention strong enough that the padding encodes the caption, too.
            initializer_factor=3.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet: Any = UNet2DConditionModel(
        sample_size=PIXELS // 2 ** (len(vae.config.block_out_channels) - 1),
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=4 if version == 1 else (4, 4, 4),
        use_linear_projection=version == 2,
        norm_num_groups=8,
    )
    scheduler = (
        PNDMScheduler(**_NOISE_SCHEDULE, skip_prk_steps=True, prediction_type="epsilon")
        if version == 1
        else DDIMScheduler(**_NOISE_SCHEDULE, clip_sample=False, prediction_type="v_prediction")
    )
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_vae(latent_channels: int = 4, levels: int = 3, quantised: bool = True) -> Any:
    """Return a random VAE that reduces the side by a factor of 2 ** (levels - 1).

    Args:
        latent_channels: 4 for Stable Diffusion 1, 2 and PixArt; 16 for SD 3, Lumina 2 and FLUX.
        levels: 3 for a quarter of the side, 4 for an eighth.
        quantised: with the 1x1 convolutions around the latents, which 16-channel VAEs lack.
    """
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16, 16, 16)[:levels],
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=1,
        sample_size=PIXELS,
        use_quant_conv=quantised,
        use_post_quant_conv=quantised,
        shift_factor=None if quantised else 0.0,
    )


def train_vae(pixels: Tensor, steps: int, batch: int, vae: Any = None) -> Any:
    """Train a VAE on images float (n, 3, 64, 64) in [-1, 1]; scale its latents to unit deviation.

    `vae` is a random `tiny_vae`; the default is the one for Stable Diffusion 1.

    The loss is the absolute error of pixels and of their differences to the neighbour (which keeps
    ribs and noise texture), with a small Kullback-Leibler term.
    """
    vae = (vae or tiny_vae()).train()
    optimiser = torch.optim.Adam(vae.parameters(), betas=(0.9, 0.99))
    progress = Progress("training the VAE", steps, "steps")
    order = torch.randint(len(pixels), (steps, batch))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 5e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        images = pixels[order[step]]
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        loss = (
            functional.l1_loss(decoded, images)
            + 2 * functional.l1_loss(decoded.diff(dim=-1), images.diff(dim=-1))
            + 2 * functional.l1_loss(decoded.diff(dim=-2), images.diff(dim=-2))
            + 1e-4 * posterior.kl().mean() / posterior.mean[0].numel()
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        progress.update(note=f"loss {float(loss.detach()):.4f}")
    vae.eval()
    with torch.no_grad():
        latents = torch.cat(
            [vae.encode(chunk).latent_dist.mean for chunk in pixels[:128].split(32)]
        )
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    if vae.config.shift_factor is not None:
        vae.register_to_config(shift_factor=float(latents.mean()))
    return vae


def _train_base(pipeline: Any, steps: int, batch: int) -> None:
    # Without captions: fine-tuning learns what the words mean.
    from diffusers import DDPMScheduler

    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    velocity = schedule.config.prediction_type == "v_prediction"
    pixels = soft_shapes(512)
    with torch.no_grad():
        encoded = torch.cat(
            [pipeline.vae.encode(chunk).latent_dist.mean for chunk in pixels.split(32)]
        )
        empty = pipeline.tokenizer("", padding="max_length", return_tensors="pt").input_ids
        condition = pipeline.text_encoder(empty)[0].expand(batch, -1, -1)
    latents = encoded * pipeline.vae.config.scaling_factor
    unet = pipeline.unet.train()
    optimiser = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    progress = Progress("training the base on soft shapes", steps, "steps")
    for _ in range(steps):
        clean = latents[torch.randint(len(latents), (batch,))]
        noise = torch.randn_like(clean)
        times = torch.randint(schedule.config.num_train_timesteps, (batch,))
        target = schedule.get_velocity(clean, noise, times) if velocity else noise
        noisy = schedule.add_noise(clean, noise, times)
        loss = functional.mse_loss(unet(noisy, times, condition).sample, target)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        progress.update(note=f"loss {float(loss.detach()):.4f}")
    unet.eval()


def soft_shapes(n: int) -> Tensor:
    """Draw n gray pictures of soft ellipses and clouds, float (n, 3, 64, 64) in [-1, 1]."""
    clouds = torch.randn(n, 1, 8, 8)
    canvas = 0.5 * functional.interpolate(
        clouds, size=(PIXELS, PIXELS), mode="bicubic", align_corners=False
    )
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, PIXELS)] * 2, indexing="ij")
    for _ in range(4):
        centre_y, centre_x = torch.rand(2, n, 1, 1, 1) * 1.6 - 0.8
        radius_y, radius_x = torch.rand(2, n, 1, 1, 1) * 0.6 + 0.15
        inside = 1 - ((rows - centre_y) / radius_y) ** 2 - ((columns - centre_x) / radius_x) ** 2
        canvas = canvas + torch.sigmoid(6 * inside) * (torch.rand(n, 1, 1, 1) * 2 - 1)
    return canvas.clamp(-1, 1).expand(-1, 3, -1, -1).contiguous()


def clip_tokenizer_files(captions: Sequence[str], merges: int) -> dict[str, str]:
    """Return vocab.json and merges.txt of a byte-pair encoding made from the captions.

    Ties between equally frequent pairs go to the alphabetically first, and ids have a fixed order
    (bytes, bytes that end a word, merges, the two special tokens). So the same captions always give
    the same files, which the trainers of `tokenizers` do not guarantee.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    backend = CLIPTokenizer().backend_tokenizer  # empty, but with CLIP's own splitting into words
    words = Counter(
        word
        for caption in captions
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(
            backend.normalizer.normalize_str(caption)
        )
    )
    pieces = {word: (*word[:-1], word[-1] + "</w>") for word in sorted(words)}
    found: list[tuple[str, str]] = []
    while len(found) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(best)
        pieces = {word: _merge(parts, best) for word, parts in pieces.items()}
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *map("".join, found)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return {
        "vocab.json": json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, found)]) + "\n",
        "tokenizer_config.json": json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": 77,
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
            },
            indent=1,
        ),
    }


def write_clip_tokenizer(files: dict[str, str], folder: Path) -> "CLIPTokenizer":
    """Write a tokenizer in the published form (vocab.json, merges.txt) and return it."""
    from transformers import CLIPTokenizer

    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        write_text(folder / name, text)
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _merge(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    i = 0
    while i < len(parts):
        if parts[i : i + 2] == pair:
            merged.append(parts[i] + parts[i + 1])
            i += 2
        else:
            merged.append(parts[i])
            i += 1
    return tuple(merged)


def _at_working_size(images: np.ndarray) -> Tensor:
    """Shrink uint8 (n, height, width) by area averaging to float (n, 3, 64, 64) in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1).float()
    small = functional.interpolate(pixels, size=(PIXELS, PIXELS), mode="area") / 127.5 - 1
    return small.expand(-1, 3, -1, -1).contiguous()
