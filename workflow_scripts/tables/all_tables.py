"""Every table of the run, in the paper's order, and what the report and the figures show beside."""

from collections.abc import Sequence
from typing import Any

from workflow_scripts.common.records import Record
from workflow_scripts.tables.assemble import Table, joined_table
from workflow_scripts.tables.cohort_counts import AttritionTable
from workflow_scripts.tables.downstream_settings import SETTINGS, settings_table
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.leaderboard import LEADERBOARD, leaderboard
from workflow_scripts.tables.lora_ablations import lora_tables
from workflow_scripts.tables.metric_ranks import RANKS, rank_table
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.paired import PAIRED, matrices, paired_table
from workflow_scripts.tables.pareto import PARETO, pareto_table
from workflow_scripts.tables.prevalence import prevalence_tables
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.results import Origin, Results
from workflow_scripts.tables.run import Run
from workflow_scripts.tables.t2i_settings import T2I_SETTINGS, t2i_settings_table
from workflow_scripts.tables.task_ranks import task_rank_tables


def every_table(run: Run) -> dict[str, Table]:
    """Return every table of a run, by stem."""
    derived = {
        SETTINGS.stem: settings_table(run),
        PAIRED.stem: paired_table(run),
        RANKS.stem: rank_table(run),
        LEADERBOARD.stem: leaderboard(run),
        PARETO.stem: pareto_table(run),
        T2I_SETTINGS.stem: t2i_settings_table(run),
        **prevalence_tables(run),
        **task_rank_tables(run),
        **lora_tables(run),
    }
    return {
        stem: derived[stem] if stem in derived else joined_table(layout, run)
        for stem, layout in LAYOUTS.items()
    }


def results_of(run: Run, attrition: AttritionTable) -> Results:
    """Join a run's records."""
    return Results(
        run.dataset,
        run.protocol,
        tuple(run.models),
        run.cohort,
        attrition,
        every_table(run),
        tuple(matrices(run.records, run.models)),
        tuple(origins_of(run.ordered())),
        _reid_threshold(run.records, run.models),
    )


def origins_of(records: Sequence[Record]) -> list[Origin]:
    """Return what made the records, each combination once, with the records it made."""
    made: dict[tuple[str, str, str], list[str]] = {}
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
        made.setdefault(key, []).append(f"{record.family} of {record.model}")
    return [Origin(*key, ", ".join(names)) for key, names in made.items()]


def _reid_threshold(records: Records, models: Sequence[ModelEntry]) -> float | None:
    for model in models:
        record = records.find("privacy", "pairwise", model.key)
        if record is not None and "threshold" in record.details:
            return float(record.details["threshold"])
    return None
