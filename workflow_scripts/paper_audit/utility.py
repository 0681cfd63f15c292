"""Classification and segmentation: Tables 4, 5 and 15, Sections 3.3 and A.7.1."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from workflow_scripts.paper_audit.fidelity import COLUMNS
from workflow_scripts.paper_audit.items import Item, compared, stated
from workflow_scripts.paper_audit.model_names import model_key
from workflow_scripts.paper_audit.models import NAMES, names, ranked, spearman
from workflow_scripts.paper_audit.printed import Grid, Paper, Printed, printed
from workflow_scripts.paper_audit.yardstick import (
    Exact,
    below,
    difference,
    every,
    exactly,
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
"""Table 15's headings where Table 4 has others."""

_MINORITY: Final = ("Frac.", "PO")
_PO_GAINERS: Final = ("radedit", "pixart_sigma", "sana")
_PREVALENT: Final = ("Atelec.", "C.Megaly", "SD")
_FEW_MATCHES: Final = ("radedit", "pixart_sigma", "llm_cxr")
_BELOW: Final = ("sd_v1_4", "sd_v3_5", "lumina_2", "flux_1_dev")
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
"""Table 15's underlined cells: within 0.01 of the baseline."""

_HIGH: Final = ("radedit", "pixart_sigma", "sana")
"""What Section 3.3 calls high-fidelity models."""


def utility_items(paper: Paper) -> list[Item]:
    """Return what follows from the tables of downstream tasks."""
    return [
        *_averages(paper),
        *_augmented_classes(paper),
        *_synthetic_only(paper["15"], paper["4"]),
        *_segmentation(paper["5"]),
    ]


def _cells(grid: Grid, columns: Sequence[str]) -> dict[str, dict[str, Printed]]:
    """Return a table's numbers by model, the baseline's as `real`, and column."""
    return {model_key(row): {c: grid.number(row, c) for c in columns} for row in grid.rows}


def _findings(grid: Grid) -> list[str]:
    return [column for column in grid.columns if column != "Average"]


def _averages(paper: Paper) -> list[Item]:
    grid = paper["4"]
    cells = _cells(grid, _findings(grid))
    own = grid.of_models("Average")
    means = {model: mean_of(list(row.values())) for model, row in cells.items()}
    behind = [m for m in NAMES if means[m].value < means["real"].value]
    reached = {m: matches(own[m], own["real"]) for m in NAMES}
    gain = means["sd_v1_4"].value - means["real"].value
    fid = paper["1"].of_models(COLUMNS["FID"])
    found = spearman({m: -fid[m].value for m in NAMES}, {m: float(means[m].value) for m in NAMES})
    return [
        compared(
            "table4-average",
            "Table 4, Average",
            f"{len(own)} averages",
            "mean of the row's fourteen AUCs; the digits behind the printed ones may move it by "
            "half a unit",
            {NAMES.get(m, "Original"): (number, means[m]) for m, number in own.items()},
        ),
        stated(
            "text-all-match-baseline",
            "Section 3.3",
            "on average every model matches or beats real data alone",
            "Table 4's Average",
            every(reached.values()),
            f"printed averages below {own['real'].text}: "
            f"{names(m for m in NAMES if not reached[m])}; means of the rows' "
            f"cells below {float(means['real'].value):.4f}: "
            + (", ".join(f"{NAMES[m]} {float(means[m].value):.4f}" for m in behind) or "none"),
            len(NAMES),
            reason="what is printed below may be within the noise, which is not printed",
        ),
        compared(
            "text-three-percent",
            "Section 3.3",
            "SD V1-4 improves the average AUC by 3%",
            "Table 4: difference of the rows' means, in points",
            {"points": (printed("3"), Exact(100 * gain))},
            f"in points of AUC; {float(gain / means['real'].value):.1%} of the baseline",
        ),
        compared(
            "text-about-fid",
            "Section 3.3",
            "FID about 125 (SD V1-4) and 54 (Sana)",
            "Table 1",
            {
                NAMES[m]: (printed(text), exactly(fid[m]))
                for m, text in (("sd_v1_4", "125"), ("sana", "54"))
            },
        ),
        stated(
            "text-independent-of-fidelity",
            "Section 3.3",
            "classification gains hardly depend on fidelity",
            "Spearman's correlation of lower FID (Table 1) with the means of Table 4's rows",
            found.absent,
            found.text(),
            note="Section A.4 claims a strong correlation of the two",
            reason="the interval contains both no correlation and a strong one",
        ),
    ]


