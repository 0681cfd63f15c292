"""What segmentation measures, and the families of its records."""

from typing import Final

from workflow_scripts.common.measurement import Metric
from workflow_scripts.downstream.trained import with_runs

FAMILIES: Final = ("segmentation/real_only", "segmentation/augmented", "segmentation/labeller")

_GIVEN: Final = ("Images", "Reference images")

METRICS: Final = (
    Metric("n_images", "Size", "none", 0, _GIVEN),
    *with_runs(Metric("dice", "Dice", "higher", 3, _GIVEN), "Gain in Dice"),
    *with_runs(Metric("dice_pooled", "Pooled Dice", "higher", 3, _GIVEN), "Gain in pooled Dice"),
    *with_runs(Metric("dice_exact", "Dice, exact masks", "higher", 3, _GIVEN), "Gain, exact masks"),
    *with_runs(Metric("dice_pooled_exact", "Pooled Dice, exact masks", "higher", 3, _GIVEN)),
)
