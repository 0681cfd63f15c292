"""The metrics that stages declare, by key: what a table's column says if its spec does not.

A stage declares them where it measures: `METRICS` in a file `measures.py` of its folder or of a
folder below it (a task, a score), or a file each in `fidelity/metrics/`. A file is in use because
it is there.
"""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from workflow_scripts.common.measurement import Metric
from workflow_scripts.fidelity.metrics import declared as fidelity_metrics

_ROOT: Final = Path(__file__).resolve().parents[1]


def measures_modules() -> list[str]:
    """Return the modules named `measures` of all stages, as names below `workflow_scripts`.

    They are imported by name: a rule declares them beside the script (`code(...)`).
    """
    files = [*_ROOT.glob("*/measures.py"), *_ROOT.glob("*/*/measures.py")]
    names = (path.relative_to(_ROOT).with_suffix("").as_posix() for path in files)
    return sorted(name.replace("/", ".") for name in names)


def by_key(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Return metrics by key.

    Raises:
        ValueError: two different metrics have one key.
    """
    known: dict[str, Metric] = {}
    for metric in metrics:
        if known.setdefault(metric.key, metric) != metric:
            raise ValueError(f"the metric {metric.key} is declared twice")
    return known


def _declared() -> Iterable[Metric]:
    yield from fidelity_metrics()
    for name in measures_modules():
        yield from importlib.import_module(f"workflow_scripts.{name}").METRICS


METRICS: Final = by_key(_declared())
