"""The values of attacks on membership, from the scores of members and non-members."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import Value
from workflow_scripts.privacy.membership.attack import (
    KIND,
    TPR_KIND,
    Estimate,
    auc,
    auc_beyond_chance,
    blind_faults,
    difference,
    in_words,
    tpr_at,
)
from workflow_scripts.privacy.membership.candidates import FEWEST

SCORES: Final = ("loss", "caption", "frequency")
"""The scores of an image that come from a checkpoint's losses, see `scores_of`."""

ATTACKS: Final = (*SCORES, *(f"{name}_calibrated" for name in SCORES))
MAIN: Final = "loss_calibrated"
"""The attack that is split by finding and caption. It was chosen after a first look
at the demo, before any model of real radiographs was attacked."""

SAMPLES: Final = "samples"
"""The attack on a model's images alone."""

RATES: Final = {"tpr": 0.01, "tpr_low": 0.001}
ALARMS: Final = 5
"""Fewest false alarms that the lower of `RATES` has to allow."""

KINDS: Final = ("marked", "unmarked", "long", "short")
"""Captions with and without de-identification marks; longer and shorter than the median."""

NO_BASE: Final = "it came trained: there is no checkpoint from before to set its losses against"
PRESUMED: Final = (
    "unknown: the model came trained. The train split is taken for them, and no base checkpoint "
    "shows whether chance alone tells it from the others"
)
"""Who the members are, as the record of a model that came trained says it."""

_NO_ERROR: Final = "the family's loss is no mean square whose error could be looked at"


def scores_of(losses: np.ndarray) -> dict[str, np.ndarray]:
    """Return each image's scores, (n,), higher for "member", from its losses.

    `loss` is higher for a lower loss with the caption. `caption` is the loss with the empty caption
    less that with the image's own (Zhai et al., 2024, arXiv 2405.14800). `frequency` is higher for
    a lower error at low spatial frequencies.

    Args:
        losses: (n, passes, 3), see `image_losses`.
    """
    conditional, unconditional, low = losses.astype(np.float64).mean(axis=1).T
    return {"loss": -conditional, "caption": unconditional - conditional, "frequency": -low}


