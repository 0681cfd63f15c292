"""A folder of images with a CSV becomes a manifest, or an error states the reason."""

import csv
import hashlib
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from workflow_scripts.cohort.build_manifest import main
from workflow_scripts.cohort.image_folder import SplitDraw, draw_split
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, read_manifest

HEADER = ["image", "person", "visit", "projection", "part", "labels", "lung", "text", "twin"]
ROWS = [
    ["img/1.png", "ann", "a-1", "AP Supine", "train", "Effusion|Hernia", "1.0", "One.", ""],
    ["img/2.png", "ann", "a-2", "PA", "train", "No Finding", "0", " ", ""],
    ["img/3.png", "bob", "b-1", "PA", "train", "Unknown", "-1", 'Two, "two".', ""],
    ["img/4.png", "bob", "b-1", "Lateral", "train", "", "", "Side.", ""],
    ["img/5.png", "cyd", "c-1", "PA", "test", "Effusion | Big heart", "", "Three.\nFour.", ""],
    ["img/6.png", "cyd", "c-1", "PA", "test", "COVID-19, ARDS", "", "", "img/5.png"],
    ["img/7.png", "dan", "d-1", "PA", "validate", "COVID-19", "", "", ""],
]
COLUMNS = ["path=image", "patient_id=person", "study_id=visit", "view=projection", "caption=text"]
SPLIT = ["split=part"]
VIEWS = ["--view", "PA=PA", "--view", "AP Supine=AP"]
FINDING_FLAGS = [
    *("--finding-column", "labels", "--finding-separator", "|"),
    *("--finding", "No Finding=No Finding", "--finding", "Pleural Effusion=Effusion"),
    *("--finding", "Cardiomegaly=Big heart", "--finding", "Pneumonia=COVID-19"),
    *("--finding", "Pneumonia=COVID-19, ARDS"),
]


def write(folder: Path, rows: list[list[str]], header: list[str] = HEADER) -> Path:
    path = folder / "metadata.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    for row in rows:
        if row[0].startswith("img/"):
            (folder / row[0]).parent.mkdir(parents=True, exist_ok=True)
            image = Image.linear_gradient("L").resize((8, 8)).convert("RGB")
            shade = hashlib.sha256(row[0].encode()).digest()[:3]  # no two images are the same
            image.putpixel((0, 0), tuple(shade))
            image.save(folder / row[0])
    return path


def build(folder: Path, *extra: str, columns: list[str] | None = None) -> pd.DataFrame:
    flags = ["image_folder", "--root", str(folder), "--metadata", str(folder / "metadata.csv")]
    for column in COLUMNS + SPLIT if columns is None else columns:
        flags += ["--column", column]
    flags += ["--manifest", str(folder / "manifest.parquet")]
    main([*flags, "--attrition", str(folder / "attrition.csv"), *extra])
    return read_manifest(folder / "manifest.parquet").set_index("image_id")


def attrition(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "attrition.csv").open() as stream:
        return {row["step"]: row for row in csv.DictReader(stream)}


def refused(folder: Path, *words: str, extra: tuple[str, ...] = (), columns=None) -> None:
    with pytest.raises(InputError) as caught:
        build(folder, *extra, columns=columns)
    for word in words:
        assert word in str(caught.value)
    assert not (folder / "manifest.parquet").exists()


def test_columns_are_mapped(tmp_path):
    write(tmp_path, ROWS)
    manifest = build(tmp_path, *VIEWS, "--exclude-nonempty", "twin")
    assert list(manifest.index) == ["1", "2", "3", "5", "7"]
    assert manifest["patient_id"].to_list() == ["ann", "ann", "bob", "cyd", "dan"]
    assert manifest["study_id"].to_list() == ["a-1", "a-2", "b-1", "c-1", "d-1"]
    assert manifest["view"].to_list() == ["AP", "PA", "PA", "PA", "PA"]
    assert manifest["split"].to_list() == ["train", "train", "train", "test", "validate"]
    assert manifest["caption"].to_list() == ["One.", None, 'Two, "two".', "Three.\nFour.", None]
    assert set(manifest["caption_source"].dropna()) == {"column:text"}
    assert manifest["path"].to_list()[0] == str(tmp_path / "img/1.png")
    assert manifest[list(FINDINGS)].isna().all(axis=None)
    rows = attrition(tmp_path)
    assert (rows["empty_twin"]["removed"], rows["frontal"]["removed"]) == ("1", "1")
    assert (rows["frontal"]["kept"], rows["in_metadata"]["kept"]) == ("5", "7")
    assert "'Lateral' 1" in rows["frontal"]["reason"]
    assert rows["captioned_train"]["kept"] == "2"


