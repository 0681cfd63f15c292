"""The paper's numbers as printed (`published.csv`), a row for each.

Misprints in them stay. `row` is the key of the table's row: a model's in the config, `real`, a
finding, a task. `variant` is the encoder or the setting where a table has several columns of one
metric. `tests/tables/test_published.py` holds the file against the paper's tables as printed.
"""

import csv
import functools
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

PAPER_DATASET: Final = "MIMIC-CXR"
"""The one dataset beside whose values published ones may stand."""

Key = tuple[str, str, str, str]
"""Row, metric, subset and variant of a number in its table."""


@dataclass(frozen=True)
class Published:
    """One printed number, with its printed digits."""

    value: float
    text: str


def published_values(stem: str) -> dict[Key, Published]:
    """Return a table's printed numbers; none where the paper has no such table.

    Args:
        stem: the table's file stem, for example `table01_fidelity`.
    """
    return _tables().get(stem, {})


@functools.cache
def _tables() -> dict[str, dict[Key, Published]]:
    text = (files("workflow_scripts.tables") / "published.csv").read_text(encoding="utf-8")
    tables: dict[str, dict[Key, Published]] = {}
    for row in csv.DictReader(text.splitlines()):
        key = (row["row"], row["metric"], row["subset"], row["variant"])
        number = Published(float(row["text"].replace(",", "")), row["text"])
        tables.setdefault(row["table"], {})[key] = number
    return tables
