"""Fidelity over all images: Tables 1 and 17a, Sections 3.1 and A.8."""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from workflow_scripts.tables.audit.items import (
    IMPOSSIBLE,
    REPRODUCED,
    Item,
    compared,
    exactly,
    stated,
    unchecked,
)
from workflow_scripts.tables.audit.models import (
    EARLIER,
    LARGER,
    NAMES,
    ranked,
    values,
)
from workflow_scripts.tables.audit.printed import Grid, Paper, Printed, printed
from workflow_scripts.tables.published import model_key

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
"""Those of which less is better."""

_UNDERLINED: Final = {
    "FID": "pixart_sigma",
    "KID": "pixart_sigma",
    "Alignment": "sana",
    "Precision": "sana",
    "Recall": "radedit",
    "Density": "sana",
    "Coverage": "pixart_sigma",
}
"""The underlined cells of Table 1: the second-best models. (Which are bold is not in the CSV.)"""

_SAID_SIZES: Final = {"sana": "0.6B", "sd_v3_5": "2.5B", "flux_1_dev": "1.2B"}
"""Parameters of the models as Section A.6 gives them."""

_CAPTIONS: Final = {"SD-V1-4": "sd_v1_4", "SD-V1-5": "sd_v1_5", "SD-V2": "sd_v2"}
"""Table 17's models."""


def fidelity_items(paper: Paper) -> list[Item]:
    """Return what follows from Tables 1 and 17a."""
    table = {name: paper["1"].of_models(header) for name, header in COLUMNS.items()}
    ranks = {name: ranked(numbers, name in LOWER) for name, numbers in table.items()}
    return [
        _possible(table),
        _neighbours(table),
        *_best(table, ranks),
        *_groups(table, ranks),
        *_sizes(paper["1"]),
        *_captions(paper["17a"], table),
    ]


def _possible(table: Mapping[str, Mapping[str, Printed]]) -> Item:
    bounds = {"Alignment": (-1, 1), "Precision": (0, 1), "Recall": (0, 1), "Coverage": (0, 1)}
    off = [
        f"{name} {NAMES[model]} {number.text}"
        for name, (low, high) in bounds.items()
        for model, number in table[name].items()
        if not low <= number.exact <= high
    ] + [
        f"{name} {NAMES[model]} {number.text}"
        for name in ("FID", "Density")
        for model, number in table[name].items()
        if number.exact < 0
    ]
    return Item(
        "table1-possible",
        "Table 1",
        "shares, cosines, distances",
        "Precision, Recall, Coverage in [0, 1]; cosines in [-1, 1]; FID, Density not negative",
        f"outside: {', '.join(off) or 'none'}",
        IMPOSSIBLE if off else REPRODUCED,
        6 * len(table["FID"]),
    )


def _neighbours(table: Mapping[str, Mapping[str, Printed]]) -> Item:
    needed = max(
        math.ceil((number.exact - number.half) / (table["Density"][model].exact + number.half))
        for model, number in table["Precision"].items()
    )
    return unchecked(
        "table1-precision-density",
        "Table 1",
        "Precision and Density",
        "an image that counts for Precision lies in a ball of at least one real image, so Density "
        "is at least Precision / k; the paper does not print k",
        2 * len(table["Precision"]),
        f"possible with k of {needed} nearest neighbours or more",
    )


def _best(
    table: Mapping[str, Mapping[str, Printed]], ranks: Mapping[str, Mapping[str, int]]
) -> list[Item]:
    second = {name: ranks[name][model] for name, model in _UNDERLINED.items()}
    sana = {name: ranks[name]["sana"] for name in ("FID", "KID", "Recall", "Coverage")}
    pixart = {name: ranks[name]["pixart_sigma"] for name in ("Alignment", "FID", "KID", "Coverage")}
    precision = sorted((n.value, model) for model, n in table["Precision"].items())
    lead = precision[-1][0] - precision[-2][0]
    recall = ranks["Recall"]["llm_cxr"]
    return [
        stated(
            "table1-second-best",
            "Table 1",
            "the seven underlined cells are second best",
            "ranks of Table 1's columns",
            set(second.values()) == {2},
            _listed(second),
            len(second),
        ),
        stated(
            "text-sana-best",
            "Section 3.1",
            "Sana: lowest FID and KID, highest Recall and Coverage",
            "ranks of Table 1's columns",
            set(sana.values()) == {1},
            _listed(sana),
            len(sana),
        ),
        stated(
            "text-pixart-second",
            "Section 3.1",
            "Pixart Sigma: highest alignment; second-best FID, KID, Coverage",
            "ranks of Table 1's columns",
            list(pixart.values()) == [1, 2, 2, 2],
            _listed(pixart),
            len(pixart),
        ),
        stated(
            "text-llm-cxr-precision",
            "Section 3.1",
            "LLM-CXR: by far the highest Precision, notably low Recall",
            "Table 1: lead over the next best Precision; rank by Recall",
            precision[-1][1] == "llm_cxr" and recall > len(precision) / 2,
            f"leads by {lead:.3f}; Recall rank {recall} of {len(precision)}",
            2,
        ),
    ]


