"""Parsing of sacct's output: states, requeued runs, memory of the steps, GPUs."""

import pytest

from workflow_scripts.costs.slurm_accounting import (
    FIELDS,
    NOT_KNOWN,
    ask_accounting,
    gpus_in,
    mib,
    parse_sacct,
)

RUN, OTHER_RUN = "2f6c9a1e-uuid", "77aa01bc-uuid"

# JobIDRaw|JobName|State|ExitCode|Start|End|ElapsedRaw|AllocTRES|NodeList|MaxRSS
SACCT = f"""\
101|{RUN}|COMPLETED|0:0|2026-11-01T10:00:00|2026-11-01T12:00:00|7200|billing=32,cpu=32,gres/gpu:h200=4,gres/gpu=4,mem=200G,node=1|n01|
101.batch|batch|COMPLETED|0:0|2026-11-01T10:00:00|2026-11-01T12:00:00|7200|cpu=32,gres/gpu:h200=4,gres/gpu=4,mem=200G,node=1|n01|1048576K
101.extern|extern|COMPLETED|0:0|2026-11-01T10:00:00|2026-11-01T12:00:00|7200|billing=32,cpu=32,mem=200G,node=1|n01|0
101.0|python|COMPLETED|0:0|2026-11-01T10:00:03|2026-11-01T12:00:00|7197|cpu=32,gres/gpu:h200=4,gres/gpu=4,mem=200G,node=1|n01|24.50G
102|{RUN}|NODE_FAIL|0:0|2026-11-01T10:00:00|2026-11-01T10:30:00|1800|billing=8,cpu=8,gres/gpu:a100=1,gres/gpu=1,mem=32G,node=1|n02|
102.batch|batch|CANCELLED|0:0|2026-11-01T10:00:00|2026-11-01T10:30:00|1800|cpu=8,gres/gpu:a100=1,gres/gpu=1,mem=32G,node=1|n02|512M
102|{RUN}|COMPLETED|0:0|2026-11-01T10:32:00|2026-11-01T11:32:00|3600|billing=8,cpu=8,gres/gpu:a100=1,gres/gpu=1,mem=32G,node=1|n03|
102.batch|batch|COMPLETED|0:0|2026-11-01T10:32:00|2026-11-01T11:32:00|3600|cpu=8,gres/gpu:a100=1,gres/gpu=1,mem=32G,node=1|n03|2G
103|{RUN}|TIMEOUT|0:0|2026-11-01T10:00:00|2026-11-01T14:00:30|14430|billing=8,cpu=8,gres/gpu=1,mem=32G,node=1|n02|
103.batch|batch|CANCELLED|0:15|2026-11-01T10:00:00|2026-11-01T14:00:30|14430|cpu=8,gres/gpu=1,mem=32G,node=1|n02|
104|{RUN}|CANCELLED by 1000|0:0|Unknown|2026-11-01T10:05:00|0||None assigned|
105|{OTHER_RUN}|FAILED|1:0|2019-05-01T10:00:00|2019-05-01T12:00:00|7200|billing=1,cpu=1,mem=4G,node=1|n09|
105|{RUN}|COMPLETED|0:0|2026-11-01T10:00:00|2026-11-01T10:01:00|60|billing=1,cpu=1,mem=4G,node=1|n04|
"""


@pytest.fixture
def runs():
    return parse_sacct(SACCT).runs


def test_the_memory_of_a_run_is_that_of_its_largest_step(runs):
    (run,) = runs["101"]
    assert (run.state, run.elapsed_s, run.cpus, run.node) == ("COMPLETED", 7200, 32, "n01")
    assert (run.gpus, run.gpu_model) == (4, "h200")
    assert run.max_rss_mib == 24.5 * 1024


def test_a_requeued_job_has_every_run_with_its_own_memory_and_node(runs):
    first, second = runs["102"]
    assert (first.state, first.elapsed_s, first.node, first.max_rss_mib) == (
        *("NODE_FAIL", 1800, "n02"),
        512,
    )
    assert (second.state, second.elapsed_s, second.node, second.max_rss_mib) == (
        *("COMPLETED", 3600, "n03"),
        2048,
    )


