"""Report generation: Tables 6 and 16, Abstract, Sections 3.3, 4.1 and A.7.2."""

from typing import Final

from workflow_scripts.paper_audit.items import Item, compared, stated
from workflow_scripts.paper_audit.model_names import HIGH_FIDELITY, NAMES, listed, names
from workflow_scripts.paper_audit.orders import ranked
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed
from workflow_scripts.paper_audit.yardstick import (
    below,
    every,
    has_place,
    in_all_readings,
    is_side,
    mean_of,
    most,
    often,
    opposite,
    side_of_median,
    some,
)

_LOW_FIDELITY: Final = ("sd_v1_4", "sd_v1_5")
"""Table 6's models of low fidelity, as its caption and Section 3.3 group them."""

_QUOTED: Final = {
    ("BLEU-4", "real"): "10.29",
    ("BLEU-4", "sd_v1_4"): "8.76",
    ("BLEU-4", "sana"): "11.28",
    ("F1-RadGraph", "real"): "0.21",
    ("F1-RadGraph", "sd_v1_4"): "0.19",
    ("F1-RadGraph", "sana"): "0.26",
}
"""Numbers of Table 6 in Section 3.3."""

_CLAIMED_BEST: Final = (("radedit", "BLEU-4"), ("pixart_sigma", "BLEU-1"))
"""Models that excel or are best in a metric, in Section A.7.2."""

_CLAIMED_STRONG: Final = (
    ("radedit", "F1-RadGraph"),
    ("radedit", "Micro F1-14"),
    ("sana", "ROUGE-L"),
    ("sana", "Micro F1-5"),
    ("sana", "Micro F1-14"),
    ("sd_v2", "Micro F1-5"),
    ("sd_v2", "Micro F1-14"),
)
"""Models whose strength is a metric, in Section A.7.2: they should be better than the median."""

Scores = dict[str, dict[str, Printed]]
"""Scores by metric and model; `real` is the baseline."""

Ranks = dict[str, dict[str, int]]
"""Ranks by metric and model."""


def report_items(paper: Paper) -> list[Item]:
    """Return the claims that follow from Tables 6 and 16."""
    augmented, synthetic_only = _scores(paper["6"]), _scores(paper["16"])
    return [
        *_augmented(augmented),
        _multimodal(augmented, paper["4"]),
        *_synthetic_only(synthetic_only),
    ]


def _scores(grid: Grid) -> Scores:
    return {row.removesuffix(" (\\uparrow)"): grid.across_models(row) for row in grid.rows}


def _models(scores: Scores) -> list[str]:
    """Return the models of a table, without the baseline."""
    return [model for model in next(iter(scores.values())) if model != "real"]


def _augmented(scores: Scores) -> list[Item]:
    lower = {m: [below(row[m], row["real"]) for row in scores.values()] for m in _LOW_FIDELITY}
    higher = {
        m: {metric: below(row["real"], row[m]) for metric, row in scores.items()}
        for m in _models(scores)
    }
    quoted = {
        f"{metric} {NAMES.get(model, 'baseline')}": (text, scores[metric][model])
        for (metric, model), text in _QUOTED.items()
    }
    improved = {m: [metric for metric, gain in higher[m].items() if gain] for m in higher}
    n = len(scores)
    return [
        compared("text-report-quoted", "Section 3.3", "BLEU-4 and F1-RadGraph", "Table 6", quoted),
        stated(
            "text-report-low-degrades",
            "Section 3.3",
            "SD V1-4 and SD V1-5 degrade most metrics",
            "Table 6: metrics below the baseline",
            every(most(losses) for losses in lower.values()),
            ", ".join(f"{NAMES[m]} {losses.count(True)} of {n}" for m, losses in lower.items()),
            numbers=len(_LOW_FIDELITY) * n,
        ),
        stated(
            "text-report-high-improves",
            "Section 3.3",
            "RadEdit, Pixart Sigma and Sana improve report generation",
            "Table 6: metrics above the baseline",
            every(gain for m in HIGH_FIDELITY for gain in higher[m].values()),
            ", ".join(f"{NAMES[m]} {len(improved[m])} of {n}" for m in HIGH_FIDELITY),
            numbers=len(HIGH_FIDELITY) * n,
        ),
        stated(
            "text-only-high-improves",
            "Section 4.1",
            "report generation improves only with high-fidelity data",
            "Table 6: metrics in which low-fidelity models are above the baseline",
            opposite(some(gain for m in _LOW_FIDELITY for gain in higher[m].values())),
            "; ".join(f"{NAMES[m]}: {', '.join(improved[m])}" for m in _LOW_FIDELITY if improved[m])
            or "none",
            numbers=len(_LOW_FIDELITY) * n,
        ),
    ]


_SCALES: Final = {
    "relative to the baseline": lambda old, new: new / old - 1,
    "relative, AUC less that of chance": lambda old, new: new / old - 1,
    "share of what the baseline lacks": lambda old, new: (new - old) / (1 - old),
}
"""Sizes of a gain from two scores in [0, 1]: readings of the words `limited utility`."""

