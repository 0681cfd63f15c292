"""FID per pathology: Table 2 and Section 3.1."""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Final

from workflow_scripts.paper_audit.items import Item, compared, stated
from workflow_scripts.paper_audit.misprints import misprint_items, misprinted_rows
from workflow_scripts.paper_audit.model_names import model_key
from workflow_scripts.paper_audit.models import EARLIER, ranked
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed, printed
from workflow_scripts.paper_audit.yardstick import (
    Truth,
    below,
    every,
    exactly,
    has_place,
    is_side,
    mean_of,
    most,
    number_is,
    often,
    side_of_median,
)

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
    claim = f"Sana has the lowest FID in {_SANA_FIRST} of 14 pathologies"

    def beaten(rows: Sequence[str]) -> str:
        places = zip(grid.columns, _places(grid, "Sana", rows), strict=True)
        lost = [f"{c} by {min(rows, key=partial(_exact, grid, c))}" for c, n in places if n > 1]
        return (
            f"{_firsts(grid, rows)} of {len(grid.columns)}; beaten in {', '.join(lost) or 'none'}"
        )

    return [
        stated(
            "text-sana-first",
            "Section 3.1",
            claim,
            "ranks of Table 2's columns, as printed",
            number_is(_first(grid, grid.rows), _SANA_FIRST),
            beaten(grid.rows),
            note=f"{_SANA_FIRST} when one model is left out: {', '.join(twelve) or 'none'}",
        ),
        stated(
            "text-sana-first-intact",
            "Section 3.1",
            claim,
            "ranks of Table 2's columns, without the misprinted rows",
            # A misprinted row may hold a lower FID wherever the intact rows leave Sana first.
            number_is(
                [None if first and broken else first for first in _first(grid, intact)],
                _SANA_FIRST,
            ),
            beaten(intact),
            reason=f"which numbers are {' and '.join(broken)}'s is not known",
        ),
    ]


def _first(grid: Grid, rows: Sequence[str]) -> list[Truth]:
    """Return for each pathology whether Sana has the lowest FID of some rows."""
    return [has_place(column_of(grid, c, rows), "Sana", True, 1) for c in grid.columns]


def _exact(grid: Grid, column: str, row: str) -> Fraction:
    return grid.number(row, column).exact


def _firsts(grid: Grid, rows: Sequence[str]) -> int:
    """Return in how many pathologies Sana is first among some rows."""
    return _places(grid, "Sana", rows).count(1)


def _models(grid: Grid) -> list[Item]:
    means = {row: mean_of(list(_row(grid, row).values())) for row in grid.rows}
    order = sorted(means, key=lambda row: means[row].value)
    others = [mean for row, mean in means.items() if row != "Pixart Sigma"]
    ahead = [below(mean, means["Pixart Sigma"]) for mean in others]
    third = [has_place(column_of(grid, c, grid.rows), "RadEdit", True, 3) for c in grid.columns]
    second = _places(grid, "Pixart Sigma", grid.rows).count(2)
    llm = _row(grid, "LLM-CXR")
    larger = ("SD V3.5 Medium", "Lumina 2.0", "Flux.1-Dev")
    earlier = [row for row in grid.rows if model_key(row) in EARLIER]
    wins = {
        name: [every(below(llm[c], grid.number(row, c)) for row in rows) for c in grid.columns]
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
            number_is(ahead, 1),
            f"mean rank {order.index('Pixart Sigma') + 1}; second in {second} of {n}",
        ),
        stated(
            "text-radedit-third",
            "Section 3.1",
            "RadEdit is often third",
            "ranks of Table 2's columns",
            often(third),
            f"third in {third.count(True)} of {n}",
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
            every(often(won) for won in wins.values()),
            ", ".join(f"{name}: {won.count(True)} of {n}" for name, won in wins.items()),
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
    means = {c: mean_of(list(column_of(grid, c, grid.rows).values())) for c in grid.columns}
    hardest = every(below(mean, means["PO"]) for c, mean in means.items() if c != "PO")
    on_nf = {
        row: every(
            below(grid.number(row, "NF"), grid.number(row, c)) for c in grid.columns if c != "NF"
        )
        for row in grid.rows
    }
    best_on_nf = [row for row, so in on_nf.items() if so]
    poor = {row: side_of_median(_row(grid, row), "PO", lower=True) for row in grid.rows}
    worst = [r for r in grid.rows if grid.number(r, "PO") == _highest(grid, r)]
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
            hardest,
            f"PO {float(means['PO'].value):.2f}, next "
            f"{float(max(mean.value for c, mean in means.items() if c != 'PO')):.2f}",
        ),
        stated(
            "text-five-of-eleven",
            "Section 3.1",
            "5 of the 11 models are best on NF",
            "lowest FID of each row of Table 2, as printed",
            every([number_is(on_nf.values(), 5), n == 11]),
            f"{len(best_on_nf)} of {n}: {', '.join(best_on_nf)}",
            note=f"{sum(row != 'LLM-CXR' for row in best_on_nf)} of the ten models that Table 9's "
            f"averages rest on; of the misprinted rows ({', '.join(broken) or 'none'}) it is not "
            "known",
        ),
        stated(
            "text-all-poor-on-po",
            "Section 3.1",
            "all models do poorly on PO",
            "PO in each row of Table 2 against the median of the row's fourteen FIDs",
            every(is_side(side, "low") for side in poor.values()),
            f"worse than the median for {list(poor.values()).count('low')} of {n}",
            n,
            f"the highest FID of all in {len(worst)} of {n}, not in {otherwise}",
        ),
        stated(
            "text-po-low-fid",
            "Section 3.3",
            "most models have low FIDs on Pleural Other",
            "PO in each row of Table 2 against the median of the row's fourteen FIDs",
            most(is_side(side, "high") for side in poor.values()),
            f"lower than the median for {list(poor.values()).count('high')} of {n}",
            n,
            "low fidelity is probably meant",
        ),
    ]


def _highest(grid: Grid, row: str) -> Printed:
    return max(_row(grid, row).values(), key=lambda p: p.exact)
