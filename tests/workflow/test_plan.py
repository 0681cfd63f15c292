"""Planned and submitted jobs and refused configs, on stub files and without weights."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.cluster.profile import gpus_of_rules, read_profile
from tests.gpu.lines import COLUMNS
from tests.rule_texts import rule_texts
from tests.workflow.checkouts import make_checkout, planned_jobs, run, with_world
from tests.workflow.plans import Plan
from tests.workflow.stubs import AT_ONCE, make_stub_sources, sbatch_stand_in, write_overlay
from workflow_scripts.tables.figures.workflow import draw_workflow
from workflow_scripts.tables.rule_graph import parse_nodes


def test_the_paper_with_eleven_systems_is_planned_whole(paper_plan):
    counts = paper_plan.counts
    assert counts["finetune_train"] == counts["finetune_finish"] == 9
    assert counts["generate_sample"] == 11 * (4 + 8 + 8 + 1)
    assert counts["faithfulness_stress"] == counts["faithfulness_stress_look"] == 11
    assert counts["faithfulness_stress_radiographs"] == counts["cohort_stress"] == 1
    assert counts["fidelity_score"] == 15
    models = 11 + 6
    assert counts["privacy_score"] == counts["privacy_lenses"] == models
    assert counts["features_privacy"] == models  # under both protocols
    assert counts["privacy_extraction"] == 1  # of all models
    assert counts["privacy_attacker"] == counts["features_held_out"] == 1
    assert counts["features_training"] == 1
    assert counts["privacy_membership"] == 9 + 1  # LLM-CXR came trained and has a likelihood
    assert counts["privacy_membership_unknown"] == 1  # RadEdit came trained
    arms = 2 * (models - 2) + 1  # flipped and brightened copies have no such images
    repeats = 3  # of the cheap tasks: with one nothing is called a gain
    assert counts["downstream_train_judge"] == repeats
    assert counts["downstream_train_classifier"] == repeats * (arms - 1)
    assert counts["downstream_score_classifier"] == arms
    assert counts["downstream_train_segmenter"] == repeats * (models - 2 + 1)
    assert counts["downstream_train_reporter"] == arms + 1  # and the released one
    scorers = ("chexbert", "radgraph", "green", "ratescore")
    assert {counts[f"downstream_{name}"] for name in scorers} == {arms + 1}
    assert counts["faithfulness_score"] == models - 2
    assert counts["faithfulness_look"] == models - 2 + 1  # and the radiographs
    assert counts["faithfulness_score_real"] == 1


def test_the_workflow_is_drawn_as_snakemake_plans_it(paper_plan):
    words = paper_plan.words("tables.build_figures")
    nodes = parse_nodes(words[words.index("--rules") + 1])
    assert {node.name for node in nodes} == rule_texts(Path("rules")).keys()
    planned = {name: count for name, count in paper_plan.counts.items() if name != "all"}
    assert {node.name: node.jobs for node in nodes if node.jobs} == planned
    inputs = {node.name: set(node.inputs) for node in nodes}
    assert inputs["fidelity_score"] >= {"features_fidelity", "features_reference"}
    assert inputs["finetune_finish"] == {"finetune_train"}
    assert inputs["generate_sample"] == {"cohort_prompts", "cohort_stress", "finetune_finish"}
    assert inputs["generate_external"] == set(), "no model of this run is of this kind"
    gids = {artist.get_gid() for artist in draw_workflow(nodes).figure.axes[0].patches}
    assert {f"rule-{node.name}" for node in nodes} <= gids


@pytest.mark.full
def test_a_run_in_which_no_model_has_images_for_privacy_is_planned_whole(checkout):
    """A set cannot be curated of such a model: that rule is drawn alone, and nothing fails."""
    (with_world(checkout) / "own.yaml").write_text(
        "run_models: [held_out_real, noise]\n"
        "models: { held_out_real: { prompt_sets: [test] }, noise: { prompt_sets: [test] } }\n"
    )
    configs = ["config.yaml", "profiles/demo/overlay.yaml", "own.yaml"]
    command = ["snakemake", "--dry-run", "--printshellcmds", "--profile", "profiles/demo"]
    planned = Plan(checkout, run([*command, "--configfile", *configs], checkout).stdout)
    assert planned.counts["fidelity_score"] == 2
    assert "privacy_score" not in planned.counts
    words = planned.words("tables.build_figures")
    nodes = {node.name: node for node in parse_nodes(words[words.index("--rules") + 1])}
    assert nodes["faithfulness_score"].jobs == 2
    assert nodes["curate_plant"].jobs == 0


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A checkout without any source files."""
    return make_checkout(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def refused(bare):
    """A run of the paper without its files and with a batch that its GPUs do not divide."""
    command = ["snakemake", "--cores", "2", "--set-resources", "finetune_train:gpu=3"]
    done = run(command, bare, check=False)
    assert not (bare / "logs").exists(), "a job ran"
    return done


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fidelity: {nearest_kk: 5}", "unknown key 'nearest_kk' (did you mean 'nearest_k'?)"),
        ("fidelity: {seed: 1, seed: 2}", "fidelity.seed (lines 1 and 1)"),
    ],
)
def test_a_faulty_config_is_refused_before_planning(bare, tmp_path, text, said):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(text)
    command = ["snakemake", "--dry-run", "--configfile", "config.yaml", overlay]
    done = run(command, bare, check=False)
    assert done.returncode
    assert said in done.stdout


