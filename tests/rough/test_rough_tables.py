"""Tables that are read or written with odd ids, cells and labels, or names that are formulas.

A row is an input and its result.
"""

import csv
import gzip
import hashlib
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workflow_scripts.cohort.attrition import Attrition
from workflow_scripts.cohort.build_manifest import main
from workflow_scripts.cohort.checked_csv import read_csv
from workflow_scripts.cohort.identical import check_identical, identical_images
from workflow_scripts.cohort.texts import id_fault, is_missing
from workflow_scripts.common.csv_cells import csv_text, plain_cell, safe_cell, safe_frame
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import read_manifest

CELLS = [
    # a cell, its written form
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


@settings(max_examples=40)
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


# Ids


IDS = [
    # a column of ids, words of the fault (None for a valid one)
    (["P001", "P002", "P001"], None),
    (["1", "01", "10"], None),
    (["a-1", "a_1", "a.1"], None),
    (["Ann", "Anna"], None),
    (["Jos\u00e9", "Jose"], None),
    (["P001", "P001 "], "id 'P001 ' has blanks around it"),
    (["P001", " P002"], "id ' P002' has blanks around it"),
    (["P001", "P002\t"], "id 'P002\\t' has blanks around it"),
    (["P001\n", "P002"], "id 'P001\\n' has blanks around it"),
    (["P001", "P\u200b002"], "a character that nobody sees"),
    (["P001", "P\u00a0002"], "a character that nobody sees"),
    (["P001", "\ufeffP002"], "a character that nobody sees"),
    (["P001", "P\x00002"], "a character that nobody sees"),
    (["P001", "p001"], "id 'p001' and 'P001' differ only in blanks, case"),
    (["P 001", "P001"], "id 'P001' and 'P 001' differ only in blanks, case"),
    (["P  001", "P 001"], "id 'P 001' and 'P  001' differ only in blanks, case"),
    (["Stra\u00dfe", "STRASSE"], "differ only in blanks, case"),
    (["Jos\u00e9", "Jose\u0301"], "differ only in blanks, case or the form of their characters"),
    (["P001", "\uff30001"], "differ only in blanks, case or the form of their characters"),
    (["a", "A", "b", "B"], "(2 such ids)"),
    (["P001", "nan"], "id is 'nan', which names nobody"),
    (["P001", "NaN"], "id is 'NaN', which names nobody"),
    (["P001", "N/A"], "id is 'N/A', which names nobody"),
    (["NA", "P001"], "id is 'NA', which names nobody"),
    (["P001", "None"], "id is 'None', which names nobody"),
    (["P001", "NULL"], "id is 'NULL', which names nobody"),
    (["P001", "<NA>"], "id is '<NA>', which names nobody"),
    (["P001", "#N/A"], "id is '#N/A', which names nobody"),
    (["P001", " "], "id is ' ', which names nobody"),
]


@pytest.mark.parametrize(("ids", "said"), IDS)
def test_two_ways_to_write_an_id_are_refused(ids, said):
    fault = id_fault(pd.Series(ids, name="id"))
    assert (said is None and fault is None) or (fault and said in fault[0])


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1))
def test_ids_of_letters_are_refused_only_where_two_are_alike(ids):
    fault = id_fault(pd.Series(ids, name="id"))
    assert fault is None or any(map(is_missing, ids)) or len(set(ids)) > 1
    if fault:
        assert 0 <= fault[1] < len(ids)


# Metadata of an image folder

ROWS = [
    # image, person, visit, hospital, split, labels, caption
    ["1.png", "ann", "v1", "north", "train", "Effusion|Edema", "One."],
    ["2.png", "ann", "v2", "north", "train", "Edema", "Two."],
    ["3.png", "bob", "v3", "north", "train", "", "Three."],
    ["4.png", "cyd", "v4", "south", "test", "Effusion", "Four."],
    ["5.png", "dan", "v5", "south", "test", "", "Five."],
]
HEADER = ["image", "person", "visit", "hospital", "split", "labels", "caption"]
FINDING_FLAGS = ["--finding-column", "labels", "--finding-separator", "|"]
FINDING_FLAGS += ["--finding", "Pleural Effusion=Effusion", "--finding", "Edema=Edema"]


