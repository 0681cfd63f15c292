"""Classification and segmentation: Tables 4, 5 and 15, Sections 3.3 and A.7.1."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final

from workflow_scripts.paper_audit.fidelity import fid_of_models
from workflow_scripts.paper_audit.items import Item, by_model, compared, stated
from workflow_scripts.paper_audit.model_names import (
    HIGH_FIDELITY,
    NAMES,
    listed,
    model_key,
    names,
)
from workflow_scripts.paper_audit.orders import spearman
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed
from workflow_scripts.paper_audit.yardstick import (
    Bounded,
    below,
    difference,
    every,
    matches,
    mean_of,
    most,
    opposite,
)

_HEADERS_15: Final = {
    "Atelec.": "Atel-ectasis",
    "C.Megaly": "Cardio-megaly",
    "Consol.": "Consol-idation",
    "Edema": "Edema",
    "Enlarged C.": "EC",
    "Frac.": "Fracture",
}
"""Table 15's headings by Table 4's, where the two differ."""

_MINORITY: Final = ("Frac.", "PO")
"""Pathologies that gain most, in Section 3.3."""

_PREVALENT: Final = ("Atelec.", "C.Megaly", "SD")
"""Pathologies on which most models match or beat the baseline, in Section 3.3."""

_FEW_MATCHES: Final = ("radedit", "pixart_sigma", "llm_cxr")
"""Models that match the baseline on at most two pathologies, in Section A.7.1."""

_BELOW: Final = ("sd_v1_4", "sd_v3_5", "lumina_2", "flux_1_dev")
"""Models that are below the baseline on most pathologies, in Section A.7.1."""

_UNDERLINED: Final = {
    "sd_v1_4": ("Fracture",),
    "sd_v1_5": ("EC", "PT"),
    "sd_v2_1": ("LL",),
    "radedit": ("Edema", "LO", "PN"),
    "pixart_sigma": ("Atel-ectasis", "Edema", "LO", "NF", "PT"),
    "sana": ("Atel-ectasis", "NF", "PO"),
    "lumina_2": ("Fracture",),
    "llm_cxr": ("Fracture",),
}
"""Table 15's underlined cells: within 0.01 below the baseline."""

_NO_NOISE: Final = "a score that is printed lower may be within the noise, which is not printed"

Cells = dict[str, dict[str, Printed]]
"""A table's numbers by model and column; `real` is the baseline."""


def utility_items(paper: Paper) -> list[Item]:
    """Return the claims that follow from Tables 4, 5 and 15."""
    table4 = paper["4"]
    findings = [column for column in table4.columns if column != "Average"]
    augmented = _cells(table4, findings)
    synthetic_only = _cells(paper["15"], paper["15"].columns)
    return [
        *_averages(table4, augmented),
        *_fidelity_and_utility(paper, augmented),
        *_findings(augmented),
        *_captions_of_table_15(synthetic_only, augmented),
        *_synthetic_only(synthetic_only),
        *_segmentation(paper["5"]),
    ]


def _cells(grid: Grid, columns: Sequence[str]) -> Cells:
    return {model_key(row): {c: grid.number(row, c) for c in columns} for row in grid.rows}


def _means(cells: Cells) -> dict[str, Bounded]:
    """Return the mean of each model's numbers."""
    return {model: mean_of(row.values()) for model, row in cells.items()}


def _averages(grid: Grid, cells: Cells) -> list[Item]:
    average = grid.of_models("Average")
    means = _means(cells)
    real = means["real"].value
    below_real = [f"{NAMES[m]} {float(means[m].value):.4f}" for m in NAMES if means[m].value < real]
    reached = {m: matches(average[m], average["real"]) for m in NAMES}
    gain = means["sd_v1_4"].value - real
    return [
        compared(
            "table4-average",
            "Table 4, Average",
            f"{len(average)} averages",
            "mean of the row's fourteen AUCs; digits that are not printed can change it by half a "
            "unit",
            by_model(average, means),
        ),
        stated(
            "text-all-match-baseline",
            "Section 3.3",
            "on average every model matches or beats real data alone",
            "Table 4's Average",
            every(reached.values()),
            f"printed averages below {average['real'].text}: "
            f"{names(m for m in NAMES if not reached[m])}; means of the rows' "
            f"cells below {float(real):.4f}: {listed(below_real)}",
            numbers=len(NAMES),
            reason=_NO_NOISE,
        ),
        compared(
            "text-three-percent",
            "Section 3.3",
            "SD V1-4 improves the average AUC by 3%",
            "Table 4: difference of the rows' means, in points",
            {"points": ("3", Bounded(100 * gain))},
            note=f"in points of AUC; {float(gain / real):.1%} of the baseline",
        ),
    ]


