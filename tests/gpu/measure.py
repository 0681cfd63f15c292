"""Clocks, memory and arithmetic of a device, and what follows from them."""

import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

BF16_PEAKS: Final[dict[str, float]] = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
}
"""Dense bf16 FLOP/s of NVIDIA's data sheets; the first name that a GPU's name holds counts."""

CAPACITIES: Final[dict[str, float]] = {"80 GB": 79.6, "141 GB": 140.4}
"""GiB that GPUs of these names have, as nvidia-smi shows them."""

OURS_GOAL: Final = 0.95
"""Share of the bare network's rate that our training step and our sampler should keep."""

WHOLE_GOAL: Final = 0.9
"""Share of the bare encoder's rate that extraction should keep, with reading and preparing."""

MARGIN: Final = 0.08
"""Share of a GPU's memory that is left for its context, other libraries and fragments."""


def wait(device: torch.device) -> None:
    """Wait until a device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(
    work: Callable[[], Any], device: torch.device, repeats: int, warm_up: int = 1
) -> float:
    """Return the median seconds of some work."""
    found = []
    for repeat in range(warm_up + repeats):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        if repeat >= warm_up:
            found.append(time.perf_counter() - start)
    return statistics.median(found)


def peak_gib(work: Callable[[], Any], device: torch.device) -> float:
    """Return the most memory that was taken while working, GiB; on a CPU that of the process."""
    if device.type != "cuda":
        work()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    wait(device)
    return torch.cuda.max_memory_allocated() / 2**30


def largest_batch(peaks: Mapping[int, float], capacity: float) -> int | None:
    """Return the largest batch that fits, from a straight line through two peaks.

    Args:
        peaks: memory in GiB of two batches, by images.
        capacity: of the GPU in GiB; `MARGIN` of it stays free.

    Returns:
        Images; 0 where not even one fits; None where memory does not grow with the batch.
    """
    (few, low), (many, high) = sorted(peaks.items())
    slope = (high - low) / (many - few)
    if slope <= 0:
        return None
    return max(0, math.floor((capacity * (1 - MARGIN) - low) / slope + few))


def at_steps(few: tuple[int, float], many: tuple[int, float], steps: int) -> float | None:
    """Return the seconds of so many steps, from a straight line through two runs.

    None where the longer run took no longer: a machine busy with other work.

    Args:
        few: steps and seconds of the shorter run.
        many: the same of the longer one.
        steps: how many are asked for.
    """
    slope = (many[1] - few[1]) / (many[0] - few[0])
    if slope <= 0:
        return None
    return few[1] + slope * (steps - few[0])


def flops_of(work: Callable[[], Any]) -> int | None:
    """Return the floating-point operations of some work's products; None where none are counted.

    Activations that are recomputed count as often as they are computed.
    """
    try:
        from torch.utils.flop_counter import FlopCounterMode
    except ImportError:
        return None
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() or None


def bf16_peak(device: torch.device) -> float | None:
    """Return the dense bf16 FLOP/s of a GPU's data sheet, or None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in BF16_PEAKS.items() if known in name), None)
