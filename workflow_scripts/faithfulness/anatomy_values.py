"""Anatomy of generated images against that of radiographs: distances, plausibility, the prompt.

What is measured of an image is in `anatomy`. Of a model: how far the distributions of its images
lie from those of its prompts' own radiographs, beside the distance that radiographs of two groups
of patients have (the floor); the share of images that no radiograph looks like, by a rule that is
set on half of the test patients and whose false alarms are counted on the other half; and whether
the cardiothoracic ratio follows the prompt.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd
from scipy import stats

from workflow_scripts.common.records import Value
from workflow_scripts.downstream.classification.metrics import drawn, points
from workflow_scripts.downstream.classification.score import FEWEST_PATIENTS, fewest_patients
from workflow_scripts.downstream.gains import patient_draws
from workflow_scripts.faithfulness.against_ceiling import (
    LEVEL,
    Drawn,
    share_of_ceiling,
    why_not_asked,
)
from workflow_scripts.faithfulness.patients import KIND, jackknifed, jackknifed_value
from workflow_scripts.fidelity.resample import wilson_interval

DISTANCES: Final = ("ratio", "lung_area", "asymmetry", "heart_inside")
"""What is compared as a distribution; `lung_area` is of both lungs, as a share of the image."""

BOUNDED: Final = ("ratio", "area_right", "area_left", "asymmetry", "heart_inside")
"""What the rule of plausibility looks at."""

TAIL: Final = 0.0025
"""Of the calibrating radiographs on either side of each limit: some 2.5% over five measures."""

ALWAYS_THERE: Final = 0.99
"""A structure that this share of radiographs shows is missed where it is absent."""

SPLITS: Final = 20
"""Halvings of the patients that a floor is the mean over."""

BOTH: Final = 2
"""Clavicles."""

CARDIOMEGALY: Final = "Cardiomegaly"
_WILSON: Final = f"Wilson {LEVEL:.0%}, patients as units"


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what was seen in images with `lung_area`, float64, nan where a structure is absent."""
    found = rows.drop(columns="organs").copy()
    for name in (*BOUNDED, "clavicles", "ribs", "present"):
        found[name] = pd.to_numeric(found[name]).astype(float)
    return found.assign(lung_area=found["area_right"] + found["area_left"])


def distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the Wasserstein-1 distance of two samples without their missing values.

    Nan where either has fewer than two values.
    """
    one, other = (values[np.isfinite(values)] for values in (real, generated))
    if min(len(one), len(other)) < 2:
        return float("nan")
    return float(stats.wasserstein_distance(one, other))


def floor(values: np.ndarray, patients: np.ndarray, n: int, m: int, seed: int) -> float:
    """Return the distance that n and m images of two groups of patients have by chance.

    The mean distance of two halves of the patients, over SPLITS halvings, carried to n and m images
    by the square root of 1/n + 1/m, as it falls.

    Args:
        values: (k,), of radiographs.
        patients: (k,), whose they are.
        n: images of one side.
        m: of the other.
        seed: of the halvings.
    """
    names, codes = np.unique(patients, return_inverse=True)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(SPLITS):
        first = rng.permutation(len(names)) < len(names) // 2
        inside = first[codes]
        sizes = inside.sum(), (~inside).sum()
        if min(sizes) < 2:
            return float("nan")
        carried = np.sqrt((1 / n + 1 / m) / (1 / sizes[0] + 1 / sizes[1]))
        found.append(distance(values[inside], values[~inside]) * carried)
    return float(np.mean(found))


class Rule:
    """Which images no radiograph looks like.

    An image is implausible if a structure is absent that nearly all radiographs show, or if a
    measure lies outside the limits between which nearly all radiographs have it.

    Args:
        radiographs: see `measured`; of patients on whom it is not tried.
    """

    def __init__(self, radiographs: pd.DataFrame):
        self.limits = {
            name: (
                # Of few radiographs the limits are the outermost ones, not a value within.
                float(np.nanquantile(radiographs[name], TAIL, method="lower")),
                float(np.nanquantile(radiographs[name], 1 - TAIL, method="higher")),
            )
            for name in BOUNDED
            if radiographs[name].notna().any()
        }
        shares = [
            *((name, radiographs[name].notna().mean()) for name in ("area_right", "area_left")),
            ("ratio", radiographs["ratio"].notna().mean()),
        ]
        self.needed = [name for name, share in shares if share >= ALWAYS_THERE]
        both = (radiographs["clavicles"] == BOTH).mean()
        self.clavicles = both >= ALWAYS_THERE

    def implausible(self, images: pd.DataFrame) -> np.ndarray:
        """Return which images are implausible, bool (n,)."""
        found = np.zeros(len(images), bool)
        for name, (low, high) in self.limits.items():
            found |= (images[name] < low).to_numpy() | (images[name] > high).to_numpy()
        for name in self.needed:
            found |= images[name].isna().to_numpy()
        if self.clavicles:
            found |= (images["clavicles"] < BOTH).to_numpy()
        return found


def halves(patients: np.ndarray, seed: int) -> np.ndarray:
    """Return which images are of one half of the patients, bool (n,); the same for all models."""
    names, codes = np.unique(patients.astype(str), return_inverse=True)
    first: np.ndarray = np.random.default_rng(seed).permutation(len(names)) < len(names) // 2
    return first[codes]


def anatomy_values(
    images: pd.DataFrame,
    own: pd.DataFrame,
    radiographs: pd.DataFrame,
    cardiomegaly: np.ndarray,
    bootstrap: int,
    seed: int,
) -> list[Value]:
    """Return the values of one model.

    Args:
        images: see `measured`; of the model, a row per prompt.
        own: the prompts' own radiographs, in the order of the prompts.
        radiographs: all of the test split.
        cardiomegaly: (n,), 1 where the prompt has it, else 0.
        bootstrap: draws of patients of the values that follow the prompt.
        seed: of all draws.
    """
    n = len(images)
    patients = images["patient_id"].to_numpy(str)
    reference = own.drop_duplicates("id")
    values = _distances(images, reference, seed)
    first = halves(radiographs["patient_id"].to_numpy(str), seed)
    rule, held_out = Rule(radiographs[first]), radiographs[~first]
    # A copy of a film that the rule was set on would be plausible by that alone.
    set_on = set(radiographs.loc[first, "patient_id"])
    tried = images[~images["patient_id"].isin(set_on)]
    for name, rows, way in (
        ("implausible", tried, "lower"),
        ("implausible_radiographs", held_out, "none"),
    ):
        if rows.empty:
            reason = "no prompt of a patient that the rule was not set on"
            values.append(Value(name, None, way, 0, reason=reason))
            continue
        share = float(rule.implausible(rows).mean())
        units = rows["patient_id"].nunique()
        interval = wilson_interval(share, units)
        values.append(Value(name, share, way, len(rows), interval=interval, interval_kind=_WILSON))
    both = (images["clavicles"] == BOTH).to_numpy(float)
    values += _mean("both_clavicles", both, patients)
    values += _mean("structures", images["present"].to_numpy(float), patients)
    if radiographs["ribs"].any():
        values += _mean("ribs", images["ribs"].to_numpy(float), patients)
    else:
        reason = "the labeller draws no rib in any radiograph"
        values.append(Value("ribs", None, "none", n, reason=reason))
    return values + _following(images, own, patients, cardiomegaly, bootstrap, seed)


def real_values(
    radiographs: pd.DataFrame, cardiomegaly: np.ndarray, bootstrap: int, seed: int
) -> list[Value]:
    """Return the values of the radiographs of the test split themselves, where they have any."""
    wanted = ("both_clavicles", "structures", "ribs", "ratio_difference", "ratio_auroc")
    own = anatomy_values(radiographs, radiographs, radiographs, cardiomegaly, bootstrap, seed)
    alarm = next(value for value in own if value.metric == "implausible_radiographs")
    kept = [value for value in own if value.metric in wanted]
    return [
        Value(
            "implausible",
            alarm.value,
            "lower",
            alarm.n,
            interval=alarm.interval,
            interval_kind=alarm.interval_kind,
        ),
        *kept,
    ]


def _distances(images: pd.DataFrame, reference: pd.DataFrame, seed: int) -> list[Value]:
    n = len(images)
    sides = reference["patient_id"].to_numpy(str), images["patient_id"].to_numpy(str)
    values = []
    for name in DISTANCES:
        real, generated = reference[name].to_numpy(float), images[name].to_numpy(float)

        def statistic(
            keep: np.ndarray,
            kept: np.ndarray,
            real: np.ndarray = real,
            generated: np.ndarray = generated,
        ) -> float:
            return distance(real[keep], generated[kept])

        estimate = jackknifed(statistic, *sides, least=0.0)
        counts = int(np.isfinite(generated).sum()), int(np.isfinite(real).sum())
        if np.isnan(estimate[0]):
            reason = f"{counts[0]} image(s) and {counts[1]} radiograph(s) show all it needs"
            values.append(Value(f"{name}_distance", None, "lower", n, reason=reason))
            values.append(Value(f"{name}_floor", None, "none", n, reason=reason))
            continue
        values.append(jackknifed_value(f"{name}_distance", "lower", counts[0], estimate, counts[1]))
        least = floor(real[np.isfinite(real)], sides[0][np.isfinite(real)], *counts, seed)
        if np.isnan(least):
            values.append(Value(f"{name}_floor", None, "none", n, reason="too few patients"))
        else:
            values.append(Value(f"{name}_floor", least, "none", counts[1]))
    return values


def _mean(metric: str, values: np.ndarray, patients: np.ndarray) -> list[Value]:
    value, interval = jackknifed(lambda _, kept: float(values[kept].mean()), patients, patients)
    kind = None if interval is None else KIND
    return [Value(metric, value, "none", len(values), interval=interval, interval_kind=kind)]


def _following(
    images: pd.DataFrame,
    own: pd.DataFrame,
    patients: np.ndarray,
    cardiomegaly: np.ndarray,
    bootstrap: int,
    seed: int,
) -> list[Value]:
    """Return how far the ratio follows the prompt: of the images and of the own radiographs.

    The difference is of the images that have a ratio. For the AUROC an image without heart or lungs
    has the median ratio, which says nothing of its prompt.
    """
    n = len(images)
    metrics = (
        ("ratio_difference", "none"),
        ("ratio_difference_ceiling", "none"),
        ("ratio_auroc", "higher"),
        ("ratio_auroc_ceiling", "none"),
        ("ratio_share_of_ceiling", "higher"),
    )
    labels = cardiomegaly.reshape(-1, 1).astype(float)
    fewest = int(fewest_patients(labels, patients)[0])
    if fewest < FEWEST_PATIENTS:
        reason = f"{fewest} test patient(s) with or without cardiomegaly ({FEWEST_PATIENTS} needed)"
        return [Value(name, None, way, n, reason=reason) for name, way in metrics]
    if min(np.isfinite(rows["ratio"].to_numpy(float)).sum() for rows in (images, own)) < 2:
        reason = "no image shows heart and lungs"
        return [Value(name, None, way, n, reason=reason) for name, way in metrics]
    values, aurocs = [], []
    for (name, way), rows in zip(metrics[:2], (images, own), strict=True):
        ratio = rows["ratio"].to_numpy(float)
        has = np.isfinite(ratio)
        few = int(fewest_patients(labels[has], patients[has])[0])
        if few < FEWEST_PATIENTS:
            reason = (
                f"{few} patient(s) whose images show heart and lungs ({FEWEST_PATIENTS} needed)"
            )
            values.append(Value(name, None, way, int(has.sum()), reason=reason))
        else:
            difference = _difference(ratio[has], labels[has, 0], patients[has], bootstrap, seed)
            values.append(replace(difference, units=few).as_value(name, way, int(has.sum())))
        column = np.where(has, ratio, np.nanmedian(ratio))[:, None]
        draws = drawn(labels, column, patient_draws(patients, bootstrap, seed))["auroc"][:, 0]
        aurocs.append(Drawn(float(points(labels, column)["auroc"][0]), draws, fewest))
    values += [auroc.as_value(*key, n) for key, auroc in zip(metrics[2:4], aurocs, strict=True)]
    why = why_not_asked(aurocs[1], 0.5)
    if why is not None:
        return [*values, Value("ratio_share_of_ceiling", None, "higher", n, reason=why)]
    share = share_of_ceiling(aurocs[0], aurocs[1], 0.5)
    return [*values, share.as_value("ratio_share_of_ceiling", "higher", n)]


def _difference(
    ratio: np.ndarray, present: np.ndarray, patients: np.ndarray, bootstrap: int, seed: int
) -> Drawn:
    """Return the mean ratio where the prompt has cardiomegaly less that where it has not."""

    def of(counts: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            means: Sequence[np.ndarray] = [
                counts @ (ratio * group) / (counts @ group) for group in (present, 1 - present)
            ]
        return means[0] - means[1]

    draws = np.concatenate([of(c) for c in patient_draws(patients, bootstrap, seed)])
    return Drawn(float(of(np.ones((1, len(ratio))))[0]), draws)
