"""Write the candidates that the privacy lenses compare: a pool, planted leaks, unseen radiographs.

    python -m workflow_scripts.curate.plant --model sana \\
        --manifest results/cohort/manifest.parquet \\
        --shards results/generate/sana/augment/part-*.parquet --planted 100 --held-out 2000 \\
        --seed 42 --candidates results/curate/sana/candidates.parquet

The output is one image shard, which only its owner may read. It holds the pool's images, leaks of
known kinds made from training radiographs (`leaks.py`), and radiographs of patients that no model
was trained on; each also mirrored. With `--overfitted` it also holds images of a model that was
overfitted on a few patients (`overfitted.py`). The workflow removes the shard when the lenses have
finished.

The id of a row begins with its group: `pool/`, `planted/{kind}/` or `held_out/`, and `mirrored/`
before it for a mirror image. A planted image cannot reach the curated set, which is drawn from the
pool's ids alone.
"""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.images import (
    ImageItem,
    centre_square,
    count_shards,
    decode_image,
    gray_if_colourless,
    png_bytes,
    read_shards,
    write_shard,
)
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.progress import Progress
from workflow_scripts.curate.kinds import KINDS, OVERFITTED
from workflow_scripts.curate.leaks import leak
from workflow_scripts.curate.overfitted import drawn_overfitted

log = logging.getLogger(__name__)

POOL: Final = "pool/"
PLANTED: Final = "planted/"
HELD_OUT: Final = "held_out/"
MIRRORED: Final = "mirrored/"


def drawn_sources(manifest: pd.DataFrame, planted: int, seed: int) -> dict[str, list[list[str]]]:
    """Draw the training radiographs from which leaks are made, by kind.

    Within a kind every radiograph shows another patient, so the leaks are independent. A blend
    takes two radiographs, all other kinds one.

    Raises:
        InputError: there are fewer than two training patients.
    """
    training = manifest[manifest["split"] == "train"].sort_values("image_id", kind="stable")
    patients = np.array(sorted(training["patient_id"].unique()), object)
    if len(patients) < 2:
        raise InputError("fewer than two training patients to plant leaks of", "the manifest")
    images_of = training.groupby("patient_id")["image_id"].agg(list)
    rng = np.random.default_rng(seed)
    sources: dict[str, list[list[str]]] = {}
    for kind in KINDS:
        each = 2 if kind == "blend" else 1
        count = min(planted, len(patients) // each)
        drawn = rng.permutation(patients)[: each * count].reshape(count, each)
        sources[kind] = [[str(rng.choice(images_of[patient])) for patient in row] for row in drawn]
    return sources


def drawn_held_out(manifest: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Draw radiographs of patients that no model was trained on, `most` at most, by patient.

    Raises:
        InputError: there are fewer than two such patients.
    """
    trained_on = set(manifest.loc[manifest["split"] == "train", "patient_id"])
    unseen = manifest[manifest["split"] != "train"]
    unseen = unseen[~unseen["patient_id"].isin(trained_on)].sort_values("image_id", kind="stable")
    patients = sorted(unseen["patient_id"].unique())
    if len(patients) < 2:
        raise InputError("fewer than two unseen patients", "the manifest", "check the split")
    place = dict(
        zip(np.random.default_rng(seed).permutation(patients), range(most + 1), strict=False)
    )
    order = unseen["patient_id"].map(lambda name: place.get(name, most + 1))
    # Test radiographs come first: faithfulness has their organs, which the quality checks need.
    unseen = unseen.assign(later=unseen["split"] != "test", order=order)
    return unseen.sort_values(["later", "order", "image_id"], kind="stable").head(most)


def square_gray(path: str, size: int) -> Image.Image:
    """Return the central square of a radiograph at a model's size, mode L."""
    image = decode_image(Path(path), path, keep_gray=True, at_least=size)
    return centre_square(image, size).convert("L")


def candidates(
    manifest: pd.DataFrame,
    shards: list[Path],
    planted: int,
    held_out: int,
    seed: int,
    overfitted: Path | None = None,
) -> Iterator[tuple[str, Image.Image, str | None]]:
    """Yield each candidate's id, its image, and the ids of the images that it was made from.

    Raises:
        InputError: the pool has no image; or see `drawn_sources`, `drawn_overfitted` and
            `drawn_held_out`.
    """
    size = 0
    for item in read_shards(shards):
        image = gray_if_colourless(item.open())
        size = size or min(image.size)
        yield f"{POOL}{item.id}", image, item.source_image_id
    if not size:
        raise InputError("a pool without images", shards[0], "rerun the generate stage")
    files = dict(zip(manifest["image_id"], manifest["path"], strict=True))
    rng = np.random.default_rng([seed, 1])
    for kind, sources in drawn_sources(manifest, planted, seed).items():
        for number, names in enumerate(sources):
            images = [square_gray(files[name], size) for name in names]
            yield f"{PLANTED}{kind}/{number:05d}", leak(kind, *images, rng=rng), " ".join(names)
    drawn = drawn_overfitted(overfitted, manifest, planted, seed) if overfitted else []
    for number, (file, name) in enumerate(drawn):
        yield f"{PLANTED}{OVERFITTED}/{number:05d}", square_gray(str(file), size), name
    for name in drawn_held_out(manifest, held_out, seed)["image_id"]:
        yield f"{HELD_OUT}{name}", square_gray(files[name], size), name


def main(argv: list[str] | None = None) -> None:
    """Write a model's candidates from the command line."""
    args = _arguments(argv)
    manifest = read_manifest(args.manifest)
    meter = Progress("planting beside the pool", count_shards(args.shards), "images")

    def rows() -> Iterator[ImageItem]:
        for name, image, source in candidates(
            manifest, args.shards, args.planted, args.held_out, args.seed, args.overfitted
        ):
            for prefix, view in (("", image), (MIRRORED, ImageOps.mirror(image))):
                path = f"{prefix}{name}.png".replace("/", "_")
                yield ImageItem(f"{prefix}{name}", path, png_bytes(view), "", source)
            if name.startswith(POOL):
                meter.update()

    count = write_shard(rows(), args.candidates)
    log.info("%d images for the lenses of %s", count, args.model)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key")
    add("--manifest", required=True, type=Path)
    add("--shards", required=True, nargs="+", type=Path, help="the pool's images")
    add("--planted", required=True, type=int, help="number of leaks of each kind")
    add("--overfitted", type=Path, help="folder of images of an overfitted model, if any")
    add("--held-out", required=True, type=int, help="largest number of unseen radiographs")
    add("--seed", required=True, type=int)
    add("--candidates", required=True, type=Path, help="the shard to write")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