def test_an_indication_is_one_line_or_null(tmp_path):
    write(tmp_path, ROWS)
    manifest = build(tmp_path, columns=[*COLUMNS, *SPLIT, "indication=text"])
    given = {"1": "One.", "3": 'Two, "two".', "4": "Side.", "5": "Three. Four."}
    assert manifest["indication"].dropna().to_dict() == given
    assert manifest.loc["2", "indication"] is None
    assert build(tmp_path)["indication"].isna().all()


def test_one_column_per_finding(tmp_path):
    write(tmp_path, ROWS)
    manifest = build(tmp_path, columns=[*COLUMNS, *SPLIT, "Lung Opacity=lung"])
    assert manifest["Lung Opacity"].dropna().to_dict() == {"1": 1, "2": 0, "3": -1}


def test_one_column_that_names_all_findings(tmp_path):
    write(tmp_path, ROWS)
    manifest = build(tmp_path, *FINDING_FLAGS)
    named = {image: row.dropna().to_dict() for image, row in manifest[list(FINDINGS)].iterrows()}
    assert named == {
        "1": {"Pleural Effusion": 1},
        "2": {"No Finding": 1},
        "3": {},
        "4": {},
        "5": {"Pleural Effusion": 1, "Cardiomegaly": 1},
        "6": {"Pneumonia": 1},
        "7": {"Pneumonia": 1},
    }
    row = attrition(tmp_path)["finding_mapped"]
    assert (row["unit"], row["removed"], row["kept"]) == ("annotations", "2", "6")
    assert "'Hernia' 1, 'Unknown' 1" in row["reason"]
    assert "5 images have a label" in row["reason"]


def test_absent_findings_are_negative_only_where_something_is_known(tmp_path):
    write(tmp_path, ROWS)
    manifest = build(tmp_path, *FINDING_FLAGS, "--finding-absent", "0")
    mapped = ["Cardiomegaly", "No Finding", "Pleural Effusion", "Pneumonia"]
    assert manifest.loc["1", mapped].to_list() == [0, 0, 1, 0]
    assert manifest.loc[["3", "4"], mapped].isna().all(axis=None)
    assert manifest["Fracture"].isna().all()


def test_a_cell_is_one_value_without_a_separator(tmp_path):
    write(tmp_path, ROWS)
    flags = ["--finding-column", "labels", "--finding", "Pneumonia=COVID-19, ARDS"]
    manifest = build(tmp_path, *flags)
    assert manifest["Pneumonia"].dropna().to_dict() == {"6": 1}
    assert "'Effusion|Hernia' 1" in attrition(tmp_path)["finding_mapped"]["reason"]


def test_a_minimal_mapping(tmp_path):
    write(tmp_path, ROWS)
    manifest = build(tmp_path, columns=["path=image", "patient_id=person", *SPLIT])
    assert manifest["study_id"].to_list() == list(manifest.index) == list("1234567")
    assert set(manifest["view"]) == {"unknown"}
    assert manifest["caption"].isna().all()


def drawn_rows(patients: int) -> list[list[str]]:
    return [
        [f"img/{p}-{i}.png", f"p{p}", "s", "PA", "", "", "", f"{p} {i}", ""]
        for p in range(patients)
        for i in range(2)
    ]


