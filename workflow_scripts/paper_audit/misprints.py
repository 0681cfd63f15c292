"""The rows of Table 2 whose numbers do not stand under their headings.

The models order the pathologies nearly alike: rare ones have high FIDs for all. A row that does
not follow that order, as no real difference between models could make it, is misprinted.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from workflow_scripts.paper_audit.items import Item, stated, unchecked
from workflow_scripts.paper_audit.printed import Grid, Paper

FEWEST: Final = 0.5
"""Spearman's correlation with the other rows below which a row is misprinted."""

RUN: Final = 3
"""Neighbouring numbers that must be moved together to be called moved."""


@dataclass(frozen=True)
class RowOrder:
    """How a row of Table 2 follows the others.

    Attributes:
        row: its label.
        correlation: Spearman's, with the median of the other rows.
        repeated: numbers that stand in it more than once, as printed.
        moved: pathologies whose numbers stand together under other headings.
        under: those headings.
        rearranged: its numbers, put in the order of the intact rows' mean, by pathology.
        rearranged_correlation: Pearson's, of these with that mean.
    """

    row: str
    correlation: float
    repeated: tuple[str, ...]
    moved: tuple[str, ...]
    under: tuple[str, ...]
    rearranged: dict[str, str]
    rearranged_correlation: float

    @property
    def misprinted(self) -> bool:
        """Whether its numbers do not stand under their headings."""
        return self.correlation < FEWEST


def row_orders(grid: Grid) -> list[RowOrder]:
    """Return how each row of Table 2 follows the others."""
    numbers = np.array([[grid.number(row, c).value for c in grid.columns] for row in grid.rows])
    rest = [np.delete(numbers, i, axis=0) for i in range(len(numbers))]
    follow = [
        float(stats.spearmanr(own, np.median(others, axis=0)).statistic)
        for own, others in zip(numbers, rest, strict=True)
    ]
    intact = np.array(follow) >= FEWEST
    columns = list(enumerate(grid.columns))
    orders = []
    for i, row in enumerate(grid.rows):
        others = intact.copy()
        others[i] = False
        expected = numbers[others].mean(axis=0)
        # The k-th smallest of the row's numbers belongs to the k-th smallest that is expected.
        belongs = np.empty(len(expected), int)
        belongs[np.argsort(numbers[i], kind="stable")] = np.argsort(expected, kind="stable")
        sorted_alike = np.empty(len(expected))
        sorted_alike[belongs] = numbers[i]
        texts = Counter(grid.text(row, column) for column in grid.columns)
        once = [texts[grid.text(row, column)] == 1 for column in grid.columns]
        moved, under = _moved(belongs, np.array(once), grid.columns)
        orders.append(
            RowOrder(
                row,
                follow[i],
                tuple(text for text, times in texts.items() if times > 1),
                moved,
                under,
                {c: grid.text(row, grid.columns[list(belongs).index(j)]) for j, c in columns},
                float(np.corrcoef(sorted_alike, expected)[0, 1]),
            )
        )
    return orders


def _moved(
    belongs: np.ndarray, once: np.ndarray, columns: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the longest run of neighbours that belong together under other headings.

    A number that stands twice has no place of its own, and breaks a run.
    """
    shifts = np.where(once, belongs - np.arange(len(belongs)), 0)
    best = (0, 0)
    start = 0
    for end in range(1, len(shifts) + 1):
        if end < len(shifts) and shifts[end] == shifts[start] != 0:
            continue
        if shifts[start] != 0 and end - start >= max(RUN, best[1] - best[0] + 1):
            best = (start, end)
        start = end
    run = range(*best)
    return tuple(columns[belongs[j]] for j in run), tuple(columns[j] for j in run)


def misprinted_rows(paper: Paper) -> list[str]:
    """Return the labels of Table 2's misprinted rows."""
    return [order.row for order in row_orders(paper["2"]) if order.misprinted]


def misprint_items(paper: Paper) -> list[Item]:
    """Return what is wrong with rows of Table 2, and what cannot be known of them."""
    grid = paper["2"]
    orders = row_orders(grid)
    intact = [order for order in orders if not order.misprinted]
    broken = [order for order in orders if order.misprinted]
    lowest = min((order.correlation for order in intact), default=float("nan"))
    twice = [order for order in intact if order.repeated]
    items = [
        stated(
            "table2-intact",
            "Table 2",
            "numbers stand under their headings",
            "Spearman's correlation of each row with the median of the others; repeated numbers",
            not twice,
            f"{len(intact)} of {len(orders)} rows: {lowest:.2f} or more, "
            f"{len(twice)} of them with a repeated number",
            len(intact) * len(grid.columns),
        )
    ]
    for order in broken:
        items.append(_broken(order, lowest, grid))
        items.append(
            unchecked(
                f"table2-repair-{_key(order.row)}",
                f"Table 2, row {order.row}",
                "which number is whose",
                f"{len(order.repeated)} number(s) stand twice, so as many are lost; of the others, "
                "those that lie close can be swapped",
                len(grid.columns),
                "put in the other rows' order, Pearson's correlation with their mean is "
                f"{order.rearranged_correlation:.3f}: "
                + ", ".join(f"{c} {text}" for c, text in order.rearranged.items()),
            )
        )
    return items


def _broken(order: RowOrder, lowest: float, grid: Grid) -> Item:
    found = [f"Spearman's {order.correlation:.2f} (other rows {lowest:.2f} or more)"]
    if order.repeated:
        found.append(f"printed twice: {', '.join(_places(order, grid))}")
    if order.moved:
        values = ", ".join(grid.text(order.row, column) for column in order.under)
        found.append(
            f"{values} under {', '.join(order.under)} fit {', '.join(order.moved)} in that order"
        )
    return stated(
        f"table2-misprint-{_key(order.row)}",
        f"Table 2, row {order.row}",
        "numbers stand under their headings",
        f"Spearman's correlation with the median of the other rows is {FEWEST} or more; repeated "
        "numbers; the order of the numbers against that of the intact rows' mean",
        not order.misprinted,
        "; ".join(found),
        len(grid.columns),
    )


def _places(order: RowOrder, grid: Grid) -> list[str]:
    """Return each repeated number with the headings under which it stands."""
    return [
        f"{text} ({', '.join(c for c in grid.columns if grid.text(order.row, c) == text)})"
        for text in order.repeated
    ]


def _key(row: str) -> str:
    return row.lower().replace(" ", "-").replace(".", "-")
