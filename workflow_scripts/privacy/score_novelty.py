"""Score one model's novelty: are images closer to training radiographs than captions explain?

    python -m workflow_scripts.privacy.score_novelty --model sd_v1_4 --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/privacy.parquet \\
        --held-out-prompts results/cohort/prompts/test.parquet \\
        --real results/features/real/train --held-out results/features/real/held_out \\
        --generated results/features/sd_v1_4/privacy --answers results/features/sd_v1_4/test \\
        --output results/privacy/novelty/sd_v1_4.json

It reads rad_dino.h5 of all four folders and writes one record.

The design is crossed: images from training captions and from held-out captions, each compared with
the radiographs of both kinds of captions. An image is closer to the radiographs of its own side if
it reproduces one of them, but also if it follows its caption. An image from a held-out caption can
only do the latter. So the share of images that are closer to their own side is computed for both
kinds of captions. The excess is the difference of the two shares. It is zero for a model that
memorised nothing, however much its captions say about a radiograph.

Both sides have the same number of patients with the same findings. Each patient has one radiograph
and one image from its caption. A test prompt has one image; a privacy prompt has several
replicates, of which each draw takes one at random.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, Value
from workflow_scripts.features.cache import Features
from workflow_scripts.fidelity.arrays import CPU, blocks
from workflow_scripts.fidelity.inputs import (
    ScoredModel,
    model_of,
    of_prompts,
    read_encoder,
    require_comparable,
    rows_of,
)
from workflow_scripts.fidelity.resample import wilson_interval
from workflow_scripts.generate.make_control import draw_matched, positive_masks
from workflow_scripts.privacy.scripts import (
    privacy_arguments,
    privacy_record,
    read_with_held_out,
    settings_of,
    write_scored,
)
from workflow_scripts.privacy.settings import Settings

log = logging.getLogger(__name__)

ENCODER: Final = "rad_dino"
DRAWS: Final = 100
MATCHINGS: Final = 4
"""Random matchings for each draw of patients, which also choose one caption for each patient."""

FEWEST_PATIENTS: Final = 4
"""Fewest patients of each side; a draw takes half of them."""


@dataclass(frozen=True)
class Side:
    """Captions of one kind, their radiographs, and the images generated from them.

    Attributes:
        radiographs: (p, d) features of each caption's radiograph.
        patients: (p,) the patient of each radiograph.
        findings: (p,) uint16 bit masks, see `positive_masks`.
        images: (m, d) features of the images, at least one from each caption; or (0, d) if the
            side has no images.
        captions: (m,) the row of each image's caption.
        shown_patients: (m,) the patient that a control's image shows; "" for generated images.
    """

    radiographs: np.ndarray
    patients: np.ndarray
    findings: np.ndarray
    images: np.ndarray
    captions: np.ndarray
    shown_patients: np.ndarray

    @property
    def answered(self) -> bool:
        """Whether the side has images."""
        return len(self.images) > 0


@dataclass(frozen=True)
class Nearness:
    """Shares of images that are closer to their own side's radiographs, in each draw.

    Attributes:
        training: (draws,) the share of the images from training captions.
        held_out: (draws,) the share of the images from held-out captions; None without any.
        patients: number of patients on each side of a draw.
    """

    training: np.ndarray
    held_out: np.ndarray | None
    patients: int


def nearness(
    training: Side,
    held_out: Side,
    draws: int = DRAWS,
    seed: int = 0,
    device: torch.device = CPU,
) -> Nearness:
    """Compare each side's images with the radiographs of both.

    Each draw takes half of each side's patients, and one caption of each patient. The patients of
    the smaller side are matched with as many of the other side, with the same findings or the most
    similar ones. One image from each caption is drawn. An image at equal distance from both sides
    counts half.

    A control shows a real patient. A model cannot reproduce a patient that it has not seen, so some
    pairs are excluded, each with its match. An image from a held-out caption is not compared with
    the patient that it shows. Nor is an image from a training caption, if that patient is held out.

    Args:
        training: captions that the model was trained on, with images.
        held_out: captions of patients that the model never saw.
        draws: number of draws.
        seed: of the draws.
        device: where to compute.

    Raises:
        ValueError: a patient is on both sides, or there are too few patients.
    """
    sides = (training, held_out)
    edges = np.cumsum([len(x) for side in sides for x in (side.patients, side.shown_patients)])[:-1]
    names = np.concatenate([x for side in sides for x in (side.patients, side.shown_patients)])
    # Patients' names become numbers, which compare faster.
    codes = np.split(np.unique(names.astype(str), return_inverse=True)[1], edges)
    training, held_out = (
        replace(side, patients=codes[2 * k], shown_patients=codes[2 * k + 1])
        for k, side in enumerate(sides)
    )
    counts = [len(np.unique(side.patients)) for side in (training, held_out)]
    if len(np.intersect1d(training.patients, held_out.patients)):
        raise ValueError("a patient is on both sides")
    if min(counts) < FEWEST_PATIENTS:
        raise ValueError(f"{min(counts)} patients, fewer than {FEWEST_PATIENTS}")
    size = min(counts) // 2
    rng = np.random.default_rng(seed)
    shares = np.zeros((2, draws))
    progress = Progress("novelty", draws, "draws")
    for draw in range(draws):
        halves = [_half(side.patients, rng) for side in (training, held_out)]
        for _ in range(MATCHINGS):
            captions = _matched((training, held_out), halves, size, rng)
            shares[:, draw] += _own_shares(training, held_out, captions, rng, device)
        progress.update()
    shares /= MATCHINGS
    return Nearness(shares[0], shares[1] if held_out.answered else None, size)


def _half(patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of a random half of the patients."""
    names = np.unique(patients)
    return np.flatnonzero(np.isin(patients, rng.choice(names, len(names) // 2, replace=False)))


def _matched(
    sides: tuple[Side, Side], halves: list[np.ndarray], size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return `size` captions of different patients for each side, matched row by row.

    Args:
        sides: the training and the held-out side.
        halves: the captions of each side to draw from.
        size: captions to return for each side.
        rng: draws the captions.
    """
    pools = [
        rows[_one_each(side.patients[rows], rng)] for side, rows in zip(sides, halves, strict=True)
    ]
    fewer = int(len(pools[1]) < len(pools[0]))
    lead = rng.choice(pools[fewer], size, replace=False)
    findings = sides[fewer].findings[lead]
    candidates = sides[1 - fewer].findings[pools[1 - fewer]]
    labels = [str(i) for i in range(size)]
    matches = draw_matched(findings, labels, candidates, int(rng.integers(2**31)))
    captions = [lead, pools[1 - fewer][matches]]
    return captions[::-1] if fewer else captions


def _one_each(patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the row of one random caption of each patient."""
    order = rng.permutation(len(patients))
    return order[np.unique(patients[order], return_index=True)[1]]


def _own_shares(
    training: Side,
    held_out: Side,
    captions: list[np.ndarray],
    rng: np.random.Generator,
    device: torch.device,
) -> tuple[float, float]:
    """Return the share of each side's images that are closer to their own side; 0 without images.

    Args:
        training: see `nearness`.
        held_out: see `nearness`.
        captions: the rows of captions of each side, (k,) and (k,).
        rng: draws the image of each caption.
        device: where to compute.
    """
    training_rows, held_out_rows = captions
    radiographs = training.radiographs[training_rows], held_out.radiographs[held_out_rows]
    trained_on, unseen = training.patients[training_rows], held_out.patients[held_out_rows]
    rows = _one_image(training, training_rows, rng)
    left_out = training.shown_patients[rows, None] == unseen
    of_training = _nearer(training.images[rows], *radiographs, left_out, device).mean()
    if not held_out.answered:
        return float(of_training), 0.0
    rows = _one_image(held_out, held_out_rows, rng)
    shown = held_out.shown_patients[rows, None]
    left_out = (shown == unseen) | (shown == trained_on)
    of_held_out = 1 - _nearer(held_out.images[rows], *radiographs, left_out, device).mean()
    return float(of_training), float(of_held_out)


def _one_image(side: Side, captions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the row of one random image of each caption."""
    order = np.argsort(side.captions, kind="stable")
    first, last = (
        np.searchsorted(side.captions[order], captions, way) for way in ("left", "right")
    )
    return order[rng.integers(first, last)]


def _nearer(
    images: np.ndarray,
    trained_on: np.ndarray,
    unseen: np.ndarray,
    left_out: np.ndarray,
    device: torch.device,
) -> np.ndarray:
    """Return 1 for an image closer to `trained_on`, 0 if closer to `unseen`, 0.5 if neither, (m,).

    Args:
        images: (m, d).
        trained_on: (k, d) radiographs.
        unseen: (k, d) radiographs; row i is matched with row i of `trained_on`.
        left_out: (m, k) bool, the matched pairs that are not compared with each image.
        device: where to compute.
    """
    sides = [torch.from_numpy(x.astype(np.float64)).to(device) for x in (trained_on, unseen)]
    parts = []
    for rows in blocks(len(images), len(trained_on)):
        points = torch.from_numpy(images[rows].astype(np.float64)).to(device)
        excluded = torch.from_numpy(left_out[rows]).to(device)
        nearest = [
            torch.cdist(points, radiographs).masked_fill(excluded, torch.inf).amin(1)
            for radiographs in sides
        ]
        parts.append((1 - (nearest[0] - nearest[1]).sign()) / 2)
    return torch.cat(parts).cpu().numpy()


def novelty_values(shares: Nearness, n: int, n_held_out: int, why_not: str = "") -> list[Value]:
    """Return the share of each side's images that are closer to their own side, and the excess.

    A mean over half of the patients, drawn without replacement, varies like a mean over as many new
    patients as there are in all (Politis and Romano, 1994). So the spread of the draws gives the
    intervals. They are conservative, because the mean of all draws varies less. Each draw compares
    both sides with the same radiographs, so effects of these cancel in the excess.

    Args:
        shares: see `nearness`.
        n: number of images from training captions.
        n_held_out: number of images from held-out captions.
        why_not: the reason if there are no images from held-out captions.
    """
    patients, kind = shares.patients, "half samples of patients 95%"
    names = ("nearer_to_training", "nearer_to_held_out", "nearer_to_training_excess")
    of_training = _share(names[0], shares.training, "lower", n, patients)
    if shares.held_out is None:
        return [
            of_training,
            Value(names[1], None, "none", 0, "all", patients, reason=why_not),
            Value(names[2], None, "lower", n, "all", patients, reason=why_not),
        ]
    of_held_out = _share(names[1], shares.held_out, "none", n_held_out, patients)
    excess = shares.training - shares.held_out
    mean, half = float(excess.mean()), 1.96 * float(excess.std(ddof=1))
    interval = (max(-1.0, mean - half), min(1.0, mean + half))
    if half == 0:
        # If all draws agree, they have no spread and would claim certainty.
        (low, high), (other_low, other_high) = (
            value.interval or (0, 1) for value in (of_training, of_held_out)
        )
        interval = (low - other_high, high - other_low)
    difference = Value(names[2], mean, "lower", n, "all", patients, interval, kind)
    return [of_training, of_held_out, difference]


def _share(name: str, shares: np.ndarray, way: str, n: int, patients: int) -> Value:
    mean, half = float(shares.mean()), 1.96 * float(shares.std(ddof=1))
    interval, kind = (max(0.0, mean - half), min(1.0, mean + half)), "half samples of patients 95%"
    if half == 0:
        # If all draws agree, they have no spread and would claim certainty.
        interval, kind = wilson_interval(mean, 2 * patients), "Wilson 95%"
    return Value(name, mean, way, n, "all", patients, interval, kind)


def held_out_prompts(prompts: pd.DataFrame, manifest: pd.DataFrame, where: Path) -> pd.DataFrame:
    """Return the test prompts of patients that no model was trained on, one for each radiograph.

    Second wordings are left out, because the caption already asks for the same radiograph.

    Args:
        prompts: the prompt set `test`.
        manifest: the cohort's manifest.
        where: the prompt set's file, for errors.

    Raises:
        InputError: the manifest lacks a radiograph.
    """
    rows = rows_of(manifest["image_id"], list(prompts["image_id"]), where, "manifest")
    trained_on = manifest.loc[manifest["split"] == "train", "patient_id"]
    unseen = ~manifest["patient_id"].iloc[rows].isin(trained_on).to_numpy()
    return prompts[unseen & ~prompts["second_wording"].to_numpy(bool)]


def side_of(
    prompts: pd.DataFrame,
    manifest: pd.DataFrame,
    real: Features,
    real_folder: Path,
    generated: Features | None,
    generated_folder: Path | None,
) -> Side:
    """Return one side of the comparison; if there are images, only captions that have one.

    Args:
        prompts: the prompts of this side.
        manifest: the cohort's manifest.
        real: features of radiographs, which include those of the prompts.
        real_folder: the folder of `real`, for errors.
        generated: features of the images generated from these prompts; None without any.
        generated_folder: the folder of `generated`, for errors.

    Raises:
        InputError: a radiograph has no features, or an image belongs to no prompt.
    """
    if generated is not None:
        where = generated_folder or real_folder
        prompts = prompts.iloc[rows_of(prompts["prompt_id"], generated.ids, where, "prompt set")]
    described, captions = np.unique(prompts["image_id"].to_numpy(str), return_inverse=True)
    names = list(described)
    feature_rows = rows_of(real.ids, names, real_folder, "features of radiographs")
    radiographs = manifest.iloc[rows_of(manifest["image_id"], names, real_folder, "manifest")]
    side = Side(
        real.features[feature_rows],
        radiographs["patient_id"].to_numpy(str),
        positive_masks(radiographs),
        np.empty((0, real.features.shape[1]), np.float32),
        np.empty(0, np.int64),
        np.empty(0, "U1"),
    )
    if generated is None:
        return side
    patient_of = manifest.set_index("image_id")["patient_id"]
    sources = generated.source_ids or [""] * len(captions)
    shown = np.array([patient_of.get(source, "") for source in sources], dtype=str)
    return replace(side, images=generated.features, captions=captions, shown_patients=shown)


def score(
    model: ScoredModel,
    settings: Settings,
    test_prompts: Path,
    held_out_folder: Path,
    answers_folder: Path | None,
    device: torch.device,
) -> Record:
    """Read features and return a model's record.

    Args:
        model: see `ScoredModel`.
        settings: only the seed is used.
        test_prompts: the prompt set `test`.
        held_out_folder: the features of the held-out radiographs.
        answers_folder: the features of the images from `test`; None if the model has none.
        device: where to compute.

    Raises:
        InputError: features are missing, damaged, not comparable or of other prompts.
    """
    real, held_out, generated = read_with_held_out(
        model.key, model.protocol, model.real, held_out_folder, model.generated
    )
    files = [real, held_out, generated]
    manifest, every_test_prompt = read_manifest(model.manifest), read_prompts(test_prompts)
    asked = held_out_prompts(every_test_prompt, manifest, test_prompts)
    answers, reason = None, "the model has no test images with features of RAD-DINO"
    if deviations(model.protocol).fidelity_squash_299:
        reason = (
            f"under {model.protocol}, test images are prepared otherwise than those for privacy"
        )
    elif answers_folder is not None:
        test_images = read_encoder(answers_folder, ENCODER, model.protocol, model.key, "fidelity")
        both = f"{ENCODER}.h5 of {answers_folder} and {model.generated}"
        require_comparable(test_images, generated, both)
        files.append(test_images)
        answers = of_prompts(test_images, asked, every_test_prompt, answers_folder)
        if not answers.ids:
            answers, reason = None, "no held-out caption has an image"
    training = side_of(
        read_prompts(model.prompts), manifest, real, model.real, generated, model.generated
    )
    unseen = side_of(asked, manifest, held_out, held_out_folder, answers, answers_folder)
    values, patients = _values(training, unseen, settings.seed, device, reason)
    details = {"draws": DRAWS, **({"patients": patients} if patients else {})}
    return privacy_record(model, "novelty", values, details, settings, files, device_name(device))


def _values(
    training: Side, held_out: Side, seed: int, device: torch.device, why_not: str
) -> tuple[list[Value], int]:
    """Return the values, and the patients on each side of a draw: 0 if there are too few."""
    n, n_held_out = len(training.images), len(held_out.images)
    counts = [len(np.unique(side.patients)) for side in (training, held_out)]
    if min(counts) < FEWEST_PATIENTS:
        kind = ("training", "held-out")[int(np.argmin(counts))]
        reason = f"fewer than {FEWEST_PATIENTS} patients have {kind} captions"
        return [
            Value("nearer_to_training", None, "lower", n, reason=reason),
            Value("nearer_to_held_out", None, "none", n_held_out, reason=reason),
            Value("nearer_to_training_excess", None, "lower", n, reason=reason),
        ], 0
    shares = nearness(training, held_out, seed=seed, device=device)
    return novelty_values(shares, n, n_held_out, why_not), shares.patients


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    parser = privacy_arguments((__doc__ or "").splitlines()[0], gpus=True)
    add: Callable[..., Any] = parser.add_argument
    add("--held-out-prompts", required=True, type=Path, help="the prompt set `test`")
    add("--held-out", required=True, type=Path, help="folder of held-out radiographs' features")
    add("--answers", type=Path, help="folder of the features of the model's test images, if any")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    record = score(
        model_of(args),
        settings_of(args),
        args.held_out_prompts,
        args.held_out,
        args.answers,
        pick_device(args.gpus),
    )
    write_scored(record, args.output)


if __name__ == "__main__":
    run_script(main)
