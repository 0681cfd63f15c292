"""Preflight reads a cohort's tables as its job will, so that wrong ones stop the run at once."""

import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.preflight.check import Check, check_cohort, preflight, read_config

MODEL = "sd_v1_5"


def checks(mimic, *models: str, captions: int = 2, **cohort) -> list[Check]:
    config = read_config(["config.yaml"])
    config["cohort"] |= cohort
    source = {"root": str(mimic.root), "annotations": str(mimic.captions)}
    config["cohort"]["mimic_cxr_jpg"] = source
    for name in ("privacy", "augment"):
        config["prompt_sets"][name]["captions"] = captions
    config["prompt_sets"]["augment"]["draw"] = "unique"
    return preflight(config, {"cohort"}, set(models))


def fault(mimic, *models: str, **changes) -> str:
    """Return the only fault that is found, which has a place and a remedy."""
    (found,) = [check for check in checks(mimic, *models, **changes) if check.fault is not None]
    assert found.fault is not None
    assert found.fault.where is not None
    assert found.fault.remedy
    return str(found.fault)


def test_a_sound_source_passes(mimic):
    found = checks(mimic.write(), MODEL)
    assert [check.what for check in found] == [
        *("cohort.mimic_cxr_jpg.root", "cohort.mimic_cxr_jpg.annotations", "cohort")
    ]
    assert not any(check.fault for check in found)


def test_a_source_that_lacks_a_table_is_named_once(mimic):
    (mimic.write().root / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    assert "split.csv.gz (or .csv) is missing" in fault(mimic, MODEL)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda mini: mini.split[7].update(split="train"), "train and test share 1 patient"),
        (lambda mini: mini.metadata.append(dict(mini.metadata[2])), "occurs twice"),
        (lambda mini: mini.chexpert[1].update(Fracture="2"), "Fracture is '2'"),
        (lambda mini: mini.annotations["train"].append({"image": "x.jpg"}), "entry 8"),
        (lambda mini: mini.annotations.update(test=[]), "no test image has a caption"),
        (lambda mini: [row.update(split="train") for row in mini.split], "no test image"),
    ],
)
def test_tables_that_do_not_fit_are_refused(mimic, change, words):
    change(mimic)
    assert words in fault(mimic.write(), MODEL)


def test_too_few_captions_are_refused_where_a_model_draws_them(mimic):
    mimic.write()
    assert "3000 training captions are asked for" in fault(mimic, MODEL, captions=3000)
    assert not any(check.fault for check in checks(mimic, captions=3000))  # only the manifest


def test_only_prompt_sets_that_jobs_will_draw_are_drawn(mimic):
    mimic.write()
    config = read_config(["config.yaml"])
    source = {"root": str(mimic.root), "annotations": str(mimic.captions)}
    config["cohort"]["mimic_cxr_jpg"] = source
    check_cohort(config, ["test/test", "test"])
    for place in ("privacy", "training/privacy", "captions_impression/training/privacy"):
        with pytest.raises(InputError, match="2000 training captions"):
            check_cohort(config, [place])


def test_films_that_are_not_there_are_named(mimic):
    mimic.write()
    (mimic.root / "files" / mimic.image("d-f2", "")).unlink()
    assert "1 of 9 image files" in fault(mimic, MODEL)


def test_a_part_of_mimic_under_its_name_is_warned_of(mimic, caplog):
    with caplog.at_level("WARNING"):
        checks(mimic.write())
    assert "the split table has 12 images, MIMIC-CXR has 377,110" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        checks(mimic, dataset="A part of MIMIC-CXR")
    assert not caplog.text


def test_the_cohorts_warnings_are_shown(mimic, caplog):
    for row in mimic.chexpert:
        row["subject_id"] = "1"
    with caplog.at_level("WARNING"):
        checks(mimic.write(), dataset="Other")
    assert "no image has a label of any finding" in caplog.text


def test_a_file_that_cannot_be_opened_is_no_traceback(mimic):
    path = next(mimic.write().captions.glob("chat_train*"))
    path.unlink()
    path.mkdir()
    (found,) = [check for check in checks(mimic) if check.fault is not None]
    assert str(path) in str(found.fault)
