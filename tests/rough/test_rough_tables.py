"""Tables as they come, and as they leave: odd ids, odd cells, odd labels, names that are formulas.

A row is an input and what becomes of it.
"""

import csv

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.common.csv_cells import csv_text, plain_cell, safe_cell, safe_frame

CELLS = [
    # a cell, what is written
    ("=1+1", "'=1+1"),
    ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
    ("+1+1", "'+1+1"),
    ("-1+1", "'-1+1"),
    ("@SUM(A1)", "'@SUM(A1)"),
    ("  =1", "'  =1"),
    ("\t=1", "'\t=1"),
    ("\r=1", "'\r=1"),
    ("＝1+1", "'＝1+1"),
    ("-baseline", "'-baseline"),
    ("+ours", "'+ours"),
    ("==", "'=="),
    ("-0.5", "-0.5"),
    ("+0.5", "+0.5"),
    ("-1e-05", "-1e-05"),
    ("-1,234.5", "-1,234.5"),
    ("-.5", "-.5"),
    ("-12%", "-12%"),
    ("-inf", "-inf"),
    ("-", "-"),
    ("–", "–"),
    ("", ""),
    ("SD V1-4", "SD V1-4"),
    ("a=b", "a=b"),
    ("'quoted'", "'quoted'"),
    (-0.5, -0.5),
    (7, 7),
    (None, None),
]


@pytest.mark.parametrize(("cell", "written"), CELLS)
def test_no_cell_is_a_formula_and_numbers_stay_numbers(cell, written):
    assert safe_cell(cell) == written
    if isinstance(cell, str):
        assert plain_cell(written) == cell


@given(st.text())
def test_what_was_made_safe_is_read_back(text):
    written = safe_cell(text)
    assert isinstance(written, str)
    assert written.strip()[:1] not in ("=", "@") or len(written.strip()) == 1
    assert plain_cell(written) == text or (text.startswith("'") and written == text)


def test_rows_are_read_back_as_written():
    rows = [["Model", "FID"], ['=SD; "new"\nline', -0.5], ["–", None]]
    read = list(csv.reader(csv_text(rows).splitlines(keepends=True), strict=True))
    assert read == [["Model", "FID"], ['\'=SD; "new"\nline', "-0.5"], ["–", ""]]


def test_a_table_keeps_its_numbers_and_their_kinds():
    limits = pd.array([77, None], "Int64")
    frame = pd.DataFrame(
        {"set": ["=a", "b"], "limit": limits, "x": [-0.5, 2.0], "own": [True, False]}
    )
    assert safe_frame(frame).to_csv(index=False) == (
        "set,limit,x,own\n'=a,77,-0.5,True\nb,,2.0,False\n"
    )
