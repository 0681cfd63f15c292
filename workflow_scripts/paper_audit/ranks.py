"""Ranks of the models: Tables 8 and 10, Sections A.2 and A.4."""

from collections.abc import Mapping, Sequence
from typing import Final

from workflow_scripts.paper_audit.fidelity import COLUMNS, LOWER, fid_of_models
from workflow_scripts.paper_audit.items import Item, by_model, compared, stated
from workflow_scripts.paper_audit.model_names import NAMES, listed, names
from workflow_scripts.paper_audit.orders import displaced, pearson, ranked, reach_of_ranks
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed, printed
from workflow_scripts.paper_audit.yardstick import Bounded, agrees, every, has_place, mean_of

_FROM_TABLE_1: Final = {
    "FID, RadDino": "FID",
    "KID, RadDino": "KID",
    "Alignment Score": "Alignment",
    "Precision": "Precision",
    "Recall": "Recall",
    "Density": "Density",
    "Coverage": "Coverage",
}
"""Table 8's columns of ranks, each with the metric of Table 1 that it ranks."""

_INCEPTION: Final = ("FID, Inception", "KID, Inception")
"""Table 8's columns of ranks by metrics that the paper does not print."""

_CORRELATIONS: Final = {"Classification Rank": "0.77", "Segmentation Rank": "0.78"}
"""Correlations of Table 10's columns with its FID Rank, in Section A.4."""

_TOP: Final = ("sana", "pixart_sigma", "llm_cxr")

Ranks = dict[str, int]


def rank_items(paper: Paper) -> list[Item]:
    """Return the claims that follow from Tables 8 and 10."""
    of_table_1 = {
        column: ranked(paper["1"].of_models(COLUMNS[metric]), metric in LOWER)
        for column, metric in _FROM_TABLE_1.items()
    }
    return [
        *_ranks_of_metrics(paper["8"], of_table_1),
        *_averages(paper["8"]),
        *_averages_of_table_1(paper["8"], of_table_1),
        *_task_ranks(paper),
        *_correlations(paper),
        *_text_on_tasks(paper),
    ]


def _column(grid: Grid, column: str) -> Ranks:
    """Return a column of printed ranks by model."""
    return {model: int(number.exact) for model, number in grid.of_models(column).items()}


def _ranks_of_metrics(grid: Grid, of_table_1: Mapping[str, Ranks]) -> list[Item]:
    items = []
    for column, ranks in of_table_1.items():
        in_table_8 = _column(grid, column)
        out_of_order = displaced(in_table_8, ranks) if in_table_8 != ranks else []
        metric = _FROM_TABLE_1[column]
        items.append(
            compared(
                f"table8-{metric.lower()}",
                f"Table 8, {column.replace(', ', ' ')}",
                f"{len(in_table_8)} ranks",
                f"ranks of Table 1's {metric}",
                by_model(grid.of_models(column), ranks),
                note=f"except for {names(out_of_order)}, the models stand in Table 1's order"
                if out_of_order
                else "",
            )
        )
    for column in _INCEPTION:
        in_table_8 = _column(grid, column)
        complete = sorted(in_table_8.values()) == list(range(1, len(in_table_8) + 1))
        items.append(
            stated(
                f"table8-{column.lower().replace(', ', '-')}",
                f"Table 8, {column.replace(', ', ' ')}",
                f"{len(in_table_8)} ranks",
                "are they the numbers from 1 to 11, each once?",
                None if complete else False,
                "yes" if complete else "no",
                numbers=len(in_table_8),
                reason="the paper prints no FID or KID in InceptionV3's features",
            )
        )
    return items


def _means(columns: Sequence[Ranks]) -> dict[str, Bounded]:
    """Return each model's mean over columns of ranks."""
    return {model: mean_of([ranks[model] for ranks in columns]) for model in NAMES}


