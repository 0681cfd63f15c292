"""The cost table by hand: sums over attempts, what is shared, and why a cell is empty."""

import csv
import json
import re

import pytest

from tests.costs.cost_files import RULES, write_benchmark, write_log
from workflow_scripts.costs import build
from workflow_scripts.costs.attempts import UNTRACKED, Attempt, read_attempts
from workflow_scripts.costs.jobs import OTHER, SHARED
from workflow_scripts.costs.slurm_accounting import NOT_KNOWN
from workflow_scripts.costs.sums import BENCHMARKS_ALONE
from workflow_scripts.tables import build_costs
from workflow_scripts.tables.costs import cost_sentence, cost_table
from workflow_scripts.tables.figures.bars import draw_costs
from workflow_scripts.tables.figures.style import inline_svg
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.render.as_latex import to_latex
from workflow_scripts.tables.render.as_markdown import to_markdown

MODELS = [
    {"key": "sd", "family": "stable_diffusion", "display": {"name": "SD"}, "finetuning": "FFT"},
    {"key": "noise", "family": "control", "display": {"name": "Noise"}, "finetuning": "-"},
]


def attempt(stage, model, state="COMPLETED", hours=1.0, gpus=0, source="accounting", **more):
    seconds = None if hours is None else hours * 3600
    more = {"job_id": "1", "wildcards": model, "max_rss_mib": 1024.0, **more}
    return Attempt(
        stage, stage, model, source=source, state=state, elapsed_s=seconds, gpus=gpus, **more
    )


def table_of(attempts):
    return cost_table(attempts, parse_models(json.dumps(MODELS)), "World")


def cells_of(table, key, stage):
    (row,) = [row for row in table.rows if row.key == key and row.attributes == (stage,)]
    return {cell.column.metric: cell for cell in row.cells}


def values_of(table, key, stage):
    return {metric: cell.value for metric, cell in cells_of(table, key, stage).items()}


ATTEMPTS = [
    attempt("finetune", "sd", "TIMEOUT", 48, 4, max_rss_mib=100 * 1024, gpu_model="h200"),
    attempt("finetune", "sd", "NODE_FAIL", 0.5, 4, max_rss_mib=None, gpu_model="h200"),
    attempt("finetune", "sd", "COMPLETED", 10, 4, max_rss_mib=90 * 1024, gpu_model="h200"),
    attempt("generate", "sd", "CANCELLED", 0),
    attempt("generate", "sd", "COMPLETED", 3, 1, members=2, wildcards="a"),
    attempt("generate", "sd", "COMPLETED", 3, 1, members=2, wildcards="b"),
    attempt("features", "noise", "RUNNING", 0.25, 1),
    attempt("features", SHARED, "COMPLETED", 2, 1),
    attempt("features", OTHER, "COMPLETED", 1000, 8),
]


def test_gpu_hours_count_every_attempt():
    table = table_of(ATTEMPTS)
    assert values_of(table, "sd", "Fine-tuning") == {
        "gpu_hours": 4 * (48 + 0.5 + 10),
        "wall_hours": 58.5,
        "peak_memory_gib": 100,
        "jobs": 1,
        "attempts": 3,
        "failed": 2,
    }
    drawn = values_of(table, "sd", "Generation")
    assert (drawn["gpu_hours"], drawn["wall_hours"]) == (3, 3), "two jobs of one group share it"
    assert (drawn["jobs"], drawn["attempts"], drawn["failed"]) == (3, 3, 1)
    assert values_of(table, "noise", "Features")["failed"] == 0, "it still runs"
    assert values_of(table, "sd", "All stages")["gpu_hours"] == 234 + 3


