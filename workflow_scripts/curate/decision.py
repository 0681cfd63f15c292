"""The decision on a curated set: what was measured, the policy's limits, the verdict and why."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.records import read_record
from workflow_scripts.curate.bounds import LEVEL, least_share, most_left
from workflow_scripts.curate.kinds import EVERY_KIND
from workflow_scripts.curate.pool_filter import FilteredPool
from workflow_scripts.curate.settings import ATTACKS, CurateSettings
from workflow_scripts.curate.terms import access_of_weights, terms_of
from workflow_scripts.fidelity.resample import effective_number, wilson_interval

NOT_TESTED: Final = (
    "leaks of other kinds than those planted: for example a part of a radiograph, such as a rare "
    "device or an old fracture, within an otherwise new picture",
    "attacks that nobody has published yet, or that know more than the images",
    "whether a radiologist would take the images for real, or their findings for right",
    "whether the images represent groups of patients equally: the cohort has too little "
    "information about them",
)

NONE_GIVEN: Final = "no images of such a model were given"
"""Why no images of an overfitted model were planted: `curate.overfitted` names no folder."""

_QUALITY: Final = {
    "sparse": "Share of the pool unlike any radiograph (RAD-DINO density)",
    "implausible": "Share of the pool with implausible anatomy",
    "unseen": "Share of the pool in which the judge misses a finding that was asked for",
}
_RECORDED: Final = {**ATTACKS, "fid": "Distance of all images from radiographs (FID, RAD-DINO)"}
_FAILED: Final = {
    "flagged": "the model memorises: too many of its images look like training radiographs",
    "sensitivity": "the filter catches too few of the planted leaks to be relied on",
    "remaining_leaks": "too many leaks may be left in the set",
    "false_rejections": "the filter takes too many radiographs of unseen patients for leaks",
}
_POLICY: Final = {
    "privacy_false_alarms": "Share of unseen radiographs that each privacy lens may flag",
    "quality_false_alarms": "Share of unseen radiographs that each quality check may refuse",
    "most_flagged": "Largest share of the pool that may look like leaks",
    "least_sensitivity": "Least share of caught leaks, for each planted kind",
    "most_remaining": "Largest upper bound on remaining leaks, as a share of the set",
    "most_false_rejections": "Largest share of unseen radiographs that may be taken for leaks",
    "images": "Number of images of the set",
}


def decision_of(
    args: argparse.Namespace,
    policy: CurateSettings,
    filtered: FilteredPool,
    kept: np.ndarray,
    missing: dict[str, int],
) -> dict[str, Any]:
    """Return the content of `decision.json`.

    Args:
        args: of the command line.
        policy: the limits.
        filtered: the filter's results.
        kept: row numbers of the pool's images that are in the set.
        missing: number of images that the quotas and the size lack.
    """
    planted = _planted(filtered.planted)
    leaks_left = _leaks_left(filtered.pool, planted, len(kept))
    measured = [
        *_privacy(policy, filtered, planted, leaks_left, len(kept)),
        *_quality(filtered),
        *record_rows(args.records, policy.most_by_attacks),
    ]
    verdict, reasons = _verdict(args, policy, _failed(measured, filtered, missing, len(kept)))
    untried = [row for row in planted if row["reason"]]
    return {
        "model": args.model,
        "cohort": {"name": args.cohort, "source": args.source},
        "pool": {"prompt_set": policy.pool, "images": len(filtered.pool)},
        "policy": _policy(policy),
        "limits": filtered.limits,
        "measured": measured,
        "planted": planted,
        "remaining_leaks_upper": leaks_left,
        "confidence": 1 - LEVEL,
        "kept": len(kept),
        "missing": missing,
        "verdict": verdict,
        "reasons": reasons,
        "not_tested": [
            *(f"whether the filter finds {row['words']}: {row['reason']}" for row in untried),
            *NOT_TESTED,
            *(f"whether {name} is visible: {why}" for name, why in filtered.without.items()),
        ],
    }


def _planted(counts: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Return one row for each kind of planted leak: how many were planted, and how many caught."""
    return [
        {
            "kind": kind,
            "words": EVERY_KIND[kind],
            "planted": planted,
            "caught": caught,
            "sensitivity": caught / planted if planted else None,
            "low": least_share(caught, planted) if planted else None,
            "reason": None if planted else NONE_GIVEN,
        }
        for kind, (caught, planted) in counts.items()
    ]


