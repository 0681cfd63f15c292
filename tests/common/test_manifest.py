import pandas as pd
import pyarrow.parquet as pq
import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import (
    FINDINGS,
    read_manifest,
    read_prompts,
    write_manifest,
    write_prompts,
)


def manifest(n=4):
    frame = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "patient_id": [f"p{k}" for k in range(n)],
            "study_id": [f"s{k}" for k in range(n)],
            "path": [f"files/{k}.jpg" for k in range(n)],
            "view": "PA",
            "site": None,
            "split": ["train", "validate", "test", "train"][:n],
            "caption": ["a", None, "b", "c"][:n],
            "caption_source": ["x", None, "x", "x"][:n],
            "indication": ["why", None, None, "x"][:n],
            "report": ["a", None, "her words", None][:n],
        }
    )
    for k, name in enumerate(FINDINGS):
        frame[name] = pd.array([[1, 0, -1, None][(k + j) % 4] for j in range(n)], dtype="Int8")
    return frame


def test_the_findings_are_chexperts_fourteen():
    assert FINDINGS == (
        "Atelectasis",
        "Cardiomegaly",
        "Consolidation",
        "Edema",
        "Enlarged Cardiomediastinum",
        "Fracture",
        "Lung Lesion",
        "Lung Opacity",
        "No Finding",
        "Pleural Effusion",
        "Pleural Other",
        "Pneumonia",
        "Pneumothorax",
        "Support Devices",
    )


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    frame = manifest()
    write_manifest(frame, tmp_path / "m.parquet")
    back = read_manifest(tmp_path / "m.parquet")
    assert back["caption"].tolist() == ["a", None, "b", "c"]
    assert back["indication"].tolist() == ["why", None, None, "x"]
    for name in frame.columns.drop(["caption", "caption_source", "indication", "report"]):
        assert back[name].astype(object).equals(frame[name].astype(object)), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": ["i0", "i0", "i2", "i3"]}, "repeated image_id, first 'i0'"),
        ({"split": ["train", "dev", "test", "train"]}, "split 'dev' is none of"),
        ({"patient_id": ["p0", "p1", "p0", "p3"]}, "share 1 patient.*p0"),
        ({"caption": ["a", None, " ", "c"]}, "an empty caption"),
        ({"indication": ["a", None, " ", "c"]}, "an empty indication"),
        ({"report": ["a", None, " ", "c"]}, "an empty report"),
        ({"caption_source": ["x", "x", "x", "x"]}, "must be present together"),
        ({"Edema": pd.array([1, 2, 0, None], dtype="Int8")}, "Edema is 2 at row 1"),
        ({"view": ["PA", None, "PA", "PA"]}, "column 'view' is empty at row 1"),
    ],
)
def test_a_faulty_manifest_is_refused_by_name(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        write_manifest(manifest().assign(**change), tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def test_validation_patients_may_not_hide_a_shared_test_patient(tmp_path):
    frame = manifest().assign(patient_id=["p0", "p1", "p1", "p3"])
    write_manifest(frame, tmp_path / "m.parquet")  # validate and test: allowed by MIMIC's own split


def test_a_table_with_another_schema_is_refused(tmp_path):
    write_manifest(manifest(), tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    place = table.schema.get_field_index("Edema")
    wide = table.set_column(place, "Edema", table.column("Edema").cast("int64"))
    pq.write_table(wide, tmp_path / "m.parquet")
    with pytest.raises(InputError, match="'Edema' is missing or is not int8"):
        read_manifest(tmp_path / "m.parquet")
    pq.write_table(table.drop_columns(["indication"]), tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"'indication' is missing(.|\n)*rerun the cohort stage"):
        read_manifest(tmp_path / "m.parquet")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 truncated")
    with pytest.raises(InputError, match="cannot read the table"):
        read_manifest(tmp_path / "m.parquet")


def test_prompts_are_checked_on_write_and_read(tmp_path):
    frame = manifest().rename(columns={"study_id": "prompt_id"})
    frame["caption"] = "a"
    frame["caption_source"], frame["second_wording"] = "x", False
    frame["replicate"], frame["seed"] = 0, 2**31 - 1
    write_prompts(frame, tmp_path / "p.parquet")
    assert read_prompts(tmp_path / "p.parquet")["seed"].tolist() == [2**31 - 1] * 4
    with pytest.raises(InputError, match="negative seed"):
        write_prompts(frame.assign(seed=-1), tmp_path / "q.parquet")


@pytest.mark.parametrize("values", [[1, 0, -1, None], [0, 0, 1, 1], [-1] * 4, [None] * 4])
def test_every_finding_value_survives(tmp_path, values):
    write_manifest(manifest().assign(Edema=pd.array(values, dtype="Int8")), tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    assert table.column("Edema").to_pylist() == values
