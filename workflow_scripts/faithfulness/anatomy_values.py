"""Anatomy of generated images against radiographs: distances, plausibility, agreement with prompts.

`anatomy` measures single images. For a model, this module computes four things from them:

- the distance between the distributions of its images and of its prompts' own radiographs, and the
  distance between two groups of patients' radiographs (the floor);
- the share of images with implausible anatomy, by a rule that is set on half of the test patients,
  and its false alarms on the other half;
- how many structures the images show, see `structure_values`;
- whether the cardiothoracic ratio follows the prompt.
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
from workflow_scripts.faithfulness.structure_values import ALWAYS_THERE, Structures
from workflow_scripts.fidelity.resample import effective_number, wilson_interval

DISTANCES: Final = ("ratio", "lung_area", "asymmetry", "heart_inside")
"""Measures whose distributions are compared; `lung_area` is both lungs' share of the image."""

BOUNDED: Final = ("ratio", "area_right", "area_left", "asymmetry", "heart_inside")
"""Measures that the rule of plausibility limits."""

TAIL: Final = 0.0025
"""Share of the calibrating radiographs beyond each limit: some 2.5% over five measures."""

SPLITS: Final = 20
"""Number of random halvings of the patients that a floor is the mean of."""

BOTH: Final = 2
"""Number of clavicles."""

CARDIOMEGALY: Final = "Cardiomegaly"
_WILSON: Final = f"Wilson {LEVEL:.0%}, patients as units"


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `seen.Seen` with measures as float64, and `lung_area`; nan if absent."""
    measures = rows.drop(columns="organs").copy()
    for name in (*BOUNDED, "clavicles", "ribs"):
        measures[name] = pd.to_numeric(measures[name]).astype(float)
    return measures.assign(lung_area=measures["area_right"] + measures["area_left"])


def distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the Wasserstein-1 distance of two samples, without their missing values.

    It is nan if either sample has fewer than two values.
    """
    one, other = (values[np.isfinite(values)] for values in (real, generated))
    if min(len(one), len(other)) < 2:
        return float("nan")
    return float(stats.wasserstein_distance(one, other))


def floor(values: np.ndarray, patients: np.ndarray, n: int, m: int, seed: int) -> float:
    """Return the distance that n and m images of two groups of patients have by chance.

    It is the mean distance between two random halves of the patients, over SPLITS halvings. It is
    scaled to n and m images, because it falls with the square root of 1/n + 1/m.

    Args:
        values: (k,), a measure of radiographs.
        patients: (k,), their patients.
        n: number of images of one group.
        m: number of images of the other group.
        seed: seed of the halvings.
    """
    names, codes = np.unique(patients, return_inverse=True)
    rng = np.random.default_rng(seed)
    distances = []
    for _ in range(SPLITS):
        first = rng.permutation(len(names)) < len(names) // 2
        inside = first[codes]
        sizes = inside.sum(), (~inside).sum()
        if min(sizes) < 2:
            return float("nan")
        scale = np.sqrt((1 / n + 1 / m) / (1 / sizes[0] + 1 / sizes[1]))
        distances.append(distance(values[inside], values[~inside]) * scale)
    return float(np.mean(distances))


