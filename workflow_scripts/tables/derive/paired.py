"""Paired differences between models, and which of them are significant.

Models that answer the same prompts, and are compared with the same real images, share the noise of
both. So their difference is more certain than either value. The noise of a difference is the
standard deviation of the difference of the replicates in the two records. Replicates are over the
same resamples of patients (bootstrap). For FID and the manifold metrics a bootstrap is not valid,
because a repeated image is its own neighbour. Their replicates leave out the same groups of
patients (jackknife).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from scipy import stats

from workflow_scripts.common.records import Record
from workflow_scripts.tables.derive.holm import holm
from workflow_scripts.tables.derive.long_table import ENCODER, Head, LongTable, Number
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.published import Key
from workflow_scripts.tables.records_in import Records

_KEPT_AS: Final = {"fid": "fid_corrected"}
"""Metrics whose replicates have another metric's name in the records. The values without a group
of patients, from which FID's bias is estimated, are FIDs."""


@dataclass(frozen=True)
class Difference:
    """The first model's value less the second's.

    Attributes:
        value: the difference; None if the two cannot be compared (see `reason`).
        interval: 95% interval of this difference alone.
        p: two-sided p value of no difference.
        separated: whether it is significant, with all pairs tested together.
        n: number of generated images of each model.
        n_reference: number of real images.
        reason: why there is no difference.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    p: float | None = None
    separated: bool = False
    n: int | None = None
    n_reference: int | None = None
    reason: str | None = None

    def reversed(self) -> "Difference":
        """Return the second model's value less the first's."""
        if self.value is None or self.interval is None:
            return self
        return replace(self, value=-self.value, interval=(-self.interval[1], -self.interval[0]))


def difference(first: Record, second: Record, metric: str) -> Difference:
    """Return the difference of one metric over all images, with its interval (Student's t).

    Args:
        first: a model's fidelity record.
        second: another model's fidelity record.
        metric: key of a metric that has replicates.
    """
    try:
        left, right = first.get(metric), second.get(metric)
    except KeyError as error:
        return Difference(None, reason=str(error.args[0]))
    for record, value in ((first, left), (second, right)):
        if value.value is None:
            return Difference(None, reason=f"{record.model}: {value.reason}")
    if first.details.get("images_sha256") != second.details.get("images_sha256"):
        reason = "the two were not measured on the same prompts and the same real images"
        return Difference(None, reason=reason)
    sides = [replicates_of(record, metric) for record in (first, second)]
    if sides[0] is None or sides[1] is None or left.value is None or right.value is None:
        return Difference(None, reason="too few images for an interval")
    spread = np.array(sides[0]["values"]) - np.array(sides[1]["values"])
    freedom, deviation = sides[0]["units"] - 1, float(spread.std(ddof=1))
    if sides[0]["kind"] == "jackknife":
        deviation = float((freedom * spread.var()) ** 0.5)
    gap = left.value - right.value
    if deviation == 0 and gap != 0:
        return Difference(None, reason="the replicates have no spread")
    p = 1.0 if deviation == 0 else 2 * float(stats.t.sf(abs(gap) / deviation, freedom))
    half = float(stats.t.ppf(0.975, freedom)) * deviation
    interval = (gap - half, gap + half)
    return Difference(gap, interval, p, n=left.n, n_reference=left.n_reference)


def replicates_of(record: Record, metric: str) -> dict[str, Any] | None:
    """Return a metric's replicates: their `kind` (bootstrap, jackknife), `values` and `units`.

    None if there were too few images for replicates.
    """
    replicates: dict[str, Any] = record.details.get("replicates", {})
    return replicates.get(_KEPT_AS.get(metric, metric))


def differences(
    records: Records, models: Sequence[ModelEntry], metric: str, encoder: str = ENCODER
) -> dict[tuple[str, str], Difference]:
    """Return the difference of each pair of models with records, by their keys.

    Holm's correction is applied to the pairs of models, and separately to the pairs with a control.
    """
    by_pair = {}
    for first, second in itertools.combinations(models, 2):
        pair = [records.find("fidelity", encoder, model.key) for model in (first, second)]
        if pair[0] is not None and pair[1] is not None:
            by_pair[first.key, second.key] = difference(pair[0], pair[1], metric)
    controls = {model.key for model in models if model.is_control}
    for with_control in (False, True):
        keys = [key for key in by_pair if bool(controls & set(key)) == with_control]
        tested = {key: p for key in keys if (p := by_pair[key].p) is not None}
        for key, significant in zip(tested, holm(list(tested.values())), strict=True):
            by_pair[key] = replace(by_pair[key], separated=significant)
    return by_pair


def paired(
    records: Records, models: Sequence[ModelEntry], metrics: Sequence[tuple[str, str]]
) -> LongTable:
    """Return a row for each pair of models that have records.

    Args:
        records: the records of all stages.
        models: the models to compare.
        metrics: key and variant of each metric.
    """
    names = {model.key: model.name for model in models}
    numbers: dict[Key, Number] = {}
    heads: dict[str, Head] = {}
    for metric, variant in metrics:
        for (first, second), gap in differences(
            records, models, metric, variant or ENCODER
        ).items():
            row = f"{first}-{second}"
            heads.setdefault(row, Head(row, f"{names[first]} − {names[second]}", "pair"))
            kind = None if gap.interval is None else "95%, paired"
            numbers[row, metric, "all", variant] = Number(
                gap.value,
                gap.n,
                gap.n_reference,
                gap.interval,
                kind,
                gap.reason,
                beyond_noise=gap.separated,
            )
    return LongTable(tuple(heads.values()), numbers)
