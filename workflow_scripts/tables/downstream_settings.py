"""How the downstream networks were trained: the paper's Table 12, from the records of real data.

The settings are those of the first training run of each task, which its record holds.
"""

from dataclasses import dataclass
from typing import Any, Final

from workflow_scripts.tables.assemble import Cell, Row, Table, table_of
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.models import NOT_RUN
from workflow_scripts.tables.records_in import REAL, Records
from workflow_scripts.tables.run import Run


@dataclass(frozen=True)
class _Network:
    """A downstream network: its name, task, how it is tuned, and its settings by column."""

    name: str
    task: str
    tuning: str
    settings: dict[str, str]


_NETWORKS: Final = (
    _Network("ResNet-50 (Classification)", "classification", "FFT", {"length": "epochs"}),
    _Network("U-Net (Segmentation)", "segmentation", "FFT", {"length": "steps"}),
    _Network("LLaVA-Rad (RRG)", "report_generation", "LoRA", {"length": "epochs"}),
)

SETTINGS: Final = LAYOUTS["table12_downstream_hyperparameters"]


def settings_table(run: Run) -> Table:
    """Return Table 12, from the records of real data alone."""
    rows = [_row(network, run.records) for network in _NETWORKS]
    return table_of(SETTINGS, rows, run, counts=False)


def _row(network: _Network, records: Records) -> Row:
    record = records.find("downstream", f"{network.task}/real_only", REAL)
    runs: list[dict[str, Any]] = [] if record is None else record.details.get("runs", [])
    given: dict[str, Any] = runs[0].get("settings", {}) if runs else {}
    cells = []
    for column in SETTINGS.columns:
        key = network.settings.get(column.metric, column.metric)
        value = len(runs) if column.metric == "runs" and runs else given.get(key)
        if value is None:
            cells.append(Cell(column, None, reason=NOT_RUN))
        else:
            cells.append(Cell(column, float(value)))
    return Row(network.task, network.name, "network", (network.tuning,), tuple(cells))
