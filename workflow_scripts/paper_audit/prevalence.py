"""FID and prevalence of pathologies: Table 9, Sections 3.1 and A.3."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

from workflow_scripts.paper_audit.items import Item, compared, stated, unchecked
from workflow_scripts.paper_audit.misprints import misprinted_rows
from workflow_scripts.paper_audit.model_names import model_key
from workflow_scripts.paper_audit.models import Correlation, pearson, ranked, values
from workflow_scripts.paper_audit.pathologies import column_of
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed
from workflow_scripts.paper_audit.yardstick import (
    Exact,
    Truth,
    agrees,
    every,
    exactly,
    has_place,
    mean_of,
)

_CODES: Final = {
    "NF": "NF",
    "SD": "SD",
    "PE": "PE",
    "LO": "LO",
    "AT": "Atelectasis",
    "CM": "Cardiomegaly",
    "ED": "Edema",
    "PN": "PN",
    "CD": "Consolid.",
    "PT": "PT",
    "EC": "EC",
    "LL": "LL",
    "Frac.": "Fracture",
    "PO": "PO",
}
"""Table 9's pathology codes and Table 2's headings."""

_FREQUENT: Final = ("NF", "PE", "SD", "LO")
_RARE: Final = ("Frac.", "PO")
"""The most and the least frequent pathologies, as Section A.3 names them."""

_MOST_PREVALENT: Final = ("AT", "CM", "SD")
"""What Section 3.3 calls the most prevalent pathologies."""

_CORRELATION: Final = "0.947"
_MOST_LEFT_OUT: Final = 2
"""Models that may be left out when the rows behind Table 9's averages are looked for."""


def prevalence_items(paper: Paper) -> list[Item]:
    """Return what follows for Table 9."""
    grid, broken = paper["2"], misprinted_rows(paper)
    return [
        *_prevalence(paper["9"]),
        *_averages(grid, paper["9"], broken),
        *_correlations(grid, paper["9"], broken),
    ]


def _prevalence(grid: Grid) -> list[Item]:
    counts = {code: grid.number(code, "Count (n)") for code in grid.rows}
    by_count = ranked(counts, lower=False)
    fids = {code: grid.number(code, "FID (RadDino)") for code in grid.rows}
    by_fid = ranked(fids, lower=True)
    return [
        compared(
            "table9-prevalence-rank",
            "Table 9",
            "Prevalence Rank",
            "rank of Count (n), highest first",
            {c: (grid.number(c, "Prevalence Rank"), exactly(by_count[c])) for c in grid.rows},
        ),
        compared(
            "table9-fidelity-rank",
            "Table 9",
            "Fidelity Rank",
            "rank of FID (RadDino) in Table 9, lowest first",
            {c: (grid.number(c, "Fidelity Rank"), exactly(by_fid[c])) for c in grid.rows},
        ),
        stated(
            "text-frequent-and-rare",
            "Section A.3",
            "NF, PE, SD, LO are the most frequent; Fracture and PO far rarer",
            "ranks of Table 9's counts",
            every(
                [
                    *(has_place(counts, c, False, 1, len(_FREQUENT)) for c in _FREQUENT),
                    *(has_place(counts, c, True, 1, len(_RARE)) for c in _RARE),
                ]
            ),
            ", ".join(f"{c} {by_count[c]}" for c in (*_FREQUENT, *_RARE)),
            len(_FREQUENT) + len(_RARE),
        ),
        stated(
            "text-most-prevalent",
            "Section 3.3",
            "the most prevalent pathologies are such as Atelectasis, Cardiomegaly, Support Devices",
            "ranks of Table 9's counts: the three that are named against the three highest",
            every(has_place(counts, c, False, 1, len(_MOST_PREVALENT)) for c in _MOST_PREVALENT),
            ", ".join(f"{c} {by_count[c]} of {len(by_count)}" for c in _MOST_PREVALENT),
            len(_MOST_PREVALENT),
            f"Section A.3 calls {', '.join(_FREQUENT)} the most frequent",
        ),
    ]


def _means(grid: Grid, rows: Sequence[str]) -> dict[str, Exact]:
    """Return the mean FID of some of Table 2's rows, by Table 9's code."""
    return {code: mean_of(list(column_of(grid, c, rows).values())) for code, c in _CODES.items()}


