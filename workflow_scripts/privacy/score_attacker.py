"""Score the attacker: how well the re-identification network tells patients apart, on real images.

    python -m workflow_scripts.privacy.score_attacker --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/privacy.parquet \\
        --real results/features/real/held_out --output results/privacy/attacker/real.json

It reads reid.h5 of held-out radiographs and writes one record. Every pair of them is scored. The
network should give high scores to two radiographs of one patient, and low scores to radiographs of
two patients. If radiographs come from several sites, the site alone tells many patients apart. So
only two patients of one site make a negative pair, and the AUC over all pairs is a metric of its
own. A model's number of prompts above the threshold means something only as far as it exceeds the
number that unrelated images give.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.manifest import read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, Value, provenance
from workflow_scripts.common.settings import add_flags
from workflow_scripts.features.pair_scores import pair_scores
from workflow_scripts.fidelity.inputs import REAL, origin, read_encoder
from workflow_scripts.fidelity.resample import groups_of, units_of
from workflow_scripts.privacy.held_out import held_out_rows
from workflow_scripts.privacy.scripts import siamese_head, write_scored
from workflow_scripts.privacy.settings import Settings

BINS = 1 << 16
"""Number of score bins, which hold equal shares of all pairs. Ties within a bin count half, which
gives the AUC to about 1e-5."""


@dataclass(frozen=True)
class Pairs:
    """Histograms of the scores of all pairs of two different images.

    Attributes:
        same: (g + 1, b) number of pairs of one patient in each bin; the last row counts all pairs,
            row i those without an image of group i.
        other: (g + 1, b) likewise, pairs of two patients of one site.
        apart: (g + 1, b) likewise, pairs of two patients of two sites.
        above: (n,) for each image, the share of its pairs with other patients of its site that
            score above the threshold; nan if it has no such pairs.
        same_above: share of the pairs of one patient above the threshold; nan without such pairs.
        other_above: share of the pairs of two patients of one site above it; nan without such
            pairs.
    """

    same: np.ndarray
    other: np.ndarray
    apart: np.ndarray
    above: np.ndarray
    same_above: float
    other_above: float


def score_pairs(
    features: np.ndarray,
    patients: np.ndarray,
    sites: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    threshold: float,
) -> Pairs:
    """Score every pair of two images.

    Args:
        features: (n, d) features of the network's branch.
        patients: (n,) the patient of each image.
        sites: (n,) the site of each image.
        weight: (1, d), the weight of the layer `fc_end`.
        bias: (1,), the bias of `fc_end`.
        threshold: delta; a score above it is a re-identification.
    """
    n = len(features)
    patient_codes = np.unique(patients, return_inverse=True)[1]
    site_codes = np.unique(sites, return_inverse=True)[1]
    groups = groups_of(units_of(patients, patients))[0]
    count = int(groups.max()) + 1
    edges = _edges(features, weight, bias)
    kinds = np.zeros((3, count + 1, BINS), np.int64)
    involved = np.zeros((3, count, BINS), np.int64)
    above = np.zeros(n)
    totals = np.zeros((3, 2))  # pairs above the threshold, and all pairs
    progress = Progress("pairs", n, "images")
    for row in range(n):
        scores = pair_scores(features[row], features, weight, bias)
        same = patient_codes == patient_codes[row]
        over = scores > threshold
        others = ~same & (site_codes == site_codes[row])
        above[row] = (over & others).sum() / others.sum() if others.any() else np.nan
        all_bins = np.searchsorted(edges, scores, side="right")
        later = np.arange(n) > row
        for kind, partners in enumerate((same, others, ~same & ~others)):
            partners = partners & later
            bins = all_bins[partners]
            np.add.at(kinds[kind, -1], bins, 1)
            np.add.at(involved[kind, groups[row]], bins, 1)
            in_two_groups = groups[partners] != groups[row]
            np.add.at(involved[kind], (groups[partners][in_two_groups], bins[in_two_groups]), 1)
            totals[kind] += (over[partners].sum(), len(bins))
        progress.update()
    kinds[:, :-1] = kinds[:, -1:] - involved
    shares = [float(over / count) if count else float("nan") for over, count in totals[:2]]
    return Pairs(kinds[0], kinds[1], kinds[2], above, shares[0], shares[1])


def _edges(features: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return `BINS` - 1 bin edges: quantiles of up to a million pairs, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(features), (2, min(1_000_000, len(features) ** 2)))
    scores = np.concatenate(
        [
            pair_scores(features[a], features[b], weight, bias)
            for a, b in zip(np.array_split(first, 32), np.array_split(second, 32), strict=True)
        ]
    )
    # The same as `np.quantile`, which would search for each of the many quantiles and take seconds.
    places = np.arange(1, BINS) / BINS * (len(scores) - 1)
    return np.interp(places, np.arange(len(scores)), np.sort(scores))


def auc(same: np.ndarray, other: np.ndarray) -> float:
    """Return the ROC AUC from histograms of scores, in [0, 1]; ties within a bin count half.

    Args:
        same: (b,) number of pairs of one patient in each bin; at least one pair in all.
        other: (b,) likewise, pairs of two patients.
    """
    below = np.cumsum(other) - other
    return float((same * (below + other / 2)).sum() / (same.sum() * other.sum()))


def _area(name: str, same: np.ndarray, other: np.ndarray) -> Value:
    """Return an AUC with a jackknife interval, which leaves out one group of patients at a time.

    Args:
        name: the metric's name.
        same: (g + 1, b), see `Pairs`.
        other: (g + 1, b), see `Pairs`.
    """
    n, n_other = int(same[-1].sum()), int(other[-1].sum())
    if not n or not n_other:
        missing = (
            "no two radiographs of one patient" if not n else "radiographs of one patient only"
        )
        return Value(name, None, "none", n, "all", n_other, reason=f"{missing} are held out")
    value = auc(same[-1], other[-1])
    areas = [auc(a, b) for a, b in zip(same, other, strict=True) if a.sum() and b.sum()][:-1]
    interval = kind = None
    if len(areas) > 1 and np.ptp(areas) > 0:  # without spread it would claim certainty
        error = ((len(areas) - 1) * np.var(areas)) ** 0.5
        half = float(stats.t.ppf(0.975, len(areas) - 1) * error)
        interval, kind = (max(0.0, value - half), min(1.0, value + half)), "jackknife 95%"
    return Value(name, value, "none", n, "all", n_other, interval, kind)


def _value(name: str, number: float, n: int) -> Value:
    """Return a value, or the reason why there is none if the number is nan."""
    if np.isfinite(number):
        return Value(name, number, "none", n)
    return Value(name, None, "none", n, reason="there is no such pair")


def attacker_values(pairs: Pairs, prompts: int, replicates: int, images: int) -> list[Value]:
    """Return the attacker's quality, and the number of prompts that it would flag by chance.

    Args:
        pairs: see `score_pairs`.
        prompts: number of radiographs whose captions are prompts.
        replicates: images generated from each prompt.
        images: number of held-out radiographs.
    """
    same, other = int(pairs.same[-1].sum()), int(pairs.other[-1].sum())
    every = pairs.other + pairs.apart
    values = [_area("reid_auc", pairs.same, pairs.other)]
    if pairs.apart[-1].any():
        values.append(_area("reid_auc_all_sites", pairs.same, every))
    else:
        reason = "the radiographs come from one site"
        values.append(Value("reid_auc_all_sites", None, "none", same, reason=reason))
    for name, share, n in (
        ("reid_true_positive_rate", pairs.same_above, same),
        ("reid_false_positive_rate", pairs.other_above, other),
    ):
        values.append(_value(name, share, n))
    # The probability that any of a prompt's images exceeds the threshold, if all are unrelated.
    defined = pairs.above[np.isfinite(pairs.above)]
    chance = float((1 - (1 - defined) ** replicates).mean()) if len(defined) else float("nan")
    values.append(_value("chance_share", chance, images))
    values.append(_value("chance_count", chance * prompts, prompts))
    return values


def score(
    protocol: str, manifest_path: Path, prompts_path: Path, folder: Path, settings: Settings
) -> Record:
    """Read the held-out radiographs' features and return the attacker's record.

    Raises:
        InputError: features are missing, damaged, or of images that the manifest lacks.
    """
    reid = read_encoder(folder, "reid", protocol, REAL, "privacy")
    rows, held_out = held_out_rows(manifest_path, reid, folder)
    patients = held_out["patient_id"].to_numpy(str)
    sites = held_out["site"].fillna("").to_numpy(str)
    prompts = read_prompts(prompts_path)
    count = int(prompts["image_id"].nunique())
    head = siamese_head(reid, folder)
    pairs = score_pairs(reid.features[rows], patients, sites, *head, settings.threshold)
    replicates = round(len(prompts) / max(count, 1))
    return Record(
        stage="privacy",
        model="real",
        family="attacker",
        protocol=protocol,
        values=attacker_values(pairs, count, replicates, len(rows)),
        details={"threshold": settings.threshold, "replicates": replicates, "images": len(rows)},
        provenance=provenance({"protocol": protocol, **asdict(settings)}, inputs=[origin(reid)]),
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add: Callable[..., Any] = parser.add_argument
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="the prompt set `privacy`")
    add("--real", required=True, type=Path, help="folder of held-out radiographs' features")
    add_flags(parser, Settings, only=("threshold",))
    add("--output", required=True, type=Path)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Score the attacker from the command line."""
    args = parse_arguments(argv)
    record = score(args.protocol, args.manifest, args.prompts, args.real, Settings(args.threshold))
    write_scored(record, args.output)


if __name__ == "__main__":
    run_script(main)
