"""Report generation: Tables 6 and 16, Abstract, Sections 3.3, 4.1 and A.7.2."""

from collections.abc import Mapping
from typing import Final

from workflow_scripts.tables.audit.items import (
    CONTRADICTED,
    REPRODUCED,
    ROUNDED,
    Item,
    compared,
    exactly,
    mean_of,
    stated,
)
from workflow_scripts.tables.audit.models import NAMES, names, ranked
from workflow_scripts.tables.audit.printed import Grid, Paper, Printed, printed

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

_SAID_BEST: Final = (
    ("radedit", "BLEU-4"),
    ("radedit", "F1-RadGraph"),
    ("radedit", "Micro F1-14"),
    ("sana", "ROUGE-L"),
    ("sana", "Micro F1-5"),
    ("sana", "Micro F1-14"),
    ("pixart_sigma", "BLEU-1"),
    ("sd_v2", "Micro F1-5"),
    ("sd_v2", "Micro F1-14"),
)
"""What Section A.7.2 calls strengths of a model: it should be the best or share that."""

Scores = dict[str, dict[str, Printed]]


def report_items(paper: Paper) -> list[Item]:
    """Return what follows from Tables 6 and 16."""
    augmented, alone = _scores(paper["6"]), _scores(paper["16"])
    return [*_augmented(augmented), *_multimodal(augmented, paper["4"]), *_alone(alone)]


def _scores(grid: Grid) -> Scores:
    """Return the scores by metric, without its arrow, and by model; `real` is the baseline."""
    return {row.removesuffix(" (\\uparrow)"): grid.across_models(row) for row in grid.rows}


def _augmented(scores: Scores) -> list[Item]:
    lower = {m: [s for s, row in scores.items() if row[m].exact < row["real"].exact] for m in _LOW}
    higher = {
        m: [s for s, row in scores.items() if row[m].exact > row["real"].exact]
        for m in _models(scores)
    }
    quoted = {
        f"{metric} {NAMES.get(model, 'baseline')}": (printed(text), exactly(scores[metric][model]))
        for (metric, model), text in _QUOTED.items()
    }
    n = len(scores)
    gained = {m: higher[m] for m in _LOW if higher[m]}
    return [
        compared("text-report-quoted", "Section 3.3", "BLEU-4 and F1-RadGraph", "Table 6", quoted),
        stated(
            "text-report-low-degrades",
            "Section 3.3",
            "SD V1-4 and SD V1-5 degrade most metrics",
            "Table 6: metrics below the baseline",
            all(2 * len(metrics) > n for metrics in lower.values()),
            ", ".join(f"{NAMES[m]} {len(metrics)} of {n}" for m, metrics in lower.items()),
            len(_LOW) * n,
        ),
        stated(
            "text-report-high-improves",
            "Section 3.3",
            "RadEdit, Pixart Sigma and Sana improve report generation",
            "Table 6: metrics above the baseline",
            all(len(higher[m]) == n for m in _HIGH),
            ", ".join(f"{NAMES[m]} {len(higher[m])} of {n}" for m in _HIGH),
            len(_HIGH) * n,
        ),
        stated(
            "text-only-high-improves",
            "Section 4.1",
            "report generation improves only with high-fidelity data",
            "Table 6: metrics in which low-fidelity models are above the baseline",
            not gained,
            "; ".join(f"{NAMES[m]}: {', '.join(metrics)}" for m, metrics in gained.items())
            or "none",
            len(_LOW) * n,
        ),
    ]


def _models(scores: Scores) -> list[str]:
    """Return the models that a table has scores of, the baseline left out."""
    return [model for model in next(iter(scores.values())) if model != "real"]


def _multimodal(scores: Scores, table4: Grid) -> list[Item]:
    gains = {
        metric: max((float(row[m].exact / row["real"].exact - 1), m) for m in _models(scores))
        for metric, row in scores.items()
    }
    findings = [c for c in table4.columns if c != "Average"]
    means = {
        row: float(mean_of([table4.number(row, c) for c in findings]).value) for row in table4.rows
    }
    classification = max(mean / means["Original"] - 1 for mean in means.values())
    most = max(gains, key=lambda metric: gains[metric])
    above = sum(gain > classification for gain, _ in gains.values())
    return [
        stated(
            "text-limited-multimodal",
            "Abstract and Section 5",
            "synthetic data helps classification, and multimodal tasks only to a limited extent",
            "largest gain over the baseline, relative: Table 6's metrics against Table 4's means",
            2 * above <= len(gains),
            f"classification {classification:+.1%}; report generation larger in {above} of "
            f"{len(gains)} metrics, at most {gains[most][0]:+.1%} ({most}, "
            f"{NAMES[gains[most][1]]})",
            note="added to real data; alone, synthetic data degrades report generation (Table 16)",
        )
    ]


def _alone(scores: Scores) -> list[Item]:
    models = _models(scores)
    own = {s: {m: row[m] for m in models} for s, row in scores.items()}
    ranks = {s: ranked(row, lower=False) for s, row in own.items()}
    dense = {s: ranked(row, lower=False, method="dense") for s, row in own.items()}
    above, equal = [], []
    for metric, row in scores.items():
        for model in models:
            if row[model].exact > row["real"].exact:
                above.append(f"{NAMES[model]} {metric}")
            elif row[model].exact == row["real"].exact:
                equal.append(f"{NAMES[model]} {metric}")
    verdict = CONTRADICTED if above else ROUNDED if equal else REPRODUCED
    second = [s for s in scores if dense[s]["llm_cxr"] in (2, 3)]
    strict = [s for s in scores if ranks[s]["llm_cxr"] in (2, 3)]
    best = {s: [m for m in models if ranks[s][m] == 1] for s in scores}
    off = [f"{NAMES[m]} {s} rank {ranks[s][m]}" for m, s in _SAID_BEST if ranks[s][m] > 1]
    return [
        Item(
            "text-alone-degrades",
            "Section A.7.2",
            "fine-tuning on synthetic data alone degrades every model",
            "Table 16's cells against Original",
            f"{len(models) * len(scores) - len(above) - len(equal)} of "
            f"{len(models) * len(scores)} below; above: {', '.join(above) or 'none'}; equal as "
            f"printed: {', '.join(equal) or 'none'}",
            verdict,
            len(models) * len(scores),
        ),
        stated(
            "text-alone-strengths",
            "Section A.7.2",
            "strengths: RadEdit BLEU-4, F1-RadGraph, Micro F1-14; Sana ROUGE-L, Micro F1; Pixart "
            "Sigma BLEU-1; SD V2 Micro F1",
            "ranks of Table 16's rows, equal numbers sharing the lowest",
            not off,
            f"{len(_SAID_BEST) - len(off)} of {len(_SAID_BEST)} best or equal to the best"
            + (f"; {', '.join(off)}" if off else ""),
            len(_SAID_BEST),
        ),
        stated(
            "text-alone-llm-cxr",
            "Section A.7.2",
            "LLM-CXR is often second or third",
            "ranks of Table 16's rows without gaps",
            2 * len(second) >= len(scores),
            f"{len(second)} of {len(scores)}; where equal numbers share the lowest rank "
            f"{len(strict)}",
        ),
        stated(
            "text-alone-no-winner",
            "Section A.7.2",
            "no model is best in all metrics",
            "Table 16",
            not any(all(m in winners for winners in best.values()) for m in models),
            _winners(best),
        ),
    ]


def _winners(best: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{metric}: {names(winners)}" for metric, winners in best.items())
