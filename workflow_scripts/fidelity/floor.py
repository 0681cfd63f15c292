"""The floors of FID: what real images score against other real images at a comparison's sizes.

FID grows as n shrinks, for a perfect generator too, so that a rare finding looks worse than a
frequent one whatever the model. There are two floors:

- that of other patients (`fid_floor`, `floor_of_finding`): two groups of real images, no patient in
  both. It is what a generator scores that draws real radiographs and knows nothing of the captions
  but, for a finding, that they name it;
- the caption-matched one (`matched_floor`): each image of the one group has in the other a partner
  of another patient with the same findings. It is what a generator scores that draws real
  radiographs and takes the findings from the captions.

Neither is a bound: a generator that takes more from a caption than findings has more in common with
the caption's own radiograph, and may stand below both. A copy of the reference reads 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from workflow_scripts.fidelity.arrays import CPU
from workflow_scripts.fidelity.frechet import frechet_distance

FEWEST, MOST = 10, 100
"""Draws to average: until the mean's standard error is within `PRECISION` of it."""

PRECISION = 0.05

ENOUGH = 10
"""Images in each group, and patients of both together, that a floor of less than all images needs:
between fewer, the distance says more of these very patients than of a sample's size."""


@dataclass(frozen=True)
class Floor:
    """The mean FID of real against real, and the sizes it holds for.

    Attributes:
        value: the mean over the draws.
        n: size of the group in the generated images' place.
        n_reference: size of the other group.
        measured: the least sizes of the groups drawn; they differ from `n` and `n_reference` where
            the value was carried to these.
        draws: how many pairs of groups were drawn.
        of_finding: whether the images drawn from are those with the finding of the comparison.
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
        findings: (N,) a code of the set of findings of each; only the caption-matched floor asks.
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
    """Return the FID of real against real, other patients, at the sizes of a comparison.

    Two groups of `n` and `n_reference` images are drawn, no patient in both. Where there are not
    enough images, the groups shrink in proportion, and the value is carried to the sizes asked
    for: by how much the floor of `growth` falls between these sizes, where it has images enough for
    both; or, where the groups have more images than dimensions, in proportion to
    1/n + 1/n_reference, which FID's bias follows there. Otherwise it stands for the sizes drawn.

    Args:
        images: that are drawn from.
        n: generated images of the comparison, >= 2.
        n_reference: reference images of the comparison, >= 2.
        rng: draws the groups.
        device: where to compute.
        growth: more images of the kind; a factor between their features and those of `images`
            does not matter.

    Returns:
        The floor; None where no two groups of two images from different patients exist.

    Raises:
        ValueError: fewer than two images asked for, or features that are not finite.
    """
    if min(n, n_reference) < 2:
        raise ValueError(f"FID needs two images on each side, not {n} and {n_reference}")
    drawn = _draw(images, lambda: disjoint_groups(images.patients, n, n_reference, rng), device)
    return None if drawn is None else _carried(drawn, n, n_reference, rng, device, growth)


def floor_of_finding(
    images: RealImages,
    has: np.ndarray,
    n: int,
    n_reference: int,
    rng: np.random.Generator,
    device: torch.device = CPU,
) -> Floor | None:
    """Return `fid_floor` of a finding: drawn from the images that have it, where they are enough.

    They are enough where at least `ENOUGH` patients have it and each group holds as many images.
    Otherwise the groups are of all images, and the floor says so (`Floor.of_finding`).

    Args:
        images: all of the reference.
        has: (N,) bool, which of them have the finding.
        n: generated images of the comparison, >= 2.
        n_reference: reference images of the comparison, >= 2.
        rng: draws the groups.
        device: where to compute.

    Returns:
        The floor; None as in `fid_floor`.

    Raises:
        ValueError: as in `fid_floor`.
    """
    own = images.only(has)
    if len(np.unique(own.patients)) >= ENOUGH:
        floor = fid_floor(own, n, n_reference, rng, device, images)
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
    """Return the caption-matched floor: partners of other patients, with the same findings.

    Patients are drawn to two sides; images of the one stand for prompts, and each gets an image of
    the other side with the same findings, without replacement (`matched_groups`). No image may
    stand on both sides: partners out of the whole reference would be the reference in another
    order, and the distance 0. The value is carried to the sizes asked for as in `fid_floor`.

    Args:
        images: that are drawn from, with findings.
        n: generated images of the comparison, >= 2.
        n_reference: reference images of the comparison, >= 2.
        rng: draws the sides and the partners.
        device: where to compute.
        growth: see `fid_floor`.

    Returns:
        The floor; None where in any draw fewer than `ENOUGH` images get a partner.

    Raises:
        ValueError: images without findings, or features that are not finite.
    """
    findings = images.findings
    if findings is None:
        raise ValueError("partners are matched on findings: none are given")
    drawn = _draw(images, lambda: matched_groups(images.patients, findings, rng), device, ENOUGH)
    return None if drawn is None else _carried(drawn, n, n_reference, rng, device, growth)


def without_partner(images: RealImages) -> int:
    """Return how many images have findings that no image of another patient has.

    Raises:
        ValueError: images without findings.
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
    """The distances of pairs of groups, (r,), the groups' sizes, (r, 2), and the dimensions."""

    values: np.ndarray
    sizes: np.ndarray
    dimensions: int


