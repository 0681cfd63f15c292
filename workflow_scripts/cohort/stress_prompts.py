"""The stress set: prompts from templates that differ in a single attribute.

It contains no text of any patient, so prompts and results may be shared. Prompts come in groups of
two or three. The prompts of a group share the seed, and differ in one attribute only, the contrast:

- `presence`: a finding is present, denied, or not mentioned;
- `side`: left or right;
- `severity`: mild, moderate or severe (small, moderate or large);
- `zone`: the upper or the lower zone;
- `device`: a support device is present or not mentioned;
- `view`: a portable supine film or an upright one;
- `wording`: the same content in other words.

Each prompt comes with its content as attributes (`STRESS_SCHEMA`), so captions need not be parsed.
The CSV has the same bytes for one `STRESS_VERSION`, whatever the cohort. Sentences are short, and
worded unlike reports: no six consecutive words should occur in a real caption, which a test checks
on the embedded world with the release's search. A caption has at most 77 CLIP tokens, so that no
model truncates it.
"""

import argparse
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workflow_scripts.cohort.draw_prompts import write_prompt_csv
from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.manifest import FINDINGS, PROMPT_SCHEMA, TEMPLATE, write_prompts

STRESS_VERSION: Final = 1
"""Increased whenever a caption, an attribute or a seed changes."""

CONTRASTS: Final = ("presence", "side", "severity", "zone", "device", "view", "wording")

GROUPS: Final = {
    "presence": 72,
    "side": 40,
    "severity": 30,
    "zone": 24,
    "device": 30,
    "view": 20,
    "wording": 48,
}
"""Number of groups of each contrast; two or three prompts each give some 600 prompts."""

STRESS_SCHEMA: Final = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("contrast", pa.string(), nullable=False),
        pa.field("group", pa.int32(), nullable=False),
        pa.field("level", pa.string(), nullable=False),
        pa.field("finding", pa.string(), nullable=False),
        pa.field("mention", pa.string(), nullable=False),
        pa.field("side", pa.string(), nullable=False),
        pa.field("zone", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("device", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("wording", pa.int32(), nullable=False),
        pa.field("context", pa.string(), nullable=False),
    ]
)
"""`level`: the prompt's place in its contrast. `mention`: positive, negative or none, of `finding`.
`side`, `zone`, `severity`, `device`, `view`: what the caption says; empty where it says nothing.
`wording`: 0 or 1. `context`: a sentence that has nothing to do with the contrast."""


@dataclass(frozen=True)
class _Words:
    """The wordings of a finding.

    Attributes:
        wordings: two ways to affirm it, with the fields `{side}`, `{zone}` and `{grade}`.
        absent: the words after "No" that deny it.
        grades: its words for mild, moderate and severe; empty if it has no severity.
        sided: whether the wordings name a side.
        zoned: whether the wordings name a zone.
        apart_from: a context that would contradict or imply it.
    """

    wordings: tuple[str, str]
    absent: str
    grades: tuple[str, ...] = ()
    sided: bool = False
    zoned: bool = False
    apart_from: str = ""


_GRADES: Final = ("mild", "moderate", "severe")
_SIZES: Final = ("small", "moderate", "large")

_CONTEXTS: Final = {
    "airway": "Trachea midline throughout.",
    "bones": "Bony thorax unremarkable throughout.",
    "abdomen": "Upper abdomen unremarkable where included.",
    "heart": "Heart size within normal bounds.",
    "tissues": "Chest wall soft tissues ordinary.",
}