def test_a_job_that_ran_out_of_time_counts_and_one_that_never_started_took_nothing(runs):
    (late,) = runs["103"]
    assert (late.state, late.elapsed_s, late.gpus, late.gpu_model) == ("TIMEOUT", 14430, 1, "")
    assert late.max_rss_mib is None
    (cancelled,) = runs["104"]
    assert (cancelled.state, cancelled.elapsed_s, cancelled.gpus) == ("CANCELLED", 0, 0)
    assert (cancelled.start, cancelled.node) == ("", "")


def test_a_number_that_slurm_gave_twice_is_the_last_runs(runs):
    (run,) = runs["105"]
    assert run.start == "2026-11-01T10:00:00"
    assert run.gpus is None, "whether it had none or nobody counts them, sacct does not say"


@pytest.mark.parametrize(
    ("tres", "expected"),
    [
        ("cpu=8,gres/gpu:h200=4,gres/gpu=4,mem=1G", (4, "h200")),
        ("cpu=8,gres/gpu=2,mem=1G", (2, "")),
        ("cpu=8,gres/gpu:a100=1,gres/gpu:h200=2,mem=1G", (3, "a100+h200")),
        ("cpu=8,gres/gpumem=2G,mem=1G", (None, "")),
        ("", (None, "")),
    ],
)
def test_gpus_with_and_without_types(tres, expected):
    assert gpus_in(tres) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("1048576K", 1024), ("512M", 512), ("1.50G", 1536), ("1T", 2**20), ("0", 0), ("", None)),
        *(("3.2P", 3.2 * 2**30), ("16E", 2**44), ("16X", None), ("-1K", None), ("many", None)),
    ],
)
def test_sizes(text, expected):
    assert mib(text) == expected


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("101|", "101|a|"),
        ("|7200|", "|soon|"),
        ("gres/gpu=4", "gres/gpu=some"),
        ("cpu=8", "cpu=eight"),
    ],
)
def test_an_odd_cell_costs_its_job_alone(written, instead):
    assert written in SACCT
    before, accounting = parse_sacct(SACCT), parse_sacct(SACCT.replace(written, instead, 1))
    (odd,) = accounting.reasons
    assert "cannot be read here" in accounting.reasons[odd]
    assert accounting.runs == {job: runs for job, runs in before.runs.items() if job != odd}
    assert before.reasons == {}


def test_an_odd_size_leaves_the_memory_unknown():
    sizes = [line.split("|")[-1] for line in SACCT.splitlines()]
    size = next(size for size in sizes if size)
    accounting = parse_sacct(SACCT.replace(f"|{size}", "|16X"))
    assert accounting.reasons == {}
    assert any(run.max_rss_mib is None for runs in accounting.runs.values() for run in runs)


def stand_in(folder, script):
    path = folder / "sacct"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


def test_sacct_is_asked_for_every_run_of_the_jobs_and_strangers_have_a_reason(tmp_path):
    (tmp_path / "answer").write_text(SACCT)
    asked = tmp_path / "asked"
    command = stand_in(tmp_path, f'echo "$@" >> {asked}; cat {tmp_path / "answer"}')
    accounting = ask_accounting(["102", "101", "999"], command)
    assert len(accounting.runs["102"]) == 2
    assert accounting.reasons == {"999": NOT_KNOWN}
    words = asked.read_text()
    assert "--jobs 101,102,999" in words
    assert "--duplicates" in words
    assert f"--format={','.join(FIELDS)}" in words


def test_many_jobs_are_asked_for_in_batches(tmp_path):
    asked = tmp_path / "asked"
    command = stand_in(tmp_path, f'echo "$@" >> {asked}')
    accounting = ask_accounting([str(i) for i in range(1, 451)], command)
    assert len(asked.read_text().splitlines()) == 3
    assert len(accounting.reasons) == 450


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", "storage is disabled"),
        ("exit 3", "exit code 3"),
        (None, "there is no"),
    ],
)
def test_a_cluster_without_accounting_says_why(tmp_path, script, reason):
    command = stand_in(tmp_path, script) if script else str(tmp_path / "nothing")
    accounting = ask_accounting(["7"], command)
    assert accounting.runs == {}
    assert reason in accounting.reasons["7"]
