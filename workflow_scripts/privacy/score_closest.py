"""Score one model's memorisation: the closest of all training images to each generated one.

    python -m workflow_scripts.privacy.score_closest --model sd_v1_4 --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/privacy.parquet \\
        --real results/features/real/train --generated results/features/sd_v1_4/privacy \\
        --output results/privacy/closest/sd_v1_4.json \\
        --pairs results/privacy/closest/sd_v1_4_pairs.parquet

It reads rad_dino.h5 and reid.h5 of every training radiograph and of the generated images. It writes
one record and the table of closest pairs, which names patients' images and which only its owner may
read.

The pairwise protocol asks whether an image resembles the radiograph of its own prompt. But a model
may also reproduce another patient. So this script compares each image with every training
radiograph, by RAD-DINO distance and by re-identification score.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.common.settings import add_flags
from workflow_scripts.fidelity.inputs import (
    origin,
    read_comparable,
    require_same_images,
    rows_in_order_of,
    rows_of,
)
from workflow_scripts.fidelity.resample import wilson_interval
from workflow_scripts.privacy.closest import closest_by_distance, closest_by_score
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.score import (
    bootstrap_of_means,
    gpus_argument,
    model_arguments,
    pairs_argument,
    percentile_interval,
    siamese_head,
)
from workflow_scripts.privacy.settings import ClosestSettings, Settings

log = logging.getLogger(__name__)

PAIR_SCHEMA: Final = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("match", pa.int32(), nullable=False),
        pa.field("latent_image_id", pa.string(), nullable=False),
        pa.field("latent_patient_id", pa.string(), nullable=False),
        pa.field("latent", pa.float64(), nullable=False),
        pa.field("training_latent", pa.float64()),
        pa.field("reid_image_id", pa.string(), nullable=False),
        pa.field("reid_patient_id", pa.string(), nullable=False),
        pa.field("reid", pa.float64(), nullable=False),
    ]
)
"""`matches` rows for each generated image, the closest first. `patient_id` is the prompt's patient.
The `latent` columns give the training image at that rank by distance, and the distance.
`training_latent` is the distance of the closest training image to the nearest other training image;
it is given in the first row only. The `reid` columns give the training image at that rank by score,
and the score."""

SHARES: Final = {
    "authpct": 100,
    "own_patient_latent": 1,
    "closest_reid_share": 1,
    "own_patient_reid": 1,
}
"""The metrics that are shares, with their value for a share of one."""


def closest_values(pairs: pd.DataFrame, settings: Settings) -> list[Value]:
    """Return a model's values: means over generated images, with intervals over patients.

    All images of one patient's prompts form one unit of the bootstrap.

    Args:
        pairs: the closest pair of each image, see `PAIR_SCHEMA`, at least one row.
        settings: the threshold (a score above it is a re-identification), replicates and seed.
    """
    prompt_patients = pairs["patient_id"]
    columns = {
        "closest_latent_mean": (pairs["latent"], "higher"),
        # Alaa et al., 2022: an image is authentic if it is farther from its closest training image
        # than that one is from the nearest other training image.
        "authpct": (100 * (pairs["latent"] > pairs["training_latent"]), "higher"),
        "own_patient_latent": (pairs["latent_patient_id"] == prompt_patients, "lower"),
        "closest_reid_mean": (pairs["reid"], "lower"),
        "closest_reid_share": (pairs["reid"] > settings.threshold, "lower"),
        "own_patient_reid": (pairs["reid_patient_id"] == prompt_patients, "lower"),
    }
    table = pd.DataFrame({name: column.astype(float) for name, (column, _) in columns.items()})
    draws = bootstrap_of_means(table.to_numpy(), prompt_patients.to_numpy(str), settings)
    values = []
    for i, (name, (_, direction)) in enumerate(columns.items()):
        interval = percentile_interval(None if draws is None else draws[:, i])
        mean = float(table[name].mean())
        full = SHARES.get(name)
        if interval and full is not None and mean in (0, full):
            # If all images agree, a bootstrap has no spread and would claim certainty.
            low, high = wilson_interval(mean / full, prompt_patients.nunique())
            interval = {"interval": (full * low, full * high), "interval_kind": "Wilson 95%"}
        values.append(Value(name, mean, direction, len(pairs), **interval))
    least, most = float(pairs["latent"].min()), float(pairs["reid"].max())
    return [
        *values,
        Value("closest_latent_min", least, "higher", len(pairs)),
        Value("closest_reid_max", most, "lower", len(pairs)),
    ]


def score(
    model: str,
    protocol: str,
    manifest_path: Path,
    prompts_path: Path,
    real_folder: Path,
    generated_folder: Path,
    settings: Settings,
    matches: int,
    device: torch.device,
) -> tuple[Record, pd.DataFrame]:
    """Read features and return a model's record and its closest pairs, `matches` for each image.

    Raises:
        InputError: features are missing, damaged, not comparable or of other prompts; or there are
            fewer than two training images.
    """
    folders = (real_folder, generated_folder)
    own_images = (protocol, model, "privacy")
    latent_real, latent = read_comparable(*folders, "rad_dino", *own_images)
    reid_real, reid = read_comparable(*folders, "reid", *own_images)
    require_same_images(latent_real, reid_real, real_folder)
    if not latent.ids:
        raise InputError("a collection without images has no privacy", generated_folder)
    if len(latent_real.ids) < 2:
        raise InputError("fewer than two training images", real_folder, "check the split")
    prompts = read_prompts(prompts_path)
    rows = rows_of(prompts["prompt_id"], latent.ids, generated_folder, "prompt set")
    of_prompt = prompts["image_id"].iloc[rows].reset_index(drop=True)
    manifest = read_manifest(manifest_path, ["image_id", "patient_id"])
    patient_of = manifest.set_index("image_id")["patient_id"]
    rows_of(patient_of.index, latent_real.ids, real_folder, "manifest")
    rows_of(patient_of.index, list(of_prompt), prompts_path, "manifest")

    log.info("%d images against %d training images", len(latent.ids), len(latent_real.ids))
    k = min(matches, len(latent_real.ids))
    nearest = closest_by_distance(latent.features, latent_real.features, k, device=device)
    named, back = np.unique(nearest.rows[:, 0], return_inverse=True)
    other = closest_by_distance(
        latent_real.features[named], latent_real.features, skip=named, device=device
    )
    training_distances = np.full(nearest.rows.shape, np.nan)
    training_distances[:, 0] = other.values[back, 0]
    weight, bias = siamese_head(reid, generated_folder)
    queries = reid.features[rows_in_order_of(latent, reid, generated_folder)]
    likeliest = closest_by_score(queries, reid_real.features, weight, bias, k, device=device)
    by_distance = np.array(latent_real.ids)[nearest.rows].ravel()
    by_score = np.array(reid_real.ids)[likeliest.rows].ravel()
    pairs = pd.DataFrame(
        {
            "prompt_id": np.repeat(latent.ids, k),
            "patient_id": np.repeat(patient_of[of_prompt].to_numpy(), k),
            "match": np.tile(np.arange(k, dtype=np.int32), len(latent.ids)),
            "latent_image_id": by_distance,
            "latent_patient_id": patient_of[by_distance].to_numpy(),
            "latent": nearest.values.ravel(),
            "training_latent": training_distances.ravel(),
            "reid_image_id": by_score,
            "reid_patient_id": patient_of[by_score].to_numpy(),
            "reid": likeliest.values.ravel(),
        }
    )
    first = pairs[pairs["match"] == 0].reset_index(drop=True)
    record = Record(
        stage="privacy",
        model=model,
        family="closest",
        protocol=protocol,
        values=closest_values(first, settings),
        details={**asdict(settings), "training_images": len(latent_real.ids)},
        provenance=provenance(
            {"protocol": protocol, **asdict(settings)},
            device_name(device),
            [origin(file) for file in (latent_real, latent, reid_real, reid)],
        ),
    )
    return record, pairs


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    parser = model_arguments((__doc__ or "").splitlines()[0])
    pairs_argument(gpus_argument(parser))
    add_flags(parser, ClosestSettings)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    record, pairs = score(
        args.model,
        args.protocol,
        args.manifest,
        args.prompts,
        args.real,
        args.generated,
        Settings(args.threshold, args.bootstrap, args.seed),
        args.matches,
        pick_device(args.gpus),
    )
    write_private_table(pairs, PAIR_SCHEMA, args.pairs)
    write_record(record, args.output)
    for value in record.values:
        log.info("%s: %s %s (n %d)", args.model, value.metric, value.value, value.n)


if __name__ == "__main__":
    run_script(main)
