"""FID per pathology: Table 2 and Section 3.1."""

from collections.abc import Sequence
from typing import Final

from workflow_scripts.paper_audit.items import Item, compared, stated
from workflow_scripts.paper_audit.misprints import misprint_items, misprinted_rows
from workflow_scripts.paper_audit.model_names import EARLIER, listed, model_key
from workflow_scripts.paper_audit.orders import ranked
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed
from workflow_scripts.paper_audit.yardstick import (
    Truth,
    below,
    every,
    has_place,
    is_side,
    mean_of,
    most,
    number_is,
    often,
    side_of_median,
)

_QUOTED: Final = {("LLM-CXR", "Edema"): "83.18", ("LLM-CXR", "NF"): "64.62"}
"""FIDs of LLM-CXR in Section 3.1."""

_SANA_RANGE: Final = {"NF": "44.60", "PO": "199.45"}
"""Sana's lowest and highest FID in Section 3.1."""

_SANA_FIRST: Final = 12
"""Pathologies in which Sana has the lowest FID, in Section 3.1."""

_LARGER: Final = ("SD V3.5 Medium", "Lumina 2.0", "Flux.1-Dev")


def pathology_items(paper: Paper) -> list[Item]:
    """Return the claims that follow from Table 2."""
    grid, broken = paper["2"], misprinted_rows(paper)
    return [
        *misprint_items(paper),
        *_sana_first(grid, broken),
        *_other_models(grid),
        *_sana_and_hardest(grid),
        *_no_finding_and_pleural_other(grid, broken),
    ]


def column_of(grid: Grid, column: str, rows: Sequence[str]) -> dict[str, Printed]:
    """Return the numbers of some rows in a column, by row."""
    return {row: grid.number(row, column) for row in rows}


def _row(grid: Grid, row: str) -> dict[str, Printed]:
    return {column: grid.number(row, column) for column in grid.columns}


def _ranks(grid: Grid, model: str, rows: Sequence[str]) -> dict[str, int]:
    """Return a model's rank among some rows in each pathology; 1 is the lowest FID."""
    return {c: ranked(column_of(grid, c, rows), lower=True)[model] for c in grid.columns}


def _has_rank(grid: Grid, model: str, rank: int, rows: Sequence[str]) -> list[Truth]:
    """Return for each pathology whether a model has a rank among some rows."""
    return [has_place(column_of(grid, c, rows), model, True, rank) for c in grid.columns]


def _sana_first(grid: Grid, broken: Sequence[str]) -> list[Item]:
    intact = [row for row in grid.rows if row not in broken]
    claim = f"Sana has the lowest FID in {_SANA_FIRST} of 14 pathologies"

    def without(left_out: str) -> list[str]:
        return [row for row in grid.rows if row != left_out]

    def firsts(rows: Sequence[str]) -> int:
        return list(_ranks(grid, "Sana", rows).values()).count(1)

    def beaten(rows: Sequence[str]) -> str:
        losses = [
            f"{c} by {min(rows, key=lambda row: grid.number(row, c).exact)}"
            for c, rank in _ranks(grid, "Sana", rows).items()
            if rank > 1
        ]
        return f"{firsts(rows)} of {len(grid.columns)}; beaten in {listed(losses)}"

    as_claimed = [r for r in without("Sana") if firsts(without(r)) == _SANA_FIRST]
    return [
        stated(
            "text-sana-first",
            "Section 3.1",
            claim,
            "ranks of Table 2's columns, as printed",
            number_is(_has_rank(grid, "Sana", 1, grid.rows), _SANA_FIRST),
            beaten(grid.rows),
            note=f"{_SANA_FIRST} when one model is left out: {listed(as_claimed)}",
        ),
        stated(
            "text-sana-first-intact",
            "Section 3.1",
            claim,
            "ranks of Table 2's columns, without the misprinted rows",
            number_is(
                # Where Sana leads the intact rows, a misprinted row may still hold a lower FID.
                [
                    None if first and broken else first
                    for first in _has_rank(grid, "Sana", 1, intact)
                ],
                _SANA_FIRST,
            ),
            beaten(intact),
            reason=f"the true numbers of {' and '.join(broken)} are not known",
        ),
    ]