_DISEASE: Final[dict[str, _Words]] = {
    "Atelectasis": _Words(
        ("Basilar atelectasis, {side}, {grade} in degree.", "Atelectatic {side} base, {grade}."),
        "atelectasis",
        _GRADES,
        sided=True,
    ),
    "Cardiomegaly": _Words(
        ("Cardiomegaly, {grade} in degree.", "Enlarged heart, to a {grade} degree."),
        "cardiomegaly",
        _GRADES,
        apart_from="heart",
    ),
    "Consolidation": _Words(
        (
            "Consolidation, {side} {zone} zone, {grade}.",
            "Consolidated lung, {zone} zone on the {side}, {grade}.",
        ),
        "consolidation",
        _GRADES,
        sided=True,
        zoned=True,
    ),
    "Edema": _Words(
        ("Pulmonary edema, {grade} in degree.", "Edema of both lungs, to a {grade} degree."),
        "pulmonary edema",
        _GRADES,
    ),
    "Enlarged Cardiomediastinum": _Words(
        (
            "Widened mediastinum, {grade} in degree.",
            "Cardiomediastinum enlarged to a {grade} degree.",
        ),
        "widened mediastinum",
        _GRADES,
        apart_from="heart",
    ),
    "Fracture": _Words(
        (
            "Displaced rib fracture, {side} {zone} thorax.",
            "Fractured rib on the {side}, {zone} thorax.",
        ),
        "rib fracture",
        sided=True,
        zoned=True,
        apart_from="bones",
    ),
    "Lung Lesion": _Words(
        ("Round nodule, {side} {zone} zone.", "Nodular lesion, {zone} zone on the {side}."),
        "pulmonary nodule",
        sided=True,
        zoned=True,
    ),
    "Lung Opacity": _Words(
        (
            "Hazy opacity, {side} {zone} zone, {grade}.",
            "Hazy opacification, {zone} zone on the {side}, {grade}.",
        ),
        "lung opacity",
        _GRADES,
        sided=True,
        zoned=True,
    ),
    "Pleural Effusion": _Words(
        ("Pleural effusion, {side}, {grade} in size.", "Effusion of {grade} size on the {side}."),
        "pleural effusion",
        _SIZES,
        sided=True,
    ),
    "Pleural Other": _Words(
        (
            "Pleural thickening, {side}, {grade} in degree.",
            "Thickening of the {side} pleura, to a {grade} degree.",
        ),
        "pleural thickening",
        _GRADES,
        sided=True,
    ),
    "Pneumonia": _Words(
        (
            "Patchy pneumonia, {side} {zone} zone, {grade}.",
            "Pneumonia with patchy foci, {zone} zone on the {side}, {grade}.",
        ),
        "pneumonia",
        _GRADES,
        sided=True,
        zoned=True,
    ),
    "Pneumothorax": _Words(
        (
            "Apical pneumothorax, {side}, {grade} in size.",
            "Pneumothorax at the {side} apex, {grade}.",
        ),
        "pneumothorax",
        _SIZES,
        sided=True,
    ),
}

_DEVICES: Final = (
    "endotracheal tube",
    "central line",
    "nasogastric tube",
    "pacemaker",
    "sternal wires",
    "chest tube",
)

_SIDED_DEVICES: Final = ("central line", "chest tube")

_VIEWS: Final = {
    "": "Frontal chest film of an adult.",
    "portable": "Portable supine chest film of an adult.",
    "upright": "Upright standing chest film of an adult.",
}

_SIDE_FINDINGS: Final = ("Pleural Effusion", "Pneumothorax", "Consolidation")
_SEVERITY_FINDINGS: Final = (
    "Pleural Effusion",
    "Cardiomegaly",
    "Edema",
    "Pneumothorax",
    "Consolidation",
    "Atelectasis",
)
_ZONE_FINDINGS: Final = ("Consolidation", "Lung Opacity", "Lung Lesion", "Pneumonia")


@dataclass(frozen=True)
class _Content:
    """The content of a prompt: the attributes of `STRESS_SCHEMA` from `finding` on."""

    finding: str = ""
    mention: str = "none"
    side: str = ""
    zone: str = ""
    severity: str = ""
    device: str = ""
    view: str = ""
    wording: int = 0
    context: str = ""


