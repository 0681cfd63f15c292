"""FID and prevalence of pathologies: Table 9, Sections 3.1 and A.3."""

from collections.abc import Sequence
from itertools import combinations
from typing import Final

from workflow_scripts.paper_audit.items import Item, Pairs, compared, stated, unchecked
from workflow_scripts.paper_audit.misprints import misprinted_rows
from workflow_scripts.paper_audit.model_names import listed, model_key
from workflow_scripts.paper_audit.orders import Correlation, pearson, ranked, values
from workflow_scripts.paper_audit.pathologies import column_of
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed
from workflow_scripts.paper_audit.yardstick import (
    Bounded,
    Truth,
    agrees,
    every,
    has_place,
    mean_of,
)

_OTHER_HEADINGS: Final = {
    "AT": "Atelectasis",
    "CM": "Cardiomegaly",
    "ED": "Edema",
    "CD": "Consolid.",
    "Frac.": "Fracture",
}
"""Table 2's headings by Table 9's pathology codes, where the two differ."""

_FREQUENT: Final = ("NF", "PE", "SD", "LO")
_RARE: Final = ("Frac.", "PO")
"""The most and the least frequent pathologies in Section A.3."""

_MOST_PREVALENT: Final = ("AT", "CM", "SD")
"""The most prevalent pathologies in Section 3.3."""

_CORRELATION: Final = "0.947"
_MOST_LEFT_OUT: Final = 2
"""The most models that are left out in the search for the rows behind Table 9's averages."""


def prevalence_items(paper: Paper) -> list[Item]:
    """Return the claims that follow from Table 9."""
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
            {c: (grid.number(c, "Prevalence Rank"), by_count[c]) for c in grid.rows},
        ),
        compared(
            "table9-fidelity-rank",
            "Table 9",
            "Fidelity Rank",
            "rank of FID (RadDino) in Table 9, lowest first",
            {c: (grid.number(c, "Fidelity Rank"), by_fid[c]) for c in grid.rows},
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
            numbers=len(_FREQUENT) + len(_RARE),
        ),
        stated(
            "text-most-prevalent",
            "Section 3.3",
            "the most prevalent pathologies include Atelectasis, Cardiomegaly, Support Devices",
            "ranks of Table 9's counts: the three that are named against the three highest",
            every(has_place(counts, c, False, 1, len(_MOST_PREVALENT)) for c in _MOST_PREVALENT),
            ", ".join(f"{c} {by_count[c]} of {len(by_count)}" for c in _MOST_PREVALENT),
            numbers=len(_MOST_PREVALENT),
            note=f"Section A.3 calls {', '.join(_FREQUENT)} the most frequent",
        ),
    ]


def _means(grid: Grid, table9: Grid, rows: Sequence[str]) -> dict[str, Bounded]:
    """Return the mean FID of some of Table 2's rows, by Table 9's pathology code."""
    return {
        code: mean_of(column_of(grid, _OTHER_HEADINGS.get(code, code), rows).values())
        for code in table9.rows
    }


def _averages(grid: Grid, table9: Grid, broken: Sequence[str]) -> list[Item]:
    fids = {code: table9.number(code, "FID (RadDino)") for code in table9.rows}

    def without(left_out: Sequence[str]) -> list[str]:
        return [row for row in grid.rows if row not in left_out]

    def pairs(left_out: Sequence[str]) -> dict[str, tuple[Printed, Bounded]]:
        means = _means(grid, table9, without(left_out))
        return {code: (fid, means[code]) for code, fid in fids.items()}

    def fitting(left_out: Sequence[str]) -> int:
        """Return how many averages may be the means without some models."""
        return sum(agrees(*pair) for pair in pairs(left_out).values())

    def average(key: str, claim: str, basis: str, pairs: Pairs, note: str) -> Item:
        return compared(f"table9-average-{key}", "Table 9", claim, basis, pairs, note=note)

    explanations = [
        left_out
        for k in range(_MOST_LEFT_OUT + 1)
        for left_out in combinations(grid.rows, k)
        if fitting(left_out) == len(fids)
    ]
    items = [
        average(
            "all",
            "FID (RadDino), across models from Table 2",
            "mean of Table 2's columns over all eleven models",
            pairs([]),
            f"without the misprinted rows {fitting(broken)} of {len(fids)} would agree",
        ),
    ]
    items += [
        average(
            f"without-{'-'.join(map(model_key, left_out)) or 'none'}",
            "FID (RadDino)",
            f"the same over {len(without(left_out))} models, without {listed(left_out)}: of all "
            f"ways to leave out up to {_MOST_LEFT_OUT} models {len(explanations)} fit(s)",
            pairs(left_out),
            f"with the misprinted rows as printed: {', '.join(broken)}"
            if broken and not set(broken) & set(left_out)
            else "",
        )
        for left_out in explanations
    ]
    if not explanations:
        items.append(
            unchecked(
                "table9-average-without",
                "Table 9",
                "FID (RadDino)",
                "the rows behind the averages are not known",
                len(fids),
                f"no means of Table 2's columns fit with up to {_MOST_LEFT_OUT} models left out",
            )
        )
    return items


def _correlations(grid: Grid, table9: Grid, broken: Sequence[str]) -> list[Item]:
    prevalence = values({c: table9.number(c, "Prevalence Rank") for c in table9.rows})
    fidelity = values({c: table9.number(c, "Fidelity Rank") for c in table9.rows})
    means = _means(grid, table9, [row for row in grid.rows if row not in broken])
    intact_rank = ranked(means, lower=True)
    moved = [
        f"{c} {rank} (printed {int(fidelity[c])})"
        for c, rank in intact_rank.items()
        if rank != fidelity[c]
    ]
    as_printed, intact = pearson(prevalence, fidelity), pearson(prevalence, intact_rank)
    # Ranks over other rows than the paper's are other numbers: they cannot contradict it.
    not_known = f"the true numbers of {' and '.join(broken)} are not known"
    intact_agrees = _is_claimed(intact)
    return [
        stated(
            "table9-correlation",
            "Sections 3.1 and A.3",
            f"rank correlation {_CORRELATION} of prevalence and fidelity",
            "Table 9's two ranks (no ties: Pearson's on ranks is Spearman's)",
            _is_claimed(as_printed),
            as_printed.text(3),
            note="positive because rank 1 is the most frequent and the most faithful: the rarer a "
            "finding, the higher its FID",
        ),
        stated(
            "table9-fidelity-rank-intact",
            "Table 9",
            "Fidelity Rank",
            "rank of the mean FID over Table 2's intact rows",
            None if moved and broken else not moved,
            f"{len(means) - len(moved)} of {len(means)} as printed; {', '.join(moved)}",
            numbers=len(means),
            reason=not_known,
        ),
        stated(
            "table9-correlation-intact",
            "Sections 3.1 and A.3",
            f"rank correlation {_CORRELATION}",
            "Prevalence Rank and the rank of the mean FID over Table 2's intact rows",
            None if broken and not intact_agrees else intact_agrees,
            intact.text(3),
            note="the misprinted rows weaken the correlation that the paper claims"
            if intact.value > as_printed.value
            else "",
            reason=not_known,
        ),
    ]


def _is_claimed(correlation: Correlation) -> Truth:
    return f"{correlation.value:.3f}" == _CORRELATION
