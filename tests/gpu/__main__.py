"""Measure training, sampling and agreement on a GPU, part by part, within some minutes.

    python -m tests.gpu                         # on a GPU, at the published sizes
    python -m tests.gpu --cpu                   # whether every part runs, on tiny networks
    python -m tests.gpu train:sana resume       # some parts alone

Each part runs in a process of its own with a time limit: one that fails, runs out of memory or
takes too long costs itself alone, and all end with the process that started them. Every value is
one JSON line as it comes; the CSV is whole after each part. Neither network nor weights, results or
lock are needed. A package that is missing is named, and the parts that need it are left out. The
exit code is 1 where a part failed or a tolerance was not kept.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.gpu.lines import Writer, read_lines, write_csv
from tests.gpu.parts import PARTS, Machine, Part
from workflow_scripts.generate.lifeline import environment, forked, lifeline, started

RESULTS: Final = Path(__file__).parent / "results"
LEAST_S: Final = 12.0
"""Seconds left under which no further part is begun: building a network takes some."""

QUIET: Final = {
    "HF_HUB_OFFLINE": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # looks for GPUs without speaking to them
}
"""Variables that libraries read when they are imported."""

SHARED: Final = (
    "torch",
    "accelerate",
    "peft",
    "diffusers",
    "transformers",
    "pandas",
    "scipy.stats",
)
"""Imported once for all parts, where a process that has imported them can be forked."""


def main(argv: list[str] | None = None) -> None:
    """Run the parts and write the CSV."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", help=f"which, of {', '.join(names)}; all where none")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, with tiny networks")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--out", type=Path, help="the CSV to write")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    os.environ |= QUIET
    started()
    if args.only:  # a part's own process
        run_part(next(part for part in PARTS if part.name == args.only), args.cpu, args.lines)
        return
    if unknown := sorted(set(args.parts) - set(names)):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [part for part in PARTS if not args.parts or part.name in args.parts]
    about = circumstances(args.cpu)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    kind = re.sub(r"[^a-z0-9]+", "-", about["gpu"].lower()).strip("-")
    out = args.out or RESULTS / f"{stamp}-{kind}.csv"
    machine = None if args.cpu else machine_here()
    if failed := run_all(chosen, args.cpu, 60 * args.minutes, out, about, machine):
        sys.exit(f"error: failed, or above their tolerance: {', '.join(failed)} (see {out})")


def run_all(
    parts: Sequence[Part],
    tiny: bool,
    seconds: float,
    out: Path,
    about: dict[str, str],
    machine: Machine | None = None,
) -> list[str]:
    """Run parts one after the other; return the names of those that failed.

    Args:
        parts: in the order in which they run.
        tiny: on the CPU, with tiny networks.
        seconds: for all together.
        out: the CSV.
        about: date, GPU, driver and versions, for each row.
        machine: what there is of GPUs; None on a CPU. A part that needs more is left out by name.
    """
    end = time.monotonic() + seconds
    print(f"{about}; results in {out}", file=sys.stderr, flush=True)
    with TemporaryDirectory() as name:
        file = Path(name) / "lines.jsonl"
        forks = _can_fork(tiny)
        for part in parts:
            say = Writer(part.name, file)
            began, left = time.monotonic(), end - time.monotonic()
            if lacking := part.lacking(machine):
                say("state", None, "state", f"left out: {'; '.join(lacking)}")
            elif left < LEAST_S:
                say("state", None, "state", "left out: no time was left")
            else:
                limit = left if tiny else min(part.limit, left)  # limits are those of a GPU
                why = _run(part, tiny, file, limit, forks)
                taken = time.monotonic() - began
                say("state", taken, "s", why or "done", failed=why is not None)
            write_csv(read_lines(file), about, out)
        lines = read_lines(file)
        for line in lines:
            if " goal " in line.note:
                value = "-" if line.value is None else f"{line.value:.2f}"
                print(f"{line.part}: {line.name} {value}, {line.note}", file=sys.stderr)
        return list(dict.fromkeys(line.part for line in lines if line.failed))


def run_part(part: Part, tiny: bool, file: Path) -> None:
    """Do a part's work in this process; end with code 1 where it fails, which its line says."""
    say = Writer(part.name, file)
    try:
        import torch

        if tiny:
            torch.set_num_threads(1)
        device = torch.device("cpu" if tiny else "cuda")
        part.load()(device, tiny, say)
    except Exception as error:
        traceback.print_exc()
        said = f"{type(error).__name__}: {str(error).strip() or '-'}".splitlines()[0][:300]
        say("error", None, "state", said, failed=True)
        sys.stdout.flush()
        sys.stderr.flush()
        raise SystemExit(1) from None


def circumstances(cpu: bool) -> dict[str, str]:
    """Return the date, the GPU, its driver, and the versions that matter."""
    gpu, driver = ("cpu", "") if cpu else _gpus()[0][:2]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "gpu": gpu,
        "driver": driver,
        "torch": _version("torch"),
        "python": platform.python_version(),
    }


def _run(part: Part, tiny: bool, file: Path, limit: float, forks: bool) -> str | None:
    """Run a part in a process of its own; return why it failed, or None."""
    with lifeline() as ends:
        if forks:
            process: Any = multiprocessing.get_context("fork").Process(
                target=_run_forked, args=(ends, part, tiny, file)
            )
            process.start()
            process.join(limit)
            code = process.exitcode
            if code is None:
                process.kill()
                process.join()
        else:
            command = [sys.executable, "-m", "tests.gpu", "--only", part.name, "--lines", str(file)]
            own = subprocess.Popen(
                [*command, *(["--cpu"] if tiny else [])],
                env=os.environ | environment(ends[0]),
                pass_fds=ends[:1],
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                own.wait(limit)
            code = own.poll()
            if code is None:
                own.kill()
                own.wait()
    if code is None:
        return f"ended after {limit:.0f} s: over its time limit"
    return None if code == 0 else f"failed: exit code {code}"


def _run_forked(ends: tuple[int, int], part: Part, tiny: bool, file: Path) -> None:
    forked(ends)
    run_part(part, tiny, file)


def _can_fork(tiny: bool) -> bool:
    """Import what the parts share, and say whether a forked process can use the device.

    One that cannot (because a library has spoken to the GPU on import) is started anew each time.
    """
    for name in SHARED:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if "fork" not in multiprocessing.get_all_start_methods():
        return False
    probe: Any = multiprocessing.get_context("fork").Process(target=_probe, args=(tiny,))
    probe.start()
    probe.join(60)
    if probe.exitcode is None:
        probe.kill()
        probe.join()
    return probe.exitcode == 0


def _probe(tiny: bool) -> None:
    import torch

    torch.ones(1, device="cpu" if tiny else "cuda").sum().item()


def machine_here() -> Machine:
    """Return how many GPUs this process may use, and the memory of the smallest."""
    memory = [gib for *_, gib in _gpus()]
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(memory) if seen is None else len([one for one in seen.split(",") if one.strip()])
    return Machine(min(count, len(memory)), min(memory))


def _gpus() -> list[tuple[str, str, float]]:
    """Return each GPU's name, its driver's version and its GiB, as nvidia-smi says them."""
    queried = "--query-gpu=name,driver_version,memory.total"
    command = ["nvidia-smi", queried, "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        rows = [line.rsplit(", ", 2) for line in said.stdout.splitlines()]
        found = [(name, driver, float(mib) / 1024) for name, driver, mib in rows]
        found[0]
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        sys.exit("error: nvidia-smi names no GPU; `python -m tests.gpu --cpu` needs none")
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    main()
