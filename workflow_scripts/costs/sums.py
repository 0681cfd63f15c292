"""The total costs of attempts: GPU-hours, wall time, memory, and the number of attempts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from workflow_scripts.common.folders import parts
from workflow_scripts.costs.attempts import COMPLETED, UNFINISHED, Attempt

_TITLES: Final = {
    "cohort": "Cohort",
    "finetune": "Fine-tuning",
    "generate": "Generation",
    "features": "Features",
    "fidelity": "Fidelity",
    "privacy": "Privacy",
    "classification": "Classification",
    "segmentation": "Segmentation",
    "report_generation": "Report generation",
    "faithfulness": "Faithfulness",
}

STAGES: Final = (
    _TITLES
    | {
        part.name: part.name.replace("_", " ").capitalize()
        for part in parts("downstream")
        if part.name not in _TITLES
    }
    | {"curate": "Curation"}
)
"""The stages and downstream tasks in the order in which they run, with their names for readers."""

BENCHMARKS_ALONE: Final = (
    "not known: an attempt that fails leaves no benchmark file, and there is no accounting"
)


@dataclass(frozen=True)
class Cost:
    """The total cost of some attempts; a number that cannot be known is None, with a reason.

    Attributes:
        gpu_hours: sum of elapsed time times allocated GPUs; the time of a SLURM group is divided by
            its number of jobs.
        wall_hours: sum of elapsed time, with groups divided likewise.
        peak_memory_gib: the largest resident memory of any attempt.
        jobs: number of different jobs.
        attempts: number of attempts.
        failed: attempts that ended in another state than COMPLETED; running ones do not count.
        reasons: for each number that is None, why.
    """

    gpu_hours: float | None
    wall_hours: float | None
    peak_memory_gib: float | None
    jobs: int
    attempts: int | None
    failed: int | None
    reasons: dict[str, str]


def is_accounted(attempts: Iterable[Attempt]) -> bool:
    """Return whether SLURM's accounting knows any of the attempts.

    Without accounting, sums are over the benchmark files, and numbers that these do not give have a
    reason. With accounting, a sum is not given if the data of any attempt are missing.
    """
    return any(attempt.source == "accounting" for attempt in attempts)


def cost_of(attempts: Sequence[Attempt], accounted: bool) -> Cost:
    """Return the total cost of attempts.

    Args:
        attempts: at least one.
        accounted: whether SLURM's accounting knows any attempt of the run, see `is_accounted`.
    """
    n = len(attempts)
    timed = [attempt for attempt in attempts if attempt.elapsed_s is not None]
    untimed = [attempt for attempt in attempts if attempt.elapsed_s is None]
    memory = [a.max_rss_mib for a in attempts if a.max_rss_mib is not None]
    failed = [a for a in attempts if a.state and a.state not in (COMPLETED, *UNFINISHED)]
    no_time = _why(untimed, n) if accounted or not timed else ""
    no_gpus = _why([a for a in timed if a.elapsed_s and a.gpus is None], n)
    no_memory = "" if memory else "no job lasted long enough for its memory to be sampled"
    no_count = "" if is_accounted(attempts) else BENCHMARKS_ALONE
    reasons = {
        "gpu_hours": no_time or no_gpus,
        "wall_hours": no_time,
        "peak_memory_gib": no_time or no_memory,
        "attempts": no_count,
        "failed": (_why(untimed, n) if accounted else "") or no_count,
    }
    reasons = {name: reason for name, reason in reasons.items() if reason}
    hours = [(a.elapsed_s or 0.0) / 3600 / a.members for a in timed]
    gpu_hours = sum(h * (a.gpus or 0) for h, a in zip(hours, timed, strict=True))
    return Cost(
        gpu_hours=None if "gpu_hours" in reasons else gpu_hours,
        wall_hours=None if "wall_hours" in reasons else sum(hours),
        peak_memory_gib=None if "peak_memory_gib" in reasons else max(memory) / 1024,
        jobs=len({attempt.job for attempt in attempts}),
        attempts=None if "attempts" in reasons else n,
        failed=None if "failed" in reasons else len(failed),
        reasons=reasons,
    )


def _why(unknown: Sequence[Attempt], n: int) -> str:
    """Return why a sum over n attempts cannot be known; "" if no attempt lacks the data."""
    if not unknown:
        return ""
    reason = Counter(attempt.reason for attempt in unknown).most_common(1)[0][0]
    return f"{len(unknown)} of {n} attempts: {reason}" if n > 1 else reason
