"""The workflow as a module of another one, in a folder without its code."""

import csv
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.workflow.checkouts import ROOT, make_checkout, run
from tests.workflow.stubs import make_stub_sources

PLAN = ["snakemake", "--dry-run", "--printshellcmds"]
BLOCK = re.compile(r"```snakemake\n(.*?)```", re.DOTALL)


def snakefile(checkout):
    """Return the Snakefile of the docs, for a checkout."""
    (block,) = BLOCK.findall((ROOT / "docs/how-to/module.md").read_text())
    return block.replace("/path/to/chexgenbench", str(checkout))


def deployed(folder, checkout, config):
    """Make the layout of `snakedeploy deploy-workflow`."""
    (folder / "workflow").mkdir(parents=True)
    (folder / "config").mkdir()
    (folder / "workflow/Snakefile").write_text(snakefile(checkout))
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def image_folder(tmp_path):
    """A config of twelve radiographs of twelve patients."""
    folder = tmp_path / "films"
    folder.mkdir()
    noise = np.random.default_rng(0)
    rows = [("file", "patient", "view", "split", "text", "labels")]
    for number in range(12):
        gray = noise.integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(gray).save(folder / f"{number}.png")
        split = ("train", "train", "validate", "test")[number % 4]
        rows.append((f"{number}.png", f"p{number}", "PA", split, f"caption {number}", "Edema"))
    with (folder / "films.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    columns = {"path": "file", "patient_id": "patient", "view": "view", "split": "split"}
    columns["caption"] = "text"
    findings = {"column": "labels", "values": {"Edema": "Edema"}, "absent": 0}
    source = {"root": str(folder), "metadata": str(folder / "films.csv")}
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["cohort"] |= {"dataset": "Films", "source": "image_folder"}
    config["cohort"]["image_folder"] = {**source, "columns": columns, "findings": findings}
    return config


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """A checkout, and a separate folder with stub sources for the paper's config."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "checkout").mkdir()
    checkout = make_checkout(tmp_path / "checkout")
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["run_models"] = ["sd_v1_4", "noise"]  # fewer jobs are planned sooner
    config["downstream"]["tasks"] = ["classification", "report_generation"]
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    folder = deployed(tmp_path / "study", checkout, config)
    return checkout, make_stub_sources(folder)


def test_the_same_jobs_are_planned_elsewhere_and_an_edit_of_the_checkouts_code_is_seen(apart):
    checkout, folder = apart
    make_stub_sources(checkout)
    here, elsewhere = (run(PLAN, place).stdout for place in (checkout, folder))
    assert jobs_of(elsewhere) == jobs_of(here)
    assert ("fidelity_score", "2") in jobs_of(here)
    scorers = re.findall(r"PYTHONPATH=(\S+)", elsewhere)  # they have packages of their own
    assert scorers
    assert all(str(checkout) in paths.split(":") for paths in scorers)
    assert str(checkout) not in "".join(re.findall(r"PYTHONPATH=(\S+)", here))
    assert not (folder / "workflow_scripts").exists()
    known = (folder / ".snakemake/code.json").read_text()
    assert "workflow_scripts/fidelity/score.py" in known
    script = checkout / "workflow_scripts/fidelity/score.py"
    script.write_text(script.read_text() + "\nEDITED = 1\n")
    run(["snakemake", "--dry-run", "results/cohort/manifest.parquet"], folder)
    assert (folder / ".snakemake/code.json").read_text() != known


def jobs_of(output):
    """Return the table of planned jobs."""
    return sorted(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE))


def test_a_job_runs_and_the_check_before_it_is_made(tmp_path, image_folder, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    folder = deployed(tmp_path / "study", ROOT, image_folder)
    done = run(["snakemake", "--cores", "1", "results/cohort/prompts/test.csv"], folder).stdout
    assert "ok     cohort.image_folder.metadata" in done
    assert "caption" in (folder / "results/cohort/prompts/test.csv").read_text()
    again = run(["snakemake", "--cores", "1", "results/cohort/prompts/test.csv"], folder).stdout
    assert "Nothing to be done" in again


def test_another_directory_can_be_named_on_the_command_line(tmp_path, image_folder, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(image_folder))
    command = ["snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path]
    command += ["--cores", "1", "results/cohort/manifest.parquet"]
    run(command, tmp_path)
    assert (tmp_path / "results/cohort/manifest.parquet").is_file()