def _leaks_left(pool: pd.DataFrame, planted: list[dict[str, Any]], kept: int) -> int:
    """Return the upper bound on leaks in a set of `kept` images."""
    flagged, clean = pool[pool["leak"]], pool[~pool["leak"]]
    sensitivity = min(row["low"] for row in planted if row["planted"])
    multiplicity = int(clean["nearest_patient_id"].value_counts().max()) if len(clean) else 0
    patients = flagged["nearest_patient_id"].nunique()
    return min(most_left(len(flagged), patients, sensitivity, len(clean), multiplicity), kept)


def _privacy(
    policy: CurateSettings,
    filtered: FilteredPool,
    planted: list[dict[str, Any]],
    leaks_left: int,
    kept: int,
) -> list[dict[str, Any]]:
    """Return the rows of measured privacy, each with the policy's limit."""
    flagged = float(filtered.pool["leak"].mean())
    rejected = float(filtered.refused.mean())
    tried = filtered.tried["patient_id"].to_numpy(str)
    worst = min((row for row in planted if row["planted"]), key=lambda row: row["sensitivity"])
    return [
        _measured(
            "flagged",
            "Share of the pool that looks like leaks",
            flagged,
            wilson_interval(flagged, len(filtered.pool)),
            most=policy.most_flagged,
        ),
        _measured(
            "sensitivity",
            f"Share of planted leaks caught, for the kind caught least ({worst['words']})",
            worst["sensitivity"],
            (worst["low"], 1.0),
            least=policy.least_sensitivity,
        ),
        _measured(
            "remaining_leaks",
            "Upper bound on remaining leaks of the planted kinds, as a share of the set",
            leaks_left / kept if kept else None,
            reason=None if kept else "no image is left",
            most=policy.most_remaining,
        ),
        _measured(
            "false_rejections",
            "Share of radiographs of unseen patients that are taken for leaks",
            rejected,
            wilson_interval(rejected, effective_number(filtered.refused.astype(float), tried)),
            most=policy.most_false_rejections,
        ),
    ]


def _quality(filtered: FilteredPool) -> list[dict[str, Any]]:
    """Return the rows of measured quality, which have no limit."""
    shares: list[tuple[str, str, float, float]] = [
        (key, words, float(filtered.pool[key].mean()), len(filtered.pool))
        for key, words in _QUALITY.items()
    ]
    if len(filtered.poor):
        words = "Share of radiographs of unseen patients that the quality checks refuse"
        poor, tried = filtered.poor.astype(float), filtered.tried["patient_id"].to_numpy(str)
        shares.append(("poor_radiographs", words, poor.mean(), effective_number(poor, tried)))
    return [_measured(key, words, x, wilson_interval(x, n)) for key, words, x, n in shares]


