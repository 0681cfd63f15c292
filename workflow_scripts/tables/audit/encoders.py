"""FID and KID in the features of two encoders: Table 7 and Section A.1."""

from collections.abc import Mapping

import numpy as np

from workflow_scripts.tables.audit.fidelity import COLUMNS, LOWER
from workflow_scripts.tables.audit.items import Item, compared, exactly, stated
from workflow_scripts.tables.audit.models import NAMES, spearman, values
from workflow_scripts.tables.audit.printed import Paper, Printed, printed


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
    distinct = len({number.exact for number in dense.values()})
    rho, p = spearman(values(dense), values(rad))
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
            distinct < len(dense),
            f"{distinct} distinct values for {len(dense)} models, printed to three decimals",
        ),
        stated(
            "text-rad-dino-differentiates",
            "Table 7, caption, and Section A.1",
            "RadDino's FID differs far more between models than DenseNet's",
            "standard deviation over mean of Table 7's rows: FIDs of two encoders have no common "
            "scale, so only relative spreads compare",
            spread["RadDino"] > spread["DenseNet"],
            f"{spread['RadDino']:.2f} (RadDino) against {spread['DenseNet']:.2f} (DenseNet)",
            note=f"the two rank the models alike to Spearman's {rho:.2f} (p = {p:.2g}); in units "
            "of FID the ranges are as the caption says",
        ),
    ]


def _variation(numbers: Mapping[str, Printed]) -> float:
    """Return the standard deviation over the mean."""
    own = np.array(list(values(numbers).values()))
    return float(own.std(ddof=1) / own.mean())
