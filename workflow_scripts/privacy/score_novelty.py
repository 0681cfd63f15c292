"""Score one model's novelty: are its images nearer to its training radiographs than to unseen ones?

    python -m workflow_scripts.privacy.score_novelty --model sd_v1_4 --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/privacy.parquet \\
        --real results/features/real/train --held-out results/features/real/held_out \\
        --generated results/features/sd_v1_4/privacy --output results/privacy/novelty/sd_v1_4.json

Needs rad_dino.h5 of all three; makes one record.

Two references: the radiographs whose captions are the prompts, which a model that memorises gives
back, and as many held-out ones with the same findings; one radiograph of a patient, no patient in
both. A model that learned no single image is as near to one reference as to the other, as far as
captions say no more than findings. A third set, further training radiographs with the same findings
again, of patients in neither reference, shows what the share is where nothing can be memorised.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.fidelity.arrays import CPU, blocks
from workflow_scripts.fidelity.inputs import (
    REAL,
    origin,
    read_comparable,
    read_encoder,
    require_comparable,
    rows_of,
)
from workflow_scripts.fidelity.resample import wilson_interval
from workflow_scripts.generate.make_control import draw_matched, positive_masks
from workflow_scripts.privacy.held_out import held_out_rows
from workflow_scripts.privacy.score import Settings, gpus_argument, model_arguments

log = logging.getLogger(__name__)

DRAWS = 100
MATCHINGS = 4
"""Of each draw's patients: which radiographs stand for them and are matched is a draw, too."""

FEWEST_PATIENTS = 4
"""Of each kind: half of them are drawn at a time."""


@dataclass(frozen=True)
class Radiographs:
    """Real radiographs to draw references from.

    Attributes:
        features: (n, d), of which these are some rows.
        rows: (r,) which.
        patients: (r,) the patient of each.
        findings: (r,) uint16, see `positive_masks`.
    """

    features: np.ndarray
    rows: np.ndarray
    patients: np.ndarray
    findings: np.ndarray

    def take(self, which: np.ndarray) -> "Radiographs":
        """Return some of them; features are not copied."""
        return Radiographs(
            self.features, self.rows[which], self.patients[which], self.findings[which]
        )

    @property
    def points(self) -> np.ndarray:
        """Their features, (r, d) float64."""
        return self.features[self.rows].astype(np.float64)


def radiographs(features: np.ndarray, manifest: pd.DataFrame) -> Radiographs:
    """Return radiographs with what the manifest says of them, row by row."""
    patients = manifest["patient_id"].to_numpy(str)
    return Radiographs(features, np.arange(len(patients)), patients, positive_masks(manifest))


@dataclass(frozen=True)
class Generated:
    """Generated images.

    Attributes:
        features: (m, d), m >= 1.
        prompts: (m,) the feature row of each one's own radiograph.
        shown: (m,) the patient that a control shows; "" of generated images.
    """

    features: np.ndarray
    prompts: np.ndarray
    shown: np.ndarray


@dataclass(frozen=True)
class Nearness:
    """Shares of images that are nearer to the prompts' radiographs than to held-out ones, by draw.

    Attributes:
        generated: (draws,) of the generated images.
        third: (draws,) of the third set's real images.
        patients: in each reference.
    """

    generated: np.ndarray
    third: np.ndarray
    patients: int