def test_preflight_names_what_is_missing_before_the_first_job(refused):
    assert refused.returncode
    assert "FAULT  models.sd_v2.base" in refused.stdout
    assert "FAULT  cohort.mimic_cxr_jpg.root" in refused.stdout
    assert "remedy: give the local folder" in refused.stdout


def test_a_batch_that_the_gpus_do_not_divide_is_refused_before_the_first_job(refused):
    assert "FAULT  models.sd_v2.finetune, 3 device(s)" in refused.stdout
    assert "use a number of devices that divides 128" in refused.stdout


def profile_rules(name):
    profile = read_profile(Path(f"profiles/{name}/config.yaml"))
    return set(profile.get("set-resources", {})) | set(profile.get("set-threads", {}))


@pytest.fixture(scope="module")
def listed_rules(paper_plan):
    command = ["snakemake", "--list-rules", "--quiet", "all"]
    return set(run(command, paper_plan.folder).stdout.split())


@pytest.mark.parametrize("profile", ["demo", "slurm_h200", "slurm_a100"])
def test_every_rule_that_a_profile_names_exists(listed_rules, profile):
    assert profile_rules(profile) <= listed_rules


@pytest.mark.parametrize("profile", ["demo", "slurm_h200", "slurm_a100"])
def test_every_rule_that_asks_for_a_gpu_has_its_place_in_the_profile(profile):
    asking = set(gpus_of_rules(Path("rules")))
    assert len(asking) > 6
    assert "finetune_train" in asking
    settings = read_profile(Path(f"profiles/{profile}/config.yaml"))
    assert asking <= set(settings["set-resources"])


def test_the_slurm_profiles_differ_only_in_what_a_site_edits():
    parts = [
        Path(f"profiles/{name}/config.yaml").read_text().partition("\nexecutor: slurm\n")
        for name in ("slurm_h200", "slurm_a100")
    ]
    assert parts[0][2] == parts[1][2]
    assert "SITE" not in parts[0][2]
    assert "__variables__" in parts[0][0]


def test_a_site_is_set_in_one_place(tmp_path):
    text = Path("profiles/slurm_h200/config.yaml").read_text()
    site = {"account: null": "account: mine", "scratch: null": "scratch: /local"}
    site |= {"slurm_partition: h200, gpu_model: h200": "slurm_partition: x, gpu_model: y"}
    site |= {"gpu_memory_gb: 141": "gpu_memory_gb: 80"}
    for ours, theirs in site.items():
        assert text.count(ours) == 1
        text = text.replace(ours, theirs)
    (tmp_path / "config.yaml").write_text(text)
    profile = read_profile(tmp_path / "config.yaml")
    assert profile["default-resources"]["slurm_account"] == "mine"
    assert profile["default-resources"]["tmpdir"] == "/local"
    tuning = profile["set-resources"]["finetune_train"]
    wanted = {"slurm_partition": "x", "gpu_model": "y", "gpu_memory_gb": 80, "cpus_per_task": 32}
    assert tuning == wanted


@pytest.mark.parametrize("name", ["slurm_h200", "slurm_a100"])
def test_no_profile_groups_jobs(name):
    """Snakemake lets groups grow beyond their size where a workflow has a checkpoint."""
    profile = read_profile(Path(f"profiles/{name}/config.yaml"))
    assert not [key for key in profile if key.startswith("group")]


