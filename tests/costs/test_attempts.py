"""Assign benchmark files and SLURM logs to jobs, and collect what is known of each attempt."""

import json
from types import SimpleNamespace

import pytest
from snakemake_executor_plugin_slurm.utils import get_job_wildcards

from tests.costs.cost_files import RULES, allocation, write_benchmark, write_log
from workflow_scripts.common.errors import USAGE, InputError
from workflow_scripts.costs.attempts import (
    UNTRACKED,
    Attempt,
    attempts_to_csv,
    every_attempt,
    read_attempts,
)
from workflow_scripts.costs.jobs import (
    OTHER,
    SHARED,
    job_of_benchmark,
    job_of_log,
    parse_patterns,
)
from workflow_scripts.costs.slurm_accounting import NOT_KNOWN, Accounting

MODELS = ["sd", "sd_test", "closest_sd_v2"]
PATTERNS = parse_patterns(json.dumps(RULES))


@pytest.mark.parametrize(
    ("name", "rule", "model"),
    [
        ("benchmarks/generate/sd/test_00000_of_00001.tsv", "generate_sample", "sd"),
        ("benchmarks/generate/sd_test/test_00000_of_00001.tsv", "generate_sample", "sd_test"),
        ("benchmarks/privacy/sd.tsv", "privacy_score", "sd"),
        ("benchmarks/privacy/as_published/sd.tsv", "privacy_score", "sd"),
        ("benchmarks/privacy/closest_sd.tsv", "privacy_closest", "sd"),
        ("benchmarks/privacy/closest_sd_v2.tsv", "privacy_score", "closest_sd_v2"),
        ("benchmarks/features/real_test.tsv", "features_reference", SHARED),
        ("benchmarks/cohort/captions_a-b.c/manifest.tsv", "cohort_manifest", SHARED),
        ("benchmarks/downstream/classification_real_only_real_0.tsv", "train", SHARED),
        ("benchmarks/downstream/classification_augmented_sd_test_0.tsv", "train", "sd_test"),
        ("benchmarks/privacy/gone.tsv", "privacy_score", OTHER),
        ("benchmarks/fidelity/old_layout.tsv", "", OTHER),
    ],
)
def test_a_benchmark_file_says_whose_it_is(name, rule, model):
    job = job_of_benchmark(name, PATTERNS, MODELS)
    assert (job.rule, job.model) == (rule, model)


# The wildcards' values in the order of the output, and the benchmark file of the same job.
JOBS = [
    ("generate_sample", ["sd", "test", "00000", "00001"], "generate/sd/test_00000_of_00001"),
    (
        "generate_sample",
        ["sd_test", "test", "00000", "00001"],
        "generate/sd_test/test_00000_of_00001",
    ),
    ("privacy_score", ["", "sd"], "privacy/sd"),
    ("privacy_score", ["as_published/", "sd_test"], "privacy/as_published/sd_test"),
    ("features_privacy", ["sd", "as_published/"], "features/as_published/sd_privacy"),
    ("features_privacy", ["sd", ""], "features/sd_privacy"),
    # In the order of the job that asked for it.
    ("features_privacy", ["as_published/", "sd"], "features/as_published/sd_privacy"),
    ("features_privacy", ["", "sd_test"], "features/sd_test_privacy"),
    ("cohort_manifest", ["captions_a-b.c/"], "cohort/captions_a-b.c/manifest"),
    ("features_reference", [], "features/real_test"),
    ("train", ["augmented", "sd_test", "0"], "downstream/classification_augmented_sd_test_0"),
    ("train", ["real_only", "real", "12"], "downstream/classification_real_only_real_12"),
]


@pytest.mark.parametrize(("rule", "values", "benchmark"), JOBS)
def test_a_log_lies_where_the_executor_puts_it_and_is_the_same_job_as_the_benchmark(
    rule, values, benchmark
):
    folder = get_job_wildcards(SimpleNamespace(wildcards=values))
    job = job_of_log(f"rule_{rule}", folder, PATTERNS, MODELS)
    assert job == job_of_benchmark(f"benchmarks/{benchmark}.tsv", PATTERNS, MODELS)


