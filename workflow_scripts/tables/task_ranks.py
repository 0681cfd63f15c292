"""Does fidelity foretell utility? The paper's Table 10, and its correlations with their intervals.

The paper ranks the models by FID and by each task and correlates the ranks (Pearson on ranks where
ties take the lowest rank). Ranks are of values as the tables print them, so that what a reader sees
as equal is equal. Spearman's correlation, beside it, is of the values with all their digits and
gives ties their mean rank.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from workflow_scripts.tables.assemble import Cell, Row, Table, table_of, with_published
from workflow_scripts.tables.layout import Column, Layout
from workflow_scripts.tables.models import NOT_RUN, ModelEntry
from workflow_scripts.tables.published import Published, model_key, printed_rows
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

FEWEST_MODELS: Final = 4
"""Models below which a correlation has no interval (it needs n - 3 degrees of freedom)."""


@dataclass(frozen=True)
class Measure:
    """What the models are ranked by.

    Attributes:
        key: of its column.
        name: for readers.
        stage, family, metric: of its values in records.
        decimals: with which the tables print it.
        lower: whether the lowest value is the best.
    """

    key: str
    name: str
    stage: str
    family: str
    metric: str
    decimals: int
    lower: bool = False


FIDELITY: Final = Measure("fid", "FID", "fidelity", "rad_dino", "fid", 3, lower=True)
RANKED: Final = (
    Measure(
        "classification", "Classification", "downstream", "classification/augmented", "auroc", 2
    ),
    Measure("segmentation", "Segmentation", "downstream", "segmentation/augmented", "dice", 3),
)
"""The tasks of the paper's Table 10."""

TASKS: Final = (
    *RANKED,
    Measure(
        "report_generation",
        "Report generation",
        "downstream",
        "report_generation/augmented",
        "chexbert_micro_f1_14",
        2,
    ),
)
"""The tasks whose correlation with fidelity is computed."""

RANKS: Final = Layout(
    stem="table10_task_ranks",
    number="10",
    title="Ranks by fidelity and by downstream task",
    stage="downstream",
    family=None,
    columns=tuple(
        Column(f"{measure.name} Rank", f"{measure.key}_rank", "none", 0)
        for measure in (FIDELITY, *RANKED)
    ),
    n_labels=("Models", "Reference"),
    explanation=(
        "By FID (Table 1), mean AUROC (Table 4) and Dice (Table 5) of training with real and "
        "synthetic images, as these tables print them; models with equal values share the lowest "
        "rank. "
    ),
)

CORRELATIONS: Final = Layout(
    stem="table10b_rank_correlations",
    number="10b",
    title="Correlation of fidelity with utility, over models",
    stage="downstream",
    family=None,
    row_header="Task",
    columns=(
        Column("Pearson, of ranks", "pearson_of_ranks", "none", 2),
        Column("Spearman", "spearman", "none", 2),
    ),
    n_labels=("Models", "Reference"),
    explanation=(
        "1: the more faithful model is always the more useful one, by mean AUROC, mean Dice and "
        "CheXbert's micro F1 of 14 findings. Pearson's is of the ranks of Table 10, as the paper "
        "computes it; Spearman's of all digits, ties taking their mean rank. The intervals take "
        "the models for a random sample of models. "
    ),
)


def task_rank_tables(run: Run) -> dict[str, Table]:
    """Return Table 10 and its correlations, by stem; the controls are not ranked."""
    records, ranked = run.records, run.competing
    fidelity = measured(records, ranked, FIDELITY)
    tables = {}
    for layout, rows in (
        (RANKS, _rank_rows(records, ranked)),
        (CORRELATIONS, [_correlation_row(records, ranked, fidelity, task) for task in TASKS]),
    ):
        if run.of_the_paper and layout is RANKS:
            rows = [with_published(row, printed_task_ranks(), run.protocol) for row in rows]
        tables[layout.stem] = table_of(layout, rows, run, counts=False)
    return tables


def printed_task_ranks() -> dict[tuple[str, str, str, str], Published]:
    """Return Table 10's printed ranks, keyed as by `published_values`."""
    found = {}
    for name, *texts in printed_rows(RANKS.stem)[1:]:
        for column, text in zip(RANKS.columns, texts, strict=True):
            key = (model_key(name), column.metric, "all", "")
            found[key] = Published(*key, float(text), text)
    return found


