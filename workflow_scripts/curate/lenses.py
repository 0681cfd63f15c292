"""Measure how close each candidate comes to a training radiograph, through four privacy lenses.

    python -m workflow_scripts.curate.lenses --model sana --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --candidates results/curate/sana/candidates.parquet \\
        --features results/curate/sana/features --real results/features/real/train \\
        --progress results/curate/sana/.progress-lenses \\
        --output results/curate/sana/lenses.parquet

The inputs are the candidates of `plant.py`, their features, and the features of all training
radiographs. The output is a table that only its owner may read. A job that was killed continues
after the last images that it compared. Each lens is applied to the image and to its mirror image,
and the riskier value counts:

- `latent`: RAD-DINO distance to the closest training radiograph; low is a risk;
- `reid`: the highest re-identification score with any training radiograph; high is a risk;
- `pixel`: the highest correlation of gray values with any training radiograph, slightly moved; high
  is a risk;
- `mixture`: the same with mixtures of two training radiographs (`likeness.py`); high is a risk.
"""

import argparse
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.images import read_shards
from workflow_scripts.common.levels import said_of_bits
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.progress import Progress
from workflow_scripts.curate.kept import Kept
from workflow_scripts.curate.likeness import film_vectors, likeness, views_of_image
from workflow_scripts.curate.plant import HELD_OUT, MIRRORED, PLANTED, POOL
from workflow_scripts.curate.search import pixels_digest
from workflow_scripts.fidelity.inputs import (
    read_comparable,
    require_same_images,
    rows_in_order_of,
    rows_of,
)
from workflow_scripts.privacy.closest import closest_by_distance, closest_by_score
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.score import siamese_head

log = logging.getLogger(__name__)

LENSES: Final = {"latent": "low", "reid": "high", "pixel": "high", "mixture": "high"}
"""Whether a low or a high value is a risk, by lens."""