def _averages(grid: Grid) -> list[Item]:
    average = grid.of_models("Average Rank")
    by_average = ranked(average, lower=True)
    normalised = grid.of_models("Normalized Rank")

    def means(columns: Sequence[str]) -> dict[str, Bounded]:
        return _means([_column(grid, column) for column in columns])

    without_inception = means(list(_FROM_TABLE_1))
    agreeing = sum(agrees(average[model], mean) for model, mean in without_inception.items())
    return [
        compared(
            "table8-average",
            "Table 8, Average Rank",
            f"{len(average)} averages",
            "mean of the nine columns of ranks as printed, Inception's two included",
            by_model(average, means([*_INCEPTION, *_FROM_TABLE_1])),
            note=f"without Inception's columns {agreeing} of {len(average)} would agree",
        ),
        compared(
            "table8-normalised",
            "Table 8, Normalized Rank",
            f"{len(normalised)} ranks",
            "rank of Average Rank as printed, lowest first",
            by_model(normalised, by_average),
        ),
        stated(
            "table8-top-three",
            "Table 8, caption, and Section A.2",
            "the top three are Sana, Pixart Sigma, LLM-CXR",
            "order of Average Rank",
            every(has_place(average, m, True, i + 1) for i, m in enumerate(_TOP)),
            names(sorted(by_average, key=lambda m: by_average[m])[:3]),
            numbers=3,
        ),
    ]


def _averages_of_table_1(grid: Grid, of_table_1: Mapping[str, Ranks]) -> list[Item]:
    """Return the items on Table 8's last columns, recomputed with the ranks of Table 1."""
    differing = [column for column, ranks in of_table_1.items() if _column(grid, column) != ranks]
    means = _means([*of_table_1.values(), *(_column(grid, column) for column in _INCEPTION)])
    basis = "ranks of Table 1's columns, with Inception's two columns as printed"
    return [
        compared(
            "table8-average-table1",
            "Table 8, Average Rank",
            f"{len(means)} averages",
            f"mean of nine: {basis}",
            by_model(grid.of_models("Average Rank"), means),
            note=f"columns whose ranks differ from Table 1: {listed(differing)}",
        ),
        compared(
            "table8-normalised-table1",
            "Table 8, Normalized Rank",
            f"{len(means)} ranks",
            f"rank of the mean of nine: {basis}",
            by_model(grid.of_models("Normalized Rank"), ranked(means, lower=True)),
        ),
    ]


def _sources(paper: Paper) -> dict[str, tuple[dict[str, Printed], bool, str]]:
    """Return what Table 10's columns rank: numbers, whether lower is better, and their table."""
    auc, dice = paper["4"].of_models("Average"), paper["5"].of_models("DICE")
    return {
        "FID Rank": (fid_of_models(paper), True, "Table 1's FID"),
        "Classification Rank": ({m: auc[m] for m in NAMES}, False, "Table 4's Average"),
        "Segmentation Rank": ({m: dice[m] for m in NAMES}, False, "Table 5's Dice"),
    }


def _task_ranks(paper: Paper) -> list[Item]:
    grid = paper["10"]
    normalised = _column(paper["8"], "Normalized Rank")
    items = []
    for column, (numbers, lower, source) in _sources(paper).items():
        in_table_10 = _column(grid, column)
        by_method = {
            "sharing the lowest rank": ranked(numbers, lower),
            "ranked without gaps": ranked(numbers, lower, "dense"),
        }
        # The paper is compared with the way of ranking equal numbers that fits it better.
        method, ranks = max(
            by_method.items(),
            key=lambda item: sum(in_table_10[m] == rank for m, rank in item[1].items()),
        )
        notes = [_inversions(in_table_10, numbers, lower)]
        if in_table_10 == normalised:
            notes.append("the column is Table 8's Normalized Rank, which averages nine metrics")
        items.append(
            compared(
                f"table10-{column.split()[0].lower()}",
                f"Table 10, {column}",
                f"{len(in_table_10)} ranks",
                f"ranks of {source}, equal numbers {method}",
                by_model(grid.of_models(column), ranks),
                note="; ".join(filter(None, notes)),
            )
        )
    return items


