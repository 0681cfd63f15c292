"""MIMIC-CXR-JPG and LLaVA-Rad become a manifest; damaged copies of them become an error."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from workflow_scripts.cohort import annotations as annotations_module
from workflow_scripts.cohort.annotations import json_array
from workflow_scripts.cohort.attrition import PUBLISHED, Attrition
from workflow_scripts.cohort.build_manifest import main
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, read_manifest


def built(mimic, *extra: str, **changes: str) -> pd.DataFrame:
    main([*mimic.arguments(**changes), *extra])
    return read_manifest(mimic.folder / "manifest.parquet").set_index("image_id")


def attrition(mimic) -> dict[str, dict[str, str]]:
    with (mimic.folder / "attrition.csv").open() as stream:
        return {row["step"]: row for row in csv.DictReader(stream)}


def refused(mimic, *words: str, **changes: str) -> None:
    """Assert that the build fails, that its message has every word, and that no file is written."""
    with pytest.raises(InputError) as caught:
        main(mimic.arguments(**changes))
    message = str(caught.value)
    for word in words:
        assert word in message
    assert caught.value.where is not None
    assert caught.value.remedy
    assert not (mimic.folder / "manifest.parquet").exists()
    assert not (mimic.folder / "attrition.csv").exists()


def test_frontal_images_with_ids_paths_and_splits(mimic):
    manifest = built(mimic.write())
    assert list(manifest.index) == [
        *("d-a1", "d-a3", "d-b1", "d-c1", "d-d1", "d-e1", "d-e2", "d-f1", "d-f2")
    ]
    row = manifest.loc["d-a1"]
    assert (row["patient_id"], row["study_id"]) == ("p10000032", "s50000001")
    assert row["path"] == str(mimic.root / "files/p10/p10000032/s50000001/d-a1.jpg")
    assert Path(row["path"]).is_file()
    assert (row["view"], row["split"]) == ("PA", "train")
    assert manifest["split"].value_counts().to_dict() == {"train": 4, "test": 4, "validate": 1}


def test_captions_prefer_gpt4_and_join_on_the_dicom_id(mimic):
    manifest = built(mimic.write())
    captions = manifest["caption"].to_dict()
    assert captions == {
        "d-a1": "The heart is enlarged.",
        "d-a3": "Clear lungs.",
        "d-b1": None,
        "d-c1": "Clear lungs.",
        "d-d1": "A device.",
        "d-e1": "Effusion on the left.",
        "d-e2": "Small pneumothorax.",
        "d-f1": "Effusion on the left.",
        "d-f2": None,
    }
    assert manifest["caption_source"].to_dict() == {
        **dict.fromkeys(captions, "llava_rad:gpt4"),
        "d-c1": "llava_rad:rule-based",
        "d-b1": None,
        "d-f2": None,
    }


def test_a_rule_based_caption_stands_in_for_a_missing_gpt4_one(mimic):
    mimic.annotations["train"][1]["conversations"][1]["value"] = None
    manifest = built(mimic.write())
    assert manifest.loc["d-a1", "caption"] == "rule text"
    assert manifest.loc["d-a1", "caption_source"] == "llava_rad:rule-based"


def test_impressions(mimic):
    manifest = built(mimic.write(), caption_source="impression")
    captions = manifest["caption"].dropna()
    assert captions.to_dict() == {"d-a1": "Big heart.", "d-a3": "Normal.", "d-b1": "Pacemaker."}
    assert set(manifest["caption_source"].dropna()) == {"impression"}


def test_findings_keep_positive_negative_uncertain_and_unmentioned_apart(mimic):
    manifest = built(mimic.write())
    heart = manifest.loc["d-a1", list(FINDINGS)].dropna().to_dict()
    assert heart == {"Cardiomegaly": 1, "Edema": -1, "Pneumonia": 0}
    assert manifest.loc["d-e2", "Pneumothorax"] == -1
    assert manifest.loc[["d-f1", "d-f2"], list(FINDINGS)].isna().all(axis=None)
    assert manifest["Edema"].dtype == "Int8"


def test_attrition_counts_every_loss(mimic):
    built(mimic.write())
    rows = attrition(mimic)
    counted = {
        step: (row["unit"], int(row["removed"]), int(row["kept"])) for step, row in rows.items()
    }
    assert counted == {
        "in_split_table": ("images", 0, 12),
        "split_test": ("images", 0, 5),
        "split_train": ("images", 0, 6),
        "split_validate": ("images", 0, 1),
        "in_metadata": ("images", 0, 12),
        "frontal": ("images", 3, 9),
        "labelled": ("images", 0, 9),
        "annotations_read": ("annotations", 0, 14),
        "caption_is_text": ("annotations", 2, 12),
        "image_known": ("annotations", 1, 11),
        "image_in_cohort": ("annotations", 1, 10),
        "report_known": ("annotations", 0, 3),
        "preferred_method": ("annotations", 2, 8),
        "one_per_image": ("annotations", 1, 7),
        "split_agrees": ("annotations", 0, 7),
        "captioned_test": ("captions", 1, 3),
        "unique_test": ("captions", 1, 2),
        "captioned_train": ("captions", 1, 3),
        "unique_train": ("captions", 1, 2),
        "captioned_validate": ("captions", 0, 1),
        "unique_validate": ("captions", 0, 1),
        "looked_at": ("images", 0, 9),
        "identical_images": ("images", 0, 9),
        "test_frontal": ("images", 0, 4),
        "test_studies": ("studies", 0, 4),
        "test_reports": ("captions", 0, 1),
        "test_prompts": ("captions", 0, 3),
    }
    assert "'LATERAL' 1, 'LL' 1" in rows["frontal"]["reason"]
    assert rows["labelled"]["reason"].startswith("1 images")
    assert "(1 of another wording)" in rows["one_per_image"]["reason"]


def test_the_report_is_the_radiologists_own_words_whatever_the_caption_is(mimic):
    reports = {"d-a1": "rule text", "d-c1": "Clear lungs.", "d-e1": "Left effusion."}
    manifest = built(mimic.write())
    assert manifest["report"].dropna().to_dict() == reports
    assert manifest.loc["d-a1", "caption"] == "The heart is enlarged."
    impressions = built(mimic, caption_source="impression")
    assert impressions["report"].dropna().to_dict() == reports
    for image in ("d-c1", "d-e1"):
        assert impressions.loc[image, "caption"] is None


def test_a_count_of_mimics_own_that_is_off_is_warned_of(caplog):
    counts = Attrition()
    for step, number in PUBLISHED["MIMIC-CXR"].items():
        counts.add(step, "images", 0, number - (step == "split_test") * 9, "")
    counts.warn_of_published()
    (warned,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warned.startswith("split_test: 5150 are kept, where 5159 are published for MIMIC-CXR")


def test_other_data_in_the_same_layout_are_compared_with_nothing(mimic, caplog):
    built(mimic.write())
    assert "published" not in caplog.text


def test_same_bytes_again_and_from_plain_csv_in_another_order(mimic):
    built(mimic.write())
    outputs = [mimic.folder / "manifest.parquet", mimic.folder / "attrition.csv"]
    first = [path.read_bytes() for path in outputs]
    built(mimic)
    assert [path.read_bytes() for path in outputs] == first
    for path in mimic.root.glob("*.gz"):
        path.unlink()
    for rows in (mimic.metadata, mimic.split, mimic.chexpert):
        rows.reverse()
    built(mimic.write(gz=False))
    assert outputs[0].read_bytes() == first[0]


def test_the_split_table_alone_decides_the_split(mimic):
    mimic.annotations["test"].append(mimic.annotations["train"].pop(3))
    manifest = built(mimic.write())
    assert manifest.loc["d-a3", "split"] == "train"
    assert manifest.loc["d-a3", "caption"] == "Clear lungs."
    assert attrition(mimic)["split_agrees"]["reason"].startswith("1 stand in")


def test_metadata_cut_to_the_images_at_hand(mimic):
    mimic.metadata = [row for row in mimic.metadata if row["dicom_id"] != "d-f2"]
    manifest = built(mimic.write())
    assert "d-f2" not in manifest.index
    assert attrition(mimic)["in_metadata"]["removed"] == "1"


def test_views_are_mapped(mimic):
    built(mimic.write(), "--view", "LL=lateral")
    manifest = read_manifest(mimic.folder / "manifest.parquet").set_index("image_id")
    assert manifest.loc["d-e3", "view"] == "lateral"


def official_csvs(mimic, reasons: bool = True, **captions: str) -> None:
    """Write the official release's CSVs, with commas, quotes and line breaks in captions."""
    for path in mimic.captions.glob("*"):
        path.unlink()
    columns = ["id", "path", "generate_method", "impression", "annotated_prompt"]
    columns += ["reason"] * reasons
    for part, dicoms in (("TRAIN", ["d-a1", "d-a3"]), ("TEST", ["d-e1"])):
        with (mimic.captions / f"LLAVARAD_ANNOTATIONS_{part}.csv").open("w") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns)
            for dicom in dicoms:
                text = captions.get(dicom[-2:], 'Heart, "large".\nNo effusion.')
                row = ["1", mimic.image(dicom, "files/"), "gpt4", "short", text]
                writer.writerow(row + ['Fever,\n "cough".' if dicom == "d-a1" else ""] * reasons)