def _averages(grid: Grid, table9: Grid, broken: Sequence[str]) -> list[Item]:
    fids = {code: table9.number(code, "FID (RadDino)") for code in table9.rows}

    def pairs(rows: Sequence[str]) -> dict[str, tuple[Printed, Exact]]:
        found = _means(grid, rows)
        return {code: (fid, found[code]) for code, fid in fids.items()}

    intact = [row for row in grid.rows if row not in broken]
    left_out = [
        out
        for k in range(_MOST_LEFT_OUT + 1)
        for out in combinations(grid.rows, k)
        if _fitting(pairs([row for row in grid.rows if row not in out])) == len(fids)
    ]
    items = [
        compared(
            "table9-average-all",
            "Table 9",
            "FID (RadDino), across models from Table 2",
            "mean of Table 2's columns over all eleven models",
            pairs(grid.rows),
            f"without the misprinted rows {_fitting(pairs(intact))} of {len(fids)} would agree",
        ),
    ]
    for out in left_out:
        rows = [row for row in grid.rows if row not in out]
        items.append(
            compared(
                f"table9-average-without-{'-'.join(map(model_key, out)) or 'none'}",
                "Table 9",
                "FID (RadDino)",
                f"the same over {len(rows)} models, without {', '.join(out) or 'none'}: of all "
                f"ways to leave out up to {_MOST_LEFT_OUT} models {len(left_out)} fit(s)",
                pairs(rows),
                f"with the misprinted rows as printed: {', '.join(broken)}"
                if broken and set(broken) <= set(rows)
                else "",
            )
        )
    if not left_out:
        items.append(
            unchecked(
                "table9-average-without",
                "Table 9",
                "FID (RadDino)",
                "the rows behind the averages are not known",
                len(fids),
                f"no means of Table 2's columns fit, up to {_MOST_LEFT_OUT} models left out",
            )
        )
    return items


def _fitting(pairs: Mapping[str, tuple[Printed, Exact]]) -> int:
    """Return how many printed numbers are the recomputed ones, at least when cut off."""
    return sum(agrees(*pair) for pair in pairs.values())


def _correlations(grid: Grid, table9: Grid, broken: Sequence[str]) -> list[Item]:
    prevalence = values({c: table9.number(c, "Prevalence Rank") for c in table9.rows})
    fidelity = values({c: table9.number(c, "Fidelity Rank") for c in table9.rows})
    intact = [row for row in grid.rows if row not in broken]
    means = _means(grid, intact)
    again = ranked({c: _as_printed(means[c]) for c in table9.rows}, lower=True)
    moved = [
        f"{c} {again[c]} (printed {int(fidelity[c])})" for c in again if again[c] != fidelity[c]
    ]
    found = pearson(prevalence, fidelity)
    found_intact = pearson(prevalence, {c: float(rank) for c, rank in again.items()})
    # Over other rows than the paper's it is another number, which cannot contradict the paper's.
    lost = f"what {' and '.join(broken)} hold is not known"
    agree = found_intact.text(3).split()[0] == _CORRELATION
    return [
        _correlation(
            "table9-correlation",
            f"rank correlation {_CORRELATION} of prevalence and fidelity",
            "Table 9's two ranks (no ties: Pearson's on ranks is Spearman's)",
            found,
            found.text(3).split()[0] == _CORRELATION,
            "positive in ranks from 1 for the most frequent and the most faithful: the rarer a "
            "finding, the higher its FID",
        ),
        stated(
            "table9-fidelity-rank-intact",
            "Table 9",
            "Fidelity Rank",
            "rank of the mean FID over Table 2's intact rows",
            None if moved and broken else not moved,
            f"{len(again) - len(moved)} of {len(again)} as printed; {', '.join(moved)}",
            len(again),
            reason=lost,
        ),
        _correlation(
            "table9-correlation-intact",
            f"rank correlation {_CORRELATION}",
            "Prevalence Rank and the rank of the mean FID over Table 2's intact rows",
            found_intact,
            None if broken and not agree else agree,
            "the misprinted rows weaken what the paper wants to show"
            if found_intact.value > found.value
            else "",
            lost,
        ),
    ]


def _correlation(
    key: str,
    claim: str,
    basis: str,
    found: Correlation,
    truth: Truth,
    note: str,
    reason: str = "",
) -> Item:
    where = "Sections 3.1 and A.3"
    return stated(key, where, claim, basis, truth, found.text(3), note=note, reason=reason)


def _as_printed(found: Exact) -> Printed:
    return Printed(f"{float(found.value)}", found.value, found.slack, 2)
