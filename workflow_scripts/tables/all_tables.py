"""Every table of the run, in the paper's order."""

from workflow_scripts.tables.assemble import Table, build_tables
from workflow_scripts.tables.downstream_settings import SETTINGS, settings_table
from workflow_scripts.tables.leaderboard import LEADERBOARD, leaderboard
from workflow_scripts.tables.lora_ablations import lora_tables
from workflow_scripts.tables.metric_ranks import RANKS, rank_table
from workflow_scripts.tables.paired import PAIRED, paired_table
from workflow_scripts.tables.pareto import PARETO, pareto_table
from workflow_scripts.tables.prevalence import prevalence_tables
from workflow_scripts.tables.run import Run
from workflow_scripts.tables.t2i_settings import T2I_SETTINGS, t2i_settings_table
from workflow_scripts.tables.task_ranks import task_rank_tables


def every_table(run: Run) -> dict[str, Table]:
    """Return every table of a run, by stem."""
    tables = build_tables(run)
    for made in (prevalence_tables(run), task_rank_tables(run), lora_tables(run)):
        tables |= made
    tables |= {
        SETTINGS.stem: settings_table(run),
        PAIRED.stem: paired_table(run),
        RANKS.stem: rank_table(run),
        LEADERBOARD.stem: leaderboard(run),
        PARETO.stem: pareto_table(run),
        T2I_SETTINGS.stem: t2i_settings_table(run),
    }
    return dict(sorted(tables.items()))
