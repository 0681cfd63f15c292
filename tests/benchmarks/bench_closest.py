"""The closest training image of many, beside faiss's flat index, side by side in one run.

    python -m tests.benchmarks.bench_closest --queries 2000 --references 50000
    python -m tests.benchmarks.bench_closest            # the paper's: 20,000 x 237,388 x 768

Features with a power-law spectrum; a tenth are copies of references. faiss (envs/bench.txt) answers
in float32; ours is exact, in the fastest arithmetic of the processor (`--float32` for float32
there, too; `--flat` for a spectrum without structure, the hardest to bound). Ends with exit code 1
where a copy is not found at distance 0, or where faiss names another reference that is truly
nearer. Memory is what the process takes above the features at its peak (Linux).
"""

import sys
from importlib.metadata import version

import numpy as np
import torch

from tests.benchmarks.measure import PeakMemory, Result, make_parser, parse, report, timed
from workflow_scripts.common.devices import device_name
from workflow_scripts.privacy import closest

DIMENSIONS = 768


def main(argv: list[str] | None = None) -> None:
    """Time both and print their ratio."""
    import faiss  # only this benchmark needs it

    parser = make_parser(__doc__)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--references", type=int, default=237_388)
    parser.add_argument("--matches", type=int, default=5, help="closest references of each query")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where ours computes")
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--flat", action="store_true")
    args = parse(parser, argv, queries=200, references=5000, threads=1)
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

    with PeakMemory() as peak:
        ours, our_seconds = timed(
            lambda: closest.closest_by_distance(queries, references, args.matches, device=device)
        )
    index = faiss.IndexFlatL2(DIMENSIONS)
    index.add(references)
    (_, theirs), their_seconds = timed(lambda: index.search(queries, args.matches))

    found = ours.rows[:, 0]
    difference = queries - references[theirs[:, 0]].astype(np.float64)
    distances = np.sqrt(np.square(difference).mean(axis=1))
    sizes = f"{args.queries} x {args.references} x {DIMENSIONS}, {args.threads} thread(s)"
    sizes += f", {args.matches} matches; ours on {device_name(device)}"
    print(sizes)
    print(f"  ours {our_seconds:.1f} s, {peak.mib:.0f} MiB above the features", end="; ")
    print(f"faiss {their_seconds:.1f} s; ratio {their_seconds / our_seconds:.2f}")
    print(f"  {(found != theirs[:, 0]).sum()} queries where faiss names another reference")
    if (ours.values[: len(copied), 0] != 0).any() or (distances < ours.values[:, 0]).any():
        sys.exit("error: a closer reference was missed")
    arithmetic = "fastest" if closest.multiplies_bfloat16(device) else "float32"
    compared = f"{sizes}, exact by {arithmetic} bounds; faiss's flat index in float32"
    peer = f"faiss-cpu {version('faiss-cpu')}"
    report(Result("closest by distance", compared, our_seconds, their_seconds, peer))


if __name__ == "__main__":
    main()