def test_groups_of_a_site_are_refused_before_the_first_job(bare):
    command = ["snakemake", "--cores", "1", "--groups", "generate_control=controls"]
    command += ["--group-components", "controls=16", "--"]
    command += ["results/generate/noise/test/part-00000-of-00004.parquet"]
    done = run(command, bare, check=False)
    assert done.returncode
    assert "remedy: take it and `groups:` out" in done.stdout
    assert not (bare / "results/generate").exists()


def test_what_slurm_can_never_grant_is_refused_before_the_first_job(bare, tmp_path):
    notes = sbatch_stand_in(tmp_path / "bin")
    site = "h200|1-00:00:00|96|1500000|gpu:nvidia_h200:8\ncpu|infinite|64|500000|(null)"
    (tmp_path / "bin/sinfo").write_text(f"#!/bin/sh\necho '{site}'\n")
    path = os.pathsep.join(
        [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    command = ["snakemake", "--profile", "profiles/slurm_h200", *AT_ONCE]
    done = run(command, bare, check=False, PATH=path)
    assert done.returncode
    said = done.stdout
    assert re.search(r"FAULT  SLURM for finetune_train +h200: 4 x h200, 32 CPUs", said)
    assert "jobs request 2880 minutes, and partition h200 allows 1440" in said
    assert "has 1 GPU(s) h200; a node has 8 x nvidia_h200" in said
    assert said.count("there is no partition a100; SLURM has cpu, h200") == 1
    assert re.search(r"ok     SLURM for cohort_manifest", said)
    assert not notes.exists(), "a job was submitted"


def test_nothing_but_the_entry_points_is_planned_for_prompts(paper_plan):
    jobs = planned_jobs(paper_plan.folder, "prompts")
    drawn = {("cohort_prompts", None), ("cohort_stress", None)}
    assert jobs == {("cohort_manifest", None), *drawn, ("prompts", None)}


def test_a_set_is_curated_and_shown_in_tables_only_where_the_config_asks_for_it(
    paper_plan, tmp_path
):
    assert not [rule for rule in paper_plan.counts if rule.startswith("curate_")]
    words = paper_plan.words("tables.build")
    assert words[words.index("--curate") + 1] == "--models"  # no record of any set
    curate = {"models": ["sana"], "worth": True, "worth_also": ["segmentation"]}
    asked = {"run_models": ["sana", "noise"], "curate": curate}
    (tmp_path / "overlay.yaml").write_text(json.dumps(asked))
    flags = ["--configfile", "config.yaml", str(tmp_path / "overlay.yaml"), "--"]
    table = "results/tables/table25b_curated_worth.csv"
    found = planned_jobs(paper_plan.folder, *flags, table)
    made = {"curate_plant", "curate_lenses", "curate_look", "curate_decide"}
    made |= {"curate_worth_train", "curate_worth"}
    made |= {"curate_worth_segmenters", "curate_worth_segmentation"}
    assert {rule for rule, model in found if model == "sana"} >= made
    assert not {rule for rule, model in found if model == "noise" and rule.startswith("curate_")}
    assert ("tables_build", None) in found


def test_a_jobs_time_follows_from_the_gpus_of_its_profile(tmp_path):
    """A rate of the H100 says nothing of the H200s and A100s that profiles name."""
    checkout = make_stub_sources(make_checkout(tmp_path))
    rates = checkout / "tests/gpu/results"
    shutil.rmtree(rates, ignore_errors=True)
    rates.mkdir()
    settings = "fp32, 50 steps, guidance 7.5, 512 px, batches of 16"
    lines = [",".join(COLUMNS)]
    for gpu, value in (("NVIDIA H100", 2.0), ("NVIDIA H200", 1.0)):
        row = f'2030-01-01,{gpu},1,2,3,sample:sd_v1_5,images per second,{value},1/s,"{settings}"'
        lines.append(row)
    (rates / "x.csv").write_text("\n".join(lines) + "\n")
    flags = write_overlay(checkout, {"run_models": ["sd_v1_5"]})
    found = {}
    for profile in ("slurm_h200", "slurm_a100"):
        command = ["snakemake", "--profile", f"profiles/{profile}", "--dry-run", *flags]
        said = run(command, checkout).stdout
        blocks = [
            b for b in re.split(r"\n(?=rule )", said) if b.startswith("rule generate_sample:")
        ]
        privacy = next(block for block in blocks if "prompt_set=privacy" in block)
        found[profile] = int(re.search(r"\bruntime=(\d+)", privacy)[1])
    # A shard has 2,500 images: 42 minutes on an H200, asked for twice. No A100 was measured.
    assert found == {"slurm_h200": 84, "slurm_a100": 720}
