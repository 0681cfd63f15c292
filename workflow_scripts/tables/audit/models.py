"""Groups of the paper's models, and orders of numbers over them."""

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from scipy import stats

from workflow_scripts.tables.audit.printed import Printed

NAMES: Final = {
    "sd_v1_4": "SD V1-4",
    "sd_v1_5": "SD V1-5",
    "sd_v2": "SD V2",
    "sd_v2_1": "SD V2-1",
    "radedit": "RadEdit",
    "pixart_sigma": "Pixart Sigma",
    "sana": "Sana",
    "sd_v3_5": "SD V3-5",
    "lumina_2": "Lumina 2.0",
    "flux_1_dev": "Flux.1-Dev",
    "llm_cxr": "LLM-CXR",
}
"""The paper's eleven models, by config key."""

EARLIER: Final = ("sd_v1_4", "sd_v1_5", "sd_v2", "sd_v2_1")
"""What the text calls earlier Stable Diffusion variants."""

LARGER: Final = ("sd_v3_5", "lumina_2", "flux_1_dev")
"""What the text calls larger models, LLM-CXR apart: those adapted by LoRA."""


def names(keys: Iterable[str]) -> str:
    """Return models as a list for readers; `none` of none."""
    return ", ".join(NAMES.get(key, key) for key in keys) or "none"


def ranked(numbers: Mapping[str, Printed], lower: bool, method: str = "min") -> dict[str, int]:
    """Return ranks from 1 of printed numbers.

    Args:
        numbers: by label.
        lower: whether the lowest is the best.
        method: what equal numbers get: `min` their lowest rank, `dense` the same without gaps.
    """
    sign = 1 if lower else -1
    found = stats.rankdata([sign * number.value for number in numbers.values()], method=method)
    return {label: int(rank) for label, rank in zip(numbers, found, strict=True)}


def pearson(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[float, float]:
    """Return Pearson's correlation of numbers by label, and its two-sided p-value."""
    found = stats.pearsonr(list(a.values()), [b[label] for label in a])
    return float(found.statistic), float(found.pvalue)


def spearman(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[float, float]:
    """Return Spearman's correlation, equal numbers sharing their mean rank, and its p-value."""
    found = stats.spearmanr(list(a.values()), [b[label] for label in a])
    return float(found.statistic), float(found.pvalue)


def values(numbers: Mapping[str, Printed]) -> dict[str, float]:
    """Return printed numbers as floats."""
    return {label: number.value for label, number in numbers.items()}


def displaced(a: Mapping[str, int], b: Mapping[str, int]) -> list[str]:
    """Return the labels whose removal alone makes two rankings of the rest the same order."""
    found = []
    for label in a:
        rest = [other for other in a if other != label]
        orders = [stats.rankdata([ranks[other] for other in rest]) for ranks in (a, b)]
        if np.array_equal(*orders):
            found.append(label)
    return found
