"""How the downstream networks were trained: the paper's Table 12, from the records of real data.

The settings are those of the first training run of each task, which its record holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from workflow_scripts.tables.derive.long_table import Head, LongTable, Number
from workflow_scripts.tables.models import NOT_RUN
from workflow_scripts.tables.published import Key
from workflow_scripts.tables.records_in import REAL, Records


@dataclass(frozen=True)
class _Network:
    """A downstream network.

    Attributes:
        name: for readers.
        task: the downstream task.
        tuning: whether all weights are trained or a LoRA.
        settings: the settings that have another name in the task's record.
    """

    name: str
    task: str
    tuning: str
    settings: dict[str, str]


_NETWORKS: Final = (
    _Network("ResNet-50 (Classification)", "classification", "FFT", {"length": "epochs"}),
    _Network("U-Net (Segmentation)", "segmentation", "FFT", {"length": "steps"}),
    _Network("LLaVA-Rad (RRG)", "report_generation", "LoRA", {"length": "epochs"}),
)


def downstream_settings(records: Records, settings: Sequence[str]) -> LongTable:
    """Return the settings of each network, from the records of real data alone.

    Args:
        records: the records of all stages.
        settings: names of the settings; `runs` is the number of training runs.
    """
    numbers: dict[Key, Number] = {}
    for network in _NETWORKS:
        record = records.find("downstream", f"{network.task}/real_only", REAL)
        runs: list[dict[str, Any]] = [] if record is None else record.details.get("runs", [])
        first_run: dict[str, Any] = runs[0].get("settings", {}) if runs else {}
        for name in settings:
            value = first_run.get(network.settings.get(name, name))
            if name == "runs" and runs:
                value = len(runs)
            if value is not None:
                numbers[network.task, name, "all", ""] = Number(float(value))
    heads = tuple(
        Head(network.task, network.name, "network", {"Fine-Tuning": network.tuning})
        for network in _NETWORKS
    )
    return LongTable(heads, numbers, {network.task: NOT_RUN for network in _NETWORKS})