def nearness(
    generated: Generated,
    own: Radiographs,
    held_out: Radiographs,
    others: Radiographs,
    draws: int = DRAWS,
    seed: int = 0,
    device: torch.device = CPU,
) -> Nearness:
    """Compare distances to the prompts' radiographs and to as many held-out ones like them.

    Each draw takes half of each kind's patients. Of these, the prompts' patients (as many of them
    as there are of the fewest kind) give one radiograph each, and each of those is matched with a
    held-out radiograph and one of the third set, all of different patients, with the same findings
    or the nearest. An image as near to one reference as to the other counts half. Where a control
    shows a held-out patient, that patient's radiograph does not count, nor the one that it was
    matched with.

    Args:
        generated: the images.
        own: the prompts' radiographs.
        held_out: radiographs of patients that the model never saw.
        others: further training radiographs.
        draws: of references.
        seed: of the draws.
        device: where to compute.

    Raises:
        ValueError: a patient in two of the sets, or too few patients.
    """
    kinds = (own, held_out, others)
    everybody = np.concatenate([*(kind.patients for kind in kinds), generated.shown])
    codes = np.unique(everybody, return_inverse=True)[1]
    edges = np.cumsum([len(kind.patients) for kind in kinds])
    coded = np.split(codes, edges)  # numbers instead of names: there are many
    counts = [len(np.unique(found)) for found in coded[:3]]
    if len(np.unique(np.concatenate(coded[:3]))) < sum(counts):
        raise ValueError("a patient is in two of the sets")
    if min(counts) < FEWEST_PATIENTS:
        raise ValueError(f"{min(counts)} patients, fewer than {FEWEST_PATIENTS}")
    numbered = [replace(x, patients=found) for x, found in zip(kinds, coded[:3], strict=True)]
    generated = replace(generated, shown=coded[3])
    size = min(counts) // 2
    rng = np.random.default_rng(seed)
    shares = np.zeros((2, draws))
    progress = Progress("novelty", draws, "draws")
    for draw in range(draws):
        halves = [kind.take(_half(kind.patients, rng)) for kind in numbered]
        for _ in range(MATCHINGS):
            shares[:, draw] += _shares(generated, _matched(halves, size, rng), device)
        progress.update()
    shares /= MATCHINGS
    return Nearness(shares[0], shares[1], size)


