"""Bootstrap intervals of privacy values, with patients as the units."""

from typing import Any

import numpy as np

from workflow_scripts.fidelity.resample import variance_of_mean
from workflow_scripts.privacy.settings import Settings


def bootstrap_of_means(
    table: np.ndarray, patients: np.ndarray, settings: Settings
) -> np.ndarray | None:
    """Return the columns' means in each bootstrap replicate of patients, (replicates, columns).

    All rows of a patient are drawn together, and all columns share the draws.

    Args:
        table: (rows, columns).
        patients: (rows,) the patient of each row.
        settings: replicates and seed.

    Returns:
        The means; None without replicates or with a single patient.
    """
    codes = np.unique(patients, return_inverse=True)[1]
    sizes = np.bincount(codes).astype(np.float64)
    if settings.bootstrap == 0 or len(sizes) < 2:
        return None
    sums = np.zeros((len(sizes), table.shape[1]))
    np.add.at(sums, codes, table)
    rng = np.random.default_rng(settings.seed)
    means = np.empty((settings.bootstrap, table.shape[1]))
    for i in range(settings.bootstrap):
        drawn = rng.integers(0, len(sizes), len(sizes))
        means[i] = sums[drawn].sum(axis=0) / sizes[drawn].sum()
    return means


def percentile_interval(means: np.ndarray | None) -> dict[str, Any]:
    """Return a value's interval and its kind from its bootstrap replicates (b,); {} if None."""
    if means is None:
        return {}
    low, high = (float(bound) for bound in np.quantile(means, [0.025, 0.975]))
    return {"interval": (low, high), "interval_kind": "bootstrap 95%"}


def effective_number(values: np.ndarray, patients: np.ndarray) -> float:
    """Return the effective sample size of clustered rows, in (0, n].

    It is the number of rows over their design effect (Kish, 1965), never more than the rows. If all
    values are equal, the design effect is unknown, and the number of patients is returned.

    Args:
        values: (n,) the value of each row.
        patients: (n,) the patient of each row.
    """
    alone = variance_of_mean(values)
    count = len(np.unique(patients))
    if count < 2 or alone == 0:
        return count
    together = variance_of_mean(values, patients)
    return len(values) * (alone / together if together > alone else 1.0)
