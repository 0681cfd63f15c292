"""Train a U-Net on pseudo-masks of real images, or of real and synthetic ones; test it.

The paper shows the results in Table 5. The real images are those of the drawn augment prompts, the
synthetic ones a model's images of the same prompts, and the test images the whole test split. The
masks are CXAS's (`label`). The script writes one file: for each test image the numbers of pixels in
the predicted mask, in the pseudo-mask and in both; and the same for masks drawn by hand, if there
are any. `score` makes the record from it.

The paper's code for this task was not released, so the protocols do not differ here, and both crop
images to a square. The paper states the number of images and the learning rate; the rest is our
choice. All arms train for the same number of optimiser steps. With a number of epochs, twice the
images would train twice as long, and mere copies of the real images would help.
"""

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.seeded_order import epoch_batches
from workflow_scripts.common.settings import settings_of_flags
from workflow_scripts.common.training import Epoch, begin_attempt, best_epoch, curve, train
from workflow_scripts.common.validation import split_by_patient
from workflow_scripts.downstream.data import (
    Collection,
    check_disjoint,
    concatenate,
    manifest_rows,
    real_collection,
    run_key,
    synthetic_collection,
)
from workflow_scripts.downstream.segmentation.masks import Masks, exact_squares, read_masks
from workflow_scripts.downstream.segmentation.metrics import count
from workflow_scripts.downstream.segmentation.network import SegmentationTask, predict, unet
from workflow_scripts.downstream.segmentation.settings import SegmenterSettings
from workflow_scripts.downstream.training_run import (
    accelerator_of,
    check_one_process,
    counted,
    described,
    noted_settings,
    publish,
    train_parser,
)

log = logging.getLogger(__name__)

SETTINGS: Final = ("real_only", "augmented")


@dataclass(frozen=True)
class _Data:
    """All images and masks, which are read before the network.

    Attributes:
        images: images to train and validate on, real ones first.
        masks: their pseudo-masks, bool (n, size, size).
        n_real: the number of real ones.
        training: rows of `images` to train on.
        validation: rows of `images` to validate on.
        test: the test split.
        true: its pseudo-masks, bool (n, size, size).
        exact: its masks drawn by hand, see `exact_squares`; None if there are none.
    """

    images: Collection
    masks: np.ndarray
    n_real: int
    training: np.ndarray
    validation: np.ndarray
    test: Collection
    true: np.ndarray
    exact: tuple[np.ndarray, np.ndarray] | None


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args, settings = _arguments(argv)
    accelerator = accelerator_of(args)
    check_one_process(args.gpus, accelerator)
    real_masks = read_masks(args.real_masks)
    data = _read_data(args, settings, real_masks)
    noted = noted_settings(args, settings, {"exact_masks"})
    steps = len(epoch_batches(len(data.training), settings.batch_size, settings.seed, 0))
    epochs = max(1, round(settings.steps / steps))
    attempt = begin_attempt(args.progress, accelerator)
    network, history = _train(args, settings, data, noted, epochs, accelerator, attempt)
    if attempt is None:
        return
    predicted = predict(network, data.test.pixels, settings.batch_size, accelerator.device)
    run = {
        **described(args, noted, accelerator.device),
        **counted(data.training, data.validation, data.n_real),
        "labeller": real_masks.run["labeller"],
        "draw": real_masks.run["draw"],
        "validation_split": "by patient",
        "n_images": len(data.images),
        "n_train_empty": int((~data.masks[data.training].any(axis=(1, 2))).sum()),
        "epochs": epochs,
        "steps_per_epoch": steps,
        "best_epoch": best_epoch(history) + 1,
        "curve": curve(history),
    }
    columns: dict[str, Any] = {
        "image_id": data.test.ids,
        "patient_id": data.test.patients,
        **outcome_columns(predicted, data.true, data.exact),
    }
    publish(args.output, columns, run, attempt)
    log.info("%d test images segmented", len(data.test))


def _read_data(args: argparse.Namespace, settings: SegmenterSettings, real_masks: Masks) -> _Data:
    """Read and divide the images; test images too, so that a broken one is found before training.

    Raises:
        InputError: an image or mask is missing or broken, or a test patient is among those to train
            on.
    """
    size, threads = settings.size, args.threads
    manifest = read_manifest(args.manifest)
    test_rows = manifest[manifest["split"] == "test"]
    images, masks, n_real = training_pairs(args, settings, manifest, real_masks)
    check_disjoint(images, test_rows)
    test = real_collection(test_rows, size, False, threads)
    true = real_masks.squares(test.ids, size, threads, str(args.real_masks))
    exact = None
    if settings.exact_masks is not None:
        of_test = [real_masks.by_id[name] for name in test.ids]
        exact = exact_squares(settings.exact_masks, of_test, size, threads)
    share, seed = settings.validation_share, settings.seed
    training, validation = split_by_patient(images.patients, share, seed)
    log.info("%d images to train on, %d to validate on", len(training), len(validation))
    return _Data(images, masks, n_real, training, validation, test, true, exact)


