"""What a metric is given, one subset of two sets of images, and where it puts what it finds."""

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
        patients: (n,) who is shown; of a generated image, who its prompt is of.
    """

    features: np.ndarray
    subsets: np.ndarray
    patients: np.ndarray

    def only(self, rows: np.ndarray) -> "Side":
        """Return the images of some rows, (k,) numbers."""
        return Side(self.features[rows], self.subsets[rows], self.patients[rows])


@dataclass(frozen=True)
class Comparison:
    """One subset of the generated images and of the reference.

    Attributes:
        real: the whole reference.
        generated: all that is judged.
        column: of the subset in `SUBSETS`.
        settings: k, bootstrap replicates and seed.
        device: where to compute.
        kid_within_patients: see `Deviations.kid_pairs_within_patients`.
        cosines: (n,) of each generated image with its caption; None where captions do not count.
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
        """Its name."""
        return SUBSETS[self.column]

    @property
    def chosen(self) -> np.ndarray:
        """Which images of the reference are in the subset, (n_reference,) bool."""
        return self.real.subsets[:, self.column]

    @property
    def asked(self) -> np.ndarray:
        """Which generated images are in the subset, (n,) bool."""
        return self.generated.subsets[:, self.column]

    @cached_property
    def x(self) -> np.ndarray:
        """Features of the reference's images in the subset."""
        return self.real.features[self.chosen]

    @cached_property
    def y(self) -> np.ndarray:
        """Features of the generated images in the subset."""
        return self.generated.features[self.asked]

    @cached_property
    def units(self) -> Units:
        """The patients of both."""
        return units_of(self.real.patients[self.chosen], self.generated.patients[self.asked])

    def too_few(self, minimum: int) -> str | None:
        """Return why a side of the subset has fewer images than a metric needs, or None."""
        return too_few(len(self.y), len(self.x), minimum, self.subset)

    def resamples(self) -> Resamples | None:
        """Return the resamples of the subset, see `resamples_of`."""
        return resamples_of(self.column, self.units, self.settings)


@dataclass
class Found:
    """Values as they are found, and what a reader of the record may want beside them.

    Attributes:
        values: of every subset.
        floors: per floor and subset how it was measured.
        replicates: per metric over all images, `{"kind": "bootstrap" | "jackknife", "values"}`:
            what it would have been with other images. Models with the same prompts have the same
            resamples and groups, so that their differences have replicates, too.
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
            metric: which.
            comparison: of which images.
            value: a finite number.
            interval: lower and upper bound, where there are any.
            interval_kind: what they are; kept only with them.
        """
        kind = None if interval is None else interval_kind
        n, m = len(comparison.y), len(comparison.x)
        self.values.append(
            Value(metric.key, value, metric.direction, n, comparison.subset, m, interval, kind)
        )

    def add_none(self, metric: Metric, comparison: Comparison, reason: str) -> None:
        """Add why a metric has no value over the images of a comparison."""
        n, m = len(comparison.y), len(comparison.x)
        self.values.append(
            Value(metric.key, None, metric.direction, n, comparison.subset, m, reason=reason)
        )


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


def too_few(n: int, n_reference: int | None, minimum: int, subset: str) -> str | None:
    """Return why a subset is too small, or None where it is not."""
    of = "" if subset == "all" else " with this finding"
    needed = f" ({minimum} needed)" if minimum > 2 else ""
    sides: list[tuple[int | None, str]] = [(n, "generated"), (n_reference, "reference")]
    for count, side in sides:
        if count is not None and count < minimum:
            return f"only {count} {side} image(s){of}{needed}"
    return None
