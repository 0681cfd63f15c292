"""Planned and actual GPU-hours by stage, for the report.

The plan comes from the cost model (`preflight/cost_model.py`): measured rates times the counts of
the config. Work whose rate was not measured has no estimate, and the table says so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from workflow_scripts.costs import jobs
from workflow_scripts.costs.attempts import Attempt
from workflow_scripts.costs.sums import STAGES, cost_of, is_accounted
from workflow_scripts.preflight.cost_model import (
    SHARED,
    Cohort,
    Estimate,
    choose_kind,
    estimate,
    works,
)
from workflow_scripts.preflight.rates import Rate, kind_of
from workflow_scripts.tables.assemble import Cell, Row, Table, noted
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.layout import PHRASES, layout_of, read_yaml
from workflow_scripts.tables.models import ModelEntry

NOT_PLANNED: Final = "the cost model does not plan this stage"
NO_JOB: Final = "no job of this stage has run"
NEVER: Final = "no rate was ever measured: run `make gpu-check` on a GPU"

PLAN: Final = layout_of("plan", read_yaml("plan.yaml"), PHRASES)


@dataclass(frozen=True)
class PlanSection:
    """The plan and the actual costs, for the report.

    Attributes:
        sentence: planned and actual GPU-hours in all, in words.
        stages: a row for each stage, and the total.
        models: a row for each model and stage.
    """

    sentence: str
    stages: Table
    models: Table


def plan_section(
    config: Mapping[str, Any],
    cohort: Mapping[str, SplitCounts],
    prompts: int,
    attempts: Sequence[Attempt],
    models: Sequence[ModelEntry],
    rates: Sequence[Rate],
) -> PlanSection:
    """Return planned and actual GPU-hours.

    Args:
        config: the run's validated config.
        cohort: counts of the splits.
        prompts: number of unique captions of the test set.
        attempts: all attempts of the run; those of models that are not in it are left out.
        models: the models of the run, in the order of the rows.
        rates: all measured rates.
    """
    counted = [attempt for attempt in attempts if attempt.model != jobs.OTHER]
    planned = works(config, _cohort(cohort, prompts))
    used = kind_of_run(counted)
    kind = used or choose_kind(planned, rates)
    all_estimates = [estimate(work, rates, kind or "") for work in planned]
    rated = any(e.rate for e in all_estimates)
    accounted = is_accounted(counted)

    def row(key: str, label: str, estimates: list[Estimate], taken: list[Attempt]) -> Row:
        kind_of_row = "total" if key == "total" else "stage"
        cells = (*_planned(estimates, kind), *_taken(taken, accounted))
        return Row(key, label, kind_of_row, (), cells)

    by_stage = [
        row(stage, title, [e for e in all_estimates if e.work.stage == stage], _of(counted, stage))
        for stage, title in STAGES.items()
        if any(e.work.stage == stage for e in all_estimates) or _of(counted, stage)
    ]
    by_stage.append(row("total", "All stages", all_estimates, counted))
    by_model = []
    names = [(model.key, model.key, model.name) for model in models]
    for key, planned_as, name in [*names, (jobs.SHARED, SHARED, "Shared")]:
        for stage, title in STAGES.items():
            estimates = [
                e for e in all_estimates if (e.work.model, e.work.stage) == (planned_as, stage)
            ]
            taken = [a for a in _of(counted, stage) if a.model == key]
            if estimates or taken:
                by_model.append(row(f"{planned_as}-{stage}", f"{name}: {title}", estimates, taken))
    return PlanSection(
        _sentence(by_stage[-1], len(all_estimates), kind),
        _table(by_stage, kind, used, rated),
        _table(by_model, kind, used, rated),
    )


def kind_of_run(attempts: Sequence[Attempt]) -> str | None:
    """Return the kind of GPU on which most attempts ran; None if no kind is known."""
    kinds = Counter(kind_of(attempt.gpu_model) for attempt in attempts if attempt.gpu_model)
    return kinds.most_common(1)[0][0] if kinds else None


def _cohort(counts: Mapping[str, SplitCounts], prompts: int) -> Cohort:
    held_out = [counts[split].images for split in ("validate", "test") if split in counts]
    return Cohort(
        counts["train"].captioned if "train" in counts else None,
        counts["test"].images if "test" in counts else None,
        prompts,
        sum(held_out) if held_out else None,
        "the manifest",
    )


def _of(attempts: Sequence[Attempt], stage: str) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt.stage == stage]


def _planned(estimates: Sequence[Estimate], kind: str | None) -> tuple[Cell, Cell]:
    hours, without = PLAN.columns[:2]
    if not estimates:
        return Cell(hours, None, reason=NOT_PLANNED), Cell(without, None, reason=NOT_PLANNED)
    known = [e.gpu_hours for e in estimates if e.gpu_hours is not None]
    unrated = Cell(without, float(len(estimates) - len(known)))
    if known:
        return Cell(hours, float(sum(known))), unrated
    return Cell(hours, None, reason=_why_none(estimates, kind)), unrated


def _why_none(estimates: Sequence[Estimate], kind: str | None) -> str:
    """Return why no work has an estimate, naming the parts of gpu-check that would measure it."""
    if kind is None:
        return NEVER
    parts = list(dict.fromkeys(e.work.parts[0] for e in estimates if e.rate is None))
    if not parts:
        return "the amount of work was not known"
    listed = f"{', '.join(parts[:3])}{' and others' if len(parts) > 3 else ''}"
    return f"no rate was measured on the {kind} with this run's settings: {listed}"


def _taken(attempts: Sequence[Attempt], accounted: bool) -> tuple[Cell, Cell]:
    columns = PLAN.columns[2:]
    if not attempts:
        return Cell(columns[0], None, reason=NO_JOB), Cell(columns[1], None, reason=NO_JOB)
    cost = cost_of(attempts, accounted)
    values = (cost.gpu_hours, cost.wall_hours)
    first, second = (
        Cell(column, value, reason=cost.reasons.get(column.metric))
        for column, value in zip(columns, values, strict=True)
    )
    return first, second


def _sentence(total: Row, pieces: int, kind: str | None) -> str:
    planned, without, taken, _ = total.cells
    took = f"The run took {taken.text} GPU-hours."
    if taken.value is None:
        took = "The GPU-hours of the run are not known."
    elif taken.value == 0:
        took = "The run used no GPU."
    if kind is None:
        return f"No rate was ever measured, so the plan gives no hours. {took}"
    if planned.value is None:
        return (
            f"The plan has no hours: no rate was measured on the {kind} for any of its "
            f"{pieces} pieces of work. {took}"
        )
    least = f"at least {planned.text}" if without.value else planned.text
    plan = f"The plan for the {kind} said {least} GPU-hours"
    if without.value:
        plan += f"; {without.text} of its {pieces} pieces of work have no estimate"
    return f"{plan}. {took}"


def _table(rows: Sequence[Row], kind: str | None, used: str | None, rated: bool) -> Table:
    numbered, notes = noted(rows)
    if kind is None:
        where = "No rate was ever measured."
    elif used and rated:
        where = f"The rates were measured on the {kind}, which most of the run used."
    elif used:
        where = f"No rate was measured on the {kind}, which most of the run used."
    else:
        where = (
            f"The run used no GPU of a known kind. The rates are those of the {kind}, for which "
            "most rates were measured."
        )
    caption = f"{PLAN.title}. {where} {PLAN.explanation}"
    return Table(PLAN, tuple(numbered), (), caption, tuple(notes))
