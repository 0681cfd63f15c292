"""Train a multi-label classifier on real images, synthetic images or both; apply it to test images.

Tables 4 and 15 of the paper. The real images are those that the augment prompts point to, the
synthetic ones a model's images of the same prompts, the test images all of the test split. Makes
one file: the probability of each finding for each test image; `score` makes the record of it. With
`--network` the trained network, too, which judges generated images (faithfulness).

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

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.devices import accelerator_on, check_bf16, pick_device
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.manifest import FINDINGS, read_manifest, read_prompts
from workflow_scripts.common.resnet import pretrained_resnet
from workflow_scripts.common.settings import settings_of_flags
from workflow_scripts.common.training import begin_attempt, best_epoch, curve, train
from workflow_scripts.common.validation import split_at_random, split_by_patient
from workflow_scripts.downstream.classification.network import (
    ClassificationTask,
    predict,
    write_network,
)
from workflow_scripts.downstream.classification.settings import ClassifierSettings
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
from workflow_scripts.downstream.training_run import (
    check_one_process,
    counted,
    described,
    noted_settings,
    train_parser,
)

log = logging.getLogger(__name__)

SETTINGS: Final = ("real_only", "augmented", "synthetic_only")


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args, settings = _arguments(argv)
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    check_bf16(settings.mixed_precision, device)
    accelerator = accelerator_on(device, settings.mixed_precision)
    at_once = min(settings.batch_size, settings.per_device_batch_size or settings.batch_size)
    check_one_process(args.gpus, accelerator)
    switches = deviations(args.protocol)
    manifest = read_manifest(args.manifest)
    test_rows = manifest[manifest["split"] == "test"]
    images, n_real = training_images(args, settings, manifest, switches.classification_squash)
    check_disjoint(images, test_rows)
    # Read before training, so that a broken test image is found now.
    test = real_collection(test_rows, settings.size, switches.classification_squash, args.threads)
    share, seed = settings.validation_share, settings.seed
    if switches.classification_random_validation:
        training, validation = split_at_random(len(images), share, seed)
    else:
        training, validation = split_by_patient(images.patients, share, seed)
    log.info("%d images to train on, %d to validate on", len(training), len(validation))

    weights_sha256 = sha256_of(settings.weights)
    network, optimizer, scheduler = _learner(settings, accelerator.device)
    task = ClassificationTask(
        images.pixels,
        images.labels,
        training,
        validation,
        batch_size=at_once,
        rotation_degrees=settings.rotation_degrees,
        flip=switches.classification_horizontal_flip,
        seed=settings.seed,
        device=accelerator.device,
    )
    noted = noted_settings(args, settings, {"weights"}) | {"weights_sha256": weights_sha256}
    code = own_digests("downstream.classification.train")
    attempt = begin_attempt(args.progress, accelerator)
    history = train(
        network,
        task,
        optimizer,
        scheduler,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
        attempt=attempt,
        key=run_key({**noted, "code": code}, images.pixels, images.labels, training, validation),
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
        **described(args, noted, accelerator.device),
        **counted(training, validation, n_real),
        "labels": "1 is positive; 0, -1 (uncertain) and unmentioned are negative",
        "validation_split": "random" if switches.classification_random_validation else "by patient",
        "n_train_positive": {
            name: int(images.labels[training, k].sum()) for k, name in enumerate(FINDINGS)
        },
        "best_epoch": best_epoch(history) + 1,
        "curve": curve(history),
    }
    if args.network is not None:
        attempt.check()
        write_network(args.network, network, run)
    scores = {name: probabilities[:, k] for k, name in enumerate(FINDINGS)}
    columns: dict[str, Any] = {"image_id": test.ids, "patient_id": test.patients, **scores}
    attempt.check()
    write_outcomes(args.output, columns, run)
    attempt.end()
    log.info("%d test images classified", len(test))


def _learner(
    settings: ClassifierSettings, device: torch.device
) -> tuple[torch.nn.Module, torch.optim.Optimizer, ReduceLROnPlateau]:
    """Return the pretrained network on its device, with its optimiser and scheduler."""
    network = pretrained_resnet(settings.weights, len(FINDINGS), settings.seed).to(device)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    scheduler = ReduceLROnPlateau(
        optimizer, factor=settings.scheduler_factor, patience=settings.scheduler_patience
    )
    return network, optimizer, scheduler


def training_images(
    args: argparse.Namespace, settings: ClassifierSettings, manifest: pd.DataFrame, squash: bool
) -> tuple[Collection, int]:
    """Return the images of a setting, real ones first, and the number of real ones."""
    prompts = read_prompts(args.prompts)
    parts: list[Collection] = []
    n_real = 0
    if args.setting != "synthetic_only":
        where = args.real_prompts or args.prompts
        ids = read_prompts(where)["image_id"].drop_duplicates().tolist()
        rows = manifest_rows(manifest, ids, str(where))
        parts.append(real_collection(rows, settings.size, squash, args.threads))
        n_real = len(ids)
    if args.setting != "real_only":
        parts.append(
            synthetic_collection(
                args.shards, prompts, manifest, settings.size, squash, args.threads
            )
        )
    return (parts[0] if len(parts) == 1 else concatenate(parts)), n_real


def _arguments(argv: list[str] | None) -> tuple[argparse.Namespace, ClassifierSettings]:
    parser = train_parser(__doc__, SETTINGS, ClassifierSettings)
    parser.add_argument("--network", type=Path, help="the trained network, safetensors")
    parser.add_argument(
        "--real-prompts",
        type=Path,
        help="whose radiographs the real images are, where not those of --prompts",
    )
    args = parser.parse_args(argv)
    if (args.setting == "real_only") != (not args.shards):
        parser.error("--shards belongs to augmented and synthetic_only, and to them alone")
    return args, settings_of_flags(ClassifierSettings, args, parser)


if __name__ == "__main__":
    run_script(main)
