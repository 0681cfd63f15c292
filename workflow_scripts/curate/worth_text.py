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


def read_worth(path: str | Path, model: str, dataset_sha256: str) -> Record:
    """Read `worth.json` of a set.

    Args:
        path: the record.
        model: the set's model.
        dataset_sha256: digest of the set, see `set_sha256`.

    Raises:
        InputError: the file is another kind of record, or belongs to another set.
    """
    record = read_record(path)
    trained = record.details.get("dataset_sha256")
    if (record.stage, record.family, record.model) != ("curate", "worth", model):
        raise InputError(f"not the worth of a set of {model}", path, "rerun curate_worth")
    if trained != dataset_sha256:
        raise InputError(
            "classifiers were trained on another set than the one that is described",
            path,
            "rerun curate_worth_train and curate_worth",
        )
    return record


def lines_of(record: Record) -> Iterator[Line]:
    """Yield the lines of real data alone, of each arm, and of the filter's effect."""
    yield Line("real images alone", record.get(f"real_{METRIC}"), None)
    for way, how in _WAYS.items():
        for name, what in _SETS.items():
            key = f"{name}_{way}_{METRIC}"
            yield Line(f"{what}, {how}", record.get(key), record.get(f"{key}_gain"))
    for way, how in _WAYS.items():
        words = f"what the filter changes, {how}"
        yield Line(words, record.get(f"filter_{way}_{METRIC}"), None)


def shown(value: Value | None) -> str:
    """Return a value with its interval, or the reason why there is none; a dash for None."""
    if value is None:
        return "–"
    if value.value is None:
        return str(value.reason)
    low, high = value.interval or (None, None)
    return with_interval(value.value, low, high)


def card_lines(record: Record | None) -> list[str]:
    """Return the section of the dataset card, Markdown."""
    lines = ["", "## What it is worth for training", ""]
    if record is None:
        return [*lines, "Not measured (`curate.worth` of the config asks for it)."]
    details = record.details
    if details["reason"]:
        return [*lines, f"Not measured: {details['reason']}."]
    curated = details["sets"]["curated"]
    lines += [
        f"A classifier of 14 findings was trained on {number(curated['images'])} images of this "
        "set, and on as many unfiltered images of the same pool, drawn by the same quotas and in "
        f"the same order ({number(details['shared_images'])} are in both). Each was then tested on "
        f"{number(details['n_test'])} radiographs of {number(details['n_test_patients'])} patients "
        "whom no model has seen. Other tasks were not tested.",
        "",
        "| trained on | mean AUROC | gain over real images alone |",
        "|---|---|---|",
    ]
    lines += [f"| {x.words} | {shown(x.value)} | {shown(x.gain)} |" for x in lines_of(record)]
    kind = next((x.value.interval_kind for x in lines_of(record) if x.value.interval_kind), None)
    if kind:
        lines += ["", f"Brackets: {kind}."]
        if len([run for run in details["runs"] if run["arm"] == "real"]) == 1:
            lines[-1] += " With one training run of each, no difference is called an effect."
    return lines


def worth_json(record: Record) -> dict[str, Any]:
    """Return the part of the record that is published: values and training images, no paths."""
    keys = ["task", "draw_seed", "quotas", "pool_images", "dataset_sha256", "shared_images"]
    keys += ["sets", "reason", "n_test", "n_test_patients"]
    fields = ("metric", "subset", "value", "interval", "interval_kind", "p", "n", "reason")
    return {
        "model": record.model,
        "protocol": record.protocol,
        "trained_on": {key: record.details[key] for key in keys if key in record.details},
        "values": [{key: getattr(value, key) for key in fields} for value in record.values],
    }
