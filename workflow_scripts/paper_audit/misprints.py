"""The rows of Table 2 whose numbers do not stand under their headings.

All models order the pathologies nearly alike: rare ones have high FIDs. A row in another order is
misprinted, for no real difference between models is that large.
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
"""The fewest neighbouring numbers that are reported as moved together."""


@dataclass(frozen=True)
class RowOrder:
    """How the order of a row of Table 2 compares with that of the other rows.

    Attributes:
        row: its label.
        correlation: Spearman's correlation with the median of the other rows.
        repeated: numbers that are printed more than once in the row.
        moved: pathologies whose numbers stand, side by side, under other headings.
        under: those headings.
        rearranged: the row's numbers by pathology, in the order of the intact rows' mean.
        rearranged_correlation: Pearson's correlation of the rearranged numbers with that mean.
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
        """Whether the row's numbers do not stand under their headings."""
        return self.correlation < FEWEST


def row_orders(grid: Grid) -> list[RowOrder]:
    """Return how each row of Table 2 compares with the others."""
    numbers = np.array([[grid.number(row, c).value for c in grid.columns] for row in grid.rows])
    correlations = np.array(
        [
            stats.spearmanr(row, np.median(np.delete(numbers, i, axis=0), axis=0)).statistic
            for i, row in enumerate(numbers)
        ]
    )
    orders = []
    for i, row in enumerate(grid.rows):
        reference = correlations >= FEWEST
        reference[i] = False
        expected = numbers[reference].mean(axis=0)
        # The k-th smallest number of the row belongs to the pathology with the k-th smallest mean.
        belongs_to = np.empty(len(expected), int)
        belongs_to[np.argsort(numbers[i], kind="stable")] = np.argsort(expected, kind="stable")
        position = np.argsort(belongs_to)
        texts = [grid.text(row, column) for column in grid.columns]
        counts = Counter(texts)
        unique = np.array([counts[text] == 1 for text in texts])
        moved, under = _moved(belongs_to, unique, grid.columns)
        orders.append(
            RowOrder(
                row,
                float(correlations[i]),
                tuple(text for text, count in counts.items() if count > 1),
                moved,
                under,
                {c: texts[j] for c, j in zip(grid.columns, position, strict=True)},
                float(np.corrcoef(numbers[i][position], expected)[0, 1]),
            )
        )
    return orders


def _moved(
    belongs_to: np.ndarray, unique: np.ndarray, columns: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the longest run of neighbouring numbers that belong under other headings.

    All numbers of a run are moved by the same number of columns. A number that is printed twice
    has no place of its own, and ends a run.

    Args:
        belongs_to: the column to which the number in each column belongs.
        unique: whether the number in each column is printed once.
        columns: the headings.

    Returns:
        The pathologies that the numbers belong to, and the headings under which they stand.
    """
    shifts = np.where(unique, belongs_to - np.arange(len(belongs_to)), 0)
    longest = (0, 0)
    start = 0
    for end in range(1, len(shifts) + 1):
        if end < len(shifts) and shifts[end] == shifts[start] != 0:
            continue
        if shifts[start] != 0 and end - start >= max(RUN, longest[1] - longest[0] + 1):
            longest = (start, end)
        start = end
    run = range(*longest)
    return tuple(columns[belongs_to[j]] for j in run), tuple(columns[j] for j in run)


def misprinted_rows(paper: Paper) -> list[str]:
    """Return the labels of Table 2's misprinted rows."""
    return [order.row for order in row_orders(paper["2"]) if order.misprinted]


def misprint_items(paper: Paper) -> list[Item]:
    """Return the items on Table 2's rows: which are misprinted, and what of them is not known."""
    grid = paper["2"]
    orders = row_orders(grid)
    intact = [order for order in orders if not order.misprinted]
    lowest = min((order.correlation for order in intact), default=float("nan"))
    with_repeats = [order for order in intact if order.repeated]
    items = [
        stated(
            "table2-intact",
            "Table 2",
            "numbers stand under their headings",
            "Spearman's correlation of each row with the median of the others; repeated numbers",
            not with_repeats,
            f"{len(intact)} of {len(orders)} rows: {lowest:.2f} or more, "
            f"{len(with_repeats)} of them with a repeated number",
            numbers=len(intact) * len(grid.columns),
        )
    ]
    for order in orders:
        if order.misprinted:
            items += [_misprint(order, lowest, grid), _repair(order)]
    return items


def _misprint(order: RowOrder, lowest: float, grid: Grid) -> Item:
    signs = [f"Spearman's {order.correlation:.2f} (other rows {lowest:.2f} or more)"]
    if order.repeated:
        places = [
            f"{text} ({', '.join(c for c in grid.columns if grid.text(order.row, c) == text)})"
            for text in order.repeated
        ]
        signs.append(f"printed twice: {', '.join(places)}")
    if order.moved:
        values = ", ".join(grid.text(order.row, column) for column in order.under)
        signs.append(
            f"{values} under {', '.join(order.under)} fit {', '.join(order.moved)} in that order"
        )
    return stated(
        f"table2-misprint-{_key(order.row)}",
        f"Table 2, row {order.row}",
        "numbers stand under their headings",
        f"Spearman's correlation with the median of the other rows is {FEWEST} or more; repeated "
        "numbers; the order of the numbers against that of the intact rows' mean",
        not order.misprinted,
        "; ".join(signs),
        numbers=len(grid.columns),
    )


def _repair(order: RowOrder) -> Item:
    return unchecked(
        f"table2-repair-{_key(order.row)}",
        f"Table 2, row {order.row}",
        "which number belongs to which pathology",
        f"{len(order.repeated)} number(s) are printed twice, so as many are missing; numbers that "
        "are close to each other may be swapped",
        len(order.rearranged),
        "in the order of the other rows, Pearson's correlation with their mean is "
        f"{order.rearranged_correlation:.3f}: "
        + ", ".join(f"{c} {text}" for c, text in order.rearranged.items()),
    )


def _key(row: str) -> str:
    return row.lower().replace(" ", "-").replace(".", "-")
