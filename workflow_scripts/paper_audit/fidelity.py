"""Fidelity over all images: Tables 1 and 17a, Sections 3.1 and A.8."""

import math
from collections.abc import Mapping
from typing import Final

from workflow_scripts.paper_audit.items import Item, compared, stated, unchecked
from workflow_scripts.paper_audit.model_names import EARLIER, LARGER, NAMES, listed, model_key
from workflow_scripts.paper_audit.orders import ranked
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed, printed
from workflow_scripts.paper_audit.yardstick import (
    Truth,
    better,
    every,
    has_place,
    is_side,
    most,
    opposite,
    side_of_median,
    some,
)

COLUMNS: Final = {
    "FID": "FID ↓ (RadDino)",
    "KID": "KID ↓ (RadDino)",
    "Alignment": "Alignment Score ↑",
    "Precision": "Precision ↑",
    "Recall": "Recall ↑",
    "Density": "Density ↑",
    "Coverage": "Coverage ↑",
}
"""Table 1's metrics and their headers."""

LOWER: Final = ("FID", "KID")
"""The metrics of which lower is better."""

_UNDERLINED: Final = {
    "FID": "pixart_sigma",
    "KID": "pixart_sigma",
    "Alignment": "sana",
    "Precision": "sana",
    "Recall": "radedit",
    "Density": "sana",
    "Coverage": "pixart_sigma",
}
"""The underlined cells of Table 1: the second-best models. (The CSV has no type faces.)"""

_QUOTED_SIZES: Final = {"sana": "0.6B", "sd_v3_5": "2.5B", "flux_1_dev": "1.2B"}
"""Numbers of parameters in Section A.6."""

_LLM_CXR_SIZE: Final = "2.8"
"""Billions of parameters of dolly-v2-3b, from which LLM-CXR's own training script starts
(github.com/hyn2028/llm-cxr, train_llmcxr_stage1.sh). The only number here that no table prints."""

TABLE_17: Final = {"SD-V1-4": "sd_v1_4", "SD-V1-5": "sd_v1_5", "SD-V2": "sd_v2"}
"""Table 17's models."""

Scores = Mapping[str, Mapping[str, Printed]]
"""Table 1's numbers by metric and model."""


def fidelity_items(paper: Paper) -> list[Item]:
    """Return the claims that follow from Tables 1 and 17a."""
    table = {name: paper["1"].of_models(header) for name, header in COLUMNS.items()}
    return [
        _possible(table),
        _neighbours(table),
        *_best(table),
        *_groups(table),
        *_sizes(paper["1"]),
        *_captions(paper["17a"], table),
    ]


def fid_of_models(paper: Paper) -> dict[str, Printed]:
    """Return Table 1's FID by model."""
    return paper["1"].of_models(COLUMNS["FID"])


def _possible(table: Scores) -> Item:
    bounds = {
        "Alignment": (-1, 1),
        **dict.fromkeys(("Precision", "Recall", "Coverage"), (0, 1)),
        **dict.fromkeys(("FID", "Density"), (0, math.inf)),
    }
    outside = [
        f"{name} {NAMES[model]} {number.text}"
        for name, (low, high) in bounds.items()
        for model, number in table[name].items()
        if not low <= number.exact <= high
    ]
    return stated(
        "table1-possible",
        "Table 1",
        "all values are possible",
        "Precision, Recall, Coverage in [0, 1]; cosines in [-1, 1]; FID, Density not negative",
        not outside,
        f"outside: {listed(outside)}",
        numbers=len(bounds) * len(table["FID"]),
    )


def _neighbours(table: Scores) -> Item:
    least = max(
        math.ceil((number.exact - number.half) / (table["Density"][model].exact + number.half))
        for model, number in table["Precision"].items()
    )
    return unchecked(
        "table1-precision-density",
        "Table 1",
        "Precision and Density",
        "an image that counts for Precision lies in the ball of at least one real image, so "
        "Density is at least Precision / k; the paper does not print k",
        2 * len(table["Precision"]),
        f"possible with k of {least} nearest neighbours or more",
    )


def _best(table: Scores) -> list[Item]:
    second = {name: (model, 2) for name, model in _UNDERLINED.items()}
    sana = dict.fromkeys(("FID", "KID", "Recall", "Coverage"), ("sana", 1))
    pixart = {
        "Alignment": ("pixart_sigma", 1),
        **dict.fromkeys(("FID", "KID", "Coverage"), ("pixart_sigma", 2)),
    }
    precision = sorted((number.value, model) for model, number in table["Precision"].items())
    lead = precision[-1][0] - precision[-2][0]
    recall = side_of_median(table["Recall"], "llm_cxr", lower=False)
    recall_rank = ranked(table["Recall"], lower=False)["llm_cxr"]

    def by_rank(key: str, where: str, claim: str, places: Mapping[str, tuple[str, int]]) -> Item:
        """Return the item on the ranks, by metric, that models should have."""
        ranks = {n: ranked(table[n], n in LOWER)[model] for n, (model, _) in places.items()}
        return stated(
            key,
            where,
            claim,
            "ranks of Table 1's columns",
            every(has_place(table[n], m, n in LOWER, rank) for n, (m, rank) in places.items()),
            ", ".join(f"{name} rank {rank}" for name, rank in ranks.items()),
            numbers=len(places),
        )

    return [
        by_rank(
            "table1-second-best", "Table 1", "the seven underlined cells are second best", second
        ),
        by_rank(
            "text-sana-best",
            "Section 3.1",
            "Sana: lowest FID and KID, highest Recall and Coverage",
            sana,
        ),
        by_rank(
            "text-pixart-second",
            "Section 3.1",
            "Pixart Sigma: highest alignment; second-best FID, KID, Coverage",
            pixart,
        ),
        stated(
            "text-llm-cxr-precision",
            "Section 3.1",
            "LLM-CXR: by far the highest Precision, notably low Recall",
            "Table 1: rank by Precision; Recall against the median of the eleven models",
            every([has_place(table["Precision"], "llm_cxr", False, 1), is_side(recall, "low")]),
            f"Precision leads by {lead:.3f}; Recall rank {recall_rank} of {len(precision)} "
            f"({recall})",
            numbers=2,
        ),
    ]


