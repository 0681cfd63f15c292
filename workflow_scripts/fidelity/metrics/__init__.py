"""The fidelity metrics, one file each; every file in this folder is used.

A file declares its metrics in `METRICS` (`common/measurement.Metric`) and defines

    def measure(comparison: Comparison, results: Results) -> None

which adds their values for one comparison to `results`, or the reason why there are none. torch and
other heavy libraries are imported inside `measure`, because tables read the declarations, too.
"""

import importlib
import pkgutil
from dataclasses import replace
from types import ModuleType

from workflow_scripts.common.measurement import Metric


def metric_modules() -> list[ModuleType]:
    """Return the modules of the metrics, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def declared() -> list[Metric]:
    """Return every metric that the modules declare, and those against other references."""
    from workflow_scripts.fidelity.metrics import fid, kid, manifolds
    from workflow_scripts.fidelity.references import OTHER_REFERENCES

    metrics = [metric for module in metric_modules() for metric in module.METRICS]
    of_other_references = [
        replace(metric, key=f"{metric.key}_{name}", label=f"{metric.label}, {words}")
        for name, words in OTHER_REFERENCES.items()
        for metric in (*fid.METRICS, *kid.METRICS, *manifolds.METRICS)
    ]
    return metrics + of_other_references
