"""FID and KID in the features of two encoders: Table 7 and Section A.1."""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from workflow_scripts.paper_audit.fidelity import COLUMNS, LOWER
from workflow_scripts.paper_audit.items import Item, by_model, compared, stated
from workflow_scripts.paper_audit.orders import spearman, values
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed, printed
from workflow_scripts.paper_audit.yardstick import (
    Truth,
    below,
    difference,
    in_all_readings,
)

_QUOTED: Final = {"DenseNet": ("0.001", "0.075"), "RadDino": ("54.22", "194.72")}
"""Lowest and highest FID by encoder, in Table 7's caption."""


def encoder_items(paper: Paper) -> list[Item]:
    """Return the claims that follow from Table 7."""
    return [*(_against_table_1(paper, metric) for metric in LOWER), *_two_encoders(paper["7"])]


def _against_table_1(paper: Paper, metric: str) -> Item:
    numbers = paper["7"].across_models(f"{metric}, RadDino")
    padded = all(number.text.endswith("0") for number in numbers.values())
    if padded:
        numbers = {model: printed(number.text[:-1]) for model, number in numbers.items()}
    return compared(
        f"table7-{metric.lower()}",
        f"Table 7, {metric} RadDino",
        f"{len(numbers)} values",
        f"Table 1's {metric}",
        by_model(numbers, paper["1"].of_models(COLUMNS[metric])),
        note="all end in a zero, which is taken as padding" if padded else "",
    )


def _two_encoders(grid: Grid) -> list[Item]:
    fids = {name: grid.across_models(f"FID, {name}") for name in _QUOTED}
    ordered = {name: sorted(row.values(), key=lambda n: n.exact) for name, row in fids.items()}
    pairs = {
        f"{name} {label}": (_QUOTED[name][end], row[end])
        for name, row in ordered.items()
        for end, label in ((0, "lowest"), (-1, "highest"))
    }
    width = {name: difference(row[-1], row[0]) for name, row in ordered.items()}
    spread = {name: _relative_deviation(row) for name, row in fids.items()}
    distinct = {name: len({n.exact for n in row}) for name, row in ordered.items()}
    alike = spearman(values(fids["DenseNet"]), values(fids["RadDino"]))
    return [
        compared(
            "table7-ranges",
            "Table 7, caption",
            "FID from 0.001 to 0.075 (DenseNet) and from 54.22 to 194.72 (RadDino)",
            "lowest and highest FID of Table 7's rows",
            pairs,
        ),
        stated(
            "text-densenet-ties",
            "Section A.1",
            "DenseNet's FID puts several models at one rank",
            "distinct printed values of Table 7's first row",
            distinct["DenseNet"] < len(fids["DenseNet"]),
            f"{distinct['DenseNet']} distinct values for {len(fids['DenseNet'])} models, printed "
            "to three decimals",
        ),
        stated(
            "text-rad-dino-differentiates",
            "Table 7, caption, and Section A.1",
            "RadDino's FID differs far more between models than DenseNet's",
            "Table 7's rows, by range, by standard deviation over mean, and by distinct printed "
            "values",
            in_all_readings(
                [
                    below(width["DenseNet"], width["RadDino"]),
                    _higher(spread["RadDino"], spread["DenseNet"]),
                    distinct["RadDino"] > distinct["DenseNet"],
                ]
            ),
            f"range {float(width['RadDino'].value):.2f} (RadDino) against "
            f"{float(width['DenseNet'].value):.3f} (DenseNet); relative spread "
            f"{_between(spread['RadDino'])} against {_between(spread['DenseNet'])}; distinct "
            f"values {distinct['RadDino']} against {distinct['DenseNet']}",
            note=f"Spearman's correlation of the two rows is {alike.text()}",
            reason="FIDs of two encoders have no common scale",
        ),
    ]


def _relative_deviation(numbers: Mapping[str, Printed]) -> tuple[float, float]:
    """Return the lowest and highest standard deviation over mean that the printed digits allow.

    Digits that are not printed change each number, and so the mean, by at most `half`. They change
    the standard deviation by at most half sqrt(n / (n - 1)): it is a norm, so the triangle
    inequality holds.
    """
    sample = np.array([number.value for number in numbers.values()])
    half = max(float(number.half) for number in numbers.values())
    sd, mean = float(sample.std(ddof=1)), float(sample.mean())
    change = half * math.sqrt(len(sample) / (len(sample) - 1))
    return max(sd - change, 0.0) / (mean + half), (sd + change) / (mean - half)


def _higher(a: tuple[float, float], b: tuple[float, float]) -> Truth:
    """Return whether all of range a is above range b; None if they overlap."""
    return True if a[0] > b[1] else False if a[1] < b[0] else None


def _between(ends: tuple[float, float]) -> str:
    low, high = (f"{end:.2f}" for end in ends)
    return low if low == high else f"{low} to {high}"
