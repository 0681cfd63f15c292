"""The metrics of fidelity: a file each, in use because it is there.

A file declares `METRICS`, what it measures (`common/measurement.Metric`), and has

    def measure(comparison: Comparison, found: Found) -> None

which adds their values over the images of one comparison to `found`, or why there are none.
Networks' libraries are imported in `measure` only: tables read the declarations, too.
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
    """Return every metric that the modules declare, also those against other references."""
    from workflow_scripts.fidelity.metrics import fid, kid, manifolds
    from workflow_scripts.fidelity.references import OTHER_REFERENCES

    own = [metric for module in metric_modules() for metric in module.METRICS]
    beside = [
        replace(metric, key=f"{metric.key}_{name}", label=f"{metric.label}, {words}")
        for name, words in OTHER_REFERENCES.items()
        for metric in (*fid.METRICS, *kid.METRICS, *manifolds.METRICS)
    ]
    return own + beside
