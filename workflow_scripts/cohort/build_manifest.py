"""Write the manifest of a cohort, one row per frontal radiograph, and its attrition table.

python -m workflow_scripts.cohort.build_manifest mimic_cxr_jpg --root data/mimic-cxr-jpg/2.0.0
    --annotations data/llava-rad --caption-source llava_rad --view AP=AP --view PA=PA
    --manifest manifest.parquet --attrition attrition.csv

python -m workflow_scripts.cohort.build_manifest image_folder --root images
    --metadata images/metadata.csv --column path=image --column patient_id=patient
    --column view=view --column caption=text --view AP=AP
    --finding-column labels --finding-separator '|' --finding 'Pleural Effusion=Effusion'
    --test-share 0.2 --manifest manifest.parquet --attrition attrition.csv
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.cohort.annotations import CAPTION_SOURCES
from workflow_scripts.cohort.attrition import Attrition
from workflow_scripts.cohort.draw_prompts import draw_test
from workflow_scripts.cohort.identical import COMPARED, REFUSE_ABOVE, check_identical
from workflow_scripts.cohort.image_folder import (
    FIELDS,
    FindingColumn,
    FolderColumns,
    SplitDraw,
    image_folder,
)
from workflow_scripts.cohort.look import look_at_films
from workflow_scripts.cohort.mimic_cxr_jpg import mimic_cxr_jpg
from workflow_scripts.cohort.parts import PARTS, part_of
from workflow_scripts.cohort.shares import warn_of_shares
from workflow_scripts.cohort.similar import check_similar
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import FINDINGS, write_manifest

HELD_OUT_SEED: Final = 42
"""Seed of the draw of patients who are held out of training."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = parse(argv)
    attrition = Attrition()
    manifest = read_source(args, attrition)
    warn_of_shares(manifest, *mapped(args), attrition)
    if args.check_files:
        every = args.alike is not None
        films = look_at_films(manifest, attrition, args.root, args.threads, every)
        compare = args.compare or ("files" if args.source == "mimic_cxr_jpg" else "pixels")
        check_identical(manifest, compare, args.refuse_above, attrition, args.identical)
        if films is not None:
            above = args.refuse_above
            check_similar(manifest, films, args.alike, above, attrition, args.similar)
    count_test_set(manifest, attrition)
    attrition.warn_of_published()
    write_manifest(part_of(manifest, args.part) if args.part else manifest, args.manifest)
    attrition.write(args.attrition)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    return _parser().parse_args(argv)


def read_source(args: argparse.Namespace, attrition: Attrition) -> pd.DataFrame:
    """Return the manifest of the command line's source, see `mimic_cxr_jpg` and `image_folder`.

    Raises:
        InputError: a flag or the source is invalid.
    """
    return held_out(_read(args, attrition), args.held_out_patients)


def held_out(manifest: pd.DataFrame, patients: int) -> pd.DataFrame:
    """Move random patients from the train split to the validation split.

    No model is trained on them. So a membership attack has non-members from the same population as
    its members. The draw does not depend on the captions.

    Args:
        manifest: the cohort's manifest.
        patients: number of patients to move.

    Raises:
        InputError: more than half of the training patients would be moved.
    """
    if not patients:
        return manifest
    train = manifest["split"] == "train"
    names = np.unique(manifest.loc[train, "patient_id"].to_numpy(str))
    if patients * 2 > len(names):
        raise InputError(
            f"{patients} of {len(names)} training patients are to be held out",
            "privacy.membership.held_out_patients",
            "leave at least half of them to train on",
        )
    chosen = np.random.default_rng(HELD_OUT_SEED).choice(names, patients, replace=False)
    moved = train & manifest["patient_id"].isin(chosen)
    return manifest.assign(split=manifest["split"].mask(moved, "validate"))


def _read(args: argparse.Namespace, attrition: Attrition) -> pd.DataFrame:
    views = _pairs(args.view, "--view")
    if args.source == "mimic_cxr_jpg":
        return mimic_cxr_jpg(
            args.root, args.annotations, args.caption_source, views, attrition, args.check_files
        )
    return image_folder(
        args.root,
        args.metadata,
        _columns(args),
        views,
        _split_draw(args),
        attrition,
        args.check_files,
    )


