"""Settings, sizes and ablations: Tables 11 to 14, and counts that the text repeats."""

import re
from typing import Final

from workflow_scripts.paper_audit.fidelity import COLUMNS
from workflow_scripts.paper_audit.items import Item, compared, stated, unchecked
from workflow_scripts.paper_audit.model_names import model_key
from workflow_scripts.paper_audit.models import NAMES
from workflow_scripts.paper_audit.printed import Paper, printed
from workflow_scripts.paper_audit.yardstick import below, every, exactly, mean_of

TRAINING_IMAGES: Final = 237388
"""Training samples, as Sections 2.1 and 3 say."""

LORA_RANK: Final = 32
"""As Sections 2.1 and 3 say."""

SEGMENTATION_PAIRS: Final = (3000, 3000)
REPORT_SAMPLES: Final = (50000, 20000)
"""Real and synthetic samples, as Section 2.4 says."""

_LAST_PLACE: Final = "Attn. + MLP + Positional Embedding"
"""Section A.6's name, in Table 14's abbreviations, of the last placement that it lists."""

_RANKS: Final = {rank: f"FID by LoRA Rank, Rank {rank}" for rank in (32, 64, 128)}


def setting_items(paper: Paper) -> list[Item]:
    """Return what must agree between settings, sizes and ablations."""
    return [*_tuning(paper), *_lora_rank(paper), *_lora_place(paper), *_counts(paper)]


def _tuning(paper: Paper) -> list[Item]:
    table1, table11 = paper["1"], paper["11"]
    own = {model_key(row): table11.text(row, "Fine-Tuning") for row in table11.rows}
    other = {model_key(row): table1.text(row, "Fine-Tuning") for row in table1.rows}
    off = [NAMES[m] for m in NAMES if own[m].replace(" ", "") != other[m].replace(" ", "")]
    ranks = {m: re.search(r"r=(\d+)", how) for m, how in own.items()}
    lora = {m: int(found[1]) for m, found in ranks.items() if found}
    rated = [m for m in NAMES if table11.text(_row_of(paper, m), "LR") == "-"]
    untuned = [m for m, how in own.items() if how == "N/A"]
    report = paper["12"].text("Fine-Tuning", "LLaVA-Rad (RRG)")
    return [
        stated(
            "table11-table1",
            "Table 11",
            "how each model was fine-tuned",
            "Fine-Tuning in Table 1",
            not off,
            f"exceptions: {', '.join(off) or 'none'} of {len(own)}",
            len(own),
        ),
        stated(
            "table11-lora-rank",
            "Sections 2.1 and 3",
            f"LoRA of rank {LORA_RANK}",
            "Table 11",
            set(lora.values()) == {LORA_RANK},
            ", ".join(f"{NAMES[m]} {rank}" for m, rank in lora.items()),
            len(lora),
        ),
        stated(
            "table11-untrained",
            "Section A.5",
            "RadEdit and LLM-CXR were not trained",
            "Table 11: no learning rate, no fine-tuning",
            rated == untuned == ["radedit", "llm_cxr"],
            f"no learning rate: {', '.join(NAMES[m] for m in rated)}",
            2,
        ),
        unchecked(
            "table12-from-scratch",
            "Table 12; Section 2.4 and Table 6, caption",
            f"LLaVA-Rad is trained from scratch, and by {report}",
            "LoRA adapts a network that is trained already; which one is not said",
            1,
        ),
    ]


def _row_of(paper: Paper, model: str) -> str:
    return next(row for row in paper["11"].rows if model_key(row) == model)