def test_official_csvs_where_there_is_no_json(mimic):
    mimic.write()
    official_csvs(mimic, a3="nan")
    manifest = built(mimic)
    assert manifest["caption"].dropna().to_dict() == {
        "d-a1": 'Heart, "large".\nNo effusion.',
        "d-e1": 'Heart, "large".\nNo effusion.',
    }
    assert set(manifest["caption_source"].dropna()) == {"llava_rad:gpt4"}
    assert manifest["indication"].dropna().to_dict() == {"d-a1": 'Fever, "cough".'}
    manifest = built(mimic, caption_source="impression")
    assert set(manifest["caption"].dropna()) == {"short"}
    assert manifest["indication"].dropna().to_dict() == {"d-a1": 'Fever, "cough".'}
    official_csvs(mimic, reasons=False)
    assert built(mimic)["indication"].isna().all()


@pytest.mark.parametrize("reason", [None, 3, float("nan"), ["a"], "", " \n", "NaN"])
def test_an_indication_is_that_of_the_caption_on_one_line(mimic, reason):
    rule, gpt4 = mimic.annotations["train"][:2]
    rule["reason"], gpt4["reason"] = "Chest pain.", "  Fever\nand\t cough, ___-year-old. "
    mimic.annotations["train"][3]["reason"] = reason
    mimic.annotations["train"][4]["reason"] = "Of an image without a caption."
    gpt4["indication"] = "another field"
    manifest = built(mimic.write())
    assert manifest["indication"].dropna().to_dict() == {"d-a1": "Fever and cough, ___-year-old."}
    assert manifest.loc["d-a3", "indication"] is None