def test_what_is_shared_stands_once_and_in_the_sums_and_other_models_are_left_out():
    table = table_of(ATTEMPTS)
    assert values_of(table, SHARED, "Features")["gpu_hours"] == 2
    assert values_of(table, "total", "Features")["gpu_hours"] == 2.25
    assert values_of(table, "total", "All stages")["gpu_hours"] == 234 + 3 + 2.25
    assert "Left out: 1 job " in table.caption
    assert [row.kind for row in table.rows] == sorted(
        (row.kind for row in table.rows), key=["model", "control", "shared", "total"].index
    )


def test_an_attempt_of_unknown_length_leaves_no_sum_but_a_reason():
    lost = attempt("finetune", "sd", "", None, None, "log", max_rss_mib=None, reason=NOT_KNOWN)
    table = table_of([*ATTEMPTS, lost])
    cells = cells_of(table, "sd", "Fine-tuning")
    for metric in ("gpu_hours", "wall_hours", "peak_memory_gib", "failed"):
        assert cells[metric].value is None
        assert cells[metric].reason == f"1 of 4 attempts: {NOT_KNOWN}"
        assert table.notes[cells[metric].note - 1] == cells[metric].reason
    assert cells["attempts"].value == 4
    assert cells_of(table, "total", "All stages")["gpu_hours"].value is None
    assert values_of(table, "sd", "Generation")["gpu_hours"] == 3


def test_untracked_gpus_leave_the_wall_time():
    table = table_of([attempt("finetune", "sd", gpus=None, reason=UNTRACKED)])
    cells = cells_of(table, "sd", "Fine-tuning")
    assert (cells["gpu_hours"].value, cells["gpu_hours"].reason) == (None, UNTRACKED)
    assert cells["wall_hours"].value == 1


def test_without_accounting_the_benchmark_files_stand_alone_and_failures_are_unknown():
    why = "SLURM's accounting cannot be asked: Slurm accounting storage is disabled"
    attempts = [
        attempt("finetune", "sd", "", None, None, "log", max_rss_mib=None, reason=why),
        attempt("finetune", "sd", "COMPLETED", 2, 4, "benchmark", reason=why),
        attempt("generate", "sd", "", None, None, "log", max_rss_mib=None, reason=why),
    ]
    table = table_of(attempts)
    cells = cells_of(table, "sd", "Fine-tuning")
    assert (cells["gpu_hours"].value, cells["wall_hours"].value) == (8, 2)
    assert cells["failed"].reason == cells["attempts"].reason == BENCHMARKS_ALONE
    drawn = cells_of(table, "sd", "Generation")
    assert drawn["gpu_hours"].value is None
    assert drawn["gpu_hours"].reason == why
    assert f"no accounting of this run ({why})" in table.caption


def test_jobs_that_the_accounting_lacks_are_said_to_be():
    alone = attempt("generate", "noise", "COMPLETED", 1, 0, "benchmark", job_id="")
    table = table_of([*ATTEMPTS, alone])
    assert "SLURM's accounting lacks 1 of 7 jobs." in table.caption
    assert cells_of(table, "noise", "Generation")["failed"].reason == BENCHMARKS_ALONE
    assert values_of(table, "total", "Generation")["failed"] == 1


def test_before_anything_ran_the_table_says_so():
    table = table_of([])
    assert table.rows == ()
    assert "No job has run yet." in table.caption
    assert cost_sentence(table, []) is None
    assert draw_costs(table) is None
    assert "toprule" in to_latex(table)
    assert to_markdown(table).startswith("**Table C.**")


def test_the_sentence_has_the_sum_and_what_failed():
    assert cost_sentence(table_of(ATTEMPTS), ATTEMPTS) == (
        "239.25 GPU-hours and 63.750 hours of wall time for 6 jobs on h200, in 8 attempts, "
        "of which 3 failed."
    )


def drawn_costs(attempts):
    """The figure's text and its caption."""
    drawing = draw_costs(table_of(attempts))
    return inline_svg(drawing), drawing.caption


