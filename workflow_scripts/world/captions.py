"""Captions in the style of radiology reports, and a parser of the findings in them.

Each finding has one sentence, with the side, zone and severity that were drawn. Sentences about
absent findings begin with "No" or "There is no" and mention no present finding.
"""

import re
from collections.abc import Iterable
from typing import Final

import numpy as np

from workflow_scripts.world.findings import DEVICES, SIDED, ZONED, Finding
from workflow_scripts.world.radiograph import device_side

SIZES: Final = ("small", "moderate", "large")
GRADES: Final = ("mild", "moderate", "severe")

_SENTENCES: Final[dict[str, tuple[str, ...]]] = {
    "Atelectasis": (
        "{Grade} {side} basilar atelectasis with loss of volume.",
        "Plate-like atelectasis at the {side} {base}, {grade} in extent.",
        "There is {grade} {side} basal linear atelectasis.",
        "{Grade} atelectatic bands are seen at the {side} lung {base}.",
    ),
    "Cardiomegaly": (
        "{Grade} cardiomegaly.",
        "The heart is {gradely} enlarged.",
        "Cardiac silhouette shows {grade} enlargement.",
        "There is {grade} cardiomegaly in this projection.",
        "Heart size is {gradely} increased.",
    ),
    "Consolidation": (
        "{Grade} {side} {zone} zone consolidation with air bronchograms.",
        "Dense consolidation in the {side} {zone} {lung}, {grade} in extent.",
        "There is {grade} airspace consolidation of the {side} {zone} zone{plural}.",
    ),
    "Edema": (
        "{Grade} pulmonary edema.",
        "Perihilar haze and septal lines in keeping with {grade} edema.",
        "There is {grade} interstitial edema with vascular congestion.",
        "Findings of {grade} pulmonary edema in a bat-wing pattern.",
    ),
    "Enlarged Cardiomediastinum": (
        "{Grade} widening of the mediastinum.",
        "The mediastinal contour is {gradely} widened.",
        "There is a {gradely} enlarged cardiomediastinum.",
    ),
    "Fracture": (
        "{Count} displaced {side} {zone} rib {fracture}.",
        "There {is} {count} {side} rib {fracture} in the {zone} thorax with a step in the cortex.",
        "{Count} {side} {zone} {fracture} of the ribs.",
    ),
    "Lung Lesion": (
        "{Size} round nodule in the {side} {zone} {lung}.",
        "There is a {size} well-defined nodular lesion of the {side} {zone} zone.",
        "A {size} pulmonary nodule projects over the {side} {zone} zone.",
    ),
    "Lung Opacity": (
        "{Grade} hazy opacity in the {side} {zone} {lung}.",
        "There is {grade} ill-defined opacification of the {side} {zone} zone{plural}.",
        "{Grade} ground-glass opacity over the {side} {zone} zone{plural}.",
    ),
    "Pleural Effusion": (
        "{Size} {side} pleural effusion{plural}.",
        "There {are} {size} {side} pleural effusion{plural} with blunting of the costophrenic "
        "angle{plural}.",
        "{Size} {side} effusion{plural} with a meniscus along the chest wall.",
    ),
    "Pleural Other": (
        "{Grade} {side} pleural thickening with calcified plaques.",
        "There is {grade} thickening of the {side} pleura and plaque formation.",
        "{Grade} {side} pleural scarring and plaques.",
    ),
    "Pneumonia": (
        "{Grade} patchy {side} {zone} zone infiltrate{plural} consistent with pneumonia.",
        "Patchy foci in the {side} {zone} {lung} in keeping with {grade} pneumonia.",
        "There is {grade} multifocal {side} {zone} zone pneumonia.",
    ),
    "Pneumothorax": (
        "{Size} {side} apical pneumothorax.",
        "There is a {size} {side} pneumothorax with a visible visceral line.",
        "{Size} {side}-sided pneumothorax.",
    ),
}

_UNCERTAIN: Final = (
    "Possible {text}",
    "Findings may represent {text}",
    "Cannot exclude {text}",
    "Questionable {text}",
)
_UNCERTAIN_TERMS: Final = {
    "Atelectasis": "{side} basilar atelectasis.",
    "Cardiomegaly": "borderline cardiomegaly.",
    "Consolidation": "early {side} {zone} zone consolidation.",
    "Edema": "minimal pulmonary edema.",
    "Enlarged Cardiomediastinum": "slight widening of the mediastinum.",
    "Fracture": "{side} {zone} rib fracture.",
    "Lung Lesion": "faint nodule in the {side} {zone} {lung}.",
    "Lung Opacity": "subtle opacity in the {side} {zone} {lung}.",
    "Pleural Effusion": "trace {side} effusion{plural}.",
    "Pleural Other": "{side} pleural thickening.",
    "Pneumonia": "developing {side} {zone} zone pneumonia.",
    "Pneumothorax": "tiny {side} apical pneumothorax.",
}

