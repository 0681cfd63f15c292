"""What preprocessing alone costs: radiographs against themselves, saved in another way.

The controls of the kind `recoded_copies` show the prompts' own radiographs at another JPEG quality,
size or gray window. What FID, KID and the privacy lenses say of them is made by preprocessing.

How far it may move a model follows from the triangle inequality, which the roots of FID (the
2-Wasserstein distance of two Gaussians) and of KID (the maximum mean discrepancy) obey. If another
way of saving is f away from the images as they were, a model at F comes to at least (√F - √f)² and
at most (√F + √f)², so that its value changes by no more than

    f + 2 √(F f).

Latent and pixel distance are distances themselves: saving an image in another way moves its
distance to a radiograph by no more than its own move, which the copies' distance is. This holds for
each image that moves as radiographs do. No inequality holds for the re-identification score: what
copies lose is what was measured, no bound.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.derive.long_table import (
    ENCODER,
    Head,
    LongTable,
    Number,
    measured,
    without_rows,
)
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.published import Key

RECODED: Final = "recoded_copies"
UNCHANGED: Final = "training_copies"
"""Kinds of controls: copies that were saved in another way, and those as they are."""

DISTANCES: Final = ("fid", "kid")
"""The measures of fidelity, both squares of a distance."""

SCORE: Final = "reid_mean_of_max"

ALARMS: Final = {
    SCORE: "pairwise",
    "reid_share": "pairwise",
    "latent_mean_of_min": "pairwise",
    "pixel_mean_of_min": "pairwise",
    "any_seen": "lenses",
}
"""What privacy says of copies, with the family of its records."""

NONE_RUN: Final = "not run: no copies saved in another way are in `run_models` (`jpeg_50`, ...)"


def may_move(value: float, moved: float) -> float:
    """Return by how much a squared distance may change at most, >= 0.

    Args:
        value: the squared distance; an estimate below 0 counts as 0.
        moved: the squared distance between the images before and after, likewise.
    """
    value, moved = max(value, 0.0), max(moved, 0.0)
    return moved + 2 * float((value * moved) ** 0.5)


def preprocessing(measurements: Measurements, models: Sequence[ModelEntry]) -> LongTable:
    """Return a row for each control of copies, with how far it may move the most faithful model."""
    copies = [m for m in models if m.is_control and m.settings.get("control") == RECODED]
    if not copies:
        return without_rows(NONE_RUN)
    unchanged = [m for m in models if m.is_control and m.settings.get("control") == UNCHANGED][:1]
    best = {metric: _lowest(measurements, models, metric) for metric in DISTANCES}
    numbers: dict[Key, Number] = {}
    for model in (*unchanged, *copies):
        for metric in DISTANCES:
            own = _of(measurements, model, "fidelity", ENCODER, metric)
            numbers[model.key, metric, "all", ""] = own
            numbers[model.key, f"{metric}_moves", "all", ""] = _moves(own, best[metric])
        for metric, family in ALARMS.items():
            own = _of(measurements, model, "privacy", family, metric)
            numbers[model.key, metric, "all", ""] = own
    heads = tuple(Head(m.key, m.name, "control") for m in (*unchanged, *copies))
    return LongTable(heads, numbers, note=_sentence(numbers, unchanged, copies, best))


def _of(
    measurements: Measurements, model: ModelEntry, stage: str, family: str, metric: str
) -> Number:
    return measured(
        measurements, stage, family, model.key, metric, model.why_missing(stage, family)
    )


def _lowest(
    measurements: Measurements, models: Sequence[ModelEntry], metric: str
) -> tuple[ModelEntry, float] | None:
    """Return the model with the lowest value, which is not a control; None where there is none."""
    known = []
    for model in models:
        value = _of(measurements, model, "fidelity", ENCODER, metric).value
        if not model.is_control and value is not None:
            known.append((model, value))
    return min(known, key=lambda pair: pair[1], default=None)


def _moves(own: Number, best: tuple[ModelEntry, float] | None) -> Number:
    if own.value is None:
        return Number(None, reason=own.reason)
    if best is None:
        return Number(None, reason="no model's images were compared with radiographs")
    return replace(Number(may_move(best[1], own.value)), n=own.n, n_reference=own.n_reference)


def _sentence(
    numbers: dict[Key, Number],
    unchanged: Sequence[ModelEntry],
    copies: Sequence[ModelEntry],
    best: dict[str, tuple[ModelEntry, float] | None],
) -> str:
    """Return how large a difference of two models the writer of their images may make."""
    parts = []
    for metric, name, digits in (("fid", "FID", 3), ("kid", "KID", 4)):
        model, moved = best[metric], _largest(numbers, copies, f"{metric}_moves")
        if model is not None and moved is not None:
            parts.append(
                f"{moved[1]:.{digits}f} in {name} beside {model[0].name}'s {model[1]:.{digits}f} "
                f"({moved[0].name})"
            )
    lost = _lost(numbers, unchanged, copies)
    if lost is not None:
        parts.append(f"{lost[1]:.3f} in the average re-ID score ({lost[0].name})")
    for metric, name, digits in (
        ("latent_mean_of_min", "latent distance", 3),
        ("pixel_mean_of_min", "pixel distance", 1),
    ):
        moved = _largest(numbers, copies, metric)
        if moved is not None:
            parts.append(f"{moved[1]:.{digits}f} in {name} ({moved[0].name})")
    if not parts:
        return ""
    return (
        "Two models that differ by no more than this may differ by how their images were saved: "
        f"{'; '.join(parts)}."
    )


def _largest(
    numbers: dict[Key, Number], copies: Sequence[ModelEntry], metric: str
) -> tuple[ModelEntry, float] | None:
    values = [(copy, numbers[copy.key, metric, "all", ""].value) for copy in copies]
    known = [(copy, value) for copy, value in values if value is not None]
    return max(known, key=lambda pair: pair[1], default=None)


def _lost(
    numbers: dict[Key, Number], unchanged: Sequence[ModelEntry], copies: Sequence[ModelEntry]
) -> tuple[ModelEntry, float] | None:
    """Return the largest change of the re-ID score from unchanged copies, and which copies'."""
    before = numbers[unchanged[0].key, SCORE, "all", ""].value if unchanged else None
    if before is None:
        return None
    after = [(copy, numbers[copy.key, SCORE, "all", ""].value) for copy in copies]
    changes = [(copy, abs(before - value)) for copy, value in after if value is not None]
    return max(changes, key=lambda pair: pair[1], default=None)
