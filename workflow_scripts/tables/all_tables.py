"""All tables of a run, in the paper's order, and the further data of the report and figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from workflow_scripts.common.records import Record
from workflow_scripts.tables.assemble import Table, derived_table, joined_table
from workflow_scripts.tables.cohort_counts import AttritionTable
from workflow_scripts.tables.derive import prevalence, task_ranks
from workflow_scripts.tables.derive.curated import MASKED, curated, worth
from workflow_scripts.tables.derive.downstream_settings import downstream_settings
from workflow_scripts.tables.derive.leaderboard import leaderboard
from workflow_scripts.tables.derive.long_table import LongTable
from workflow_scripts.tables.derive.lora_ablations import (
    Ablation,
    by_position,
    by_rank,
    lora_ablation,
)
from workflow_scripts.tables.derive.metric_ranks import RankedMetric, metric_ranks
from workflow_scripts.tables.derive.paired import paired
from workflow_scripts.tables.derive.pareto import Measure, pareto, standings
from workflow_scripts.tables.derive.preprocessing import preprocessing
from workflow_scripts.tables.derive.slopes import slopes
from workflow_scripts.tables.derive.t2i_settings import t2i_settings
from workflow_scripts.tables.layout import LAYOUTS, Layout
from workflow_scripts.tables.matrices import matrices
from workflow_scripts.tables.metrics import METRICS
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.results import Origin, Results
from workflow_scripts.tables.run import Run

RANKS: Final = LAYOUTS["table08_ranks"]
LEADERBOARD: Final = replace(
    LAYOUTS["table08b_leaderboard"],
    columns=(
        *LAYOUTS["table08b_leaderboard"].columns,
        *(column for column in RANKS.columns if column.rank_of is not None),
    ),
)
"""The leaderboard has the ranks of Table 8, too."""

PARETO: Final = LAYOUTS["table08c_pareto"]

RANKED: Final = tuple(
    RankedMetric(
        column.rank_of,
        column.header,
        METRICS[column.rank_of].direction,
        column.family or RANKS.family or "",
        column.variant,
    )
    for column in RANKS.columns
    if column.rank_of is not None
)
"""The metrics by which models are ranked: the columns of Table 8's spec."""

WEIGHED: Final = tuple(
    Measure(stage, column.family or "", column.metric, column.direction)
    for stage, column in zip(
        ("fidelity", "privacy", "downstream", "faithfulness"), PARETO.columns, strict=True
    )
)
"""The measures by which Table 8c compares models, one of each stage."""


@dataclass(frozen=True)
class Derivation:
    """How a table is computed from measurements.

    Attributes:
        compute: computes the numbers of a layout.
        counts: whether a number's n counts images; the table then shows n below.
        fit: fits the layout to a run, if its columns depend on the run's models.
    """

    compute: Callable[[Run, Layout], LongTable]
    counts: bool = False
    fit: Callable[[Run, Layout], Layout] = lambda run, layout: layout


def every_table(run: Run) -> dict[str, Table]:
    """Return every table of a run, by stem."""
    return {stem: one_table(stem, run) for stem in LAYOUTS}


def one_table(stem: str, run: Run) -> Table:
    """Return a table of a run: a join of measurements, or computed from them (`DERIVED`)."""
    layout = LAYOUTS[stem]
    if stem not in DERIVED:
        return joined_table(layout, run)
    derivation = DERIVED[stem]
    layout = derivation.fit(run, layout)
    return derived_table(layout, derivation.compute(run, layout), run, counts=derivation.counts)


def _paired(run: Run, layout: Layout) -> LongTable:
    metrics = [(column.metric, column.variant) for column in layout.columns]
    return paired(run.records, run.competing, metrics)


def _ranks(run: Run, layout: Layout) -> LongTable:
    numbers = metric_ranks(run.measurements, run.competing, RANKED)
    if not run.of_the_paper:
        return numbers
    note = f"{numbers.note} The paper's ranks are among its eleven models.".strip()
    return replace(numbers, note=note)


def _prevalence(run: Run, layout: Layout) -> LongTable:
    measured = prevalence.measure(run.measurements, run.models)
    return prevalence.prevalence(prevalence.positives(run.cohort), measured)


def _prevalence_correlations(run: Run, layout: Layout) -> LongTable:
    measured = prevalence.measure(run.measurements, run.models)
    floor = prevalence.floor_of(run.measurements, run.models)
    return prevalence.correlations(prevalence.positives(run.cohort), measured, floor)