_DEVICE_SENTENCES: Final[dict[str, tuple[str, ...]]] = {
    "endotracheal tube": (
        "Endotracheal tube tip lies above the carina.",
        "The patient is intubated, with the endotracheal tube in satisfactory position.",
    ),
    "central line": (
        "Central venous catheter ends in the superior vena cava.",
        "A jugular central line is in place.",
    ),
    "picc": ("A PICC ends near the cavoatrial junction.", "PICC line in place."),
    "nasogastric tube": (
        "Nasogastric tube courses into the stomach.",
        "An enteric (nasogastric) tube passes below the diaphragm.",
    ),
    "pacemaker": (
        "Left chest wall pacemaker with two leads.",
        "Dual-lead pacemaker, leads over the right atrium and ventricle.",
    ),
    "sternal wires": (
        "Median sternotomy wires are intact.",
        "Sternal wires from earlier surgery.",
    ),
    "chest tube": ("A chest tube is in place.", "Chest tube directed towards the apex."),
}

_NORMAL: Final = (
    "No acute cardiopulmonary abnormality.",
    "The lungs are clear.",
    "Lungs are clear and the heart is normal in size.",
    "Normal chest radiograph.",
    "The lungs are well expanded and clear.",
    "Clear lungs with a normal cardiac silhouette.",
    "Normal heart, lungs and bony structures.",
)

_ABSENT: Final = {
    "Pleural Effusion": "pleural effusion",
    "Pneumothorax": "pneumothorax",
    "Consolidation": "focal consolidation",
    "Edema": "pulmonary edema",
    "Pneumonia": "evidence of pneumonia",
}

_KEYWORDS: Final = {
    "Atelectasis": r"atelecta",
    "Cardiomegaly": r"cardiomegaly|heart is \w+ enlarged|enlarged heart|heart size is \w+ increased"
    r"|cardiac silhouette (shows|is) \w+ enlarge",
    "Consolidation": r"consolidat",
    "Edema": r"edema",
    "Enlarged Cardiomediastinum": r"widening of the mediastinum|mediastinal contour is \w+ widened"
    r"|cardiomediastinum|widened mediastinum",
    "Fracture": r"fracture",
    "Lung Lesion": r"nodul|\bmass\b|lesion",
    "Lung Opacity": r"opaci",
    "Pleural Effusion": r"effusion",
    "Pleural Other": r"pleural (thickening|scarring)|thickening of the \w+ pleura|plaque",
    "Pneumonia": r"pneumonia",
    "Pneumothorax": r"pneumothora",
}
_DEVICE_KEYWORDS: Final = {
    "endotracheal tube": r"endotracheal|intubated",
    "central line": r"central (venous|line)|jugular",
    "picc": r"\bpicc\b",
    "nasogastric tube": r"nasogastric|enteric|orogastric",
    "pacemaker": r"pacemaker|\bicd\b",
    "sternal wires": r"sternotomy|sternal wires",
    "chest tube": r"chest tube|pleural drain",
}
_MARKED_FIRST: Final = (
    "Compared with the radiograph of ___.",
    "The study of ___ is there to compare with.",
    "___-year-old patient.",
)
_MARKED_LAST: Final = (
    "Dr. ___ was told of this by telephone at ___.",
    "Read by ___.",
    "Followed since ___.",
)
"""Sentences with the mark ___ that de-identification leaves in place of a name, date or age."""

_ENTRY: Final = re.compile(r"\bentering from the (left|right)\b")
"""The side that a device enters from, as the stress set words it."""

_NEGATED: Final = re.compile(r"^(there (is|are) )?(no|without|neither)\b", re.IGNORECASE)
_HEDGED: Final = re.compile(r"possible|may represent|cannot exclude|questionable", re.IGNORECASE)


