"""The closest training image of many, beside faiss's flat index, side by side in one run.

    python -m pip install faiss-cpu==1.15.1
    python -m tests.benchmarks.bench_closest --queries 2000 --references 50000
    python -m tests.benchmarks.bench_closest            # the paper's: 20,000 x 237,388 x 768

Features with a power-law spectrum, of which a tenth are copies of references. faiss answers in
float32; ours is exact, in the fastest arithmetic of the processor (`--float32` for float32 there,
too; `--flat` for a spectrum without structure, the hardest to bound). Ends with exit code 1 where a
copy is not found at distance 0, or where faiss names another reference that is truly nearer. Memory
is what the process takes above the features at its peak (Linux).
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from workflow_scripts.common.devices import device_name
from workflow_scripts.privacy import closest

DIMENSIONS = 768


def memory(field: str) -> int:
    """Return VmRSS (now) or VmHWM (the most since `forget_peak`) of this process, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def forget_peak() -> None:
    """Begin to measure VmHWM anew."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Time both and print their ratio."""
    import faiss  # only this benchmark needs it

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--references", type=int, default=237_388)
    parser.add_argument("--matches", type=int, default=5, help="closest references of each query")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where ours computes")
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--flat", action="store_true")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    decay = 0 if args.flat else -0.5
    spectrum = ((1.0 + np.arange(DIMENSIONS)) ** decay).astype(np.float32)
    references, queries = (
        rng.standard_normal((n, DIMENSIONS), dtype=np.float32) * spectrum
        for n in (args.references, args.queries)
    )
    copied = rng.integers(0, args.references, args.queries // 10)
    queries[: len(copied)] = references[copied]
    if args.float32:
        closest.multiplies_bfloat16 = lambda device: False
    closest.closest_by_distance(
        queries[:64], references[:64], device=device
    )  # load the libraries' kernels

    forget_peak()
    before = memory("VmRSS")
    start = time.perf_counter()
    ours = closest.closest_by_distance(queries, references, args.matches, device=device)
    our_seconds = time.perf_counter() - start
    peak = (memory("VmHWM") - before) / 1024
    index = faiss.IndexFlatL2(DIMENSIONS)
    index.add(references)
    start = time.perf_counter()
    _, theirs = index.search(queries, args.matches)
    their_seconds = time.perf_counter() - start

    found = ours.rows[:, 0]
    difference = queries - references[theirs[:, 0]].astype(np.float64)
    distances = np.sqrt(np.square(difference).mean(axis=1))
    print(f"{args.queries} x {args.references} x {DIMENSIONS}, {args.threads} thread(s)", end="")
    print(f", {args.matches} matches; ours on {device_name(device)}")
    print(f"  ours {our_seconds:.1f} s, {peak:.0f} MiB above the features", end="; ")
    print(f"faiss {their_seconds:.1f} s; ratio {their_seconds / our_seconds:.2f}")
    print(f"  {(found != theirs[:, 0]).sum()} queries where faiss names another reference")
    if (ours.values[: len(copied), 0] != 0).any() or (distances < ours.values[:, 0]).any():
        sys.exit("error: a closer reference was missed")


if __name__ == "__main__":
    main()
