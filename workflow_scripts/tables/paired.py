"""Which differences between models are larger than their noise.

Models that answer the same prompts and are compared with the same real images share what their
values owe to both: a difference is known better than either value. The records hold replicates
over the same resamples of patients (a bootstrap), or over the same groups of patients left out
where a bootstrap is not valid (FID and the manifolds: a copied image is its own neighbour); the
spread of the replicates' difference is the noise of the difference.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from scipy import stats

from workflow_scripts.common.records import Record
from workflow_scripts.tables.assemble import Cell, Row, Table, table_of
from workflow_scripts.tables.holm import holm
from workflow_scripts.tables.layout import LAYOUTS, Column
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

_KEPT_AS: Final = {"fid": "fid_corrected"}
"""Metrics whose replicates stand under another one's name in the records: the values without a
group, by which FID's bias is taken off, are FIDs."""

PAIRED: Final = LAYOUTS["table01c_paired_differences"]


@dataclass(frozen=True)
class Difference:
    """The first model's value less the second's.

    Attributes:
        value: None where the two cannot be compared (`reason` says why).
        interval: 95%, of this difference alone.
        p: of no difference, two-sided.
        separated: whether it is larger than its noise among all pairs that are looked at.
        n: generated images of each model.
        n_reference: real images.
        reason: why there is none.
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


@dataclass(frozen=True)
class Matrix:
    """All differences of one metric; `cells[i][j]` is row i less column j, None on the diagonal."""

    column: Column
    entries: tuple[ModelEntry, ...]
    cells: tuple[tuple[Difference | None, ...], ...]


def difference(first: Record, second: Record, metric: str) -> Difference:
    """Return the difference of one metric over all images, with its interval.

    Args:
        first: a fidelity record.
        second: another model's.
        metric: one that has replicates.
    """
    try:
        own, other = first.get(metric), second.get(metric)
    except KeyError as error:
        return Difference(None, reason=str(error.args[0]))
    for record, value in ((first, own), (second, other)):
        if value.value is None:
            return Difference(None, reason=f"{record.model}: {value.reason}")
    if first.details.get("images_sha256") != second.details.get("images_sha256"):
        reason = "the two were not measured on the same prompts and the same real images"
        return Difference(None, reason=reason)
    sides = [replicates_of(record, metric) for record in (first, second)]
    if sides[0] is None or sides[1] is None or own.value is None or other.value is None:
        return Difference(None, reason="too few images for an interval")
    spread = np.array(sides[0]["values"]) - np.array(sides[1]["values"])
    freedom, deviation = sides[0]["units"] - 1, float(spread.std(ddof=1))
    if sides[0]["kind"] == "jackknife":
        deviation = float((freedom * spread.var()) ** 0.5)
    found = own.value - other.value
    if deviation == 0 and found != 0:
        return Difference(None, reason="the replicates have no spread")
    p = 1.0 if deviation == 0 else 2 * float(stats.t.sf(abs(found) / deviation, freedom))
    half = float(stats.t.ppf(0.975, freedom)) * deviation
    interval = (found - half, found + half)
    return Difference(found, interval, p, n=own.n, n_reference=own.n_reference)


def replicates_of(record: Record, metric: str) -> dict[str, Any] | None:
    """Return a metric's replicates: their `kind` (bootstrap, jackknife), `values` and `units`.

    None where there are too few images for them.
    """
    kept: dict[str, Any] = record.details.get("replicates", {})
    return kept.get(_KEPT_AS.get(metric, metric))


def differences(
    records: Records, models: Sequence[ModelEntry], column: Column
) -> dict[tuple[str, str], Difference]:
    """Return the difference of each pair that has records, by their keys in the models' order.

    Which are larger than their noise, `holm` says: among the pairs of models, and apart from them
    among the pairs with a control.
    """
    family = column.family or PAIRED.family
    found = {}
    for first, second in itertools.combinations(models, 2):
        pair = [records.find("fidelity", family, model.key) for model in (first, second)]
        if pair[0] is not None and pair[1] is not None:
            found[first.key, second.key] = difference(pair[0], pair[1], column.metric)
    controls = {model.key for model in models if model.is_control}
    for with_control in (False, True):
        keys = [key for key in found if bool(controls & set(key)) == with_control]
        tested = {key: p for key in keys if (p := found[key].p) is not None}
        for key, apart in zip(tested, holm(list(tested.values())), strict=True):
            found[key] = replace(found[key], separated=apart)
    return found


def matrices(records: Records, models: Sequence[ModelEntry]) -> list[Matrix]:
    """Return a matrix for each metric that any pair can be compared in: models, then controls.

    Both stand in the order of their values, the best first.
    """
    made = []
    for column in PAIRED.columns:
        found = differences(records, models, column)
        if not any(entry.value is not None for entry in found.values()):
            continue
        ordered = _best_first(records, models, column)
        cells = []
        for row in ordered:
            line: list[Difference | None] = []
            for other in ordered:
                own = found.get((row.key, other.key))
                turned = found.get((other.key, row.key))
                line.append(turned.reversed() if turned is not None else own)
            cells.append(tuple(line))
        made.append(Matrix(column, tuple(ordered), tuple(cells)))
    return made


def paired_table(run: Run) -> Table:
    """Return Table 1c: a row for each pair of models, without controls, that have records."""
    entries = run.competing
    names = {model.key: model.name for model in entries}
    by_column = [differences(run.records, entries, column) for column in PAIRED.columns]
    rows = []
    for first, second in by_column[0]:
        cells = tuple(
            _cell(column, found[first, second])
            for column, found in zip(PAIRED.columns, by_column, strict=True)
        )
        label = f"{names[first]} − {names[second]}"
        rows.append(Row(f"{first}-{second}", label, "pair", (), cells))
    return table_of(PAIRED, rows, run, counts=False)


def _cell(column: Column, found: Difference) -> Cell:
    return Cell(
        column,
        found.value,
        found.n,
        found.n_reference,
        found.interval,
        None if found.interval is None else "95%, paired",
        found.reason,
        beyond_noise=found.separated,
    )


def _best_first(records: Records, models: Sequence[ModelEntry], column: Column) -> list[ModelEntry]:
    sign = -1 if column.direction == "higher" else 1
    valued = []
    for place, model in enumerate(models):
        record = records.find("fidelity", column.family or PAIRED.family, model.key)
        values = [] if record is None else record.values
        for value in values:
            if (value.metric, value.subset) == (column.metric, "all") and value.value is not None:
                valued.append((model.is_control, sign * value.value, place, model))
    return [model for *_, model in sorted(valued, key=lambda entry: entry[:3])]
