"""Every table of the run, in the paper's order."""

from collections.abc import Sequence

from workflow_scripts.tables.assemble import Table, build_tables
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.downstream_settings import SETTINGS, settings_table
from workflow_scripts.tables.leaderboard import LEADERBOARD, leaderboard
from workflow_scripts.tables.lora_ablations import lora_tables
from workflow_scripts.tables.metric_ranks import RANKS, rank_table
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.paired import PAIRED, paired_table
from workflow_scripts.tables.pareto import PARETO, pareto_table
from workflow_scripts.tables.prevalence import prevalence_tables
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.t2i_settings import T2I_SETTINGS, t2i_settings_table
from workflow_scripts.tables.task_ranks import task_rank_tables


def every_table(
    records: Records,
    models: Sequence[ModelEntry],
    dataset: str,
    protocol: str,
    cohort: dict[str, SplitCounts],
    images_removed: int = 0,
) -> dict[str, Table]:
    """Join the records to every table, by stem; see `build_tables` for the arguments."""
    tables = build_tables(records, models, dataset, protocol, cohort, images_removed)
    tables |= prevalence_tables(records, models, dataset, protocol, cohort, images_removed)
    tables |= task_rank_tables(records, models, dataset, protocol, cohort, images_removed)
    tables[SETTINGS.stem] = settings_table(records, dataset, protocol, cohort, images_removed)
    tables[PAIRED.stem] = paired_table(records, models, dataset, protocol, cohort, images_removed)
    rest = (dataset, protocol, cohort, images_removed)
    tables[RANKS.stem] = rank_table(records, models, *rest)
    tables[LEADERBOARD.stem] = leaderboard(records, models, *rest)
    tables[PARETO.stem] = pareto_table(records, models, *rest)
    tables[T2I_SETTINGS.stem] = t2i_settings_table(models, *rest)
    tables |= lora_tables(records, models, *rest)
    return dict(sorted(tables.items()))