def _fidelity_and_utility(paper: Paper, cells: Cells) -> list[Item]:
    fid, means = fid_of_models(paper), _means(cells)
    correlation = spearman(
        {m: -fid[m].value for m in NAMES}, {m: float(means[m].value) for m in NAMES}
    )
    return [
        compared(
            "text-about-fid",
            "Section 3.3",
            "FID about 125 (SD V1-4) and 54 (Sana)",
            "Table 1",
            {NAMES[m]: (text, fid[m]) for m, text in (("sd_v1_4", "125"), ("sana", "54"))},
        ),
        stated(
            "text-independent-of-fidelity",
            "Section 3.3",
            "classification gains hardly depend on fidelity",
            "Spearman's correlation of lower FID (Table 1) with the means of Table 4's rows",
            correlation.absent,
            correlation.text(),
            note="Section A.4 claims a strong correlation of the two",
            reason="the interval includes no correlation as well as a strong one",
        ),
    ]


def _findings(cells: Cells) -> list[Item]:
    real = cells["real"]
    gains = {c: difference(mean_of(cells[m][c] for m in NAMES), real[c]) for c in real}
    others = mean_of(gain for c, gain in gains.items() if c not in _MINORITY)
    reached = {c: [matches(cells[m][c], real[c]) for m in NAMES] for c in _PREVALENT}
    beats = {m: below(real["PO"], cells[m]["PO"]) for m in NAMES}
    gainers = [m for m in NAMES if beats[m]]
    shown_gains = {c: gains[c] for c in _MINORITY} | {"others": others}
    return [
        stated(
            "text-po-gainers",
            "Section 3.3",
            "RadEdit, Pixart Sigma and Sana beat the baseline on Pleural Other",
            "Table 4",
            every(beats[m] for m in HIGH_FIDELITY),
            f"above {real['PO'].text}: {names(gainers)}",
            numbers=len(HIGH_FIDELITY),
        ),
        stated(
            "text-prevalent-match",
            "Section 3.3",
            "on Atelectasis, Cardiomegaly, Support Devices most models match or beat the baseline",
            "Table 4",
            every(most(models) for models in reached.values()),
            ", ".join(f"{c} {m.count(True)} of {len(m)}" for c, m in reached.items()),
            numbers=len(_PREVALENT),
        ),
        stated(
            "text-minority-benefit",
            "Section 3.3",
            "minority pathologies (Fracture, Pleural Other) gain most notably",
            "Table 4: mean gain over eleven models, against that of the other twelve pathologies",
            every(below(others, gains[c]) for c in _MINORITY),
            ", ".join(f"{label} {float(g.value):+.4f}" for label, g in shown_gains.items()),
            numbers=len(_MINORITY),
            note=f"Pleural Other gains with {len(gainers)} of {len(NAMES)} models",
        ),
    ]


def _captions_of_table_15(cells: Cells, table4: Cells) -> list[Item]:
    real = cells["real"]
    pairs = {c: (real[_HEADERS_15.get(c, c)], number) for c, number in table4["real"].items()}
    near = {
        m: [c for c in real if 0 < real[c].exact - cells[m][c].exact <= Fraction("0.01")]
        for m in NAMES
    }
    unmarked = [
        f"{NAMES[m]} {c}" for m in NAMES for c in near[m] if c not in _UNDERLINED.get(m, ())
    ]
    wrong = [f"{NAMES[m]} {c}" for m, cs in _UNDERLINED.items() for c in cs if c not in near[m]]
    return [
        compared("table15-original", "Table 15, Original", "14 AUCs", "Table 4, Original", pairs),
        stated(
            "table15-underlined",
            "Table 15, caption",
            "cells within 0.01 below the baseline are underlined",
            "differences of Table 15's cells from its first row",
            not unmarked and not wrong,
            f"not underlined: {listed(unmarked)}; underlined though farther: {listed(wrong)}",
            numbers=sum(map(len, _UNDERLINED.values())),
        ),
    ]


