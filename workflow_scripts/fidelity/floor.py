"""The floors of FID: the FID of real images against other real images, at a comparison's sizes.

FID grows as n shrinks, even for a perfect generator. So a rare finding looks worse than a frequent
one, whatever the model. There are two floors:

- The floor of other patients (`fid_floor`, `floor_of_finding`) compares two groups of real images
  that share no patient. A generator that draws real radiographs regardless of the captions scores
  this FID. In the floor of a finding, the generator knows that the captions name it, and no more.
- The caption-matched floor (`matched_floor`) gives each image of one group a partner in the other,
  from another patient with the same findings. A generator that draws real radiographs with the
  captions' findings scores this FID.

Neither is a lower bound. A generator that takes more than the findings from a caption comes closer
to the caption's own radiograph, and may score below both. A copy of the reference has an FID of 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from workflow_scripts.fidelity.arrays import CPU
from workflow_scripts.fidelity.frechet import frechet_distance

FEWEST_DRAWS, MOST_DRAWS = 10, 100
"""Fewest and most draws to average."""

PRECISION = 0.05
"""Drawing stops once the mean's standard error is at most this share of the mean."""

ENOUGH = 10
"""Fewest images in each group, and fewest patients in both, for a floor from a subset of images.
With fewer, the distance says more about the particular patients than about the sample size."""


@dataclass(frozen=True)
class Floor:
    """The mean FID of real against real images, and the sample sizes it holds for.

    Attributes:
        value: the mean over the draws, >= 0.
        n: size of the group in place of the generated images.
        n_reference: size of the group in place of the reference.
        measured: smallest sizes of the groups drawn; they differ from `n` and `n_reference` where
            the value was extrapolated to these.
        draws: number of pairs of groups drawn.
        of_finding: whether the groups were drawn from images with the comparison's finding only.
    """

    value: float
    n: int
    n_reference: int
    measured: tuple[int, int]
    draws: int
    of_finding: bool = False


@dataclass(frozen=True)
class RealImages:
    """Images that groups are drawn from.

    Attributes:
        features: (N, d).
        patients: (N,) the patient of each.
        findings: (N,) a code of each image's set of findings; only the caption-matched floor needs
            it.
    """

    features: np.ndarray
    patients: np.ndarray
    findings: np.ndarray | None = None

    def only(self, rows: np.ndarray) -> "RealImages":
        """Return the images of some rows, (k,) numbers or (N,) bool."""
        findings = None if self.findings is None else self.findings[rows]
        return RealImages(self.features[rows], self.patients[rows], findings)


def fid_floor(
    images: RealImages,
    n: int,
    n_reference: int,
    rng: np.random.Generator,
    device: torch.device = CPU,
    growth: RealImages | None = None,
) -> Floor | None:
    """Return the FID between real images of different patients, at the sizes of a comparison.

    Two groups of `n` and `n_reference` images are drawn, with no patient in both. If there are too
    few images, the groups shrink in proportion, and the value is extrapolated to the sizes asked
    for. It is scaled by the ratio of the floors of `growth` at the two sizes, if `growth` has
    enough images for both. Otherwise, if the groups have more images than dimensions, it is scaled
    with 1/n + 1/n_reference, which FID's bias follows there. Failing that, the floor keeps the
    sizes drawn.

    Args:
        images: the images to draw from.
        n: generated images of the comparison, >= 2.
        n_reference: reference images of the comparison, >= 2.
        rng: draws the groups.
        device: where to compute.
        growth: a larger set of similar images; a constant factor between its features and those of
            `images` does not matter.

    Returns:
        The floor; None if there are no two groups of two images from different patients.

    Raises:
        ValueError: `n` or `n_reference` is below 2, or features are not finite.
    """
    if min(n, n_reference) < 2:
        raise ValueError(f"FID needs two images on each side, not {n} and {n_reference}")
    drawn = _draw(images, lambda: disjoint_groups(images.patients, n, n_reference, rng), device)
    return None if drawn is None else _extrapolated(drawn, n, n_reference, rng, device, growth)


