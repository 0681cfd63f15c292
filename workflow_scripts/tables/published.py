"""The paper's numbers as printed (`published/*.csv`), in tidy form.

The files are copies: misprints in them stay. The rows of a table are matched to model keys of the
config, its columns to the metrics of records.
"""

import csv
import functools
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.tables.layout import LAYOUTS, Layout

PAPER_DATASET: Final = "MIMIC-CXR"
"""The one dataset beside whose values published ones may stand."""

_MODEL_KEYS: Final = {
    "SD V1-4": "sd_v1_4",
    "SD V1-5": "sd_v1_5",
    "SD V2": "sd_v2",
    "SD V2-1": "sd_v2_1",
    "RadEdit": "radedit",
    "Pixart Sigma": "pixart_sigma",
    "Pixart Σ": "pixart_sigma",
    "Pixart- Σ": "pixart_sigma",
    "Sana": "sana",
    "SD V3.5 Medium": "sd_v3_5",
    "SD V3-5": "sd_v3_5",
    "Lumina 2.0": "lumina_2",
    "Lum. 2.0": "lumina_2",
    "Flux.1-Dev": "flux_1",
    "Flux": "flux_1",
    "LLM-CXR": "llm_cxr",
    "Original": "real",
    "Original (Real)": "real",
}
"""How the paper names its models (each table a little differently), and their config keys."""


@dataclass(frozen=True)
class Published:
    """One printed number: model key, metric and subset as in records, and its printed digits."""

    model: str
    metric: str
    subset: str
    value: float
    text: str


def model_key(name: str) -> str:
    """Return the config key of a model as the paper names it, with or without its citation.

    Raises:
        InputError: the paper has no such model.
    """
    plain = re.sub(r"\s*\([^()]*\d{4}\)$", "", name.strip())
    if plain not in _MODEL_KEYS:
        raise InputError(f"the paper has no model {name!r}", "workflow_scripts/tables/published")
    return _MODEL_KEYS[plain]


@functools.cache
def published_values(stem: str) -> dict[tuple[str, str, str], Published]:
    """Return a table's printed numbers by (model key, metric, subset).

    Args:
        stem: the table's file stem, for example `table01_fidelity`.

    Raises:
        InputError: the file does not fit the table's layout.
    """
    layout = LAYOUTS[stem]
    path = files("workflow_scripts.tables") / "published" / f"{stem}.csv"
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    names, cells = _by_model(rows, layout)
    found = {}
    for name, texts in zip(names, cells, strict=True):
        if len(texts) != len(layout.columns):
            raise InputError(f"{name}: {len(texts)} values, {len(layout.columns)} metrics", stem)
        for column, text in zip(layout.columns, texts, strict=True):
            key = (model_key(name), column.metric, column.subset)
            found[key] = Published(*key, float(text), text)
    return found


def _by_model(rows: list[list[str]], layout: Layout) -> tuple[list[str], list[list[str]]]:
    """Return the models' names and, for each, its values in the order of the layout's columns."""
    if layout.transposed:
        return rows[0][1:], [list(t) for t in zip(*(row[1:] for row in rows[1:]), strict=True)]
    first = 1 + len(layout.attributes)
    return [row[0] for row in rows[1:]], [row[first:] for row in rows[1:]]
