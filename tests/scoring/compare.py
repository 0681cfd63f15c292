"""List every difference between records and tables and the committed ones."""

from collections.abc import Iterator
from typing import Any, Final

ABSOLUTE, RELATIVE = 1e-9, 1e-6
"""Tolerances for a number. RELATIVE is multiplied by the largest absolute number of its group: a
value and its interval, or a list. With other instruction sets and other numbers of threads, the
bounds and replicates of KID, sums in float32, moved by up to 2e-7 of it; all other numbers by less
than 1e-13."""

_UNITS: Final = (dict, list)


def differences(committed: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """List the differences, each as `file: place description`.

    Args:
        committed: The committed contents by file, see `scripts.content`.
        found: The contents to compare, by file.
    """
    return [
        f"{name}: {text}"
        for name in sorted({*committed, *found})
        for text in _unlike(_keyed(committed.get(name)), _keyed(found.get(name)), "", 0.0)
    ]


def _keyed(content: Any) -> Any:
    """Return a record with its list of values turned into a mapping by metric and subset."""
    if not isinstance(content, dict) or not isinstance(content.get("values"), list):
        return content
    values = {f"{v['metric']} of {v['subset']}": v for v in content["values"]}
    return {**content, "values": values}


def _unlike(was: Any, now: Any, where: str, scale: float) -> Iterator[str]:
    """Yield the differences of two contents; `scale` is the largest absolute number around them."""
    if isinstance(was, dict) and isinstance(now, dict):
        scale = _largest([was.get("value"), *(was.get("interval") or [])])
        for key in sorted({*was, *now}):
            place = f"{where}, {key}" if where else key
            if key in was and key in now:
                yield from _unlike(was[key], now[key], place, scale)
            else:
                yield f"{place} is {'no longer there' if key in was else 'not a committed one'}"
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        scale = max(scale, _largest(was))
        for k, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _unlike(one, other, f"{where}[{k}]", scale)
    elif not _alike(was, now, scale):
        yield f"{where} was {_short(was)}, is {_short(now)}"


def _largest(values: list[Any]) -> float:
    return max((abs(x) for x in values if isinstance(x, float)), default=0.0)


def _alike(was: Any, now: Any, scale: float) -> bool:
    if type(was) is not type(now):
        return False
    if isinstance(was, float):
        return bool(abs(was - now) <= ABSOLUTE + RELATIVE * max(abs(was), abs(now), scale))
    return bool(was == now)


def _short(value: Any) -> str:
    return f"{len(value)} items" if isinstance(value, _UNITS) else repr(value)
