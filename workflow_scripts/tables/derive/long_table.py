"""Long tables: what is computed of measurements, a row for each number.

A derivation takes measurements (or records) and returns a `LongTable`. It knows nothing of a
table's columns and headers: the specs say which column shows which number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.published import Key

ENCODER: Final = "rad_dino"
"""The encoder of the paper's main tables, in which fidelity is always measured."""

FEWEST_RANKED: Final = 10
"""Images of either side, or prompts, below which a value is not compared with other models'."""

FLOOR_LABEL: Final = "Floor: real against other patients' real"
"""The label of a row of floors."""

NO_ROW: Final = "none"
"""The key of the one row of a table that has no other."""

_OPPOSITE: Final = {"higher": "lower", "lower": "higher"}


@dataclass(frozen=True)
class Number:
    """A number and what it rests on, or the reason why there is none.

    Attributes:
        value: with all its digits; None where there is none.
        n: how many images or prompts it rests on; None where that is not known.
        n_reference: how many reference images, where there are any.
        interval: lower and upper bound, where there is one.
        interval_kind: what the bounds are.
        reason: why there is no value.
        p: of a gain, see `records.Value.p`.
        beyond_noise: of a difference, whether it is larger than its noise.
    """

    value: float | None
    n: int | None = None
    n_reference: int | None = None
    interval: tuple[float, float] | None = None
    interval_kind: str | None = None
    reason: str | None = None
    p: float | None = None
    beyond_noise: bool = False

    @property
    def is_few(self) -> bool:
        """Whether it rests on too few images or prompts to be compared with other models'."""
        return few(self.n, self.n_reference)


@dataclass(frozen=True)
class Head:
    """What a row is of.

    Attributes:
        key: of the row: a model, a pair of models, a finding, a task.
        label: for readers.
        kind: `model`, `control`, `pair`, `finding`, ..., see `assemble.Row`.
        attributes: what is said of it, by the header of a table's column.
    """

    key: str
    label: str
    kind: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LongTable:
    """Numbers by row, metric, subset and variant.

    Attributes:
        heads: of the rows, in order.
        numbers: by key.
        reasons: by row, why a number that is not among `numbers` is missing.
        note: sentences for the caption.
    """

    heads: tuple[Head, ...]
    numbers: Mapping[Key, Number]
    reasons: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def number(self, key: Key) -> Number:
        """Return a number.

        Raises:
            KeyError: there is none, and no reason for it.
        """
        if key in self.numbers:
            return self.numbers[key]
        if key[0] not in self.reasons:
            raise KeyError(f"no number of {key} is derived")
        return Number(None, reason=self.reasons[key[0]])


def without_rows(reason: str) -> LongTable:
    """Return a long table of one row that only says why there is no other."""
    return LongTable((Head(NO_ROW, "–", "model"),), {}, {NO_ROW: reason})


def few(*counts: int | None) -> bool:
    """Return whether any of these counts is below `FEWEST_RANKED`; None is not counted."""
    return any(count is not None and count < FEWEST_RANKED for count in counts)


def measured(
    measurements: Measurements,
    stage: str,
    family: str | None,
    model: str,
    metric: str,
    why_missing: str,
    *,
    direction: str = "none",
    subset: str = "all",
    protocol: str | None = None,
) -> Number:
    """Return a measurement as a number, or the reason why there is none.

    Args:
        measurements: the measurements of all stages.
        stage: that measures it.
        family: of the measurement.
        model: its key.
        metric: its key.
        why_missing: the reason where nothing was measured there.
        direction: that whoever shows it takes for the better one.
        subset: `all` or a finding.
        protocol: of the measurement, where it is not the tables'.

    Raises:
        InputError: the measurement says that the opposite direction is better.
    """
    if not measurements.has(stage, family or "", model, protocol):
        return Number(None, reason=why_missing)
    row = measurements.find(stage, family or "", model, metric, subset, protocol)
    if row is None:
        return Number(None, reason=f"the record has no {metric}")
    if row.direction == _OPPOSITE.get(direction):
        raise InputError(
            f"{model}: {metric} says that {row.direction} is better, the table that {direction} is",
            f"{stage} record of {model}",
        )
    return Number(
        row.value, row.n, row.n_reference, row.interval, row.interval_kind, row.reason, row.p
    )
