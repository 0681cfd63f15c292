"""Train a re-identification network on a cohort's own patients.

    python -m workflow_scripts.features.train_reid --manifest results/cohort/manifest.parquet \\
        --weights weights/resnet50.a1_in1k/model.safetensors --size 256 --epochs 11 \\
        --batch-size 64 --learning-rate 1e-4 --validation-share 0.05 --rotation-degrees 5 \\
        --contrast 0.1 --seed 42 --progress results/features/reid/.progress \\
        --output results/features/reid/weights.pth --history results/features/reid/training.csv

Use it for data other than MIMIC-CXR, for which weights are published. It reads the images of the
training split, and initial weights: a ResNet in torchvision's or timm's layout, or a
re-identification network to fine-tune. It writes a state dict in the published layout, its
preprocessing in a file next to it, and the losses of each epoch. The test and validation splits are
not used, because the attacker is evaluated on them.

The method is that of Packhaeuser et al., 2022: a Siamese network, binary cross-entropy, Adam, and
half of the pairs from one patient. Here the two images of a negative pair come from the same site.
Otherwise the site alone would tell most patients apart, and a network that learned sites would
score well without recognising patients.
"""

import argparse
import csv
import hashlib
import io
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau

from workflow_scripts.common.checkpoints import load_exactly, load_state
from workflow_scripts.common.devices import accelerator_on, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of, whole_file, write_text
from workflow_scripts.common.images import ImageItem
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.pixels import normalise, rotate, to_unit
from workflow_scripts.common.resnet import check_pretrained, pretrained_resnet
from workflow_scripts.common.seeded_order import random_stream
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.common.squares import decode_square
from workflow_scripts.common.training import Epoch, begin_attempt, best_epoch, curve, train
from workflow_scripts.common.validation import split_by_patient
from workflow_scripts.features.encoders import reid
from workflow_scripts.features.encoders.transform import SIDECAR
from workflow_scripts.features.settings import ReidSettings

log = logging.getLogger(__name__)

WIDTH: Final = 128
"""Width of a branch's features, as published."""

MOST_VALIDATION_PAIRS: Final = 10_000
_PAIRS, _ANGLES, _LIGHT, _VALIDATION = 2, 3, 4, 5  # random streams; the training loop uses 0 and 1


@dataclass(frozen=True)
class Pairs:
    """Pairs of images.

    Attributes:
        first: (p,) row number of the first image.
        second: (p,) row number of the second image.
        same: (p,) bool, whether they show one patient.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


class Population:
    """The images that pairs are drawn from.

    Args:
        patients: (n,) the patient of each image.
        sites: (n,) the site of each image; all images of a patient come from one site.

    Raises:
        InputError: no patient has two images, or no site has two patients.
    """

    def __init__(self, patients: np.ndarray, sites: np.ndarray):
        self.patients = np.unique(patients.astype(str), return_inverse=True)[1]
        self.sites = np.unique(sites.astype(str), return_inverse=True)[1]
        self.of_patient = _groups(self.patients)
        self.of_site = _groups(self.sites)
        sizes = np.bincount(self.patients)
        self.paired = np.flatnonzero(sizes[self.patients] > 1)
        # The rows whose site has another patient.
        counts = [len(np.unique(self.patients[rows])) for rows in self.of_site]
        self.opposed = np.flatnonzero(np.array(counts)[self.sites] > 1)
        for rows, lacking in (
            (self.paired, "patients with two images"),
            (self.opposed, "sites with two patients"),
        ):
            if not len(rows):
                raise InputError(f"there are no {lacking}", "the training split")

    def draw(self, count: int, rng: np.random.Generator) -> Pairs:
        """Draw `count` pairs, half of them from one patient, the others from one site."""
        same = rng.permutation(count) < count // 2
        first = np.where(same, rng.choice(self.paired, count), rng.choice(self.opposed, count))
        second = np.empty(count, np.int64)
        for i, row in enumerate(first):
            patient, site = self.patients[row], self.sites[row]
            candidates = self.of_patient[patient] if same[i] else self.of_site[site]
            while True:
                other = candidates[rng.integers(len(candidates))]
                of_one_patient = self.patients[other] == patient
                if other != row and of_one_patient == same[i]:
                    break
            second[i] = other
        return Pairs(first, second, same)


def _groups(codes: np.ndarray) -> list[np.ndarray]:
    """Return the rows that have each code, in the order of the codes."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


