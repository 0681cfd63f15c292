"""Privacy: Tables 3 and 17b, Sections 2.3, 3.2 and A.8."""

import math
from fractions import Fraction
from typing import Final

from workflow_scripts.paper_audit.fidelity import TABLE_17, fid_of_models
from workflow_scripts.paper_audit.items import Item, compared, stated, unchecked
from workflow_scripts.paper_audit.model_names import LARGER, NAMES, listed, names
from workflow_scripts.paper_audit.orders import ranked, spearman, values
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed
from workflow_scripts.paper_audit.yardstick import Bounded, Truth, better, every, has_place

REID: Final = "Avg. Re-ID Score (\\downarrow)"
LATENT: Final = "Avg. Latent Distance (\\uparrow)"
PIXEL: Final = "Avg. Pixel Distance (\\uparrow)"
HIGHEST: Final = "Max. Re-ID Score (\\downarrow)"
COUNT: Final = "Count Re-ID $> \\delta$ (\\downarrow)"

SAMPLES: Final = 2000
"""Prompts of the privacy experiment (Table 3, caption; Section 3.2)."""

GENERATIONS: Final = 10
"""Images per prompt (Section 3.2)."""

THRESHOLD: Final = Fraction("0.85")
"""Re-ID score above which a sample is at risk (Section 3.2)."""

_SOURCES: Final = ("Original MIMIC", "LlaVA-Rad")
"""Table 17b's captions."""

_MEASURES: Final = {
    "Re-ID": ("Max. Re-ID Distance", REID),
    "latent": ("Min Latent Distance", LATENT),
    "pixel": ("Min. Pixel Distance", PIXEL),
}
"""Table 17b's measures: their headers, and the rows of Table 3 with the same measure."""


def privacy_items(paper: Paper) -> list[Item]:
    """Return the claims that follow from Tables 3 and 17b."""
    return [
        *_risks(paper["3"]),
        *_best(paper["3"]),
        _unrelated(paper),
        *_captions(paper["17b"], paper["3"]),
        *(_deviations(paper["17b"], name) for name in ("Re-ID", "latent")),
    ]


def _risks(grid: Grid) -> list[Item]:
    counts, highest, scores = (grid.across_models(row) for row in (COUNT, HIGHEST, REID))
    shares = sorted(100 * count.exact / SAMPLES for count in counts.values())
    per_image = [float(share) / GENERATIONS for share in shares]
    lora = {model: counts[model].exact for model in LARGER}
    others = {model: count.exact for model, count in counts.items() if model not in LARGER}
    impossible = [
        model
        for model, mean in scores.items()
        # A known share of the scores lies above the threshold, which bounds their mean from below.
        if not counts[model].exact / SAMPLES * THRESHOLD <= mean.exact + mean.half
        or mean.exact > highest[model].exact + highest[model].half
    ]
    return [
        stated(
            "table3-possible",
            "Table 3",
            "average, maximum and count of scores in [0, 1]",
            f"the mean is at least {float(THRESHOLD)} times the share above it, and at most the "
            "maximum",
            not impossible,
            f"exceptions: {names(impossible)}",
            numbers=3 * len(scores),
        ),
        compared(
            "text-share-at-risk",
            "Section 3.2",
            "10% to 25% of the samples are at risk",
            f"Table 3's counts over {SAMPLES} prompts",
            {"lowest": ("10", Bounded(shares[0])), "highest": ("25", Bounded(shares[-1]))},
            note=f"{float(shares[0]):.2f}% to {float(shares[-1]):.2f}%; over images, as Section "
            f"2.3 defines the count, {per_image[0]:.2f}% to {per_image[-1]:.2f}%",
        ),
        stated(
            "text-all-reidentified",
            "Section 3.2",
            "every model makes samples that are re-identified with high confidence",
            f"Table 3's highest scores against {float(THRESHOLD)}",
            all(score.exact > THRESHOLD for score in highest.values()),
            f"{min(score.value for score in highest.values())} or more",
            numbers=len(highest),
        ),
        stated(
            "text-lora-fewer",
            "Section 3.2",
            "models trained by LoRA have fewer high-risk samples",
            "Table 3's counts",
            max(lora.values()) < min(others.values()),
            f"{names(lora)}: at most {max(lora.values())}; others: at least {min(others.values())}",
            numbers=len(counts),
        ),
    ]


