"""Bootstrap intervals of privacy values, with patients as the units."""

from typing import Any

import numpy as np

from workflow_scripts.fidelity.resample import expanded_tail
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


def percentile_interval(means: np.ndarray | None, patients: int | None = None) -> dict[str, Any]:
    """Return a value's interval and its kind from its bootstrap replicates; {} if None.

    Args:
        means: (b,) the replicates.
        patients: number of patients, for percentiles that are expanded with few (`expanded_tail`);
            None for plain ones.
    """
    if means is None:
        return {}
    tail = 0.025 if patients is None else expanded_tail(patients)
    low, high = (float(bound) for bound in np.quantile(means, [tail, 1 - tail]))
    return {"interval": (low, high), "interval_kind": "bootstrap 95%"}