def stress_set(groups: int | None = None) -> pd.DataFrame:
    """Return the stress set with its attributes, see `STRESS_SCHEMA`.

    Args:
        groups: largest number of groups, taken from the contrasts in turn; None for all. The first
            groups of a contrast cover all its findings, so a part covers as many as possible.

    Raises:
        ValueError: fewer than one group.
    """
    if groups is not None and groups < 1:
        raise ValueError(f"{groups} groups of stress prompts: at least 1 is needed")
    rows = []
    for contrast, number in _in_turn(groups):
        for level, content in _MAKERS[contrast](number):
            rows.append(
                {
                    "prompt_id": f"stress-{contrast}-{number:03d}-{level}",
                    "caption": caption_of(content),
                    "seed": _seed(contrast, number),
                    "contrast": contrast,
                    "group": number,
                    "level": level,
                    **asdict(content),
                }
            )
    frame = pd.DataFrame(rows, columns=STRESS_SCHEMA.names)
    return frame.astype({"group": "int32", "wording": "int32", "seed": "int64"})


@functools.cache
def stress_size(groups: int | None = None) -> int:
    """Return the number of prompts of `stress_set`."""
    return len(stress_set(groups))


def stress_prompts(stress: pd.DataFrame) -> pd.DataFrame:
    """Return a stress set as a prompt set, see `PROMPT_SCHEMA`.

    A prompt has no radiograph. Its caption affirms (1) or denies (0) one finding at most.
    """
    prompts = stress[["prompt_id", "caption", "seed"]].assign(
        image_id=None,
        caption_source=TEMPLATE,
        second_wording=False,
        replicate=pd.array([0] * len(stress), "int32"),
    )
    signs = {"positive": 1, "negative": 0}
    for name in FINDINGS:
        labels = stress["mention"].where(stress["finding"] == name).map(signs)
        prompts[name] = labels.astype("Int8")
    return prompts[PROMPT_SCHEMA.names]


def caption_of(content: _Content) -> str:
    """Return the caption of a content: the view, the sentence of the contrast, and the context."""
    sentences = [_VIEWS[content.view]]
    if content.device:
        entry = f"entering from the {content.side}" if content.side else "in situ"
        sentences.append(f"Device {entry}, {content.device}.")
    elif content.mention == "negative":
        sentences.append(f"No {_DISEASE[content.finding].absent} visible.")
    elif content.mention == "positive":
        template = _DISEASE[content.finding].wordings[content.wording]
        words = {"side": content.side, "zone": content.zone, "grade": content.severity}
        sentences.append(template.format(**words))
    sentences.append(_CONTEXTS[content.context])
    return " ".join(sentences)


def _in_turn(groups: int | None) -> Iterator[tuple[str, int]]:
    """Yield (contrast, number) of all groups, or of `groups` of them, taken in turn."""
    turns = [
        (contrast, number)
        for number in range(max(GROUPS.values()))
        for contrast in CONTRASTS
        if number < GROUPS[contrast]
    ]
    chosen = set(turns[:groups])
    return ((c, n) for c in CONTRASTS for n in range(GROUPS[c]) if (c, n) in chosen)


