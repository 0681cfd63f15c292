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
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.devices import accelerator_on, device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.records import provenance
from workflow_scripts.common.training import begin_attempt, best_epoch, curve, epoch_batches, train
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
from workflow_scripts.downstream.outcomes import write_outcomes
from workflow_scripts.downstream.segmentation.masks import Masks, exact_squares, read_masks
from workflow_scripts.downstream.segmentation.metrics import count
from workflow_scripts.downstream.segmentation.network import (
    LOSSES,
    SegmentationTask,
    predict,
    unet,
)

log = logging.getLogger(__name__)

SETTINGS: Final = ("real_only", "augmented")
_SETTING_KEYS: Final = (
    "setting",
    "model",
    "protocol",
    "size",
    "steps",
    "batch_size",
    "learning_rate",
    "channels",
    "residual_units",
    "loss",
    "validation_share",
    "rotation_degrees",
    "contrast",
    "seed",
)


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args = _arguments(argv)
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    accelerator = accelerator_on(device)
    if args.gpus > accelerator.num_processes:
        raise InputError(
            f"{args.gpus} GPUs were asked for, one process was started",
            "--gpus",
            "give --gpus 1: the U-Net trains on one GPU within the hour",
        )
    manifest = read_manifest(args.manifest)
    test_rows = manifest[manifest["split"] == "test"]
    real_masks = read_masks(args.real_masks)
    images, masks, n_real = training_pairs(args, manifest, real_masks)
    check_disjoint(images, test_rows)
    # Read before training, so that a broken test image or mask is found now.
    test = real_collection(test_rows, args.size, False, args.threads)
    true = real_masks.squares(test.ids, args.size, args.threads, str(args.real_masks))
    exact = None
    if args.exact_masks is not None:
        of_test = [real_masks.by_id[name] for name in test.ids]
        exact = exact_squares(args.exact_masks, of_test, args.size, args.threads)
    training, validation = split_by_patient(images.patients, args.validation_share, args.seed)
    log.info("%d images to train on, %d to validate on", len(training), len(validation))

    network = unet(args.channels, args.residual_units, args.seed).to(accelerator.device)
    task = SegmentationTask(
        images.pixels,
        masks,
        training,
        validation,
        loss=args.loss,
        batch_size=args.batch_size,
        rotation_degrees=args.rotation_degrees,
        contrast=args.contrast,
        seed=args.seed,
        device=accelerator.device,
    )
    steps = len(epoch_batches(task.n_train, args.batch_size, args.seed, 0))
    epochs = max(1, round(args.steps / steps))
    settings = {key: getattr(args, key) for key in _SETTING_KEYS}
    code = own_digests("downstream.segmentation.train")
    attempt = begin_attempt(args.progress, accelerator)
    history = train(
        network,
        task,
        torch.optim.Adam(network.parameters(), lr=args.learning_rate),
        None,
        epochs=epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        attempt=attempt,
        key=run_key({**settings, "code": code}, images.pixels, masks, training, validation),
        accelerator=accelerator,
        label=f"segmenter {args.setting}/{args.model}",
    )
    if attempt is None:
        return
    predicted = predict(network, test.pixels, args.batch_size, accelerator.device)
    run = {
        "settings": settings,
        "setting": args.setting,
        "model": args.model,
        "protocol": args.protocol,
        "seed": args.seed,
        "labeller": real_masks.run["labeller"],
        "draw": real_masks.run["draw"],
        "validation_split": "by patient",
        "n_images": len(images),
        "n_train": len(training),
        "n_train_real": int((training < n_real).sum()),
        "n_train_synthetic": int((training >= n_real).sum()),
        "n_train_empty": int((~masks[training].any(axis=(1, 2))).sum()),
        "n_validation": len(validation),
        "epochs": epochs,
        "steps_per_epoch": steps,
        "best_epoch": best_epoch(history) + 1,
        "curve": curve(history),
        "provenance": provenance(settings, device_name(accelerator.device)),
    }
    columns: dict[str, Any] = {
        "image_id": test.ids,
        "patient_id": test.patients,
        **outcome_columns(predicted, true, exact),
    }
    attempt.check()
    write_outcomes(args.output, columns, run)
    attempt.end()
    log.info("%d test images segmented", len(test))


def training_pairs(
    args: argparse.Namespace, manifest: pd.DataFrame, real_masks: Masks
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
    parts = [real_collection(rows, args.size, False, args.threads)]
    masks = [real_masks.squares(ids, args.size, args.threads, where)]
    if not masks[0].any():
        raise InputError(
            f"none of the {len(ids)} pseudo-masks to train on shows anything",
            where,
            "check downstream.segmentation.labeller: weights, classes and size",
        )
    if args.setting == "augmented":
        of_model = read_masks(args.masks)
        for key in ("draw", "labeller"):
            if of_model.run[key] != real_masks.run[key]:
                raise InputError(
                    f"{key} is {of_model.run[key]}, of the real masks {real_masks.run[key]}",
                    args.masks,
                    "delete both files and rerun the rule downstream_masks",
                )
        prompts = read_prompts(args.prompts)
        drawn = set(of_model.by_id)
        parts.append(
            synthetic_collection(
                args.shards, prompts, manifest, args.size, False, args.threads, drawn
            )
        )
        masks.append(of_model.squares(parts[1].ids, args.size, args.threads, str(args.masks)))
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


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--setting", choices=SETTINGS, required=True)
    add("--model", required=True, help="key of the model; `real` for real_only")
    add("--protocol", choices=PROTOCOLS, required=True, help="it is noted; nothing differs")
    add("--manifest", type=Path, required=True)
    add("--prompts", type=Path, required=True, help="the augment prompt set")
    add("--real-masks", type=Path, required=True, help="of the radiographs; see `label`")
    add("--masks", type=Path, help="of the model's images")
    add("--shards", type=Path, nargs="*", default=[], help="the model's images")
    add("--exact-masks", type=Path, help="folder of masks drawn by hand, {image_id}.png")
    add("--size", type=int, required=True, help="side of the images, pixels")
    add("--steps", type=int, required=True, help="optimiser steps, rounded to whole epochs")
    add("--batch-size", type=int, required=True)
    add("--learning-rate", type=float, required=True)
    add("--channels", type=int, nargs="+", required=True, help="of the U-Net's levels")
    add("--residual-units", type=int, required=True, help="convolutions of a level")
    add("--loss", choices=sorted(LOSSES), required=True)
    add("--validation-share", type=float, required=True, help="in (0, 1)")
    add("--rotation-degrees", type=float, required=True)
    add("--contrast", type=float, required=True)
    add("--seed", type=int, required=True)
    add("--progress", type=Path, required=True, help="folder; removed at the end")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--output", type=Path, required=True, help="outcomes, Parquet")
    args = parser.parse_args(argv)
    synthetic = args.setting == "augmented"
    if synthetic != bool(args.shards) or synthetic != (args.masks is not None):
        parser.error("--shards and --masks belong to augmented, and to it alone")
    if args.steps < 1:
        parser.error("--steps is 1 or more")
    if not 0 < args.validation_share < 1:
        parser.error("--validation-share lies between 0 and 1")
    if len(args.channels) < 2 or args.size % 2 ** (len(args.channels) - 1):
        parser.error("--size is divisible by 2 for each of --channels (two or more) but the first")
    return args


if __name__ == "__main__":
    run_script(main)