def measured(records: Records, models: Sequence[ModelEntry], measure: Measure) -> np.ndarray:
    """Return a measure of each model, (models,), turned so that lower is better; nan for none."""
    found = np.full(len(models), np.nan)
    for i, model in enumerate(models):
        record = records.find(measure.stage, measure.family, model.key)
        if record is not None:
            value = record.get(measure.metric).value
            found[i] = np.nan if value is None else value
    return found if measure.lower else -found


def ranks(values: np.ndarray, decimals: int) -> np.ndarray:
    """Return ranks from 1 of values as printed, lower first; ties share the lowest, nan stays."""
    found = np.full(len(values), np.nan)
    known = np.isfinite(values)
    printed = [float(f"{value:.{decimals}f}") for value in values[known]]
    found[known] = stats.rankdata(printed, method="min")
    return found


def with_interval(
    r: float, n: int, spearman: bool, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the interval of a correlation over n pairs, by Fisher's transformation.

    Spearman's has the wider variance of Bonett and Wright (Psychometrika 2000). None below
    FEWEST_MODELS pairs and at -1 or 1, where the transformation ends.
    """
    if n < FEWEST_MODELS or abs(r) >= 1 - 1e-12:
        return None
    half = stats.norm.ppf((1 + level) / 2) * math.sqrt((1 + spearman * r * r / 2) / (n - 3))
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _rank_rows(records: Records, models: Sequence[ModelEntry]) -> list[Row]:
    columns = []
    for measure in (FIDELITY, *RANKED):
        columns.append(ranks(measured(records, models, measure), measure.decimals))
    rows = []
    for i, model in enumerate(models):
        cells = []
        for column, of_models, measure in zip(
            RANKS.columns, columns, (FIDELITY, *RANKED), strict=True
        ):
            if np.isfinite(of_models[i]):
                cells.append(Cell(column, float(of_models[i])))
            else:
                cells.append(Cell(column, None, reason=_why(records, model, measure)))
        rows.append(Row(model.key, model.name, "model", (), tuple(cells)))
    return rows or [
        Row("none", "–", "model", (), tuple(Cell(c, None, reason=NOT_RUN) for c in RANKS.columns))
    ]


def _why(records: Records, model: ModelEntry, measure: Measure) -> str:
    record = records.find(measure.stage, measure.family, model.key)
    if record is None:
        return model.why_missing(measure.stage)
    return record.get(measure.metric).reason or NOT_RUN


def _correlation_row(
    records: Records, models: Sequence[ModelEntry], fidelity: np.ndarray, task: Measure
) -> Row:
    values = measured(records, models, task)
    known = np.isfinite(values) & np.isfinite(fidelity)
    n = int(known.sum())
    pearson, spearman = CORRELATIONS.columns
    reason = None
    if n < 3:
        reason = f"{n} model(s) have both values: a correlation needs 3"
    elif len(set(values[known])) == 1 or len(set(fidelity[known])) == 1:
        reason = "all values are equal"
    if reason is not None:
        cells = [Cell(column, None, n, reason=reason) for column in CORRELATIONS.columns]
        return Row(task.key, task.name, "pair", (), tuple(cells))
    by_task, by_fidelity = ranks(values[known], task.decimals), ranks(fidelity[known], 3)
    if len(set(by_task)) == 1 or len(set(by_fidelity)) == 1:
        first = Cell(pearson, None, n, reason="all ranks are equal")
    else:
        first = _cell(pearson, float(np.corrcoef(by_fidelity, by_task)[0, 1]), n)
    r = float(stats.spearmanr(fidelity[known], values[known]).statistic)
    return Row(task.key, task.name, "pair", (), (first, _cell(spearman, r, n)))


def _cell(column: Column, r: float, n: int) -> Cell:
    interval = with_interval(r, n, column.metric == "spearman")
    kind = None if interval is None else "95%, by Fisher's transformation"
    return Cell(column, r, n, interval=interval, interval_kind=kind)
