"""Report generation: Tables 6 and 16, Abstract, Sections 3.3, 4.1 and A.7.2."""

from collections.abc import Mapping
from typing import Final

from workflow_scripts.paper_audit.items import Item, compared, stated
from workflow_scripts.paper_audit.models import NAMES, names, ranked
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed, printed
from workflow_scripts.paper_audit.yardstick import (
    below,
    every,
    exactly,
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

_LOW: Final = ("sd_v1_4", "sd_v1_5")
_HIGH: Final = ("radedit", "pixart_sigma", "sana")
"""Table 6's models, as its caption and Section 3.3 group them by fidelity."""

_QUOTED: Final = {
    ("BLEU-4", "real"): "10.29",
    ("BLEU-4", "sd_v1_4"): "8.76",
    ("BLEU-4", "sana"): "11.28",
    ("F1-RadGraph", "real"): "0.21",
    ("F1-RadGraph", "sd_v1_4"): "0.19",
    ("F1-RadGraph", "sana"): "0.26",
}
"""Numbers of Table 6 that Section 3.3 quotes."""

_SAID_BEST: Final = (("radedit", "BLEU-4"), ("pixart_sigma", "BLEU-1"))
"""Where Section A.7.2 has a model excel or be the best."""

_SAID_STRONG: Final = (
    ("radedit", "F1-RadGraph"),
    ("radedit", "Micro F1-14"),
    ("sana", "ROUGE-L"),
    ("sana", "Micro F1-5"),
    ("sana", "Micro F1-14"),
    ("sd_v2", "Micro F1-5"),
    ("sd_v2", "Micro F1-14"),
)
"""What Section A.7.2 calls strengths of a model: it should be better than the median."""

Scores = dict[str, dict[str, Printed]]


def report_items(paper: Paper) -> list[Item]:
    """Return what follows from Tables 6 and 16."""
    augmented, alone = _scores(paper["6"]), _scores(paper["16"])
    return [*_augmented(augmented), *_multimodal(augmented, paper["4"]), *_alone(alone)]


def _scores(grid: Grid) -> Scores:
    """Return the scores by metric, without its arrow, and by model; `real` is the baseline."""
    return {row.removesuffix(" (\\uparrow)"): grid.across_models(row) for row in grid.rows}


def _augmented(scores: Scores) -> list[Item]:
    lower = {m: [below(row[m], row["real"]) for row in scores.values()] for m in _LOW}
    higher = {
        m: {s: below(row["real"], row[m]) for s, row in scores.items()} for m in _models(scores)
    }
    quoted = {
        f"{metric} {NAMES.get(model, 'baseline')}": (printed(text), exactly(scores[metric][model]))
        for (metric, model), text in _QUOTED.items()
    }
    n = len(scores)
    gained = {
        m: [s for s, so in higher[m].items() if so] for m in _LOW if True in higher[m].values()
    }
    return [
        compared("text-report-quoted", "Section 3.3", "BLEU-4 and F1-RadGraph", "Table 6", quoted),
        stated(
            "text-report-low-degrades",
            "Section 3.3",
            "SD V1-4 and SD V1-5 degrade most metrics",
            "Table 6: metrics below the baseline",
            every(most(metrics) for metrics in lower.values()),
            ", ".join(f"{NAMES[m]} {metrics.count(True)} of {n}" for m, metrics in lower.items()),
            len(_LOW) * n,
        ),
        stated(
            "text-report-high-improves",
            "Section 3.3",
            "RadEdit, Pixart Sigma and Sana improve report generation",
            "Table 6: metrics above the baseline",
            every(so for m in _HIGH for so in higher[m].values()),
            ", ".join(f"{NAMES[m]} {list(higher[m].values()).count(True)} of {n}" for m in _HIGH),
            len(_HIGH) * n,
        ),
        stated(
            "text-only-high-improves",
            "Section 4.1",
            "report generation improves only with high-fidelity data",
            "Table 6: metrics in which low-fidelity models are above the baseline",
            opposite(some(so for m in _LOW for so in higher[m].values())),
            "; ".join(f"{NAMES[m]}: {', '.join(metrics)}" for m, metrics in gained.items())
            or "none",
            len(_LOW) * n,
        ),
    ]


def _models(scores: Scores) -> list[str]:
    """Return the models that a table has scores of, the baseline left out."""
    return [model for model in next(iter(scores.values())) if model != "real"]


_SCALES: Final = {
    "relative to the baseline": lambda old, new: new / old - 1,
    "relative, AUC less that of chance": lambda old, new: new / old - 1,
    "share of what the baseline lacks": lambda old, new: (new - old) / (1 - old),
}
"""How large a gain is, from two scores in [0, 1]: what the words `limited utility` may mean."""

_OF_CHANCE: Final = 0.5
"""AUC of a classifier that knows nothing."""

_PERCENT: Final = ("BLEU-1", "BLEU-4")
"""Scores that Table 6 prints from 0 to 100."""


def _multimodal(scores: Scores, table4: Grid) -> list[Item]:
    findings = [c for c in table4.columns if c != "Average"]
    aucs = [float(mean_of([table4.number(row, c) for c in findings]).value) for row in table4.rows]
    pairs = {}
    for metric, row in scores.items():
        unit = 100 if metric in _PERCENT else 1
        best = max(row[m].value for m in _models(scores))
        pairs[metric] = (row["real"].value / unit, best / unit)
    words, readings = [], []
    for name, gain in _SCALES.items():
        chance = _OF_CHANCE if "chance" in name else 0.0
        classified = gain(aucs[0] - chance, max(aucs) - chance)
        gains = {metric: gain(*pair) for metric, pair in pairs.items()}
        above = [metric for metric, own in gains.items() if own > classified]
        readings.append(2 * len(above) <= len(gains))
        words.append(
            f"{name}: classification {classified:+.1%}, report generation more in {len(above)} of "
            f"{len(gains)} metrics, at most {max(gains.values()):+.1%}"
        )
    return [
        stated(
            "text-limited-multimodal",
            "Abstract and Section 5",
            "synthetic data helps classification, and multimodal tasks only to a limited extent",
            "best gain over the baseline of Table 6's metrics and of Table 4's mean AUC: is it "
            "larger in most metrics of reports? On three scales",
            in_all_readings(readings),
            "; ".join(words),
            note="added to real data; alone, synthetic data degrades report generation (Table 16)",
            reason="scores of two tasks have no common scale",
        )
    ]


def _alone(scores: Scores) -> list[Item]:
    models = _models(scores)
    own = {s: {m: row[m] for m in models} for s, row in scores.items()}
    ranks = {s: ranked(row, lower=False) for s, row in own.items()}
    dense = {s: ranked(row, lower=False, method="dense") for s, row in own.items()}
    falls = {(s, m): below(row[m], row["real"]) for s, row in scores.items() for m in models}
    above = [f"{NAMES[m]} {s}" for (s, m), fall in falls.items() if fall is False]
    equal = [f"{NAMES[m]} {s}" for (s, m), fall in falls.items() if fall is None]
    second = [s for s in scores if dense[s]["llm_cxr"] in (2, 3)]
    strict = [has_place(row, "llm_cxr", False, 2, 3) for row in own.values()]
    best = {s: [m for m in models if ranks[s][m] == 1] for s in scores}
    strong = {(m, s): has_place(own[s], m, False, 1) for m, s in _SAID_BEST} | {
        (m, s): is_side(side_of_median(own[s], m, lower=False), "high") for m, s in _SAID_STRONG
    }
    off = [f"{NAMES[m]} {s} rank {ranks[s][m]}" for (m, s), so in strong.items() if not so]
    return [
        stated(
            "text-alone-degrades",
            "Section A.7.2",
            "fine-tuning on synthetic data alone degrades every model",
            "Table 16's cells against Original",
            every(falls.values()),
            f"{len(falls) - len(above) - len(equal)} of {len(falls)} below; above: "
            f"{', '.join(above) or 'none'}; equal as printed: {', '.join(equal) or 'none'}",
            len(falls),
        ),
        stated(
            "text-alone-strengths",
            "Section A.7.2",
            "strengths: RadEdit BLEU-4, F1-RadGraph, Micro F1-14; Sana ROUGE-L, Micro F1; Pixart "
            "Sigma BLEU-1; SD V2 Micro F1",
            "Table 16's rows: BLEU the best, the others better than the median of the models",
            every(strong.values()),
            f"{len(strong) - len(off)} of {len(strong)}" + (f"; {', '.join(off)}" if off else ""),
            len(strong),
        ),
        stated(
            "text-alone-llm-cxr",
            "Section A.7.2",
            "LLM-CXR is often second or third",
            "ranks of Table 16's rows, with and without gaps after equal numbers",
            in_all_readings([often(strict), 2 * len(second) >= len(scores)]),
            f"{len(second)} of {len(scores)} without gaps; where equal numbers share the lowest "
            f"rank {sum(ranks[s]['llm_cxr'] in (2, 3) for s in scores)}",
            reason="models are printed alike",
        ),
        stated(
            "text-alone-no-winner",
            "Section A.7.2",
            "no model is best in all metrics",
            "Table 16",
            opposite(
                some(every(has_place(row, m, False, 1) for row in own.values()) for m in models)
            ),
            _winners(best),
        ),
    ]


def _winners(best: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{metric}: {names(winners)}" for metric, winners in best.items())
