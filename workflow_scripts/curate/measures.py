"""What a curated set is measured by: its filter's metrics, and what a set is worth for training."""

from typing import Final

from workflow_scripts.common.measurement import Metric
from workflow_scripts.curate.kinds import EVERY_KIND
from workflow_scripts.downstream.trained import TESTED

_POOL: Final = ("Images of the pool", "Radiographs")
_SET: Final = ("Images of the set", "Radiographs")
_UNSEEN: Final = ("Unseen radiographs", "Radiographs")
_PLANTED: Final = ("Planted leaks", "Radiographs")

CAUGHT: Final = "leaks_caught"
"""The beginning of the name of a kind's sensitivity: `leaks_caught_flip`."""

FILTER: Final = (
    Metric("pool_images", "Images of the pool", "none", 0, _POOL),
    Metric("pool_flagged", "Taken for leaks", "lower", 3, _POOL),
    Metric("pool_refused", "Refused in all", "none", 0, _POOL),
    Metric("pool_sparse", "Unlike any radiograph", "lower", 3, _POOL),
    Metric("pool_implausible", "Implausible anatomy", "lower", 3, _POOL),
    Metric("pool_not_visible", "Finding not visible", "lower", 3, _POOL),
    Metric("set_images", "Images of the set", "none", 0, _SET),
    Metric("set_missing", "Images missing", "lower", 0, _SET),
    Metric("leaks_caught_least", "Planted leaks caught, worst kind", "higher", 3, _PLANTED),
    *(Metric(f"{CAUGHT}_{kind}", words, "higher", 3, _PLANTED)
      for kind, words in EVERY_KIND.items()),
    Metric("leaks_left", "Leaks left, at most", "lower", 0, _SET),
    Metric("leaks_left_share", "Leaks left, at most (share)", "lower", 3, _SET),
    Metric("unseen_flagged", "Unseen radiographs taken for leaks", "lower", 3, _UNSEEN),
)  # fmt: skip
"""What `decide.py` measures of a filter and its set."""

LEARNED: Final = (("auroc", "AUROC"), ("f1", "F1"), ("accuracy", "Accuracy"))
"""What a classifier is scored by, with names for readers."""

SEGMENTED: Final = (("dice", "Dice"), ("dice_pooled", "Pooled Dice"))
"""What a U-Net is scored by, with names for readers."""

WORTH: Final = tuple(
    Metric(f"{key}_filter", f"{label}, by the filter", "higher", 3, TESTED)
    for key, label in (*LEARNED, *SEGMENTED)
)
"""In tables: what the filter changes, the curated arm less the unfiltered one."""

METRICS: Final = (*FILTER, *WORTH)
