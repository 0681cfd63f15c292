"""Plant leaks beside a pool, and lay out all that the privacy lenses look at.

    python -m workflow_scripts.curate.plant --model sana \\
        --manifest results/cohort/manifest.parquet \\
        --shards results/generate/sana/augment/part-*.parquet --planted 100 --held-out 2000 \\
        --seed 42 --candidates results/curate/sana/candidates.parquet

It writes one image shard for its owner alone, which the workflow removes once the lenses have
looked: the pool's images, leaks of known kinds made from training radiographs (`leaks.py`), and
radiographs of patients that no model was trained on, each also mirrored. With `--overfitted`,
images of a model that learned a few patients by heart are planted, too (`overfitted.py`). Its id
says what a row is: `pool/`, `planted/{kind}/`, `held_out/`, and `mirrored/` before it. A planted
image can never reach the curated set: that is drawn from the pool's ids alone.
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
    """Draw the training radiographs that leaks are made from, by kind: one of each patient.

    Within a kind no patient comes twice, so that its leaks are independent; a blend has two.

    Raises:
        InputError: fewer than two training patients.
    """
    training = manifest[manifest["split"] == "train"].sort_values("image_id", kind="stable")
    patients = np.array(sorted(training["patient_id"].unique()), object)
    if len(patients) < 2:
        raise InputError("fewer than two training patients to plant leaks of", "the manifest")
    of_patient = training.groupby("patient_id")["image_id"].agg(list)
    rng = np.random.default_rng(seed)
    found: dict[str, list[list[str]]] = {}
    for kind in KINDS:
        each = 2 if kind == "blend" else 1
        count = min(planted, len(patients) // each)
        owners = rng.permutation(patients)[: each * count].reshape(count, each)
        found[kind] = [[str(rng.choice(of_patient[o])) for o in row] for row in owners]
    return found


def drawn_held_out(manifest: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Draw radiographs of patients that no model was trained on, at most so many, by patient.

    Raises:
        InputError: there are none of two patients.
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
    # Test radiographs go first: faithfulness has drawn their organs, on which quality is tried.
    unseen = unseen.assign(later=unseen["split"] != "test", order=order)
    return unseen.sort_values(["later", "order", "image_id"], kind="stable").head(most)


def square_gray(path: str, size: int) -> Image.Image:
    """Return the middle of a radiograph as a model saw it, mode L."""
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
    """Yield (id, image, what it was made from) of the pool, of planted leaks and of unseen films.

    Raises:
        InputError: there is no image in the pool, or see the draws.
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
    """Lay out what the lenses look at, from the command line."""
    args = _arguments(argv)
    manifest = read_manifest(args.manifest)
    meter = Progress("planting beside the pool", count_shards(args.shards), "images")

    def rows() -> Iterator[ImageItem]:
        for name, image, source in candidates(
            manifest, args.shards, args.planted, args.held_out, args.seed, args.overfitted
        ):
            for prefix, shown in (("", image), (MIRRORED, ImageOps.mirror(image))):
                path = f"{prefix}{name}.png".replace("/", "_")
                yield ImageItem(f"{prefix}{name}", path, png_bytes(shown), "", source)
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
    add("--shards", required=True, nargs="+", type=Path, help="the pool")
    add("--planted", required=True, type=int, help="leaks of each kind")
    add("--overfitted", type=Path, help="folder of images of an overfitted model, if any")
    add("--held-out", required=True, type=int, help="unseen radiographs at most")
    add("--seed", required=True, type=int)
    add("--candidates", required=True, type=Path, help="the shard to write")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