def floor_of_finding(
    images: RealImages,
    has: np.ndarray,
    n: int,
    n_reference: int,
    rng: np.random.Generator,
    device: torch.device = CPU,
) -> Floor | None:
    """Return `fid_floor` for a finding, drawn from the images that have it if they suffice.

    They suffice if at least `ENOUGH` patients have the finding and each group holds at least as
    many images. Otherwise the groups are drawn from all images (`Floor.of_finding` is False).

    Args:
        images: all images of the reference.
        has: (N,) bool, whether each has the finding.
        n: generated images of the comparison, >= 2.
        n_reference: reference images of the comparison, >= 2.
        rng: draws the groups.
        device: where to compute.

    Returns:
        The floor; None as in `fid_floor`.

    Raises:
        ValueError: as in `fid_floor`.
    """
    positives = images.only(has)
    if len(np.unique(positives.patients)) >= ENOUGH:
        floor = fid_floor(positives, n, n_reference, rng, device, images)
        if floor is not None and min(floor.measured) >= ENOUGH:
            return replace(floor, of_finding=True)
    return fid_floor(images, n, n_reference, rng, device)


def matched_floor(
    images: RealImages,
    n: int,
    n_reference: int,
    rng: np.random.Generator,
    device: torch.device = CPU,
    growth: RealImages | None = None,
) -> Floor | None:
    """Return the caption-matched floor: the FID between images of other patients, same findings.

    Patients are split at random into two sides. Images of one side stand for prompts, and each gets
    an image of the other side with the same findings, without replacement (`matched_groups`). No
    image may be on both sides: partners drawn from the whole reference would be the reference in
    another order, at distance 0. The value is extrapolated as in `fid_floor`.

    Args:
        images: the images to draw from, with findings.
        n: generated images of the comparison, >= 2.
        n_reference: reference images of the comparison, >= 2.
        rng: draws the sides and the partners.
        device: where to compute.
        growth: see `fid_floor`.

    Returns:
        The floor; None if fewer than `ENOUGH` images get a partner in any draw.

    Raises:
        ValueError: `images` has no findings, or features are not finite.
    """
    findings = images.findings
    if findings is None:
        raise ValueError("partners are matched on findings: none are given")
    drawn = _draw(images, lambda: matched_groups(images.patients, findings, rng), device, ENOUGH)
    return None if drawn is None else _extrapolated(drawn, n, n_reference, rng, device, growth)


def without_partner(images: RealImages) -> int:
    """Return the number of images whose set of findings no image of another patient shares.

    Raises:
        ValueError: `images` has no findings.
    """
    if images.findings is None:
        raise ValueError("partners are matched on findings: none are given")
    pairs = np.column_stack(
        [
            np.unique(part.astype(str), return_inverse=True)[1]
            for part in (images.findings, images.patients)
        ]
    )
    alone = np.bincount(np.unique(pairs, axis=0)[:, 0], minlength=1) == 1
    return int(alone[pairs[:, 0]].sum())


@dataclass(frozen=True)
class _Drawn:
    """The distance of each pair of groups, (r,), the groups' sizes, (r, 2), and the dimensions."""

    values: np.ndarray
    sizes: np.ndarray
    dimensions: int


def _draw(
    images: RealImages,
    groups: Callable[[], tuple[np.ndarray, np.ndarray]],
    device: torch.device,
    enough: int = 0,
) -> _Drawn | None:
    """Draw pairs of groups until the mean of their distances is precise enough.

    Pairs with a group of one image do not count. The result is None as soon as a group has fewer
    than `enough` images.
    """
    values: list[float] = []
    sizes: list[tuple[int, int]] = []
    features = images.features
    for draw in range(MOST_DRAWS):
        first, second = groups()
        fewest = min(len(first), len(second))
        if fewest < enough:
            return None
        if fewest >= 2:
            sizes.append((len(first), len(second)))
            values.append(frechet_distance(features[second], features[first], device))
        if draw + 1 >= FEWEST_DRAWS and _settled(values):
            break
    if not values:
        return None
    return _Drawn(np.array(values), np.array(sizes), features.shape[1])


def _settled(values: list[float]) -> bool:
    """Return whether the mean of the distances is precise enough, see `PRECISION`."""
    if len(values) < FEWEST_DRAWS:
        return False
    return float(np.std(values, ddof=1)) / len(values) ** 0.5 <= PRECISION * float(np.mean(values))


