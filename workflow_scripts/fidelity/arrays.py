"""Checks and conversions of feature arrays that all metrics share."""

import numpy as np
import torch
from torch import Tensor

CPU = torch.device("cpu")


def check_features(features: np.ndarray, name: str, minimum: int = 1) -> None:
    """Check that `features` is a finite (n, d) array of at least `minimum` rows.

    Raises:
        ValueError: another shape, too few rows, or a row that holds NaN or infinity; the message
            names the array, its shape or the row.
    """
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"{name} features have the shape {features.shape}, not (n, d)")
    if len(features) < minimum:
        raise ValueError(f"{name} features: {len(features)} row(s), at least {minimum} are needed")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name} features are not finite, first in row {int(finite.argmin())}")


def check_pair(real: np.ndarray, generated: np.ndarray, minimum: int = 1) -> None:
    """Check two feature arrays, and that they have the same width.

    Raises:
        ValueError: see `check_features`; or d differs.
    """
    check_features(real, "real", minimum)
    check_features(generated, "generated", minimum)
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"real features have {real.shape[1]} dimensions, generated ones {generated.shape[1]}"
        )


def to_float64(features: np.ndarray, device: torch.device) -> Tensor:
    """Return the features as a float64 tensor on `device`."""
    return torch.from_numpy(np.array(features, np.float64)).to(device)


def blocks(rows: int, columns: int, elements: int = 1 << 23) -> list[slice]:
    """Split `rows` into slices so that slice x `columns` holds about `elements` numbers."""
    step = max(1, elements // max(columns, 1))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