def _train(
    args: argparse.Namespace,
    settings: SegmenterSettings,
    data: _Data,
    noted: dict[str, Any],
    epochs: int,
    accelerator: Accelerator,
    attempt: Attempt | None,
) -> tuple[torch.nn.Module, list[Epoch]]:
    """Train the network for a number of epochs; return it and its history."""
    network = unet(settings.channels, settings.residual_units, settings.seed).to(accelerator.device)
    pixels, masks = data.images.pixels, data.masks
    task = SegmentationTask(
        pixels,
        masks,
        data.training,
        data.validation,
        loss=settings.loss,
        batch_size=settings.batch_size,
        rotation_degrees=settings.rotation_degrees,
        contrast=settings.contrast,
        seed=settings.seed,
        device=accelerator.device,
    )
    made_by = {**noted, "code": own_digests("downstream.segmentation.train")}
    history = train(
        network,
        task,
        torch.optim.Adam(network.parameters(), lr=settings.learning_rate),
        None,
        epochs=epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
        attempt=attempt,
        key=run_key(made_by, pixels, masks, data.training, data.validation),
        accelerator=accelerator,
        label=f"segmenter {args.setting}/{args.model}",
    )
    return network, history


def training_pairs(
    args: argparse.Namespace, settings: SegmenterSettings, manifest: pd.DataFrame, real_masks: Masks
) -> tuple[Collection, np.ndarray, int]:
    """Return the images of a setting, real ones first, their masks, and the number of real ones.

    Raises:
        InputError: the model's masks come from another draw or network, or all real masks are
            empty.
    """
    split = manifest.set_index("image_id")["split"]
    where = str(args.real_masks)
    masked = manifest_rows(manifest, list(real_masks.by_id), where)["image_id"].tolist()
    ids = [name for name in masked if split[name] != "test"]
    rows = manifest_rows(manifest, ids, where)
    parts = [real_collection(rows, settings.size, False, args.threads)]
    masks = [real_masks.squares(ids, settings.size, args.threads, where)]
    if not masks[0].any():
        raise InputError(
            f"all {len(ids)} pseudo-masks to train on are empty",
            where,
            "check downstream.segmentation.labeller: weights, classes and size",
        )
    if args.setting == "augmented":
        of_model = read_masks(args.masks)
        for key in ("labeller",) if args.other_prompts else ("draw", "labeller"):
            if of_model.run[key] != real_masks.run[key]:
                raise InputError(
                    f"{key} is {of_model.run[key]}, but {real_masks.run[key]} in the real masks",
                    args.masks,
                    "delete both files and rerun the rule downstream_masks",
                )
        prompts = read_prompts(args.prompts)
        drawn = set(of_model.by_id)
        parts.append(
            synthetic_collection(
                args.shards, prompts, manifest, settings.size, False, args.threads, drawn
            )
        )
        masks.append(of_model.squares(parts[1].ids, settings.size, args.threads, str(args.masks)))
    images = parts[0] if len(parts) == 1 else concatenate(parts)
    return images, np.concatenate(masks), len(ids)


def outcome_columns(
    predicted: np.ndarray, true: np.ndarray, exact: tuple[np.ndarray, np.ndarray] | None
) -> dict[str, list[int | None]]:
    """Return the pixel counts of each test image.

    Args:
        predicted: bool (n, size, size).
        true: the pseudo-masks, bool (n, size, size).
        exact: see `exact_squares`; None if no masks were drawn by hand.

    Returns:
        Columns `predicted`, `true`, `both`, and for masks drawn by hand `exact_true`, `exact_both`
        (None for an image without such a mask).
    """
    counts = count(predicted, true)
    columns: dict[str, list[int | None]] = {
        name: [int(value) for value in getattr(counts, name)]
        for name in ("predicted", "true", "both")
    }
    columns["exact_true"] = [None] * len(predicted)
    columns["exact_both"] = [None] * len(predicted)
    if exact is not None:
        has_mask, squares = exact
        against = count(predicted[has_mask], squares)
        for k, row in enumerate(np.flatnonzero(has_mask)):
            columns["exact_true"][row] = int(against.true[k])
            columns["exact_both"][row] = int(against.both[k])
    return columns


def _arguments(argv: list[str] | None) -> tuple[argparse.Namespace, SegmenterSettings]:
    parser = train_parser(__doc__, SETTINGS, SegmenterSettings)
    add = parser.add_argument
    add("--real-masks", type=Path, required=True, help="masks of the radiographs; see `label`")
    add("--masks", type=Path, help="masks of the model's images")
    add(
        "--other-prompts",
        action="store_true",
        help="the model's images may be of other prompts than the drawn radiographs",
    )
    args = parser.parse_args(argv)
    synthetic = args.setting == "augmented"
    if synthetic != bool(args.shards) or synthetic != (args.masks is not None):
        parser.error("give --shards and --masks with augmented, and with no other setting")
    settings = settings_of_flags(SegmenterSettings, args, parser)
    if settings.size % 2 ** (len(settings.channels) - 1):
        parser.error("--size must be divisible by 2 once for each of --channels but the first")
    return args, settings


if __name__ == "__main__":
    run_script(main)
