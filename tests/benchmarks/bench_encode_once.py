"""What encoding each image once saves: a fine-tuning step that reads its images, or encodes them.

Networks of Stable Diffusion 1.x with random weights: the VAE in its published widths (83.7 M
weights), CLIP's text encoder in half and the UNet in a quarter of theirs, so that a CPU does a step
in seconds. The same steps are timed in turn, side by side:

    read            images read from the cache, captions encoded (what training does)
    encode images   the VAE encodes the images of every step
    read both       captions encoded beforehand as well: what a cache of captions would save

and the ratios of their medians printed. Being smaller, the UNet makes encoding weigh more than it
does in training with the whole one: `--whole-unet` times that. Ends with exit code 1 where the
images read are not those encoded, or reading is not faster than encoding (but for `--small`, whose
networks are a fraction as wide). From the repository root:

    python -m tests.benchmarks.bench_encode_once --size 128
"""

import functools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from tests.benchmarks.measure import Result, in_turn, make_parser, parse, report, timed
from workflow_scripts.common.devices import device_name
from workflow_scripts.finetune import data
from workflow_scripts.finetune.data import TrainingImages, load_pixels
from workflow_scripts.finetune.draws import Draws, batch_order
from workflow_scripts.finetune.families.stable_diffusion import StableDiffusion

IMAGES, TOKENS, VOCABULARY = 24, 77, 49_408


def networks(size: int, whole_unet: bool, small: bool, device: torch.device) -> Any:
    """Return the pipeline's parts with random weights, frozen but for the UNet."""
    torch.manual_seed(0)
    widths = (320, 640, 1280, 1280) if whole_unet else (80, 160, 320, 320)
    text_width, vae_widths = 768 if whole_unet else 384, (128, 256, 512, 512)
    if small:
        widths, text_width, vae_widths = (32, 32, 32, 32), 64, (32, 32, 32, 32)
    vae: Any = AutoencoderKL(
        block_out_channels=vae_widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=text_width,
            intermediate_size=4 * text_width,
            num_hidden_layers=12,
            num_attention_heads=text_width // 64,
        )
    )
    unet: Any = UNet2DConditionModel(
        sample_size=size // 8,
        block_out_channels=widths,
        cross_attention_dim=text_width,
        attention_head_dim=8,
        norm_num_groups=32 if whole_unet else 16,
    )
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    for part in (vae, text):
        part.eval().requires_grad_(False).to(device)
    unet.train().to(device)
    return SimpleNamespace(vae=vae, text=text, unet=unet, scheduler=scheduler)


def write_images(folder: Path, size: int) -> list[str]:
    """Write noise of twice the size as JPEG; return the paths."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(IMAGES):
        pixels = rng.integers(0, 256, (2 * size, 2 * size), np.uint8)
        paths.append(str(folder / f"{i}.jpg"))
        Image.fromarray(pixels).save(paths[-1], quality=95)
    return paths


def main(argv: list[str] | None = None) -> None:
    """Encode, time the three kinds of steps in turn, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--size", type=int, default=128, help="side in pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6, help="of each kind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--whole-unet", action="store_true")
    parser.add_argument("--device", default="cpu")
    flags = parse(parser, argv, size=64, steps=2)
    torch.set_num_threads(flags.threads)
    device, size, steps = torch.device(flags.device), flags.size, flags.steps
    family, parts = StableDiffusion(), networks(size, flags.whole_unet, flags.small, device)
    optimiser = torch.optim.AdamW(parts.unet.parameters(), lr=1e-5)
    orders = [batch_order(0, IMAGES, flags.batch, step) for step in range(steps + 1)]
    tokens = torch.randint(VOCABULARY, (IMAGES, TOKENS), device=device)

    def encode(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return family.encode_images(parts, pixels)

    def captions(rows: np.ndarray) -> Tensor:
        with torch.no_grad():
            return parts.text(tokens[torch.from_numpy(rows).to(device)])[0]

    def step(encoded: Iterator[Tensor], text: Callable[[np.ndarray], Tensor], number: int) -> None:
        draws = Draws(0, number, range(flags.batch), device)
        conditions = {"text": text(orders[number])}
        moments = next(encoded).to(device)
        family.loss(parts, parts.unet, moments, conditions, draws).mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), size)
        shape = family.encoded_shape(parts, size)
        data.ENCODED_IN_MEMORY = 0  # as with a training set that does not fit
        cache = Path(folder) / "cache"
        cached, once = timed(lambda: TrainingImages(paths, size, encode, shape, 1, cache=cache))
        fresh = TrainingImages(paths, size, encode, shape, 1)
        kept = captions(np.arange(IMAGES))
        kinds: dict[str, tuple[Iterator[Tensor], Callable[[np.ndarray], Tensor]]] = {
            "read": (cached.batches(orders), captions),
            "encode images": (fresh.batches(orders), captions),
            # Reads one more copy of the same files: each iteration has its own two batches ahead.
            "read both": (cached.batches(orders), lambda rows: kept[torch.from_numpy(rows)]),
        }
        seconds = in_turn(
            {name: functools.partial(step, *kind) for name, kind in kinds.items()},
            steps, warm_up=1, device=flags.device,
        )  # fmt: skip
        first = np.arange(data.ENCODED_TOGETHER)
        (read,) = cached.batches([first])
        pixels = np.stack([load_pixels(path, size) for path in paths[: len(first)]])
        same = encode(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1).cpu()
        cached.close()
        fresh.close()

    weights = {
        name: sum(p.numel() for p in getattr(parts, name).parameters()) / 1e6
        for name in ("vae", "text", "unet")
    }
    print(", ".join(f"{name} {count:.1f} M" for name, count in weights.items()))
    sizes = f"{size} px, batch {flags.batch}, {flags.threads} thread(s), {device_name(device)}"
    print(f"{sizes}, {steps} steps")
    print(f"encoding once: {once / IMAGES:.3f} s an image, {4 * np.prod(shape) / 1e3:.1f} kB")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{'':16}{'s a step':>10}{'fastest':>10}{'slowest':>10}{'/ read':>8}")
    for name, median in medians.items():
        low, high = min(seconds[name]), max(seconds[name])
        print(f"{name:16}{median:10.3f}{low:10.3f}{high:10.3f}{median / medians['read']:8.2f}")
    saved = medians["encode images"] - medians["read"]
    print(f"encoding once has paid after {once / IMAGES * flags.batch / saved:.1f} epochs")
    if not torch.equal(read, same):
        raise SystemExit("the images read are not those encoded")
    sizes = f"a step, UNet of {weights['unet']:.1f} M weights, {sizes}: images read"
    for name in ("encode images", "read both"):
        report(Result(name, f"{sizes}; {name}", medians["read"], medians[name]))
    if saved <= 0 and not flags.small:
        raise SystemExit("reading is not faster than encoding")


if __name__ == "__main__":
    main()