def test_logs_of_models_and_rules_that_are_no_more_are_others():
    assert job_of_log("rule_privacy_score", "_gone", PATTERNS, MODELS).model == OTHER
    job = job_of_log("rule_features_gone", "sd", PATTERNS, MODELS)
    assert (job.stage, job.model) == ("features", OTHER)


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "benchmarks", tmp_path / "slurm_logs"


def collect(folders, runs=None, reasons=None):
    asked = []

    def ask(ids):
        asked.extend(ids)
        return Accounting(runs or {}, reasons or {})

    benchmarks, slurm_logs = folders
    job_logs = benchmarks.parent / "logs"
    attempts = every_attempt(benchmarks, job_logs, slurm_logs, PATTERNS, MODELS, ask)
    return attempts, asked


def test_without_slurm_nobody_is_asked_and_benchmark_files_are_what_is_known(folders):
    write_benchmark(folders[0] / "privacy/sd.tsv", 12.5, 300)
    write_benchmark(folders[0] / "generate/sd/test_00000_of_00001.tsv", 3600, None)
    write_benchmark(folders[0] / "tables/build.tsv", 7, 100)
    attempts, asked = collect(folders)
    assert asked == []
    sampled, scored = attempts
    assert (scored.elapsed_s, scored.max_rss_mib, scored.gpus) == (12.5, 300, 0)
    assert (sampled.elapsed_s, sampled.max_rss_mib, sampled.gpus) == (3600, None, 1)
    assert {a.source for a in attempts} == {"benchmark"}


@pytest.mark.parametrize(
    ("sampled", "said", "counted"),
    [
        (None, [512.0], 512.0),  # too short to be sampled
        (14.0, [512.0], 512.0),  # it ran in a process that Snakemake does not sample
        (900.0, [512.0, 300.0], 900.0),  # several processes at the same time
        (14.0, [512.0, 640.5], 640.5),
        (14.0, [], 14.0),
    ],
)
def test_memory_is_the_largest_that_snakemake_saw_or_the_log_names(folders, sampled, said, counted):
    write_benchmark(folders[0] / "privacy/sd.tsv", 12.5, sampled)
    lines = [f"2026-01-01 10:00:00 {USAGE % (1.0, 2.0, memory)}" for memory in said]
    text = "\n".join(["2026-01-01 09:00:00 at most 9999.0 MiB", *lines]) + "\n"
    write_log(folders[0].parent / "logs/privacy/sd.log", text)
    ((scored,), _) = collect(folders)
    assert scored.max_rss_mib == counted


def test_every_run_of_every_slurm_job_is_an_attempt_and_the_benchmark_is_not_one_more(folders):
    write_benchmark(folders[0] / "privacy/sd.tsv", 50, 3000)
    for job_id in ("11", "9", "12"):
        write_log(folders[1] / f"rule_privacy_score/_sd/{job_id}.log")
    runs = {
        "9": [allocation("9", "TIMEOUT", 100, max_rss_mib=2000)],
        "11": [allocation("11", "NODE_FAIL", 30), allocation("11", "COMPLETED", 60, 1, "h200")],
        "12": [allocation("12", "CANCELLED", 0)],
    }
    attempts, asked = collect(folders, runs)
    assert sorted(asked) == ["11", "12", "9"]
    assert [(a.job_id, a.state, a.elapsed_s) for a in attempts] == [
        ("9", "TIMEOUT", 100),
        ("11", "NODE_FAIL", 30),
        ("11", "COMPLETED", 60),
        ("12", "CANCELLED", 0),
    ]
    done = attempts[2]
    assert (done.gpus, done.gpu_model, done.node) == (1, "h200", "n01")
    assert done.max_rss_mib == 3000, "the benchmark's, which was sampled more often"
    assert attempts[0].max_rss_mib == 2000


def test_a_job_that_the_accounting_still_has_running_is_not_counted_twice(folders):
    write_benchmark(folders[0] / "privacy/sd.tsv", 50, 3000)
    write_log(folders[1] / "rule_privacy_score/_sd/3.log")
    (attempt,), _ = collect(folders, {"3": [allocation("3", "RUNNING", 48)]})
    assert (attempt.state, attempt.elapsed_s, attempt.max_rss_mib) == ("RUNNING", 48, 3000)