def _augmented_classes(paper: Paper) -> list[Item]:
    grid = paper["4"]
    findings = _findings(grid)
    cells = _cells(grid, findings)
    gains = {
        c: difference(mean_of([cells[m][c] for m in NAMES]), exactly(cells["real"][c]))
        for c in findings
    }
    rest = [gain for c, gain in gains.items() if c not in _MINORITY]
    others = Exact(
        sum((gain.value for gain in rest), Fraction(0)) / len(rest),
        sum((gain.slack for gain in rest), Fraction(0)) / len(rest),
    )
    at_least = {c: [matches(cells[m][c], cells["real"][c]) for m in NAMES] for c in _PREVALENT}
    beats = {m: below(cells["real"]["PO"], cells[m]["PO"]) for m in NAMES}
    all_beat = [m for m in NAMES if beats[m]]
    return [
        stated(
            "text-po-gainers",
            "Section 3.3",
            "RadEdit, Pixart Sigma and Sana beat the baseline on Pleural Other",
            "Table 4",
            every(beats[m] for m in _PO_GAINERS),
            f"above {cells['real']['PO'].text}: {names(all_beat)}",
            len(_PO_GAINERS),
        ),
        stated(
            "text-prevalent-match",
            "Section 3.3",
            "on Atelectasis, Cardiomegaly, Support Devices most models match or beat the baseline",
            "Table 4",
            every(most(found) for found in at_least.values()),
            ", ".join(f"{c} {f.count(True)} of {len(NAMES)}" for c, f in at_least.items()),
            len(_PREVALENT),
        ),
        stated(
            "text-minority-benefit",
            "Section 3.3",
            "minority pathologies (Fracture, Pleural Other) gain most notably",
            "Table 4: mean gain over eleven models, against that of the other twelve pathologies",
            every(below(others, gains[c]) for c in _MINORITY),
            ", ".join(f"{c} {float(gains[c].value):+.4f}" for c in _MINORITY)
            + f", others {float(others.value):+.4f}",
            len(_MINORITY),
            f"Pleural Other gains with {len(all_beat)} of {len(NAMES)} models",
        ),
    ]