def _best(grid: Grid) -> list[Item]:
    scores, latent, pixel = (grid.across_models(row) for row in (REID, LATENT, PIXEL))
    lowest = min(scores, key=lambda m: scores[m].exact)
    far_latent = max(latent, key=lambda m: latent[m].exact)
    far_pixel = max(pixel, key=lambda m: pixel[m].exact)
    named = {"sd_v3_5": latent, "sana": pixel}
    ranks = [f"{NAMES[m]} {ranked(row, True)[m]} of {len(row)}" for m, row in named.items()]
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
            every(has_place(row, model, False, 1) for model, row in named.items()),
            f"{NAMES[far_latent]} {latent[far_latent].text}, {NAMES[far_pixel]} "
            f"{pixel[far_pixel].text}",
            numbers=2,
        ),
        stated(
            "text-superior-is-lower",
            "Section 3.2",
            "superior means: lower average distances",
            "Table 3: ranks of these two, lowest distance first (its arrows say higher is better)",
            every(has_place(row, model, True, 1) for model, row in named.items()),
            ", ".join(ranks),
            numbers=2,
        ),
    ]


def _unrelated(paper: Paper) -> Item:
    fid = values(fid_of_models(paper))
    correlations = {
        name: spearman(values(paper["3"].across_models(row)), fid)
        for name, row in (("average score", REID), ("count", COUNT))
    }
    return stated(
        "text-privacy-regardless",
        "Abstract, Sections 3.2 and 5",
        "privacy risk does not follow from fidelity",
        "Spearman's correlation of Table 1's FID with Table 3's average score and count",
        every(correlation.absent for correlation in correlations.values()),
        ", ".join(f"{name} {correlation.text()}" for name, correlation in correlations.items()),
        numbers=2,
        reason="the intervals include no correlation as well as a strong one: 11 models are too "
        "few",
    )


def _captions(grid: Grid, table3: Grid) -> list[Item]:
    pairs = {}
    improved: list[Truth] = []
    deviations: dict[str, list[str]] = {}
    for row, model in TABLE_17.items():
        for name, (header, row_of_table3) in _MEASURES.items():
            old, new = (_number(grid, row, source, header, "mean") for source in _SOURCES)
            improved.append(better(new, old, name == "Re-ID"))
            # Table 17b prints more digits than Table 3.
            pairs[f"{NAMES[model]} {name}"] = (table3.across_models(row_of_table3)[model], new)
        header = _MEASURES["pixel"][0]
        deviations[row] = [_number(grid, row, s, header, "sd").text for s in _SOURCES]
    equal = [f"{row} {texts[0]}" for row, texts in deviations.items() if len(set(texts)) == 1]
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
            every(improved),
            f"better in {improved.count(True)} of {len(improved)}",
            numbers=len(improved),
        ),
        unchecked(
            "table17b-equal-deviations",
            "Table 17b",
            "the numbers after ± of pixel distances, for captions of both sources",
            "of two measurements that agree to all printed digits one may have been copied",
            2 * len(deviations),
            f"equal for {len(equal)} of {len(deviations)} models: {listed(equal)}",
        ),
    ]


def _deviations(grid: Grid, measure: str) -> Item:
    """Return the item on which of Table 17b's numbers after ± can be standard deviations."""
    header = _MEASURES[measure][0]
    limits: tuple[int, ...]
    if measure == "latent":
        limits, kind = (1, 2), "distances in [0, b], b = 1 or 2"
        not_given = ", nor to what range latent distances are normalised"
    else:
        limits, kind, not_given = (1,), "scores in [0, 1]", ""
    exceeding = [
        (f"for b = {limit} " if len(limits) > 1 else "") + listed(_exceeding(grid, header, limit))
        for limit in limits
    ]
    return unchecked(
        f"table17b-{measure.lower().replace('-', '')}-spread",
        f"Table 17b, {header}",
        f"{2 * len(TABLE_17)} numbers behind ±",
        f"the paper does not say what ± is{not_given}",
        2 * len(TABLE_17),
        f"{kind}: larger than any standard deviation of {SAMPLES} of them with their mean: "
        + "; ".join(exceeding),
    )


def _exceeding(grid: Grid, header: str, limit: int) -> list[str]:
    """Return the rows whose number after ± exceeds any standard deviation in [0, limit]."""
    rows = []
    for row in TABLE_17:
        for source in _SOURCES:
            mean, spread = (_number(grid, row, source, header, of) for of in ("mean", "sd"))
            bound = largest_deviation(mean, limit)
            if float(spread.exact - spread.half) > bound:
                rows.append(f"{row} {source} {mean.text} ± {spread.text} (at most {bound:.3f})")
    return rows


def largest_deviation(mean: Printed, limit: int) -> float:
    """Return the largest standard deviation of SAMPLES numbers in [0, limit] with a printed mean.

    It is reached if every number is 0 or `limit` (Bhatia and Davis, 2000). Of the means that are
    printed so, the one that allows the largest counts.
    """
    middle = Fraction(limit, 2)
    nearest = min(max(middle, mean.exact - mean.half), mean.exact + mean.half)
    variance = max(float(nearest * (limit - nearest)), 0.0)
    return math.sqrt(variance * SAMPLES / (SAMPLES - 1))


def _number(grid: Grid, row: str, source: str, header: str, statistic: str) -> Printed:
    return grid.number(f"{row}, {source}", f"{header} ({statistic})")
