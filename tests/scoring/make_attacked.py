"""Make the inputs of the attacks that look at images and networks: `inputs/attacked`.

    python -m tests.scoring.make_attacked

A small cohort whose radiographs all exist, images of a model of which some are copies, a RAD-DINO
and a Stable Diffusion of some thousand random weights, an adapter, and canaries. They are committed
for `tests.scoring`, as what `make_inputs` makes, and drawn anew in the same case alone.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from tests.scoring.paths import INPUTS
from workflow_scripts.common.images import ImageItem, png_bytes, write_shard
from workflow_scripts.common.manifest import FINDINGS, write_manifest, write_prompts
from workflow_scripts.features.encoders.transform import SIDECAR
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.lora import add_lora, save_lora
from workflow_scripts.finetune.settings import CANARIES, LoraSettings
from workflow_scripts.world.diffusion import clip_tokenizer_files, write_clip_tokenizer

FOLDER: Final = INPUTS / "attacked"
SIDE: Final = 32
"""Side of the pictures, pixels."""
PATIENTS: Final = {"train": 24, "validate": 6, "test": 18}
CAPTIONS, SEEDS, COPIED = 10, 4, 4
"""Captions of the model, images of each, and captions whose images are copies."""
CANARIES_OF_EACH: Final = 3


def main() -> None:
    """Write the folder anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    rng = np.random.default_rng(28)
    torch.manual_seed(28)
    manifest = make_manifest(rng)
    make_images(manifest, rng)
    make_copies(manifest)
    make_rad_dino(FOLDER / "rad-dino")
    make_diffusion(manifest["caption"].tolist(), FOLDER / "sd", FOLDER / "lora")
    make_canaries(rng, FOLDER / "canaries")


