"""FID and KID in the features of two encoders: Table 7 and Section A.1."""

import math
from collections.abc import Mapping

import numpy as np

from workflow_scripts.paper_audit.fidelity import COLUMNS, LOWER
from workflow_scripts.paper_audit.items import Item, compared, stated
from workflow_scripts.paper_audit.models import NAMES, spearman, values
from workflow_scripts.paper_audit.printed import Paper, Printed, printed
from workflow_scripts.paper_audit.yardstick import (
    Truth,
    below,
    difference,
    exactly,
    in_all_readings,
)


def encoder_items(paper: Paper) -> list[Item]:
    """Return what follows for Table 7."""
    grid = paper["7"]
    table = {name: paper["1"].of_models(COLUMNS[name]) for name in LOWER}
    items = []
    for name in LOWER:
        row = grid.across_models(f"{name}, RadDino")
        filled = all(number.text.endswith("0") for number in row.values())
        own = {m: printed(n.text[:-1]) if filled else n for m, n in row.items()}
        items.append(
            compared(
                f"table7-{name.lower()}",
                f"Table 7, {name} RadDino",
                f"{len(own)} values",
                f"Table 1's {name}",
                {NAMES[m]: (number, exactly(table[name][m])) for m, number in own.items()},
                "all end in a zero, which is taken as written to fill the column" if filled else "",
            )
        )
    dense, rad = (grid.across_models(f"FID, {name}") for name in ("DenseNet", "RadDino"))
    ends = {"DenseNet": (dense, ("0.001", "0.075")), "RadDino": (rad, ("54.22", "194.72"))}
    pairs = {
        f"{name} {end}": (printed(text), exactly(choose(own.values(), key=lambda n: n.exact)))
        for name, (own, texts) in ends.items()
        for end, text, choose in (("lowest", texts[0], min), ("highest", texts[1], max))
    }
    spread = {name: _variation(own) for name, (own, _) in ends.items()}
    width = {
        name: difference(*(exactly(f(own.values(), key=lambda n: n.exact)) for f in (max, min)))
        for name, (own, _) in ends.items()
    }
    distinct = {name: len({n.exact for n in own.values()}) for name, (own, _) in ends.items()}
    readings = {
        "range": below(width["DenseNet"], width["RadDino"]),
        "relative": _spread_further(spread["RadDino"], spread["DenseNet"]),
        "distinct": distinct["RadDino"] > distinct["DenseNet"],
    }
    alike = spearman(values(dense), values(rad))
    return [
        *items,
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
            distinct["DenseNet"] < len(dense),
            f"{distinct['DenseNet']} distinct values for {len(dense)} models, printed to three "
            "decimals",
        ),
        stated(
            "text-rad-dino-differentiates",
            "Table 7, caption, and Section A.1",
            "RadDino's FID differs far more between models than DenseNet's",
            "Table 7's rows, by range, by standard deviation over mean, and by distinct printed "
            "values",
            in_all_readings(readings.values()),
            f"range {float(width['RadDino'].value):.2f} (RadDino) against "
            f"{float(width['DenseNet'].value):.3f} (DenseNet); relative spread "
            f"{_between(spread['RadDino'])} against {_between(spread['DenseNet'])}; distinct "
            f"values {distinct['RadDino']} against {distinct['DenseNet']}",
            note=f"the two rank the models alike to Spearman's {alike.text()}",
            reason="FIDs of two encoders have no common scale",
        ),
    ]


def _variation(numbers: Mapping[str, Printed]) -> tuple[float, float]:
    """Return the least and the largest standard deviation over mean that the digits allow.

    Digits move every number by at most `half`: so the mean, and by at most half sqrt(n / (n - 1))
    the standard deviation (a norm, whose triangle inequality holds).
    """
    own = np.array(list(values(numbers).values()))
    half = max(float(number.half) for number in numbers.values())
    sd, mean = float(own.std(ddof=1)), float(own.mean())
    moved = half * math.sqrt(len(own) / (len(own) - 1))
    return max(sd - moved, 0.0) / (mean + half), (sd + moved) / (mean - half)


def _spread_further(a: tuple[float, float], b: tuple[float, float]) -> Truth:
    return True if a[0] > b[1] else False if a[1] < b[0] else None


def _between(ends: tuple[float, float]) -> str:
    low, high = (f"{end:.2f}" for end in ends)
    return low if low == high else f"{low} to {high}"
