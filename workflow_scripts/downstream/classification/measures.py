"""What classification measures, and the families of its records."""

from typing import Final

from workflow_scripts.common.measurement import Metric
from workflow_scripts.downstream.trained import TESTED, with_runs

FAMILIES: Final = (
    "classification/real_only",
    "classification/augmented",
    "classification/synthetic_only",
)

METRICS: Final = (
    *with_runs(Metric("auroc", "AUROC", "higher", 3, TESTED)),
    *with_runs(Metric("f1", "F1", "higher", 3, TESTED)),
    *with_runs(Metric("accuracy", "Accuracy", "higher", 3, TESTED)),
)
