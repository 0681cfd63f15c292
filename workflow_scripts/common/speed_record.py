"""The entry on switches of speed in the record of a job's images, features or weights."""

from workflow_scripts.common.speed import Speed


def speed_record(speed: Speed) -> dict[str, str]:
    """Return the entry `speed` of a job's record; no entry if no switch is on.

    It names the switches as flags do, for example `attention=math channels_last=true`, sorted by
    name. It is part of no identity: results with other switches count as the same.

    Args:
        speed: the job's switches.
    """
    words = [f"{name}={str(value).lower()}" for name, value in sorted(speed.chosen.items())]
    return {"speed": " ".join(words)} if words else {}
