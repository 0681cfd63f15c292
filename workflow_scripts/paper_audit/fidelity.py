"""Fidelity over all images: Tables 1 and 17a, Sections 3.1 and A.8."""

import math
from collections.abc import Mapping
from typing import Final

from workflow_scripts.paper_audit.items import Item, compared, stated, unchecked
from workflow_scripts.paper_audit.model_names import model_key
from workflow_scripts.paper_audit.models import EARLIER, LARGER, NAMES, ranked
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed, printed
from workflow_scripts.paper_audit.yardstick import (
    Truth,
    better,
    every,
    exactly,
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

_BASE_OF_LLM_CXR: Final = "2.8"
"""Billions of parameters of dolly-v2-3b, from which LLM-CXR's own training script starts
(github.com/hyn2028/llm-cxr, train_llmcxr_stage1.sh). The one number here that no table prints."""

_CAPTIONS: Final = {"SD-V1-4": "sd_v1_4", "SD-V1-5": "sd_v1_5", "SD-V2": "sd_v2"}
"""Table 17's models."""


def fidelity_items(paper: Paper) -> list[Item]:
    """Return what follows from Tables 1 and 17a."""
    table = {name: paper["1"].of_models(header) for name, header in COLUMNS.items()}
    ranks = {name: ranked(numbers, name in LOWER) for name, numbers in table.items()}
    return [
        _possible(table),
        _neighbours(table),
        *_best(table),
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
    return stated(
        "table1-possible",
        "Table 1",
        "shares, cosines, distances",
        "Precision, Recall, Coverage in [0, 1]; cosines in [-1, 1]; FID, Density not negative",
        not off,
        f"outside: {', '.join(off) or 'none'}",
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


def _best(table: Mapping[str, Mapping[str, Printed]]) -> list[Item]:
    second = {name: (model, 2) for name, model in _UNDERLINED.items()}
    sana = dict.fromkeys(("FID", "KID", "Recall", "Coverage"), ("sana", 1))
    pixart = dict.fromkeys(("FID", "KID", "Coverage"), ("pixart_sigma", 2))
    pixart = {"Alignment": ("pixart_sigma", 1), **pixart}
    first = {"Precision": ("llm_cxr", 1)}
    precision = sorted((n.value, model) for model, n in table["Precision"].items())
    lead = precision[-1][0] - precision[-2][0]
    recall = side_of_median(table["Recall"], "llm_cxr", lower=False)
    place = ranked(table["Recall"], lower=False)["llm_cxr"]

    def placed(key: str, where: str, claim: str, wanted: Mapping[str, tuple[str, int]]) -> Item:
        found = {n: ranked(table[n], n in LOWER)[model] for n, (model, _) in wanted.items()}
        truth = _placed(table, wanted)
        basis = "ranks of Table 1's columns"
        return stated(key, where, claim, basis, truth, _listed(found), len(wanted))

    return [
        placed(
            "table1-second-best", "Table 1", "the seven underlined cells are second best", second
        ),
        placed(
            "text-sana-best",
            "Section 3.1",
            "Sana: lowest FID and KID, highest Recall and Coverage",
            sana,
        ),
        placed(
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
            every([_placed(table, first), is_side(recall, "low")]),
            f"Precision leads by {lead:.3f}; Recall rank {place} of {len(precision)} ({recall})",
            2,
        ),
    ]


def _placed(
    table: Mapping[str, Mapping[str, Printed]], wanted: Mapping[str, tuple[str, int]]
) -> Truth:
    """Return whether models have the wanted ranks, by metric."""
    return every(
        has_place(table[name], model, name in LOWER, rank) for name, (model, rank) in wanted.items()
    )


def _groups(
    table: Mapping[str, Mapping[str, Printed]], ranks: Mapping[str, Mapping[str, int]]
) -> list[Item]:
    ahead = {
        f"{NAMES[m]} {name}": has_place(table[name], m, name in LOWER, 1, 2)
        for name in table
        for m in EARLIER
    }
    larger = [side_of_median(table[name], m, name in LOWER) for name in table for m in LARGER]
    claimed = {"Precision": "high", "Recall": "low", "Density": "low", "Coverage": "low"}
    sides = {
        model: {name: side_of_median(table[name], model, lower=False) for name in claimed}
        for model in ("sd_v3_5", "llm_cxr")
    }
    fits = {
        model: every(is_side(found[name], side) for name, side in claimed.items())
        for model, found in sides.items()
    }
    return [
        stated(
            "text-earlier-suboptimal",
            "Section 3.1",
            "earlier Stable Diffusion variants are suboptimal in all metrics",
            "Table 1: any of them best or second best",
            opposite(some(ahead.values())),
            "best or second best: "
            + (", ".join(label for label, so in ahead.items() if so is not False) or "none"),
            len(ahead),
        ),
        stated(
            "text-larger-inferior",
            "Section 3.1",
            "the larger models but LLM-CXR are predominantly inferior",
            "Table 1: three models by seven metrics against the median of the eleven",
            most(is_side(side, "low") for side in larger),
            f"worse than the median in {larger.count('low')} of {len(larger)}, the median itself "
            f"in {larger.count('median')}, better in {larger.count('high')}",
            len(larger),
        ),
        stated(
            "text-sd35-low",
            "Section 3.1",
            "SD V3-5: high Precision; low Recall, Density and Coverage",
            "Table 1 against the median of the eleven models",
            fits["sd_v3_5"],
            _sides(table, ranks, "sd_v3_5", sides["sd_v3_5"]),
            len(claimed),
        ),
        stated(
            "text-sd35-mirrors-llm-cxr",
            "Section 3.1",
            "SD V3-5's high Precision and low Recall, Density, Coverage mirror LLM-CXR",
            "Table 1: LLM-CXR against the median of the eleven models",
            fits["llm_cxr"],
            _sides(table, ranks, "llm_cxr", sides["llm_cxr"]),
            len(claimed),
        ),
    ]


def _sides(
    table: Mapping[str, Mapping[str, Printed]],
    ranks: Mapping[str, Mapping[str, int]],
    model: str,
    found: Mapping[str, str],
) -> str:
    return ", ".join(
        f"{name} {table[name][model].text} rank {ranks[name][model]} ({side})"
        for name, side in found.items()
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
            f"exceptions: {', '.join(off) or 'none'} of {len(tuned)}",
            len(tuned),
        ),
        compared(
            "text-a6-sizes",
            "Section A.6",
            f"sizes: {', '.join(f'{NAMES[m]} {size}' for m, size in _SAID_SIZES.items())}",
            "Size in Table 1",
            said,
        ),
        compared(
            "table1-llm-cxr-size",
            "Table 1, Size",
            f"LLM-CXR has {by_model['llm_cxr'].text}B parameters",
            "its base model dolly-v2-3b, which no table prints",
            {"LLM-CXR": (by_model["llm_cxr"], exactly(printed(_BASE_OF_LLM_CXR)))},
            "from LLM-CXR's own training script; its tokeniser of images is small beside that",
        ),
    ]


def _captions(grid: Grid, table: Mapping[str, Mapping[str, Printed]]) -> list[Item]:
    headers = {"FID": "FID (RadDino)", "KID": "KID (RadDino)", "Alignment": "Alignment Score"}
    pairs, gains = {}, []
    for row, model in _CAPTIONS.items():
        for name, header in headers.items():
            new = grid.number(f"{row}, LlaVA-Rad", header)
            old = grid.number(f"{row}, Original MIMIC", header)
            pairs[f"{NAMES[model]} {name}"] = (new, exactly(table[name][model]))
            gains.append(better(new, old, name in LOWER))
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
            every(gains),
            f"better in {gains.count(True)} of {len(gains)}",
            len(gains),
        ),
    ]


def fid_of_models(paper: Paper) -> dict[str, Printed]:
    """Return Table 1's FID by model: what several tables follow from."""
    return paper["1"].of_models(COLUMNS["FID"])
