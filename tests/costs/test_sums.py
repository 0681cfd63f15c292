"""Sums over attempts, computed by hand, as they are compared with the plan of the cost."""

import pytest

from workflow_scripts.costs.attempts import Attempt
from workflow_scripts.costs.sums import BENCHMARKS_ALONE, cost_of


def attempt(stage, model, state, hours, gpus, source="accounting", **more):
    seconds = None if hours is None else 3600 * hours
    job = {"rule": stage, "stage": stage, "model": model, "wildcards": model}
    return Attempt(**job, source=source, state=state, elapsed_s=seconds, gpus=gpus, **more)


def test_costs_are_sums_over_attempts_with_reasons_for_what_is_not_known():
    attempts = [
        attempt("finetune", "sd", "TIMEOUT", 48, 4),
        attempt("finetune", "sd", "COMPLETED", 10, 4),
    ]
    tuned = cost_of(attempts, accounted=True)
    assert (tuned.gpu_hours, tuned.wall_hours) == (232, 58)
    assert (tuned.jobs, tuned.attempts, tuned.failed) == (1, 2, 1)
    assert tuned.peak_memory_gib is None
    assert "sampled" in tuned.reasons["peak_memory_gib"]
    shared = attempt("generate", "sd", "COMPLETED", 3, 1, members=2, max_rss_mib=2048.0)
    drawn = cost_of([shared], accounted=True)
    assert (drawn.gpu_hours, drawn.peak_memory_gib) == (1.5, 2)
    assert drawn.reasons == {}


def test_a_killed_attempt_that_only_the_log_knows_leaves_no_sum_where_there_is_accounting():
    killed = attempt("finetune", "sd", "", None, None, "log", reason="lost")
    known = attempt("finetune", "sd", "COMPLETED", 10, 4)
    cost = cost_of([killed, known], accounted=True)
    assert (cost.gpu_hours, cost.failed, cost.attempts) == (None, None, 2)
    assert cost.reasons["gpu_hours"] == "1 of 2 attempts: lost"


def test_without_accounting_sums_are_over_the_benchmark_files_and_attempts_are_unknown():
    killed = attempt("finetune", "sd", "", None, None, "log", reason="lost")
    known = attempt("finetune", "sd", "COMPLETED", 10, 4, "benchmark")
    cost = cost_of([killed, known], accounted=False)
    assert cost.gpu_hours == pytest.approx(40)
    assert cost.attempts is None
    assert cost.reasons["failed"] == BENCHMARKS_ALONE
