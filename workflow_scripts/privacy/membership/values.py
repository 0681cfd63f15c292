"""The numbers of a membership attack, from scores of members and non-members."""

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
    blind_faults,
    described,
    difference,
    told_apart,
    tpr_at,
)
from workflow_scripts.privacy.membership.candidates import FEWEST

SCORES: Final = ("loss", "caption", "frequency")
"""By what a checkpoint's losses of an image tell a member, see `scores_of`."""

ATTACKS: Final = (*SCORES, *(f"{name}_calibrated" for name in SCORES))
MAIN: Final = "loss_calibrated"
"""The attack that is split by finding and caption. It was chosen after a first look
at the demo, before any model of real radiographs was attacked."""

SAMPLES: Final = "samples"
"""The attack on a model's images alone."""

RATES: Final = {"tpr": 0.01, "tpr_low": 0.001}
ALARMS: Final = 5
"""Fewest false alarms that the lower rate has to allow."""

KINDS: Final = ("marked", "unmarked", "long", "short")
"""Captions with and without de-identification marks; longer than the median, and the others."""

NO_BASE: Final = "it came trained: there is no checkpoint from before to set its losses against"
PRESUMED: Final = (
    "unknown: the model came trained. The train split is taken for them, and no base checkpoint "
    "shows whether chance alone tells it from the others"
)
"""What the record of a model that came trained says of its members."""

_NO_ERROR: Final = "the family's loss is no mean square whose error could be looked at"


def scores_of(losses: np.ndarray) -> dict[str, np.ndarray]:
    """Return each image's scores, (n,), higher for "member", from its losses.

    loss: less loss with its caption. caption: how much more the loss is with the empty caption
    (Zhai et al., 2024, arXiv 2405.14800). frequency: less error at low spatial frequencies.

    Args:
        losses: (n, passes, 3), see `image_losses`.
    """
    conditional, unconditional, low = losses.astype(np.float64).mean(axis=1).T
    return {"loss": -conditional, "caption": unconditional - conditional, "frequency": -low}


