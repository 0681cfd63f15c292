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
from workflow_scripts.common.records import Record, Value
from workflow_scripts.common.settings import add_flags
from workflow_scripts.fidelity.inputs import (
    ScoredModel,
    model_of,
    patients_of_prompts,
    rows_in_order_of,
    rows_of,
)
from workflow_scripts.fidelity.resample import effective_number, wilson_interval
from workflow_scripts.privacy.closest import closest_by_distance, closest_by_score
from workflow_scripts.privacy.intervals import bootstrap_of_means, percentile_interval
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.scripts import (
    ModelFeatures,
    privacy_arguments,
    privacy_record,
    read_model_features,
    settings_of,
    siamese_head,
    write_scored,
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
    patients = prompt_patients.to_numpy(str)
    draws = bootstrap_of_means(table.to_numpy(), patients, settings)
    values = []
    for i, (name, (_, direction)) in enumerate(columns.items()):
        drawn = None if draws is None else draws[:, i]
        interval = percentile_interval(drawn, prompt_patients.nunique())
        mean = float(table[name].mean())
        whole = SHARES.get(name)
        if interval and whole is not None:
            # A bootstrap of a rare event is too narrow, and has no spread if all images agree.
            number = effective_number(table[name].to_numpy(), patients)
            low, high = wilson_interval(mean / whole, number)
            interval = {"interval": (whole * low, whole * high), "interval_kind": "Wilson 95%"}
        values.append(Value(name, mean, direction, len(pairs), **interval))
    return [
        *values,
        Value("closest_latent_min", float(pairs["latent"].min()), "higher", len(pairs)),
        Value("closest_reid_max", float(pairs["reid"].max()), "lower", len(pairs)),
    ]


def score(
    model: ScoredModel, settings: Settings, matches: int, device: torch.device
) -> tuple[Record, pd.DataFrame]:
    """Read features and return a model's record and its closest pairs, `matches` for each image.

    Raises:
        InputError: features are missing, damaged, not comparable or of other prompts; or there are
            fewer than two training images.
    """
    features = read_model_features(model)
    training_images = len(features.latent_real.ids)
    if training_images < 2:
        raise InputError("fewer than two training images", model.real, "check the split")
    manifest = read_manifest(model.manifest, ["image_id", "patient_id"])
    rows_of(manifest["image_id"], features.latent_real.ids, model.real, "manifest")
    prompt_patients = patients_of_prompts(
        features.latent, read_prompts(model.prompts), manifest, model.generated
    )
    log.info("%d images against %d training images", len(prompt_patients), training_images)
    patient_of = manifest.set_index("image_id")["patient_id"]
    pairs = closest_pairs(features, model.generated, patient_of, matches, device)
    pairs["patient_id"] = np.repeat(prompt_patients, min(matches, training_images))
    record = privacy_record(
        model,
        "closest",
        closest_values(pairs[pairs["match"] == 0].reset_index(drop=True), settings),
        {**asdict(settings), "training_images": training_images},
        settings,
        features.files,
        device_name(device),
    )
    return record, pairs


def closest_pairs(
    features: ModelFeatures,
    where: Path,
    patient_of: pd.Series,
    matches: int,
    device: torch.device,
) -> pd.DataFrame:
    """Return each image's closest training images by both lenses.

    Args:
        features: see `ModelFeatures`.
        where: the folder of the images' features, for errors.
        patient_of: the patient of each training image, indexed by its id.
        matches: training images for each generated one; all of them where there are fewer.
        device: where to compute.

    Returns:
        See `PAIR_SCHEMA`, without `patient_id`.

    Raises:
        InputError: the two encoders' features are of other images, or the head is missing.
    """
    images, training = features.latent, features.latent_real
    k = min(matches, len(training.ids))
    nearest = closest_by_distance(images.features, training.features, k, device=device)
    closest, position = np.unique(nearest.rows[:, 0], return_inverse=True)
    neighbours = closest_by_distance(
        training.features[closest], training.features, skip=closest, device=device
    )
    neighbour_distances = np.full(nearest.rows.shape, np.nan)
    neighbour_distances[:, 0] = neighbours.values[position, 0]
    queries = features.reid.features[rows_in_order_of(images, features.reid, where)]
    head = siamese_head(features.reid, where)
    likeliest = closest_by_score(queries, features.reid_real.features, *head, k, device=device)
    by_distance = np.array(training.ids)[nearest.rows].ravel()
    by_score = np.array(features.reid_real.ids)[likeliest.rows].ravel()
    return pd.DataFrame(
        {
            "prompt_id": np.repeat(images.ids, k),
            "match": np.tile(np.arange(k, dtype=np.int32), len(images.ids)),
            "latent_image_id": by_distance,
            "latent_patient_id": patient_of[by_distance].to_numpy(),
            "latent": nearest.values.ravel(),
            "training_latent": neighbour_distances.ravel(),
            "reid_image_id": by_score,
            "reid_patient_id": patient_of[by_score].to_numpy(),
            "reid": likeliest.values.ravel(),
        }
    )


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    parser = privacy_arguments((__doc__ or "").splitlines()[0], pairs=True, gpus=True)
    add_flags(parser, ClosestSettings)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device = pick_device(args.gpus)
    record, pairs = score(model_of(args), settings_of(args), args.matches, device)
    write_private_table(pairs, PAIR_SCHEMA, args.pairs)
    write_scored(record, args.output)


if __name__ == "__main__":
    run_script(main)