def _t2i_settings(run: Run, layout: Layout) -> LongTable:
    settings = [(column.metric, column.variant) for column in layout.columns]
    return t2i_settings(run.competing, settings)


def _downstream_settings(run: Run, layout: Layout) -> LongTable:
    return downstream_settings(run.records, [column.metric for column in layout.columns])


def _lora(ablation_of: Callable[[Sequence[ModelEntry]], Ablation], *, average: bool) -> Derivation:
    """Return the derivation of a table that has a column for each value of a setting."""

    def fit(run: Run, layout: Layout) -> Layout:
        names = ablation_of(run.models).names
        columns = tuple(
            replace(column, header=f"{column.header}, {name}", setting=value)
            for column in layout.columns
            for value, name in names.items()
        )
        return replace(layout, columns=columns)

    def compute(run: Run, layout: Layout) -> LongTable:
        metrics = dict.fromkeys((column.metric, column.direction) for column in layout.columns)
        ablation = ablation_of(run.models)
        return lora_ablation(run.measurements, run.models, ablation, [*metrics], average=average)

    return Derivation(compute, counts=True, fit=fit)


DERIVED: Final = {
    "table01c_paired_differences": Derivation(_paired),
    RANKS.stem: Derivation(_ranks),
    LEADERBOARD.stem: Derivation(
        lambda run, _: leaderboard(run.records, run.measurements, run.competing, RANKED),
        counts=True,
        fit=lambda run, layout: LEADERBOARD,
    ),
    PARETO.stem: Derivation(
        lambda run, _: pareto(run.measurements, run.models, WEIGHED), counts=True
    ),
    "table09_prevalence": Derivation(_prevalence),
    "table09b_prevalence_correlation": Derivation(_prevalence_correlations),
    "table10_task_ranks": Derivation(
        lambda run, _: task_ranks.task_ranks(run.measurements, run.competing)
    ),
    "table10b_rank_correlations": Derivation(
        lambda run, _: task_ranks.correlations(run.measurements, run.competing)
    ),
    "table11_t2i_hyperparameters": Derivation(_t2i_settings),
    "table12_downstream_hyperparameters": Derivation(_downstream_settings),
    "table13_lora_rank": _lora(by_rank, average=True),
    "table14_lora_position": _lora(by_position, average=False),
    "table21c_slopes": Derivation(lambda run, _: slopes(run.records, run.models)),
    "table21d_preprocessing": Derivation(
        lambda run, _: preprocessing(run.measurements, run.models)
    ),
    "table25_curated": Derivation(
        lambda run, _: curated(run.records, run.measurements, run.models)
    ),
    "table25b_curated_worth": Derivation(
        lambda run, _: worth(run.records, run.measurements, run.models)
    ),
    "table25c_curated_segmentation": Derivation(
        lambda run, _: worth(run.records, run.measurements, run.models, MASKED)
    ),
}
"""The tables that are computed from measurements; all others only show them."""


def results_of(run: Run, attrition: AttritionTable) -> Results:
    """Join a run's records."""
    return Results(
        run.dataset,
        run.protocol,
        tuple(run.models),
        run.cohort,
        attrition,
        every_table(run),
        tuple(matrices(run)),
        tuple(standings(run.measurements, run.models, WEIGHED)),
        tuple(origins_of(run.ordered())),
        _reid_threshold(run.records, run.models),
    )


def origins_of(records: Sequence[Record]) -> list[Origin]:
    """Return each combination of code, device and versions, with the records that it made."""
    records_by_origin: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        origin = record.provenance
        versions: dict[str, Any] = origin.get("versions") or {}
        listed = ", ".join(
            f"{name} {versions[name]}" for name in sorted(versions) if versions[name]
        )
        key = (
            str(origin.get("git_commit") or "–"),
            str(origin.get("device") or "–"),
            listed or "–",
        )
        records_by_origin.setdefault(key, []).append(f"{record.family} of {record.model}")
    return [Origin(*key, ", ".join(names)) for key, names in records_by_origin.items()]


def _reid_threshold(records: Records, models: Sequence[ModelEntry]) -> float | None:
    for model in models:
        record = records.find("privacy", "pairwise", model.key)
        if record is not None and "threshold" in record.details:
            return float(record.details["threshold"])
    return None
