"""Ranks of the models: Tables 8 and 10, Sections A.2 and A.4."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final

from workflow_scripts.paper_audit.fidelity import COLUMNS, LOWER
from workflow_scripts.paper_audit.items import Item, compared, stated
from workflow_scripts.paper_audit.models import (
    NAMES,
    displaced,
    names,
    pearson,
    ranked,
    reach_of_ranks,
    values,
    values_of,
)
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed, printed
from workflow_scripts.paper_audit.yardstick import (
    Exact,
    Truth,
    agrees,
    every,
    exactly,
    has_place,
    mean_of,
)

_FROM_TABLE_1: Final = {
    "FID, RadDino": "FID",
    "KID, RadDino": "KID",
    "Alignment Score": "Alignment",
    "Precision": "Precision",
    "Recall": "Recall",
    "Density": "Density",
    "Coverage": "Coverage",
}
"""Columns of ranks in Table 8, and the metric of Table 1 that they follow from."""

_INCEPTION: Final = ("FID, Inception", "KID, Inception")
"""Those whose values the paper does not print."""

_CORRELATIONS: Final = {"Classification Rank": "0.77", "Segmentation Rank": "0.78"}
_TOP: Final = ("sana", "pixart_sigma", "llm_cxr")


def rank_items(paper: Paper) -> list[Item]:
    """Return what follows for Tables 8 and 10."""
    return [
        *_single_ranks(paper),
        *_averages(paper["8"]),
        *_again(paper),
        *_task_ranks(paper),
        *_correlations(paper),
    ]


def _ranks_of_table_1(paper: Paper) -> dict[str, dict[str, int]]:
    """Return the ranks that Table 1 gives, by Table 8's columns and by model."""
    return {
        column: ranked(paper["1"].of_models(COLUMNS[metric]), metric in LOWER)
        for column, metric in _FROM_TABLE_1.items()
    }


def _single_ranks(paper: Paper) -> list[Item]:
    grid = paper["8"]
    items = []
    for column, found in _ranks_of_table_1(paper).items():
        own = grid.of_models(column)
        as_ranks = {model: int(number.exact) for model, number in own.items()}
        out = displaced(as_ranks, found) if as_ranks != found else []
        metric = _FROM_TABLE_1[column]
        items.append(
            compared(
                f"table8-{metric.lower()}",
                f"Table 8, {column.replace(', ', ' ')}",
                f"{len(own)} ranks",
                f"ranks of Table 1's {metric}",
                {NAMES[m]: (own[m], exactly(found[m])) for m in own},
                f"but for {names(out)}, the models stand in Table 1's order" if out else "",
            )
        )
    for column in _INCEPTION:
        own = grid.of_models(column)
        whole = sorted(int(n.exact) for n in own.values()) == list(range(1, len(own) + 1))
        items.append(
            stated(
                f"table8-{column.lower().replace(', ', '-')}",
                f"Table 8, {column.replace(', ', ' ')}",
                f"{len(own)} ranks",
                "are they the numbers from 1 to 11, each once?",
                None if whole else False,
                "yes" if whole else "no",
                len(own),
                reason="the paper prints no FID or KID in InceptionV3's features",
            )
        )
    return items


def _averages(grid: Grid) -> list[Item]:
    printed_average = grid.of_models("Average Rank")
    nine = (*_INCEPTION, *_FROM_TABLE_1)

    def pairs(columns: Sequence[str]) -> dict[str, tuple[Printed, Exact]]:
        return {
            NAMES[model]: (
                number,
                Exact(mean_of([grid.of_models(c)[model] for c in columns]).value),
            )
            for model, number in printed_average.items()
        }

    without = sum(agrees(*pair) for pair in pairs(tuple(_FROM_TABLE_1)).values())
    by_average = ranked(printed_average, lower=True)
    normalised = grid.of_models("Normalized Rank")
    return [
        compared(
            "table8-average",
            "Table 8, Average Rank",
            f"{len(printed_average)} averages",
            "mean of the nine columns of ranks as printed, Inception's two included",
            pairs(nine),
            f"without Inception's columns {without} of {len(printed_average)} would agree",
        ),
        compared(
            "table8-normalised",
            "Table 8, Normalized Rank",
            f"{len(normalised)} ranks",
            "rank of Average Rank as printed, lowest first",
            {NAMES[m]: (number, exactly(by_average[m])) for m, number in normalised.items()},
        ),
        stated(
            "table8-top-three",
            "Table 8, caption, and Section A.2",
            "the top three are Sana, Pixart Sigma, LLM-CXR",
            "order of Average Rank",
            every(has_place(printed_average, m, True, i + 1) for i, m in enumerate(_TOP)),
            names(sorted(by_average, key=lambda m: by_average[m])[:3]),
            3,
        ),
    ]


