"""The scorecard of a curated set: the seven criteria of Zamzmi et al., filled from records.

Zamzmi, Subbaswamy, Sizikova, Margerrison, Delfino and Badano: Scorecards for Synthetic Medical
Data Evaluation and Reporting, arXiv:2406.11143 (2024); as published: Scorecard for synthetic
medical data evaluation, Communications Engineering 4, 130 (2025), doi:10.1038/s44172-025-00450-1.

A criterion that no record covers is a gap, which the scorecard lists with its reason.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import Record
from workflow_scripts.curate.described import Described, number, with_interval
from workflow_scripts.curate.worth_text import lines_of
from workflow_scripts.curate.worth_text import shown as shown_value

SOURCE: Final = (
    "Zamzmi et al., Scorecards for Synthetic Medical Data Evaluation and Reporting, "
    "arXiv:2406.11143 (2024), doi:10.1038/s44172-025-00450-1"
)

CRITERIA: Final = {
    "congruence": "Do the images resemble radiographs?",
    "coverage": "Do they show the variety of radiographs, and something new?",
    "constraint": "Are they anatomically plausible, and do they show what was asked for?",
    "completeness": "Does it have everything that a task needs: labels, prompts, scores?",
    "compliance": "Are privacy, security, and the terms of the sources observed?",
    "comprehension": "Can a reader find out how they were made?",
    "consistency": "Is their quality the same for all findings, groups and times?",
}
"""The seven criteria by key, each as the question that it answers."""

MODEL: Final = "the model's images before filtering"
SET: Final = "this set"
PLANTED: Final = "images planted in the pool"
POOL: Final = "the pool"
UNSEEN: Final = "radiographs of unseen patients"

# For each row of the decision, by its key: the criterion, and the images it was measured on.
_KEYS: Final = {
    "flagged": ("compliance", POOL),
    "sensitivity": ("compliance", PLANTED),
    "remaining_leaks": ("compliance", SET),
    "false_rejections": ("compliance", UNSEEN),
    "sparse": ("constraint", POOL),
    "implausible": ("constraint", POOL),
    "unseen": ("constraint", POOL),
    "poor_radiographs": ("constraint", UNSEEN),
}
_STAGES: Final = {
    "fidelity": "congruence",
    "privacy": "compliance",
    "faithfulness": "constraint",
    "downstream": "completeness",
}


@dataclass(frozen=True)
class Entry:
    """One line of the scorecard.

    Attributes:
        criterion: a key of `CRITERIA`.
        words: what is measured.
        shown: the value, with its interval if it has one; None for a gap.
        of: the images it was measured on.
        source: the record or the file that has the value.
        gap: why there is no value; None if there is one.
    """

    criterion: str
    words: str
    shown: str | None
    of: str
    source: str
    gap: str | None


_RECORDS: Final = {
    "congruence": {
        "fidelity/rad_dino/fid_corrected": "Distance of the distributions (FID without its bias), "
        "0 is best",
        "fidelity/rad_dino/kid": "Distance of the distributions (KID), 0 is best",
        "fidelity/rad_dino/precision": "Share of images among radiographs (precision)",
        "fidelity/rad_dino/density": "Density among radiographs",
        "fidelity/rad_dino/alignment": "Agreement of image and caption (alignment)",
        "faithfulness/texture/spectrum_distance": "Difference of the power spectra",
    },
    "coverage": {
        "fidelity/rad_dino/recall": "Share of radiographs among images (recall)",
        "fidelity/rad_dino/coverage": "Share of radiographs with an image nearby (coverage)",
        "faithfulness/texture/ms_ssim": "Similarity of images to one another (MS-SSIM); 1 is all "
        "the same",
        "privacy/closest/authpct": "Images farther from training images than these from one "
        "another (AuthPct, %)",
    },
    "constraint": {
        "faithfulness/anatomy/implausible": "Images with implausible anatomy",
        "faithfulness/anatomy/ratio_distance": "Distance of the cardiothoracic ratio from that of "
        "radiographs",
        "faithfulness/findings/judged_auroc": "A judge recognises the finding asked for (AUROC)",
    },
    "compliance": {
        "privacy/pairwise/reid_share": "Prompts whose images resemble their own radiograph "
        "(re-identification)",
        "privacy/lenses/any_seen": "Prompts at which a lens raises an alarm; 5% by chance",
        "privacy/novelty/nearer_to_training_excess": "Images closer to training radiographs than "
        "images of held-out captions are (excess)",
    },
}
"""Values of records by criterion, as stage/family/metric, each with its description."""

_GAPS: Final = (
    ("congruence", "A radiologist's impression", "no reader study was run"),
    (
        "consistency",
        "By sex, age, device and hospital of the patients",
        "prompts do not state them, so no image has them",
    ),
    ("consistency", "Over time", "the set was drawn once, from one training run of the model"),
    (
        "compliance",
        "Security of the systems that hold the data",
        "outside what this workflow measures",
    ),
    ("compliance", "A lawyer's review", "outside what this workflow measures"),
    (
        "comprehension",
        "Why the model draws what it draws",
        "a diffusion or language model is not explained by its weights",
    ),
)


def fill(described: Described) -> list[Entry]:
    """Return the scorecard's lines, by criterion in the order of `CRITERIA`."""
    decision = described.decision
    entries = [
        _of_record(described, criterion, key, words)
        for criterion, values in _RECORDS.items()
        for key, words in values.items()
    ]
    entries += [_of_decision(m) for m in decision["measured"] if not _has_line(m, described)]
    entries += [_of_planted(planted) for planted in decision["planted"]]
    entries.append(_remaining(decision["remaining_leaks_upper"], described.confidence))
    entries += _completeness(described)
    terms = described.terms
    entries += [
        Entry("compliance", "Terms of the radiographs", terms.training_data.licence, SET,
              terms.training_data.source, None),
        Entry("compliance", "Terms of the weights", terms.weights.licence, SET,
              terms.weights.source, None),
        Entry("comprehension", "How the images were made and chosen", "described", SET,
              "datasheet.md, terms.md, decision.json", None),
        _fid_of_findings(described),
        *_worth(described),
    ]  # fmt: skip
    entries += [Entry(c, words, None, SET, "-", gap) for c, words, gap in _GAPS]
    entries += [
        Entry("compliance", str(text), None, SET, "decision.json", "not tested")
        for text in decision["not_tested"]
    ]
    order = list(CRITERIA)
    return sorted(entries, key=lambda entry: order.index(entry.criterion))


