"""The highest re-identification scores of many images: all pairs in blocks, beside plain scoring.

    python -m tests.benchmarks.bench_closest_score --queries 2000 --references 50000
    python -m tests.benchmarks.bench_closest_score      # the paper's: 20,000 x 237,388 x 128

Plain scoring takes each query's scores against all references in float64, as `pair_scores` does; it
is timed on a few queries and scaled. Ends with exit code 1 where the two name another reference.
Memory is what the process takes above the features at its peak (Linux).
"""

import sys

import numpy as np
import torch

from tests.benchmarks.measure import PeakMemory, Result, make_parser, parse, report, timed
from workflow_scripts.common.devices import device_name
from workflow_scripts.features.pair_scores import pair_scores
from workflow_scripts.privacy.closest import closest_by_score

DIMENSIONS, PLAIN = 128, 20


def main(argv: list[str] | None = None) -> None:
    """Time both and print their ratio."""
    parser = make_parser(__doc__)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--references", type=int, default=237_388)
    parser.add_argument("--matches", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parse(parser, argv, queries=200, references=5000, threads=1)
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    references, queries = (
        1 / (1 + np.exp(-2 * rng.standard_normal((n, DIMENSIONS), dtype=np.float32)))
        for n in (args.references, args.queries)
    )
    weight, bias = rng.standard_normal((1, DIMENSIONS)) - 1, np.array([5.0])
    closest_by_score(queries[:64], references[:64], weight, bias, device=device)  # load the kernels
    with PeakMemory() as peak:
        found, seconds = timed(
            lambda: closest_by_score(queries, references, weight, bias, args.matches, device=device)
        )
    plain, few_seconds = timed(
        lambda: [
            int(pair_scores(references, query, weight, bias).argmax()) for query in queries[:PLAIN]
        ]
    )
    plain_seconds = few_seconds * args.queries / PLAIN
    sizes = f"{args.queries} x {args.references} x {DIMENSIONS}, {args.threads} thread(s)"
    sizes += f", {device_name(device)}"
    print(sizes)
    print(f"  in blocks {seconds:.0f} s, {peak.mib:.0f} MiB above the features", end="; ")
    print(f"plain {plain_seconds:.0f} s (scaled); ratio {plain_seconds / seconds:.1f}")
    if found.rows[:PLAIN, 0].tolist() != plain:
        sys.exit("error: another reference was named")
    compared = f"{sizes}: in blocks; plain scoring of {PLAIN} queries, scaled to all"
    report(Result("closest by score", compared, seconds, plain_seconds))


if __name__ == "__main__":
    main()