def _extrapolated(
    drawn: _Drawn,
    n: int,
    n_reference: int,
    rng: np.random.Generator,
    device: torch.device,
    growth: RealImages | None,
) -> Floor:
    """Return the mean over the draws, extrapolated to the sizes asked for where possible."""
    smallest = (int(drawn.sizes[:, 0].min()), int(drawn.sizes[:, 1].min()))
    sizes = (n, n_reference)
    draws = len(drawn.values)
    mean = float(drawn.values.mean())
    if smallest == sizes:
        return Floor(mean, *sizes, smallest, draws)
    if growth is not None:
        typical = np.maximum(2, drawn.sizes.mean(axis=0).round().astype(int))
        at_sizes = fid_floor(growth, *sizes, rng, device)
        at_typical = fid_floor(growth, int(typical[0]), int(typical[1]), rng, device)
        if at_sizes and at_typical and (at_sizes.n, at_sizes.n_reference) == sizes:
            factor = at_sizes.value / at_typical.value if at_typical.value > 0 else 1.0
            return Floor(mean * factor, *sizes, smallest, draws)
    if min(smallest) > drawn.dimensions:
        factors = (1 / n + 1 / n_reference) / (1 / drawn.sizes).sum(axis=1)
        return Floor(float((drawn.values * factors).mean()), *sizes, smallest, draws)
    return Floor(mean, *smallest, smallest, draws)


def disjoint_groups(
    patients: np.ndarray, first: int, second: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw two groups of rows that share no patient, as close to the wanted sizes as possible.

    Args:
        patients: (N,) the patient of each row.
        first: rows wanted in the first group.
        second: rows wanted in the second group.
        rng: draws the groups.

    Returns:
        Two arrays of row numbers. If there are fewer than `first + second` rows, both are smaller
        in proportion; the second also lacks the rows of a patient who is already in the first.
    """
    scale = min(1.0, len(patients) / (first + second))
    first, second = round(first * scale), round(second * scale)
    codes = np.unique(patients, return_inverse=True)[1]
    # Rows in random order of the patients, and in random order within a patient.
    order = np.lexsort((rng.random(len(codes)), rng.permutation(codes.max() + 1)[codes]))
    boundary = codes[order[:first]][-1:]
    remaining = order[first:]
    return order[:first], remaining[~np.isin(codes[remaining], boundary)][:second]


def matched_groups(
    patients: np.ndarray, findings: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of rows with the same findings from different patients, no patient on both sides.

    Patients come in random order, and each goes to the side that leaves fewer rows without a
    partner. For each set of findings, both sides then contribute as many rows as the smaller of
    them has.

    Args:
        patients: (N,) the patient of each row.
        findings: (N,) a code of each row's set of findings.
        rng: draws the order and the rows.

    Returns:
        Two arrays of row numbers of equal length; entry i of one is the partner of entry i of the
        other.
    """
    patient_codes = np.unique(patients, return_inverse=True)[1]
    finding_codes = np.unique(findings, return_inverse=True)[1]
    rows_of_patient = np.split(
        np.argsort(patient_codes, kind="stable"), np.cumsum(np.bincount(patient_codes))[:-1]
    )
    surplus = np.zeros(finding_codes.max() + 1, dtype=int)
    on_first = np.zeros(len(patient_codes), dtype=bool)
    for patient in rng.permutation(len(rows_of_patient)):
        rows = rows_of_patient[patient]
        codes, counts = np.unique(finding_codes[rows], return_counts=True)
        more, fewer = surplus[codes] + counts, surplus[codes] - counts
        gain = int(np.abs(more).sum() - np.abs(fewer).sum())
        first = gain < 0 or (gain == 0 and rng.random() < 0.5)
        surplus[codes] = more if first else fewer
        on_first[rows] = first
    # Sort rows by set of findings and side, in random order within them.
    group = 2 * finding_codes + on_first
    sizes = np.bincount(group, minlength=2 * len(surplus))
    order = np.lexsort((rng.random(len(finding_codes)), group))
    place = np.arange(len(finding_codes)) - (np.cumsum(sizes) - sizes)[group[order]]
    paired = order[place < sizes.reshape(-1, 2).min(axis=1)[finding_codes[order]]]
    return paired[on_first[paired]], paired[~on_first[paired]]