def picture(rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth gray picture, uint8 (SIDE, SIDE)."""
    levels = 128 + 300 * gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 2.5)
    return np.clip(levels, 0, 255).astype(np.uint8)


def make_manifest(rng: np.random.Generator) -> pd.DataFrame:
    """Write `manifest.parquet` and its radiographs: two of each training patient, else one."""
    rows = [
        {"patient_id": f"{split}-{number:02d}", "split": split}
        for split, count in PATIENTS.items()
        for number in range(count)
        for _ in range(2 if split == "train" else 1)
    ]
    frame = pd.DataFrame(rows)
    n = len(frame)
    frame["image_id"] = [f"film-{number:03d}" for number in rng.permutation(n)]
    frame["study_id"] = frame["image_id"].str.replace("film", "study")
    frame["path"] = "attacked/images/" + frame["image_id"] + ".png"
    frame["view"] = np.where(np.arange(n) % 2, "AP", "PA")
    frame["site"] = "site"
    words = ("heart", "lung", "clear", "edema", "left", "right")
    frame["caption"] = [
        f"{' '.join(rng.choice(words, rng.integers(3, 7)))}{' ___' if k // 2 % 2 else ''}"
        for k in range(n)
    ]
    frame["caption_source"] = "made_up"
    for name in ("indication", "report"):
        frame[name] = None
    for name in FINDINGS:
        frame[name] = pd.array((rng.random(n) < 0.3).astype(int), dtype="Int8")
    (FOLDER / "images").mkdir(parents=True)
    for path in frame["path"]:
        (INPUTS / path).write_bytes(png_bytes(Image.fromarray(picture(rng))))
    write_manifest(frame, FOLDER / "manifest.parquet")
    return frame


def make_images(manifest: pd.DataFrame, rng: np.random.Generator) -> None:
    """Write prompts and one shard: copies, a copied patch, new images, and repeated ones."""
    asked = manifest[manifest["split"] == "train"].iloc[::4].head(CAPTIONS)
    items, rows = [], []
    for number, row in enumerate(asked.to_dict("records")):
        own = np.asarray(Image.open(INPUTS / row["path"]))
        for seed in range(SEEDS):
            shown = picture(rng)
            if number < COPIED:  # the first two seeds return the radiograph with noise
                noise = rng.integers(-2, 3, own.shape)
                shown = np.clip(own + noise, 0, 255).astype(np.uint8) if seed < 3 else shown
            elif number == COPIED:
                shown[8:16, 16:24] = own[8:16, 16:24]
            name = f"privacy-{row['image_id']}-r{seed:02d}"
            items.append(
                ImageItem(name, f"{name}.png", png_bytes(Image.fromarray(shown)), row["caption"])
            )
            one = {"prompt_id": name, "seed": seed, "replicate": seed, "second_wording": False}
            rows.append({**row, **one})
    columns = ["prompt_id", "image_id", "caption", "caption_source", "seed", "replicate"]
    columns += ["second_wording", *FINDINGS]
    (FOLDER / "prompts").mkdir()
    write_prompts(pd.DataFrame(rows)[columns], FOLDER / "prompts/privacy.parquet")
    (FOLDER / "shards").mkdir()
    write_shard(items, FOLDER / "shards/part-00000-of-00001.parquet")


def make_copies(manifest: pd.DataFrame) -> None:
    """Write the cohort's tables of copies: one test patient's film is a training patient's."""
    listed = ["image_id", "patient_id", "study_id", "split", "path"]
    first = {split: manifest[manifest["split"] == split].iloc[0] for split in PATIENTS}
    identical = pd.DataFrame([first["test"], first["train"]])[listed]
    identical.insert(0, "group", 0)
    identical.to_csv(FOLDER / "identical_images.csv", index=False)
    others = [f"other_{name}" for name in listed]
    pd.DataFrame(columns=[*listed, *others, "likeness"]).to_csv(
        FOLDER / "similar_images.csv", index=False
    )


def make_rad_dino(folder: Path) -> None:
    """Write a random Dinov2 of 4 x 4 patches."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, image_size=32,
        patch_size=8,
    )  # fmt: skip
    Dinov2Model(config).save_pretrained(folder)
    sidecar = {
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5307] * 3,
        "image_processor_type": "BitImageProcessor",
        "image_std": [0.2583] * 3,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": 32},
    }
    (folder / SIDECAR).write_text(json.dumps(sidecar, indent=1) + "\n", encoding="utf-8")


def make_diffusion(captions: list[str], folder: Path, adapter: Path) -> None:
    """Write a random Stable Diffusion that works at 32 pixels, and an adapter that changes it."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline
    from diffusers import UNet2DConditionModel as UNet
    from transformers import CLIPTextConfig, CLIPTextModel

    files = clip_tokenizer_files(captions, 20)
    tokenizer = write_clip_tokenizer(files, folder / "tokenizer")
    vae = AutoencoderKL(
        block_out_channels=(4, 4), down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2, layers_per_block=1, latent_channels=4,
        norm_num_groups=1, sample_size=SIDE,
    )  # fmt: skip
    unet: Any = UNet(
        sample_size=SIDE // 2, block_out_channels=(4, 8), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=8,
        attention_head_dim=2, norm_num_groups=2,
    )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=77, initializer_factor=3.0,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        set_alpha_to_one=False, skip_prk_steps=True,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae.eval(), text_encoder=text.eval(), tokenizer=tokenizer, unet=unet.eval(),
        scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    write_clip_tokenizer(files, folder / "tokenizer")
    family = get_family("stable_diffusion")
    pipeline = family.load(Base(folder))
    add_lora(family.network(pipeline), family, LoraSettings(2, 2, False, ["attention"]))
    with torch.no_grad():
        for name, weight in family.network(pipeline).named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.5)
    save_lora(family, pipeline, adapter)
    guarantee = {"epsilon": 8.0, "delta": 1e-6, "unit": "patient", "patients": PATIENTS["train"]}
    (adapter / "guarantee.json").write_text(json.dumps(guarantee) + "\n", encoding="utf-8")


def make_canaries(rng: np.random.Generator, folder: Path) -> None:
    """Write canaries in the form of `finetune.canaries`, smaller."""
    folder.mkdir()
    repeats = np.repeat([1, 4, 16], CANARIES_OF_EACH)
    names = [f"canary-{number:05d}" for number in range(len(repeats))]
    planted = rng.permutation(np.arange(len(repeats)) % 2 == 0)
    for name in names:
        (folder / f"{name}.png").write_bytes(png_bytes(Image.fromarray(picture(rng))))
    pd.DataFrame(
        {
            "canary": names,
            "repeats": repeats,
            "planted": planted,
            "caption": [f"word {number}" for number in range(len(repeats))],
        }
    ).to_csv(folder / CANARIES, index=False)


if __name__ == "__main__":
    main()
