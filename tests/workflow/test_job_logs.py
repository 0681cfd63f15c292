"""Assignment of the SLURM executor's logs to jobs, for the table of costs."""

import csv
import os
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.profile import read_profile
from tests.rule_texts import rule_texts
from tests.workflow.checkouts import run
from tests.workflow.stubs import make_stub_sources, sbatch_stand_in
from workflow_scripts.costs import build
from workflow_scripts.costs.attempts import LEFT_OUT, read_attempts
from workflow_scripts.costs.jobs import SHARED, parse_patterns
from workflow_scripts.costs.slurm_accounting import FIELDS
from workflow_scripts.costs.sums import STAGES
from workflow_scripts.tables import build_costs

SUBMITTED = {
    "results/finetune/sd_v1_4/spans/1": ("finetune", "sd_v1_4"),
    "results/generate/sd_v1_5/test/part-00000-of-00004.parquet": ("generate", "sd_v1_5"),
    "results/generate/noise/privacy/part-00000-of-00008.parquet": ("generate", "noise"),
    "results/features/sd_v2/privacy/as_published/reid.h5": ("features", "sd_v2"),
    "results/features/radedit/privacy/reid.h5": ("features", "radedit"),
    "results/fidelity/rad_dino/sd_v2_1.json": ("fidelity", "sd_v2_1"),
    "results/privacy/attacker/real.json": ("privacy", SHARED),
    "results/privacy/as_published/sana.json": ("privacy", "sana"),
    "results/privacy/lenses/lumina_2.json": ("privacy", "lumina_2"),
    "results/downstream/classification/real_only/real/repeat-0.parquet": (
        *("classification", SHARED),
    ),
    "results/downstream/segmentation/augmented/lumina_2/repeat-0.parquet": (
        *("segmentation", "lumina_2"),
    ),
    "results/downstream/segmentation/masks/flux_1_dev.parquet": ("segmentation", "flux_1_dev"),
}


def value_of(words, flag):
    return words[words.index(flag) + 1]


def test_every_log_of_the_executor_is_its_jobs(paper_plan, checkout, tmp_path, monkeypatch):
    words = paper_plan.words("costs.build")
    paper_plan.make_stub_outputs(make_stub_sources(checkout))
    for path in (checkout / "results").rglob("*"):
        os.utime(path, (2e9, 2e9))  # none older than what it is made from: only targets run
    sbatch_stand_in(tmp_path / "bin")
    path = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    alone = read_profile(Path("profiles/slurm_h200/config.yaml"))
    alone["slurm-init-seconds-before-status-checks"] = 1  # no job is submitted
    (checkout / "alone").mkdir()
    (checkout / "alone/config.yaml").write_text(yaml.safe_dump(alone))
    command = ["snakemake", "--profile", "alone", "--retries", "0", "--no-hooks"]
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
    build.main(words)
    attempts = read_attempts(value_of(words, "--output"))
    jobs = sorted((attempt.stage, attempt.model) for attempt in attempts)
    assert jobs == sorted(SUBMITTED.values())
    assert {attempt.state for attempt in attempts} == {"FAILED"}
    build_costs.main(paper_plan.words("tables.build_costs"))
    text = Path("results/tables/costs.csv").read_text(encoding="utf-8")
    total = list(csv.DictReader(text.splitlines()))[-1]
    assert float(total["GPU-hours"]) == float(total["Failed attempts"]) == len(SUBMITTED)


def test_every_rule_leaves_a_benchmark_file_of_a_stage_and_says_its_gpus(paper_plan):
    words = paper_plan.words("costs.build")
    patterns = parse_patterns(value_of(words, "--rules"))
    assert {rule.name for rule in patterns} == rule_texts(paper_plan.folder / "rules").keys()
    assert {rule.stage for rule in patterns} == {*STAGES, *LEFT_OUT}
    gpus = {rule.name: rule.gpus for rule in patterns}
    assert (gpus["finetune_train"], gpus["generate_sample"], gpus["cohort_manifest"]) == (4, 1, 0)


@pytest.mark.parametrize("profile", ["slurm_h200", "slurm_a100"])
def test_the_profiles_keep_the_logs_that_say_whose_a_job_was(profile):
    settings = read_profile(Path(f"profiles/{profile}/config.yaml"))
    assert settings["slurm-keep-successful-logs"] is True
    assert settings["slurm-delete-logfiles-older-than"] == 0