def _draw(
    images: RealImages,
    groups: Callable[[], tuple[np.ndarray, np.ndarray]],
    device: torch.device,
    enough: int = 0,
) -> _Drawn | None:
    """Draw pairs of groups until the mean of their distances is known, see `FEWEST`.

    Pairs with a group of one image do not count; None as soon as a group is smaller than `enough`.
    """
    values: list[float] = []
    sizes: list[tuple[int, int]] = []
    features = images.features
    for draw in range(MOST):
        first, second = groups()
        fewest = min(len(first), len(second))
        if fewest < enough:
            return None
        if fewest >= 2:
            sizes.append((len(first), len(second)))
            values.append(frechet_distance(features[second], features[first], device))
        if draw + 1 >= FEWEST and _settled(values):
            break
    if not values:
        return None
    return _Drawn(np.array(values), np.array(sizes), features.shape[1])


def _settled(values: list[float]) -> bool:
    if len(values) < FEWEST:
        return False
    return float(np.std(values, ddof=1)) / len(values) ** 0.5 <= PRECISION * float(np.mean(values))


def _carried(
    drawn: _Drawn,
    n: int,
    n_reference: int,
    rng: np.random.Generator,
    device: torch.device,
    growth: RealImages | None,
) -> Floor:
    """Return the mean of what was drawn, at the sizes asked for where it can be carried there."""
    least = (int(drawn.sizes[:, 0].min()), int(drawn.sizes[:, 1].min()))
    asked = (n, n_reference)
    draws = len(drawn.values)
    mean = float(drawn.values.mean())
    if least == asked:
        return Floor(mean, *asked, least, draws)
    if growth is not None:
        typical = np.maximum(2, drawn.sizes.mean(axis=0).round().astype(int))
        at_asked = fid_floor(growth, *asked, rng, device)
        at_drawn = fid_floor(growth, int(typical[0]), int(typical[1]), rng, device)
        if at_asked and at_drawn and (at_asked.n, at_asked.n_reference) == asked:
            factor = at_asked.value / at_drawn.value if at_drawn.value > 0 else 1.0
            return Floor(mean * factor, *asked, least, draws)
    if min(least) > drawn.dimensions:
        factors = (1 / n + 1 / n_reference) / (1 / drawn.sizes).sum(axis=1)
        return Floor(float((drawn.values * factors).mean()), *asked, least, draws)
    return Floor(mean, *least, least, draws)


def disjoint_groups(
    patients: np.ndarray, first: int, second: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw two groups of rows that share no patient, as near to the sizes asked for as possible.

    Args:
        patients: (N,) the patient of each row.
        first: rows wanted in the first group.
        second: rows wanted in the second group.
        rng: draws them.

    Returns:
        Two arrays of row numbers. Where `first + second` rows of different patients do not
        exist, both are smaller, in proportion.
    """
    scale = min(1.0, len(patients) / (first + second))
    first, second = round(first * scale), round(second * scale)
    codes = np.unique(patients, return_inverse=True)[1]
    # Rows in random order of the patients, and in random order within a patient.
    order = np.lexsort((rng.random(len(codes)), rng.permutation(codes.max() + 1)[codes]))
    boundary = codes[order[:first]][-1:]
    rest = order[first:]
    return order[:first], rest[~np.isin(codes[rest], boundary)][:second]


def matched_groups(
    patients: np.ndarray, findings: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of rows of different patients with the same findings, no patient on both sides.

    Patients come in random order, and each goes to the side that leaves fewer rows without a
    partner. Of each set of findings as many rows are drawn from either side as the side with fewer
    of them has.

    Args:
        patients: (N,) the patient of each row.
        findings: (N,) a code of the set of findings of each row.
        rng: draws the order and the rows.

    Returns:
        Two arrays of row numbers of equal length; row i of the one is the partner of row i of the
        other.
    """
    who = np.unique(patients, return_inverse=True)[1]
    of = np.unique(findings, return_inverse=True)[1]
    rows_of_patient = np.split(np.argsort(who, kind="stable"), np.cumsum(np.bincount(who))[:-1])
    surplus = np.zeros(of.max() + 1, dtype=int)
    on_first = np.zeros(len(who), dtype=bool)
    for patient in rng.permutation(len(rows_of_patient)):
        rows = rows_of_patient[patient]
        codes, counts = np.unique(of[rows], return_counts=True)
        more, fewer = surplus[codes] + counts, surplus[codes] - counts
        gain = int(np.abs(more).sum() - np.abs(fewer).sum())
        first = gain < 0 or (gain == 0 and rng.random() < 0.5)
        surplus[codes] = more if first else fewer
        on_first[rows] = first
    # Rows of each set of findings side by side, in random order within a side.
    group = 2 * of + on_first
    sizes = np.bincount(group, minlength=2 * len(surplus))
    order = np.lexsort((rng.random(len(of)), group))
    place = np.arange(len(of)) - (np.cumsum(sizes) - sizes)[group[order]]
    kept = order[place < sizes.reshape(-1, 2).min(axis=1)[of[order]]]
    return kept[on_first[kept]], kept[~on_first[kept]]