def _seed(contrast: str, number: int) -> int:
    """Return the seed that the prompts of a group share, from 0 to 2**31 - 1."""
    digest = hashlib.sha256(f"stress\0{contrast}\0{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**31


def _affirmed(finding: str, turn: int) -> _Content:
    """Return a finding that is present; side, zone and context change with the turn."""
    words = _DISEASE[finding]
    contexts = [name for name in _CONTEXTS if name != words.apart_from]
    return _Content(
        finding,
        "positive",
        side=("left", "right")[turn % 2] if words.sided else "",
        zone=("lower", "upper")[turn // 2 % 2] if words.zoned else "",
        severity=words.grades[1] if words.grades else "",
        context=contexts[turn % len(contexts)],
    )


def _presence(number: int) -> list[tuple[str, _Content]]:
    turn, place = divmod(number, len(_DISEASE))
    present = _affirmed(list(_DISEASE)[place], turn)
    absent = _Content(present.finding, "negative", context=present.context)
    return [
        ("present", present),
        ("denied", absent),
        ("unmentioned", replace(absent, mention="none")),
    ]


def _side(number: int) -> list[tuple[str, _Content]]:
    things = [*_SIDE_FINDINGS, *_SIDED_DEVICES]
    turn, place = divmod(number, len(things))
    thing = things[place]
    if thing in _DISEASE:
        # Every second turn, so that the zone changes.
        content = _affirmed(thing, 2 * turn)
    else:
        context = list(_CONTEXTS)[turn % len(_CONTEXTS)]
        content = _Content("Support Devices", "positive", device=thing, context=context)
    return [(side, replace(content, side=side)) for side in ("left", "right")]


def _severity(number: int) -> list[tuple[str, _Content]]:
    turn, place = divmod(number, len(_SEVERITY_FINDINGS))
    content = _affirmed(_SEVERITY_FINDINGS[place], turn)
    grades = _DISEASE[content.finding].grades
    return [
        (level, replace(content, severity=grade))
        for level, grade in zip(_GRADES, grades, strict=True)
    ]


def _zone(number: int) -> list[tuple[str, _Content]]:
    turn, place = divmod(number, len(_ZONE_FINDINGS))
    content = _affirmed(_ZONE_FINDINGS[place], turn)
    return [(zone, replace(content, zone=zone)) for zone in ("upper", "lower")]


def _device(number: int) -> list[tuple[str, _Content]]:
    turn, place = divmod(number, len(_DEVICES))
    context = list(_CONTEXTS)[turn % len(_CONTEXTS)]
    there = _Content("Support Devices", "positive", device=_DEVICES[place], context=context)
    return [("present", there), ("unmentioned", _Content("Support Devices", context=context))]


def _view(number: int) -> list[tuple[str, _Content]]:
    turn, place = divmod(number, len(_DISEASE))
    content = _affirmed(list(_DISEASE)[place], turn + 1)
    return [(view, replace(content, view=view)) for view in ("portable", "upright")]


def _wording(number: int) -> list[tuple[str, _Content]]:
    turn, place = divmod(number, len(_DISEASE))
    content = _affirmed(list(_DISEASE)[place], turn)
    return [(f"wording{k}", replace(content, wording=k)) for k in (0, 1)]


_MAKERS: Final = {
    "presence": _presence,
    "side": _side,
    "severity": _severity,
    "zone": _zone,
    "device": _device,
    "view": _view,
    "wording": _wording,
}


def write_stress(stress: pd.DataFrame, path: str | Path) -> None:
    """Write a stress set with its attributes, whole or not at all."""
    table = pa.Table.from_pandas(stress, schema=STRESS_SCHEMA, preserve_index=False)
    with whole_file(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")


def read_stress(path: str | Path) -> pd.DataFrame:
    """Read a stress set with its attributes.

    Raises:
        InputError: the file is missing or damaged, or has the columns of another version.
    """
    remedy = "delete it and rerun the rule cohort_stress"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise unreadable("cannot read the stress set", error, path, remedy) from None
    if not table.schema.equals(STRESS_SCHEMA):
        raise InputError("not a stress set of this version", path, remedy)
    return table.to_pandas()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, help="largest number of groups; all by default")
    parser.add_argument("--attributes", required=True, help="Parquet file of prompts, attributes")
    parser.add_argument("--out", required=True, help="Parquet file of the prompt set")
    parser.add_argument("--csv", required=True, help="CSV export, for external models")
    args = parser.parse_args(argv)
    stress = stress_set(args.groups)
    prompts = stress_prompts(stress)
    write_stress(stress, args.attributes)
    write_prompts(prompts, args.out)
    write_prompt_csv(prompts, args.csv)


if __name__ == "__main__":
    run_script(main)