def built(folder: Path, rows: list[list[str]], *flags: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Build the manifest; return it by image, and the attrition's reasons by step."""
    text = io.StringIO()
    csv.writer(text).writerows([HEADER, *rows])
    (folder / "metadata.csv").write_text(text.getvalue(), encoding="utf-8")
    columns = ["path=image", "patient_id=person", "study_id=visit", "site=hospital"]
    columns += ["split=split", "caption=caption"]
    argv = ["image_folder", "--root", str(folder), "--metadata", str(folder / "metadata.csv")]
    for column in columns:
        argv += ["--column", column]
    argv += ["--manifest", str(folder / "m.parquet"), "--attrition", str(folder / "a.csv")]
    main([*argv, *flags])
    with (folder / "a.csv").open(newline="") as stream:
        reasons = {row["step"]: row["reason"] for row in csv.DictReader(stream)}
    return read_manifest(folder / "m.parquet").set_index("image_id"), reasons


def changed(*cells: tuple[int, str, str]) -> list[list[str]]:
    rows = [list(row) for row in ROWS]
    for row, column, value in cells:
        rows[row][HEADER.index(column)] = value
    return rows


BAD_CELLS = [
    # changed cells (row from 0, column, value), words of the message, the row in the file
    ([(1, "person", "ann ")], "person 'ann ' has blanks around it", 3),
    ([(3, "person", "ANN")], "person 'ANN' and 'ann' differ only in blanks, case", 5),
    ([(3, "person", "an n")], "person 'an n' and 'ann' differ only in blanks, case", 5),
    ([(2, "person", "nan")], "person is 'nan', which names nobody", 4),
    ([(2, "person", "N/A")], "person is 'N/A', which names nobody", 4),
    ([(2, "person", "")], "person is empty (1 rows)", 4),
    ([(2, "person", "\u3000")], "person is empty (1 rows)", 4),
    ([(1, "visit", "V1")], "visit 'V1' and 'v1' differ only in blanks, case", 3),
    ([(1, "visit", "null")], "visit is 'null', which names nobody", 3),
    ([(4, "hospital", "South")], "hospital 'South' and 'south' differ only in blanks, case", 6),
    ([(4, "hospital", "nan")], "hospital is 'nan', which names nobody", 6),
    ([(4, "split", "Test")], "unknown split 'Test'", 6),
    ([(4, "split", "nan")], "unknown split 'nan'", 6),
    ([(4, "split", "")], "unknown split ''", 6),
    ([(4, "person", "ann")], "train and test share 1 patient(s): ann", None),
    ([(4, "image", "1.png")], "'1.png' occurs twice", None),
]


@pytest.mark.parametrize(("cells", "said", "row"), BAD_CELLS)
def test_a_bad_cell_is_refused_with_its_row(tmp_path, cells, said, row):
    with pytest.raises(InputError) as caught:
        built(tmp_path, changed(*cells), "--no-check-files")
    assert said in caught.value.what
    place = f"{tmp_path / 'metadata.csv'}" + (f", row {row}" if row else "")
    assert str(caught.value.where) == place
    assert not (tmp_path / "m.parquet").exists()


CAPTIONS = [
    # a caption's cell, its value in the manifest
    ("nan", None),
    ("NaN", None),
    ("N/A", None),
    ("n/a", None),
    ("NA", None),
    ("None", None),
    (" null ", None),
    ("<NA>", None),
    ("#N/A", None),
    ("  ", None),
    ("", None),
    (" Clear lungs.\n", "Clear lungs."),
    ("None of the lungs is clear.", "None of the lungs is clear."),
    ("- No effusion.", "- No effusion."),
    ("=A1", "=A1"),
    ("Nan", None),
]


@pytest.mark.parametrize(("cell", "caption"), CAPTIONS)
def test_a_caption_that_says_nothing_is_none(tmp_path, cell, caption):
    manifest, reasons = built(tmp_path, changed((0, "caption", cell)), "--no-check-files")
    assert manifest.loc["1", "caption"] == caption
    assert (manifest.loc["1", "caption_source"] is None) == (caption is None)
    assert not [step for step in reasons if step.startswith("warning_")]


def column(name: str, *values: str) -> list[tuple[int, str, str]]:
    return [(row, name, values[row % len(values)]) for row in range(len(ROWS))]


WARNINGS = [
    # changed cells, flags, the warning, its words
    (column("caption", "nan"), [], "no_caption", "no image has a text for `caption`"),
    (column("caption", ""), [], "no_caption", "no image has a text for `caption`"),
    (column("labels", "Effusion;Edema"), FINDING_FLAGS, "no_label", "are the separator and"),
    (column("labels", "effusion"), FINDING_FLAGS, "no_label", "are the separator and the values"),
    (column("labels", ""), FINDING_FLAGS, "no_label", "no image has a label of any finding"),
    (
        [(0, "labels", "Effusion"), (1, "labels", "edema")],
        FINDING_FLAGS,
        "no_Edema",
        "no image has the finding Edema",
    ),
    (
        column("labels", "Edema", "Edema, Effusion"),
        ["--finding-column", "labels", "--finding-separator", ", ", *FINDING_FLAGS[4:6]],
        None,
        "",
    ),
    (column("labels", "Effusion|Edema"), FINDING_FLAGS, None, ""),
    ([], FINDING_FLAGS, None, ""),
    ([], [], None, ""),
]


@pytest.mark.parametrize(("cells", "flags", "warning", "said"), WARNINGS)
def test_a_share_of_zero_is_warned_of(tmp_path, caplog, cells, flags, warning, said):
    _, reasons = built(tmp_path, changed(*cells), *flags, "--no-check-files")
    warnings = {step.removeprefix("warning_") for step in reasons if step.startswith("warning_")}
    assert warnings == ({warning} if warning else set())
    if warning:
        assert said in reasons[f"warning_{warning}"]
        assert said in "".join(r.getMessage() for r in caplog.records if r.levelname == "WARNING")


def test_a_share_of_one_is_warned_of(tmp_path):
    rows = [[f"{i}.png", f"p{i}", f"v{i}", "north", "train", "Effusion", "."] for i in range(12)]
    rows[0][4] = "test"
    _, reasons = built(tmp_path, rows, *FINDING_FLAGS[:-2], "--no-check-files")
    assert "every image has the finding" in reasons["warning_only_Pleural Effusion"]
    rows[0][5] = ""
    _, reasons = built(tmp_path, rows, *FINDING_FLAGS[:-2], "--no-check-files")
    assert not [step for step in reasons if step.startswith("warning_")]


def test_a_filled_column_is_not_one_that_says_nothing(tmp_path):
    flags = ["--exclude-nonempty", "labels", "--no-check-files"]
    manifest, _ = built(tmp_path, changed(*column("labels", "nan", "twin")), *flags)
    assert list(manifest.index) == ["1", "3", "5"]


# Images that are one image


def picture(name: str) -> Image.Image:
    """Draw 16 x 16 gray pixels, determined by the name."""
    return Image.frombytes("L", (16, 16), hashlib.sha256(name.encode()).digest() * 8)


def saved(folder: Path, **images: str) -> pd.DataFrame:
    """Write a manifest: `a_test="x"` is image a of patient a in the test split, with picture x."""
    rows = []
    for name, shown in images.items():
        image, split = name.split("_")
        subject, _, how = shown.partition("/")
        path = folder / f"{image}.png"
        picture(subject).convert("RGB" if how == "rgb" else "L").save(
            path, compress_level=1 if how == "level" else 9
        )
        if how == "note":
            path.write_bytes(path.read_bytes() + b"note")
        if how == "broken":
            path.write_bytes(subject.encode())
        rows.append([image, f"p-{image}", f"s-{image}", str(path), split])
    return pd.DataFrame(rows, columns=["image_id", "patient_id", "study_id", "path", "split"])


COPIES = [
    # images by split with their pictures, the kind of comparison, the groups
    ({"a_test": "x", "b_train": "y"}, "files", []),
    ({"a_test": "x", "b_train": "y"}, "pixels", []),
    ({"a_test": "x", "b_train": "x"}, "files", ["ab"]),
    ({"a_test": "x", "b_train": "x"}, "pixels", ["ab"]),
    ({"a_test": "x", "b_train": "x/level"}, "files", []),
    ({"a_test": "x", "b_train": "x/level"}, "pixels", ["ab"]),
    ({"a_test": "x", "b_train": "x/note"}, "files", []),
    ({"a_test": "x", "b_train": "x/note"}, "pixels", ["ab"]),
    ({"a_test": "x", "b_train": "x/rgb"}, "pixels", ["ab"]),
    ({"a_train": "x", "b_train": "x"}, "files", ["ab"]),
    ({"a_train": "x", "b_train": "y", "c_test": "y", "d_test": "x"}, "pixels", ["ad", "bc"]),
    ({"a_train": "x", "b_train": "x", "c_test": "x"}, "files", ["abc"]),
    ({"a_test": "x/broken", "b_train": "x/broken"}, "pixels", ["ab"]),
    ({"a_test": "x/broken", "b_train": "y/broken"}, "pixels", []),
    ({"a_test": "x/broken", "b_train": "y/broken"}, "files", []),
]


@pytest.mark.parametrize(("images", "compare", "groups"), COPIES)
def test_copies_are_found(tmp_path, images, compare, groups):
    groups_found = identical_images(saved(tmp_path, **images), compare)
    assert ["".join(part["image_id"]) for _, part in groups_found.groupby("group")] == groups


SHARES = [
    # images, the accepted share, the test images that recur in another split, whether refused
    ({"a_test": "x", "b_train": "x"}, 0.001, "1 of 1", True),
    ({"a_test": "x", "b_validate": "x"}, 0.001, "1 of 1", True),
    ({"a_test": "x", "b_test": "y", "c_train": "y"}, 0.49, "1 of 2", True),
    ({"a_test": "x", "b_test": "y", "c_train": "y"}, 0.5, "1 of 2", False),
    ({"a_test": "x", "b_test": "x", "c_train": "y"}, 0.0, "0 of 2", False),
    ({"a_train": "x", "b_validate": "x", "c_test": "y"}, 0.0, "0 of 1", False),
    ({"a_test": "x", "b_train": "x"}, 1.0, "1 of 1", False),
]


@pytest.mark.parametrize(("images", "above", "count", "refused"), SHARES)
def test_copies_across_splits_are_refused_above_a_share(tmp_path, images, above, count, refused):
    attrition, table = Attrition(), tmp_path / "identical.csv"
    manifest = saved(tmp_path, **images)
    if refused:
        with pytest.raises(InputError, match=f"{count} test images have the same pixels") as caught:
            check_identical(manifest, "pixels", above, attrition, table)
        assert "(p-" in caught.value.what
    else:
        check_identical(manifest, "pixels", above, attrition, table)
    ((step, unit, removed, kept, reason),) = attrition.rows
    assert (step, unit, removed, kept) == ("identical_images", "images", 0, len(manifest))
    assert f"{count} test images" in reason
    listed = pd.read_csv(table)
    assert len(listed) == int(reason.split()[0]) == len(identical_images(manifest, "pixels"))
    assert table.stat().st_mode & 0o077 == 0


def test_a_copy_in_a_folder_stops_its_cohort(tmp_path):
    for row in ROWS:
        picture(row[0]).save(tmp_path / row[0])
    flags = ["--identical", str(tmp_path / "identical.csv")]
    _, reasons = built(tmp_path, ROWS, *flags)
    assert reasons["identical_images"].startswith("0 images have the same pixels as another")
    picture("1.png").save(tmp_path / "5.png", compress_level=1)
    with pytest.raises(InputError, match="1 of 2 test images have the same pixels"):
        built(tmp_path, ROWS, *flags)
    _, reasons = built(tmp_path, ROWS, *flags, "--compare", "files")  # saved anew: another file
    assert reasons["identical_images"].startswith("0 images have the same file as another")
    _, reasons = built(tmp_path, ROWS, *flags, "--refuse-above", "0.5")
    assert reasons["identical_images"].startswith("2 images have the same pixels as another")
    assert list(pd.read_csv(tmp_path / "identical.csv", dtype=str)["image_id"]) == ["1", "5"]


HEAD, ROW = "file,person,größe", "a.png,Jörg,9"
# name: the bytes of a CSV file with the columns `file` and `person`, words of the refusal
FILES = {
    "Latin-1": (f"{HEAD}\n{ROW}\n".encode("latin-1"), ("not UTF-8", "iconv -f WINDOWS-1252")),
    "UTF-16": (f"{HEAD}\n{ROW}\n".encode("utf-16"), ("not UTF-8", "iconv -f UTF-16")),
    "semicolons": (
        f"{HEAD}\n{ROW}\n".replace(",", ";").encode(),
        ("missing column(s): file, person; it has: file, person, größe", "';' stands between"),
    ),
    "tabs": (
        f"{HEAD}\n{ROW}\n".replace(",", "\t").encode(),
        ("it has: file, person, größe", "'\\t' stands between"),
    ),
    "semicolons after a byte order mark": (
        f"\ufeff{HEAD}\n{ROW}\n".replace(",", ";").encode(),
        ("it has: file, person, größe", "';' stands between"),
    ),
    "another name": (
        f"{HEAD}\n{ROW}\n".replace("person", "patient").encode(),
        ("missing column(s): person; it has: file, patient, größe", "map or rename"),
    ),
    "two columns of one name": (
        b"file,person,file\na.png,p,b.png\n",
        ("two columns are called 'file'", "rename one"),
    ),
    "a merge that was left": (b"<<<<<<< HEAD\nfile,person\na,b\n", ("cannot read the CSV file",)),
    "a longer row": (b"file,person\na,b\nc,d,e\n", ("Expected 2 columns, got 3",)),
    "a shorter row": (b"file,person\na\n", ("Expected 2 columns, got 1",)),
    "an open quotation": (b'file,person\n"a,b\n', ("cannot read the CSV file",)),
    "a header alone": (b"file,person\n", ("the CSV file has no rows",)),
    "blanks in the header": (b"file, person\na,b\n", ("missing column(s): person",)),
    "Excel's first line": (b"sep=,\nfile,person\na,b\n", ("missing column(s): file, person",)),
    "a pointer of Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid x\n",
        ("a Git LFS pointer stands in place of the file", "git lfs pull"),
    ),
    "nothing": (b"", ("Empty CSV file",)),
    "a letter that was cut": (b"file,person\na,b\xc3", ("cannot read the CSV file",)),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff", ("missing column(s): file, person",)),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_what_a_table_is_instead_is_said(tmp_path, name, packed):
    data, words = FILES[name]
    path = tmp_path / ("table.csv.gz" if packed else "table.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(InputError) as caught:
        read_csv(path, ["file", "person"])
    for word in words:
        assert word in str(caught.value)
