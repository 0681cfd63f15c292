"""Curated sets: what the filter left and may have missed, and what a set is worth for training.

What the filter did is a record of its own (`curate/filter_record.py`). The worth is that of a
classifier (`curate/worth.py`): real images alone, the set, and as many images of its pool that no
filter saw, each alone and added to the real images. A U-Net (`curate/worth_segmentation.py`) is
trained on them added to real images alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.common.records import Record
from workflow_scripts.curate.measures import LEARNED, SEGMENTED
from workflow_scripts.tables.derive.holm import holm
from workflow_scripts.tables.derive.long_table import (
    Head,
    LongTable,
    Number,
    measured,
    without_rows,
)
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.published import Key
from workflow_scripts.tables.records_in import Records

STAGE, FILTER, WORTH, SEGMENTED_WORTH = "curate", "filter", "worth", "worth_segmentation"

DECISION: Final = "Decision"
"""The header of the decision."""

VERDICTS: Final[Mapping[str, str]] = {
    "release": "release",
    "credentialed": "credentialed access only",
    "do_not_release": "do not release",
}
"""The decisions, for readers."""

NONE_MADE: Final = "not run: no model's set is asked for (`curate.models`)"
NOT_ASKED: Final = "not run: nobody asks what a set is worth (`curate.worth`)"
NOT_ASKED_MASKS: Final = (
    "not run: nobody asks what a set is worth for segmentation (`curate.worth_also`)"
)
OF_REAL: Final = "real images alone are what the others are compared with"
OF_UNFILTERED: Final = "as many images without the filter are what the set is compared with"

REAL: Final = "real"

ARMS: Final[Mapping[str, str]] = {
    REAL: "real images alone",
    "unfiltered_alone": "as many images, no filter",
    "curated_alone": "the set",
    "unfiltered_added": "real images and as many, no filter",
    "curated_added": "real images and the set",
}
"""The rows of a model, in words; the keys are the beginnings of the record's metrics."""


@dataclass(frozen=True)
class _Task:
    """A task by which sets are compared.

    Attributes:
        family: of its records.
        trained_on: the header of the words of each row.
        arms: the rows, see ARMS.
        metrics: by which a network is scored.
        sizes: the detail of the record with the number of images of each set.
        not_asked: the reason where sets were made, and none was tried by this task.
    """

    family: str
    trained_on: str
    arms: Mapping[str, str]
    metrics: tuple[str, ...]
    sizes: str
    not_asked: str


CLASSIFIED: Final = _Task(
    WORTH, "Classifier trained on", ARMS, tuple(key for key, _ in LEARNED), "sets", NOT_ASKED
)
MASKED: Final = _Task(
    SEGMENTED_WORTH,
    "U-Net trained on",
    {arm: words for arm, words in ARMS.items() if not arm.endswith("alone")},
    tuple(key for key, _ in SEGMENTED),
    "masked",
    NOT_ASKED_MASKS,
)


def curated(
    records: Records, measurements: Measurements, models: Sequence[ModelEntry]
) -> LongTable:
    """Return a row for each curated set: its filter in numbers, and the decision in words."""
    heads, reasons = [], {}
    numbers: dict[Key, Number] = {}
    for model, record in _found(records, models, FILTER):
        verdict = str(record.details.get("verdict", "not known"))
        kind = "control" if model.is_control else "model"
        words = {DECISION: VERDICTS.get(verdict, verdict)}
        heads.append(Head(model.key, model.name, kind, words))
        reasons[model.key] = "the record has no such value"
        for value in record.values:
            own = _of(measurements, model, FILTER, value.metric)
            numbers[model.key, value.metric, value.subset, ""] = own
    if not heads:
        return without_rows(NONE_MADE)
    return LongTable(tuple(heads), numbers, reasons)


def worth(
    records: Records,
    measurements: Measurements,
    models: Sequence[ModelEntry],
    task: _Task = CLASSIFIED,
) -> LongTable:
    """Return the rows of each curated set whose worth was measured: with and without the filter.

    A difference is marked where it is larger than its noise among all of the table (Holm); with one
    training run of each there is no p, and no mark.
    """
    heads: list[Head] = []
    numbers: dict[Key, Number] = {}
    for model, record in _found(records, models, task.family):
        sizes = record.details.get(task.sizes) or {}
        for arm, words in task.arms.items():
            key = f"{model.key}/{arm}"
            kind = "control" if model.is_control else "model"
            heads.append(Head(key, model.name, kind, {task.trained_on: words}))
            for metric in task.metrics:
                for name, number in _learned(measurements, model, task.family, arm, metric):
                    numbers[key, name, "all", ""] = number
            size = sizes.get(arm.partition("_")[0])
            size = size.get("images") if isinstance(size, Mapping) else size
            why = OF_REAL if arm == REAL else record.details.get("reason") or "not known"
            numbers[key, "set_images", "all", ""] = (
                Number(None, reason=why) if size is None else Number(size)
            )
    if not heads:
        made = any(True for _ in _found(records, models, FILTER))
        return without_rows(task.not_asked if made else NONE_MADE)
    return LongTable(tuple(heads), _marked(numbers))


def _found(
    records: Records, models: Sequence[ModelEntry], family: str
) -> Iterator[tuple[ModelEntry, Record]]:
    """Yield the models that have a record of a family, the controls last."""
    for model in sorted(models, key=lambda model: model.is_control):
        record = records.find(STAGE, family, model.key)
        if record is not None:
            yield model, record


def _learned(
    measurements: Measurements, model: ModelEntry, family: str, arm: str, metric: str
) -> Iterator[tuple[str, Number]]:
    """Yield an arm's score, its gain over real images, and what the filter changes."""
    yield metric, _of(measurements, model, family, f"{arm}_{metric}")
    gain, by_filter = f"{metric}_gain", f"{metric}_filter"
    name, _, way = arm.partition("_")
    if arm == REAL:
        yield gain, Number(None, reason=OF_REAL)
        yield by_filter, Number(None, reason=OF_REAL)
        return
    yield gain, _of(measurements, model, family, f"{arm}_{gain}")
    if name == "unfiltered":
        yield by_filter, Number(None, reason=OF_UNFILTERED)
    else:
        yield by_filter, _of(measurements, model, family, f"filter_{way}_{metric}")


def _of(measurements: Measurements, model: ModelEntry, family: str, metric: str) -> Number:
    return measured(measurements, STAGE, family, model.key, metric, NONE_MADE)


def _marked(numbers: dict[Key, Number]) -> dict[Key, Number]:
    """Return the numbers with the differences marked that are larger than their noise."""
    places = [(key, number.p) for key, number in numbers.items() if number.p is not None]
    marked = dict(numbers)
    for (key, _), apart in zip(places, holm([p for _, p in places]), strict=True):
        marked[key] = replace(numbers[key], beyond_noise=apart)
    return marked
