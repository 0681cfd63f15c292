"""A subset of multi-label rows that keeps the prevalence of each finding.

This is iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML 2011) for a subset and its
complement. The rarest finding comes first: its share is drawn from all rows that have it. Then
comes the rarest finding of the remaining rows. So a rare finding gets its share to within rounding,
which a plain draw would miss by chance.
"""

import numpy as np


def stratified_subset(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Draw rows such that the share of positives of each label is kept.

    Args:
        labels: 0 or 1, (rows, labels).
        size: number of rows to draw; all are returned if there are fewer.
        seed: seed of the draw.

    Returns:
        Row numbers, ascending.
    """
    n = len(labels)
    if size >= n:
        return np.arange(n)
    positive = labels.astype(bool)
    generator = np.random.default_rng(seed)
    target = positive.sum(axis=0) * (size / n)
    chosen, open_rows = np.zeros(n, bool), np.ones(n, bool)
    while (left := positive[open_rows].sum(axis=0)).any():
        rarest = int(np.where(left > 0, left, n + 1).argmin())
        having = np.flatnonzero(open_rows & positive[:, rarest])
        missing = target[rarest] - positive[chosen, rarest].sum()
        number = int(np.clip(_rounded(missing, generator), 0, len(having)))
        chosen[generator.choice(having, number, replace=False)] = True
        open_rows[having] = False
    # Rows without any label fill up the total, and any other rows if those are too few.
    surplus = int(chosen.sum()) - size
    if surplus > 0:
        chosen[generator.choice(np.flatnonzero(chosen), surplus, replace=False)] = False
    elif surplus < 0:
        plain, others = np.flatnonzero(open_rows), np.flatnonzero(~chosen & ~open_rows)
        order = np.concatenate([generator.permutation(plain), generator.permutation(others)])
        chosen[order[:-surplus]] = True
    return np.flatnonzero(chosen)


def _rounded(value: float, generator: np.random.Generator) -> int:
    """Round up or down at random, so that findings with less than one row are not all lost."""
    floor = int(np.floor(value))
    return floor + int(generator.random() < value - floor)
