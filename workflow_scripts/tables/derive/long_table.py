"""Long tables: numbers that are computed from measurements.

A derivation takes measurements (or records) and returns a `LongTable`. It knows no columns and
headers of tables: the specs say which column shows which number.
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
"""Fewest images on each side, or prompts, of a value that is compared with other models'."""

FLOOR_LABEL: Final = "Floor: real against other patients' real"
"""The label of a row of floors."""

NO_ROW: Final = "none"
"""The key of the only row of a table that has nothing to show."""

_OPPOSITE: Final = {"higher": "lower", "lower": "higher"}


@dataclass(frozen=True)
class Number:
    """A number with its sample sizes and interval, or the reason why there is none.

    Attributes:
        value: the number with all digits; None if there is none.
        n: number of images or prompts that it was computed from; None if not known.
        n_reference: number of reference images; None if there are none.
        interval: lower and upper bound; None if there is no interval.
        interval_kind: what the bounds are, for readers.
        reason: why there is no value.
        p: p value of a gain, see `records.Value.p`.
        beyond_noise: whether a difference is significant.
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
        """Whether there are too few images or prompts to compare it with other models'."""
        return few(self.n, self.n_reference)


@dataclass(frozen=True)
class Head:
    """The head of a row.

    Attributes:
        key: the row's key: a model, a pair of models, a finding, a task.
        label: its name for readers.
        kind: `model`, `control`, `pair`, `finding`, ..., see `assemble.Row`.
        attributes: texts about it, by the header of the column that shows them.
    """

    key: str
    label: str
    kind: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LongTable:
    """Numbers by row, metric, subset and variant.

    Attributes:
        heads: the heads of the rows, in order.
        numbers: the numbers by key.
        reasons: for each row, why its other numbers are missing.
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
    """Return a long table with a single row, which says why there are no others."""
    return LongTable((Head(NO_ROW, "–", "model"),), {}, {NO_ROW: reason})


def few(*counts: int | None) -> bool:
    """Return whether any of these counts is below `FEWEST_RANKED`; None is ignored."""
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
        stage: the stage that measures it.
        family: the measurement's family.
        model: the model's key.
        metric: the metric's key.
        why_missing: the reason to give if the stage measured nothing of the model.
        direction: the direction that the table takes for the better one.
        subset: `all` or a finding.
        protocol: the measurement's protocol; None is that of the tables.

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