def test_a_job_that_the_accounting_does_not_know_has_its_benchmark_file_or_a_reason(folders):
    write_benchmark(folders[0] / "privacy/sd.tsv", 50, 3000)
    for job_id in ("3", "4"):
        write_log(folders[1] / f"rule_privacy_score/_sd/{job_id}.log")
    attempts, _ = collect(folders, {}, dict.fromkeys(("3", "4"), NOT_KNOWN))
    lost, done = attempts
    assert (lost.job_id, lost.source, lost.elapsed_s, lost.reason) == ("3", "log", None, NOT_KNOWN)
    assert (done.job_id, done.source, done.elapsed_s) == ("4", "benchmark", 50)


def test_a_job_run_without_slurm_after_failing_with_it_is_one_attempt_more(folders):
    write_benchmark(folders[0] / "privacy/sd.tsv", 50, 3000)
    write_log(folders[1] / "rule_privacy_score/_sd/3.log")
    attempts, _ = collect(folders, {"3": [allocation("3", "FAILED", 20)]})
    assert [(a.source, a.state, a.elapsed_s) for a in attempts] == [
        ("accounting", "FAILED", 20),
        ("benchmark", "COMPLETED", 50),
    ]


def test_the_members_of_a_group_share_it(folders):
    text = "".join(
        f"rule generate_sample:\n    benchmark: benchmarks/generate/sd/test_0000{k}_of_00002.tsv\n"
        for k in (0, 1)
    )
    write_log(folders[1] / "group_shards_generate_sample/20.log", text + text)
    write_log(folders[1] / "group_shards_generate_sample/21.log", "died at once")
    runs = {
        "20": [allocation("20", "COMPLETED", 100, 1)],
        "21": [allocation("21", "NODE_FAIL", 5, 1)],
    }
    attempts, _ = collect(folders, runs)
    assert [(a.model, a.job_id, a.members) for a in attempts] == [
        ("sd", "20", 2),
        ("sd", "20", 2),
        (OTHER, "21", 1),
    ]


def test_gpus_that_the_cluster_does_not_track_are_unknown_and_not_none(folders):
    write_log(folders[1] / "rule_generate_sample/sd_test_00000_00001/5.log")
    write_log(folders[1] / "rule_privacy_score/_sd/6.log")
    runs = {
        "5": [allocation("5", "COMPLETED", 10, None)],
        "6": [allocation("6", "COMPLETED", 10, None)],
    }
    sampled, scored = collect(folders, runs)[0]
    assert (sampled.gpus, sampled.reason) == (None, UNTRACKED)
    assert (scored.gpus, scored.reason) == (0, ""), "this rule asks for none"


def test_attempts_come_back_equal(tmp_path):
    attempts = [
        Attempt("r", "generate", "sd", "sd_test", "accounting", "7", "FAILED", "1:0", "a", "b"),
        Attempt("r", "generate", "", "", "benchmark", elapsed_s=1 / 3, gpus=0, max_rss_mib=0.5),
        Attempt("r", "privacy", "?", "x,y", "log", reason='said "no"', members=3),
    ]
    path = tmp_path / "jobs.csv"
    path.write_text(attempts_to_csv(attempts))
    assert read_attempts(path) == attempts


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", None])
def test_what_is_no_table_of_attempts_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "jobs.csv").write_text(text)
    with pytest.raises(InputError):
        read_attempts(tmp_path / "jobs.csv")


@pytest.mark.parametrize("text", ["", "x\ty\n1\t2\n", "s\tmax_rss\nsoon\t1\n"])
def test_a_damaged_benchmark_file_is_named(folders, text):
    path = folders[0] / "privacy/sd.tsv"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match=r"privacy/sd\.tsv"):
        collect(folders)


@pytest.mark.parametrize("text", ["{}", "[1]", "nothing", '[{"name": "a"}]'])
def test_rules_that_are_no_rules_are_refused(text):
    with pytest.raises(InputError, match="--rules"):
        parse_patterns(text)
