"""Score one model's fidelity: every metric, over all images and for each of the 14 findings.

    python -m workflow_scripts.fidelity.score --model sd_v1_4 --encoder rad_dino --protocol sound \\
        --manifest results/cohort/manifest.parquet --prompts results/cohort/prompts/test.parquet \\
        --real results/features/real/test --generated results/features/sd_v1_4/test \\
        --output results/fidelity/rad_dino/sd_v1_4.json

Needs the encoder's file of the real and of the generated images, and biovil_t_image.h5 and
biovil_t_text.h5 of the generated ones; makes one record.

The reference is each answered prompt's own radiograph, once; beside it stand all films of these
studies and the whole test set, see `references.py`. Under `as_published` it is the radiograph of
every prompt, answered or not.

An image has a finding where its label is 1 (neither -1 nor missing): a generated image by the
labels of its prompt, a control by those of the radiograph it shows.
"""

import argparse
import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from workflow_scripts.common.as_published import PROTOCOLS, deviations
from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import (
    FINDINGS,
    read_manifest,
    read_prompts,
    scored_prompts,
)
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.features.cache import Features
from workflow_scripts.fidelity.alignment import cosine_alignment, mean_with_interval
from workflow_scripts.fidelity.arrays import CPU
from workflow_scripts.fidelity.floor import (
    ENOUGH,
    Floor,
    RealImages,
    fid_floor,
    floor_of_finding,
    matched_floor,
    without_partner,
)
from workflow_scripts.fidelity.frechet import frechet_distance
from workflow_scripts.fidelity.inputs import (
    digest_of,
    of_prompts,
    origin,
    read_comparable,
    read_encoder,
    rows_in_order_of,
    rows_of,
)
from workflow_scripts.fidelity.jackknife import corrected_distance, why_withheld
from workflow_scripts.fidelity.kernel import kernel_distance, why_no_distance
from workflow_scripts.fidelity.manifold import manifold_overlap
from workflow_scripts.fidelity.references import OTHER_REFERENCES, answered, reference_rows
from workflow_scripts.fidelity.resample import (
    Resamples,
    Units,
    draw_resamples,
    means_without,
    units_of,
)

log = logging.getLogger(__name__)

ENCODERS: Final = ("rad_dino", "inception_v3", "densenet_121")
"""Whose features the distances may be taken in."""

SUBSETS: Final = ("all", *FINDINGS)
METRICS: Final = {
    "fid": "lower",
    "fid_floor": "none",
    "fid_floor_matched": "none",
    "prompts_without_partner": "none",
    "fid_corrected": "lower",
    "kid": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
    "alignment": "higher",
}
"""The metrics of a record and which direction is better; see also `other_reference_values`."""

OVERLAPS: Final = ("precision", "recall", "density", "coverage")

FLOORS: Final = ("fid_floor", "fid_floor_matched", "prompts_without_partner")
"""Of real images against real images; no generated image takes part."""