def describe(findings: Iterable[Finding], view: str, seed: int, absent: Iterable[str] = ()) -> str:
    """Return the caption of a radiograph.

    Args:
        findings: the findings that were drawn.
        view: the radiograph's view; the caption of an AP view may call it portable.
        seed: chooses the phrasings and the order of the sentences.
        absent: absent findings; the caption denies those that reports usually deny.
    """
    rng = np.random.default_rng([seed, 5])
    drawn = list(findings)
    disease = [finding for finding in drawn if finding.name != "Support Devices"]
    sentences = [_sentence(finding, rng) for finding in disease]
    rng.shuffle(sentences)
    if not disease:
        sentences.append(str(rng.choice(_NORMAL[:3] if drawn else _NORMAL)))
    for finding in drawn:
        for device in finding.devices:
            sentences.append(str(rng.choice(_DEVICE_SENTENCES[device])))
    denied = [_ABSENT[name] for name in sorted(absent) if name in _ABSENT]
    if denied:
        listed = " or ".join(filter(None, [", ".join(denied[:-1]), denied[-1]]))
        sentences.append(f"{rng.choice(['No', 'There is no'])} {listed}.")
    if view == "AP" and disease and rng.random() < 0.3:
        sentences.insert(0, "Portable frontal view.")
    return " ".join(sentences)


def marked(caption: str, seed: int) -> str:
    """Add sentences with de-identification marks ___ before a caption, after it, or both.

    The sentences do not mention findings.
    """
    rng = np.random.default_rng([seed, 7])
    where = int(rng.integers(3))
    first = [str(rng.choice(_MARKED_FIRST))] if where != 1 else []
    last = [str(rng.choice(_MARKED_LAST))] if where != 0 else []
    return " ".join([*first, caption, *last])


def impression(findings: Iterable[Finding]) -> str:
    """Return the one-line summary of a report."""
    names = [finding.name.lower() for finding in findings if finding.name != "Support Devices"]
    return f"{', '.join(names).capitalize()}." if names else "No acute process."


def read_findings(caption: str, seed: int) -> tuple[Finding, ...]:
    """Return the findings that a caption affirms, ready to be drawn.

    Shapes, and details that the caption does not give (side, zone, size), are drawn from the seed.
    """
    rng = np.random.default_rng([seed, 6])
    found: dict[str, Finding] = {}
    devices: list[str] = []
    for sentence in re.split(r"(?<=[.;])\s+|\n", caption):
        if _NEGATED.match(sentence.strip()):
            continue
        text = sentence.lower()
        devices += [kind for kind, words in _DEVICE_KEYWORDS.items() if re.search(words, text)]
        for name, words in _KEYWORDS.items():
            if re.search(words, text) and name not in found:
                found[name] = _read(name, text, rng)
    if devices:
        kinds = tuple(kind for kind in DEVICES if kind in devices)
        shape = int(rng.integers(2**31))
        if side := _ENTRY.search(caption.lower()):
            while device_side(shape) != side[1]:
                shape = (shape + 1) % 2**31
        found["Support Devices"] = Finding("Support Devices", devices=kinds, seed=shape)
    return tuple(found[name] for name in sorted(found))


def _read(name: str, text: str, rng: np.random.Generator) -> Finding:
    side = zone = ""
    if name in SIDED:
        side = str(rng.choice(["right", "left"]))
        if name == "Edema" or "bilateral" in text or "both" in text:
            side = "bilateral"
        else:
            side = next(
                (word for word in ("right", "left") if re.search(rf"\b{word}\b", text)), side
            )
    if name in ZONED:
        zone = next(
            (word for word in ("upper", "mid", "lower") if re.search(rf"\b{word}", text)), "lower"
        )
    certain = not _HEDGED.search(text)
    grade = 1
    if re.search(r"\b(mild|mildly|small|minimal|trace|one)\b", text):
        grade = 0
    elif re.search(r"\b(severe|severely|large|marked|several|three)\b", text):
        grade = 2
    severity = (grade + rng.uniform(0.15, 0.95)) / 3 if certain else rng.uniform(0.05, 0.30)
    return Finding(name, side, zone, float(severity), certain, seed=int(rng.integers(2**31)))


def _sentence(finding: Finding, rng: np.random.Generator) -> str:
    if finding.certain:
        template = str(rng.choice(_SENTENCES[finding.name]))
    else:
        term = _UNCERTAIN_TERMS[finding.name]
        template = str(rng.choice(_UNCERTAIN)).format(text=term)
    both = finding.side == "bilateral"
    grade, size = GRADES[finding.grade], SIZES[finding.grade]
    count = ("one", "two", "three")[finding.grade]
    words = {
        "side": finding.side,
        "zone": finding.zone,
        "base": "bases" if both else "base",
        "lung": "lungs" if both else "lung",
        "plural": "s" if both else "",
        "is": "is" if finding.grade == 0 else "are",
        "are": "are" if both else "is a",
        "fracture": "fracture" if finding.grade == 0 else "fractures",
        "grade": grade,
        "gradely": f"{grade}ly",
        "size": size,
        "count": count,
    }
    words |= {"Grade": grade.capitalize(), "Size": size.capitalize(), "Count": count.capitalize()}
    return template.format(**words)
