"""The worth of a curated set for training, as its documents show it, from `worth.json`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import Record, Value, read_record
from workflow_scripts.curate.described import number, with_interval

_SETS: Final = {"curated": "this set", "unfiltered": "as many images without the filter"}
_WAYS: Final = {"alone": "alone", "added": "added to real images"}
METRIC: Final = "auroc"
"""The metric that the documents show; its mean over findings."""

DICE: Final = "dice"
"""The same for segmentation; its mean over test radiographs."""

WORTH: Final = "worth"
SEGMENTED: Final = "worth_segmentation"
"""The family of the record for classification, and of that for segmentation."""


@dataclass(frozen=True)
class Line:
    """One line of the comparison.

    Attributes:
        words: the training set, or the two that are compared.
        value: its AUROC, or the difference of two.
        gain: its gain over real data alone; None for real data itself, and for differences.
    """

    words: str
    value: Value
    gain: Value | None


def read_worth(path: str | Path, model: str, dataset_sha256: str, family: str = WORTH) -> Record:
    """Read `worth.json` of a set, or `worth_segmentation.json`.

    Args:
        path: the record.
        model: the set's model.
        dataset_sha256: digest of the set, see `set_sha256`.
        family: of the record.

    Raises:
        InputError: the file is another kind of record, or belongs to another set.
    """
    record = read_record(path)
    trained = record.details.get("dataset_sha256")
    if (record.stage, record.family, record.model) != ("curate", family, model):
        raise InputError(f"not the worth of a set of {model}", path, f"rerun curate_{family}")
    if trained != dataset_sha256:
        raise InputError(
            "networks were trained on another set than the one that is described",
            path,
            "delete it, and run the workflow again",
        )
    return record


def lines_of(record: Record) -> Iterator[Line]:
    """Yield the lines of real data alone, of each arm, and of the filter's effect."""
    metric = DICE if record.family == SEGMENTED else METRIC
    # No U-Net learns from generated images alone.
    ways = {way: how for way, how in _WAYS.items() if metric == METRIC or way == "added"}
    yield Line("real images alone", record.get(f"real_{metric}"), None)
    for way, how in ways.items():
        for name, what in _SETS.items():
            key = f"{name}_{way}_{metric}"
            yield Line(f"{what}, {how}", record.get(key), record.get(f"{key}_gain"))
    for way, how in ways.items():
        words = f"what the filter changes, {how}"
        yield Line(words, record.get(f"filter_{way}_{metric}"), None)


def shown(value: Value | None) -> str:
    """Return a value with its interval, or the reason why there is none; a dash for None."""
    if value is None:
        return "–"
    if value.value is None:
        return str(value.reason)
    low, high = value.interval or (None, None)
    return with_interval(value.value, low, high)


def card_lines(record: Record | None, segmented: Record | None) -> list[str]:
    """Return the section of the dataset card, Markdown.

    Args:
        record: `worth.json`; None if it was not measured.
        segmented: `worth_segmentation.json`, likewise.
    """
    lines = ["", "## What it is worth for training", ""]
    if record is None:
        return [*lines, "Not measured (`curate.worth` of the config asks for it)."]
    if record.details["reason"]:
        return [*lines, f"Not measured: {record.details['reason']}."]
    lines += [
        f"A classifier of 14 findings was trained on {_images(record, 'curated')} images of this "
        "set, and on as many unfiltered images of the same pool, drawn by the same quotas and in "
        f"the same order ({number(record.details['shared_images'])} are in both). Each was then "
        f"tested on {_tested(record)}.",
        "",
        *_table(record, "mean AUROC"),
        "",
    ]
    if segmented is None or segmented.details["reason"]:
        return [*lines, "Other tasks were not tested."]
    masked = segmented.details["masked"]
    return [
        *lines,
        "A U-Net was trained to segment the clavicles on real images, with "
        f"{number(masked['curated'])} images of this set and with {number(masked['unfiltered'])} "
        f"unfiltered ones. Each was then tested on {_tested(segmented)}. Other tasks were not "
        "tested.",
        "",
        *_table(segmented, "mean Dice"),
    ]


def _images(record: Record, name: str) -> str:
    return number(record.details["sets"][name]["images"])


def _tested(record: Record) -> str:
    details = record.details
    return (
        f"{number(details['n_test'])} radiographs of {number(details['n_test_patients'])} patients "
        "whom no model has seen"
    )


def _table(record: Record, metric: str) -> list[str]:
    """Return the comparison as a Markdown table, with what its intervals are."""
    found = list(lines_of(record))
    lines = [
        f"| trained on | {metric} | gain over real images alone |",
        "|---|---|---|",
        *(f"| {x.words} | {shown(x.value)} | {shown(x.gain)} |" for x in found),
    ]
    kind = next((x.value.interval_kind for x in found if x.value.interval_kind), None)
    if kind:
        lines += ["", f"Brackets: {kind}."]
        if len([run for run in record.details["runs"] if run["arm"] == "real"]) == 1:
            lines[-1] += " With one training run of each, no difference is called an effect."
    return lines


def worth_json(record: Record) -> dict[str, Any]:
    """Return the part of the record that is published: values and training images, no paths."""
    keys = ["task", "draw_seed", "quotas", "pool_images", "dataset_sha256", "shared_images"]
    keys += ["sets", "masked", "reason", "n_test", "n_test_patients"]
    fields = ("metric", "subset", "value", "interval", "interval_kind", "p", "n", "reason")
    return {
        "model": record.model,
        "protocol": record.protocol,
        "trained_on": {key: record.details[key] for key in keys if key in record.details},
        "values": [{key: getattr(value, key) for key in fields} for value in record.values],
    }