def test_a_drawn_split_is_by_patient_and_stable_when_rows_are_added(tmp_path):
    flags = ["--test-share", "0.3", "--validate-share", "0.1", "--split-seed", "7"]
    write(tmp_path, drawn_rows(40))
    before = build(tmp_path, *flags, columns=COLUMNS)
    assert (before.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(before["split"]) == {"train", "validate", "test"}
    first = (tmp_path / "manifest.parquet").read_bytes()
    write(tmp_path, drawn_rows(40)[::-1])
    build(tmp_path, *flags, columns=COLUMNS)
    assert (tmp_path / "manifest.parquet").read_bytes() == first
    write(tmp_path, drawn_rows(60))
    after = build(tmp_path, *flags, columns=COLUMNS)
    assert after.loc[before.index, "split"].equals(before["split"])
    other = build(tmp_path, *flags[:-1], "8", columns=COLUMNS)
    assert not other["split"].equals(after["split"])


@given(
    st.lists(st.text(min_size=1), min_size=1, max_size=30),
    st.floats(0.01, 0.6),
    st.floats(0, 0.3),
    st.integers(0, 2**32),
)
def test_a_patient_has_one_split_whatever_the_cohort(patients, test, validate, seed):
    draw = SplitDraw(test, validate, seed)
    splits = {patient: draw_split(patient, draw) for patient in patients}
    assert all(draw_split(patient, draw) == splits[patient] for patient in reversed(patients))
    # A larger test share only ever moves patients into the test split.
    larger = SplitDraw(min(test + 0.1, 0.69), validate, seed)
    assert all(draw_split(p, larger) == "test" for p in patients if splits[p] == "test")


def test_the_shares_are_met():
    draw = SplitDraw(0.2, 0.1, 42)
    counts = pd.Series([draw_split(f"p{i}", draw) for i in range(5000)]).value_counts(True)
    assert counts["test"] == pytest.approx(0.2, abs=0.03)  # five standard deviations
    assert counts["validate"] == pytest.approx(0.1, abs=0.025)


def change(row: int, column: str, value: str) -> list[list[str]]:
    rows = [list(row) for row in ROWS]
    rows[row][HEADER.index(column)] = value
    return rows


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [
        (1, "image", "img/1.png", ("'img/1.png' occurs twice", "rows 2 and 3")),
        (1, "image", "other/1.png", ("'1' occurs twice", "map a column to image_id")),
        (1, "image", "", ("image is empty", "row 3")),
        (2, "person", "", ("person is empty", "row 4")),
        (2, "visit", " ", ("visit is empty", "row 4")),
        (3, "part", "dev", ("unknown split 'dev'", "row 5")),
        (6, "person", "ann", ()),
        (5, "person", "ann", ("share 1 patient(s): ann",)),
        (0, "lung", "0.5", ("lung is '0.5'", "row 2")),
    ],
)
def test_bad_rows(tmp_path, row, column, value, words):
    write(tmp_path, change(row, column, value))
    columns = [*COLUMNS, *SPLIT, "Lung Opacity=lung"]
    if words:
        refused(tmp_path, *words, str(tmp_path / "metadata.csv"), columns=columns)
    else:  # train and validate may share a patient
        assert len(build(tmp_path, columns=columns)) == 7


def test_missing_images_are_named(tmp_path):
    write(tmp_path, ROWS)
    (tmp_path / "img/4.png").unlink()
    refused(tmp_path, "1 of 7 image files", str(tmp_path / "img/4.png"))
    assert len(build(tmp_path, "--no-check-files")) == 7


def test_bad_files(tmp_path):
    refused(tmp_path, "missing", str(tmp_path / "metadata.csv"))
    path = write(tmp_path, ROWS)
    text = path.read_text()
    path.write_text(text.replace("person", "patient"))
    refused(tmp_path, "missing column(s): person")
    path.write_text(text + "img/9.png,eve\n")
    refused(tmp_path, "Expected 9 columns, got 2")


