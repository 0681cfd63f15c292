"""How the time and memory of FID, KID and the manifolds grow with the number of images.

Seeded features of 768 dimensions, as many generated as real. Each size and metric runs in a process
of its own, whose peak memory above that of the loaded features is reported. From the repository
root (some minutes on one core up to 20,000):

    python -m tests.benchmarks.bench_fidelity_growth --images 5000 10000 20000 40000
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

from tests.benchmarks.measure import PeakMemory, Result, make_parser, parse, report, timed
from workflow_scripts.fidelity.frechet import frechet_distance
from workflow_scripts.fidelity.kernel import kernel_distance
from workflow_scripts.fidelity.manifold import manifold_overlap

METRICS = {"FID": frechet_distance, "KID": kernel_distance, "PRDC": manifold_overlap}
DIMENSIONS = 768


def main(argv: list[str] | None = None) -> None:
    """Measure each size and metric and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[5000, 10000, 20000])
    parser.add_argument("--threads", type=int, default=1)
    args = parse(parser, argv, images=[200, 400])
    if len(args.images) < 2:
        parser.error("--images: two numbers at least")
    sizes = sorted(args.images)
    seconds: dict[str, list[float]] = {name: [] for name in METRICS}
    # Processes that come from one in which everything is imported, and which has computed nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([metric.__module__ for metric in METRICS.values()])
    print(f"{'images':>7}  " + "  ".join(f"{name:>14}" for name in METRICS))
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for n in sizes:
            cells = []
            for name in METRICS:
                took, mib = pool.submit(measure, name, n, args.threads).result()
                seconds[name].append(took)
                cells.append(f"{took:6.1f} s {mib:4.0f} M")
            print(f"{n:>7}  " + "  ".join(f"{cell:>14}" for cell in cells), flush=True)
    compared = f"{sizes[-1]} images a side; {sizes[0]}; {DIMENSIONS} dimensions, "
    compared += f"{args.threads} thread(s)"
    for name, took in seconds.items():
        report(Result(f"{name} growth", compared, took[-1], took[0]))


def measure(name: str, n: int, threads: int) -> tuple[float, float]:
    """Return the seconds of a metric at n images a side and its MiB above the features."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    spectrum = ((1 + np.arange(DIMENSIONS)) ** -0.7).astype(np.float32)
    real, generated = (
        rng.standard_normal((n, DIMENSIONS), dtype=np.float32) * spectrum for _ in range(2)
    )
    METRICS[name](real[:64], generated[:64])  # load the libraries' kernels
    with PeakMemory() as peak:
        _, seconds = timed(lambda: METRICS[name](real, generated))
    return seconds, peak.mib


if __name__ == "__main__":
    main()