_CHANCE: Final = 0.5
"""AUC of a classifier that guesses."""

_PERCENT: Final = ("BLEU-1", "BLEU-4")
"""Scores that Table 6 prints from 0 to 100."""


def _multimodal(scores: Scores, table4: Grid) -> Item:
    findings = [c for c in table4.columns if c != "Average"]
    aucs = [float(mean_of([table4.number(row, c) for c in findings]).value) for row in table4.rows]
    baseline_and_best = {}
    for metric, row in scores.items():
        unit = 100 if metric in _PERCENT else 1
        best = max(row[m].value for m in _models(scores))
        baseline_and_best[metric] = (row["real"].value / unit, best / unit)
    words, readings = [], []
    for name, gain in _SCALES.items():
        chance = _CHANCE if "chance" in name else 0.0
        classification = gain(aucs[0] - chance, max(aucs) - chance)
        gains = [gain(*pair) for pair in baseline_and_best.values()]
        above = sum(report_gain > classification for report_gain in gains)
        readings.append(2 * above <= len(gains))
        words.append(
            f"{name}: classification {classification:+.1%}, report generation more in {above} of "
            f"{len(gains)} metrics, at most {max(gains):+.1%}"
        )
    return stated(
        "text-limited-multimodal",
        "Abstract and Section 5",
        "synthetic data helps classification, and multimodal tasks only to a limited extent",
        "best gain over the baseline in Table 6's metrics and in Table 4's mean AUC: is it larger "
        "in most metrics of reports? On three scales",
        in_all_readings(readings),
        "; ".join(words),
        note="added to real data; alone, synthetic data degrades report generation (Table 16)",
        reason="scores of two tasks have no common scale",
    )


def _synthetic_only(scores: Scores) -> list[Item]:
    models = _models(scores)
    of_models = {metric: {m: row[m] for m in models} for metric, row in scores.items()}
    ranks = {metric: ranked(row, lower=False) for metric, row in of_models.items()}
    losses = {
        f"{NAMES[m]} {metric}": below(row[m], row["real"])
        for metric, row in scores.items()
        for m in models
    }
    above = [label for label, loss in losses.items() if loss is False]
    equal = [label for label, loss in losses.items() if loss is None]
    no_model_leads = opposite(
        some(every(has_place(row, m, False, 1) for row in of_models.values()) for m in models)
    )
    return [
        stated(
            "text-alone-degrades",
            "Section A.7.2",
            "fine-tuning on synthetic data alone degrades every model",
            "Table 16's cells against Original",
            every(losses.values()),
            f"{list(losses.values()).count(True)} of {len(losses)} below; above: {listed(above)}; "
            f"equal as printed: {listed(equal)}",
            numbers=len(losses),
        ),
        _strengths(of_models, ranks),
        _llm_cxr(of_models, ranks),
        stated(
            "text-alone-no-winner",
            "Section A.7.2",
            "no model is best in all metrics",
            "Table 16",
            no_model_leads,
            _winners(ranks),
        ),
    ]


def _strengths(scores: Scores, ranks: Ranks) -> Item:
    best = {(m, metric): has_place(scores[metric], m, False, 1) for m, metric in _CLAIMED_BEST}
    strong = {
        (m, metric): is_side(side_of_median(scores[metric], m, lower=False), "high")
        for m, metric in _CLAIMED_STRONG
    }
    strengths = best | strong
    exceptions = [
        f"{NAMES[m]} {metric} rank {ranks[metric][m]}"
        for (m, metric), truth in strengths.items()
        if not truth
    ]
    return stated(
        "text-alone-strengths",
        "Section A.7.2",
        "strengths: RadEdit BLEU-4, F1-RadGraph, Micro F1-14; Sana ROUGE-L, Micro F1; Pixart "
        "Sigma BLEU-1; SD V2 Micro F1",
        "Table 16's rows: BLEU the best, the others better than the median of the models",
        every(strengths.values()),
        f"{len(strengths) - len(exceptions)} of {len(strengths)}; exceptions: {listed(exceptions)}",
        numbers=len(strengths),
    )


def _llm_cxr(scores: Scores, ranks: Ranks) -> Item:
    without_gaps = [ranked(row, lower=False, method="dense") for row in scores.values()]
    second_or_third = sum(row["llm_cxr"] in (2, 3) for row in without_gaps)
    return stated(
        "text-alone-llm-cxr",
        "Section A.7.2",
        "LLM-CXR is often second or third",
        "ranks of Table 16's rows, with and without gaps after equal numbers",
        in_all_readings(
            [
                often(has_place(row, "llm_cxr", False, 2, 3) for row in scores.values()),
                2 * second_or_third >= len(scores),
            ]
        ),
        f"{second_or_third} of {len(scores)} without gaps; where equal numbers share the "
        f"lowest rank {sum(row['llm_cxr'] in (2, 3) for row in ranks.values())}",
        reason="models are printed alike",
    )


def _winners(ranks: Ranks) -> str:
    return "; ".join(
        f"{metric}: {names(m for m, rank in row.items() if rank == 1)}"
        for metric, row in ranks.items()
    )