def _groups(
    table: Mapping[str, Mapping[str, Printed]], ranks: Mapping[str, Mapping[str, int]]
) -> list[Item]:
    early = [f"{NAMES[m]} {name}" for name in table for m in EARLIER if ranks[name][m] <= 2]
    behind = [(model, name) for name in table for model in LARGER if _worse(table, name, model)]
    sd3 = {name: _worse(table, name, "sd_v3_5") for name in ("Precision", "Recall", "Density")}
    sd3["Coverage"] = _worse(table, "Coverage", "sd_v3_5")
    llm = {name: _worse(table, name, "llm_cxr") for name in sd3}
    claimed = {"Precision": False, "Recall": True, "Density": True, "Coverage": True}
    return [
        stated(
            "text-earlier-suboptimal",
            "Section 3.1",
            "earlier Stable Diffusion variants are suboptimal in all metrics",
            "Table 1: any of them best or second best",
            not early,
            f"best or second best: {', '.join(early) or 'none'}",
            len(EARLIER) * len(table),
        ),
        stated(
            "text-larger-inferior",
            "Section 3.1",
            "the larger models but LLM-CXR are predominantly inferior",
            "Table 1: three models by seven metrics against the median of the eleven",
            2 * len(behind) > len(LARGER) * len(table),
            f"worse than the median in {len(behind)} of {len(LARGER) * len(table)}",
            len(LARGER) * len(table),
        ),
        stated(
            "text-sd35-low",
            "Section 3.1",
            "SD V3-5: high Precision; low Recall, Density and Coverage",
            "Table 1 against the median of the eleven models",
            all(sd3[name] == low for name, low in claimed.items()),
            _sides(table, ranks, "sd_v3_5", sd3),
            len(sd3),
        ),
        stated(
            "text-sd35-mirrors-llm-cxr",
            "Section 3.1",
            "SD V3-5's high Precision and low Recall, Density, Coverage mirror LLM-CXR",
            "Table 1: LLM-CXR against the median of the eleven models",
            all(llm[name] == low for name, low in claimed.items()),
            _sides(table, ranks, "llm_cxr", llm),
            len(llm),
        ),
    ]


def _worse(table: Mapping[str, Mapping[str, Printed]], name: str, model: str) -> bool:
    """Return whether a model is at or behind the median of a metric."""
    median = float(np.median(list(values(table[name]).values())))
    value = table[name][model].value
    return value >= median if name in LOWER else value <= median


def _sides(
    table: Mapping[str, Mapping[str, Printed]],
    ranks: Mapping[str, Mapping[str, int]],
    model: str,
    worse: Mapping[str, bool],
) -> str:
    return ", ".join(
        f"{name} {table[name][model].text} rank {ranks[name][model]} ({'low' if low else 'high'})"
        for name, low in worse.items()
    )


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name} rank {rank}" for name, rank in found.items())


def _sizes(grid: Grid) -> list[Item]:
    rows = {row: grid.text(row, "Fine-Tuning") for row in grid.rows}
    sizes = {row: printed(grid.text(row, "Size").rstrip("B")) for row in grid.rows}
    tuned = {row: how for row, how in rows.items() if how != "N/A"}
    off = [row for row, how in tuned.items() if (sizes[row].exact < 1) != (how == "FFT")]
    by_model = {model_key(row): size for row, size in sizes.items()}
    said = {
        NAMES[model]: (printed(size.rstrip("B")), exactly(by_model[model]))
        for model, size in _SAID_SIZES.items()
    }
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
            not off,
            f"otherwise: {', '.join(off) or 'none'} of {len(tuned)}",
            len(tuned),
        ),
        compared(
            "text-a6-sizes",
            "Section A.6",
            f"sizes: {', '.join(f'{NAMES[m]} {size}' for m, size in _SAID_SIZES.items())}",
            "Size in Table 1",
            said,
        ),
    ]


def _captions(grid: Grid, table: Mapping[str, Mapping[str, Printed]]) -> list[Item]:
    headers = {"FID": "FID (RadDino)", "KID": "KID (RadDino)", "Alignment": "Alignment Score"}
    pairs, better = {}, []
    for row, model in _CAPTIONS.items():
        for name, header in headers.items():
            new = grid.number(f"{row}, LlaVA-Rad", header)
            old = grid.number(f"{row}, Original MIMIC", header)
            pairs[f"{NAMES[model]} {name}"] = (new, exactly(table[name][model]))
            better.append(new.exact < old.exact if name in LOWER else new.exact > old.exact)
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
            all(better),
            f"better in {sum(better)} of {len(better)}",
            len(better),
        ),
    ]


def fid_of_models(paper: Paper) -> dict[str, Printed]:
    """Return Table 1's FID by model: what several tables follow from."""
    return paper["1"].of_models(COLUMNS["FID"])
