"""Which partition and which resources the profiles ask SLURM for, job by job, on stub files."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.workflow.checkouts import ROOT, run
from tests.workflow.stubs import AT_ONCE, make_stub_sources, sbatch_stand_in

TARGETS = {
    "finetune_train": "results/finetune/sd_v1_4/spans/1",
    "generate_sample": "results/generate/sd_v1_5/test/part-00000-of-00004.parquet",
    "generate_control": "results/generate/noise/test/part-00000-of-00004.parquet",
    "features_fidelity": "results/features/sd_v2/test/rad_dino.h5",
    "fidelity_score": "results/fidelity/rad_dino/sd_v2_1.json",
    "privacy_score": "results/privacy/sd_v2_1.json",
    "downstream_train_judge": "results/downstream/classification/real_only/real/repeat-0.parquet",
}


def test_profiles_are_found_where_paths_have_blanks(tmp_path):
    folder, home = tmp_path / "my checkout", tmp_path / "my home"
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copy(ROOT / "Makefile", folder)
    run(["make", "profiles", f"HOME={home}"], folder)
    for name in ("slurm_h200", "slurm_a100"):
        linked = home / ".config/snakemake" / name
        assert linked.resolve() == (folder / "profiles" / name).resolve()
        assert (linked / "config.yaml").is_file()


@pytest.mark.parametrize(("profile", "trainers"), [("slurm_h200", "h200"), ("slurm_a100", "a100")])
def test_the_bare_profile_name_submits_jobs_to_their_partitions(
    paper_plan, checkout, tmp_path, profile, trainers
):
    paper_plan.make_stub_outputs(make_stub_sources(checkout))
    home = tmp_path / "home"
    run(["make", "profiles", f"HOME={home}"], checkout)
    notes = sbatch_stand_in(tmp_path / "bin")
    command = ["snakemake", "--profile", profile, "--retries", "0", "--no-hooks"]
    controls = [name for name in paper_plan.outputs if name.startswith("results/generate/noise/")]
    assert len(controls) > 16
    command += [*AT_ONCE, "--force", *TARGETS.values(), *controls]
    path = os.pathsep.join(
        [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    homes = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
    done = run(command, checkout, check=False, PATH=path, **homes)
    submitted, requests = {}, []
    for line in notes.read_text().splitlines() if notes.exists() else []:
        words = json.loads(line)
        comment = next(w for w in words if w.startswith("rule_"))
        rule = next(rule for rule in TARGETS if comment.startswith(f"rule_{rule}"))
        submitted[rule] = " ".join(words)
        if rule == "generate_control":
            cpus = next(w for w in words if w.startswith("--cpus-per-task="))
            requests.append((words[words.index("--mem") + 1], cpus.partition("=")[2]))
    assert set(submitted) == set(TARGETS), done.stdout[-4000:]
    for rule in ("finetune_train", "generate_sample"):
        assert f"-p {trainers}" in submitted[rule]
    assert f"--gpus={trainers}:4" in submitted["finetune_train"]
    assert "--nodes=1" in submitted["finetune_train"]
    assert f"--gpus={trainers}:1" in submitted["generate_sample"]
    for rule in (
        "features_fidelity",
        "fidelity_score",
        "privacy_score",
        "downstream_train_judge",
    ):
        assert "-p a100" in submitted[rule]
        assert "--gpus=a100:1" in submitted[rule]
    assert "-p cpu" in submitted["generate_control"]
    assert "--gpus" not in submitted["generate_control"]
    # Each is a SLURM job of its own, which asks for what the rule says of one job.
    assert len(requests) == len({TARGETS["generate_control"], *controls})
    assert set(requests) == {("8000", "1")}