def _other_models(grid: Grid) -> list[Item]:
    means = {row: mean_of(_row(grid, row).values()) for row in grid.rows}
    pixart = means.pop("Pixart Sigma")
    lower = [below(mean, pixart) for mean in means.values()]
    mean_rank = 1 + sum(mean.value < pixart.value for mean in means.values())
    second = list(_ranks(grid, "Pixart Sigma", grid.rows).values()).count(2)
    third = _has_rank(grid, "RadEdit", 3, grid.rows)
    llm_cxr = _row(grid, "LLM-CXR")
    earlier = [row for row in grid.rows if model_key(row) in EARLIER]
    wins = {
        name: [every(below(llm_cxr[c], grid.number(row, c)) for row in rows) for c in grid.columns]
        for name, rows in (("earlier", earlier), ("larger", _LARGER))
    }
    n = len(grid.columns)
    return [
        stated(
            "text-pixart-second-pathologies",
            "Section 3.1",
            "Pixart Sigma is second best over pathologies",
            "mean of each row of Table 2; ranks of its columns",
            number_is(lower, 1),
            f"mean rank {mean_rank}; second in {second} of {n}",
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
            {" ".join(cell): (text, grid.number(*cell)) for cell, text in _QUOTED.items()},
        ),
        stated(
            "text-llm-cxr-beats",
            "Section 3.1",
            "LLM-CXR often beats earlier Stable Diffusion and SD V3-5, Lumina, Flux",
            "Table 2: pathologies in which it beats all models of a group",
            every(often(won) for won in wins.values()),
            ", ".join(f"{name}: {won.count(True)} of {n}" for name, won in wins.items()),
            numbers=2,
        ),
    ]


def _sana_and_hardest(grid: Grid) -> list[Item]:
    sana = sorted(_row(grid, "Sana").values(), key=lambda number: number.exact)
    means = {c: mean_of(column_of(grid, c, grid.rows).values()) for c in grid.columns}
    pleural_other = means.pop("PO")
    return [
        compared(
            "text-sana-range",
            "Section 3.1",
            "Sana's FID goes from 44.60 (NF) to 199.45 (PO)",
            "lowest and highest of Sana's row of Table 2",
            {"NF": (_SANA_RANGE["NF"], sana[0]), "PO": (_SANA_RANGE["PO"], sana[-1])},
        ),
        stated(
            "table2-hardest",
            "Table 2, caption",
            "the hardest pathology by mean FID over models is PO",
            "means of Table 2's columns",
            every(below(mean, pleural_other) for mean in means.values()),
            f"PO {float(pleural_other.value):.2f}, next "
            f"{float(max(mean.value for mean in means.values())):.2f}",
        ),
    ]


def _no_finding_and_pleural_other(grid: Grid, broken: Sequence[str]) -> list[Item]:
    n = len(grid.rows)
    rows = {row: _row(grid, row) for row in grid.rows}
    best_on_nf = {
        row: every(below(fids["NF"], fid) for c, fid in fids.items() if c != "NF")
        for row, fids in rows.items()
    }
    names = [row for row, best in best_on_nf.items() if best]
    sides = [side_of_median(fids, "PO", lower=True) for fids in rows.values()]
    not_highest = [
        row
        for row, fids in rows.items()
        if fids["PO"].exact < max(fid.exact for fid in fids.values())
    ]
    return [
        stated(
            "text-five-of-eleven",
            "Section 3.1",
            "5 of the 11 models are best on NF",
            "lowest FID of each row of Table 2, as printed",
            every([number_is(best_on_nf.values(), 5), n == 11]),
            f"{len(names)} of {n}: {', '.join(names)}",
            note=f"{sum(row != 'LLM-CXR' for row in names)} of the ten models whose means are "
            f"Table 9's averages; not known for the misprinted rows ({listed(broken)})",
        ),
        stated(
            "text-all-poor-on-po",
            "Section 3.1",
            "all models do poorly on PO",
            "PO in each row of Table 2 against the median of the row's fourteen FIDs",
            every(is_side(side, "low") for side in sides),
            f"worse than the median for {sides.count('low')} of {n}",
            numbers=n,
            note=f"the highest FID of the row for {n - len(not_highest)} of {n}, not for "
            f"{listed(not_highest)}",
        ),
        stated(
            "text-po-low-fid",
            "Section 3.3",
            "most models have low FIDs on Pleural Other",
            "PO in each row of Table 2 against the median of the row's fourteen FIDs",
            most(is_side(side, "high") for side in sides),
            f"lower than the median for {sides.count('high')} of {n}",
            numbers=n,
            note="low fidelity is probably meant",
        ),
    ]
