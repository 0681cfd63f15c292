"""A table as CSV for machines: the paper's columns first, 12 digits, `–` where absent.

The paper's columns are followed, for each of them, by `n`, `n reference`, `low` and `high`; then
`published`, if the paper has values to compare with, and `difference` (measured less published), if
both are of the same protocol. The last column, `Notes`, has the reasons for the row's dashes.
`pandas.read_csv(path, na_values="–")` reads it. The records have all digits; the CSV leaves out
those that differ between processors in sums and correlations. A name that a spreadsheet would run
as a formula has an apostrophe before it.
"""

from collections.abc import Iterable

from workflow_scripts.common.csv_cells import csv_text
from workflow_scripts.tables.assemble import Cell, Table, by_reason
from workflow_scripts.tables.render.grid import grid_of

DASH = "–"
_DIGITS = 12


def to_csv(table: Table) -> str:
    """Render a table as CSV."""
    grid = grid_of(table)
    attributes = [head.text for head in grid.heads if head.kind == "attribute"]
    corner = "Model" if grid.transposed else table.layout.row_header
    block = [] if grid.transposed else ["Block"]
    heads = grid.value_heads
    rows = [[corner, *attributes, *heads, *_extra_headers(heads, table), *block, "Notes"]]
    for line in grid.of_kind("values"):
        rows.append(
            [
                line.label.text,
                *(field.text for field in line.fields if field.kind == "attribute"),
                *(_number(cell.value, DASH) for cell in line.cells),
                *_extras(line.cells, table),
                *([] if grid.transposed else [line.block]),
                _reasons(zip(heads, line.cells, strict=True)),
            ]
        )
    return csv_text(rows)


def _extra_headers(headers: list[str], table: Table) -> list[str]:
    kinds = ["n", "n reference", "low", "high"]
    kinds += ["published"] if table.has_published else []
    kinds += ["difference"] if table.has_differences else []
    return [f"{header} [{kind}]" for header in headers for kind in kinds]


def _extras(cells: Iterable[Cell], table: Table) -> list[str]:
    fields = []
    for cell in cells:
        low, high = cell.interval or (None, None)
        fields += [_number(number) for number in (cell.n, cell.n_reference, low, high)]
        if table.has_published:
            fields.append(cell.published.text if cell.published else "")
        if table.has_differences:
            fields.append(_number(cell.difference))
    return fields


def _number(number: float | None, absent: str = "") -> str:
    if number is None:
        return absent
    return repr(number if isinstance(number, int) else float(f"{number:.{_DIGITS}g}"))


def _reasons(cells: Iterable[tuple[str, Cell]]) -> str:
    pairs = by_reason(cells).items()
    return "; ".join(f"{reason} ({', '.join(headers)})" for reason, headers in pairs)