def _again(paper: Paper) -> list[Item]:
    """Return Table 8's last columns with the ranks that Table 1 gives."""
    grid = paper["8"]
    found = _ranks_of_table_1(paper)
    otherwise = [
        column
        for column, ranks in found.items()
        if any(number.exact != ranks[m] for m, number in grid.of_models(column).items())
    ]
    normalised = grid.of_models("Normalized Rank")
    inception = [grid.of_models(column) for column in _INCEPTION]
    means = {
        model: Exact(
            Fraction(
                sum(ranks[model] for ranks in found.values())
                + sum(int(column[model].exact) for column in inception),
                len(found) + len(inception),
            )
        )
        for model in NAMES
    }
    as_numbers = {
        m: Printed(f"{float(mean.value)}", mean.value, mean.slack, 2) for m, mean in means.items()
    }
    again = ranked(as_numbers, lower=True)
    basis = "ranks of Table 1's columns, with Inception's two columns as printed"
    return [
        compared(
            "table8-average-table1",
            "Table 8, Average Rank",
            f"{len(means)} averages",
            f"mean of nine: {basis}",
            {NAMES[m]: (n, means[m]) for m, n in grid.of_models("Average Rank").items()},
            f"columns whose ranks differ from Table 1: {', '.join(otherwise) or 'none'}",
        ),
        compared(
            "table8-normalised-table1",
            "Table 8, Normalized Rank",
            f"{len(again)} ranks",
            f"rank of the mean of nine: {basis}",
            {NAMES[m]: (number, exactly(again[m])) for m, number in normalised.items()},
        ),
    ]


def _sources(paper: Paper) -> dict[str, tuple[dict[str, Printed], bool, str]]:
    """Return what Table 10's columns follow from: numbers, whether lower is better, their table."""
    classification = paper["4"].of_models("Average")
    segmentation = paper["5"].of_models("DICE")
    return {
        "FID Rank": (paper["1"].of_models(COLUMNS["FID"]), True, "Table 1's FID"),
        "Classification Rank": (
            {m: n for m, n in classification.items() if m in NAMES},
            False,
            "Table 4's Average",
        ),
        "Segmentation Rank": (
            {m: n for m, n in segmentation.items() if m in NAMES},
            False,
            "Table 5's Dice",
        ),
    }


def _task_ranks(paper: Paper) -> list[Item]:
    grid = paper["10"]
    normalised = paper["8"].of_models("Normalized Rank")
    items = []
    for column, (numbers, lower, source) in _sources(paper).items():
        own = grid.of_models(column)
        kinds = {
            "sharing the lowest rank": ranked(numbers, lower),
            "ranked without gaps": ranked(numbers, lower, "dense"),
        }
        # Whichever way of ranking equal numbers fits better is held against the paper.
        fits = {kind: sum(own[m].exact == r[m] for m in own) for kind, r in kinds.items()}
        kind = max(fits, key=lambda k: fits[k])
        items.append(
            compared(
                f"table10-{column.split()[0].lower()}",
                f"Table 10, {column}",
                f"{len(own)} ranks",
                f"ranks of {source}, equal numbers {kind}",
                {NAMES[m]: (own[m], exactly(kinds[kind][m])) for m in own},
                "; ".join(
                    filter(None, (_inversions(own, numbers, lower), _as_in(own, normalised)))
                ),
            )
        )
    return items