def scorecard_json(entries: list[Entry]) -> dict[str, Any]:
    """Return the scorecard as JSON types: its source, and the lines of each criterion."""
    return {
        "source": SOURCE,
        "criteria": {
            key: {
                "question": question,
                "entries": [asdict(entry) for entry in entries if entry.criterion == key],
            }
            for key, question in CRITERIA.items()
        },
        "gaps": sum(entry.gap is not None for entry in entries),
    }


def scorecard_page(entries: list[Entry], name: str) -> str:
    """Return the scorecard as a page in Markdown."""
    lines = [
        f"# Scorecard of {name}",
        "",
        f"The seven criteria are those of {SOURCE}. Each line says which images it was "
        "measured on. Brackets hold a 95% interval. What was not measured is a gap, with its "
        "reason.",
    ]
    for key, question in CRITERIA.items():
        lines += ["", f"## {key.capitalize()}", "", question, ""]
        lines += ["| what | value | of | from |", "|---|---|---|---|"]
        for entry in (entry for entry in entries if entry.criterion == key):
            value = entry.shown if entry.gap is None else f"gap: {entry.gap}"
            cells = (entry.words, value, entry.of, entry.source)
            lines.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _of_record(described: Described, criterion: str, key: str, words: str) -> Entry:
    """Return the line of a record's value, which `key` names as stage/family/metric."""
    stage, family, metric = key.split("/")
    source = f"{stage}, {family}"
    for record in described.records:
        if (record.stage, record.family.split("/")[0]) != (stage, family):
            continue
        for value in record.values:
            if (value.metric, value.subset) == (metric, "all"):
                low, high = value.interval or (None, None)
                shown = None if value.value is None else with_interval(value.value, low, high)
                return Entry(criterion, words, shown, MODEL, source, value.reason)
    return Entry(criterion, words, None, MODEL, source, "no record of it was given")


