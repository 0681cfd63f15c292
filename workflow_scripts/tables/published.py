"""The paper's numbers as printed (`published.csv`), a row for each.

Misprints in them stay. `row` is the key of the table's row: a model's in the config, `real`, a
finding, a task. `variant` is the encoder or the setting where a table has several columns of one
metric. `tests/tables/test_published.py` holds the file against the paper's tables as printed.
"""

import csv
import functools
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from workflow_scripts.common.errors import InputError

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


@functools.cache
def _tables() -> dict[str, dict[Key, Published]]:
    text = (files("workflow_scripts.tables") / "published.csv").read_text(encoding="utf-8")
    found: dict[str, dict[Key, Published]] = {}
    for row in csv.DictReader(text.splitlines()):
        key = (row["row"], row["metric"], row["subset"], row["variant"])
        number = Published(float(row["text"].replace(",", "")), row["text"])
        found.setdefault(row["table"], {})[key] = number
    return found