def _half(patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of half of the patients."""
    names = np.unique(patients)
    return np.flatnonzero(np.isin(patients, rng.choice(names, len(names) // 2, replace=False)))


def _matched(
    kinds: Sequence[Radiographs], size: int, rng: np.random.Generator
) -> list[Radiographs]:
    """Return `size` prompts' radiographs, and as many of each other kind, matched with them."""
    own, *rest = kinds
    seen = own.take(rng.choice(_one_each(own.patients, rng), size, replace=False))
    found = [seen]
    labels = [str(i) for i in range(size)]
    for kind in rest:
        pool = kind.take(_one_each(kind.patients, rng))
        seed = int(rng.integers(2**31))
        found.append(pool.take(draw_matched(seen.findings, labels, pool.findings, seed)))
    return found


def _one_each(patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the row of one radiograph of each patient."""
    order = rng.permutation(len(patients))
    return order[np.unique(patients[order], return_index=True)[1]]


def _shares(
    generated: Generated, references: Sequence[Radiographs], device: torch.device
) -> tuple[float, float]:
    """Return which shares of the prompts' images and of the third set are nearer to the first.

    Args:
        generated: the images.
        references: the prompts' radiographs, held-out ones, the third set.
        device: where to compute.
    """
    seen, unseen, third = references
    asked = np.flatnonzero(np.isin(generated.prompts, seen.rows))
    shown = generated.shown[asked, None] == unseen.patients[None]
    nearer = _nearer(generated.features[asked], seen, unseen, shown, device)
    prompts = np.unique(generated.prompts[asked], return_inverse=True)[1]
    own = (np.bincount(prompts, nearer) / np.bincount(prompts)).mean()
    none = np.zeros((len(third.patients), len(seen.patients)), bool)
    return float(own), float(_nearer(third.points, seen, unseen, none, device).mean())


def _nearer(
    images: np.ndarray,
    seen: Radiographs,
    unseen: Radiographs,
    left_out: np.ndarray,
    device: torch.device,
) -> np.ndarray:
    """Return for each image 1 where it is nearer to `seen`, 0 to `unseen`, 0.5 to neither.

    Args:
        images: (m, d).
        seen: k radiographs.
        unseen: k radiographs, each matched with the one of `seen` at its place.
        left_out: (m, k) pairs of them that do not count for an image.
        device: where to compute.
    """
    a, b = (torch.from_numpy(x.points).to(device) for x in (seen, unseen))
    parts = []
    for rows in blocks(len(images), len(a)):
        points = torch.from_numpy(images[rows].astype(np.float64)).to(device)
        away = torch.from_numpy(left_out[rows]).to(device)
        nearest = [torch.cdist(points, of).masked_fill(away, torch.inf).amin(1) for of in (a, b)]
        parts.append((1 - (nearest[0] - nearest[1]).sign()) / 2)
    return torch.cat(parts).cpu().numpy()


def novelty_values(found: Nearness, n: int) -> list[Value]:
    """Return the shares of the model's images and of the third set's, and their difference.

    A mean over half of the patients, drawn without replacement, varies as one over all of them
    would if they were other patients: the intervals follow from the spread of the draws (at the
    null some 1.8 times wider than needed, for the mean of all draws varies less). Model and third
    set stand before the same references in each draw, so that what these have in common
    cancels in the difference.
    """
    values = []
    for name, shares, way, count in (
        ("nearer_to_training", found.generated, "lower", n),
        ("nearer_to_training_real", found.third, "none", found.patients),
        ("nearer_to_training_excess", found.generated - found.third, "lower", n),
    ):
        mean, half = float(shares.mean()), 1.96 * float(shares.std(ddof=1))
        interval, kind = (mean - half, mean + half), "half samples of patients 95%"
        if not name.endswith("excess"):
            interval = (max(0.0, interval[0]), min(1.0, interval[1]))
        if mean in (0, 1) and not name.endswith("excess"):
            # All alike in every draw: the draws would call that certain.
            interval, kind = wilson_interval(mean, 2 * found.patients), "Wilson 95%"
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
    encoder, purpose = "rad_dino", "privacy"
    folders = (real_folder, generated_folder)
    training, generated = read_comparable(*folders, encoder, protocol, model, purpose)
    held_out = read_encoder(held_out_folder, encoder, protocol, REAL, purpose)
    both = f"{encoder}.h5 of {held_out_folder} and {generated_folder}"
    require_comparable(held_out, generated, both)
    if not generated.ids:
        raise InputError("a collection without images has no privacy", generated_folder)
    prompts = read_prompts(prompts_path)
    asked = rows_of(prompts["prompt_id"], generated.ids, generated_folder, "prompt set")
    manifest = read_manifest(manifest_path)
    patient_of = manifest.set_index("image_id")["patient_id"]
    known = manifest.iloc[rows_of(manifest["image_id"], training.ids, real_folder, "manifest")]
    trained = radiographs(training.features, known)
    names = prompts["image_id"].iloc[asked].tolist()
    prompt = rows_of(training.ids, names, real_folder, "training radiographs")
    rows, unseen = held_out_rows(manifest_path, held_out, held_out_folder)
    prompted = np.isin(trained.patients, trained.patients[prompt])
    kinds = (
        trained.take(np.unique(prompt)),
        radiographs(held_out.features[rows], unseen),
        trained.take(np.flatnonzero(~prompted)),
    )
    shown = [patient_of.get(source, "") for source in generated.source_ids or [""] * len(names)]
    details: dict[str, int] = {"draws": DRAWS}
    fewest = [len(np.unique(kind.patients)) for kind in kinds]
    if min(fewest) < FEWEST_PATIENTS:
        of = ("prompts'", "held-out", "further training")[int(np.argmin(fewest))]
        values = [
            Value(name, None, way, len(asked), reason=f"fewer than {FEWEST_PATIENTS} {of} patients")
            for name, way in (
                ("nearer_to_training", "lower"),
                ("nearer_to_training_real", "none"),
                ("nearer_to_training_excess", "lower"),
            )
        ]
    else:
        images = Generated(generated.features, prompt, np.array(shown, dtype=str))
        found = nearness(images, *kinds, seed=settings.seed, device=device)
        values = novelty_values(found, len(asked))
        details["patients"] = found.patients
    return Record(
        stage="privacy",
        model=model,
        family="novelty",
        protocol=protocol,
        values=values,
        details=details,
        provenance=provenance(
            {"protocol": protocol, **asdict(settings)},
            device_name(device),
            [origin(file) for file in (training, held_out, generated)],
        ),
    )


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    parser = gpus_argument(model_arguments((__doc__ or "").splitlines()[0]))
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
