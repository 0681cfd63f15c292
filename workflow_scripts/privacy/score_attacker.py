"""Score the attacker: how well the re-identification network tells patients apart, on real pairs.

    python -m workflow_scripts.privacy.score_attacker --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/privacy.parquet \\
        --real results/features/real/held_out --output results/privacy/attacker/real.json

Needs reid.h5 of held-out radiographs; makes one record. Every pair of two of them is scored: two
radiographs of one patient are what the network should find, those of two patients what it should
not. A count of prompts above the threshold says something of a model only as far as it exceeds what
unrelated images give.
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.features.encoders.reid import pair_scores
from workflow_scripts.fidelity.inputs import origin, read_encoder, rows_of
from workflow_scripts.fidelity.resample import paired_groups
from workflow_scripts.privacy.score import Settings, siamese_head

log = logging.getLogger(__name__)

BINS = 1 << 16
"""Scores are counted in so many equal steps of their rank among all of them; ties within one count
half, so that the AUC is right to about 1e-5."""


@dataclass(frozen=True)
class Pairs:
    """Scores of all pairs of two different images, counted.

    Attributes:
        same: (g + 1, b) pairs of one patient by score, the last row of all, row g of those that
            involve no image of group g.
        other: (g + 1, b) pairs of two patients.
        above: (n,) share of each image's pairs with other patients above the threshold; nan
            without any.
        same_above: share of pairs of one patient above the threshold; nan without any.
        other_above: the same of two patients.
    """

    same: np.ndarray
    other: np.ndarray
    above: np.ndarray
    same_above: float
    other_above: float


def score_pairs(
    features: np.ndarray,
    patients: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    threshold: float,
) -> Pairs:
    """Score every pair of two images.

    Args:
        features: (n, d) branch features.
        patients: (n,) the patient of each.
        weight: of `fc_end`.
        bias: of `fc_end`.
        threshold: delta.
    """
    n = len(features)
    codes = np.unique(patients, return_inverse=True)[1]
    groups = paired_groups(n, n, patients)[0]
    count = int(groups.max()) + 1
    edges = _edges(features, weight, bias)
    kinds = np.zeros((2, count + 1, BINS), np.int64)
    involved = np.zeros((2, count, BINS), np.int64)
    above = np.zeros(n)
    totals = np.zeros((2, 2))  # other or same patient; above or all
    progress = Progress("pairs", n, "images")
    for row in range(n):
        scores = pair_scores(features[row], features, weight, bias)
        same = codes == codes[row]
        over = scores > threshold
        others = int((~same).sum())
        above[row] = (over & ~same).sum() / others if others else np.nan
        place = np.searchsorted(edges, scores, side="right")
        later = np.arange(n) > row
        for kind, chosen in ((0, later & ~same), (1, later & same)):
            found = place[chosen]
            np.add.at(kinds[kind, -1], found, 1)
            np.add.at(involved[kind, groups[row]], found, 1)
            apart = groups[chosen] != groups[row]
            np.add.at(involved[kind], (groups[chosen][apart], found[apart]), 1)
            totals[kind] += (over[chosen].sum(), len(found))
        progress.update()
    kinds[:, :-1] = kinds[:, -1:] - involved
    shares = [float(over / number) if number else float("nan") for over, number in totals]
    return Pairs(kinds[1], kinds[0], above, shares[1], shares[0])


def _edges(features: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return `BINS` - 1 score bounds: quantiles of up to a million pairs, drawn by a fixed seed."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(features), (2, min(1_000_000, len(features) ** 2)))
    scores = np.concatenate(
        [
            pair_scores(features[a], features[b], weight, bias)
            for a, b in zip(np.array_split(first, 32), np.array_split(second, 32), strict=True)
        ]
    )
    return np.quantile(scores, np.arange(1, BINS) / BINS)


def auc(same: np.ndarray, other: np.ndarray) -> float:
    """Return the ROC AUC of counted scores, in 0..1: ties within a bin count half.

    Args:
        same: (b,) how many pairs of one patient have each score, at least one in all.
        other: (b,) the same of two patients.
    """
    below = np.cumsum(other) - other
    return float((same * (below + other / 2)).sum() / (same.sum() * other.sum()))


def attacker_values(pairs: Pairs, prompts: int, replicates: int, images: int) -> list[Value]:
    """Return the attacker's quality and what it would find by chance.

    The intervals leave out a group of patients at a time (the jackknife).

    Args:
        pairs: see `score_pairs`.
        prompts: how many radiographs' captions are prompts.
        replicates: images of each.
        images: held-out radiographs.
    """
    same, other = int(pairs.same[-1].sum()), int(pairs.other[-1].sum())
    if not same or not other:
        of = "no two radiographs of one patient" if not same else "radiographs of one patient only"
        absent = f"{of} are held out"
        area = Value("reid_auc", None, "none", same, "all", other, reason=absent)
    else:
        value = auc(pairs.same[-1], pairs.other[-1])
        left = [auc(a, b) for a, b in zip(pairs.same, pairs.other, strict=True) if a.sum()][:-1]
        interval = None
        if len(left) > 1:
            error = ((len(left) - 1) * np.var(left)) ** 0.5
            half = float(stats.t.ppf(0.975, len(left) - 1) * error)
            interval = (max(0.0, value - half), min(1.0, value + half))
        kind = None if interval is None else "jackknife 95%"
        area = Value("reid_auc", value, "none", same, "all", other, interval, kind)
    values = [area]
    for name, share, n in (
        ("reid_true_positive_rate", pairs.same_above, same),
        ("reid_false_positive_rate", pairs.other_above, other),
    ):
        known = np.isfinite(share)
        reason = None if known else "there is no such pair"
        values.append(Value(name, share if known else None, "none", n, reason=reason))
    known = pairs.above[np.isfinite(pairs.above)]
    # Any of a prompt's unrelated images above the threshold: drawn anew for each radiograph.
    chance = float((1 - (1 - known) ** replicates).mean()) if len(known) else None
    reason = None if chance is not None else "there is no such pair"
    values.append(Value("chance_share", chance, "none", images, reason=reason))
    count = None if chance is None else chance * prompts
    values.append(Value("chance_count", count, "none", prompts, reason=reason))
    return values


def score(
    protocol: str, manifest_path: Path, prompts_path: Path, folder: Path, settings: Settings
) -> Record:
    """Read the held-out radiographs' features and return the attacker's record.

    Raises:
        InputError: features that are missing, damaged, or of images not in the manifest.
    """
    reid = read_encoder(folder, "reid", protocol)
    manifest = read_manifest(manifest_path, ["image_id", "patient_id"])
    rows = rows_of(manifest["image_id"], reid.ids, folder, "manifest")
    patients = manifest["patient_id"].to_numpy(str)[rows]
    prompts = read_prompts(prompts_path)
    count = int(prompts["image_id"].nunique())
    pairs = score_pairs(reid.features, patients, *siamese_head(reid, folder), settings.threshold)
    replicates = round(len(prompts) / max(count, 1))
    return Record(
        stage="privacy",
        model="real",
        family="attacker",
        protocol=protocol,
        values=attacker_values(pairs, count, replicates, len(reid.ids)),
        details={"threshold": settings.threshold, "replicates": replicates, "images": len(rows)},
        provenance=provenance({"protocol": protocol, **asdict(settings), "inputs": [origin(reid)]}),
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add: Callable[..., Any] = parser.add_argument
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="the prompt set `privacy`")
    add("--real", required=True, type=Path, help="folder of held-out radiographs' features")
    add("--threshold", type=float, default=Settings.threshold, help="delta of the paper")
    add("--output", required=True, type=Path)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Score the attacker from the command line."""
    args = parse_arguments(argv)
    record = score(args.protocol, args.manifest, args.prompts, args.real, Settings(args.threshold))
    write_record(record, args.output)
    for value in record.values:
        log.info("%s %s (n %d)", value.metric, value.value, value.n)


if __name__ == "__main__":
    run_script(main)
