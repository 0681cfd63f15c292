"""What of a data source decides the cohort without labels, which fine-tuning and sampling follow.

The unlabelled manifest is made of images and captions alone, from the same tables and by the same
script as the whole one. What it is made anew for are these digests: of whole tables of MIMIC-CXR's,
of those columns of a folder's table that are read. So a relabelled finding trains nothing anew.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from workflow_scripts.cohort.checked_csv import find_csv, read_csv
from workflow_scripts.common.contents import Contents, digest_of
from workflow_scripts.common.errors import InputError

UNLABELLED: Final = (
    "image_id", "path", "patient_id", "study_id", "view", "site", "split", "caption", "report",
)  # fmt: skip
"""Fields of a folder's table that the unlabelled manifest holds."""


def cohort_reads(
    cohort: Mapping[str, Any], caption_source: str | None, contents: Contents
) -> list[str]:
    """Return `name digest` of all that decides the unlabelled manifest beside its flags.

    Where tables are gone or refused, that is what they last held; preflight says so before a job
    needs them.

    Args:
        cohort: the block `cohort` of the config.
        caption_source: of the manifest, as `caption_source_of` returns it.
        contents: where digests are kept.
    """
    read = _of_mimic if cohort["source"] == "mimic_cxr_jpg" else _of_folder
    settings = cohort[cohort["source"]]

    def tell() -> list[str]:
        try:
            return read(settings, caption_source, contents)
        except InputError as error:
            raise OSError(str(error)) from None

    where = f"{settings['root']}, {settings.get('annotations', settings.get('metadata'))}"
    return contents.last(f"images and captions ({caption_source}) of {where}", tell)


def _of_mimic(
    settings: Mapping[str, Any], caption_source: str | None, contents: Contents
) -> list[str]:
    tables = [
        find_csv(settings["root"], f"mimic-cxr-2.0.0-{name}", "") for name in ("metadata", "split")
    ]
    folder = Path(settings["annotations"])
    annotations = sorted([*folder.glob("*.json"), *folder.glob("*.csv*")])
    if not annotations:
        raise FileNotFoundError(folder)
    return contents.digests([*tables, *annotations])


def _of_folder(
    settings: Mapping[str, Any], caption_source: str | None, contents: Contents
) -> list[str]:
    columns = {**settings["columns"], **({"caption": caption_source} if caption_source else {})}
    excluded = settings.get("exclude_nonempty") or []
    wanted = {field: columns[field] for field in UNLABELLED if field in columns}
    wanted |= {name: name for name in ([excluded] if isinstance(excluded, str) else excluded)}

    def digest(name: str) -> str:
        def of_column(path: Path) -> str:
            return digest_of(read_csv(path, [name])[name].tolist())

        return contents.derived(settings["metadata"], f"column {name}", of_column)

    return [f"{field} {digest(name)}" for field, name in wanted.items()]