@pytest.mark.parametrize("caption", [None, 3, float("nan"), ["a"], {"a": 1}, "", " \n"])
def test_a_caption_that_is_no_text_leaves_its_image_without_one(mimic, caption):
    mimic.annotations["dev"][0]["conversations"][1]["value"] = caption
    manifest = built(mimic.write())
    assert manifest.loc["d-d1", "caption"] is None
    assert manifest.loc["d-d1", "caption_source"] is None
    assert attrition(mimic)["caption_is_text"]["removed"] == "3"


def test_without_any_caption_the_images_stay(mimic):
    mimic.annotations = {"train": [], "test": []}
    manifest = built(mimic.write())
    assert len(manifest) == 9
    assert manifest["caption"].isna().all()


@pytest.mark.parametrize("name", ["metadata", "split", "chexpert"])
def test_a_missing_csv(mimic, name):
    mimic.write()
    (mimic.root / f"mimic-cxr-2.0.0-{name}.csv.gz").unlink()
    refused(mimic, f"mimic-cxr-2.0.0-{name}.csv.gz", "missing")


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_truncated_gzip(mimic, keep):
    mimic.write()
    path = mimic.root / "mimic-cxr-2.0.0-split.csv.gz"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    refused(mimic, str(path), "truncated")


PAGE = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (POINTER, "Git LFS pointer"),
        (PAGE, "web page"),
        (gzip.compress(PAGE), "web page"),
        (b"PK\x03\x04" + bytes(100), "spreadsheet (xlsx)"),
        (b"dicom_id,subject_id,study_id,ViewPosition\n", "not gzipped"),
        (b"", "Empty CSV"),
    ],
)
def test_what_stands_in_place_of_a_table_is_named(mimic, content, word):
    mimic.write()
    path = mimic.root / "mimic-cxr-2.0.0-metadata.csv.gz"
    packed = path.read_bytes()
    path.write_bytes(content)
    refused(mimic, str(path), word)
    path.unlink()
    plain = path.with_suffix("")
    plain.write_bytes(packed)
    refused(mimic, str(plain), "gzipped", "rename it to mimic-cxr-2.0.0-metadata.csv.gz")


