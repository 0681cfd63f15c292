"""The paper's numbers as printed (`published/*.csv`), in tidy form.

The files are copies: misprints in them stay. The rows of a table are matched to model keys of the
config, its columns to the metrics of records.
"""

import csv
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.tables.layout import LAYOUTS, Column, Layout

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
    "SD v3.5": "sd_v3_5",
    "Lumina 2.0": "lumina_2",
    "Lumina 2": "lumina_2",
    "Lum. 2.0": "lumina_2",
    "Flux.1-Dev": "flux_1_dev",
    "Flux": "flux_1_dev",
    "LLM-CXR": "llm_cxr",
    "SD-V1-4, LlaVA-Rad": "sd_v1_4",
    "SD-V1-5, LlaVA-Rad": "sd_v1_5",
    "SD-V2, LlaVA-Rad": "sd_v2",
    "SD-V1-4, Original MIMIC": "sd_v1_4_impression",
    "SD-V1-5, Original MIMIC": "sd_v1_5_impression",
    "SD-V2, Original MIMIC": "sd_v2_impression",
    "Flux.1": "flux_1_dev",
    "Original": "real",
    "Baseline (None)": "real",
    "Original (Real)": "real",
    "Original (Real Data Only)": "real",
    "Real Data + SD V1-4": "sd_v1_4",
    "Real Data + SD V1-5": "sd_v1_5",
    "Real Data + RadEdit": "radedit",
    "Real Data + Pixart": "pixart_sigma",
    "Real Data + Sana": "sana",
}
"""How the paper names its models (each table a little differently), and their config keys."""


@dataclass(frozen=True)
class Published:
    """One printed number, with its printed digits.

    Model key, metric, subset and family are those of records; the family is empty where it is the
    table's.
    """

    model: str
    metric: str
    subset: str
    family: str
    value: float
    text: str


def model_key(name: str) -> str:
    """Return the config key of a model as the paper names it.

    With or without its citation, or the number of training images that Table 6 sets there.

    Raises:
        InputError: the paper has no such model.
    """
    plain = re.sub(r"\s*\(([^()]*\d{4}|N=[\d,]+)\)$", "", name.strip())
    if plain not in _MODEL_KEYS:
        raise InputError(f"the paper has no model {name!r}", "workflow_scripts/tables/published")
    return _MODEL_KEYS[plain]


def printed_rows(stem: str) -> list[list[str]]:
    """Return the rows of a printed table as text, its headers first.

    Args:
        stem: the table's file stem, for example `table08_ranks`.
    """
    path = files("workflow_scripts.tables") / "published" / f"{stem}.csv"
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


@functools.cache
def published_values(stem: str) -> dict[tuple[str, str, str, str], Published]:
    """Return a table's printed numbers by (model key, metric, subset, family).

    Args:
        stem: the table's file stem, for example `table01_fidelity`.

    Raises:
        InputError: the file does not fit the table's layout.
    """
    layout = LAYOUTS[stem]
    rows = [row for row in printed_rows(stem) if any(row[1:])]  # Table 5 has a heading inside
    columns: Sequence[Column] = layout.columns
    if rows[0][:2] == ["Metric", ""]:
        rows, columns = _one_label(rows, columns)
    names, cells = _by_model(rows, layout)
    found = {}
    for name, texts in zip(names, cells, strict=True):
        if len(texts) != len(columns):
            raise InputError(f"{name}: {len(texts)} values, {len(columns)} metrics", stem)
        for column, text in zip(columns, texts, strict=True):
            key = (model_key(name), column.metric, column.subset, column.family or "")
            found[key] = Published(*key, float(text.replace(",", "")), text)
    return found


def _one_label(
    rows: list[list[str]], columns: Sequence[Column]
) -> tuple[list[list[str]], list[Column]]:
    """Return Table 7's rows with one label, and the columns of the layout that they print.

    Its first cell names the metric, once for all of its encoders; its second the encoder.
    """
    plain, printed, metric = [[rows[0][0], *rows[0][2:]]], [], ""
    for row in rows[1:]:
        metric = row[0] or metric
        header = f"{metric} ↓ ({row[1]})"
        printed.append(next(column for column in columns if column.header == header))
        plain.append([header, *row[2:]])
    return plain, printed


def _by_model(rows: list[list[str]], layout: Layout) -> tuple[list[str], list[list[str]]]:
    """Return the models' names and, for each, its values in the order of the layout's columns."""
    if layout.transposed:
        return rows[0][1:], [list(t) for t in zip(*(row[1:] for row in rows[1:]), strict=True)]
    first = 1 + len(layout.attributes)
    names = [row[0] for row in rows[1:]]
    if layout.varies is not None:  # Table 17 tells a model's rows by their prompt type
        names = [f"{row[0]}, {row[1]}" for row in rows[1:]]
    return names, [row[first:] for row in rows[1:]]