LENS_SCHEMA: Final = pa.schema(
    [
        pa.field("group", pa.string(), nullable=False),
        pa.field("kind", pa.string()),
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("patient_id", pa.string()),
        *(pa.field(lens, pa.float64(), nullable=False) for lens in LENSES),
        pa.field("nearest_image_id", pa.string(), nullable=False),
        pa.field("nearest_patient_id", pa.string(), nullable=False),
        pa.field("latent_image_id", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("rows_of_features", pa.int64(), nullable=False),
    ]
)
"""`group`: pool, planted or held_out. `kind`: the kind of a planted leak. `patient_id`: the patient
of an unseen radiograph. `nearest_*`: the training radiograph with the highest correlation of gray
values. `latent_image_id`: the one at the lowest RAD-DINO distance. `digest`: digest of the image's
pixels (`search.py`). `rows_of_features`: the image's row in the feature files."""


def split_id(name: str) -> tuple[bool, str, str | None, str]:
    """Return whether a candidate is mirrored, its group, its kind if planted, and its plain id."""
    mirrored = name.startswith(MIRRORED)
    rest = name.removeprefix(MIRRORED)
    for prefix in (POOL, HELD_OUT):
        if rest.startswith(prefix):
            return mirrored, prefix.rstrip("/"), None, rest.removeprefix(prefix)
    kind, _, number = rest.removeprefix(PLANTED).partition("/")
    return mirrored, PLANTED.rstrip("/"), kind, f"{kind}/{number}"


def measure(args: argparse.Namespace) -> tuple[pd.DataFrame, Kept]:
    """Return a row for each candidate, see `LENS_SCHEMA`, and the finished parts of the search.

    Raises:
        InputError: features are missing, not comparable, or of other images.
    """
    device = pick_device(args.gpus)
    manifest = read_manifest(args.manifest, ["image_id", "patient_id", "path"])
    patient_of, path_of = (
        dict(zip(manifest["image_id"], manifest[name], strict=True))
        for name in ("patient_id", "path")
    )
    encoded, radiographs = _encoder_lenses(args, device)
    rows_of(patient_of, radiographs, args.real, "manifest")
    paths = [path_of[name] for name in radiographs]
    kept = Kept(
        args.progress,
        {
            "candidates": sha256_of(args.candidates),
            "radiographs": [*zip(radiographs, paths, strict=True)],
            "device": device_name(device),
            "threads": args.threads,
            **said_of_bits(),
        },
    )
    films = film_vectors(paths, args.threads, kept)
    rows: list[dict[str, Any]] = []
    meter = Progress("through the lenses", len(encoded), "images")

    def views() -> Iterator[Callable[[], np.ndarray]]:
        for item in read_shards([args.candidates]):
            image = item.open()
            mirrored, group, kind, name = split_id(item.id)
            rows.append(
                {
                    "candidate": item.id,
                    "group": group,
                    "kind": kind,
                    "id": name,
                    "mirrored": mirrored,
                    "source": item.source_image_id,
                    "patient_id": patient_of.get(name) if group == "held_out" else None,
                    "digest": pixels_digest(image),
                }
            )
            meter.update()
            yield partial(views_of_image, image)

    alike = likeness(views(), films, device, kept)
    nearest = [radiographs[row] for row in alike.nearest]
    frame = pd.DataFrame(rows).assign(
        pixel=alike.pixel,
        mixture=alike.mixture,
        nearest_image_id=nearest,
        nearest_patient_id=[patient_of[name] for name in nearest],
    )
    return both_ways(frame.join(encoded, on="candidate").drop(columns="candidate")), kept


def _encoder_lenses(
    args: argparse.Namespace, device: torch.device
) -> tuple[pd.DataFrame, list[str]]:
    """Return `latent` and `reid` of each candidate, and the ids of the training radiographs."""
    (latent_real, latent), (reid_real, reid) = (
        read_comparable(args.real, args.features, encoder, args.protocol, args.model, "privacy")
        for encoder in ("rad_dino", "reid")
    )
    require_same_images(latent_real, reid_real, args.real)
    near = closest_by_distance(latent.features, latent_real.features, device=device)
    weight, bias = siamese_head(reid, args.features)
    queries = reid.features[rows_in_order_of(latent, reid, args.features)]
    likely = closest_by_score(queries, reid_real.features, weight, bias, device=device)
    columns = {
        "latent": near.values[:, 0],
        "latent_image_id": [latent_real.ids[row] for row in near.rows[:, 0]],
        "reid": likely.values[:, 0],
        "rows_of_features": range(len(latent.ids)),
    }
    return pd.DataFrame(columns, index=list(latent.ids)), list(latent_real.ids)


def both_ways(rows: pd.DataFrame) -> pd.DataFrame:
    """Join each image's row with that of its mirror image, and keep the riskier value by lens."""
    riskier = {lens: "min" if side == "low" else "max" for lens, side in LENSES.items()}
    key = ["group", "id"]
    # `nearest` belongs to the closer of the two; digest and row of features to the image itself.
    ordered = rows.sort_values("pixel", ascending=False, kind="stable").drop_duplicates(key)
    named = ordered.set_index(key)[["nearest_image_id", "nearest_patient_id"]]
    ordered = rows.sort_values("latent", kind="stable").drop_duplicates(key)
    named = named.join(ordered.set_index(key)[["latent_image_id"]])
    images = rows[~rows["mirrored"]].set_index(key)
    values = rows.groupby(key, sort=False).agg(riskier)
    joined = images.drop(columns=["mirrored", *named.columns, *riskier]).join(values).join(named)
    return joined.reset_index()


def main(argv: list[str] | None = None) -> None:
    """Measure a model's candidates from the command line."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    rows, kept = measure(args)
    write_private_table(rows, LENS_SCHEMA, args.output)
    kept.end()
    log.info("%d images of %s measured", len(rows), args.model)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--candidates", required=True, type=Path, help="the shard of plant.py")
    add("--features", required=True, type=Path, help="folder of the candidates' features")
    add("--real", required=True, type=Path, help="folder of the training radiographs' features")
    add("--progress", required=True, type=Path, help="folder of finished parts; not an output")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--output", required=True, type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
