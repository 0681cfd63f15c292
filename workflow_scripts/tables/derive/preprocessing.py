"""The effect of preprocessing alone: radiographs compared with recoded copies of themselves.

The controls of the kind `recoded_copies` show the prompts' own radiographs at another JPEG quality,
size or gray window. Their FID, KID and privacy scores are due to preprocessing alone.

The triangle inequality bounds the effect on a model, because the square roots of FID (the
2-Wasserstein distance of two Gaussians) and of KID (the maximum mean discrepancy) are distances. If
recoded images have an FID of f to the original ones, a model with an FID of F gets between
(√F - √f)² and (√F + √f)² by recoding, so that its FID changes by at most

    f + 2 √(F f).

Latent and pixel distance are distances themselves. Recoding an image changes its distance to a
radiograph by at most its distance to the original image, which the copies' distance is. This holds
for images that change as radiographs do. The re-identification score has no such inequality: its
loss on copies was measured, and is no bound.
"""

from collections.abc import Sequence
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
"""Kinds of controls: recoded copies, and unchanged ones."""

DISTANCES: Final = ("fid", "kid")
"""The measures of fidelity; both are the square of a distance."""

SCORE: Final = "reid_mean_of_max"

ALARMS: Final = {
    SCORE: "pairwise",
    "reid_share": "pairwise",
    "latent_mean_of_min": "pairwise",
    "pixel_mean_of_min": "pairwise",
    "any_seen": "lenses",
}
"""Privacy scores of copies, with the family of their records."""

NONE_RUN: Final = "not run: no copies saved in another way are in `run_models` (`jpeg_50`, ...)"


def may_move(value: float, recoded: float) -> float:
    """Return the most by which recoding can change a squared distance, >= 0.

    Args:
        value: the squared distance; an estimate below 0 counts as 0.
        recoded: the squared distance of recoded images to the original ones, likewise.
    """
    value, recoded = max(value, 0.0), max(recoded, 0.0)
    return recoded + 2 * float((value * recoded) ** 0.5)


def preprocessing(measurements: Measurements, models: Sequence[ModelEntry]) -> LongTable:
    """Return a row for each control of copies, and its largest effect on the lowest FID and KID."""
    copies = [m for m in models if m.is_control and m.settings.get("control") == RECODED]
    if not copies:
        return without_rows(NONE_RUN)
    unchanged = [m for m in models if m.is_control and m.settings.get("control") == UNCHANGED][:1]
    best = {metric: _lowest(measurements, models, metric) for metric in DISTANCES}
    numbers: dict[Key, Number] = {}
    for model in (*unchanged, *copies):
        for metric in DISTANCES:
            number = _of(measurements, model, "fidelity", ENCODER, metric)
            numbers[model.key, metric, "all", ""] = number
            numbers[model.key, f"{metric}_moves", "all", ""] = _moves(number, best[metric])
        for metric, family in ALARMS.items():
            number = _of(measurements, model, "privacy", family, metric)
            numbers[model.key, metric, "all", ""] = number
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
    """Return the model with the lowest value, without controls; None if no model has a value."""
    known = []
    for model in models:
        value = _of(measurements, model, "fidelity", ENCODER, metric).value
        if not model.is_control and value is not None:
            known.append((model, value))
    return min(known, key=lambda pair: pair[1], default=None)


def _moves(copies: Number, best: tuple[ModelEntry, float] | None) -> Number:
    """Return the most by which the preprocessing of copies can change the best model's value."""
    if copies.value is None:
        return Number(None, reason=copies.reason)
    if best is None:
        return Number(None, reason="no model's images were compared with radiographs")
    return Number(may_move(best[1], copies.value), copies.n, copies.n_reference)


def _sentence(
    numbers: dict[Key, Number],
    unchanged: Sequence[ModelEntry],
    copies: Sequence[ModelEntry],
    best: dict[str, tuple[ModelEntry, float] | None],
) -> str:
    """Return how large a difference between two models preprocessing alone can make, in words."""
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
        "Differences between two models up to these may be due to how their images were saved: "
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
