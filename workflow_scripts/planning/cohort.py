"""The cohort's command line and sources, from its block of the config, without Snakemake."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workflow_scripts.cohort.parts import LABELLED, PARTS
from workflow_scripts.cohort.similar import ALIKE
from workflow_scripts.common.config import caption_source_of
from workflow_scripts.planning.flags import quoted, words

Config = Mapping[str, Any]


def folder_and_part(captions: str) -> tuple[str, str]:
    """Return the folder of captions and the part of the manifest that a cohort folder stands for.

    For `captions_impression/training/` these are `captions_impression/` and `training`; for the
    whole manifest the part is "".
    """
    path = Path(captions)
    part = path.name if path.name in PARTS else ""
    return (captions.removesuffix(f"{part}/") if part else captions), part


def cohort_flags(config: dict[str, Any], captions: str) -> list[str]:
    """Return the flags of the cohort's job: how to read its source, and what to check.

    Args:
        config: the whole config.
        captions: the folder below results/cohort that the job writes.
    """
    folder, part = folder_and_part(captions)
    line = cohort_words(config, folder, part)
    if part:
        line += ["--part", part, "--no-check-files"]  # the whole manifest's job checks
    else:
        settings = config["cohort"].get("identical_images", {})
        line += words({"alike": ALIKE, **settings})
    return quoted(line)


def cohort_words(config: dict[str, Any], folder: str, part: str = "") -> list[str]:
    """Return the flags of the source's block; for a part, only those that the part needs."""
    cohort = config["cohort"]
    caption_source = caption_source_in(config, folder)
    settings = cohort[cohort["source"]]
    line = [cohort["source"], "--root", settings["root"]]
    for name, label in cohort["views"].items():
        line += ["--view", f"{name}={name if part else label}"]
    if cohort["source"] == "mimic_cxr_jpg":
        line += ["--annotations", settings["annotations"]]
        line += ["--caption-source", caption_source]
    else:
        line += ["--metadata", settings["metadata"]]
        caption = {"caption": caption_source} if caption_source else {}
        for column, name in (settings["columns"] | caption).items():
            line += ["--column", f"{column}={name}"]
        if not part or part in LABELLED:
            line += _finding_words(settings["findings"])
        for name in ("test_share", "validate_share", "split_seed", "exclude_nonempty"):
            if name in settings:
                line += words({name: settings[name]})
    held_out = config["privacy"]["membership"].get("held_out_patients", 0)
    if held_out:  # without such columns the command is unchanged
        line += ["--held-out-patients", held_out]
    return [str(word) for word in line]


def caption_source_in(config: dict[str, Any], folder: str) -> str | None:
    """Return the source of the captions in a folder below results/cohort."""
    return Path(folder).name.removeprefix("captions_") or caption_source_of(config)


def _finding_words(findings: Mapping[str, Any]) -> list[Any]:
    """Return the flags that name the column of findings and how its values are read."""
    line = ["--finding-column", findings["column"]]
    if "separator" in findings:
        line += ["--finding-separator", findings["separator"]]
    for label, finding in findings["values"].items():
        line += ["--finding", f"{finding}={label}"]
    if findings.get("absent") is not None:
        line += ["--finding-absent", findings["absent"]]
    return line


def cohort_tables(config: Config) -> list[str]:
    """Return the source's tables that exist; preflight reports missing ones."""
    cohort = config["cohort"]
    settings = cohort[cohort["source"]]
    if cohort["source"] == "image_folder":
        paths = [Path(settings["metadata"])]
    else:
        paths = sorted(Path(settings["root"]).glob("mimic-cxr-2.0.0-*.csv*"))
        paths += sorted(Path(settings["annotations"]).glob("*.json"))
        paths += sorted(Path(settings["annotations"]).glob("*.csv"))
    return [str(path) for path in paths if path.is_file()]
