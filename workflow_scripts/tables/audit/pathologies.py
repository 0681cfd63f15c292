"""FID per pathology: Table 2 and Section 3.1."""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Final

import numpy as np

from workflow_scripts.tables.audit.items import (
    Item,
    compared,
    exactly,
    mean_of,
    stated,
)
from workflow_scripts.tables.audit.misprints import misprint_items, misprinted_rows
from workflow_scripts.tables.audit.models import EARLIER, ranked, values
from workflow_scripts.tables.audit.printed import Grid, Paper, Printed, printed
from workflow_scripts.tables.published import model_key

_QUOTED: Final = {("LLM-CXR", "Edema"): "83.18", ("LLM-CXR", "NF"): "64.62"}
_RANGE: Final = {"NF": "44.60", "PO": "199.45"}
"""FIDs that Section 3.1 quotes of LLM-CXR, and Sana's range."""

_SANA_FIRST: Final = 12


def pathology_items(paper: Paper) -> list[Item]:
    """Return what follows from Table 2."""
    grid, broken = paper["2"], misprinted_rows(paper)
    return [
        *misprint_items(paper),
        *_best(grid, broken),
        *_models(grid),
        *_hardest(grid, broken),
    ]


def column_of(grid: Grid, column: str, rows: Sequence[str]) -> dict[str, Printed]:
    """Return the numbers of some rows in a column, by row."""
    return {row: grid.number(row, column) for row in rows}


def _row(grid: Grid, row: str) -> dict[str, Printed]:
    return {column: grid.number(row, column) for column in grid.columns}


def _places(grid: Grid, model: str, rows: Sequence[str]) -> list[int]:
    """Return a model's rank in each pathology among some rows; 1 is the lowest FID."""
    return [ranked(column_of(grid, c, rows), lower=True)[model] for c in grid.columns]


def _best(grid: Grid, broken: Sequence[str]) -> list[Item]:
    intact = [row for row in grid.rows if row not in broken]
    twelve = [
        out
        for out in grid.rows
        if out != "Sana" and _firsts(grid, [row for row in grid.rows if row != out]) == _SANA_FIRST
    ]
    items = []
    for key, rows, which in (
        ("text-sana-first", list(grid.rows), "as printed"),
        ("text-sana-first-intact", intact, "without the misprinted rows"),
    ):
        places = _places(grid, "Sana", rows)
        beaten = [
            f"{column} by {min(rows, key=partial(_exact, grid, column))}"
            for column, place in zip(grid.columns, places, strict=True)
            if place > 1
        ]
        note = f"{_SANA_FIRST} when one model is left out: {', '.join(twelve) or 'none'}"
        items.append(
            stated(
                key,
                "Section 3.1",
                f"Sana has the lowest FID in {_SANA_FIRST} of 14 pathologies",
                f"ranks of Table 2's columns, {which}",
                places.count(1) == _SANA_FIRST,
                f"{places.count(1)} of {len(places)}; beaten in {', '.join(beaten) or 'none'}",
                note=note if rows == list(grid.rows) else "",
            )
        )
    return items


def _exact(grid: Grid, column: str, row: str) -> Fraction:
    return grid.number(row, column).exact


def _firsts(grid: Grid, rows: Sequence[str]) -> int:
    """Return in how many pathologies Sana is first among some rows."""
    return _places(grid, "Sana", rows).count(1)