def _groups(table: Scores) -> list[Item]:
    leading = {
        f"{NAMES[m]} {name}": has_place(table[name], m, name in LOWER, 1, 2)
        for name in table
        for m in EARLIER
    }
    larger = [side_of_median(table[name], m, name in LOWER) for name in table for m in LARGER]
    claimed = {"Precision": "high", "Recall": "low", "Density": "low", "Coverage": "low"}

    def as_claimed(key: str, model: str, claim: str, basis: str) -> Item:
        """Return the item on the sides of the medians on which a model should be."""
        sides = {name: side_of_median(table[name], model, lower=False) for name in claimed}
        return stated(
            key,
            "Section 3.1",
            claim,
            basis,
            every(is_side(sides[name], side) for name, side in claimed.items()),
            ", ".join(
                f"{name} {table[name][model].text} rank {ranked(table[name], False)[model]} ({s})"
                for name, s in sides.items()
            ),
            numbers=len(claimed),
        )

    return [
        stated(
            "text-earlier-suboptimal",
            "Section 3.1",
            "earlier Stable Diffusion variants are suboptimal in all metrics",
            "Table 1: none of them is best or second best",
            opposite(some(leading.values())),
            "best or second best: "
            + listed(label for label, truth in leading.items() if truth is not False),
            numbers=len(leading),
        ),
        stated(
            "text-larger-inferior",
            "Section 3.1",
            "the larger models, except LLM-CXR, are predominantly inferior",
            "Table 1: three models by seven metrics against the median of the eleven",
            most(is_side(side, "low") for side in larger),
            f"worse than the median in {larger.count('low')} of {len(larger)}, the median itself "
            f"in {larger.count('median')}, better in {larger.count('high')}",
            numbers=len(larger),
        ),
        as_claimed(
            "text-sd35-low",
            "sd_v3_5",
            "SD V3-5: high Precision; low Recall, Density and Coverage",
            "Table 1 against the median of the eleven models",
        ),
        as_claimed(
            "text-sd35-mirrors-llm-cxr",
            "llm_cxr",
            "SD V3-5's high Precision and low Recall, Density, Coverage mirror LLM-CXR",
            "Table 1: LLM-CXR against the median of the eleven models",
        ),
    ]


def _sizes(grid: Grid) -> list[Item]:
    sizes = {row: printed(grid.text(row, "Size").rstrip("B")) for row in grid.rows}
    methods = {row: grid.text(row, "Fine-Tuning") for row in grid.rows}
    tuned = {row: method for row, method in methods.items() if method != "N/A"}
    exceptions = [row for row in tuned if (sizes[row].exact < 1) != (tuned[row] == "FFT")]
    of_models = {model_key(row): size for row, size in sizes.items()}
    quoted = {NAMES[m]: (size.rstrip("B"), of_models[m]) for m, size in _QUOTED_SIZES.items()}
    return [
        stated(
            "table1-models",
            "Abstract, Sections 1 and 5",
            "11 models",
            "rows of Table 1",
            len(grid.rows) == 11,
            f"{len(grid.rows)} rows",
        ),
        stated(
            "text-fft-below-1b",
            "Sections 2.1 and 3",
            "full fine-tuning below 1B parameters, LoRA above",
            "Table 1: Size against Fine-Tuning of the models that were fine-tuned",
            not exceptions,
            f"exceptions among {len(tuned)}: {listed(exceptions)}",
            numbers=len(tuned),
        ),
        compared(
            "text-a6-sizes",
            "Section A.6",
            f"sizes: {', '.join(f'{NAMES[m]} {size}' for m, size in _QUOTED_SIZES.items())}",
            "Size in Table 1",
            quoted,
        ),
        compared(
            "table1-llm-cxr-size",
            "Table 1, Size",
            f"LLM-CXR has {of_models['llm_cxr'].text}B parameters",
            "its base model dolly-v2-3b, which no table prints",
            {"LLM-CXR": (of_models["llm_cxr"], printed(_LLM_CXR_SIZE))},
            note="from LLM-CXR's own training script; its image tokenizer is small beside that",
        ),
    ]


def _captions(grid: Grid, table: Scores) -> list[Item]:
    headers = {"FID": "FID (RadDino)", "KID": "KID (RadDino)", "Alignment": "Alignment Score"}
    pairs = {}
    improved: list[Truth] = []
    for row, model in TABLE_17.items():
        for name, header in headers.items():
            new = grid.number(f"{row}, LlaVA-Rad", header)
            old = grid.number(f"{row}, Original MIMIC", header)
            pairs[f"{NAMES[model]} {name}"] = (new, table[name][model])
            improved.append(better(new, old, name in LOWER))
    return [
        compared(
            "table17a-table1",
            "Table 17a, LLaVA-Rad rows",
            "FID, KID, alignment of three models",
            "the same models in Table 1",
            pairs,
        ),
        stated(
            "table17a-better",
            "Table 17, caption, and Section A.8",
            "LLaVA-Rad captions improve all three fidelity metrics",
            "Table 17a: the two rows of each model",
            every(improved),
            f"better in {improved.count(True)} of {len(improved)}",
            numbers=len(improved),
        ),
    ]
