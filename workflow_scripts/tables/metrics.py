"""The metrics that stages declare, by key: what a table's column says if its spec does not."""

from collections.abc import Iterable
from typing import Final

from workflow_scripts.common.measurement import Metric
from workflow_scripts.downstream.measures import METRICS as DOWNSTREAM
from workflow_scripts.faithfulness.measures import METRICS as FAITHFULNESS
from workflow_scripts.faithfulness.stress_measures import METRICS as STRESS
from workflow_scripts.fidelity.metrics import declared as fidelity_metrics
from workflow_scripts.privacy.measures import METRICS as PRIVACY


def by_key(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Return metrics by key.

    Raises:
        ValueError: two metrics have one key.
    """
    found: dict[str, Metric] = {}
    for metric in metrics:
        if metric.key in found:
            raise ValueError(f"the metric {metric.key} is declared twice")
        found[metric.key] = metric
    return found


METRICS: Final = by_key((*fidelity_metrics(), *PRIVACY, *DOWNSTREAM, *FAITHFULNESS, *STRESS))
