"""Score one model's novelty: are its images nearer to training radiographs than to unseen ones?

    python -m workflow_scripts.privacy.score_novelty --model sd_v1_4 --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/privacy.parquet \\
        --real results/features/real/train --held-out results/features/real/held_out \\
        --generated results/features/sd_v1_4/privacy --output results/privacy/novelty/sd_v1_4.json

Needs rad_dino.h5 of all three; makes one record.

A model that learned the distribution and no single image is as near to radiographs that it never
saw as to those it was trained on. The larger reference would win by its size alone, and one with
several radiographs of a patient would be the poorer one: here both have one radiograph of each of
as many patients, and none in common. References are drawn again and again. A third set, real
radiographs of yet other held-out patients, shows what the share is where nothing was memorised.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.fidelity.arrays import CPU
from workflow_scripts.fidelity.inputs import origin, read_comparable, read_encoder, rows_of
from workflow_scripts.privacy.score import Settings, model_arguments

log = logging.getLogger(__name__)

DRAWS = 100
FEWEST_PATIENTS = 4
"""Held out: half of them are the reference, the others the third set."""


@dataclass(frozen=True)
class Nearness:
    """Shares of images that are nearer to training than to held-out radiographs, by draw.

    Attributes:
        generated: (draws,) of the generated images.
        resampled: (draws,) the same of prompts drawn anew with replacement.
        third: (draws,) of the third set's real images.
        patients: in each reference.
    """

    generated: np.ndarray
    resampled: np.ndarray
    third: np.ndarray
    patients: int


def nearness(
    generated: np.ndarray,
    prompts: np.ndarray,
    training: np.ndarray,
    training_patients: np.ndarray,
    held_out: np.ndarray,
    held_out_patients: np.ndarray,
    draws: int = DRAWS,
    seed: int = 0,
    device: torch.device = CPU,
) -> Nearness:
    """Compare distances to a training and a held-out reference of as many patients.

    In each draw half of the held-out patients (and as many training patients) are the reference,
    the other held-out patients the third set, each patient with one radiograph. An image as near
    to one as to the other counts half.

    Args:
        generated: (m, d), m >= 1.
        prompts: (m,) the prompt of each; its replicates are drawn together.
        training: (n, d).
        training_patients: (n,).
        held_out: (h, d), of at least `FEWEST_PATIENTS` patients, none of them a training patient.
        held_out_patients: (h,).
        draws: of references and of prompts.
        seed: of the draws.
        device: where to compute.

    Raises:
        ValueError: a patient in both references, or too few patients.
    """
    if set(training_patients.tolist()) & set(held_out_patients.tolist()):
        raise ValueError("a patient is in both references")
    unseen, known = _by_patient(held_out_patients), _by_patient(training_patients)
    size = min(len(unseen) // 2, len(known))
    if len(unseen) < FEWEST_PATIENTS or size < 1:
        raise ValueError(f"{len(unseen)} held-out and {len(known)} training patients")
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(np.asarray(generated, np.float64)).to(device)
    units = np.unique(prompts, return_inverse=True)[1]
    own = np.empty(draws)
    resampled, third = own.copy(), own.copy()
    progress = Progress("novelty", draws, "draws")
    for draw in range(draws):
        order = rng.permutation(len(unseen))
        chosen = rng.permutation(len(known))[:size]
        seen = _points(training, [known[i] for i in chosen], rng, device)
        reference = _points(held_out, [unseen[i] for i in order[:size]], rng, device)
        others = _points(held_out, [unseen[i] for i in order[size:]], rng, device)
        nearer = _nearer(images, seen, reference)
        weights = np.bincount(
            rng.integers(0, units.max() + 1, units.max() + 1), minlength=units.max() + 1
        )[units]
        own[draw], resampled[draw] = nearer.mean(), np.average(nearer, weights=weights)
        third[draw] = _nearer(others, seen, reference).mean()
        progress.update()
    return Nearness(own, resampled, third, size)


def _by_patient(patients: np.ndarray) -> list[np.ndarray]:
    """Return each patient's rows."""
    codes = np.unique(patients, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _points(
    features: np.ndarray, rows: list[np.ndarray], rng: np.random.Generator, device: torch.device
) -> torch.Tensor:
    """Return one point of each patient."""
    chosen = [int(rng.choice(of)) for of in rows]
    return torch.from_numpy(features[chosen].astype(np.float64)).to(device)


def _nearer(
    images: torch.Tensor, seen: torch.Tensor, unseen: torch.Tensor, block: int = 4096
) -> np.ndarray:
    """Return for each image 1 where it is nearer to `seen`, 0 to `unseen`, 0.5 to neither."""
    parts = []
    for rows in images.split(block):
        gap = torch.cdist(rows, seen).amin(dim=1) - torch.cdist(rows, unseen).amin(dim=1)
        parts.append((1 - gap.sign()) / 2)
    return torch.cat(parts).cpu().numpy()


def novelty_values(found: Nearness, n: int) -> list[Value]:
    """Return the share of the model's images and of the third set's, with intervals over draws.

    Half of the patients, drawn without replacement, vary about as all of them would if they were
    other patients; the prompts are drawn anew beside them.
    """
    values = []
    for name, shares, spread, way, count in (
        ("nearer_to_training", found.generated, found.resampled, "lower", n),
        ("nearer_to_training_real", found.third, found.third, "none", found.patients),
    ):
        low, high = (float(bound) for bound in np.quantile(spread, [0.025, 0.975]))
        mean = float(shares.mean())
        interval = (min(low, mean), max(high, mean))
        kind = "draws of patients and prompts 95%"
        values.append(Value(name, mean, way, count, "all", found.patients, interval, kind))
    return values


def score(
    model: str,
    protocol: str,
    manifest_path: Path,
    prompts_path: Path,
    real_folder: Path,
    held_out_folder: Path,
    generated_folder: Path,
    settings: Settings,
    device: torch.device,
) -> Record:
    """Read features and return a model's record.

    Raises:
        InputError: features that are missing, damaged, not comparable or of other prompts.
    """
    training, generated = read_comparable(real_folder, generated_folder, "rad_dino", protocol)
    held_out = read_encoder(held_out_folder, "rad_dino", protocol)
    if not generated.ids:
        raise InputError("a collection without images has no privacy", generated_folder)
    prompts = read_prompts(prompts_path)
    rows = rows_of(prompts["prompt_id"], generated.ids, generated_folder, "prompt set")
    manifest = read_manifest(manifest_path, ["image_id", "patient_id"])
    patients = manifest["patient_id"].to_numpy(str)
    known = patients[rows_of(manifest["image_id"], training.ids, real_folder, "manifest")]
    unseen = patients[rows_of(manifest["image_id"], held_out.ids, held_out_folder, "manifest")]
    both = sorted(set(known) & set(unseen))
    if both:
        raise InputError(
            f"{len(both)} patient(s) are in training and held out, first {both[0]!r}",
            held_out_folder,
            "check the split",
        )
    details: dict[str, int] = {"draws": DRAWS}
    if len(set(unseen)) < FEWEST_PATIENTS:
        reason = f"fewer than {FEWEST_PATIENTS} held-out patients"
        values = [
            Value(name, None, way, len(rows), reason=reason)
            for name, way in (("nearer_to_training", "lower"), ("nearer_to_training_real", "none"))
        ]
    else:
        found = nearness(
            generated.features,
            prompts["image_id"].to_numpy(str)[rows],
            training.features,
            known,
            held_out.features,
            unseen,
            seed=settings.seed,
            device=device,
        )
        values = novelty_values(found, len(rows))
        details["patients"] = found.patients
    return Record(
        stage="privacy",
        model=model,
        family="novelty",
        protocol=protocol,
        values=values,
        details=details,
        provenance=provenance(
            {
                "protocol": protocol,
                **asdict(settings),
                "inputs": [origin(file) for file in (training, held_out, generated)],
            },
            device_name(device),
        ),
    )


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    parser = model_arguments((__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--held-out", required=True, type=Path, help="folder of held-out radiographs' features"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    record = score(
        args.model,
        args.protocol,
        args.manifest,
        args.prompts,
        args.real,
        args.held_out,
        args.generated,
        Settings(args.threshold, args.bootstrap, args.seed),
        pick_device(args.gpus),
    )
    write_record(record, args.output)
    for value in record.values:
        log.info("%s: %s %s (n %d)", args.model, value.metric, value.value, value.n)


if __name__ == "__main__":
    run_script(main)