class VerificationTask:
    """Losses over pairs of images in memory; see `training.Task`.

    Args:
        pixels: uint8 (n, size, size).
        training: the rows of `pixels` to train on, and the population of these images.
        validation: pairs to validate on, as rows of `pixels`.
        settings: see `ReidSettings`. Pairs and augmentation depend on the seed and the epoch alone;
            images are rotated, and their contrast and brightness changed, either way.
        device: the network's device.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        training: tuple[np.ndarray, Population],
        validation: Pairs,
        settings: ReidSettings,
        device: torch.device,
    ):
        self.pixels, self.validation = pixels, validation
        self.rows, self.population = training
        self.n_train = settings.pairs or len(self.rows)
        self.settings, self.device = settings, device
        self._drawn: tuple[int, Pairs] | None = None

    def _pairs(self, epoch: int) -> Pairs:
        if self._drawn is None or self._drawn[0] != epoch:
            rng = random_stream(self.settings.seed, epoch, _PAIRS)
            self._drawn = epoch, self.population.draw(self.n_train, rng)
        return self._drawn[1]

    def weight(self, rows: np.ndarray) -> int:
        """Return the number of rows: the loss is a mean over them."""
        return len(rows)

    def loss(self, network: nn.Module, rows: np.ndarray, epoch: int) -> Tensor:
        """Return the mean binary cross-entropy of augmented training pairs."""
        pairs = self._pairs(epoch)
        sides = []
        for side, members in enumerate((pairs.first, pairs.second)):
            images = to_unit(self.pixels[self.rows[members[rows]]], self.device)
            sides.append(normalise(self._augmented(images, rows, epoch, side)))
        same = torch.from_numpy(pairs.same[rows]).float().to(self.device)
        return functional.binary_cross_entropy_with_logits(network(*sides), same)

    def _augmented(self, images: Tensor, rows: np.ndarray, epoch: int, side: int) -> Tensor:
        def drawn(stream: int, limit: float) -> Tensor:
            rng = random_stream(self.settings.seed, epoch, stream, side)
            values = rng.uniform(-limit, limit, (self.n_train, 2))[rows]
            return torch.from_numpy(values).float().to(self.device)

        if self.settings.rotation_degrees > 0:
            images = rotate(images, drawn(_ANGLES, self.settings.rotation_degrees)[:, 0])
        if self.settings.contrast > 0:
            gain, shift = drawn(_LIGHT, self.settings.contrast)[:, :, None, None, None].unbind(1)
            images = (images * (1 + gain) + shift).clamp(0, 1)
        return images

    def validation_loss(self, network: nn.Module) -> float:
        """Return the mean binary cross-entropy of the validation pairs, without augmentation."""
        total, pairs = 0.0, self.validation
        for start in range(0, len(pairs.same), self.settings.batch_size):
            batch = slice(start, start + self.settings.batch_size)
            sides = [
                normalise(to_unit(self.pixels[rows[batch]], self.device))
                for rows in (pairs.first, pairs.second)
            ]
            same = torch.from_numpy(pairs.same[batch]).float().to(self.device)
            losses = functional.binary_cross_entropy_with_logits(
                network(*sides), same, reduction="sum"
            )
            total += float(losses)
        return total / len(pairs.same)


def check(weights: Path) -> None:
    """Check initial weights: a ResNet, or a re-identification network.

    Raises:
        InputError: the file is neither, or damaged.
    """
    if _is_siamese(weights):
        reid.check(weights)
    else:
        check_pretrained(weights)


def _is_siamese(weights: Path) -> bool:
    return weights.suffix != ".safetensors" and "fc_end.weight" in load_state(weights)


def initial_network(weights: Path, seed: int) -> reid.SiameseNetwork:
    """Build the network with its initial weights; `seed` initialises layers that the file lacks.

    Raises:
        InputError: see `check`.
    """
    if _is_siamese(weights):
        state = load_state(weights)
        network = reid.siamese_for(state, weights)
        load_exactly(network, state, weights)
        return network
    network = reid.SiameseNetwork(pretrained_resnet(weights, WIDTH, seed))
    # With these values, two equal images score as one patient's from the first step on.
    nn.init.constant_(network.fc_end.bias, 5.0)
    nn.init.constant_(network.fc_end.weight, -0.5)
    return network


def draw_sides(
    patients: np.ndarray, sites: np.ndarray, settings: ReidSettings, where: Path
) -> tuple[tuple[np.ndarray, Population], Pairs]:
    """Return the rows to train on with their population, and the validation pairs.

    The two share no patient.

    Args:
        patients: (n,) the patient of each image.
        sites: (n,) the site of each image.
        settings: the validation share and the seed.
        where: the manifest, for errors.

    Raises:
        InputError: see `Population`.
    """
    training, validation = split_by_patient(patients, settings.validation_share, settings.seed)
    try:
        held_out = Population(patients[validation], sites[validation])
    except InputError as error:
        raise InputError(
            f"{error.what} for validation", where, "give more patients, or a larger share"
        ) from None
    count = min(MOST_VALIDATION_PAIRS, 4 * len(validation))
    pairs = held_out.draw(count, random_stream(settings.seed, 0, _VALIDATION))
    population = Population(patients[training], sites[training])
    log.info(
        "%d images of %d patients to train on, %d of %d to validate on",
        *(len(training), len(population.of_patient)),
        *(len(validation), len(held_out.of_patient)),
    )
    rows = Pairs(validation[pairs.first], validation[pairs.second], pairs.same)
    return (training, population), rows


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args, settings = _arguments(argv)
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    accelerator = accelerator_on(device)
    frame = read_manifest(args.manifest)
    frame = frame[frame["split"] == "train"]
    if frame.empty:
        raise InputError("no image of the training split", args.manifest, "check the split")
    patients = frame["patient_id"].to_numpy(str)
    sites = frame["site"].fillna("").to_numpy(str)
    training, validation = draw_sides(patients, sites, settings, args.manifest)
    items = (ImageItem(i, p) for i, p in zip(frame["image_id"], frame["path"], strict=True))
    pixels = decode_square(
        items, len(frame), settings.size, True, args.threads, "reading radiographs"
    )

    network = initial_network(args.weights, settings.seed).to(accelerator.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    task = VerificationTask(pixels, training, validation, settings, accelerator.device)
    attempt = begin_attempt(args.progress, accelerator)
    history = train(
        network,
        task,
        optimizer,
        ReduceLROnPlateau(optimizer, factor=0.1, patience=settings.patience),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
        attempt=attempt,
        key=_key(args, settings, (pixels, patients, sites)),
        accelerator=accelerator,
        label="re-identification",
    )
    if attempt is None:
        return
    attempt.check()
    _write_history(history, args.history)
    _write_weights(network, settings.size, args.output)
    attempt.end()
    log.info("the best of %d epochs is %d", len(history), best_epoch(history) + 1)


def _key(args: argparse.Namespace, settings: ReidSettings, arrays: Sequence[np.ndarray]) -> str:
    """Return a digest of all that a training depends on; a killed one continues under its own."""
    made_by = {
        **asdict(settings),
        "weights_sha256": sha256_of(args.weights),
        "version": args.version,
    }
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _write_history(history: list[Epoch], path: Path) -> None:
    """Write the losses of each epoch as CSV."""
    text = io.StringIO()
    columns = ["epoch", "training_loss", "validation_loss", "learning_rate"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(curve(history))
    write_text(path, text.getvalue())


def _write_weights(network: nn.Module, size: int, path: Path) -> None:
    """Write a network's preprocessing and then its state dict."""
    sides = {"height": size, "width": size}
    preprocessing = json.dumps({"do_center_crop": False, "size": sides}, indent=2)
    write_text(path.parent / SIDECAR, preprocessing + "\n")
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with whole_file(path, owner_only=True) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)  # given a path, torch would write the file's name into it


def _arguments(argv: list[str] | None) -> tuple[argparse.Namespace, ReidSettings]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add: Callable[..., Any] = parser.add_argument
    add("--manifest", type=Path, required=True)
    add("--weights", type=Path, required=True, help="initial weights")
    add_flags(parser, ReidSettings)
    add("--version", type=int, default=1, help="version of the stage")
    add("--progress", type=Path, required=True, help="folder; removed at the end")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--output", type=Path, required=True, help="state dict, .pth")
    add("--history", type=Path, required=True, help="losses of each epoch, CSV")
    args = parser.parse_args(argv)
    return args, settings_of_flags(ReidSettings, args, parser)


if __name__ == "__main__":
    run_script(main)
