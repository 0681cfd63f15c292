"""Validation of a record's JSON, with messages that name the metric.

A record that was truncated, merged or edited by hand must stop the tables with an error that names
it. It must not end in a traceback or, worse, in a table. Records are checked when they are written
and when they are read.
"""

import re
from collections.abc import Iterator, Mapping
from math import inf, isfinite
from typing import Any, Final, TypeGuard

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.version import is_version

DIRECTIONS: Final = ("higher", "lower", "none")
SUBSETS: Final = ("all", *FINDINGS)

RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "fid": (0, inf),  # a squared distance of two normal distributions
    "fid_floor": (0, inf),
    "precision": (0, 1),
    "recall": (0, 1),
    "density": (0, inf),  # its mean is 1 for two samples of one distribution, so it exceeds 1
    "coverage": (0, 1),
    "alignment": (-1, 1),  # a cosine
    "accuracy": (0, 1),
    "auroc": (0, 1),
    "f1": (0, 1),
    "dice": (0, 1),
    "dice_exact": (0, 1),
    "dice_pooled": (0, 1),
    "dice_pooled_exact": (0, 1),
    "bleu_1": (0, 100),
    "bleu_4": (0, 100),
    "distinct_share": (0, 1),
    "reid_share": (0, 1),
    "reid_count": (0, inf),
    "n_images": (0, inf),
}
"""The range of each metric by its definition. KID and the corrected FID have none: their unbiased
estimates may be negative."""

_VARIANT: Final = re.compile(r"_(studies|test_set)$")
"""The suffix of a metric that is measured again against other reference images."""

_ROUNDING: Final = 1e-6  # of a mean of single-precision numbers
_KEYS: Final = frozenset(
    ["stage", "model", "family", "protocol", "values", "details", "provenance"]
)
_NEEDED: Final = frozenset(
    [
        *("metric", "subset", "value", "reason", "direction"),
        *("n", "n_reference", "interval", "interval_kind"),
    ]
)
_KNOWN: Final = _NEEDED | {"p"}


def record_faults(payload: Mapping[str, Any]) -> list[str]:
    """Return the faults of a record; empty where there are none.

    Args:
        payload: the record without its key `schema`, in JSON types; tuples stand for arrays.
    """
    if set(payload) != _KEYS:
        return [f"a record has the keys {sorted(_KEYS)}, this one {sorted(payload)}"]
    faults = []
    for key in ("stage", "model", "family"):
        if not _is_name(payload[key]):
            faults.append(f"{key} is {_shown(payload[key])}, not a name")
    if payload["protocol"] not in PROTOCOLS:
        known = " or ".join(PROTOCOLS)
        faults.append(f"protocol is {_shown(payload['protocol'])}, not {known}")
    values = payload["values"]
    if not isinstance(values, list):
        faults.append(f"values is {_shown(values)}, not a list")
    else:
        faults += _values_faults(values)
    checks = {"details": _details_faults, "provenance": _provenance_faults}
    if payload["stage"] == "fidelity":
        checks["details"] = _fidelity_details_faults
    for key, check in checks.items():
        if isinstance(payload[key], dict):
            faults += [f"{key}.{fault}" for fault in check(payload[key])]
        else:
            faults.append(f"{key} is {_shown(payload[key])}, not an object")
    return faults


def _values_faults(values: list[Any]) -> Iterator[str]:
    seen = set()
    for place, entry in enumerate(values):
        if not isinstance(entry, dict):
            yield f"values[{place}] is {_shown(entry)}, not an object"
            continue
        metric, subset = entry.get("metric"), entry.get("subset")
        if not _is_name(metric):
            problem = f"metric is {_shown(metric)}" if "metric" in entry else "no metric"
            yield f"values[{place}]: {problem}, so nobody can say what was measured"
            continue
        name = metric if subset == "all" else f"{metric} of {subset}"
        if missing := sorted(_NEEDED - set(entry)):
            yield f"{name}: no {', '.join(missing)}"
            continue
        if unknown := sorted(set(entry) - _KNOWN):
            yield f"{name}: unknown key {', '.join(unknown)}"
        if subset not in SUBSETS:
            yield f"{name}: the subset {_shown(subset)} is neither `all` nor one of the 14 findings"
        elif (metric, subset) in seen:
            yield f"{name}: stands twice"
        else:
            seen.add((metric, subset))
        yield from (f"{name}: {fault}" for fault in _value_faults(metric, entry))