def attack_scores(base: np.ndarray, tuned: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of every attack, and of the base checkpoint (`base_{score}`).

    Calibrated: less what the base checkpoint gives, which never saw a member; so an image that is
    easy for every model is not taken for one.

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

    A number is withheld where chance alone is no fair opponent: where the base checkpoint, or the
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
    """Return the values of attacks on a model that came trained, what was checked, and scores.

    Who its members are is unknown: the train split is taken for them. There is no base checkpoint,
    so nothing is calibrated, and the null is checked by captions, views and findings alone.

    Args:
        candidates: see `draw_candidates`.
        losses: (n, passes, 3) under the model, see `image_losses`.
    """
    member = candidates["member"].to_numpy(bool)
    scores = scores_of(losses)
    faults = blind_faults(candidates)
    biased = "withheld: " + "; ".join(faults) if faults else None
    values = [value for value in _losses_absent(NO_BASE) if value.metric not in _uncalibrated()]
    for name in SCORES:
        reason = biased if np.isfinite(scores[name]).all() else _NO_ERROR
        values += _attack_values(name, scores[name], member, reason)
    values += _samples_absent("the model was asked for its losses, which tell more")
    return values, {"withheld": dict.fromkeys(SCORES, biased) if biased else {}}, scores


def _uncalibrated() -> set[str]:
    return {f"member_{name}_{key}" for name in SCORES for key in _keys()}


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
    """Return the values of a model whose members nobody knows: none, with the reason."""
    return _losses_absent(reason) + _samples_absent(reason)


def _losses_absent(reason: str) -> list[Value]:
    attacks = [(f"member_{attack}_{key}", "lower") for attack in ATTACKS for key in _keys()]
    bases = [(f"member_{name}_base_auc", "none") for name in SCORES]
    kinds = [(f"member_{kind}_auc", "lower") for kind in KINDS]
    excess = [(f"member_{kind}_excess", "lower") for kind in ("marked", "long")]
    whole = [
        Value(metric, None, way, 0, reason=reason)
        for metric, way in (*bases, *attacks, *kinds, *excess)
    ]
    return whole + [Value("member_auc", None, "lower", 0, name, reason=reason) for name in FINDINGS]


def _samples_absent(reason: str) -> list[Value]:
    metrics = [f"member_{SAMPLES}_{key}" for key in _keys()]
    return [Value(metric, None, "lower", 0, reason=reason) for metric in metrics]


def _keys() -> list[str]:
    return ["auc", *RATES]


def _reason(before: np.ndarray, member: np.ndarray, faults: list[str]) -> str | None:
    """Return why the attacks with a score are not reported; None where they are."""
    if not np.isfinite(before).all():
        return _NO_ERROR
    found = list(faults)
    if area := told_apart(before[member], before[~member]):
        found.append(
            "the base checkpoint, which saw none of them, tells members from non-members "
            f"({described(area)})"
        )
    return "withheld: " + "; ".join(found) if found else None


def _base_value(name: str, score: np.ndarray, member: np.ndarray) -> Value:
    key, n, others = f"member_{name}_base_auc", int(member.sum()), int((~member).sum())
    if not np.isfinite(score).all():
        return Value(key, None, "none", n, n_reference=others, reason=_NO_ERROR)
    return _value(key, auc(score[member], score[~member]), "none", n, others)


def _attack_values(
    attack: str, score: np.ndarray, member: np.ndarray, reason: str | None
) -> list[Value]:
    n, others = int(member.sum()), int((~member).sum())
    found = []
    for key in _keys():
        metric = f"member_{attack}_{key}"
        why = reason
        if not why and key in RATES and key != "tpr" and others * RATES[key] < ALARMS:
            why = (
                f"{others} non-members allow {others * RATES[key]:.2g} false alarms at "
                f"{RATES[key]:.1%}, fewer than {ALARMS}"
            )
        if why:
            found.append(Value(metric, None, "lower", n, n_reference=others, reason=why))
        elif key == "auc":
            area = auc(score[member], score[~member])
            found.append(_value(metric, area, "lower", n, others))
        else:
            rate = tpr_at(score[member], score[~member], RATES[key])
            found.append(_value(metric, rate, "lower", n, others, TPR_KIND))
    return found


def _split_values(candidates: pd.DataFrame, score: np.ndarray, reason: str | None) -> list[Value]:
    """Return the main attack's area by finding and by kind of caption, and the two differences."""
    member = candidates["member"].to_numpy(bool)
    found = []
    for finding in FINDINGS:
        rows = candidates[finding].to_numpy(bool)
        area, n, others, why = _area(score, member, rows, reason)
        metric = "member_auc"
        if area is None:
            value = Value(metric, None, "lower", n, finding, others, reason=why)
        else:
            value = _value(metric, area, "lower", n, others, subset=finding)
        found.append(value)
    areas: dict[str, Estimate | None] = {}
    for kind, rows in caption_kinds(candidates).items():
        area, n, others, why = _area(score, member, rows, reason)
        metric = f"member_{kind}_auc"
        areas[kind] = area
        if area is None:
            found.append(Value(metric, None, "lower", n, n_reference=others, reason=why))
        else:
            found.append(_value(metric, area, "lower", n, others))
    for one, other in (("marked", "unmarked"), ("long", "short")):
        metric, n = f"member_{one}_excess", len(member) // 2
        first, second = areas[one], areas[other]
        if first is None or second is None:
            why = reason or f"too few captions are {one if first is None else other}"
            found.append(Value(metric, None, "lower", n, n_reference=n, reason=why))
        else:
            found.append(_value(metric, difference(first, second), "lower", n, n, "MOVER 95%"))
    return found


def caption_kinds(candidates: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return which candidates have a kind of caption, bool (n,), in the order of `KINDS`."""
    marked = candidates["marked"].to_numpy(bool)
    words = candidates["words"].to_numpy()
    long = words > np.median(words)
    return dict(zip(KINDS, (marked, ~marked, long, ~long), strict=True))


def _area(
    score: np.ndarray, member: np.ndarray, rows: np.ndarray, reason: str | None
) -> tuple[Estimate | None, int, int, str]:
    n, others = int((member & rows).sum()), int((~member & rows).sum())
    if reason:
        return None, n, others, reason
    if min(n, others) < FEWEST:
        return None, n, others, f"{n} members and {others} non-members, fewer than {FEWEST} of each"
    return auc(score[member & rows], score[~member & rows]), n, others, ""


def _by_source(candidates: pd.DataFrame, score: np.ndarray) -> dict[str, Any]:
    """Return the main attack's area by the captions' source, for the reader of the record."""
    member = candidates["member"].to_numpy(bool)
    found = {}
    for source in sorted(set(candidates["source"])):
        area, n, others, why = _area(
            score, member, candidates["source"].eq(source).to_numpy(), None
        )
        bounds = (
            {"auc": area.value, "low": area.low, "high": area.high} if area else {"reason": why}
        )
        found[source or "none"] = {"members": n, "non_members": others, **bounds}
    return found


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