def _inversions(ranks: Ranks, numbers: Mapping[str, Printed], lower: bool) -> str:
    """Return how many pairs of models are ranked against their numbers, and the worst one."""
    sign = 1 if lower else -1
    wrong = [
        (a, b)
        for a in ranks
        for b in ranks
        if ranks[a] < ranks[b] and sign * numbers[a].exact > sign * numbers[b].exact
    ]
    if not wrong:
        return ""
    a, b = max(wrong, key=lambda pair: abs(numbers[pair[0]].exact - numbers[pair[1]].exact))
    return (
        f"{len(wrong)} pairs are in the wrong order: {NAMES[a]} ({numbers[a].text}) has rank "
        f"{ranks[a]}, {NAMES[b]} ({numbers[b].text}) rank {ranks[b]}"
    )


def _correlations(paper: Paper) -> list[Item]:
    sources = _sources(paper)
    printed_fid = _column(paper["10"], "FID Rank")
    fid = ranked(*sources["FID Rank"][:2])
    items = []
    for column, claimed in _CORRELATIONS.items():
        task = column.split()[0].lower()
        numbers, lower, source = sources[column]
        claim = f"strong correlation, {claimed}, of fidelity and {task}"
        as_printed = pearson(printed_fid, _column(paper["10"], column))
        recomputed = pearson(fid, ranked(numbers, lower))
        low, high = reach_of_ranks(fid, numbers, lower)
        half = float(printed(claimed).half)
        possible = low - half < float(claimed) < high + half
        items += [
            stated(
                f"text-correlation-{task}",
                "Section A.4",
                claim,
                "Pearson's, of Table 10's ranks as printed",
                f"{as_printed.value:.2f}" == claimed,
                as_printed.text(),
            ),
            stated(
                f"text-correlation-{task}-again",
                "Section A.4",
                claim,
                f"Pearson's, of the ranks of Table 1's FID and of {source}",
                True if f"{recomputed.value:.2f}" == claimed else None if possible else False,
                f"{recomputed.text()}; {low:.2f} to {high:.2f} for any order of the models "
                "that are printed alike",
            ),
        ]
    return items


def _text_on_tasks(paper: Paper) -> list[Item]:
    fid, classification, segmentation = (
        _column(paper["10"], column)
        for column in ("FID Rank", "Classification Rank", "Segmentation Rank")
    )
    exceptions = [m for m, rank in fid.items() if rank > len(fid) / 2 and segmentation[m] <= 2]
    dice, *_ = _sources(paper)["Segmentation Rank"]
    return [
        stated(
            "text-segmentation-mirrors",
            "Section A.4",
            "lower-fidelity models drop in segmentation rank in proportion",
            "Table 10: models of the lower half by FID Rank with Segmentation Rank 1 or 2",
            not exceptions,
            listed(
                f"{NAMES[m]} FID Rank {fid[m]}, Segmentation Rank {segmentation[m]} "
                f"(Dice {dice[m].text})"
                for m in exceptions
            ),
        ),
        stated(
            "text-segmentation-top",
            "Section A.4",
            "Sana and Pixart Sigma have the best segmentation",
            "Table 5's Dice",
            every(has_place(dice, m, False, 1, 2) for m in ("sana", "pixart_sigma")),
            ", ".join(f"{NAMES[m]} {dice[m].text}" for m in ("pixart_sigma", "sana", "radedit")),
            numbers=2,
        ),
        stated(
            "text-classification-plateau",
            "Section A.4",
            "SD V1-4 and SD V1-5 share classification rank 1 with the best",
            "ranks of Table 4's Average; Table 10",
            {classification[m] for m in ("sd_v1_4", "sd_v1_5", "sana")} == {1},
            f"rank 1: {names(m for m, rank in classification.items() if rank == 1)}",
            numbers=2,
        ),
    ]