def record_rows(records: Sequence[Path], most: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return what earlier stages measured for the model.

    Args:
        records: the model's.
        most: the policy's upper limits, by metric. A limit on a metric that no record has gives a
            row without a value. Rows of other metrics inform, and have no limit.
    """
    rows, recorded = [], set()
    for path in sorted(records):
        record = read_record(path)
        for value in record.values if record.protocol == "sound" else ():
            if value.metric in _RECORDED and value.subset == "all":
                recorded.add(value.metric)
                key = f"{record.stage}/{record.family}/{value.metric}"
                words = _RECORDED[value.metric]
                measured = (value.value, value.interval, value.reason)
                rows.append(_measured(key, words, *measured, most=most.get(value.metric)))
    for metric in sorted(set(most) - recorded):
        words, reason = ATTACKS[metric], "no record has it"
        key = f"privacy/{metric}"
        rows.append(_measured(key, words, None, reason=reason, most=most[metric]))
    return rows


def _measured(
    key: str,
    words: str,
    value: float | None,
    interval: tuple[float, float] | None = None,
    reason: str | None = None,
    *,
    most: float | None = None,
    least: float | None = None,
) -> dict[str, Any]:
    """Return a row of the decision.

    Args:
        key: the row's name.
        words: what it measures.
        value: the value; None where there is none.
        interval: its interval.
        reason: why there is no value.
        most: the policy's upper limit.
        least: the policy's lower limit.
    """
    low, high = interval or (None, None)
    limit = least if most is None else most
    passed = None
    if value is not None and limit is not None:
        passed = bool(value >= limit if most is None else value <= limit)
    return {
        "key": key,
        "words": words,
        "value": value,
        "low": low,
        "high": high,
        "limit": limit,
        "passed": passed,
        "reason": reason,
    }


def _failed(
    measured: list[dict[str, Any]], filtered: FilteredPool, missing: dict[str, int], kept: int
) -> list[str]:
    """Return why the set must not be released; an empty list if it may."""
    reasons = []
    for row in measured:
        if row["limit"] is None or row["passed"]:
            continue
        if row["key"] not in _FAILED:  # an attack
            kind = "finds more than it may" if row["passed"] is False else "was not measured"
            reasons.append(f"an attack with a limit {kind} ({row['words']})")
        elif row["passed"] is False:
            reasons.append(_FAILED[row["key"]])
    if filtered.pool["source"].notna().any():
        reasons.append("the pool is a control, which shows radiographs themselves")
    if kept == 0:
        reasons.append("no image passes the checks of privacy and quality")
    return reasons + [
        f"{count} image(s) {'' if name == 'images' else f'with {name} '}are missing"
        for name, count in missing.items()
    ]


def _verdict(
    args: argparse.Namespace, policy: CurateSettings, failed: list[str]
) -> tuple[str, list[str]]:
    """Return the verdict (`terms.ACCESS`), and the reasons for it."""
    if failed:
        return "do_not_release", failed
    verdict: str = policy.access
    reasons = ["every limit that was set beforehand is met"]
    if policy.published_prompts == "captions":
        verdict = "credentialed"
        reasons.append("the set carries captions of the cohort")
    if policy.access == "credentialed":
        reasons.append("the rules that were set beforehand allow no wider access")
    # The dataset card states the access that the terms allow; the decision must not exceed it.
    terms = terms_of(verdict, args.cohort, args.family, args.base)
    if terms.training_data.access != "release":
        reasons.append(f"the terms of {args.cohort} allow no wider access")
    if access_of_weights(terms.weights) != "release":
        reasons.append("the terms of the model's weights are not known to allow wider access")
    return terms.access, reasons


def _policy(policy: CurateSettings) -> list[dict[str, Any]]:
    rows = [{"key": k, "words": w, "limit": getattr(policy, k)} for k, w in _POLICY.items()]
    rows += [
        {
            "key": f"lens/{lens}",
            "words": f"Share of unseen radiographs that the lens `{lens}` may flag instead",
            "limit": share,
        }
        for lens, share in sorted(policy.lens_false_alarms.items())
    ]
    rows += [
        {"key": f"attack/{metric}", "words": f"{ATTACKS[metric]}, at most", "limit": share}
        for metric, share in sorted(policy.most_by_attacks.items())
    ]
    return rows + [
        {"key": f"quota/{name}", "words": f"Least number of images with {name}", "limit": count}
        for name, count in sorted(policy.quotas.items())
        if count
    ]
