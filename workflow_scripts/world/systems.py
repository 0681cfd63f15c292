"""Tiny checkpoints of the systems beyond Stable Diffusion 1 and 2, in their published layouts.

    python -m workflow_scripts.world.systems --manifest results/cohort/manifest.parquet \\
        --weights results/world/weights --out results/systems

The autoencoders train for some seconds on the cohort's training images, and the tokenizers are made
from its captions. RadEdit's text encoder is the world's BioViL-T. The denoisers are random.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import whole_folder
from workflow_scripts.finetune.data import load_pixels, read_training_rows
from workflow_scripts.world.diffusion import PIXELS, tiny_vae, train_vae
from workflow_scripts.world.tiny_flux import write_tiny_flux
from workflow_scripts.world.tiny_lumina2 import write_tiny_lumina2
from workflow_scripts.world.tiny_pixart_sigma import write_tiny_pixart_sigma
from workflow_scripts.world.tiny_sana import train_dc_ae, write_tiny_sana
from workflow_scripts.world.tiny_stable_diffusion_3 import write_tiny_stable_diffusion_3

SHOWN = 256


def write_systems(manifest: Path, weights: Path, out: Path, seed: int, steps: int) -> None:
    """Write the seven other systems' tiny checkpoints to `out`, whole or not at all.

    Args:
        manifest: the cohort's manifest.
        weights: the world's checkpoints (`world/build.py`); Stable Diffusion's VAE is reused.
        out: the folder to write.
        seed: seed of all weights.
        steps: training steps of each autoencoder.

    Raises:
        InputError: the manifest cannot be read or has no training images.
    """
    from diffusers import AutoencoderKL

    from workflow_scripts.world.tiny_llm_cxr import write_tiny_llm_cxr
    from workflow_scripts.world.tiny_radedit import write_tiny_radedit

    rows = read_training_rows(manifest)
    captions = rows["caption"].tolist()
    shown = np.stack([load_pixels(path, PIXELS) for path in rows["path"].head(SHOWN)])
    pixels = torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.random.fork_rng(devices=[]), whole_folder(out) as folder:
        torch.manual_seed(seed)
        small: Any = AutoencoderKL.from_pretrained(weights / "tiny-sd-v1" / "vae")
        wide = train_vae(pixels, steps, 4, tiny_vae(16, 4, False))
        write_tiny_pixart_sigma(captions, small, folder / "pixart-sigma-xl-2-512-ms")
        _move_parts(folder / "pixart-sigma-xl-2-512-ms", folder / "pixart-sigma-sdxlvae-t5")
        write_tiny_sana(captions, train_dc_ae(pixels, steps, 4), folder / "sana-600m-512px")
        write_tiny_stable_diffusion_3(captions, wide, folder / "stable-diffusion-3.5-medium")
        write_tiny_lumina2(captions, wide, folder / "lumina-image-2.0")
        write_tiny_flux(captions, wide, folder / "flux.1-dev")
        write_tiny_radedit(small, folder)
        write_tiny_llm_cxr(captions, folder / "llm-cxr")


def _move_parts(whole: Path, parts: Path) -> None:
    # PixArt's transformer was published alone, its other components in another repository.
    parts.mkdir()
    for name in ("vae", "text_encoder", "tokenizer"):
        shutil.move(whole / name, parts / name)
    (whole / "model_index.json").unlink()


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and write the checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="the world's checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, default=200, help="of each autoencoder's training")
    flags = parser.parse_args(argv)
    write_systems(flags.manifest, flags.weights, flags.out, flags.seed, flags.steps)


if __name__ == "__main__":
    run_script(main)