def _of_decision(measured: dict[str, Any]) -> Entry:
    """Return the line of one row of the decision's measurements."""
    key = str(measured["key"])
    if key in _KEYS:
        criterion, of = _KEYS[key]
    else:  # a record's value: stage/family/metric
        criterion, of = _STAGES.get(key.split("/")[0], "compliance"), MODEL
    value = measured.get("value")
    gap = None if value is not None else str(measured.get("reason") or "not measured")
    shown = None
    if value is not None:
        shown = with_interval(value, measured.get("low"), measured.get("high"))
        if measured.get("limit") is not None:
            shown += f"; limit {number(measured['limit'])}"
    return Entry(criterion, str(measured["words"]), shown, of, "decision.json", gap)


def _has_line(measured: dict[str, Any], described: Described) -> bool:
    """Return whether a row of the decision repeats a record's value that has its own line."""
    key = str(measured["key"])
    records = {f"{record.stage}/{record.family.split('/')[0]}" for record in described.records}
    return key.rpartition("/")[0] in records and any(key in values for values in _RECORDS.values())


def _of_planted(planted: dict[str, Any]) -> Entry:
    words = f"Planted leaks that the filter caught: {planted.get('words', planted['kind'])}"
    if not planted["planted"]:
        gap = f"none was planted: {planted.get('reason') or 'no reason is given'}"
        return Entry("compliance", words, None, PLANTED, "decision.json", gap)
    shown = f"{planted['caught']} of {planted['planted']}"
    if planted.get("low") is not None:
        shown += f"; lower bound of the share {number(planted['low'])}"
    return Entry("compliance", words, shown, PLANTED, "decision.json", None)


def _remaining(upper: float | None, confidence: float) -> Entry:
    words = f"Leaks of the planted kinds that may remain, at most ({confidence:.0%} confidence)"
    if upper is None:
        gap = "no bound follows from what was planted"
        return Entry("compliance", words, None, SET, "decision.json", gap)
    return Entry("compliance", words, number(upper), SET, "decision.json", None)


def _completeness(described: Described) -> list[Entry]:
    shards, n = "data/*.parquet", described.images
    if not n:
        return [Entry("completeness", "Images", None, SET, shards, "no image was kept")]
    stated = sum(described.stated.values())
    entries = [
        Entry("completeness", "Images", str(n), SET, shards, None),
        Entry("completeness", "Labels that are stated, of 14 findings of each image",
              f"{stated} of {14 * n}", SET, shards, None),
    ]  # fmt: skip
    scores = ", ".join(described.scores)
    prompt = "given" if described.prompts_shown else None
    for words, shown, gap in (
        ("Scores of each image", scores or None, "the shards have no column of scores"),
        ("The prompt of each image", prompt, "left out: it may hold a caption"),
    ):
        entries.append(Entry("completeness", words, shown, SET, shards, None if shown else gap))
    return entries


def _worth(described: Described) -> list[Entry]:
    """Return the lines of networks trained on the set, and on as many unfiltered images."""
    return [
        *_learned(described.worth, "AUROC", "a classifier", "curate.worth", "worth.json"),
        *_learned(
            described.segmented,
            "Dice",
            "a U-Net",
            "curate.worth_also",
            "worth_segmentation.json",
        ),
    ]


def _learned(
    worth: Record | None, metric: str, network: str, key: str, source: str
) -> Iterator[Entry]:
    if worth is None or worth.details["reason"]:
        gap = worth.details["reason"] if worth else f"not measured: {key} asks for it"
        words = f"What {network} learns from the set ({metric})"
        yield Entry("completeness", words, None, SET, "-", gap)
        return
    for line in lines_of(worth):
        what = f"difference of {metric}" if line.words.startswith("what the filter") else metric
        words = f"Worth for training {network}, {what}: {line.words}"
        value = None if line.value.value is None else shown_value(line.value)
        of = "test radiographs"
        yield Entry("completeness", words, value, of, source, line.value.reason)


def _fid_of_findings(described: Described) -> Entry:
    """Return the line of the least and the greatest FID of single findings."""
    words, source = "FID of single findings, least to greatest", "fidelity, rad_dino"
    values = [
        (value.value, value.subset)
        for record in described.records
        if (record.stage, record.family) == ("fidelity", "rad_dino")
        for value in record.values
        if value.metric == "fid" and value.subset in FINDINGS and value.value is not None
    ]
    if len(values) < 2:
        gap = "fewer than two findings have a value"
        return Entry("consistency", words, None, MODEL, source, gap)
    (least, a), (most, b) = min(values), max(values)
    shown = f"{number(least)} ({a}) to {number(most)} ({b}), {len(values)} of 14 findings"
    return Entry("consistency", words, shown, MODEL, source, None)
