"""The questions that the stress set answers, and its metrics."""

from dataclasses import dataclass
from typing import Final

from workflow_scripts.common.measurement import Metric


@dataclass(frozen=True)
class Question:
    """One question about a contrast.

    Attributes:
        key: its metrics are `stress_{key}`, with `_ceiling` and `_share`.
        label: its name for readers.
        contrast: the contrast of the stress set.
        levels: the level of the images that should score high, and of the others.
        regions: the score is the difference of evidence between these; None for the probability.
        told_by: what separates radiographs for the ceiling: `label`, or an attribute of captions.
        values: the values of `told_by`, in the order of `levels`.
        direction: the better direction of the share, and of the value (except for `negation`).
    """

    key: str
    label: str
    contrast: str
    levels: tuple[str, str]
    regions: tuple[str, str] | None
    told_by: str
    values: tuple[object, object]
    direction: str = "higher"


_LABEL: Final = (True, False)
QUESTIONS: Final = (
    Question("presence", "Present", "presence", ("present", "unmentioned"), None, "label", _LABEL),
    Question(
        "negation", "Denied", "presence", ("denied", "unmentioned"), None, "label", _LABEL, "lower"
    ),
    Question(
        "side", "Side", "side", ("left", "right"), ("left", "right"), "side", ("left", "right")
    ),
    Question("severity", "Severity", "severity", ("severe", "mild"), None, "severity", (2, 0)),
    Question(
        "zone", "Zone", "zone", ("upper", "lower"), ("upper", "lower"), "zone", ("upper", "lower")
    ),
    Question("device", "Device", "device", ("present", "unmentioned"), None, "label", _LABEL),
)

_COUNTS: Final = ("Generated images", "Radiographs")
_REAL: Final = ("Radiographs", "Radiographs")
DISTANCES: Final = ("wording", "view")
METRICS: Final = (
    *(
        metric
        for q in QUESTIONS
        for metric in (
            Metric(
                f"stress_{q.key}",
                q.label,
                # For a denial 0.5 is right. Lower and higher values are equally wrong.
                "none" if q.key == "negation" else q.direction,
                3,
                _COUNTS,
            ),
            Metric(f"stress_{q.key}_ceiling", f"{q.label}, ceiling", "none", 3, _REAL),
            Metric(f"stress_{q.key}_share", f"{q.label}, share", q.direction, 2, _COUNTS),
        )
    ),
    Metric("stress_side_mirrored", "Side, mirrored", "lower", 3, _COUNTS),
    Metric("stress_severity_tau", "Severity, Kendall's τ", "higher", 2, _COUNTS),
    Metric("stress_wording", "Other words, change", "lower", 2, _COUNTS),
    Metric("stress_view", "Other view, change", "none", 2, _COUNTS),
)

SCORE_COLUMNS: Final = (
    "prompt_id",
    "contrast",
    "group",
    "level",
    "finding",
    "caption",
    "score",
    "as_asked",
    "told",
)
"""The columns of the table of each image's score, see `contrasts.image_scores`."""
