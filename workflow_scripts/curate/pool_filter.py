"""Apply the filter to a pool: which images look like leaks, and which are of poor quality.

The limits are set on one half of the unseen patients. The other half shows how many real
radiographs the same limits refuse.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.curate import filters
from workflow_scripts.curate.kinds import EVERY_KIND
from workflow_scripts.curate.lenses import LENS_SCHEMA, LENSES
from workflow_scripts.curate.settings import CurateSettings
from workflow_scripts.downstream.data import labels_of
from workflow_scripts.faithfulness.anatomy_values import Rule, halves, measured
from workflow_scripts.faithfulness.seen import Seen, read_seen
from workflow_scripts.features.cache import read_features
from workflow_scripts.privacy.private_table import read_private_table


@dataclass(frozen=True)
class FilteredPool:
    """The filter's results for the pool, the planted leaks and radiographs of unseen patients.

    Attributes:
        pool: one row for each image of the pool: its lens values, `density`, `leak`, and `sparse`,
            `implausible` and `unseen`, the three reasons of poor quality.
        labels: (n, 14), 1 where the prompt asks for the finding.
        planted: number of caught and of planted leaks, by kind; 0 and 0 for a kind that could not
            be planted.
        refused: bool (m,), whether a privacy lens refuses each radiograph of `tried`.
        tried: the radiographs of the second half of the unseen patients.
        poor: bool (k,), whether a quality check refuses each test radiograph among `tried`.
        limits: the limit of each lens, and of `density`.
        without: findings without a limit on the judge's probability, each with the reason.
    """

    pool: pd.DataFrame
    labels: np.ndarray
    planted: dict[str, tuple[int, int]]
    refused: np.ndarray
    tried: pd.DataFrame
    poor: np.ndarray
    limits: dict[str, float]
    without: dict[str, str]

    @property
    def passed(self) -> np.ndarray:
        """Row numbers of the pool's images that pass all checks."""
        failed = self.pool[["leak", "sparse", "implausible", "unseen"]].any(axis=1)
        return np.flatnonzero(~failed.to_numpy())