@pytest.mark.parametrize(("content", "word"), [(POINTER, "Git LFS pointer"), (PAGE, "web page")])
def test_what_stands_in_place_of_annotations_is_named(mimic, content, word):
    mimic.write()
    path = mimic.captions / "chat_test_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
    path.write_bytes(content)
    refused(mimic, str(path), word)


def test_a_folder_nearby_that_has_the_files_is_named(mimic):
    mimic.write()
    there = str(mimic.root / "mimic-cxr-2.0.0-metadata.csv.gz")
    refused(mimic, f"{there} is there", root=str(mimic.folder))
    refused(mimic, f"{there} is there", root=str(mimic.root / "files"))
    refused(mimic, "chat_dev", "is there", "annotations", annotations=str(mimic.folder))
    for path in mimic.captions.glob("*.json"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    refused(mimic, "neither", "unpack chat_dev")


def test_a_folder_that_cannot_be_looked_into_is_no_traceback(mimic):
    mimic.write()
    name = str(mimic.folder / ("x" * 300))  # as without the right to a folder, `stat` refuses it
    refused(mimic, "cannot look into a folder", root=name)
    refused(mimic, "cannot look into the folder of annotations", annotations=name)


def test_an_edited_table_beside_its_archive_is_warned_of(mimic, caplog):
    mimic.write()
    packed = mimic.root / "mimic-cxr-2.0.0-metadata.csv.gz"
    plain = packed.with_suffix("")
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    with caplog.at_level("WARNING"):
        whole = built(mimic)
    assert "is read, not" not in caplog.text
    plain.write_text("\n".join(plain.read_text().splitlines()[:4]))
    with caplog.at_level("WARNING"):
        assert built(mimic).equals(whole)
    assert f"{packed} is read, not {plain.name}" in caplog.text


def test_a_study_that_is_no_number_in_chexpert(mimic):
    mimic.chexpert[2]["study_id"] = "s50000003"  # it would match no image, silently
    refused(mimic.write(), "study_id 's50000003' is no number", "row 4", "chexpert")


def test_a_patient_in_the_validation_split_and_another_is_warned_of(mimic):
    built(mimic.write())
    assert "warning_patients_in_two_splits" not in attrition(mimic)
    mimic.split[8]["split"] = "validate"  # d-e2, whose patient is tested
    built(mimic.write())
    row = attrition(mimic)["warning_patients_in_two_splits"]
    assert row["reason"].startswith("1 patient(s)")
    assert "p19000033" in row["reason"]


def test_a_question_in_place_of_a_report_is_refused(mimic):
    mimic.annotations["train"][2]["conversations"].reverse()
    refused(mimic.write(), "the human's", "chat_train", "entry 3")


def test_an_unknown_method_is_warned_of(mimic):
    built(mimic.write())
    assert "warning_unknown_method" not in attrition(mimic)
    for entry in mimic.annotations["train"]:
        entry["generate_method"] = entry["generate_method"].replace("gpt4", "gpt-4")
    built(mimic.write())
    row = attrition(mimic)["warning_unknown_method"]
    assert (row["kept"], "'gpt-4' 5" in row["reason"]) == ("5", True)


def test_a_row_cut_short_is_named(mimic):
    mimic.write(gz=False)
    path = mimic.root / "mimic-cxr-2.0.0-chexpert.csv"
    path.write_text(path.read_text().rstrip()[:-20])
    refused(mimic, str(path), "Row #", "Expected 16 columns")


def test_missing_columns_and_rows(mimic):
    mimic.write(gz=False)
    path = mimic.root / "mimic-cxr-2.0.0-chexpert.csv"
    text = path.read_text()
    path.write_text(text.replace("Edema", "Oedema"))
    refused(mimic, str(path), "missing column(s): Edema")
    path.write_text(text.splitlines()[0] + "\n")
    refused(mimic, str(path), "no rows")
    path.write_bytes(text.replace("Edema", "Œdema").encode("latin-1", "replace") + b"\xff\xfe")
    refused(mimic, str(path), "not UTF-8")


@pytest.mark.parametrize("table", ["metadata", "split"])
def test_a_duplicate_dicom_id_names_both_rows(mimic, table):
    getattr(mimic, table).append(dict(getattr(mimic, table)[2]))
    refused(mimic.write(), "d-a3", "rows 4 and 14", f"mimic-cxr-2.0.0-{table}")


def test_a_duplicate_study_in_chexpert(mimic):
    mimic.chexpert.append(dict(mimic.chexpert[0]))
    refused(mimic.write(), "10000032/50000001", "occurs twice", "chexpert")


def test_an_unknown_split_value(mimic):
    mimic.split[4]["split"] = "val"
    refused(mimic.write(), "'val'", "row 6", "train, validate, test")


@pytest.mark.parametrize("label", ["2", "1.5", "yes", "nan", "-1.5"])
def test_a_label_outside_its_domain(mimic, label):
    mimic.chexpert[1]["Fracture"] = label
    refused(mimic.write(), "Fracture", repr(label), "row 3", "chexpert")


def test_an_image_without_a_split(mimic):
    del mimic.split[3]
    refused(mimic.write(), "1 images have no split", "d-b1")


def test_tables_that_disagree_about_a_patient(mimic):
    mimic.split[0]["subject_id"] = "10000033"
    refused(mimic.write(), "subject_id of d-a1", "10000033")


@pytest.mark.parametrize("subject", ["", "p10000032", "1.5"])
def test_a_subject_that_is_no_number(mimic, subject):
    mimic.metadata[0]["subject_id"] = subject
    refused(mimic.write(images=False), "subject_id", "row 2")


def test_a_patient_in_train_and_test_is_named(mimic):
    mimic.split[7]["split"] = "train"  # d-e1, whose patient's other images are tested
    refused(mimic.write(), "p19000033", "share 1 patient(s)", "split")


def test_missing_and_empty_image_files(mimic):
    mimic.write()
    missing = mimic.root / "files" / mimic.image("d-a1", "")
    missing.unlink()
    (mimic.root / "files" / mimic.image("d-c1", "")).write_bytes(b"")
    (mimic.root / "files" / mimic.image("d-a2", "")).unlink()  # a lateral view, not needed
    refused(mimic, "2 of 9 image files", str(missing), "d-c1.jpg (empty)", "complete the download")
    assert len(built(mimic, "--no-check-files")) == 9


def test_films_under_another_name_are_pointed_at(mimic):
    for path in (mimic.write().root / "files").rglob("*.jpg"):
        path.rename(path.with_suffix(".JPG"))
    refused(mimic, "9 of 9 image files", "; d-a1.JPG is there", "not one is there")


def test_no_image_of_the_wanted_views(mimic):
    for row in mimic.metadata:
        row["ViewPosition"] = "LATERAL"
    refused(mimic.write(), "no image has a view among AP, PA", "'LATERAL' 12", "cohort.views")


def test_missing_annotations(mimic):
    mimic.write()
    files = {path.name.split("_")[1]: path for path in mimic.captions.glob("*.json")}
    files["dev"].unlink()
    manifest = built(mimic)
    assert manifest.loc["d-d1", "caption"] is None
    for name in ("manifest.parquet", "attrition.csv"):
        (mimic.folder / name).unlink()
    files["test"].unlink()
    refused(mimic, "annotation file is missing", str(files["test"]))
    files["train"].unlink()
    refused(mimic, "LLAVARAD_ANNOTATIONS_TRAIN", str(mimic.captions))
    refused(mimic, "folder of annotations is missing", annotations=str(mimic.folder / "no"))


DAMAGES: dict[str, tuple[Callable[[str], str], str]] = {
    "an object": (lambda text: '{"data": ' + text + "}", "not an object"),
    "an empty file": (lambda text: "", "an empty file"),
    "no JSON": (lambda text: "nothing", "array was expected"),
    "cut in an entry": (lambda text: text[: len(text) // 2], "cut short or damaged"),
    "cut after an entry": (lambda text: text[:-1], "cut short"),
    "an array of numbers": (lambda text: "[1, 2]", "entry 1"),
    "a number later": (lambda text: text[:-1] + ", 7]", "entry 8"),
    "no comma": (lambda text: text.replace('}, {"id"', '} {"id"', 1), "entry 2"),
    "a comma at the end": (lambda text: text[:-1] + ",]", "entry 8"),
    "more after the end": (lambda text: text + "[]", "follows the end"),
    "an entry without an image": (lambda text: '[{"conversations": []}]', "entry 1"),
    "an image that is no path": (
        lambda text: '[{"image": 1, "conversations": []}]',
        "`image` (a path)",
    ),
    "no conversations": (lambda text: '[{"image": "a/b.jpg"}]', "`conversations` (a list)"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_annotations(mimic, damage, monkeypatch):
    change, word = DAMAGES[damage]
    mimic.write()
    path = mimic.captions / "chat_train_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    refused(mimic, str(path), word)
    monkeypatch.setattr(annotations_module, "_CHUNK", 50)  # a fault may straddle two chunks
    refused(mimic, str(path), word)


def test_annotations_that_are_not_utf8(mimic):
    mimic.write()
    path = mimic.captions / "chat_test_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
    path.write_bytes(path.read_bytes()[:-5] + b"\xff]")
    refused(mimic, str(path), "not UTF-8")


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
def test_the_array_reader_agrees_with_json_load(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(annotations_module, "_CHUNK", chunk)
    entries = [{"a": [1, {"b": "}]"}], "text": 'é "x" \\ \n'}, {}, {"n": None, "f": -1.5e3}]
    path = tmp_path / "x.json"
    for indent in (None, 1):
        path.write_text("\n " + json.dumps(entries, indent=indent) + "\n\n")
        assert list(json_array(path)) == json.loads(path.read_text())
    path.write_text("[ ]")
    assert list(json_array(path)) == []


def test_a_missing_column_in_the_official_csvs(mimic):
    mimic.write()
    official_csvs(mimic)
    path = mimic.captions / "LLAVARAD_ANNOTATIONS_TEST.csv"
    path.write_text(path.read_text().replace("annotated_prompt", "prompt"))
    refused(mimic, str(path), "annotated_prompt")
    with gzip.open(f"{path}.gz", "wt") as stream:
        stream.write(path.read_text().replace(",prompt", ",annotated_prompt"))
    assert built(mimic)["caption"].notna().sum() == 3


@pytest.mark.parametrize(
    ("table", "column", "warning"),
    [("chexpert", "study_id", "no_label"), ("annotations", "image", "no_caption")],
)
def test_ids_that_match_nothing_are_warned_of(mimic, table, column, warning):
    files = [mimic.chexpert] if table == "chexpert" else mimic.annotations.values()
    for number, row in enumerate(row for rows in files for row in rows):
        row[column] = f"9{number}"
    built(mimic.write())
    assert {step for step in attrition(mimic) if step.startswith("warning_")} == {
        f"warning_{warning}"
    }


def test_image_ids_that_could_be_one_are_refused(mimic):
    mimic.metadata[1]["dicom_id"] = mimic.split[1]["dicom_id"] = "D-A1"
    with pytest.raises(InputError, match="dicom_id 'D-A1' and 'd-a1' differ only in blanks, case"):
        built(mimic.write())


def test_one_file_under_a_training_and_a_test_patient_is_refused(mimic):
    mimic.write()
    files = {name: mimic.root / "files" / mimic.image(name, "") for name in ("d-a1", "d-e1")}
    files["d-e1"].write_bytes(files["d-a1"].read_bytes())
    with pytest.raises(InputError, match="1 of 4 test images have the same file") as caught:
        built(mimic)
    assert "d-e1 (p19000033, test) and d-a1 (p10000032, train)" in caught.value.what
