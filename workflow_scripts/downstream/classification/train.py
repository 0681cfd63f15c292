"""Train a multi-label classifier on real images, synthetic images or both; apply it to test images.

The paper shows the results in Tables 4 and 15. The real images are those of the augment prompts,
the synthetic ones a model's images of the same prompts, and the test images the whole test split.
The script writes one file, the probability of each finding for each test image; `score` makes the
record from it.

A step takes its batch in pieces of at most `--per-device-batch-size` images and sums the gradients.
The sum equals the gradient of the whole batch, except that batch normalisation takes mean and
variance over a piece and updates its moving averages once per piece. Only pieces as large as the
batch repeat the unaccumulated training exactly.
"""

import argparse
import logging
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from workflow_scripts.common.as_published import PROTOCOLS, deviations
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.devices import accelerator_on, check_bf16, device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.manifest import FINDINGS, read_manifest, read_prompts
from workflow_scripts.common.records import provenance
from workflow_scripts.common.resnet import pretrained_resnet
from workflow_scripts.common.training import begin_attempt, best_epoch, curve, train
from workflow_scripts.common.validation import split_at_random, split_by_patient
from workflow_scripts.downstream.classification.network import ClassificationTask, predict
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

log = logging.getLogger(__name__)

SETTINGS: Final = ("real_only", "augmented", "synthetic_only")
_SETTING_KEYS: Final = (
    "setting",
    "model",
    "protocol",
    "size",
    "epochs",
    "batch_size",
    "per_device_batch_size",
    "mixed_precision",
    "learning_rate",
    "weight_decay",
    "validation_share",
    "scheduler_factor",
    "scheduler_patience",
    "rotation_degrees",
    "seed",
)


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args = _arguments(argv)
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    check_bf16(args.mixed_precision, device)
    accelerator = accelerator_on(device, args.mixed_precision)
    at_once = min(args.batch_size, args.per_device_batch_size or args.batch_size)
    if args.gpus > accelerator.num_processes:
        raise InputError(
            f"{args.gpus} GPUs were asked for, one process was started",
            "--gpus",
            "give --gpus 1: the classifier trains on one GPU within minutes",
        )
    switches = deviations(args.protocol)
    manifest = read_manifest(args.manifest)
    test_rows = manifest[manifest["split"] == "test"]
    images, n_real = training_images(args, manifest, switches.classification_squash)
    check_disjoint(images, test_rows)
    # Read before training, so that a broken test image is found now.
    test = real_collection(test_rows, args.size, switches.classification_squash, args.threads)
    if switches.classification_random_validation:
        training, validation = split_at_random(len(images), args.validation_share, args.seed)
    else:
        training, validation = split_by_patient(images.patients, args.validation_share, args.seed)
    log.info("%d images to train on, %d to validate on", len(training), len(validation))

    weights_sha256 = sha256_of(args.weights)
    network = pretrained_resnet(args.weights, len(FINDINGS), args.seed).to(accelerator.device)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay
    )
    scheduler = ReduceLROnPlateau(
        optimizer, factor=args.scheduler_factor, patience=args.scheduler_patience
    )
    task = ClassificationTask(
        images.pixels,
        images.labels,
        training,
        validation,
        batch_size=at_once,
        rotation_degrees=args.rotation_degrees,
        flip=switches.classification_horizontal_flip,
        seed=args.seed,
        device=accelerator.device,
    )
    settings = {key: getattr(args, key) for key in _SETTING_KEYS}
    settings["weights_sha256"] = weights_sha256
    code = own_digests("downstream.classification.train")
    attempt = begin_attempt(args.progress, accelerator)
    history = train(
        network,
        task,
        optimizer,
        scheduler,
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        attempt=attempt,
        key=run_key({**settings, "code": code}, images.pixels, images.labels, training, validation),
        accelerator=accelerator,
        label=f"classifier {args.setting}/{args.model}",
        per_device_batch_size=at_once,
    )
    # Test images are classified in float32, whatever the precision of training.
    network = accelerator.unwrap_model(network, keep_fp32_wrapper=False)
    probabilities = predict(network, test.pixels, at_once, accelerator.device)
    if attempt is None:
        return
    run = {
        "settings": settings,
        "setting": args.setting,
        "model": args.model,
        "protocol": args.protocol,
        "seed": args.seed,
        "labels": "1 is positive; 0, -1 (uncertain) and unmentioned are negative",
        "validation_split": "random" if switches.classification_random_validation else "by patient",
        "n_train": len(training),
        "n_train_real": int((training < n_real).sum()),
        "n_train_synthetic": int((training >= n_real).sum()),
        "n_validation": len(validation),
        "n_train_positive": {
            name: int(images.labels[training, k].sum()) for k, name in enumerate(FINDINGS)
        },
        "best_epoch": best_epoch(history) + 1,
        "curve": curve(history),
        "provenance": provenance(settings, device_name(accelerator.device)),
    }
    scores = {name: probabilities[:, k] for k, name in enumerate(FINDINGS)}
    columns: dict[str, Any] = {"image_id": test.ids, "patient_id": test.patients, **scores}
    attempt.check()
    write_outcomes(args.output, columns, run)
    attempt.end()
    log.info("%d test images classified", len(test))


def training_images(
    args: argparse.Namespace, manifest: pd.DataFrame, squash: bool
) -> tuple[Collection, int]:
    """Return the images of a setting, real ones first, and the number of real ones."""
    prompts = read_prompts(args.prompts)
    parts: list[Collection] = []
    n_real = 0
    if args.setting != "synthetic_only":
        ids = prompts["image_id"].drop_duplicates().tolist()
        rows = manifest_rows(manifest, ids, str(args.prompts))
        parts.append(real_collection(rows, args.size, squash, args.threads))
        n_real = len(ids)
    if args.setting != "real_only":
        parts.append(
            synthetic_collection(args.shards, prompts, manifest, args.size, squash, args.threads)
        )
    return (parts[0] if len(parts) == 1 else concatenate(parts)), n_real


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", choices=SETTINGS, required=True)
    parser.add_argument("--model", required=True, help="key of the model; `real` for real_only")
    parser.add_argument("--protocol", choices=PROTOCOLS, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True, help="the augment prompt set")
    parser.add_argument("--shards", type=Path, nargs="*", default=[], help="the model's images")
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet initialisation")
    parser.add_argument("--size", type=int, required=True, help="side of the images, pixels")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True, help="of an optimiser step")
    parser.add_argument(
        "--per-device-batch-size", type=int, help="images at once (default: the whole batch)"
    )
    parser.add_argument(
        "--mixed-precision", choices=("no", "bf16"), default="no", help="arithmetic of training"
    )
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--weight-decay", type=float, required=True)
    parser.add_argument("--validation-share", type=float, required=True, help="in (0, 1)")
    parser.add_argument("--scheduler-factor", type=float, required=True)
    parser.add_argument("--scheduler-patience", type=int, required=True, help="epochs")
    parser.add_argument("--rotation-degrees", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--progress", type=Path, required=True, help="folder; removed at the end")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="outcomes, Parquet")
    args = parser.parse_args(argv)
    if (args.setting == "real_only") != (not args.shards):
        parser.error("--shards belongs to augmented and synthetic_only, and to them alone")
    if args.epochs < 1:
        parser.error("--epochs is 1 or more")
    if args.per_device_batch_size is not None and args.per_device_batch_size < 1:
        parser.error("--per-device-batch-size is 1 or more")
    if not 0 < args.validation_share < 1:
        parser.error("--validation-share lies between 0 and 1")
    return args


if __name__ == "__main__":
    run_script(main)
