"""The cost table's two ends: whose the SLURM executor's logs are, and the demo's own table."""

import csv
import json
import os
import re
import shlex
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.workflow.checkouts import planned_jobs, run
from tests.workflow.stubs import make_stub_sources
from tests.workflow.test_plan import outputs_up_to, sbatch_stand_in
from workflow_scripts.tables import build_costs
from workflow_scripts.tables.attempts import OTHER, SHARED, parse_patterns, read_attempts
from workflow_scripts.tables.costs import BENCHMARKS_ALONE, STAGES
from workflow_scripts.tables.slurm_accounting import FIELDS

PROFILE = ["--profile", "profiles/demo"]

SUBMITTED = {
    "results/finetune/sd_v1_4/training.csv": ("finetune", "sd_v1_4"),
    "results/generate/sd_v1_5/test/part-00000-of-00004.parquet": ("generate", "sd_v1_5"),
    "results/generate/noise/privacy/part-00000-of-00008.parquet": ("generate", "noise"),
    "results/features/sd_v2/privacy/as_published/reid.h5": ("features", "sd_v2"),
    "results/features/radedit/privacy/reid.h5": ("features", "radedit"),
    "results/features/real/held_out/as_published/reid.h5": ("features", SHARED),
    "results/fidelity/rad_dino/sd_v2_1.json": ("fidelity", "sd_v2_1"),
    "results/privacy/as_published/sana.json": ("privacy", "sana"),
    "results/privacy/closest/sana.json": ("privacy", "sana"),
    "results/downstream/classification/real_only/real/repeat-0.parquet": (
        *("classification", SHARED),
    ),
    "results/downstream/segmentation/augmented/lumina_2/repeat-0.parquet": (
        *("segmentation", "lumina_2"),
    ),
    "results/downstream/segmentation/masks/flux_1_dev.parquet": ("segmentation", "flux_1_dev"),
}


def words_of(checkout, script, *flags):
    """The words of a script's command, as the workflow plans to run it."""
    output = run(["snakemake", "--dry-run", "--printshellcmds", *flags], checkout).stdout
    line = next(x for x in output.splitlines() if f"python -m workflow_scripts.{script} " in x)
    return shlex.split(line[line.index("python -m") :].partition(" 2> ")[0])[3:]


def value_of(words, flag):
    return words[words.index(flag) + 1]


def test_every_log_of_the_executor_is_its_jobs(checkout, tmp_path, monkeypatch):
    make_stub_sources(checkout)
    flags = ["--configfile", "config.yaml"]
    words = words_of(checkout, "tables.build_costs", *flags)
    outputs_up_to(checkout, SUBMITTED, flags)
    for path in (checkout / "results").rglob("*"):
        os.utime(path, (2e9, 2e9))  # none older than what it is made from: only targets run
    sbatch_stand_in(tmp_path / "bin")
    path = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    command = ["snakemake", "--profile", "profiles/slurm_h200", "--retries", "0", "--no-hooks"]
    run([*command, "--force", *SUBMITTED], checkout, check=False, PATH=os.pathsep.join(path))

    # The stand-in submits nothing, but the executor has made the folders of the logs by then.
    logs = checkout / ".snakemake/slurm_logs"
    folders = sorted({Path(parent) for parent, inner, _ in os.walk(logs) if not inner})
    assert len(folders) == len(SUBMITTED), [f.relative_to(logs) for f in folders]
    for job_id, folder in enumerate(folders):
        (folder / f"{job_id}.log").touch()
    row = dict.fromkeys(FIELDS, "") | {"JobName": "run", "State": "FAILED", "ElapsedRaw": "3600"}
    row["AllocTRES"] = "cpu=8,gres/gpu:h200=1,gres/gpu=1,mem=1G,node=1"
    answer = "".join(
        "|".join((row | {"JobIDRaw": str(job_id)}).values()) + "\n"
        for job_id in range(len(folders))
    )
    (tmp_path / "answer").write_text(answer)
    (tmp_path / "bin/sacct").write_text(f"#!/bin/sh\ncat {tmp_path / 'answer'}\n")
    monkeypatch.setenv("PATH", os.pathsep.join(path))
    monkeypatch.chdir(checkout)
    build_costs.main(words)
    attempts = read_attempts(value_of(words, "--jobs"))
    found = sorted((attempt.stage, attempt.model) for attempt in attempts)
    assert found == sorted(SUBMITTED.values())
    assert {attempt.state for attempt in attempts} == {"FAILED"}
    text = Path("results/tables/costs.csv").read_text(encoding="utf-8")
    total = list(csv.DictReader(text.splitlines()))[-1]
    assert float(total["GPU-hours"]) == float(total["Failed attempts"]) == len(SUBMITTED)


