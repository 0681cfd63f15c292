"""What the run cost, by stage and model, as a table and a sentence."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from workflow_scripts.costs.attempts import Attempt
from workflow_scripts.costs.jobs import OTHER, SHARED
from workflow_scripts.costs.sums import STAGES, cost_of, is_accounted
from workflow_scripts.tables.assemble import Cell, Row, Table, noted
from workflow_scripts.tables.layout import PHRASES, layout_of, read_yaml
from workflow_scripts.tables.models import ModelEntry, controls_last

ALL: Final = "All stages"

COSTS: Final = layout_of("costs", read_yaml("costs.yaml"), PHRASES)


def cost_table(attempts: Sequence[Attempt], models: Sequence[ModelEntry], dataset: str) -> Table:
    """Return the cost table: stages of each model, what is shared, and the sums.

    Args:
        attempts: all attempts of the run.
        models: the models in the order of the rows. The caption counts what other models left out.
        dataset: the data's name.
    """
    counted = [attempt for attempt in attempts if attempt.model != OTHER]
    accounted = is_accounted(counted)
    rows = []
    groups = [(model.key, model.name, model.kind) for model in controls_last(models)]
    for key, label, kind in [*groups, (SHARED, "Shared", "shared")]:
        of_model = [attempt for attempt in counted if attempt.model == key]
        rows += _rows(of_model, key, label, kind, accounted)
    rows += _rows(counted, "total", "Total", "total", accounted)
    with_notes, notes = noted(rows)
    caption = " ".join(
        [f"{COSTS.title}. {dataset}.", COSTS.explanation, *_sources(attempts, accounted)]
    )
    return Table(COSTS, tuple(with_notes), (), caption, tuple(notes))


def _rows(
    attempts: Sequence[Attempt], key: str, label: str, kind: str, accounted: bool
) -> list[Row]:
    """Return a row for each stage with attempts, and their sum if there are two or more."""
    rows = []
    for stage, title in STAGES.items():
        of_stage = [attempt for attempt in attempts if attempt.stage == stage]
        if of_stage:
            rows.append(Row(key, label, kind, (title,), _cells(of_stage, accounted)))
    if len(rows) > 1:
        rows.append(Row(key, label, kind, (ALL,), _cells(attempts, accounted)))
    return rows


def _cells(attempts: Sequence[Attempt], accounted: bool) -> tuple[Cell, ...]:
    cost = cost_of(attempts, accounted)
    cells = []
    for column in COSTS.columns:
        value = getattr(cost, column.metric)
        known = None if value is None else float(value)
        cells.append(Cell(column, known, reason=cost.reasons.get(column.metric)))
    return tuple(cells)


def _sources(attempts: Sequence[Attempt], accounted: bool) -> list[str]:
    """Return sentences on where the costs come from and what they leave out."""
    counted = [attempt for attempt in attempts if attempt.model != OTHER]
    sentences = []
    if not counted:
        sentences.append("No job has run yet.")
    elif not accounted:
        reasons = Counter(a.reason for a in counted if a.job_id and a.reason)
        why = f" ({reasons.most_common(1)[0][0]})" if reasons else ""
        sentences.append(
            f"There is no accounting of this run{why}. The table counts Snakemake's benchmark "
            "files only. Each job has one file, of its last attempt that succeeded. GPUs are those "
            "that the rules request."
        )
    else:
        alone = [a for a in counted if a.source == "benchmark"]
        if alone:
            sentences.append(
                f"SLURM's accounting lacks {len({a.job for a in alone})} of "
                f"{len({a.job for a in counted})} jobs. For these the table has only Snakemake's "
                "benchmark file, of the last attempt that succeeded."
            )
    others = {attempt.job for attempt in attempts if attempt.model == OTHER}
    if others:
        sentences.append(
            f"Left out: {len(others)} {_plural('job', str(len(others)))} of models that are not in "
            "this run, of rules that no longer exist, or of SLURM groups that ended before they "
            "named their jobs."
        )
    return sentences


def cost_sentence(table: Table, attempts: Sequence[Attempt]) -> str | None:
    """Return the total cost as a sentence; None if no attempt is known."""
    total = [row for row in table.rows if row.kind == "total"]
    if not total:
        return None
    cells = {cell.column.metric: cell for cell in total[-1].cells}
    parts = [
        time
        for metric, unit, of in (("gpu_hours", "GPU-", ""), ("wall_hours", "", " of wall time"))
        if (time := _time(cells[metric], unit, of)) is not None
    ]
    models = {a.gpu_model for a in attempts if a.gpu_model and a.model != OTHER}
    jobs = cells["jobs"].text
    text = f"{' and '.join(parts) or 'An unknown time'} for {jobs} {_plural('job', jobs)}"
    if models:
        text += f" on {' and '.join(sorted(models))}"
    tried, failed = cells["attempts"], cells["failed"]
    if tried.value is not None:
        text += f", in {tried.text} {_plural('attempt', tried.text)}"
        if failed.value is not None:
            text += f", of which {failed.text} failed"
    return text + "."


def _time(cell: Cell, unit: str, of: str) -> str | None:
    """Return hours in words; less than an hour in minutes, which hours would round away."""
    if cell.value is None:
        return None
    if cell.value == 0:
        return f"No {unit}hours{of}"
    if cell.value < 1:
        return f"{60 * cell.value:.2g} {unit}minutes{of}"
    return f"{cell.text} {unit}hours{of}"


def _plural(word: str, number: str) -> str:
    return word if number == "1" else f"{word}s"
