"""Shared parts of the three downstream tasks' small cohorts: rows, prompts, images and flags."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from workflow_scripts.common.manifest import FINDINGS, write_manifest, write_prompts

DRAWN = ("Cardiomegaly", "Edema", "Pneumothorax")
_CORNERS = ((9, 9), (9, 23), (23, 9))  # of a square of 32 pixels


def blob_image(
    labels: tuple[int, ...], generator: np.random.Generator, size: int = 32
) -> Image.Image:
    """Draw noise and, for each positive finding of DRAWN, a blob in its corner."""
    pixels = generator.normal(70, 12, (size, size))
    y, x = np.mgrid[:size, :size]
    scale = size / 32
    for positive, (row, column) in zip(labels, _CORNERS, strict=True):
        if positive:
            away = (y - scale * row) ** 2 + (x - scale * column) ** 2
            pixels += 130 * np.exp(-away / (18 * scale**2))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def image_id_of(k: int) -> str:
    return f"i{k:05d}"


def write_row(
    folder: Path, k: int, image: Image.Image, findings: dict[str, object], **changes: object
) -> dict[str, object]:
    """Save image k; return its row: patients have two images, every fourth is in the test split."""
    path = folder / "images" / f"{image_id_of(k)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return {
        "image_id": image_id_of(k),
        "patient_id": f"p{k // 2:04d}",
        "study_id": f"s{k:05d}",
        "path": str(path),
        "view": "AP",
        "site": None,
        "split": "test" if k // 2 % 4 == 0 else "train",
        "caption": f"Findings of film {k}.",
        "caption_source": "llava_rad",
        "indication": None,
        "report": f"Findings of film {k}.",
        **dict.fromkeys(FINDINGS, pd.NA),
        **findings,
        **changes,
    }


def write_cohort(
    folder: Path, rows: list[dict[str, object]], most: int | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write and return a manifest of the rows, and prompts for the first `most` training images."""
    manifest = pd.DataFrame(rows).astype(dict.fromkeys(FINDINGS, "Int8"))
    write_manifest(manifest, folder / "manifest.parquet")
    shown = manifest[manifest["split"] == "train"].reset_index(drop=True).head(most or len(rows))
    prompts = shown[["image_id", "caption", *FINDINGS]].assign(
        caption_source="llava_rad", second_wording=False, replicate=0, seed=range(len(shown))
    )
    prompts.insert(0, "prompt_id", [f"augment-{i:016x}-r00" for i in range(len(shown))])
    write_prompts(prompts, folder / "augment.parquet")
    return manifest, prompts


def flags_for(folder: Path, name: str) -> dict[str, object]:
    """Return the flags that all three scripts take, for a run on real images of a cohort."""
    run_folder = folder / "runs" / name
    return {
        "setting": "real_only",
        "model": "real",
        "protocol": "sound",
        "manifest": folder / "manifest.parquet",
        "prompts": folder / "augment.parquet",
        "seed": 7,
        "progress": run_folder / "progress",
        "threads": 1,
    }


def words_of(flags: dict[str, object]) -> list[str]:
    """Return flags as words of a command; a list gives several words, None omits the flag."""
    words: list[str] = []
    for key, value in flags.items():
        if value is None:
            continue
        words.append("--" + key.replace("_", "-"))
        words += [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return words
