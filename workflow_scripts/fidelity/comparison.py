"""A metric's input, one subset of two sets of images, and the container of its results."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.measurement import Metric
from workflow_scripts.common.records import Value
from workflow_scripts.fidelity.resample import Resamples, Units, draw_resamples, units_of
from workflow_scripts.fidelity.settings import Settings

if TYPE_CHECKING:
    import torch

SUBSETS: Final = ("all", *FINDINGS)

SIDES: Final = ("Generated images", "Real images")
"""What `n` and `n_reference` count."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        features: (n, d) float32.
        subsets: (n, 15) bool, the columns as in `SUBSETS`.
        patients: (n,) the patient of each image; for a generated image, the patient of its prompt.
    """

    features: np.ndarray
    subsets: np.ndarray
    patients: np.ndarray

    def only(self, rows: np.ndarray) -> "Side":
        """Return the images of some row numbers (k,)."""
        return Side(self.features[rows], self.subsets[rows], self.patients[rows])


@dataclass(frozen=True)
class Comparison:
    """One subset of the generated images and of the reference.

    Attributes:
        real: the reference, all subsets.
        generated: the generated images, all subsets.
        column: the subset's position in `SUBSETS`.
        settings: see `Settings`.
        device: where to compute.
        kid_within_patients: see `Deviations.kid_pairs_within_patients`.
        cosines: (n,) the cosine of each generated image with its caption; None leaves alignment
            out.
    """

    real: Side
    generated: Side
    column: int
    settings: Settings
    device: "torch.device"
    kid_within_patients: bool = False
    cosines: np.ndarray | None = None

    @property
    def subset(self) -> str:
        """The subset's name."""
        return SUBSETS[self.column]

    @property
    def real_rows(self) -> np.ndarray:
        """Which images of the reference are in the subset, (n_reference,) bool."""
        return self.real.subsets[:, self.column]

    @property
    def generated_rows(self) -> np.ndarray:
        """Which generated images are in the subset, (n,) bool."""
        return self.generated.subsets[:, self.column]

    @cached_property
    def x(self) -> np.ndarray:
        """Features of the reference images in the subset, (n_reference, d)."""
        return self.real.features[self.real_rows]

    @cached_property
    def y(self) -> np.ndarray:
        """Features of the generated images in the subset, (n, d)."""
        return self.generated.features[self.generated_rows]

    @cached_property
    def units(self) -> Units:
        """The patients of both sides of the subset."""
        return units_of(
            self.real.patients[self.real_rows], self.generated.patients[self.generated_rows]
        )

    def too_few(self, minimum: int) -> str | None:
        """Return the reason if a side of the subset has fewer than `minimum` images, else None."""
        return too_few(len(self.y), len(self.x), minimum, self.subset)

    def resamples(self) -> Resamples | None:
        """Return the resamples of the subset, see `resamples_of`."""
        return resamples_of(self.column, self.units, self.settings)


@dataclass
class Results:
    """The results of all metrics: their values, and details for the record.

    Attributes:
        values: the values of every subset.
        floors: for each floor and subset, how it was measured.
        replicates: for each metric over all images, the values it takes when images are resampled
            or left out, see `replicates`. Models with the same prompts share the resamples and
            groups, so their differences have replicates, too.
    """

    values: list[Value] = field(default_factory=list)
    floors: dict[str, Any] = field(default_factory=dict)
    replicates: dict[str, Any] = field(default_factory=dict)

    def add(
        self,
        metric: Metric,
        comparison: Comparison,
        value: float,
        interval: tuple[float, float] | None = None,
        interval_kind: str | None = None,
    ) -> None:
        """Add a metric's value over the images of a comparison.

        Args:
            metric: the metric.
            comparison: the images that the value is computed from.
            value: a finite number.
            interval: lower and upper bound; None where there is no interval.
            interval_kind: how the interval was computed; ignored without an interval.
        """
        kind = None if interval is None else interval_kind
        n, m = len(comparison.y), len(comparison.x)
        self.values.append(
            Value(metric.key, value, metric.direction, n, comparison.subset, m, interval, kind)
        )

    def add_none(self, metric: Metric, comparison: Comparison, reason: str) -> None:
        """Add the reason why a metric has no value over the images of a comparison."""
        n, m = len(comparison.y), len(comparison.x)
        self.values.append(
            Value(metric.key, None, metric.direction, n, comparison.subset, m, reason=reason)
        )


def resamples_of(column: int, units: Units, settings: Settings) -> Resamples | None:
    """Return the resamples of a subset, the same for all metrics and all models with its patients.

    Every subset has its own random stream, so that no subset changes another's numbers.

    Args:
        column: the subset's position in `SUBSETS`.
        units: the patients of the rows.
        settings: the number of replicates and the seed.

    Returns:
        The resamples; None where the settings ask for none, or a side has only one patient.
    """
    if not settings.kid_bootstrap or units.fewest < 2:
        return None
    rng = np.random.default_rng([settings.seed, column, 0])
    return draw_resamples(units, settings.kid_bootstrap, rng)


def replicates(kind: str, values: np.ndarray, units: int) -> dict[str, Any]:
    """Return a metric's replicates in the form that records hold, rounded to seven digits.

    Args:
        kind: `bootstrap` or `jackknife`.
        values: (r,) the metric in each replicate.
        units: the number of units (patients, or groups of them) that were drawn or left out on the
            smaller side.
    """
    rounded = [float(f"{value:.7g}") for value in values]
    return {"kind": kind, "units": units, "values": rounded}


def too_few(n: int, n_reference: int | None, minimum: int, subset: str) -> str | None:
    """Return why a subset is too small, or None if it is not.

    Args:
        n: generated images in the subset.
        n_reference: reference images in it; None where there is no reference.
        minimum: fewest images that each side needs.
        subset: the subset's name.
    """
    in_subset = "" if subset == "all" else " with this finding"
    needed = f" ({minimum} needed)" if minimum > 2 else ""
    sides: list[tuple[int | None, str]] = [(n, "generated"), (n_reference, "reference")]
    for count, side in sides:
        if count is not None and count < minimum:
            return f"only {count} {side} image(s){in_subset}{needed}"
    return None
