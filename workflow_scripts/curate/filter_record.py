"""The record of a filter and of the set that it leaves, which the tables show."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from workflow_scripts.common.records import Record, Value, provenance
from workflow_scripts.curate.bounds import HALF
from workflow_scripts.curate.measures import CAUGHT, FILTER

FAMILY: Final = "filter"

_WILSON_IMAGES: Final = "Wilson 95% over images"
_WILSON_PATIENTS: Final = "Wilson 95% over patients"
_LOWER: Final = f"Clopper-Pearson, lower bound {1 - HALF:.1%}"

_DIRECTIONS: Final = {metric.key: metric.direction for metric in FILTER}

_SHARES: Final = {
    "pool_flagged": "flagged",
    "pool_sparse": "sparse",
    "pool_implausible": "implausible",
    "pool_not_visible": "unseen",
}
"""Shares of the pool, with their names in the decision."""


def filter_record(
    decision: Mapping[str, Any], protocol: str, refused: int, tried: int, settings: dict[str, Any]
) -> Record:
    """Return the record of a decision.

    Args:
        decision: what `decision.json` says.
        protocol: of the stages that the filter reads.
        refused: images of the pool that privacy or quality refuses.
        tried: unseen radiographs that the filter was tried on, > 0.
        settings: what the values depend on.
    """
    kept = ("verdict", "reasons", "policy", "planted", "missing", "confidence", "pool")
    return Record(
        "curate",
        decision["model"],
        FAMILY,
        protocol,
        list(_values(decision, refused, tried)),
        {key: decision[key] for key in kept},
        provenance(settings),
    )


def _values(decision: Mapping[str, Any], refused: int, tried: int) -> Iterator[Value]:
    measured = {row["key"]: row for row in decision["measured"]}
    pool, kept = decision["pool"]["images"], decision["kept"]

    def value(
        metric: str, number: float | None, n: int, reason: str | None = None,
        interval: tuple[float, float] | None = None, kind: str | None = None,
    ) -> Value:  # fmt: skip
        return Value(
            metric, number, _DIRECTIONS[metric], n,
            interval=interval, interval_kind=kind if interval else None, reason=reason,
        )  # fmt: skip

    yield value("pool_images", pool, pool)
    yield value("pool_refused", refused, pool)
    for metric, key in _SHARES.items():
        row = measured[key]
        interval = (row["low"], row["high"])
        yield value(metric, row["value"], pool, row["reason"], interval, _WILSON_IMAGES)
    yield value("set_images", kept, kept)
    yield value("set_missing", sum(decision["missing"].values()), kept)
    planted = decision["planted"]
    for row in planted:
        above = (row["low"], 1.0) if row["planted"] else None
        told = (f"{CAUGHT}_{row['kind']}", row["sensitivity"], row["planted"], row["reason"])
        yield value(*told, above, _LOWER)
    least = min((row for row in planted if row["planted"]), key=lambda row: row["sensitivity"])
    told = ("leaks_caught_least", least["sensitivity"], least["planted"], None)
    yield value(*told, (least["low"], 1.0), _LOWER)
    left = measured["remaining_leaks"]
    none_left = left["reason"]
    upper = None if none_left else decision["remaining_leaks_upper"]
    yield value("leaks_left", upper, kept, none_left)
    yield value("leaks_left_share", left["value"], kept, none_left)
    row = measured["false_rejections"]
    interval = (row["low"], row["high"])
    yield value("unseen_flagged", row["value"], tried, None, interval, _WILSON_PATIENTS)
