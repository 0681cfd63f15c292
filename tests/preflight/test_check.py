import gzip
import json
import re

import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.preflight.check import (
    check_annotations,
    check_metadata,
    check_mimic_cxr_jpg,
    check_table,
    check_writable,
    explained,
    format_checks,
    main,
    preflight,
    read_config,
)

TABLES = {
    "metadata": "dicom_id,subject_id,study_id,ViewPosition",
    "split": "dicom_id,study_id,subject_id,split",
    "chexpert": ",".join(["subject_id", "study_id", *FINDINGS]),
}


@pytest.fixture
def mimic(tmp_path):
    (tmp_path / "files" / "p10").mkdir(parents=True)
    for name, header in TABLES.items():
        with gzip.open(tmp_path / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt") as file:
            file.write(header + "\n" + (re.sub("[^,]+", "0", header) + "\n") * 2000)
    return tmp_path


def test_a_whole_source_passes(mimic):
    check_mimic_cxr_jpg(mimic)


@pytest.mark.parametrize("damage", ["missing", "truncated", "column", "files"])
def test_a_damaged_source_is_named(mimic, damage):
    path = mimic / "mimic-cxr-2.0.0-split.csv.gz"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "column":
        with gzip.open(path, "wt") as file:
            file.write("dicom_id,study_id,subject_id\n0,0,0\n")
    else:
        (mimic / "files" / "p10").rmdir()
    with pytest.raises(InputError, match="files" if damage == "files" else "split"):
        check_mimic_cxr_jpg(mimic)


def test_annotations_are_whole_json_arrays_or_csvs(tmp_path):
    with pytest.raises(InputError, match="empty"):
        check_annotations(tmp_path)
    for split in ("train", "test"):
        name = f"chat_{split}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
        (tmp_path / name).write_text(json.dumps([{"id": split}] * 20) + "\n")
    check_annotations(tmp_path)
    (tmp_path / name).write_text(json.dumps([{"id": split}] * 20)[:-5])
    with pytest.raises(InputError, match=r"not a complete JSON array[\s\S]*chat_test"):
        check_annotations(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"chat_test_\*\.json is missing"):
        check_annotations(tmp_path)


def test_the_official_csvs_are_an_alternative(tmp_path):
    for split in ("TRAIN", "TEST"):
        path = tmp_path / f"LLAVARAD_ANNOTATIONS_{split}.csv"
        path.write_text("path,annotated_prompt,view\na.jpg,clear lungs,PA\n")
    check_annotations(tmp_path)
    path.write_text("path,view\na.jpg,PA\n")
    with pytest.raises(InputError, match=r"missing column.* annotated_prompt"):
        check_annotations(tmp_path)
    path.unlink()
    with gzip.open(path.with_suffix(".csv.gz"), "wt") as file:  # the reader accepts it, too
        file.write("path,annotated_prompt\na.jpg,clear lungs\n")
    check_annotations(tmp_path)


def test_the_table_that_is_checked_is_the_table_that_is_read(mimic):
    """A plain copy next to the archive is never read, whatever its content."""
    (mimic / "mimic-cxr-2.0.0-split.csv").write_text("left over from another release\n")
    check_mimic_cxr_jpg(mimic)
    (mimic / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(b"no archive")
    (mimic / "mimic-cxr-2.0.0-split.csv").write_text(TABLES["split"] + "\n0,0,0,train\n")
    with pytest.raises(InputError, match=r"split\.csv\.gz"):
        check_mimic_cxr_jpg(mimic)


def test_a_byte_order_mark_is_no_fault(mimic, tmp_path):
    path = mimic / "mimic-cxr-2.0.0-metadata.csv.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + content))
    check_mimic_cxr_jpg(mimic)
    folder = tmp_path / "annotations"
    folder.mkdir()
    for split in ("train", "test"):
        name = f"chat_{split}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
        (folder / name).write_text(json.dumps([{"id": split}]), encoding="utf-8-sig")
    check_annotations(folder)
    (tmp_path / "own.csv").write_text("file_name,prompt_id\na.png,test-0\n", encoding="utf-8-sig")
    check_metadata(tmp_path / "own.csv")


def test_images_that_are_not_there_are_named_before_any_job(tmp_path):
    config = read_config(["config.yaml"])
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,prompt_id\na.png,test-0\nb.png,test-1\n")
    external = {"images": str(tmp_path), "metadata": str(table)}
    block = {"family": "external", "external": external, "display": {"name": "Mine"}}
    config["models"]["mine"], config["run_models"] = block, ["mine"]
    (tmp_path / "a.png").write_bytes(b"x")

    def faults():
        checks = preflight(config, {"generate"}, {"mine"})
        return {check.what: check.fault for check in checks if check.fault}

    (fault,) = faults().values()
    assert "1 of 2 image files" in str(fault)
    assert "b.png (No such file" in str(fault)
    (tmp_path / "b.png").write_bytes(b"x")
    assert not faults()


def test_a_table_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "metadata.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="not UTF-8"):
        check_table(tmp_path / "metadata.csv", ["file_name"])


def test_only_what_the_planned_jobs_need_is_checked():
    config = read_config(["config.yaml"])
    checks = preflight(config, {"generate"}, {"sd_v1_5", "noise"})
    assert [check.what for check in checks] == ["models.sd_v1_5.generate", "models.sd_v1_5.base"]
    assert checks[0].fault is None  # the config names no files
    assert preflight(config, {"tables", "fidelity"}, {"sd_v1_5"}) == []
    everything = preflight(
        config, {"cohort", "finetune", "generate", "features", "downstream"}, {"sd_v1_5"}
    )
    assert {check.what.split(".")[0] for check in everything} == {
        "cohort",
        "models",
        "encoders",
        "downstream",
    }


def test_what_a_curated_set_reads_is_checked_once(tmp_path):
    config = read_config(["config.yaml"])
    own = {"encoders.rad_dino", "encoders.reid", "curate, organs", "curate"}
    judge = "faithfulness.judges, densenet_121"
    assert {check.what for check in preflight(config, {"curate"}, {"sana"})} == own | {judge}
    together = preflight(config, {"curate", "features", "faithfulness"}, {"sana"})
    names = [check.what for check in together]
    assert len(names) == len(set(names))
    assert "curate, organs" not in names
    config["curate"]["overfitted"] = str(tmp_path)
    (found,) = [c for c in preflight(config, {"curate"}, set()) if c.what == "curate.overfitted"]
    assert "metadata.csv" in str(found.fault)
    (tmp_path / "metadata.csv").write_text("file_name,image_id\na.png,film\n")
    (found,) = [c for c in preflight(config, {"curate"}, set()) if c.what == "curate.overfitted"]
    assert "missing, first 'a.png'" in str(found.fault)
    (tmp_path / "a.png").touch()
    (found,) = [c for c in preflight(config, {"curate"}, set()) if c.what == "curate.overfitted"]
    assert found.fault is None


def test_a_policy_by_which_no_set_can_be_curated_is_refused():
    def fault(**changed):
        config = read_config(["config.yaml"])
        config["curate"] |= changed
        config["faithfulness"]["judges"] = changed.pop("judges", ["densenet_121"])
        config["downstream"]["tasks"] = ["segmentation"]  # nobody trains a classifier
        (found,) = [c for c in preflight(config, {"curate"}, set()) if c.what == "curate"]
        return str(found.fault)

    assert fault() == "None"
    assert "no judge looks at images" in fault(judges=["classifier"])
    assert "'augment' are captions" in fault(published_prompts="templates")
    assert fault(published_prompts="templates", pool="stress") == "None"


@pytest.mark.parametrize(
    ("content", "said", "remedy"),
    [
        (b"<!DOCTYPE html>\n<html>Sign in</html>", "a web page stands", "log in"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS pointer", "lfs pull"),
        (b"Access to model a/b is restricted.", "a refusal stands", "ask for access"),
        (b'{"error":"Repository not found"}', "a refusal stands", "ask for access"),
        (b"anything else", "cannot read a configuration", "use the published"),
    ],
)
def test_what_stands_in_place_of_a_file_of_a_checkpoint_is_named(tmp_path, content, said, remedy):
    """A configuration's reader only says that it is no JSON; a weight file's reader says it all."""
    config = read_config(["config.yaml"])
    config["encoders"]["rad_dino"]["weights"] = str(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    found = {check.what: check.fault for check in preflight(config, {"features"}, set())}
    fault = found["encoders.rad_dino"]
    assert fault is not None
    assert said in fault.what
    assert remedy in str(fault.remedy)
    assert fault.where == tmp_path / "config.json"


def test_a_page_among_the_files_of_a_folder_is_found(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("<html>")
    fault = explained(InputError("a tokenizer cannot be loaded", tmp_path, "download it"))
    assert (fault.where, "a tokenizer cannot" in fault.what) == (tmp_path / "merges.txt", True)
    (tmp_path / "merges.txt").write_text("a b")
    assert explained(InputError("x", tmp_path, "y")).what == "x"
    assert explained(InputError("x", "fidelity.encoders", "y")).what == "x"


def test_a_folder_that_cannot_be_written_to_is_named_before_any_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_writable(["cohort"]).fault is None  # nothing is there yet, and nothing is made
    (tmp_path / "results").mkdir()
    assert check_writable(["cohort", "features"]).fault is None
    assert not any((tmp_path / "results").iterdir())
    (tmp_path / "results" / "features").symlink_to("/proc")  # where not even root writes
    fault = check_writable(["cohort", "features"]).fault
    assert fault is not None
    assert fault.where == tmp_path / "results" / "features"
    assert fault.remedy
    assert check_writable(["cohort"]).fault is None


def test_every_missing_file_has_a_remedy(capsys):
    with pytest.raises(InputError, match=r"\d+ of \d+ checks failed"):
        main(["--config", "config.yaml"])
    shown = capsys.readouterr().out
    faults = [line for line in shown.split("\n") if line.startswith("FAULT")]
    assert len(faults) == shown.count("remedy: ") == shown.count("where: ")


def test_a_lacking_family_and_a_pointer_are_refused(tmp_path):
    config = read_config(["config.yaml"])
    config["models"]["sd_v1_5"]["family"] = "stable_difusion"
    for check in preflight(config, {"generate"}, {"sd_v1_5"}):
        assert "stable_diffusion" in str(check.fault)
    weights = tmp_path / "model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    config["downstream"]["classification"]["weights"] = str(weights)
    checks = {check.what: check for check in preflight(config, {"downstream"}, set())}
    assert "Git LFS pointer" in format_checks([checks["downstream.classification"]])
    for name in ("base", "released"):
        assert "convert_llava_rad" in str(checks[f"downstream.report_generation, {name}"].fault)


def test_networks_that_read_reports_are_checked_where_the_config_names_them(tmp_path):
    config = read_config(["config.yaml"])
    named = {"chexbert", "radgraph", "green", "ratescore"}
    prefix = "downstream.report_generation.metrics."
    checks = [c for c in preflight(config, {"downstream"}, set()) if c.what.startswith(prefix)]
    assert {check.what.removeprefix(prefix) for check in checks} == named
    assert all(check.fault and check.fault.remedy and check.fault.where for check in checks)
    metrics = config["downstream"]["report_generation"]["metrics"]
    metrics.update(dict.fromkeys(named))
    checks = preflight(config, {"downstream"}, set())
    assert not [check for check in checks if check.what.startswith(prefix)]


def test_what_reports_on_images_is_checked_once_and_only_where_it_judges():
    config = read_config(["config.yaml"])
    config["faithfulness"]["judges"] = ["llava_rad"]

    def found(stages):
        return [c for c in preflight(config, stages, set()) if "llava_rad" in c.what]

    both = found({"faithfulness"})
    assert len(both) == 2
    assert all(check.fault and check.fault.remedy for check in both)
    assert found({"faithfulness", "downstream"}) == []  # report generation checks the same files
    config["downstream"]["tasks"] = ["classification"]
    assert len(found({"faithfulness", "downstream"})) == 2
    config["faithfulness"]["judges"] = ["classifier"]
    assert found({"faithfulness"}) == []