@pytest.mark.parametrize(
    ("columns", "extra", "word"),
    [
        (["path=image", *SPLIT], (), "no column is mapped to patient_id"),
        (["patient_id=person", *SPLIT], (), "no column is mapped to path"),
        (COLUMNS, (), "exactly one"),
        ([*COLUMNS, *SPLIT], ("--test-share", "0.2"), "exactly one"),
        (COLUMNS, ("--test-share", "1.2"), "test share 1.2"),
        (COLUMNS, ("--test-share", "0.6", "--validate-share", "0.4"), "leave something"),
        (COLUMNS, ("--test-share", "0.000001"), "no test images"),
        (COLUMNS, ("--validate-share", "0.2"), "without a test share"),
        ([*COLUMNS, *SPLIT, "size=lung"], (), "unknown field 'size'"),
        ([*COLUMNS, *SPLIT, "path=text"], (), "'path' is given twice"),
        ([*COLUMNS, *SPLIT, "image_id"], (), "no KEY=VALUE"),
        (["path=image", "patient_id=person", *SPLIT], ("--view", "PA=PA"), "no column holds"),
        ([*COLUMNS, *SPLIT], ("--view", "XX=PA"), "no image is left"),
        ([*COLUMNS, *SPLIT], ("--finding", "Edema=x"), "give --finding-column"),
        ([*COLUMNS, *SPLIT], ("--finding-column", "labels"), "no value"),
        (
            [*COLUMNS, *SPLIT],
            ("--finding-column", "labels", "--finding", "Oedema=x"),
            "no FINDING=VALUE",
        ),
        (
            [*COLUMNS, *SPLIT],
            ("--finding-column", "labels", "--finding", "Edema=x", "--finding", "Fracture=x"),
            "'x' is mapped twice",
        ),
        ([*COLUMNS, *SPLIT, "Pneumonia=lung"], tuple(FINDING_FLAGS), "map each finding once"),
    ],
)
def test_bad_mappings(tmp_path, columns, extra, word):
    write(tmp_path, ROWS)
    refused(tmp_path, word, columns=columns, extra=extra)


def sample_folder() -> Path:
    beside = Path(__file__).resolve().parents[2].parent / "shared/cxr_sample"
    return Path(os.environ.get("CXR_SAMPLE", beside))


@pytest.mark.sample
@pytest.mark.skipif(
    not (sample_folder() / "metadata.csv").is_file(),
    reason="no folder of real radiographs: set CXR_SAMPLE",
)
def test_real_radiographs(tmp_path):
    folder = sample_folder()
    flags = ["image_folder", "--root", str(folder), "--metadata", str(folder / "metadata.csv")]
    for column in ("path=image", "caption=text", "site=source"):
        flags += ["--column", column]
    for column in ("patient_id", "study_id", "view"):
        flags += ["--column", f"{column}={column}"]
    for view in ("PA=PA", "AP=AP", "AP Supine=AP", "AP (paediatric)=AP"):
        flags += ["--view", view]
    flags += ["--finding-column", "finding_labels", "--finding-separator", "|"]
    pneumonias = ("COVID-19", "COVID-19, ARDS", "Pneumonia (bacterial)", "Pneumonia (viral)")
    for value in ("No Finding=No Finding", *(f"Pneumonia={name}" for name in pneumonias)):
        flags += ["--finding", value]
    flags += ["--exclude-nonempty", "near_duplicate_of", "--test-share", "0.3"]
    flags += ["--manifest", str(tmp_path / "m.parquet")]
    main([*flags, "--attrition", str(tmp_path / "attrition.csv")])

    with (folder / "metadata.csv").open(newline="") as stream:  # counted independently
        source = [row for row in csv.DictReader(stream) if not row["near_duplicate_of"]]
    manifest = read_manifest(tmp_path / "m.parquet")
    assert len(manifest) == len(source)
    assert manifest["patient_id"].nunique() == len({row["patient_id"] for row in source})
    assert manifest["caption"].notna().sum() == sum(bool(row["text"].strip()) for row in source)
    assert sorted(manifest["site"]) == sorted(row["source"] for row in source)
    assert (manifest["Pneumonia"] == 1).sum() == sum(
        row["finding_labels"] in pneumonias for row in source
    )
    assert set(manifest["split"]) == {"train", "test"}
    assert (manifest.groupby("patient_id")["split"].nunique() == 1).all()
    assert "'Pneumocystis'" in attrition(tmp_path)["finding_mapped"]["reason"]