def _synthetic_only(cells: Cells) -> list[Item]:
    real = cells["real"]

    def columns(model: str, condition: Callable[[Fraction], bool]) -> list[str]:
        """Return the pathologies in which a model's gain over the baseline meets a condition."""
        return [c for c in real if condition(cells[model][c].exact - real[c].exact)]

    reached = {m: columns(m, lambda gain: gain >= 0) for m in NAMES}
    above = {m: columns(m, lambda gain: gain > 0) for m in NAMES}
    pathologies = [c for c in reached["sana"] if c != "NF"]
    lower = {m: [below(cells[m][c], real[c]) for c in real] for m in _BELOW}
    return [
        stated(
            "text-sana-10-of-13",
            "Section A.7.1",
            "Sana matches or exceeds the baseline on 10 of 13 pathologies",
            "Table 15, without No Finding",
            len(pathologies) == 10 and len(real) - 1 == 13,
            f"{len(pathologies)} of {len(real) - 1}; with No Finding {len(reached['sana'])} of "
            f"{len(real)}",
        ),
        stated(
            "text-sana-fracture",
            "Section A.7.1",
            "Sana exceeds the baseline on Fracture",
            "Table 15",
            "Fracture" in above["sana"],
            f"exceeds it on {listed(above['sana'])}",
        ),
        stated(
            "text-few-matches",
            "Section A.7.1",
            "RadEdit, Pixart Sigma, LLM-CXR match at most two pathologies and exceed none",
            "Table 15",
            all(len(reached[m]) <= 2 and not above[m] for m in _FEW_MATCHES),
            "; ".join(
                f"{NAMES[m]} {len(reached[m])}, exceeds {len(above[m])}" for m in _FEW_MATCHES
            ),
            numbers=2 * len(_FEW_MATCHES),
        ),
        stated(
            "text-below-baseline",
            "Section A.7.1",
            "SD V1-4, SD V3-5, Lumina, Flux are below the baseline on most or all pathologies",
            "Table 15",
            every(most(losses) for losses in lower.values()),
            ", ".join(f"{NAMES[m]} {x.count(True)} of {len(x)}" for m, x in lower.items()),
            numbers=len(_BELOW),
        ),
    ]


def _segmentation(grid: Grid) -> list[Item]:
    dice = grid.of_models("DICE")
    real = dice["real"]
    changes = {m: f"{NAMES[m]} {float(dice[m].exact - real.exact):+.3f}" for m in NAMES}
    gains = {m: below(real, dice[m]) for m in NAMES}
    best = max(NAMES, key=lambda m: dice[m].exact)
    degraded = ("sd_v1_4", "sd_v1_5", "lumina_2")
    return [
        compared(
            "text-dice-quoted",
            "Section 3.3",
            "Dice 0.669 (baseline), 0.537 (SD V2), at best 0.671 (Pixart Sigma)",
            "Table 5",
            {
                "Baseline": ("0.669", real),
                "SD V2": ("0.537", dice["sd_v2"]),
                "highest": ("0.671", dice[best]),
            },
            note=f"the best is {NAMES[best]}",
        ),
        stated(
            "text-low-fidelity-degrades",
            "Section 3.3",
            "SD V1-4, SD V1-5 and Lumina 2.0 lower Dice substantially",
            "Table 5",
            every(below(dice[m], real) for m in degraded),
            ", ".join(changes[m] for m in degraded),
            numbers=len(degraded),
        ),
        stated(
            "text-only-high-fidelity-gains",
            "Section 4.1",
            "segmentation improves only with high-fidelity data",
            "Table 5: models above the baseline",
            every(opposite(gain) for m, gain in gains.items() if m not in HIGH_FIDELITY),
            names(m for m in NAMES if gains[m]),
            numbers=len(NAMES),
        ),
        stated(
            "text-high-fidelity-reaches",
            "Section 3.3",
            "Pixart Sigma, Sana and RadEdit match or surpass the baseline's Dice",
            "Table 5",
            every(matches(dice[m], real) for m in HIGH_FIDELITY),
            ", ".join(changes[m] for m in HIGH_FIDELITY),
            numbers=len(HIGH_FIDELITY),
            reason=_NO_NOISE,
        ),
    ]
