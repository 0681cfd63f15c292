"""Train a multi-label classifier on real images, synthetic images or both; apply it to test images.

The paper shows the results in Tables 4 and 15. The real images are the radiographs of the augment
prompts, the synthetic ones a model's images of the same prompts, and the test images the whole test
split. The script writes one file, the probability of each finding for each test image; `score`
makes the record from it. With `--network` it also writes the trained network, which judges
generated images (faithfulness).

A step takes its batch in pieces of at most `--per-device-batch-size` images and sums the gradients.
The sum equals the gradient of the whole batch, except that batch normalisation takes mean and
variance over a piece and updates its moving averages once per piece. Only pieces as large as the
batch repeat the unaccumulated training exactly.
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
from torch.optim.lr_scheduler import ReduceLROnPlateau

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.manifest import FINDINGS, read_manifest, read_prompts
from workflow_scripts.common.resnet import pretrained_resnet
from workflow_scripts.common.settings import settings_of_flags
from workflow_scripts.common.training import Epoch, begin_attempt, best_epoch, curve, train
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

SETTINGS: Final = ("real_only", "augmented", "synthetic_only")


@dataclass(frozen=True)
class _Data:
    """All images, which are read before the network.

    Attributes:
        images: images to train and validate on, real ones first.
        n_real: the number of real ones.
        training: rows of `images` to train on.
        validation: rows of `images` to validate on.
        test: the test split.
    """

    images: Collection
    n_real: int
    training: np.ndarray
    validation: np.ndarray
    test: Collection


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args, settings = _arguments(argv)
    accelerator = accelerator_of(args, settings.mixed_precision)
    check_one_process(args.gpus, accelerator)
    data = _read_data(args, settings)
    noted = noted_settings(args, settings, {"weights"})
    noted["weights_sha256"] = sha256_of(settings.weights)
    attempt = begin_attempt(args.progress, accelerator)
    network, history = _train(args, settings, data, noted, accelerator, attempt)
    probabilities = predict(network, data.test.pixels, _at_once(settings), accelerator.device)
    if attempt is None:
        return
    random_split = deviations(args.protocol).classification_random_validation
    positive = data.images.labels[data.training].sum(axis=0)
    run = {
        **described(args, noted, accelerator.device),
        **counted(data.training, data.validation, data.n_real),
        "labels": "1 is positive; 0, -1 (uncertain) and unmentioned are negative",
        "validation_split": "random" if random_split else "by patient",
        "n_train_positive": {name: int(positive[k]) for k, name in enumerate(FINDINGS)},
        "best_epoch": best_epoch(history) + 1,
        "curve": curve(history),
    }
    if args.network is not None:
        attempt.check()
        write_network(args.network, network, run)
    scores = {name: probabilities[:, k] for k, name in enumerate(FINDINGS)}
    columns = {"image_id": data.test.ids, "patient_id": data.test.patients, **scores}
    publish(args.output, columns, run, attempt)
    log.info("%d test images classified", len(data.test))


def _read_data(args: argparse.Namespace, settings: ClassifierSettings) -> _Data:
    """Read and divide the images; test images too, so that a broken one is found before training.

    Raises:
        InputError: an image is missing or broken, or a test patient is among those to train on.
    """
    switches = deviations(args.protocol)
    squash = switches.classification_squash
    manifest = read_manifest(args.manifest)
    test_rows = manifest[manifest["split"] == "test"]
    images, n_real = training_images(args, settings, manifest, squash)
    check_disjoint(images, test_rows)
    test = real_collection(test_rows, settings.size, squash, args.threads)
    share, seed = settings.validation_share, settings.seed
    if switches.classification_random_validation:
        training, validation = split_at_random(len(images), share, seed)
    else:
        training, validation = split_by_patient(images.patients, share, seed)
    log.info("%d images to train on, %d to validate on", len(training), len(validation))
    return _Data(images, n_real, training, validation, test)


def _at_once(settings: ClassifierSettings) -> int:
    return min(settings.batch_size, settings.per_device_batch_size or settings.batch_size)


def _train(
    args: argparse.Namespace,
    settings: ClassifierSettings,
    data: _Data,
    noted: dict[str, Any],
    accelerator: Accelerator,
    attempt: Attempt | None,
) -> tuple[torch.nn.Module, list[Epoch]]:
    """Train the network; return it in float32, also after training in bf16."""
    images = data.images
    network, optimizer, scheduler = _learner(settings, accelerator.device)
    task = ClassificationTask(
        images.pixels,
        images.labels,
        data.training,
        data.validation,
        batch_size=_at_once(settings),
        rotation_degrees=settings.rotation_degrees,
        flip=deviations(args.protocol).classification_horizontal_flip,
        seed=settings.seed,
        device=accelerator.device,
    )
    made_by = {**noted, "code": own_digests("downstream.classification.train")}
    history = train(
        network,
        task,
        optimizer,
        scheduler,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
        attempt=attempt,
        key=run_key(made_by, images.pixels, images.labels, data.training, data.validation),
        accelerator=accelerator,
        label=f"classifier {args.setting}/{args.model}",
        per_device_batch_size=_at_once(settings),
    )
    return accelerator.unwrap_model(network, keep_fp32_wrapper=False), history


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
        help="prompts to take the real images from; by default those of --prompts",
    )
    args = parser.parse_args(argv)
    if (args.setting == "real_only") != (not args.shards):
        parser.error("give --shards with augmented and synthetic_only, and with no other setting")
    return args, settings_of_flags(ClassifierSettings, args, parser)


if __name__ == "__main__":
    run_script(main)
