"""The results of a run, `tables.json`: all tables and the further data of figures and report.

`tables.build` writes it. The figures and the report read it and compute no tables.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import write_text
from workflow_scripts.tables.assemble import Table
from workflow_scripts.tables.cohort_counts import AttritionTable, SplitCounts
from workflow_scripts.tables.derive.pareto import Standing
from workflow_scripts.tables.matrices import Matrix
from workflow_scripts.tables.models import ModelEntry

RESULTS: Final = "tables.json"
MEASUREMENTS: Final = "measurements.parquet"
"""The files with all tables, and with all measurements as one long table."""


@dataclass(frozen=True)
class Origin:
    """The commit, device and versions that made some of the records, and these records."""

    commit: str
    device: str
    versions: str
    records: str


@dataclass(frozen=True)
class Results:
    """All that the figures and the report show, except images and costs.

    Attributes:
        dataset: the data's name.
        protocol: the protocol of the tables.
        models: the models and controls, in the order of the tables' rows.
        cohort: counts by split.
        attrition: the images that the cohort left out, with reasons.
        tables: the tables by stem, in the paper's order.
        matrices: the differences of every pair of models, by metric.
        standings: the models and controls by fidelity, privacy, utility and faithfulness.
        origins: the origins of the records, each combination once.
        reid_threshold: δ of the re-identification score; None if no record has it.
    """

    dataset: str
    protocol: str
    models: tuple[ModelEntry, ...]
    cohort: dict[str, SplitCounts]
    attrition: AttritionTable
    tables: dict[str, Table]
    matrices: tuple[Matrix, ...]
    standings: tuple[Standing, ...]
    origins: tuple[Origin, ...]
    reid_threshold: float | None


def write_results(results: Results, path: str | Path) -> None:
    """Write the results as JSON, whole or not at all.

    Cells do not repeat their column, which follows from their place. Values of None are left out.
    """
    content = asdict(results)
    for table in content["tables"].values():
        for row in table["rows"]:
            for cell in row["cells"]:
                del cell["column"]
            row["cells"] = [{k: v for k, v in c.items() if v is not None} for c in row["cells"]]
    write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def read_results(path: str | Path) -> Results:
    """Read a file of `write_results`.

    Raises:
        InputError: the file is missing or damaged.
    """
    remedy = "run workflow_scripts.tables.build first"
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable("cannot read the tables", error, path, remedy) from None
    try:
        for table in content["tables"].values():
            columns = table["layout"]["columns"]
            for row in table["rows"]:
                for cell, column in zip(row["cells"], columns, strict=True):
                    cell |= {"column": column, "value": cell.get("value")}
        results: Results = TypeAdapter(Results).validate_python(content)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"no tables of this version: {error}", path, remedy) from None
    return results