def count_test_set(manifest: pd.DataFrame, attrition: Attrition) -> None:
    """Append the sizes of the test split, and the number of prompts that each protocol scores."""
    test = manifest[manifest["split"] == "test"]
    studies, reports = test["study_id"].nunique(), int(test["report"].notna().sum())
    attrition.add("test_frontal", "images", 0, len(test), f"of {studies} studies")
    attrition.add("test_studies", "studies", 0, studies, "with a frontal image in the test split")
    attrition.add(
        "test_reports",
        "captions",
        0,
        reports,
        "test images with a radiologist's own words: what generated reports are compared with",
    )
    if not test["caption"].notna().any():
        return  # drawing the prompts will say so
    prompts = draw_test(manifest)
    second = int(prompts["second_wording"].sum())
    attrition.add(
        "test_prompts",
        "captions",
        0,
        len(prompts),
        f"{len(prompts) - second} unique captions and {second} second wordings of their reports; "
        "as_published scores all of them, sound the captions alone",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sources = parser.add_subparsers(dest="source", required=True)
    mimic = sources.add_parser("mimic_cxr_jpg", help="MIMIC-CXR-JPG's layout")
    _add_shared_flags(mimic)
    _add_mimic_flags(mimic)
    folder = sources.add_parser("image_folder", help="images with a CSV")
    _add_shared_flags(folder)
    _add_folder_flags(folder)
    return parser


def _add_shared_flags(parser: argparse.ArgumentParser) -> None:
    add: Any = parser.add_argument
    add("--root", required=True, help="folder of the images")
    add("--manifest", required=True, help="Parquet file to write")
    add("--attrition", required=True, help="CSV file to write")
    add(
        "--check-files",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="check that every image file is there, and look for copies (default)",
    )
    add("--part", choices=PARTS, help="write a part alone, see parts.py")
    add("--identical", help="CSV file to write: duplicate images")
    add(
        "--compare",
        choices=COMPARED,
        help="what duplicates share (default: files for MIMIC-CXR-JPG, whose images one program "
        "wrote, pixels for other sources)",
    )
    add("--similar", help="CSV file to write: near-duplicates in two splits")
    add(
        "--alike",
        type=float,
        help="likeness from which two images of different splits count as near-duplicates; every "
        "film is then decoded. Without it only 500 random films are decoded, as a check",
    )
    add(
        "--held-out-patients",
        type=int,
        default=0,
        help="number of random training patients to move to the validation split",
    )
    add("--threads", type=int, default=2, help="films decoded at the same time")
    add(
        "--refuse-above",
        type=float,
        default=REFUSE_ABOVE,
        help="share of test images that may also be in another split (default: %(default)s)",
    )


def _add_mimic_flags(parser: argparse.ArgumentParser) -> None:
    add: Any = parser.add_argument
    add("--annotations", required=True, help="folder of LLaVA-Rad's annotations")
    add("--caption-source", required=True, choices=CAPTION_SOURCES)
    add("--view", required=True, action="append", metavar="VIEWPOSITION=NAME", help="repeatable")


def _add_folder_flags(parser: argparse.ArgumentParser) -> None:
    add: Any = parser.add_argument
    many: dict[str, Any] = {"action": "append", "default": []}
    add("--metadata", required=True, help="CSV file, one row per image")
    add(
        "--column",
        **many,
        metavar="FIELD=COLUMN",
        help=f"repeatable; a field is a finding or one of {', '.join(FIELDS)}",
    )
    add("--view", **many, metavar="VALUE=NAME", help="repeatable; none keeps every image")
    add("--finding-column", help="one column that names all findings of an image")
    add("--finding-separator", help="between the values of --finding-column")
    add("--finding", **many, metavar="FINDING=VALUE", help="repeatable, also per finding")
    add(
        "--finding-absent",
        choices=("null", "0"),
        default="null",
        help="label of findings that a cell does not list (default: null, not mentioned)",
    )
    add("--test-share", type=float, help="draw the split by patient")
    add("--validate-share", type=float, default=0.0)
    add("--split-seed", type=int, default=42)
    add(
        "--exclude-nonempty",
        **many,
        metavar="COLUMN",
        help="repeatable; drop images with a value in it",
    )


def _pairs(items: Iterable[str], flag: str) -> dict[str, str]:
    """Parse `KEY=VALUE` items, split at the first equals sign."""
    pairs: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise InputError(f"{item!r} is no KEY=VALUE", flag, f"write {flag} KEY=VALUE")
        if key in pairs:
            raise InputError(f"{key!r} is given twice", flag, "give it once")
        pairs[key] = value
    return pairs


def _columns(args: argparse.Namespace) -> FolderColumns:
    pairs = _pairs(args.column, "--column")
    for key in pairs:
        if key not in FIELDS and key not in FINDINGS:
            raise InputError(
                f"unknown field {key!r}", "--column", f"one of {', '.join((*FIELDS, *FINDINGS))}"
            )
    finding_column = None
    if args.finding_column is not None:
        finding_column = FindingColumn(
            args.finding_column,
            _finding_values(args.finding),
            args.finding_separator,
            0 if args.finding_absent == "0" else None,
        )
    elif args.finding or args.finding_separator or args.finding_absent == "0":
        raise InputError(
            "findings are mapped, but no column holds them",
            "--finding, --finding-separator, --finding-absent",
            "give --finding-column",
        )
    return FolderColumns(
        fields={key: value for key, value in pairs.items() if key in FIELDS},
        findings={key: value for key, value in pairs.items() if key in FINDINGS},
        finding_column=finding_column,
        exclude_nonempty=args.exclude_nonempty,
    )


def mapped(args: argparse.Namespace) -> tuple[list[str], list[str] | None]:
    """Return the texts and findings that the source maps, see `warn_of_shares`."""
    if args.source == "mimic_cxr_jpg":
        return ["caption"], None
    columns = _columns(args)
    findings = set(columns.findings)
    if columns.finding_column is not None:
        findings |= set(columns.finding_column.values.values())
    texts = [name for name in ("caption", "indication", "report") if name in columns.fields]
    return texts, sorted(findings)


def _finding_values(items: Iterable[str]) -> dict[str, str]:
    """Parse `FINDING=VALUE` items to a mapping from values to findings."""
    values: dict[str, str] = {}
    for item in items:
        finding, _, value = item.partition("=")
        if finding not in FINDINGS or not value:
            raise InputError(
                f"{item!r} is no FINDING=VALUE", "--finding", f"findings: {', '.join(FINDINGS)}"
            )
        if value in values:
            raise InputError(f"{value!r} is mapped twice", "--finding", "map each value once")
        values[value] = finding
    if not values:
        raise InputError("no value of the column is mapped", "--finding-column", "give --finding")
    return values


def _split_draw(args: argparse.Namespace) -> SplitDraw | None:
    if args.test_share is None:
        if args.validate_share:
            raise InputError("a validation share without a test share", "--validate-share", None)
        return None
    return SplitDraw(args.test_share, args.validate_share, args.split_seed)


if __name__ == "__main__":
    run_script(main)