def _value_faults(metric: str, entry: Mapping[str, Any]) -> Iterator[str]:
    value, reason = entry["value"], entry["reason"]
    if value is not None and not _is_number(value):
        yield f"the value is {_shown(value)}, not a finite number"
    if reason is not None and (not isinstance(reason, str) or not reason.strip()):
        yield f"the reason is {_shown(reason)}, not a sentence"
    if (value is None) != (reason is not None):
        yield "a value, or the reason why there is none"
    low, high = RANGES.get(_VARIANT.sub("", metric), (-inf, inf))
    if _is_number(value) and not low - _ROUNDING <= value <= high + _ROUNDING:
        bound = f"between {low:g} and {high:g}" if isfinite(high) else f"at least {low:g}"
        yield f"the value is {value}, though it is {bound} by definition"
    if entry["direction"] not in DIRECTIONS:
        yield f"the direction is {_shown(entry['direction'])}, not {', '.join(DIRECTIONS)}"
    for key in ("n", "n_reference"):
        optional = key == "n_reference" and entry[key] is None
        if not optional and (not _is_whole(entry[key]) or entry[key] < 0):
            yield f"{key} is {_shown(entry[key])}, not a number of images"
    yield from _interval_faults(entry["interval"], entry["interval_kind"])
    p = entry.get("p")
    if p is not None and not (_is_number(p) and 0 <= p <= 1):
        yield f"p is {_shown(p)}, not a probability"


def _interval_faults(interval: object, kind: object) -> Iterator[str]:
    if kind is not None and not isinstance(kind, str):
        yield f"the interval's kind is {_shown(kind)}, not a name"
    if interval is None:
        return
    if not isinstance(interval, (list, tuple)) or len(interval) != 2:
        yield f"the interval is {_shown(interval)}, not a lower and an upper bound"
    elif not all(_is_number(bound) for bound in interval):
        yield f"the interval is {_shown(interval)}: both of its bounds are finite numbers"
    elif interval[0] > interval[1]:
        yield f"the interval's lower bound {interval[0]} is above its upper one {interval[1]}"


def _details_faults(details: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of the details that tables read; other details are not checked."""
    threshold = details.get("threshold", 0.0)
    if not _is_number(threshold):
        yield f"threshold is {_shown(threshold)}, not a number"
    runs = details.get("runs", [])
    if not isinstance(runs, list) or not all(
        isinstance(run, dict) and isinstance(run.get("settings", {}), dict) for run in runs
    ):
        yield f"runs is {_shown(runs)}, not a list of training runs with their `settings`"


def _fidelity_details_faults(details: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of fidelity's details: replicates, which give differences between models."""
    yield from _details_faults(details)
    replicates = details.get("replicates", {})
    if not isinstance(replicates, dict):
        yield f"replicates is {_shown(replicates)}, not an object"
        return
    for metric, entry in replicates.items():
        if entry is None:
            continue
        if not isinstance(entry, dict) or not {"kind", "units", "values"} <= set(entry):
            yield f"replicates.{metric} is {_shown(entry)}, not `kind`, `units` and `values`"
        elif not _is_whole(entry["units"]):
            yield f"replicates.{metric}.units is {_shown(entry['units'])}, not a whole number"
        elif not isinstance(entry["values"], (list, tuple)) or not all(
            _is_number(value) for value in entry["values"]
        ):
            yield f"replicates.{metric}.values is {_shown(entry['values'])}, not a list of numbers"


def _provenance_faults(provenance: Mapping[str, Any]) -> Iterator[str]:
    if "version" in provenance and not is_version(provenance["version"]):
        yield f"version is {_shown(provenance['version'])}, not one such as 1.0.0"
    versions = provenance.get("versions", {})
    if versions is not None and not isinstance(versions, dict):
        yield f"versions is {_shown(versions)}, not an object"
    inputs = provenance.get("inputs", [])
    if not isinstance(inputs, (list, tuple)):
        yield f"inputs is {_shown(inputs)}, not a list of feature files"
        return
    needed = {"collection", "collection_sha256", "encoder", "preprocessing", "weights_sha256"}
    for place, entry in enumerate(inputs):
        missing = sorted(needed - set(entry)) if isinstance(entry, dict) else sorted(needed)
        if missing:
            yield f"inputs[{place}]: no {', '.join(missing)}"
            continue
        for key in sorted(needed):
            if not isinstance(entry[key], str):
                yield f"inputs[{place}].{key} is {_shown(entry[key])}, not a text"
        for key in ("repeated_images", "constant_images"):
            if key in entry and not (_is_whole(entry[key]) and entry[key] >= 0):
                yield f"inputs[{place}].{key} is {_shown(entry[key])}, not a number of images"


def _is_name(value: object) -> TypeGuard[str]:
    """Return whether a value is one line of text without surrounding blanks."""
    return isinstance(value, str) and value != "" and value == value.strip() and value.isprintable()


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: object) -> bool:
    if isinstance(value, int):  # a whole number of any length, which may overflow a float
        return _is_whole(value)
    return isinstance(value, float) and isfinite(value)


def _shown(value: object) -> str:
    """Return a short Python representation of a value, with JSON's `null` for None."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
