"""What is asked of the stress set, and its metrics: for whoever scores or shows them."""

from dataclasses import dataclass
from typing import Final

from workflow_scripts.common.measurement import Metric


@dataclass(frozen=True)
class Question:
    """One value of a contrast.

    Attributes:
        key: of its metric, behind `stress_`.
        label: for readers.
        contrast: of the stress set.
        levels: of the images that should score high, and of the others.
        regions: whose difference of evidence is the score; None asks for the probability.
        told_by: what tells radiographs apart for the ceiling: `label`, or what captions say.
        values: of `told_by`, in the order of `levels`.
        direction: of the share, and of the value but that of `negation`.
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
                # Of a denial 0.5 is right, and less is as wrong as more.
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
"""Of the table of each image's score, see `contrasts.image_scores`."""