@dataclass(frozen=True)
class QualityChecks:
    """The three quality checks with their limits.

    Attributes:
        judge: the judge whose probabilities are used.
        anatomy: the limits of anatomical measures.
        visible: the lowest probability at which a finding that was asked for counts as visible.
        least_density: the lowest density.
    """

    judge: str
    anatomy: Rule
    visible: dict[str, float]
    least_density: float

    def failures(
        self, rows: pd.DataFrame, probabilities: np.ndarray, labels: np.ndarray, density: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return which images fail each check, bool (n,).

        Args:
            rows: what was seen in n images, see `anatomy_values.measured`.
            probabilities: (n, 14), the judge's.
            labels: (n, 14), 1 where the finding should be visible.
            density: (n,).
        """
        return {
            "sparse": density < self.least_density,
            "implausible": self.anatomy.implausible(rows),
            "unseen": filters.not_visible(probabilities, labels, self.visible),
        }


def filter_pool(args: argparse.Namespace, policy: CurateSettings) -> FilteredPool:
    """Set the limits on radiographs of unseen patients, and apply them.

    Raises:
        InputError: files are missing, or do not belong together.
    """
    lenses = _lens_values(args, policy)
    unseen = lenses[lenses["group"] == "held_out"].reset_index(drop=True)
    first = halves(unseen["patient_id"].to_numpy(str), policy.seed)
    limits: dict[str, float] = {}
    for lens, side in LENSES.items():
        limits |= filters.limits_of(unseen[first], {lens: side}, policy.false_alarms(lens))
    limits |= filters.limits_of(unseen[first], {"density": "low"}, policy.quality_false_alarms)

    def leaks(rows: pd.DataFrame) -> np.ndarray:
        return np.any(list(filters.beyond(rows, LENSES, limits).values()), axis=0)

    planted = lenses[lenses["group"] == "planted"]
    caught = pd.Series(leaks(planted), index=planted["kind"]).groupby(level=0)
    counts = caught.agg(["sum", "size"]).reindex(list(EVERY_KIND), fill_value=0)
    seen = read_seen(args.seen)
    checks, poor, without = _quality_checks(args, policy, unseen, first, limits["density"], seen)
    pool = lenses[lenses["group"] == "pool"].sort_values("id", kind="stable")
    pool, labels = _checked_pool(args, pool.reset_index(drop=True), seen, checks)
    tried = unseen[~first].reset_index(drop=True)
    return FilteredPool(
        pool.assign(leak=leaks(pool)),
        labels,
        {str(kind): (int(row["sum"]), int(row["size"])) for kind, row in counts.iterrows()},
        leaks(tried),
        tried,
        poor,
        limits,
        without,
    )


def _lens_values(args: argparse.Namespace, policy: CurateSettings) -> pd.DataFrame:
    """Return the rows of `lenses.py` with `density` among random training radiographs."""
    lenses = read_private_table(args.lenses, LENS_SCHEMA)
    features = read_features(args.features / "rad_dino.h5").features
    training = read_features(args.real / "rad_dino.h5").features
    rng = np.random.default_rng(policy.seed)
    count = min(policy.references, len(training))
    if count <= filters.NEAREST:
        raise InputError(
            f"{count} training radiographs, of which density needs more than {filters.NEAREST}",
            args.real,
            "raise curate.references or enlarge the cohort",
        )
    references = training[np.sort(rng.permutation(len(training))[:count])]
    points = features[lenses["rows_of_features"].to_numpy()]
    return lenses.assign(density=filters.density(points, references))


def _quality_checks(
    args: argparse.Namespace,
    policy: CurateSettings,
    unseen: pd.DataFrame,
    first: np.ndarray,
    least_density: float,
    seen: Seen,
) -> tuple[QualityChecks, np.ndarray, dict[str, str]]:
    """Set the limits of the quality checks on test radiographs of unseen patients.

    Args:
        args: of the command line.
        policy: has the false alarm rate.
        unseen: the radiographs of unseen patients.
        first: bool, those on which limits are set.
        least_density: the limit of density.
        seen: what was seen in the pool.

    Returns:
        The checks; whether they refuse each test radiograph of the second half; and the findings
        without a limit, each with the reason.
    """
    radiographs = read_seen(args.radiographs)
    check_same_networks(radiographs, seen, args.seen)
    judge = next(iter(radiographs.run["settings"]["judges"]))
    ids = radiographs.rows["id"]
    manifest = read_manifest(args.manifest).set_index("image_id", drop=False)
    labels = labels_of(manifest.loc[ids])
    probabilities = radiographs.probabilities(judge)
    rows = measured(radiographs.rows)
    sets_limits = ids.isin(unseen.loc[first, "id"]).to_numpy()
    is_tried = ids.isin(unseen.loc[~first, "id"]).to_numpy()
    visible, without = filters.visible_limits(
        probabilities[sets_limits], labels[sets_limits], policy.quality_false_alarms
    )
    checks = QualityChecks(judge, Rule(rows[sets_limits]), visible, least_density)
    density = rows.loc[is_tried, "id"].map(unseen.set_index("id")["density"]).to_numpy(float)
    failures = checks.failures(rows[is_tried], probabilities[is_tried], labels[is_tried], density)
    return checks, np.any(list(failures.values()), axis=0), without


def _checked_pool(
    args: argparse.Namespace, pool: pd.DataFrame, seen: Seen, checks: QualityChecks
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the pool with the quality checks' results and captions, and its labels, (n, 14).

    Raises:
        InputError: an image has no prompt, or no network looked at it.
    """
    prompts = read_prompts(args.prompts).set_index("prompt_id", drop=False)
    ids = set(pool["id"])
    unknown = sorted((ids - set(prompts.index)) | (ids - set(seen.rows["id"])))
    if unknown:
        raise InputError(
            f"{len(unknown)} image(s) of the pool have no prompt, or were not looked at, "
            f"first {unknown[0]!r}",
            args.lenses,
            "rerun the curate stage",
        )
    asked = prompts.loc[pool["id"]]
    labels = labels_of(asked)
    images = Seen(seen.rows.loc[pool["id"]], seen.run)
    failures = checks.failures(
        measured(images.rows),
        images.probabilities(checks.judge),
        labels,
        pool["density"].to_numpy(),
    )
    captions = {name: asked[name].to_list() for name in ("caption", "caption_source")}
    return pool.assign(**failures, **captions), labels


def check_same_networks(real: Seen, other: Seen, where: Path) -> None:
    """Check that the same judges and the same labeller looked at two collections of images.

    Raises:
        InputError: they did not.
    """
    for key in ("judges", "cxas_sha256", "cxas_size", "protocol"):
        if real.run["settings"].get(key) != other.run["settings"].get(key):
            raise InputError(
                f"{key} differs between the radiographs and the pool",
                where,
                "delete it and rerun curate_look",
            )
    if not real.run["settings"]["judges"]:
        raise InputError("no judge looked at the images", where, "set faithfulness.judges")