def _lora_rank(paper: Paper) -> list[Item]:
    grid = paper["13"]
    models = [row for row in grid.rows if row != "Average"]
    fid = paper["1"].of_models(COLUMNS["FID"])
    first = {row: grid.number(row, _RANKS[32]) for row in models}
    falls = [
        every(
            below(grid.number(row, _RANKS[high]), grid.number(row, _RANKS[low]))
            for low, high in ((32, 64), (64, 128))
        )
        for row in models
    ]
    gains = [float(1 - grid.number(row, _RANKS[128]).exact / first[row].exact) for row in models]
    cells = [grid.number(row, column) for row in models for column in grid.columns]
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
                    mean_of([grid.number(row, column) for row in models]),
                )
                for rank, column in _RANKS.items()
            },
        ),
        compared(
            "table13-table1",
            "Table 13, Rank 32",
            "3 FIDs",
            "Table 1's FID",
            {row: (number, exactly(fid[model_key(row)])) for row, number in first.items()},
        ),
        stated(
            "text-rank-improves",
            "Section A.6",
            "a higher rank improves FID modestly",
            "Table 13: falling with the rank for each model; from rank 32 to 128",
            every(falls),
            f"falls for {falls.count(True)} of {len(falls)}, by {min(gains):.0%} to "
            f"{max(gains):.0%}",
            len(falls),
        ),
        stated(
            "text-sana-beats-lora",
            "Section A.6",
            "Sana beats the larger models at every rank",
            "Table 1's FID of Sana against all of Table 13",
            every(below(fid["sana"], number) for number in cells),
            f"{fid['sana'].text} against {best.text} at best",
            len(models) * len(_RANKS),
        ),
    ]


def _lora_place(paper: Paper) -> list[Item]:
    grid = paper["14"]
    fids = {column: grid.number("FID", column) for column in grid.columns}
    base = fids["Attn."]
    change = {c: float(n.exact / base.exact - 1) for c, n in fids.items() if c != "Attn."}
    last = grid.columns[-1]
    doubled = paper["13"].number("SD v3.5", _RANKS[64]).exact
    return [
        compared(
            "table14-attention",
            "Table 14, Attn.",
            "FID of SD V3-5 with LoRA in attention",
            "Table 13, rank 32",
            {"Attn.": (base, exactly(paper["13"].number("SD v3.5", _RANKS[32])))},
        ),
        stated(
            "text-place",
            "Section A.6",
            "attention and MLP: a minor improvement; positional embedding too: worse",
            "Table 14 against its first column",
            every([below(fids["Attn. + MLP"], base), below(base, fids[last])]),
            ", ".join(f"{c} {share:+.1%}" for c, share in change.items()),
            2,
            f"twice the rank gives {float(doubled / base.exact - 1):+.1%} (Table 13)",
        ),
        stated(
            "table14-last-place",
            "Table 14 and Section A.6",
            f"the last placement of LoRA is {_LAST_PLACE}",
            "the last header of Table 14",
            True if last == _LAST_PLACE else None,
            f"the header is {last}",
            reason="a network has layers beside those that the text names, and the paper does not "
            "say which it means",
        ),
        stated(
            "text-place-future-work",
            "Section 3.1",
            "LoRA beyond the attention layers is left to future work",
            "Table 14: placements beyond attention",
            not change,
            f"{len(change)} are reported: {', '.join(change)}",
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
    table5 = paper["5"]
    sizes = {row: table5.number(row, "Size") for row in table5.rows if table5.text(row, "Size")}
    real = {row: n for row, n in sizes.items() if row.startswith("Baseline")}
    segmentation = {
        row: (n, exactly(SEGMENTATION_PAIRS[0] if row in real else sum(SEGMENTATION_PAIRS)))
        for row, n in sizes.items()
    }
    reports = {}
    for column in paper["6"].columns:
        found = re.search(r"N=([\d,]+)", column)
        total = REPORT_SAMPLES[0] if column.startswith("Original") else sum(REPORT_SAMPLES)
        reports[column] = (printed(found[1] if found else "0"), exactly(total))
    counts = paper["9"]
    most = max(counts.number(row, "Count (n)").exact for row in counts.rows)
    return [
        stated(
            "text-over-20-metrics",
            "Abstract, Sections 1 and 2",
            "over 20 metrics",
            "metrics that tables print, AUC and Dice counted once",
            sum(metrics.values()) > 20,
            f"{sum(metrics.values())}: {', '.join(f'{t} {n}' for t, n in metrics.items())}",
            note="accuracy and F1 of classification are named and not printed",
        ),
        compared(
            "table5-sizes",
            "Table 5, Size",
            f"{len(sizes)} sizes",
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
            f"{len(counts.rows)} counts",
            f"at most the {TRAINING_IMAGES:,} training samples of Section 2.1",
            most <= TRAINING_IMAGES,
            f"the highest is {int(most):,}",
            len(counts.rows),
        ),
    ]
