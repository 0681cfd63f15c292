"""What a model's fidelity record costs beside the official way, side by side in one run.

Seeded features with a power-law spectrum, as many as the paper's test images, and 14 findings with
the paper's prevalence. Three ways to the same 15 x (FID, KID, PRDC):

    ours       `distribution_values` without its floors and intervals, which nobody else computes
    peers      each metric called once per subset: FID as torchmetrics computes it (the eigenvalues
               of S1 S2 in float64), KID from three kernel matrices, PRDC by the package `prdc`
    official   the same, but KID as the official release calls it: 100 "subsets" of all images,
               which are permutations of one another (one is timed and counted 100 times)

and, for one FID alone, the eigenvalues against ours. torchmetrics itself imports torchvision, which
is not there beside a CPU build of torch: its formulas are written out below. Ends with exit code 1
where the values differ. From the repository root (`--images 1000` for a quick look):

    python -m tests.benchmarks.bench_fidelity --dimensions 768
    python -m tests.benchmarks.bench_fidelity --dimensions 2048
"""

import contextlib
import io
from importlib.metadata import version

import numpy as np
import torch
from prdc import compute_prdc

from tests.benchmarks.measure import Result, make_parser, parse, report, timed
from workflow_scripts.fidelity.frechet import frechet_distance
from workflow_scripts.fidelity.kernel import kernel_distance
from workflow_scripts.fidelity.manifold import manifold_overlap

NEAREST_K = 5
SUBSETS = 100
SHARES = (0.201, 0.196, 0.048, 0.120, 0.031, 0.020, 0.027, 0.225, 0.333, 0.238, 0.009, 0.071)
"""Of training images with each finding in the paper's Table 9; the last two follow below."""
PREVALENCE = (*SHARES, 0.046, 0.301)


def main(argv: list[str] | None = None) -> None:
    """Time the three ways and print their ratios."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=5034)
    parser.add_argument("--dimensions", type=int, default=768)
    parser.add_argument("--threads", type=int, default=1)
    args = parse(parser, argv, images=800, dimensions=64)
    if round(min(PREVALENCE) * args.images) <= NEAREST_K + 1:
        parser.error(f"--images {args.images}: too few of the rarest finding; 800 are enough")
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    spectrum = (1 + np.arange(args.dimensions)) ** -0.7
    real = draw(rng, args.images, spectrum)
    generated = draw(rng, args.images, spectrum) * 1.05 + 0.02
    subsets = [slice(None), *(slice(0, round(share * args.images)) for share in PREVALENCE)]
    pairs = [(real[part], generated[part]) for part in subsets]

    ours_fid, fid_s = timed(lambda: [frechet_distance(x, y) for x, y in pairs])
    ours_kid, kid_s = timed(lambda: [kernel_distance(x, y).value for x, y in pairs])
    ours_prdc, prdc_s = timed(lambda: [manifold_overlap(x, y, NEAREST_K) for x, y in pairs])
    their_fid, their_fid_s = timed(lambda: [eigenvalue_fid(x, y) for x, y in pairs])
    their_kid, their_kid_s = timed(lambda: [plain_kid(x, y) for x, y in pairs])
    with contextlib.redirect_stdout(io.StringIO()):  # prdc prints its counts
        their_prdc, their_prdc_s = timed(lambda: [compute_prdc(x, y, NEAREST_K) for x, y in pairs])

    np.testing.assert_allclose(ours_fid, their_fid, rtol=1e-5)
    np.testing.assert_allclose(ours_kid, their_kid, atol=1e-6)
    for own, other in zip(ours_prdc, their_prdc, strict=True):
        for name, value in other.items():
            assert abs(getattr(own, name) - value) < 2e-3, (name, getattr(own, name), value)

    sizes = f"n = {args.images}, d = {args.dimensions}, {args.threads} thread(s)"
    print(f"{sizes}, 15 subsets; seconds")
    torch_version = f"torch {torch.__version__}"  # computes the formulas written out below
    peer_of_prdc = f"prdc {version('prdc')}"
    for name, own_s, other_s, peer in (
        ("FID", fid_s, their_fid_s, torch_version),
        ("KID", kid_s, their_kid_s, torch_version),
        ("PRDC", prdc_s, their_prdc_s, peer_of_prdc),
    ):
        print(f"  {name:<5} ours {own_s:7.2f}   peer {other_s:7.2f}   x{other_s / own_s:.1f}")
        report(Result(name, f"{sizes}, 15 subsets: ours; peer", own_s, other_s, peer))
    ours = fid_s + kid_s + prdc_s
    peers = their_fid_s + their_kid_s + their_prdc_s
    official = their_fid_s + SUBSETS * their_kid_s + their_prdc_s
    print(f"  all   ours {ours:7.2f}   peers {peers:7.2f}   x{peers / ours:.1f}")
    print(f"  all   ours {ours:7.2f}   official {official:7.2f}   x{official / ours:.1f}")
    _, one = timed(lambda: frechet_distance(real, generated))
    _, other = timed(lambda: eigenvalue_fid(real, generated))
    print(f"  one FID: ours {one:.2f}, eigenvalues {other:.2f}, x{other / one:.1f}")
    both, all_three = f"{torch_version}, {peer_of_prdc}", f"{sizes}, 15 subsets: FID, KID and PRDC"
    report(Result("all", f"{all_three}; one after the other", ours, peers, both))
    compared = f"{all_three}; the same with one KID counted {SUBSETS} times, as officially called"
    report(Result("all, official", compared, ours, official, both))
    report(Result("one FID", f"{sizes}: ours; eigenvalues", one, other, torch_version))


def draw(rng: np.random.Generator, n: int, spectrum: np.ndarray) -> np.ndarray:
    """Draw features (n, d), float32, with the spectrum's deviations."""
    return (rng.standard_normal((n, len(spectrum))) * spectrum).astype(np.float32)


def eigenvalue_fid(real: np.ndarray, generated: np.ndarray) -> float:
    """Return FID as torchmetrics 1.x computes it, in float64."""
    x, y = (torch.from_numpy(part).double() for part in (real, generated))
    difference = (x.mean(0) - y.mean(0)).square().sum()
    first, second = x.T.cov(), y.T.cov()
    root = torch.linalg.eigvals(first @ second).sqrt().real.sum()
    return float(difference + first.trace() + second.trace() - 2 * root)


def plain_kid(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the unbiased KID from three whole kernel matrices, in float64."""
    x, y = (torch.from_numpy(part).double() for part in (real, generated))
    n, m = len(x), len(y)
    xx, yy, xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(within - 2 * xy.mean())


if __name__ == "__main__":
    main()