def _synthetic_only(grid: Grid, table4: Grid) -> list[Item]:
    cells = _cells(grid, grid.columns)
    base = cells["real"]
    original4 = _cells(table4, _findings(table4))["real"]
    pairs = {c: (base[_HEADERS_15.get(c, c)], exactly(number)) for c, number in original4.items()}
    reached = {m: [c for c in grid.columns if cells[m][c].exact >= base[c].exact] for m in NAMES}
    above = {m: [c for c in grid.columns if cells[m][c].exact > base[c].exact] for m in NAMES}
    pathologies = [c for c in reached["sana"] if c != "NF"]
    near = {
        m: tuple(
            c
            for c in grid.columns
            if cells[m][c].exact < base[c].exact
            and base[c].exact - cells[m][c].exact <= printed("0.01").exact
        )
        for m in NAMES
    }
    unmarked = [
        f"{NAMES[m]} {c}" for m in NAMES for c in near[m] if c not in _UNDERLINED.get(m, ())
    ]
    wrong = [f"{NAMES[m]} {c}" for m, cs in _UNDERLINED.items() for c in cs if c not in near[m]]
    lower = {m: [below(cells[m][c], base[c]) for c in grid.columns] for m in _BELOW}
    return [
        compared("table15-original", "Table 15, Original", "14 AUCs", "Table 4, Original", pairs),
        stated(
            "table15-underlined",
            "Table 15, caption",
            "cells within 0.01 below the baseline are underlined",
            "differences of Table 15's cells from its first row",
            not unmarked and not wrong,
            f"not underlined: {', '.join(unmarked) or 'none'}; underlined though farther: "
            f"{', '.join(wrong) or 'none'}",
            sum(map(len, _UNDERLINED.values())),
        ),
        stated(
            "text-sana-10-of-13",
            "Section A.7.1",
            "Sana matches or exceeds the baseline on 10 of 13 pathologies",
            "Table 15, No Finding left out",
            len(pathologies) == 10 and len(grid.columns) - 1 == 13,
            f"{len(pathologies)} of {len(grid.columns) - 1}; with No Finding "
            f"{len(reached['sana'])} of {len(grid.columns)}",
        ),
        stated(
            "text-sana-fracture",
            "Section A.7.1",
            "Sana exceeds the baseline on Fracture",
            "Table 15",
            "Fracture" in above["sana"],
            f"exceeds it on {', '.join(above['sana']) or 'none'}",
        ),
        stated(
            "text-few-matches",
            "Section A.7.1",
            "RadEdit, Pixart Sigma, LLM-CXR match at most two pathologies and exceed none",
            "Table 15",
            all(len(reached[m]) <= 2 and not above[m] for m in _FEW_MATCHES),
            ", ".join(
                f"{NAMES[m]} {len(reached[m])}, exceeds {len(above[m])}" for m in _FEW_MATCHES
            ),
            2 * len(_FEW_MATCHES),
        ),
        stated(
            "text-below-baseline",
            "Section A.7.1",
            "SD V1-4, SD V3-5, Lumina, Flux are below the baseline on most or all pathologies",
            "Table 15",
            every(most(found) for found in lower.values()),
            ", ".join(f"{NAMES[m]} {f.count(True)} of {len(f)}" for m, f in lower.items()),
            len(_BELOW),
        ),
    ]


def _segmentation(grid: Grid) -> list[Item]:
    dice = grid.of_models("DICE")
    base = dice["real"]
    models = {m: number for m, number in dice.items() if m in NAMES}
    ranks = ranked(models, lower=False)
    best = min(ranks, key=lambda m: ranks[m])
    drops = {m: base.exact - models[m].exact for m in ("sd_v1_4", "sd_v1_5", "lumina_2")}
    gains = {m: below(base, models[m]) for m in NAMES}
    quoted = {
        "Baseline": (printed("0.669"), exactly(base)),
        "SD V2": (printed("0.537"), exactly(models["sd_v2"])),
        "highest": (printed("0.671"), exactly(models[best])),
    }
    return [
        compared(
            "text-dice-quoted",
            "Section 3.3",
            "Dice 0.669 (baseline), 0.537 (SD V2), at best 0.671 (Pixart Sigma)",
            "Table 5",
            quoted,
            f"the best is {NAMES[best]}",
        ),
        stated(
            "text-low-fidelity-degrades",
            "Section 3.3",
            "SD V1-4, SD V1-5 and Lumina 2.0 lower Dice substantially",
            "Table 5",
            every(below(models[m], base) for m in drops),
            ", ".join(f"{NAMES[m]} {-float(drop):+.3f}" for m, drop in drops.items()),
            len(drops),
        ),
        stated(
            "text-only-high-fidelity-gains",
            "Section 4.1",
            "segmentation improves only with high-fidelity data",
            "Table 5: models above the baseline",
            every(opposite(gain) for m, gain in gains.items() if m not in _HIGH),
            names(m for m in NAMES if gains[m]),
            len(models),
        ),
        stated(
            "text-high-fidelity-reaches",
            "Section 3.3",
            "Pixart Sigma, Sana and RadEdit match or surpass the baseline's Dice",
            "Table 5",
            every(matches(models[m], base) for m in _HIGH),
            ", ".join(f"{NAMES[m]} {float(models[m].exact - base.exact):+.3f}" for m in _HIGH),
            len(_HIGH),
            reason="what is printed below may be within the noise, which is not printed",
        ),
    ]
