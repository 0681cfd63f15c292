"""Settings, sizes and ablations: Tables 11 to 14, and counts that the text repeats."""

import re
from typing import Final

from workflow_scripts.paper_audit.fidelity import COLUMNS, fid_of_models
from workflow_scripts.paper_audit.items import Item, compared, stated, unchecked
from workflow_scripts.paper_audit.model_names import NAMES, model_key, names
from workflow_scripts.paper_audit.printed import Grid, Paper
from workflow_scripts.paper_audit.yardstick import below, every, mean_of

TRAINING_IMAGES: Final = 237388
"""Training samples (Sections 2.1 and 3)."""

LORA_RANK: Final = 32
"""Rank of LoRA (Sections 2.1 and 3)."""

SEGMENTATION_PAIRS: Final = (3000, 3000)
REPORT_SAMPLES: Final = (50000, 20000)
"""Real and synthetic samples (Section 2.4)."""

_LAST_PLACE: Final = "Attn. + MLP + Positional Embedding"
"""The last placement of LoRA in Section A.6, in Table 14's abbreviations."""

_RANKS: Final = {rank: f"FID by LoRA Rank, Rank {rank}" for rank in (32, 64, 128)}
"""Table 13's headers by rank."""


def setting_items(paper: Paper) -> list[Item]:
    """Return the claims on settings, sizes and ablations."""
    return [*_tuning(paper), *_lora_rank(paper), *_lora_place(paper), *_counts(paper)]


def _column(grid: Grid, column: str) -> dict[str, str]:
    """Return the texts of a column by model."""
    return {model_key(row): grid.text(row, column) for row in grid.rows}


def _tuning(paper: Paper) -> list[Item]:
    methods = _column(paper["11"], "Fine-Tuning")
    in_table_1 = _column(paper["1"], "Fine-Tuning")
    rates = _column(paper["11"], "LR")
    differing = [m for m in NAMES if methods[m].replace(" ", "") != in_table_1[m].replace(" ", "")]
    matches = {m: re.search(r"r=(\d+)", method) for m, method in methods.items()}
    ranks = {m: int(match[1]) for m, match in matches.items() if match}
    without_rate = [m for m in NAMES if rates[m] == "-"]
    untuned = [m for m, method in methods.items() if method == "N/A"]
    report = paper["12"].text("Fine-Tuning", "LLaVA-Rad (RRG)")
    return [
        stated(
            "table11-table1",
            "Table 11",
            "how each model was fine-tuned",
            "Fine-Tuning in Table 1",
            not differing,
            f"exceptions among {len(methods)}: {names(differing)}",
            numbers=len(methods),
        ),
        stated(
            "table11-lora-rank",
            "Sections 2.1 and 3",
            f"LoRA of rank {LORA_RANK}",
            "Table 11",
            set(ranks.values()) == {LORA_RANK},
            ", ".join(f"{NAMES[m]} {rank}" for m, rank in ranks.items()),
            numbers=len(ranks),
        ),
        stated(
            "table11-untrained",
            "Section A.5",
            "RadEdit and LLM-CXR were not trained",
            "Table 11: no learning rate, no fine-tuning",
            without_rate == untuned == ["radedit", "llm_cxr"],
            f"no learning rate: {names(without_rate)}",
            numbers=2,
        ),
        unchecked(
            "table12-from-scratch",
            "Table 12; Section 2.4 and Table 6, caption",
            f"LLaVA-Rad is trained from scratch, and by {report}",
            "LoRA adapts a trained network; the paper does not say which one",
            1,
        ),
    ]


def _lora_rank(paper: Paper) -> list[Item]:
    grid = paper["13"]
    models = [row for row in grid.rows if row != "Average"]
    fid = fid_of_models(paper)
    fids = {row: [grid.number(row, column) for column in _RANKS.values()] for row in models}
    falls = [every([below(r64, r32), below(r128, r64)]) for r32, r64, r128 in fids.values()]
    gains = [float(1 - r128.exact / r32.exact) for r32, _, r128 in fids.values()]
    cells = [number for row in fids.values() for number in row]
    best = min(cells, key=lambda number: number.exact)
    return [
        compared(
            "table13-average",
            "Table 13, Average",
            "3 averages",
            "mean of the three models' FIDs",
            {
                f"rank {rank}": (
                    grid.number("Average", column),
                    mean_of(grid.number(row, column) for row in models),
                )
                for rank, column in _RANKS.items()
            },
        ),
        compared(
            "table13-table1",
            "Table 13, Rank 32",
            "3 FIDs",
            "Table 1's FID",
            {row: (numbers[0], fid[model_key(row)]) for row, numbers in fids.items()},
        ),
        stated(
            "text-rank-improves",
            "Section A.6",
            "a higher rank improves FID modestly",
            "Table 13: does FID fall with each rank for each model? Fall from rank 32 to 128",
            every(falls),
            f"falls for {falls.count(True)} of {len(falls)}, by {min(gains):.0%} to "
            f"{max(gains):.0%}",
            numbers=len(falls),
        ),
        stated(
            "text-sana-beats-lora",
            "Section A.6",
            "Sana beats the larger models at every rank",
            "Table 1's FID of Sana against all of Table 13",
            every(below(fid["sana"], number) for number in cells),
            f"{fid['sana'].text} against {best.text} at best",
            numbers=len(cells),
        ),
    ]


