"""Privacy: Tables 3 and 17b, Sections 2.3, 3.2 and A.8."""

import math
from fractions import Fraction
from typing import Final

from workflow_scripts.paper_audit.fidelity import COLUMNS
from workflow_scripts.paper_audit.items import Item, compared, stated, unchecked
from workflow_scripts.paper_audit.models import LARGER, NAMES, names, ranked, spearman, values
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed, printed
from workflow_scripts.paper_audit.yardstick import (
    Exact,
    better,
    every,
    exactly,
    has_place,
)

REID: Final = "Avg. Re-ID Score (\\downarrow)"
LATENT: Final = "Avg. Latent Distance (\\uparrow)"
PIXEL: Final = "Avg. Pixel Distance (\\uparrow)"
HIGHEST: Final = "Max. Re-ID Score (\\downarrow)"
COUNT: Final = "Count Re-ID $> \\delta$ (\\downarrow)"

SAMPLES: Final = 2000
"""Prompts of the privacy experiment, as Table 3's caption and Section 3.2 say."""

GENERATIONS: Final = 10
"""Images of each prompt, as Section 3.2 says."""

THRESHOLD: Final = Fraction("0.85")
"""The risk threshold of Section 3.2."""

_MODELS: Final = {"SD-V1-4": "sd_v1_4", "SD-V1-5": "sd_v1_5", "SD-V2": "sd_v2"}
_SOURCES: Final = ("Original MIMIC", "LlaVA-Rad")
_MEASURES: Final = {
    "Re-ID": ("Max. Re-ID Distance", REID),
    "latent": ("Min Latent Distance", LATENT),
    "pixel": ("Min. Pixel Distance", PIXEL),
}
"""Table 17b's measures: its headers, and the rows of Table 3 that hold the same."""


def privacy_items(paper: Paper) -> list[Item]:
    """Return what follows from Tables 3 and 17b."""
    return [
        *_risks(paper["3"]),
        *_best(paper["3"]),
        _unrelated(paper),
        *_captions(paper["17b"], paper["3"]),
        *_deviations(paper["17b"]),
    ]


def _risks(grid: Grid) -> list[Item]:
    counts, highest = grid.across_models(COUNT), grid.across_models(HIGHEST)
    scores = grid.across_models(REID)
    shares = sorted(100 * n.exact / SAMPLES for n in counts.values())
    per_image = [float(share) / GENERATIONS for share in shares]
    lora = {model: counts[model].exact for model in LARGER}
    others = {model: n.exact for model, n in counts.items() if model not in LARGER}
    off = [
        NAMES[m]
        for m, n in scores.items()
        # A share of the scores lies above the threshold, so their mean has a least value.
        if not counts[m].exact / SAMPLES * THRESHOLD <= n.exact + n.half
        or n.exact > highest[m].exact + highest[m].half
    ]
    return [
        stated(
            "table3-possible",
            "Table 3",
            "average, maximum and count of scores in [0, 1]",
            f"the mean is at least {float(THRESHOLD)} times the share above it, and at most the "
            "maximum",
            not off,
            f"exceptions: {', '.join(off) or 'none'}",
            3 * len(scores),
        ),
        compared(
            "text-share-at-risk",
            "Section 3.2",
            "10% to 25% of the samples are at risk",
            f"Table 3's counts by {SAMPLES} prompts",
            {
                "lowest": (printed("10"), Exact(shares[0])),
                "highest": (printed("25"), Exact(shares[-1])),
            },
            f"{float(shares[0]):.2f}% to {float(shares[-1]):.2f}%; by images, as Section 2.3 "
            f"defines the count, {per_image[0]:.2f}% to {per_image[-1]:.2f}%",
        ),
        stated(
            "text-all-reidentified",
            "Section 3.2",
            "every model makes samples that are re-identified with high confidence",
            f"Table 3's highest scores against {float(THRESHOLD)}",
            all(n.exact > THRESHOLD for n in highest.values()),
            f"{min(n.value for n in highest.values())} or more",
            len(highest),
        ),
        stated(
            "text-lora-fewer",
            "Section 3.2",
            "models trained by LoRA have fewer high-risk samples",
            "Table 3's counts",
            max(lora.values()) < min(others.values()),
            f"{names(lora)}: at most {max(lora.values())}; others: at least {min(others.values())}",
            len(counts),
        ),
    ]


def _best(grid: Grid) -> list[Item]:
    scores, latent, pixel = (grid.across_models(row) for row in (REID, LATENT, PIXEL))
    lowest = min(scores, key=lambda m: scores[m].exact)
    far_latent = max(latent, key=lambda m: latent[m].exact)
    far_pixel = max(pixel, key=lambda m: pixel[m].exact)
    ranks = {m: ranked(numbers, True)[m] for m, numbers in (("sd_v3_5", latent), ("sana", pixel))}
    return [
        stated(
            "text-lowest-reid",
            "Section 3.2",
            "SD V3-5 has the lowest average Re-ID score",
            "Table 3",
            has_place(scores, "sd_v3_5", True, 1),
            f"{NAMES[lowest]} {scores[lowest].text}",
        ),
        stated(
            "text-superior-distances",
            "Section 3.2",
            "SD V3-5 (latent) and Sana (pixel) are superior",
            "Table 3: the largest distance of each kind",
            every([has_place(latent, "sd_v3_5", False, 1), has_place(pixel, "sana", False, 1)]),
            f"{NAMES[far_latent]} {latent[far_latent].text}, {NAMES[far_pixel]} "
            f"{pixel[far_pixel].text}",
            2,
        ),
        stated(
            "text-superior-is-lower",
            "Section 3.2",
            "superior means: lower average distances",
            "Table 3: ranks of these two, lowest distance first (its arrows say higher is better)",
            every([has_place(latent, "sd_v3_5", True, 1), has_place(pixel, "sana", True, 1)]),
            ", ".join(f"{NAMES[m]} {rank} of {len(latent)}" for m, rank in ranks.items()),
            2,
        ),
    ]