def test_the_figure_shows_gpu_hours_or_without_any_the_time():
    drawn, text = drawn_costs(ATTEMPTS)
    assert "GPU-hours by model and stage" in text
    for word in ("SD", "Noise", "Shared", "Fine-tuning", "Generation", "Features"):
        assert f">{word}<" in drawn
    assert drawn_costs(ATTEMPTS)[0] == drawn
    drawn, text = drawn_costs([attempt("generate", "sd", hours=0.5)])
    assert "Wall time (min)" in text
    assert re.search(r">\s*30<", drawn)
    assert "not drawn" not in text
    assert "≥" not in drawn
    lost = attempt("finetune", "sd", "", None, None, "log", reason=NOT_KNOWN)
    drawn, text = drawn_costs([*ATTEMPTS, lost])
    assert re.search(r">\s*≥ 3<", drawn), "generation alone is known"
    assert "not drawn" in text


SACCT = """\
7|u|OUT_OF_MEMORY|0:125|2026-11-01T10:00:00|2026-11-01T11:00:00|3600|cpu=32,gres/gpu:h200=4,gres/gpu=4,mem=200G,node=1|secret-node|
7.0|python|OUT_OF_MEMORY|0:125|2026-11-01T10:00:00|2026-11-01T11:00:00|3600|cpu=32,gres/gpu:h200=4,gres/gpu=4,mem=200G,node=1|secret-node|200G
8|u|COMPLETED|0:0|2026-11-01T12:00:00|2026-11-01T14:00:00|7200|cpu=32,gres/gpu:h200=4,gres/gpu=4,mem=400G,node=1|secret-node|
8.0|python|COMPLETED|0:0|2026-11-01T12:00:00|2026-11-01T14:00:00|7200|cpu=32,gres/gpu:h200=4,gres/gpu=4,mem=400G,node=1|secret-node|210G
"""


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """The script over a run on SLURM whose fine-tuning ran out of memory once."""
    write_benchmark(tmp_path / "benchmarks/finetune/sd.tsv", 7100, 1000)
    write_benchmark(tmp_path / "benchmarks/cohort/manifest.tsv", 36, 500)
    for job_id in (7, 8):
        write_log(tmp_path / f"logs/rule_finetune_train/sd/{job_id}.log")
    (tmp_path / "answer").write_text(SACCT)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sacct").write_text(f"#!/bin/sh\ncat {tmp_path / 'answer'}\n")
    (tmp_path / "bin/sacct").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    jobs = str(tmp_path / "out/jobs.csv")
    build.main(
        [
            *("--rules", json.dumps(RULES), "--models", *(model["key"] for model in MODELS)),
            *("--benchmarks", str(tmp_path / "benchmarks"), "--slurm-logs", str(tmp_path / "logs")),
            *("--job-logs", str(tmp_path / "job_logs"), "--output", jobs),
        ]
    )
    shown = ["--models", json.dumps(MODELS), "--dataset", "World", "--out", str(tmp_path / "out")]
    build_costs.main(["--jobs", jobs, *shown])
    return tmp_path


def test_the_script_joins_files_and_accounting(ran):
    rows = list(csv.DictReader((ran / "out/costs.csv").open(encoding="utf-8")))
    (tuned,) = [row for row in rows if row["Model"] == "SD"]
    assert float(tuned["GPU-hours"]) == 4 + 8
    assert float(tuned["Peak memory (GiB)"]) == 210
    assert (tuned["Attempts"], tuned["Failed attempts"]) == ("2.0", "1.0")
    attempts = read_attempts(ran / "out/jobs.csv")
    assert [a.state for a in attempts if a.stage == "finetune"] == ["OUT_OF_MEMORY", "COMPLETED"]
    assert {a.node for a in attempts} == {"secret-node", ""}


def test_nodes_stand_in_the_table_of_attempts_alone(ran):
    named = {path.name for path in (ran / "out").iterdir() if "secret-node" in path.read_text()}
    assert named == {"jobs.csv"}
