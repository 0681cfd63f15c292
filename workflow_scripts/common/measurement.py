"""Metrics, and what every stage measured of them: one long table with a row for each value.

Stages write records (`common/records.py`), a file for each model and metric family. Joined, they
are one table, which tables, figures, the report and people who plot read.
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
"""Which way is better, for readers."""


@dataclass(frozen=True)
class Metric:
    """What is measured, declared where it is computed.

    Attributes:
        key: its name in records and specs, lower case.
        label: for readers.
        direction: `higher` or `lower` is better; `none` where neither is.
        decimals: digits after the point, for readers; None writes a number as short as it is.
        counts: what `n` and `n_reference` count.
    """

    key: str
    label: str
    direction: str
    decimals: int | None
    counts: tuple[str, str]

    @property
    def header(self) -> str:
        """The label and which way is better."""
        return f"{self.label} {ARROWS[self.direction]}".strip()


@dataclass(frozen=True)
class Measurement:
    """One row of the long table.

    Attributes:
        stage: that measured it.
        model: its key in the config; `real` for real data alone.
        family: of the record: the encoder of fidelity, the kind of privacy score, or the task and
            setting of downstream (`classification/augmented`).
        protocol: `sound` or `as_published`.
        metric: its key.
        subset: `all`, or one of the 14 findings.
        value: a finite number; None where it cannot be computed (`reason` says why).
        low: lower bound of its interval; None where there is no interval.
        high: upper bound.
        interval_kind: what the bounds are (`bootstrap 95% over patients`).
        n: how many generated images, prompts or test images it rests on; None of what is derived
            from other measurements and rests on no count of its own.
        n_reference: how many reference images it was compared with, where there are any.
        direction: `higher` or `lower` is better; `none` where neither is.
        p: of a gain, see `records.Value.p`.
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
        """Lower and upper bound, where there are any."""
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
    """The long table, found by what its rows say.

    Args:
        rows: in any order; they are kept in it.
        protocol: whose rows are found where no protocol is asked for.
    """

    def __init__(self, rows: Iterable[Measurement], protocol: str) -> None:
        self.rows: Final = tuple(rows)
        self.protocol: Final = protocol
        self._found: dict[tuple[str, ...], dict[tuple[str, str], Measurement]] = {}
        for row in self.rows:
            place = (row.stage, row.family, row.model, row.protocol)
            self._found.setdefault(place, {})[row.metric, row.subset] = row

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.rows)

    def has(self, stage: str, family: str, model: str, protocol: str | None = None) -> bool:
        """Return whether anything was measured there."""
        return (stage, family, model, protocol or self.protocol) in self._found

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
        return self._found.get(place, {}).get((metric, subset))


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
        path: of the Parquet file.
        protocol: see `Measurements`.

    Raises:
        InputError: it is missing, damaged or lacks a column.
    """
    try:
        table = pq.read_table(path, columns=_SCHEMA.names, schema=_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(
            "cannot read the measurements", error, path, "run workflow_scripts.tables.build first"
        ) from None
    return Measurements((Measurement(**row) for row in table.to_pylist()), protocol)