def _lora_place(paper: Paper) -> list[Item]:
    grid = paper["14"]
    fids = {column: grid.number("FID", column) for column in grid.columns}
    attention = fids["Attn."]
    last = grid.columns[-1]
    changes = {c: float(n.exact / attention.exact - 1) for c, n in fids.items() if c != "Attn."}
    rank_32, rank_64 = (paper["13"].number("SD v3.5", _RANKS[rank]) for rank in (32, 64))
    return [
        compared(
            "table14-attention",
            "Table 14, Attn.",
            "FID of SD V3-5 with LoRA in attention",
            "Table 13, rank 32",
            {"Attn.": (attention, rank_32)},
        ),
        stated(
            "text-place",
            "Section A.6",
            "attention and MLP: a minor improvement; positional embedding too: worse",
            "Table 14 against its first column",
            every([below(fids["Attn. + MLP"], attention), below(attention, fids[last])]),
            ", ".join(f"{c} {change:+.1%}" for c, change in changes.items()),
            numbers=2,
            note=f"twice the rank gives {float(rank_64.exact / attention.exact - 1):+.1%} "
            "(Table 13)",
        ),
        stated(
            "table14-last-place",
            "Table 14 and Section A.6",
            f"the last placement of LoRA is {_LAST_PLACE}",
            "the last header of Table 14",
            True if last == _LAST_PLACE else None,
            f"the header is {last}",
            reason="a network has layers besides those that the text names, and the paper does not "
            "say which it means",
        ),
        stated(
            "text-place-future-work",
            "Section 3.1",
            "LoRA beyond the attention layers is left to future work",
            "Table 14: placements beyond attention",
            not changes,
            f"{len(changes)} are reported: {', '.join(changes)}",
        ),
    ]


def _counts(paper: Paper) -> list[Item]:
    metrics = {
        "Table 1": len(COLUMNS),
        "Table 3": len(paper["3"].rows),
        "Table 4": 1,
        "Table 5": 1,
        "Table 6": len(paper["6"].rows),
    }
    n_metrics = sum(metrics.values())
    table5 = paper["5"]
    segmentation = {
        row: (
            table5.number(row, "Size"),
            SEGMENTATION_PAIRS[0] if row.startswith("Baseline") else sum(SEGMENTATION_PAIRS),
        )
        for row in table5.rows
        if table5.text(row, "Size")
    }
    reports = {}
    for column in paper["6"].columns:
        size = re.search(r"N=([\d,]+)", column)
        total = REPORT_SAMPLES[0] if column.startswith("Original") else sum(REPORT_SAMPLES)
        reports[column] = (size[1] if size else "0", total)
    table9 = paper["9"]
    highest = max(table9.number(row, "Count (n)").exact for row in table9.rows)
    return [
        stated(
            "text-over-20-metrics",
            "Abstract, Sections 1 and 2",
            "over 20 metrics",
            "metrics that tables print, AUC and Dice counted once",
            n_metrics > 20,
            f"{n_metrics}: {', '.join(f'{table} {n}' for table, n in metrics.items())}",
            note="accuracy and F1 of classification are named and not printed",
        ),
        compared(
            "table5-sizes",
            "Table 5, Size",
            f"{len(segmentation)} sizes",
            "Section 2.4: 3,000 real and 3,000 synthetic pairs",
            segmentation,
        ),
        compared(
            "table6-sizes",
            "Table 6, headers",
            f"{len(reports)} sizes",
            "Section 2.4: 50,000 real and 20,000 synthetic samples",
            reports,
        ),
        stated(
            "table9-possible",
            "Table 9, Count (n)",
            f"{len(table9.rows)} counts",
            f"at most the {TRAINING_IMAGES:,} training samples of Section 2.1",
            highest <= TRAINING_IMAGES,
            f"the highest is {int(highest):,}",
            numbers=len(table9.rows),
        ),
    ]
