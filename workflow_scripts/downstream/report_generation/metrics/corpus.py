"""The metrics of a set of reports, each a function of statistics that add up over the reports.

Each report gives a row of statistics, and a metric is a function of the sum of the rows. So a
resampled test set costs only a weighted sum, even for BLEU and micro-F1, which are not means over
reports.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from workflow_scripts.downstream.report_generation.metrics.chexbert_classes import (
    FIVE,
    HEADS,
    agreement,
    is_positive,
    micro_f1,
)
from workflow_scripts.downstream.report_generation.metrics.overlap import COUNTS, bleu
from workflow_scripts.downstream.report_generation.metrics.reports import SCORE


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: its name in records.
        scorer: the scorer whose file it is computed from.
        statistics: maps the file's rows to statistics (n, k).
        value: maps sums of statistics (sets, k) to the metric of each set (sets,); nan where it is
            undefined.
        undefined: the reason that records give where it is undefined.
    """

    name: str
    scorer: str
    statistics: Callable[[pd.DataFrame], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]
    undefined: str = "undefined on these reports"


def _bleu(name: str, order: int) -> Metric:
    def statistics(rows: pd.DataFrame) -> np.ndarray:
        return rows[list(COUNTS)].to_numpy(np.float64)

    def value(sums: np.ndarray) -> np.ndarray:
        return bleu(np.rint(sums), order)

    return Metric(name, "overlap", statistics, value)


def _mean(name: str, scorer: str, column: str = SCORE) -> Metric:
    def statistics(rows: pd.DataFrame) -> np.ndarray:
        scores = rows[column].to_numpy(np.float64)
        return np.stack([scores, np.ones_like(scores)], axis=1)

    def value(sums: np.ndarray) -> np.ndarray:
        return sums[:, 0] / sums[:, 1]

    return Metric(name, scorer, statistics, value)


def _chexbert(name: str, findings: tuple[str, ...], uncertain_positive: bool) -> Metric:
    def statistics(rows: pd.DataFrame) -> np.ndarray:
        reference, generated = (
            is_positive(rows[[f"{side}_{f}" for f in findings]].to_numpy(), uncertain_positive)
            for side in ("reference", "generated")
        )
        return agreement(reference, generated)

    reason = "CheXbert finds nothing, neither in the references nor in the generated reports"
    return Metric(name, "chexbert", statistics, micro_f1, reason)


METRICS: Final = (
    _bleu("bleu_1", 1),
    _bleu("bleu_4", 4),
    _mean("rouge_l", "overlap", "rouge_l"),
    _mean("radgraph_f1", "radgraph"),
    _chexbert("chexbert_micro_f1_5", FIVE, False),
    _chexbert("chexbert_micro_f1_14", HEADS, False),
    _chexbert("chexbert_micro_f1_5_uncertain_positive", FIVE, True),
    _chexbert("chexbert_micro_f1_14_uncertain_positive", HEADS, True),
    _mean("green", "green"),
    _mean("ratescore", "ratescore"),
)
"""The metrics in the order of the paper's tables; higher is better for all."""

SCORERS: Final = ("chexbert", "radgraph", "green", "ratescore")
"""The scorers with a network, which write files."""
