"""Metrics of trained networks: with their spread over training runs and their gain."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from workflow_scripts.common.measurement import Metric

TESTED: Final = ("Test images", "Reference images")


def with_runs(metric: Metric, gain_label: str | None = None) -> Iterator[Metric]:
    """Yield a metric, its spread over training runs and its gain over real data alone.

    Args:
        metric: a metric of a trained network.
        gain_label: the label of its gain; by default `{label}, gain`.
    """
    yield metric
    key, label = metric.key, metric.label
    spread, gain = f"{label}, sd over runs", gain_label or f"{label}, gain"
    yield replace(metric, key=f"{key}_sd", label=spread, direction="none", decimals=3)
    yield replace(metric, key=f"{key}_gain", label=gain, decimals=3)
