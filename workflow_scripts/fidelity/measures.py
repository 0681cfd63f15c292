"""What the stage measures: its metrics, for the records and for whoever shows them."""

from typing import Final

from workflow_scripts.common.measurement import Metric

_SIDES: Final = ("Generated images", "Real images")

_REFERENCES: Final = {"studies": "films of their studies", "test_set": "whole test set"}
"""The other references (`references.py`), for readers."""

METRICS: Final = (
    Metric("fid", "FID", "lower", 3, _SIDES),
    Metric("fid_floor", "Floor: other patients", "none", 3, _SIDES),
    Metric("fid_floor_matched", "Floor: caption-matched", "none", 3, _SIDES),
    Metric("prompts_without_partner", "Prompts without a match", "none", 0, _SIDES),
    Metric("fid_corrected", "FID without its bias", "lower", 3, _SIDES),
    Metric("kid", "KID", "lower", 3, _SIDES),
    Metric("precision", "Precision", "higher", 3, _SIDES),
    Metric("recall", "Recall", "higher", 3, _SIDES),
    Metric("density", "Density", "higher", 3, _SIDES),
    Metric("coverage", "Coverage", "higher", 3, _SIDES),
    Metric("alignment", "Alignment Score", "higher", 3, _SIDES),
    *(
        Metric(f"{key}_{reference}", f"{label}, {words}", direction, 3, _SIDES)
        for reference, words in _REFERENCES.items()
        for key, label, direction in (
            ("fid", "FID", "lower"),
            ("kid", "KID", "lower"),
            ("precision", "Precision", "higher"),
            ("recall", "Recall", "higher"),
            ("density", "Density", "higher"),
            ("coverage", "Coverage", "higher"),
        )
    ),
)
