"""How the time and memory of FID, KID and the manifolds grow with the number of images.

Seeded features of 768 dimensions, as many generated as real. Each size and metric runs in a process
of its own, whose peak memory above that of the loaded features is reported. From the repository
root (some minutes on one core up to 20,000):

    python -m tests.benchmarks.bench_fidelity_growth --images 5000 10000 20000 40000
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from workflow_scripts.fidelity.frechet import frechet_distance
from workflow_scripts.fidelity.kernel import kernel_distance
from workflow_scripts.fidelity.manifold import manifold_overlap

METRICS = {"FID": frechet_distance, "KID": kernel_distance, "PRDC": manifold_overlap}
DIMENSIONS = 768


def main() -> None:
    """Measure each size and metric and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[5000, 10000, 20000])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", choices=METRICS, help="measure one metric and print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.images[0], args.threads)))
        return
    print(f"{'images':>7}  " + "  ".join(f"{name:>14}" for name in METRICS))
    for n in args.images:
        cells = []
        for name in METRICS:
            command = [sys.executable, "-m", "tests.benchmarks.bench_fidelity_growth"]
            command += ["--one", name, "--images", str(n), "--threads", str(args.threads)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout)
            cells.append(f"{found['s']:6.1f} s {found['MiB']:4.0f} M")
        print(f"{n:>7}  " + "  ".join(f"{cell:>14}" for cell in cells), flush=True)


def measure(name: str, n: int, threads: int) -> dict[str, float]:
    """Return the seconds of a metric at n images a side and its MiB above the features."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    spectrum = ((1 + np.arange(DIMENSIONS)) ** -0.7).astype(np.float32)
    real, generated = (
        rng.standard_normal((n, DIMENSIONS), dtype=np.float32) * spectrum for _ in range(2)
    )
    METRICS[name](real[:64], generated[:64])  # load the libraries' kernels
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    METRICS[name](real, generated)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"s": seconds, "MiB": (peak - before) / 1024}


if __name__ == "__main__":
    main()
