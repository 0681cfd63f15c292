"""Captions from LLaVA-Rad's annotations of MIMIC-CXR, as JSON or as the official release's CSV.

LLaVA-Rad (PhysioNet, llava-rad-mimic-cxr-annotation 1.0.0) ships JSON arrays whose entries have
`image`, `generate_method` (`gpt4` or `rule-based`), `impression`, `reason` (the indication in
LLaVA-Rad's question; there is also a field `indication`, which is empty) and `conversations`, whose
second turn is the findings section of the report. The benchmark's official release has the same
entries as `LLAVARAD_ANNOTATIONS_{TRAIN,TEST}.csv`, with that turn in `annotated_prompt`.

An image can be annotated by both methods. The manifest has one row per image. Its caption is
GPT-4's text, because all training captions in the official release are GPT-4's, and the same style
in training and test keeps style out of the comparison. If there is no text by GPT-4, the rule-based
one is the caption. The rule-based text is also kept in a column of its own, `report`: it is what
the radiologist wrote, while GPT-4 drops comparisons with earlier studies.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd

from workflow_scripts.cohort.attrition import Attrition, tally
from workflow_scripts.cohort.checked_csv import (
    check_no_stand_in,
    find_csv,
    found_nearby,
    read_csv,
    row_of,
)
from workflow_scripts.cohort.texts import is_missing
from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError

log = logging.getLogger(__name__)

CAPTION_SOURCES: Final = ("llava_rad", "impression")

_JSON_NAME: Final = "chat_{part}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
_JSON_PARTS: Final = {"train": "train", "dev": "validate", "test": "test"}
_CSV_PARTS: Final = {"TRAIN": "train", "TEST": "test"}
GPT4: Final = "llava_rad:gpt4"
RULE_BASED: Final = "llava_rad:rule-based"
"""The names of caption sources in the manifest."""

_METHOD_RANK: Final = {"gpt4": 0, "rule-based": 1}
_CHUNK: Final = 1 << 23  # characters read at a time
_LARGEST_ENTRY: Final = 1 << 26
_REMEDY: Final = "download it again from PhysioNet (docs/how-to/mimic-and-weights.md)"

_Row = tuple[str, str | None, str | None, str | None, str, str]


def read_annotations(folder: str | Path, caption_source: str) -> pd.DataFrame:
    """Read all annotations of a folder: the JSON files, or the CSV files if there is no JSON.

    Args:
        folder: holds `chat_{train,dev,test}_*.json` (`dev` may be absent: its captions are never
            prompts) or `LLAVARAD_ANNOTATIONS_{TRAIN,TEST}.csv`.
        caption_source: `llava_rad`, the findings section as LLaVA-Rad extracted it, or
            `impression`.

    Returns:
        The columns `image_id` (the DICOM id, from the image's file name), `caption` (without
        surrounding blanks), `findings` (the findings section, whatever the caption is),
        `indication` (on one line), `method` and `file_split` (the split of the entry's file).
        Missing and empty texts are None.

    Raises:
        InputError: a file is missing, truncated, not a JSON array, or has malformed entries.
    """
    if caption_source not in CAPTION_SOURCES:
        raise InputError(
            f"unknown caption source {caption_source!r}",
            "cohort.caption_source",
            f"use one of {', '.join(CAPTION_SOURCES)}",
        )
    folder = Path(folder)
    files = {part: folder / _JSON_NAME.format(part=part) for part in _JSON_PARTS}
    try:
        exists = folder.is_dir()
        some = any(path.is_file() for path in files.values())
    except OSError as error:
        what, remedy = "cannot look into the folder of annotations", "correct the config's path"
        raise unreadable(what, error, folder, remedy) from None
    if not exists:
        raise InputError("the folder of annotations is missing", folder, "check the config's path")
    if not some:
        check_some_there(folder)
        return _read_csvs(folder, caption_source)
    rows: list[_Row] = []
    for part, split in _JSON_PARTS.items():
        if not files[part].is_file():
            if part == "dev":
                log.warning("%s is not there: no captions for validation images", files[part])
                continue
            raise InputError("an annotation file is missing", files[part], _REMEDY)
        before = len(rows)
        for number, entry in enumerate(json_array(files[part]), start=1):
            rows.append((*_fields_of(entry, caption_source, files[part], number), split))
        log.info("%s: %d annotations", files[part].name, len(rows) - before)
    return _as_frame(rows)


def check_some_there(folder: Path) -> None:
    """Refuse a folder that has neither the JSON files nor the CSV files.

    Raises:
        InputError: it has none of them; the message names a file nearby.
    """
    if not any(folder.glob("LLAVARAD_ANNOTATIONS_*.csv*")):
        found = found_nearby(folder, "chat_*.json") or found_nearby(folder, "LLAVARAD_*.csv*")
        packed = sorted(folder.glob("chat_*.json.gz"))
        raise InputError(
            f"neither {_JSON_NAME.format(part='{train,dev,test}')} nor "
            f"LLAVARAD_ANNOTATIONS_TRAIN.csv and _TEST.csv{found}",
            folder,
            f"unpack {packed[0].name} and the others"
            if packed
            else "put them there, or correct cohort.mimic_cxr_jpg.annotations",
        )


def join_captions(
    images: pd.DataFrame,
    known: pd.Series,
    annotations: pd.DataFrame,
    caption_source: str,
    attrition: Attrition,
) -> pd.DataFrame:
    """Return `caption`, `caption_source`, `indication` and `report` of each image, null if missing.

    The first three come from one annotation, so an image without a caption has no indication. The
    report is the findings section that the rule-based method cut out of the radiologist's text.

    Args:
        images: the cohort's images: `image_id` and `split`. The split is that of the split table,
            whatever annotation file a caption comes from.
        known: the image ids of the whole source, including those outside the cohort.
        annotations: see `read_annotations`.
        caption_source: see `read_annotations`; the manifest names the source `impression`, or
            `llava_rad:gpt4` and `llava_rad:rule-based`.
        attrition: gets the count of each kind of unused annotation.
    """
    attrition.add("annotations_read", "annotations", 0, len(annotations), "rows of all files")
    other = annotations.loc[~annotations["method"].isin(list(_METHOD_RANK)), "method"]
    if len(other):
        attrition.warn(
            "unknown_method",
            "annotations",
            len(other),
            f"annotations by another method than {' and '.join(_METHOD_RANK)}: {tally(other)}; "
            "they are used where an image has none of these",
        )
    reports = _reports(annotations[annotations["image_id"].isin(images["image_id"])], attrition)
    captions = _one_per_image(annotations, known, images["image_id"], attrition)
    joined = images[["image_id", "split"]].merge(
        captions, on="image_id", how="left", validate="1:1"
    )
    _count_other_splits(joined, len(captions), attrition)
    named = "impression" if caption_source == "impression" else "llava_rad:{}"
    joined["caption_source"] = joined["method"].map(named.format, na_action="ignore")
    joined["report"] = joined["image_id"].map(reports)
    joined.index = images.index
    joined = joined[["caption", "caption_source", "indication", "report"]].astype(object)
    return joined.where(joined.notna(), None)


def _one_per_image(
    annotations: pd.DataFrame, known: pd.Series, images: pd.Series, attrition: Attrition
) -> pd.DataFrame:
    """Return the annotation that captions each image: the first one by the preferred method."""

    def drop(wrong: pd.Series, step: str, reason: str) -> pd.DataFrame:
        attrition.add(step, "annotations", int(wrong.sum()), int((~wrong).sum()), reason)
        return annotations[~wrong]

    annotations = drop(
        annotations["caption"].isna(), "caption_is_text", "caption missing, empty or no string"
    )
    annotations = drop(
        ~annotations["image_id"].isin(known), "image_known", "image not in the metadata"
    )
    annotations = drop(~annotations["image_id"].isin(images), "image_in_cohort", "no frontal image")
    rank = annotations["method"].map(_METHOD_RANK).fillna(len(_METHOD_RANK))
    best = rank.groupby(annotations["image_id"]).transform("min")
    annotations = drop(
        rank > best, "preferred_method", "the image has a caption of a preferred method (gpt4)"
    )
    repeated = annotations["image_id"].duplicated()
    other_text = repeated & ~annotations.duplicated(["image_id", "caption"])
    return drop(
        repeated,
        "one_per_image",
        f"a second annotation by the same method ({int(other_text.sum())} of another wording); "
        "the first is kept",
    )


def _count_other_splits(joined: pd.DataFrame, annotations: int, attrition: Attrition) -> None:
    """Count the captions from the annotation file of another split than the image's."""
    elsewhere = joined["caption"].notna() & (joined["file_split"] != joined["split"])
    attrition.add(
        "split_agrees",
        "annotations",
        0,
        annotations,
        f"{int(elsewhere.sum())} stand in the annotation file of another split; the split table "
        "decides, the caption is kept",
    )
    if elsewhere.any():
        log.warning(
            "%d annotations stand in the file of another split than their image's, first %s",
            elsewhere.sum(),
            joined.loc[elsewhere, "image_id"].iloc[0],
        )


def _reports(annotations: pd.DataFrame, attrition: Attrition) -> pd.Series:
    """Return the radiologist's own report of each image that has one, by image id."""
    rule_based = annotations[
        (annotations["method"] == "rule-based") & annotations["findings"].notna()
    ]
    rule_based = rule_based.drop_duplicates("image_id")
    attrition.add(
        "report_known",
        "annotations",
        0,
        len(rule_based),
        "images with the radiologist's own findings section (rule-based)",
    )
    return rule_based.set_index("image_id")["findings"]


def json_array(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON array one by one, without loading the whole file.

    Raises:
        InputError: the file is truncated, not valid JSON or not an array of objects.
    """
    path = Path(path)
    check_no_stand_in(path)
    decoder = json.JSONDecoder()
    count = 0

    def fault(what: str) -> InputError:
        return InputError(what, f"{path}, entry {count + 1}", _REMEDY)

    try:
        with path.open(encoding="utf-8-sig") as stream:
            buffer = ""
            while not buffer and (chunk := stream.read(_CHUNK)):
                buffer = chunk.lstrip()
            if not buffer.startswith("["):
                start = {"{": "an object", "": "an empty file"}.get(buffer[:1], "something else")
                raise InputError(f"a JSON array was expected, not {start}", path, _REMEDY)
            position, separated = 1, True
            while True:
                position = _skip_space(buffer, position)
                if position == len(buffer):
                    buffer, position = stream.read(_CHUNK), 0
                    if not buffer:
                        raise fault("the JSON array is cut short")
                    continue
                character = buffer[position]
                if character == "]" and (not separated or count == 0):
                    if (buffer[position + 1 :] + stream.read(_CHUNK)).strip():
                        raise fault("something follows the end of the JSON array")
                    return
                if character == "," and not separated:
                    position, separated = position + 1, True
                    continue
                if not separated or character != "{":
                    raise fault(f"an object was expected, not {buffer[position : position + 20]!r}")
                while True:
                    try:
                        entry, position = decoder.raw_decode(buffer, position)
                        break
                    except json.JSONDecodeError as error:  # damaged, or not yet read completely
                        more = stream.read(_CHUNK)
                        if not more:
                            raise fault(f"cut short or damaged JSON: {error.msg}") from None
                        if len(buffer) - position > _LARGEST_ENTRY:
                            raise fault(f"damaged JSON: {error.msg}") from None
                        buffer, position = buffer[position:] + more, 0
                yield entry
                count, separated = count + 1, False
    except UnicodeDecodeError as error:
        raise fault(f"not UTF-8 text: {error.reason}") from None


def _skip_space(buffer: str, position: int) -> int:
    while position < len(buffer) and buffer[position] in " \t\r\n":
        position += 1
    return position


def _fields_of(
    entry: dict[str, Any], caption_source: str, path: Path, number: int
) -> tuple[str, str | None, str | None, str | None, str]:
    image, turns = entry.get("image"), entry.get("conversations")
    if not isinstance(image, str) or not isinstance(turns, list):
        raise InputError(
            "an annotation needs `image` (a path) and `conversations` (a list)",
            f"{path}, entry {number}",
            _REMEDY,
        )
    answer = turns[1] if len(turns) > 1 else None
    if isinstance(answer, dict) and answer.get("from") == "human":
        raise InputError(
            "the second turn of `conversations` is the human's: the report would be the question",
            f"{path}, entry {number}",
            _REMEDY,
        )
    findings = _text(answer.get("value")) if isinstance(answer, dict) else None
    caption = findings if caption_source == "llava_rad" else _text(entry.get("impression"))
    method = _method(entry.get("generate_method"))
    return _stem(image), caption, findings, _line(entry.get("reason")), method


def _read_csvs(folder: Path, caption_source: str) -> pd.DataFrame:
    column = "annotated_prompt" if caption_source == "llava_rad" else "impression"
    rows: list[_Row] = []
    for part, split in _CSV_PARTS.items():
        path = find_csv(
            folder,
            f"LLAVARAD_ANNOTATIONS_{part}",
            f"put {_JSON_NAME.format(part='{train,dev,test}')} or "
            "LLAVARAD_ANNOTATIONS_{TRAIN,TEST}.csv there",
        )
        optional = ["generate_method", "reason", "annotated_prompt"]
        frame = read_csv(path, ["path", column], [name for name in optional if name != column])
        empty = frame["path"].str.strip() == ""
        if empty.any():
            raise InputError("path is empty", row_of(path, int(empty.argmax())), _REMEDY)
        nothing = pd.Series("", index=frame.index)
        methods, reasons = frame.get("generate_method", nothing), frame.get("reason", nothing)
        findings = frame.get("annotated_prompt", nothing)
        if "reason" not in frame:
            log.warning("%s has no column `reason`: no indications", path)
        log.info("%s: %d annotations; methods: %s", path.name, len(frame), tally(methods))
        rows += [
            (_stem(image), _text(caption), _text(section), _line(reason), _method(method), split)
            for image, caption, section, reason, method in zip(
                frame["path"], frame[column], findings, reasons, methods, strict=True
            )
        ]
    return _as_frame(rows)


def _as_frame(rows: list[_Row]) -> pd.DataFrame:
    columns = ["image_id", "caption", "findings", "indication", "method", "file_split"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _stem(image: str) -> str:
    """Return the DICOM id from a path, whose folders (`mimic/`, `files/`) vary between releases."""
    return image.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _text(caption: object) -> str | None:
    if not isinstance(caption, str) or is_missing(caption):
        return None
    return caption.strip()


def _line(reason: object) -> str | None:
    text = _text(reason)
    return None if text is None else " ".join(text.split())


def _method(method: object) -> str:
    return method if isinstance(method, str) and method else "unstated"