def test_every_rule_leaves_a_benchmark_file_of_a_stage_and_says_its_gpus(checkout):
    make_stub_sources(checkout)
    words = words_of(checkout, "tables.build_costs", "--configfile", "config.yaml")
    patterns = parse_patterns(value_of(words, "--rules"))
    text = "".join(path.read_text() for path in (checkout / "rules").glob("*.smk"))
    named = re.findall(r"^(?:rule|checkpoint) (\w+):$", text, re.MULTILINE)
    assert {rule.name for rule in patterns} == set(named)
    assert {rule.stage for rule in patterns} == {*STAGES, "tables"}
    gpus = {rule.name: rule.gpus for rule in patterns}
    assert (gpus["finetune_train"], gpus["generate_sample"], gpus["cohort_manifest"]) == (4, 1, 0)


@pytest.mark.parametrize("profile", ["slurm_h200", "slurm_a100"])
def test_the_profiles_keep_the_logs_that_say_whose_a_job_was(profile):
    settings = yaml.safe_load(Path(f"profiles/{profile}/config.yaml").read_text())
    assert settings["slurm-keep-successful-logs"] is True
    assert settings["slurm-delete-logfiles-older-than"] == 0


def benchmark_seconds(demo, folder="*"):
    rows = [
        row
        for path in (demo / "benchmarks").glob(f"{folder}/**/*.tsv")
        if path.relative_to(demo / "benchmarks").parts[0] != "tables"
        for row in csv.DictReader(path.read_text().splitlines(), delimiter="\t")
    ]
    return sum(float(row["s"]) for row in rows)


@pytest.mark.workflow
def test_the_demos_wall_time_is_the_sum_of_its_benchmark_files(demo):
    with (demo / "results/tables/costs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    total = rows[-1]
    assert (total["Model"], total["Stage"]) == ("Total", "All stages")
    assert float(total["Wall time (h)"]) * 3600 == pytest.approx(benchmark_seconds(demo))
    assert float(total["GPU-hours"]) == 0
    assert total["Failed attempts"] == "–"
    assert BENCHMARKS_ALONE in total["Notes"]
    tuned = [row for row in rows if row["Stage"] == "Fine-tuning" and row["Block"] == "model"]
    assert {row["Model"] for row in tuned} == {"Tiny SD (fine-tuned)", "Tiny SD (LoRA)"}
    seconds = 3600 * sum(float(row["Wall time (h)"]) for row in tuned)
    assert seconds == pytest.approx(benchmark_seconds(demo, "finetune"))
    attempts = read_attempts(demo / "results/tables/jobs.csv")
    assert OTHER not in {attempt.model for attempt in attempts}
    assert "hours of wall time" in (demo / "results/tables/report.html").read_text()


@pytest.mark.workflow
def test_the_cost_makes_the_report_anew_and_no_other_table(demo):
    jobs = planned_jobs(demo, *PROFILE, "--forcerun", "tables_costs")
    assert jobs == {("tables_costs", None), ("tables_report", None)}


@pytest.mark.workflow
def test_the_bundle_has_the_cost_and_not_the_jobs(demo):
    run(["snakemake", *PROFILE, "release"], demo)
    with tarfile.open(demo / "results/tables/release.tar.gz") as archive:
        names = {Path(name).name for name in archive.getnames()}
    assert {"costs.csv", "costs.md", "costs.tex"} <= names
    assert "jobs.csv" not in names


@pytest.mark.workflow
def test_what_the_demo_made_names_its_job(demo):
    record = json.loads((demo / "results/fidelity/rad_dino/tiny_sd.json").read_text())
    assert {"slurm_job_id", "slurm_node", "device"} <= record["provenance"].keys()
    span = json.loads((demo / "results/finetune/tiny_sd/spans/1/span.json").read_text())
    assert {"slurm_job_id", "slurm_node", "device"} <= span["provenance"].keys()
    assert span["provenance"]["device"] == "cpu"