@dataclass(frozen=True)
class Settings:
    """What the values depend on beside the features."""

    nearest_k: int = 5
    kid_bootstrap: int = 1000
    seed: int = 42


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        features: (n, d) float32.
        subsets: (n, 15) bool, the columns as in `SUBSETS`.
        patients: (n,) who is shown; of a generated image, who its prompt is of.
    """

    features: np.ndarray
    subsets: np.ndarray
    patients: np.ndarray

    def only(self, rows: np.ndarray) -> "Side":
        """Return the images of some rows, (k,) numbers."""
        return Side(self.features[rows], self.subsets[rows], self.patients[rows])


@dataclass
class Measured:
    """Values as they are found, and what a reader of the record may want beside them.

    Attributes:
        values: of every subset.
        floors: per floor and subset how it was measured.
        replicates: per metric over all images, `{"kind": "bootstrap" | "jackknife", "values"}`:
            what it would have been with other images. Models with the same prompts have the same
            resamples and groups, so that their differences have replicates, too.
    """

    values: list[Value]
    floors: dict[str, Any]
    replicates: dict[str, Any]


def distribution_values(
    real: Side,
    generated: Side,
    settings: Settings,
    device: torch.device = CPU,
    *,
    kid_within_patients: bool = False,
) -> Measured:
    """Compare two sets of images: FID and its floors, KID and the manifolds, for every subset.

    A subset with too few images on a side has values of None with the reason.

    Args:
        real: the reference.
        generated: what is judged.
        settings: k, bootstrap replicates and seed.
        device: where to compute.
        kid_within_patients: see `Deviations.kid_pairs_within_patients`.
    """
    found = Measured([], {name: {} for name in ("fid_floor", "fid_floor_matched")}, {})
    progress = Progress("fidelity", len(SUBSETS), "subsets")
    for column, subset in enumerate(SUBSETS):
        chosen, asked = real.subsets[:, column], generated.subsets[:, column]
        x, y = real.features[chosen], generated.features[asked]
        units = units_of(real.patients[chosen], generated.patients[asked])
        _add_overlap(found, x, y, units, subset, settings, device)
        reason = _too_few(len(y), len(x), 2, subset)
        if reason is not None:
            absent = ("fid", *FLOORS, "fid_corrected", "kid")
            found.values += [_value(name, None, subset, len(y), len(x), reason) for name in absent]
            progress.update()
            continue
        fid = frechet_distance(x, y, device)
        found.values.append(_value("fid", fid, subset, len(y), len(x)))
        _add_kid(found, x, y, units, column, settings, device, kid_within_patients)
        _add_corrected(found, x, y, units, subset, device)
        _add_floors(found, real, len(y), column, settings, device)
        progress.update()
    return found


def other_reference_values(
    name: str,
    real: Side,
    generated: Side,
    settings: Settings,
    device: torch.device = CPU,
    *,
    kid_within_patients: bool = False,
) -> list[Value]:
    """Compare the generated images with another reference than the prompts' own radiographs.

    FID and KID for every subset; precision, recall, density, coverage and the interval of KID over
    all images. A metric is called `fid_studies`, `kid_test_set`, ...

    Args:
        name: of the reference, a key of `OTHER_REFERENCES`.
        real: the reference.
        generated: what is judged.
        settings: k, bootstrap replicates and seed.
        device: where to compute.
        kid_within_patients: see `Deviations.kid_pairs_within_patients`.
    """
    found = Measured([], {}, {})
    for column, subset in enumerate(SUBSETS):
        chosen, asked = real.subsets[:, column], generated.subsets[:, column]
        x, y = real.features[chosen], generated.features[asked]
        units = units_of(real.patients[chosen], generated.patients[asked])
        if subset == "all":
            _add_overlap(found, x, y, units, subset, settings, device)
        reason = _too_few(len(y), len(x), 2, subset)
        if reason is not None:
            absent = ("fid", "kid")
            found.values += [
                _value(metric, None, subset, len(y), len(x), reason) for metric in absent
            ]
            continue
        fid = frechet_distance(x, y, device)
        found.values.append(_value("fid", fid, subset, len(y), len(x)))
        own = settings if subset == "all" else replace(settings, kid_bootstrap=0)
        _add_kid(found, x, y, units, column, own, device, kid_within_patients)
    return [replace(value, metric=f"{value.metric}_{name}") for value in found.values]


def resamples_of(column: int, units: Units, settings: Settings) -> Resamples | None:
    """Return the resamples of a subset, the same for all metrics and for all models of its size.

    Every subset draws from its own stream, so that one subset never moves another's numbers.

    Args:
        column: of the subset in `SUBSETS`.
        units: the patients of the rows.
        settings: how many replicates, and the seed.

    Returns:
        None where the settings ask for none, or one patient of a side cannot be drawn anew.
    """
    if not settings.kid_bootstrap or units.fewest < 2:
        return None
    rng = np.random.default_rng([settings.seed, column, 0])
    return draw_resamples(units, settings.kid_bootstrap, rng)


def replicates(kind: str, values: np.ndarray, units: int) -> dict[str, Any]:
    """Return a metric's replicates as a record holds them, to seven digits.

    Args:
        kind: `bootstrap` or `jackknife`.
        values: (r,).
        units: what was drawn or left out, of the smaller side: patients, or groups of them.
    """
    kept = [float(f"{value:.7g}") for value in values]
    return {"kind": kind, "units": units, "values": kept}


def alignment_values(cosines: np.ndarray, subsets: np.ndarray, patients: np.ndarray) -> list[Value]:
    """Return the mean alignment with its interval, for every subset.

    Args:
        cosines: (n,) of each image with its caption.
        subsets: (n, 15) bool, the columns as in `SUBSETS`.
        patients: (n,) who each image's prompt is of.
    """
    values = []
    for column, subset in enumerate(SUBSETS):
        chosen = cosines[subsets[:, column]]
        if not len(chosen):
            reason = _too_few(0, None, 1, subset)
            values.append(_value("alignment", None, subset, 0, None, reason))
            continue
        mean, interval = mean_with_interval(chosen, patients[subsets[:, column]])
        kind = None if interval is None else "t 95% over patients"
        direction = METRICS["alignment"]
        values.append(
            Value("alignment", mean, direction, len(chosen), subset, None, interval, kind)
        )
    return values


def positive_subsets(findings: pd.DataFrame) -> np.ndarray:
    """Return (n, 15) bool: all rows, then per finding the rows where it is 1 (-1 is not)."""
    positive = findings[list(FINDINGS)].fillna(0).eq(1).to_numpy(bool)
    return np.column_stack([np.ones(len(positive), dtype=bool), positive])


def generated_findings(
    features: Features, prompts: pd.DataFrame, manifest: pd.DataFrame, where: Path
) -> pd.DataFrame:
    """Return the findings of generated images, in the order of the features.

    Those of the prompt; for a control, those of the radiograph it shows.

    Args:
        features: of a generated collection.
        prompts: the prompt set.
        manifest: `image_id` and the findings, at least.
        where: the folder of the features, for errors.

    Raises:
        InputError: an id that is no prompt, or a shown radiograph that is not in the manifest.
    """
    names = list(FINDINGS)
    rows = rows_of(prompts["prompt_id"], features.ids, where, "prompt set")
    found = prompts[names].iloc[rows].reset_index(drop=True)
    sources = np.array(features.source_ids or [""] * len(features.ids), dtype=object)
    shown = np.array([bool(source) for source in sources], dtype=bool)
    if shown.any():
        rows = rows_of(manifest["image_id"], list(sources[shown]), where, "manifest")
        found.loc[shown] = manifest[names].iloc[rows].set_axis(np.flatnonzero(shown))
    return found


def require_captions(
    texts: Features, prompts: pd.DataFrame, manifest: pd.DataFrame, where: Path
) -> None:
    """Refuse features of other captions than those that the images were made from.

    The caption of a prompt; for a control, that of the radiograph it shows.

    Args:
        texts: of the captions of a generated collection.
        prompts: the prompt set.
        manifest: `image_id` and `caption`, at least.
        where: the folder of the features, for errors.

    Raises:
        InputError: the features' `captions_sha256` is another, or missing.
    """
    asked = dict(zip(prompts["prompt_id"], prompts["caption"], strict=True))
    shown = dict(zip(manifest["image_id"], manifest["caption"], strict=True))
    sources = texts.source_ids or [""] * len(texts.ids)
    digest = hashlib.sha256()
    for name, source in zip(texts.ids, sources, strict=True):
        caption = shown.get(source) if source else asked.get(name)
        digest.update(hashlib.sha256((caption or "").encode()).digest())
    found, expected = texts.attrs.get("captions_sha256"), digest.hexdigest()
    if found != expected:
        raise InputError(
            f"features of other captions: captions_sha256 {found!r}, {expected!r} expected",
            where / f"{texts.attrs['encoder']}.h5",
            "rerun the features stage for this collection",
        )


def patients_of_prompts(
    features: Features, prompts: pd.DataFrame, manifest: pd.DataFrame, where: Path
) -> np.ndarray:
    """Return the patient of each generated image's prompt, (n,), in the order of the features.

    Of a control, too: what it shows was chosen for the prompt.

    Args:
        features: of a generated collection.
        prompts: the prompt set.
        manifest: `image_id` and `patient_id`, at least.
        where: the folder of the features, for errors.

    Raises:
        InputError: an id that is no prompt, or a prompt of no radiograph in the manifest.
    """
    rows = rows_of(prompts["prompt_id"], features.ids, where, "prompt set")
    asked = list(prompts["image_id"].iloc[rows])
    found = rows_of(manifest["image_id"], asked, where, "manifest")
    return manifest["patient_id"].iloc[found].to_numpy(str)


def score(
    model: str,
    encoder: str,
    protocol: str,
    manifest_path: Path,
    prompts_path: Path,
    real_folder: Path,
    generated_folder: Path,
    settings: Settings,
    device: torch.device = CPU,
) -> Record:
    """Read a model's features and return its fidelity record.

    Raises:
        InputError: features that are missing, damaged, not comparable, or of images that the
            manifest or the prompt set does not know.
    """
    switches = deviations(protocol)
    columns = ["image_id", "patient_id", "study_id", "caption", *FINDINGS]
    manifest = read_manifest(manifest_path, columns)
    every_prompt = read_prompts(prompts_path)
    prompts = scored_prompts(every_prompt, protocol)
    own = (protocol, model, "fidelity")
    real, *made = read_comparable(real_folder, generated_folder, encoder, *own)
    made += [
        read_encoder(generated_folder, name, *own) for name in ("biovil_t_image", "biovil_t_text")
    ]
    generated, images, texts = (
        of_prompts(part, prompts, every_prompt, generated_folder) for part in made
    )

    rows = rows_of(manifest["image_id"], real.ids, real_folder, "manifest")
    test_set = manifest.iloc[rows].reset_index(drop=True)
    asked_for = prompts
    if not switches.fidelity_reference_of_all_prompts:
        asked_for = answered(prompts, generated)
    own_rows, other_rows = reference_rows(test_set, asked_for, str(real_folder))
    findings = generated_findings(generated, prompts, manifest, generated_folder)
    subsets = positive_subsets(findings)
    if len(generated.ids) < len(prompts):
        log.warning("%s: %d of %d prompts have an image", model, len(generated.ids), len(prompts))

    whole = Side(real.features, positive_subsets(test_set), test_set["patient_id"].to_numpy(str))
    asked = patients_of_prompts(generated, prompts, manifest, generated_folder)
    judged = Side(generated.features, subsets, asked)
    within = switches.kid_pairs_within_patients
    found = distribution_values(
        whole.only(own_rows), judged, settings, device, kid_within_patients=within
    )
    for name in OTHER_REFERENCES:
        found.values += other_reference_values(
            name,
            whole.only(other_rows[name]),
            judged,
            settings,
            device,
            kid_within_patients=within,
        )
    image_rows = rows_in_order_of(generated, images, generated_folder)
    text_rows = rows_in_order_of(generated, texts, generated_folder)
    require_captions(made[-1], every_prompt, manifest, generated_folder)
    cosines = np.zeros(0)
    if len(generated.ids):
        cosines = cosine_alignment(images.features[image_rows], texts.features[text_rows])
    found.values += alignment_values(cosines, subsets, asked)
    if len(np.unique(asked)) > 1:
        left = means_without(cosines, asked)
        found.replicates["alignment"] = replicates("jackknife", left, len(left))
    return Record(
        stage="fidelity",
        model=model,
        family=encoder,
        protocol=protocol,
        values=found.values,
        details={
            **asdict(settings),
            "prompts": len(prompts),
            "dimensions": int(real.features.shape[1]),
            "floors": found.floors,
            "images_sha256": {
                "real": digest_of(list(test_set["image_id"].iloc[own_rows])),
                "generated": digest_of(generated.ids),
            },
            "replicates": found.replicates,
        },
        provenance=provenance(
            {"protocol": protocol, **asdict(settings)},
            device_name(device),
            [origin(features) for features in (real, generated, images, texts)],
        ),
    )


def _add_overlap(
    found: Measured,
    x: np.ndarray,
    y: np.ndarray,
    units: Units,
    subset: str,
    settings: Settings,
    device: torch.device,
) -> None:
    reason = _too_few(len(y), len(x), settings.nearest_k + 1, subset)
    if reason is not None:
        found.values += [_value(name, None, subset, len(y), len(x), reason) for name in OVERLAPS]
        return
    try:
        overlap = manifold_overlap(x, y, settings.nearest_k, device, units)
    except ValueError as error:  # checked for all else before
        raise InputError(
            str(error), subset, "look at the weights of the encoder and its preprocessing"
        ) from None
    intervals = overlap.intervals()
    for name in OVERLAPS:
        kind = "jackknife 95%" if name == "density" else "jackknife 95%, fixed radii"
        value = Value(
            name,
            getattr(overlap, name),
            METRICS[name],
            len(y),
            subset,
            len(x),
            intervals.get(name),
            kind if name in intervals else None,
        )
        found.values.append(value)
    if subset == "all" and intervals:
        for name, left in overlap.without_groups().items():
            found.replicates[name] = replicates("jackknife", left, len(left))


def _add_kid(
    found: Measured,
    x: np.ndarray,
    y: np.ndarray,
    units: Units,
    column: int,
    settings: Settings,
    device: torch.device,
    within_patients: bool,
) -> None:
    subset = SUBSETS[column]
    reason = None if within_patients else why_no_distance(units)
    if reason is not None:
        found.values.append(_value("kid", None, subset, len(y), len(x), reason))
        return
    resamples = resamples_of(column, units, settings)
    kid = kernel_distance(x, y, units, resamples, device, within_units=within_patients)
    kind = None if kid.interval is None else "bootstrap 95% over patients"
    value = Value("kid", kid.value, METRICS["kid"], len(y), subset, len(x), kid.interval, kind)
    found.values.append(value)
    if subset == "all" and kid.interval is not None:
        found.replicates["kid"] = replicates("bootstrap", kid.replicates, units.fewest)


def _add_corrected(
    found: Measured,
    x: np.ndarray,
    y: np.ndarray,
    units: Units,
    subset: str,
    device: torch.device,
) -> None:
    n, n_reference = len(y), len(x)
    reason = why_withheld(units, x.shape[1])
    if reason is not None:
        found.values.append(_value("fid_corrected", None, subset, n, n_reference, reason))
        return
    corrected = corrected_distance(x, y, units, device)
    found.values.append(
        Value(
            "fid_corrected",
            corrected.value,
            METRICS["fid_corrected"],
            n,
            subset,
            n_reference,
            corrected.interval,
            "jackknife 95%",
        )
    )
    if subset == "all":
        found.replicates["fid_corrected"] = replicates(
            "jackknife", corrected.without_groups, len(corrected.without_groups)
        )


def _add_floors(
    found: Measured,
    real: Side,
    n: int,
    column: int,
    settings: Settings,
    device: torch.device,
) -> None:
    """Add the floors of a subset, at the sizes of the comparison.

    Args:
        found: what they are added to.
        real: the reference.
        n: how many generated images are compared.
        column: of the subset in `SUBSETS`.
        settings: the seed.
        device: where to compute.
    """
    subset, chosen = SUBSETS[column], real.subsets[:, column]
    findings = np.unique(real.subsets[:, 1:], axis=0, return_inverse=True)[1].ravel()
    images = RealImages(real.features, real.patients, findings)
    own, m = images.only(chosen), int(chosen.sum())
    rng = np.random.default_rng([settings.seed, column, 1])
    if subset == "all":
        floor = fid_floor(images, n, m, rng, device)
    else:
        floor = floor_of_finding(images, chosen, n, m, rng, device)
    reason = f"{len(real.patients)} real image(s) give no two groups of different patients"
    _add_floor(found, "fid_floor", floor, subset, n, m, reason)
    rng = np.random.default_rng([settings.seed, column, 2])
    floor = matched_floor(own, n, m, rng, device, images)
    reason = (
        f"fewer than {ENOUGH} pairs of real images of two patients with the same findings, "
        "no patient on both sides"
    )
    _add_floor(found, "fid_floor_matched", floor, subset, n, m, reason)
    alone = float(without_partner(own))
    found.values.append(_value("prompts_without_partner", alone, subset, m))


def _add_floor(
    found: Measured,
    metric: str,
    floor: Floor | None,
    subset: str,
    n: int,
    n_reference: int,
    reason: str,
) -> None:
    if floor is None:
        found.values.append(_value(metric, None, subset, n, n_reference, reason))
        return
    told = {"groups": list(floor.measured), "draws": floor.draws}
    if metric == "fid_floor":
        told["drawn_from"] = "finding" if floor.of_finding else "all"
    found.floors[metric][subset] = told
    found.values.append(_value(metric, floor.value, subset, floor.n, floor.n_reference))


def _value(
    metric: str,
    value: float | None,
    subset: str,
    n: int,
    n_reference: int | None = None,
    reason: str | None = None,
) -> Value:
    return Value(metric, value, METRICS[metric], n, subset, n_reference, reason=reason)


def _too_few(n: int, n_reference: int | None, minimum: int, subset: str) -> str | None:
    """Return why a subset is too small, or None where it is not."""
    of = "" if subset == "all" else " with this finding"
    needed = f" ({minimum} needed)" if minimum > 2 else ""
    sides: list[tuple[int | None, str]] = [(n, "generated"), (n_reference, "reference")]
    for count, side in sides:
        if count is not None and count < minimum:
            return f"only {count} {side} image(s){of}{needed}"
    return None


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add: Callable[..., Any] = parser.add_argument
    add("--model", required=True, help="the model's key in the config")
    add("--encoder", required=True, choices=ENCODERS)
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="the prompt set `test`")
    add("--real", required=True, type=Path, help="folder of the real images' features")
    add("--generated", required=True, type=Path, help="folder of the model's features")
    add("--nearest-k", type=int, default=Settings.nearest_k)
    add("--kid-bootstrap", type=int, default=Settings.kid_bootstrap, help="0: no interval")
    add("--seed", type=int, default=Settings.seed)
    add("--threads", type=int, default=1)
    add("--gpus", type=int, default=0)
    add("--output", required=True, type=Path)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    device = pick_device(args.gpus)
    record = score(
        args.model,
        args.encoder,
        args.protocol,
        args.manifest,
        args.prompts,
        args.real,
        args.generated,
        Settings(args.nearest_k, args.kid_bootstrap, args.seed),
        device,
    )
    write_record(record, args.output)
    fid, kid = record.get("fid"), record.get("kid")
    log.info("%s, %s: FID %s, KID %s, n %d", args.model, args.encoder, fid.value, kid.value, fid.n)


if __name__ == "__main__":
    run_script(main)
