"""Groups of the paper's models, and orders and correlations of numbers over them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from workflow_scripts.paper_audit.printed import Printed
from workflow_scripts.paper_audit.yardstick import Truth

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


STRONG: Final = 0.5
"""Size from which a correlation is called strong (Cohen, 1988)."""


@dataclass(frozen=True)
class Correlation:
    """A correlation over models or pathologies.

    Attributes:
        value: the coefficient.
        low, high: its 95% interval, for the paper's models as a sample of models.
        n: how many pairs of numbers.
    """

    value: float
    low: float
    high: float
    n: int

    def text(self, decimals: int = 2) -> str:
        """Return it for readers: `0.36 (95% -0.31 to 0.79, n = 11)`."""
        value, low, high = (f"{x:.{decimals}f}" for x in (self.value, self.low, self.high))
        return f"{value} (95% {low} to {high}, n = {self.n})"

    @property
    def absent(self) -> Truth:
        """Whether there is no strong correlation.

        False where the interval excludes 0; True where it excludes what is strong; open otherwise.
        """
        if self.low > 0 or self.high < 0:
            return False
        return True if max(-self.low, self.high) < STRONG else None


def pearson(a: Mapping[str, float], b: Mapping[str, float]) -> Correlation:
    """Return Pearson's correlation of numbers by label; its interval is by Fisher's z."""
    r = float(stats.pearsonr(list(a.values()), [b[label] for label in a]).statistic)
    return _with_interval(r, len(a), 1.0)


def spearman(a: Mapping[str, float], b: Mapping[str, float]) -> Correlation:
    """Return Spearman's correlation, equal numbers sharing their mean rank.

    The interval is by Fisher's z with the variance of Bonett and Wright (2000).
    """
    r = float(stats.spearmanr(list(a.values()), [b[label] for label in a]).statistic)
    return _with_interval(r, len(a), 1 + r * r / 2)


def _with_interval(r: float, n: int, inflation: float) -> Correlation:
    """Return a correlation with tanh(atanh(r) +- 1.96 sqrt(inflation / (n - 3))).

    Three numbers or fewer say nothing of other ones: from -1 to 1.
    """
    if n <= 3:
        return Correlation(r, -1.0, 1.0, n)
    if abs(r) >= 1:
        return Correlation(r, r, r, n)
    reach = float(stats.norm.ppf(0.975)) * math.sqrt(inflation / (n - 3))
    return Correlation(r, math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach), n)


def reach_of_ranks(
    ranks: Mapping[str, int], numbers: Mapping[str, Printed], lower: bool
) -> tuple[float, float]:
    """Return the lowest and highest correlation of ranks with those of printed numbers.

    Numbers that are printed alike may stand in either order; in that of the ranks the correlation
    is highest, in the reverse order lowest.
    """
    sign = 1 if lower else -1
    found = []
    for way in (-1, 1):
        order = sorted(ranks, key=lambda m: (sign * numbers[m].exact, way * ranks[m]))
        found.append(pearson(values_of(ranks), {m: float(i) for i, m in enumerate(order)}).value)
    return found[0], found[1]


def values_of(ranks: Mapping[str, int]) -> dict[str, float]:
    """Return ranks as floats."""
    return {label: float(rank) for label, rank in ranks.items()}


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