class Rule:
    """The rule that tells images with implausible anatomy.

    An image is implausible if it lacks the heart, a lung or a clavicle, provided that nearly all
    radiographs show it, or if a measure lies outside the range of nearly all radiographs.

    Args:
        radiographs: see `measured`. The rule must not be tested on the same patients.
    """

    def __init__(self, radiographs: pd.DataFrame):
        self.limits = {
            name: (
                # With few radiographs, the limits are the extreme values, without interpolation.
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
        implausible = np.zeros(len(images), bool)
        for name, (low, high) in self.limits.items():
            implausible |= (images[name] < low).to_numpy() | (images[name] > high).to_numpy()
        for name in self.needed:
            implausible |= images[name].isna().to_numpy()
        if self.clavicles:
            implausible |= (images["clavicles"] < BOTH).to_numpy()
        return implausible


def halves(patients: np.ndarray, seed: int) -> np.ndarray:
    """Return the images of a random half of the patients, bool (n,); the same for all models."""
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
        images: the model's images, one for each prompt, see `measured`.
        own: the prompts' own radiographs, in the order of the prompts.
        radiographs: all radiographs of the test split.
        cardiomegaly: (n,), 1 if the prompt asks for cardiomegaly, else 0.
        bootstrap: number of drawn sets of patients, for agreement with the prompts.
        seed: seed of all draws.
    """
    n = len(images)
    patients = images["patient_id"].to_numpy(str)
    reference = own.drop_duplicates("id")
    values = _distances(images, reference, seed)
    first = halves(radiographs["patient_id"].to_numpy(str), seed)
    rule, held_out = Rule(radiographs[first]), radiographs[~first]
    # A copy of a radiograph that the rule was set on would be plausible by definition.
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
        implausible = rule.implausible(rows).astype(float)
        share = float(implausible.mean())
        number = effective_number(implausible, rows["patient_id"].to_numpy(str))
        interval = wilson_interval(share, number)
        values.append(Value(name, share, way, len(rows), interval=interval, interval_kind=_WILSON))
    both = (images["clavicles"] == BOTH).to_numpy(float)
    values += _mean("both_clavicles", both, patients, 1.0)
    values += Structures(radiographs, first).values(images, tried, held_out)
    if radiographs["ribs"].any():
        values += _mean("ribs", images["ribs"].to_numpy(float), patients, np.inf)
    else:
        reason = "the labeller draws no rib in any radiograph"
        values.append(Value("ribs", None, "none", n, reason=reason))
    return values + _following(images, own, patients, cardiomegaly, bootstrap, seed)


def real_values(
    radiographs: pd.DataFrame, cardiomegaly: np.ndarray, bootstrap: int, seed: int
) -> list[Value]:
    """Return the values of the test radiographs, for metrics that do not compare with them."""
    metrics = (
        "both_clavicles",
        "structures",
        "structures_drawn",
        "structures_asked",
        "ribs",
        "ratio_difference",
        "ratio_auroc",
    )
    values = anatomy_values(radiographs, radiographs, radiographs, cardiomegaly, bootstrap, seed)
    of_radiographs = {f"{name}_radiographs": name for name in ("implausible", "structures_lacking")}
    return [
        *(
            replace(value, metric=of_radiographs[value.metric], direction="lower")
            for value in values
            if value.metric in of_radiographs
        ),
        *(value for value in values if value.metric in metrics),
    ]


def structures_of(radiographs: pd.DataFrame, seed: int) -> Structures:
    """Return the structures that count, by the halves of `anatomy_values`."""
    return Structures(radiographs, halves(radiographs["patient_id"].to_numpy(str), seed))


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


def _mean(metric: str, values: np.ndarray, patients: np.ndarray, most: float) -> list[Value]:
    """Return the mean of a share or a count, which lies between 0 and `most`."""
    value, interval = jackknifed(
        lambda _, kept: float(values[kept].mean()), patients, patients, 0.0, most
    )
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
    """Return how well the ratio follows the prompt, for images and for the prompts' radiographs.

    The difference uses the images that have a ratio. For the AUROC, an image without heart or lungs
    gets the median ratio, which carries no information about its prompt.
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
    """Return the mean ratio of prompts with cardiomegaly minus the mean of those without."""

    def differences(counts: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            means: Sequence[np.ndarray] = [
                counts @ (ratio * group) / (counts @ group) for group in (present, 1 - present)
            ]
        return means[0] - means[1]

    draws = np.concatenate([differences(c) for c in patient_draws(patients, bootstrap, seed)])
    return Drawn(float(differences(np.ones((1, len(ratio))))[0]), draws)