def _unrelated(paper: Paper) -> Item:
    fid = values(paper["1"].of_models(COLUMNS["FID"]))
    found = {
        name: spearman(values(paper["3"].across_models(row)), fid)
        for name, row in (("average score", REID), ("count", COUNT))
    }
    return stated(
        "text-privacy-regardless",
        "Abstract, Sections 3.2 and 5",
        "privacy risk does not follow from fidelity",
        "Spearman's correlation of Table 1's FID with Table 3's average score and count",
        every(one.absent for one in found.values()),
        ", ".join(f"{name} {one.text()}" for name, one in found.items()),
        2,
        reason="the intervals contain both no correlation and a strong one: 11 models are too few",
    )


def _captions(grid: Grid, table3: Grid) -> list[Item]:
    pairs, gains = {}, []
    sds: dict[str, list[str]] = {}
    for row, model in _MODELS.items():
        for name, (header, other) in _MEASURES.items():
            old, new = (_number(grid, row, source, header, "mean") for source in _SOURCES)
            gains.append(better(new, old, name == "Re-ID"))
            # The finer of the two is what the coarser one should be rounded from.
            coarse = table3.across_models(other)[model]
            pairs[f"{NAMES[model]} {name}"] = (coarse, exactly(new))
            if name == "pixel":
                sds[row] = [_number(grid, row, s, header, "sd").text for s in _SOURCES]
    alike = [row for row, texts in sds.items() if len(set(texts)) == 1]
    return [
        compared(
            "table17b-table3",
            "Table 3",
            "average score, latent and pixel distance of three models",
            "means of Table 17b's LLaVA-Rad rows",
            pairs,
        ),
        stated(
            "table17b-better",
            "Table 17, caption, and Section A.8",
            "LLaVA-Rad captions improve all three privacy metrics",
            "Table 17b: the two rows of each model",
            every(gains),
            f"better in {gains.count(True)} of {len(gains)}",
            len(gains),
        ),
        unchecked(
            "table17b-equal-deviations",
            "Table 17b",
            "the numbers after ± of pixel distances, for the captions of either source",
            "two measurements that agree to all printed digits may be one that was copied",
            2 * len(sds),
            f"equal for {len(alike)} of {len(sds)} models: "
            f"{', '.join(f'{row} {sds[row][0]}' for row in alike) or 'none'}",
        ),
    ]


def _deviations(grid: Grid) -> list[Item]:
    """Return what ± can be in Table 17b; the paper does not say what it stands for."""
    bound = f"the largest standard deviation of {SAMPLES} of them with their mean"
    items = []
    for name, header, limits, kind in (
        ("reid", "Max. Re-ID Distance", (1,), "scores in [0, 1]"),
        ("latent", "Min Latent Distance", (1, 2), "distances in [0, b], b = 1 or 2"),
    ):
        over = {limit: _beyond(grid, header, limit) for limit in limits}
        items.append(
            unchecked(
                f"table17b-{name}-spread",
                f"Table 17b, {header}",
                f"{2 * len(_MODELS)} numbers behind ±",
                "the paper does not say what ± is, nor to what range latent distances are "
                "normalised"
                if name == "latent"
                else "the paper does not say what ± is",
                2 * len(_MODELS),
                f"{kind}: beyond {bound}: "
                + "; ".join(
                    (f"for b = {limit} " if len(limits) > 1 else "") + (", ".join(rows) or "none")
                    for limit, rows in over.items()
                ),
            )
        )
    return items


def _beyond(grid: Grid, header: str, limit: int) -> list[str]:
    """Return the rows whose ± is larger than any standard deviation in [0, limit]."""
    rows = []
    for row in _MODELS:
        for source in _SOURCES:
            mean, spread = (_number(grid, row, source, header, what) for what in ("mean", "sd"))
            most = largest_deviation(mean, limit)
            if float(spread.exact - spread.half) > most:
                rows.append(f"{row} {source} {mean.text} ± {spread.text} (at most {most:.3f})")
    return rows


def largest_deviation(mean: Printed, limit: int) -> float:
    """Return the largest standard deviation of SAMPLES numbers in [0, limit].

    All numbers at either end give it (Bhatia and Davis, 2000); the printed mean may be half a unit
    off, to whichever side allows more.
    """
    ends = (mean.exact - mean.half, mean.exact + mean.half)
    inside = [limit * Fraction(1, 2)] if ends[0] <= limit * Fraction(1, 2) <= ends[1] else []
    most = max(float(m * (limit - m)) for m in (*ends, *inside))
    return math.sqrt(max(most, 0.0) * SAMPLES / (SAMPLES - 1))


def _number(grid: Grid, row: str, source: str, header: str, what: str) -> Printed:
    return grid.number(f"{row}, {source}", f"{header} ({what})")
