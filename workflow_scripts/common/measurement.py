"""Metrics, and the long table of measurements: one row for each measured value.

Stages write records (`common/records.py`), one file for each model and metric family. Joined, they
form one table, which the tables, the figures, the report and users' own plots read.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.records import Record

ARROWS: Final = {"higher": "↑", "lower": "↓", "none": ""}
"""The sign that tells readers which direction is better."""


@dataclass(frozen=True)
class Metric:
    """One metric, declared in the module that computes it.

    Attributes:
        key: its name in records and table specs, lower case.
        label: its name for readers.
        direction: `higher` or `lower` is better; `none` where neither is.
        decimals: digits after the decimal point for readers; None does not round.
        counts: what `n` and `n_reference` count.
    """

    key: str
    label: str
    direction: str
    decimals: int | None
    counts: tuple[str, str]

    @property
    def header(self) -> str:
        """The label, with an arrow in the better direction."""
        return f"{self.label} {ARROWS[self.direction]}".strip()


@dataclass(frozen=True)
class Measurement:
    """One row of the long table.

    Attributes:
        stage: the stage that measured it.
        model: the model's key in the config; `real` for real data alone.
        family: the record's metric family: fidelity's encoder, the kind of privacy score, or the
            downstream task and setting (`classification/augmented`).
        protocol: `sound` or `as_published`.
        metric: the metric's key.
        subset: `all`, or one of the 14 findings.
        value: a finite number; None where it cannot be computed (`reason` says why).
        low: lower bound of its interval; None where there is no interval.
        high: upper bound of its interval.
        interval_kind: how the interval was computed (`bootstrap 95% over patients`).
        n: number of generated images, prompts or test images behind the value; None for a value
            that is derived from other measurements.
        n_reference: number of reference images; None where there are none.
        direction: `higher` or `lower` is better; `none` where neither is.
        p: p-value of a gain, see `records.Value.p`.
        reason: why `value` is None.
    """

    stage: str
    model: str
    family: str
    protocol: str
    metric: str
    subset: str
    value: float | None
    low: float | None
    high: float | None
    interval_kind: str | None
    n: int | None
    n_reference: int | None
    direction: str
    p: float | None
    reason: str | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower and upper bound of the interval, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


_SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("stage", "model", "family", "protocol")),
        *((name, pa.string()) for name in ("metric", "subset")),
        *((name, pa.float64()) for name in ("value", "low", "high")),
        ("interval_kind", pa.string()),
        *((name, pa.int64()) for name in ("n", "n_reference")),
        ("direction", pa.string()),
        ("p", pa.float64()),
        ("reason", pa.string()),
    ]
)


class Measurements:
    """The long table, with a look-up by stage, family, model, metric and subset.

    Args:
        rows: the measurements, in any order; the order is kept.
        protocol: the protocol that `has` and `find` use if none is given.
    """

    def __init__(self, rows: Iterable[Measurement], protocol: str) -> None:
        self.rows: Final = tuple(rows)
        self.protocol: Final = protocol
        self._index: dict[tuple[str, ...], dict[tuple[str, str], Measurement]] = {}
        for row in self.rows:
            place = (row.stage, row.family, row.model, row.protocol)
            self._index.setdefault(place, {})[row.metric, row.subset] = row

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.rows)

    def has(self, stage: str, family: str, model: str, protocol: str | None = None) -> bool:
        """Return whether there is any measurement of a stage, family and model."""
        return (stage, family, model, protocol or self.protocol) in self._index

    def find(
        self,
        stage: str,
        family: str,
        model: str,
        metric: str,
        subset: str = "all",
        protocol: str | None = None,
    ) -> Measurement | None:
        """Return one row, or None where there is none."""
        place = (stage, family, model, protocol or self.protocol)
        return self._index.get(place, {}).get((metric, subset))


def measurements_of(record: Record) -> list[Measurement]:
    """Return a record's values as rows, in their order."""
    rows = []
    for value in record.values:
        low, high = value.interval or (None, None)
        rows.append(
            Measurement(
                record.stage,
                record.model,
                record.family,
                record.protocol,
                value.metric,
                value.subset,
                value.value,
                low,
                high,
                value.interval_kind,
                value.n,
                value.n_reference,
                value.direction,
                value.p,
                value.reason,
            )
        )
    return rows


def write_measurements(rows: Sequence[Measurement], path: str | Path) -> None:
    """Write the long table as Parquet, whole or not at all; the same rows give the same bytes."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], _SCHEMA)
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_measurements(path: str | Path, protocol: str) -> Measurements:
    """Read the long table.

    Args:
        path: the Parquet file.
        protocol: see `Measurements`.

    Raises:
        InputError: the file is missing, damaged or lacks a column.
    """
    try:
        table = pq.read_table(path, columns=_SCHEMA.names, schema=_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(
            "cannot read the measurements", error, path, "run workflow_scripts.tables.build first"
        ) from None
    return Measurements((Measurement(**row) for row in table.to_pylist()), protocol)