def _models(grid: Grid) -> list[Item]:
    means = {row: float(np.mean(list(values(_row(grid, row)).values()))) for row in grid.rows}
    order = sorted(means, key=lambda row: means[row])
    third = _places(grid, "RadEdit", grid.rows).count(3)
    second = _places(grid, "Pixart Sigma", grid.rows).count(2)
    llm = _row(grid, "LLM-CXR")
    larger = ("SD V3.5 Medium", "Lumina 2.0", "Flux.1-Dev")
    earlier = [row for row in grid.rows if model_key(row) in EARLIER]
    wins = {
        name: sum(
            llm[c].exact < min(grid.number(row, c).exact for row in rows) for c in grid.columns
        )
        for name, rows in (("earlier", earlier), ("larger", larger))
    }
    quoted = {
        f"{row} {column}": (printed(text), exactly(grid.number(row, column)))
        for (row, column), text in _QUOTED.items()
    }
    n = len(grid.columns)
    return [
        stated(
            "text-pixart-second-pathologies",
            "Section 3.1",
            "Pixart Sigma is second best over pathologies",
            "mean of each row of Table 2; ranks of its columns",
            order[1] == "Pixart Sigma",
            f"mean rank {order.index('Pixart Sigma') + 1}; second in {second} of {n}",
        ),
        stated(
            "text-radedit-third",
            "Section 3.1",
            "RadEdit is often third",
            "ranks of Table 2's columns",
            2 * third >= n,
            f"third in {third} of {n}",
        ),
        compared(
            "text-llm-cxr-quoted",
            "Section 3.1",
            "LLM-CXR: Edema 83.18, NF 64.62",
            "Table 2",
            quoted,
        ),
        stated(
            "text-llm-cxr-beats",
            "Section 3.1",
            "LLM-CXR often beats earlier Stable Diffusion and SD V3-5, Lumina, Flux",
            "Table 2: pathologies in which it beats all of a group",
            all(2 * won > n for won in wins.values()),
            ", ".join(f"{name}: {won} of {n}" for name, won in wins.items()),
            2,
        ),
    ]


def _hardest(grid: Grid, broken: Sequence[str]) -> list[Item]:
    n = len(grid.rows)
    sana = _row(grid, "Sana")
    ends = {
        "NF": (printed(_RANGE["NF"]), exactly(min(sana.values(), key=lambda p: p.exact))),
        "PO": (printed(_RANGE["PO"]), exactly(max(sana.values(), key=lambda p: p.exact))),
    }
    means = {c: mean_of(list(column_of(grid, c, grid.rows).values())).value for c in grid.columns}
    lowest = {row: min(grid.columns, key=lambda c: grid.number(row, c).exact) for row in grid.rows}
    on_nf = [row for row, column in lowest.items() if column == "NF"]
    worst = [r for r in grid.rows if grid.number(r, "PO") == _highest(grid, r)]
    intact = [row for row in grid.rows if row not in broken]
    otherwise = ", ".join(row for row in grid.rows if row not in worst) or "none"
    return [
        compared(
            "text-sana-range",
            "Section 3.1",
            "Sana's FID goes from 44.60 (NF) to 199.45 (PO)",
            "lowest and highest of Sana's row of Table 2",
            ends,
        ),
        stated(
            "table2-hardest",
            "Table 2, caption",
            "the hardest pathology by mean FID over models is PO",
            "means of Table 2's columns",
            max(means, key=lambda c: means[c]) == "PO",
            f"PO {float(means['PO']):.2f}, next {float(sorted(means.values())[-2]):.2f}",
        ),
        stated(
            "text-five-of-eleven",
            "Section 3.1",
            "5 of the 11 models are best on NF",
            "lowest FID of each row of Table 2, as printed",
            len(on_nf) == 5 and n == 11,
            f"{len(on_nf)} of {n}: {', '.join(on_nf)}",
            note=f"{sum(row != 'LLM-CXR' for row in on_nf)} of the ten models that Table 9's "
            "averages rest on; of misprinted rows it is not known",
        ),
        stated(
            "text-all-poor-on-po",
            "Section 3.1",
            "all models do poorly on PO",
            "highest FID of each intact row of Table 2",
            set(intact) <= set(worst),
            f"PO in {sum(row in worst for row in intact)} of {len(intact)}",
            len(intact),
            f"as printed in {len(worst)} of {n}, not in {otherwise}",
        ),
    ]


def _highest(grid: Grid, row: str) -> Printed:
    return max(_row(grid, row).values(), key=lambda p: p.exact)