def _inversions(own: Mapping[str, Printed], numbers: Mapping[str, Printed], lower: bool) -> str:
    """Return how often a model ranks above one with a better number, and the worst case."""
    sign = 1 if lower else -1
    wrong = [
        (a, b)
        for a in own
        for b in own
        if own[a].exact < own[b].exact and sign * numbers[a].exact > sign * numbers[b].exact
    ]
    if not wrong:
        return ""
    a, b = max(wrong, key=lambda pair: abs(numbers[pair[0]].exact - numbers[pair[1]].exact))
    return (
        f"{len(wrong)} pairs are in the wrong order: {NAMES[a]} ({numbers[a].text}) has rank "
        f"{own[a].text}, {NAMES[b]} ({numbers[b].text}) rank {own[b].text}"
    )


def _as_in(own: Mapping[str, Printed], normalised: Mapping[str, Printed]) -> str:
    """Return that a column is Table 8's last one instead, if it is."""
    if any(own[m].exact != number.exact for m, number in normalised.items()):
        return ""
    return "the column is Table 8's Normalized Rank, which averages nine metrics"


def _correlations(paper: Paper) -> list[Item]:
    grid = paper["10"]
    sources = _sources(paper)
    by_fid = values(grid.of_models("FID Rank"))
    true_fid = ranked(*sources["FID Rank"][:2])
    items = []
    for column, claimed in _CORRELATIONS.items():
        task = column.split()[0].lower()
        numbers, lower, source = sources[column]
        found = pearson(by_fid, values(grid.of_models(column)))
        again = pearson(values_of(true_fid), values_of(ranked(numbers, lower)))
        low, high = reach_of_ranks(true_fid, numbers, lower)
        half = float(printed(claimed).half)
        within = low - half < float(claimed) < high + half
        items += [
            _correlation(
                f"text-correlation-{task}",
                claimed,
                "Pearson's, of Table 10's ranks as printed",
                task,
                f"{found.value:.2f}" == claimed,
                found.text(),
            ),
            _correlation(
                f"text-correlation-{task}-again",
                claimed,
                f"Pearson's, of the ranks of Table 1's FID and of {source}",
                task,
                True if f"{again.value:.2f}" == claimed else None if within else False,
                f"{again.text()}; {low:.2f} to {high:.2f} for any order of the models "
                "that are printed alike",
            ),
        ]
    return [*items, *_said_of_ranks(paper)]


def _said_of_ranks(paper: Paper) -> list[Item]:
    grid = paper["10"]
    by_fid, classified, segmented = (
        {m: int(n.exact) for m, n in grid.of_models(c).items()}
        for c in ("FID Rank", "Classification Rank", "Segmentation Rank")
    )
    lower_half = [m for m, rank in by_fid.items() if rank > len(by_fid) / 2]
    kept = [m for m in lower_half if segmented[m] <= 2]
    dice = paper["5"].of_models("DICE")
    of_models = {m: number for m, number in dice.items() if m in NAMES}
    return [
        stated(
            "text-segmentation-mirrors",
            "Section A.4",
            "lower-fidelity models drop in segmentation rank in proportion",
            "Table 10: models of the lower half by FID Rank with Segmentation Rank 1 or 2",
            not kept,
            ", ".join(
                f"{NAMES[m]} FID Rank {by_fid[m]}, Segmentation Rank {segmented[m]} "
                f"(Dice {dice[m].text})"
                for m in kept
            )
            or "none",
        ),
        stated(
            "text-segmentation-top",
            "Section A.4",
            "Sana and Pixart Sigma have the best segmentation",
            "Table 5's Dice",
            every(has_place(of_models, m, False, 1, 2) for m in ("sana", "pixart_sigma")),
            f"Pixart Sigma {dice['pixart_sigma'].text}, Sana {dice['sana'].text}, RadEdit "
            f"{dice['radedit'].text}",
            2,
        ),
        stated(
            "text-classification-plateau",
            "Section A.4",
            "SD V1-4 and SD V1-5 share classification rank 1 with the best",
            "ranks of Table 4's Average; Table 10",
            {classified[m] for m in ("sd_v1_4", "sd_v1_5", "sana")} == {1},
            f"rank 1: {names(m for m, rank in classified.items() if rank == 1)}",
            2,
        ),
    ]


def _correlation(key: str, claimed: str, basis: str, task: str, truth: Truth, found: str) -> Item:
    claim = f"strong correlation, {claimed}, of fidelity and {task}"
    return stated(key, "Section A.4", claim, basis, truth, found)