def attack_scores(base: np.ndarray, tuned: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of every attack, and of the base checkpoint (`base_{score}`).

    A calibrated score is less the base checkpoint's, which never saw a member. So an image that is
    easy for every model is not taken for a member's.

    Args:
        base: (n, passes, 3) losses under the base checkpoint.
        tuned: the same under the fine-tuned one.
    """
    before, after = scores_of(base), scores_of(tuned)
    calibrated = {f"{name}_calibrated": after[name] - before[name] for name in SCORES}
    return {**after, **calibrated, **{f"base_{name}": before[name] for name in SCORES}}


def membership_values(
    candidates: pd.DataFrame, scores: Mapping[str, np.ndarray]
) -> tuple[list[Value], dict[str, Any]]:
    """Return the values of all attacks on losses, and what was checked.

    A value is withheld where an AUC of 0.5 would not be chance: where the base checkpoint, or the
    captions, views and findings alone, tell members from non-members.

    Args:
        candidates: see `draw_candidates`.
        scores: see `attack_scores`, (n,) each, in the order of the candidates.
    """
    member = candidates["member"].to_numpy(bool)
    faults = blind_faults(candidates)
    values = []
    reasons: dict[str, str | None] = {}
    for name in SCORES:
        before = scores[f"base_{name}"]
        values.append(_base_value(name, before, member))
        reason = _reason(before, member, faults)
        reasons[name] = reasons[f"{name}_calibrated"] = reason
    for attack in ATTACKS:
        values += _attack_values(attack, scores[attack], member, reasons[attack])
    values += _split_values(candidates, scores[MAIN], reasons[MAIN])
    values += _samples_absent("the model was asked for its losses, which tell more")
    checked = {
        "withheld": {name: reason for name, reason in reasons.items() if reason},
        "by_source": _by_source(candidates, scores[MAIN]) if not reasons[MAIN] else {},
    }
    return values, checked


def presumed_values(
    candidates: pd.DataFrame, losses: np.ndarray
) -> tuple[list[Value], dict[str, Any], dict[str, np.ndarray]]:
    """Return the values of attacks on a model that came trained, what was checked, and the scores.

    Who its members are is unknown, so the train split is taken for them. There is no base
    checkpoint, so nothing is calibrated, and only captions, views and findings are checked for what
    tells members from non-members.

    Args:
        candidates: see `draw_candidates`.
        losses: (n, passes, 3) under the model, see `image_losses`.
    """
    member = candidates["member"].to_numpy(bool)
    scores = scores_of(losses)
    faults = blind_faults(candidates)
    withheld = "withheld: " + "; ".join(faults) if faults else None
    uncalibrated = {f"member_{name}_{key}" for name in SCORES for key in _keys()}
    values = [value for value in _losses_absent(NO_BASE) if value.metric not in uncalibrated]
    for name in SCORES:
        reason = withheld if np.isfinite(scores[name]).all() else _NO_ERROR
        values += _attack_values(name, scores[name], member, reason)
    values += _samples_absent("the model was asked for its losses, which tell more")
    return values, {"withheld": dict.fromkeys(SCORES, withheld) if withheld else {}}, scores


def samples_values(
    candidates: pd.DataFrame, score: np.ndarray
) -> tuple[list[Value], dict[str, Any]]:
    """Return the values of the attack on images alone, and what was checked.

    Args:
        candidates: see `draw_candidates`.
        score: (n,), higher for "member".
    """
    faults = blind_faults(candidates)
    reason = "withheld: " + "; ".join(faults) if faults else None
    member = candidates["member"].to_numpy(bool)
    values = _losses_absent("only the images are known: the model cannot be asked for a loss")
    return values + _attack_values(SAMPLES, score, member, reason), {
        "withheld": {SAMPLES: reason} if reason else {}
    }


def unknown_values(reason: str) -> list[Value]:
    """Return values that are absent with a reason, for a model whose members nobody knows."""
    return _losses_absent(reason) + _samples_absent(reason)


def _losses_absent(reason: str) -> list[Value]:
    attacks = [(f"member_{attack}_{key}", "lower") for attack in ATTACKS for key in _keys()]
    bases = [(f"member_{name}_base_auc", "none") for name in SCORES]
    kinds = [(f"member_{kind}_auc", "lower") for kind in KINDS]
    excess = [(f"member_{kind}_excess", "lower") for kind in ("marked", "long")]
    values = [
        Value(metric, None, direction, 0, reason=reason)
        for metric, direction in (*bases, *attacks, *kinds, *excess)
    ]
    by_finding = [Value("member_auc", None, "lower", 0, name, reason=reason) for name in FINDINGS]
    return values + by_finding


def _samples_absent(reason: str) -> list[Value]:
    metrics = [f"member_{SAMPLES}_{key}" for key in _keys()]
    return [Value(metric, None, "lower", 0, reason=reason) for metric in metrics]


def _keys() -> list[str]:
    return ["auc", *RATES]


def _reason(before: np.ndarray, member: np.ndarray, faults: list[str]) -> str | None:
    """Return why a score's attacks are withheld; None if they are reported.

    Args:
        before: (n,) the score under the base checkpoint.
        member: (n,) who is a member.
        faults: see `blind_faults`.
    """
    if not np.isfinite(before).all():
        return _NO_ERROR
    if area := auc_beyond_chance(before[member], before[~member]):
        faults = [
            *faults,
            "the base checkpoint, which saw none of them, tells members from non-members "
            f"({in_words(area)})",
        ]
    return "withheld: " + "; ".join(faults) if faults else None


def _base_value(name: str, score: np.ndarray, member: np.ndarray) -> Value:
    key, n, others = f"member_{name}_base_auc", int(member.sum()), int((~member).sum())
    if not np.isfinite(score).all():
        return Value(key, None, "none", n, n_reference=others, reason=_NO_ERROR)
    return _value(key, auc(score[member], score[~member]), "none", n, others)


def _attack_values(
    attack: str, score: np.ndarray, member: np.ndarray, reason: str | None
) -> list[Value]:
    n, others = int(member.sum()), int((~member).sum())
    values = []
    for key in _keys():
        metric = f"member_{attack}_{key}"
        why = reason
        if not why and key in RATES and key != "tpr" and others * RATES[key] < ALARMS:
            why = (
                f"{others} non-members allow {others * RATES[key]:.2g} false alarms at "
                f"{RATES[key]:.1%}, fewer than {ALARMS}"
            )
        if why:
            values.append(Value(metric, None, "lower", n, n_reference=others, reason=why))
        elif key == "auc":
            area = auc(score[member], score[~member])
            values.append(_value(metric, area, "lower", n, others))
        else:
            rate = tpr_at(score[member], score[~member], RATES[key])
            values.append(_value(metric, rate, "lower", n, others, TPR_KIND))
    return values


def _split_values(candidates: pd.DataFrame, score: np.ndarray, reason: str | None) -> list[Value]:
    """Return the main attack's area by finding and by kind of caption, and two differences."""
    member = candidates["member"].to_numpy(bool)
    values = []
    areas: dict[str, Estimate | None] = {}
    findings = [("member_auc", finding, candidates[finding].to_numpy(bool)) for finding in FINDINGS]
    kinds = [
        (f"member_{kind}_auc", "all", rows) for kind, rows in caption_kinds(candidates).items()
    ]
    for metric, subset, rows in (*findings, *kinds):
        area, n, others, why = _area(score, member, rows, reason)
        areas[metric] = area
        if area is None:
            values.append(Value(metric, None, "lower", n, subset, others, reason=why))
        else:
            values.append(_value(metric, area, "lower", n, others, subset=subset))
    for one, other in (("marked", "unmarked"), ("long", "short")):
        metric, n = f"member_{one}_excess", len(member) // 2
        first, second = areas[f"member_{one}_auc"], areas[f"member_{other}_auc"]
        if first is None or second is None:
            why = reason or f"too few captions are {one if first is None else other}"
            values.append(Value(metric, None, "lower", n, n_reference=n, reason=why))
        else:
            excess = difference(first, second)
            values.append(_value(metric, excess, "lower", n, n, "MOVER 95%"))
    return values


def caption_kinds(candidates: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return which candidates have a kind of caption, bool (n,), in the order of `KINDS`."""
    marked = candidates["marked"].to_numpy(bool)
    words = candidates["words"].to_numpy()
    long = words > np.median(words)
    return dict(zip(KINDS, (marked, ~marked, long, ~long), strict=True))


def _area(
    score: np.ndarray, member: np.ndarray, rows: np.ndarray, reason: str | None
) -> tuple[Estimate | None, int, int, str]:
    """Return the area on some rows, its members and non-members, and why there is no area."""
    n, others = int((member & rows).sum()), int((~member & rows).sum())
    if reason:
        return None, n, others, reason
    if min(n, others) < FEWEST:
        return None, n, others, f"{n} members and {others} non-members, fewer than {FEWEST} of each"
    return auc(score[member & rows], score[~member & rows]), n, others, ""


def _by_source(candidates: pd.DataFrame, score: np.ndarray) -> dict[str, Any]:
    """Return the main attack's area by the captions' source, for readers of the record."""
    member = candidates["member"].to_numpy(bool)
    by_source = {}
    for source in sorted(set(candidates["source"])):
        rows = candidates["source"].eq(source).to_numpy()
        area, n, others, why = _area(score, member, rows, None)
        bounds = (
            {"auc": area.value, "low": area.low, "high": area.high} if area else {"reason": why}
        )
        by_source[source or "none"] = {"members": n, "non_members": others, **bounds}
    return by_source


def _value(
    metric: str,
    estimate: Estimate,
    direction: str,
    n: int,
    others: int,
    kind: str = KIND,
    subset: str = "all",
) -> Value:
    bounds = (estimate.low, estimate.high)
    return Value(metric, estimate.value, direction, n, subset, others, bounds, kind)
