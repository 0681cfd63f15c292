"""What of a data source decides what costly jobs read of the cohort, before the cohort is made.

Fine-tuning reads images and captions, no labels; sampling reads captions. They depend on these
digests, not on the manifest's time: a relabelled finding makes another manifest and trains nothing
anew. A digest is of a whole table of MIMIC-CXR's, or of the columns of a folder's table that count.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from workflow_scripts.cohort.checked_csv import find_csv, read_csv
from workflow_scripts.common.contents import Contents, digest_of
from workflow_scripts.common.errors import InputError

ASPECTS: Final = ("images", "captions", "sites", "findings")
"""What jobs read: which images there are, of whom and in which split; texts; sites; labels."""

_FIELDS: Final = {
    "images": ("image_id", "path", "patient_id", "study_id", "view", "split"),
    "captions": ("caption", "report"),
    "sites": ("site",),
}
_DRAW: Final = ("test_share", "validate_share", "split_seed")


def cohort_reads(
    cohort: Mapping[str, Any],
    caption_source: str | None,
    aspects: Collection[str],
    contents: Contents,
) -> list[str]:
    """Return what decides some aspects of the cohort: settings and digests of tables.

    The data set's name, folders and what views are called are no part of it.

    Args:
        cohort: the block `cohort` of the config.
        caption_source: of the model, as `caption_source_of` returns it.
        aspects: among `ASPECTS`.
        contents: where digests are kept.
    """
    read = _of_mimic if cohort["source"] == "mimic_cxr_jpg" else _of_folder
    settings, wanted = cohort[cohort["source"]], sorted(aspects)

    def tell() -> list[str]:
        try:
            views = f"views {sorted(cohort['views'])}"
            return [views, *read(settings, caption_source, wanted, contents)]
        except InputError as error:  # preflight says what is wrong, before a job needs it
            raise OSError(str(error)) from None

    subject = f"{cohort['source']}: {', '.join(wanted)} of {caption_source}"
    return contents.last(f"{subject} in {_where(settings)}", tell)


def _where(settings: Mapping[str, Any]) -> str:
    return f"{settings['root']}, {settings.get('annotations', settings.get('metadata'))}"


def _of_mimic(
    settings: Mapping[str, Any],
    caption_source: str | None,
    aspects: Collection[str],
    contents: Contents,
) -> list[str]:
    tables = ["metadata", "split"] if "images" in aspects else []
    tables += ["chexpert"] if "findings" in aspects else []
    files = [find_csv(settings["root"], f"mimic-cxr-2.0.0-{name}", "") for name in tables]
    told = []
    if "captions" in aspects:
        told = [f"captions {caption_source}"]
        folder = Path(settings["annotations"])
        annotations = sorted([*folder.glob("*.json"), *folder.glob("*.csv*")])
        if not annotations:
            raise FileNotFoundError(folder)
        files += annotations
    return told + contents.digests(files)


def _of_folder(
    settings: Mapping[str, Any],
    caption_source: str | None,
    aspects: Collection[str],
    contents: Contents,
) -> list[str]:
    columns = {**settings["columns"], **({"caption": caption_source} if caption_source else {})}
    wanted = {
        name: columns[name]
        for aspect in aspects
        for name in _FIELDS.get(aspect, ())
        if name in columns
    }
    told = []
    if "images" in aspects:
        told += [f"{name} {settings[name]}" for name in _DRAW if name in settings]
        excluded = settings.get("exclude_nonempty") or []
        excluded = [excluded] if isinstance(excluded, str) else excluded
        wanted |= {f"not {name}": name for name in excluded}
    if "findings" in aspects:
        told.append(f"findings {sorted(settings['findings'].items(), key=str)}")
        wanted["findings"] = settings["findings"]["column"]

    def digest(name: str) -> str:
        def of_column(path: Path) -> str:
            return digest_of(read_csv(path, [name])[name].tolist())

        return contents.derived(settings["metadata"], f"column {name}", of_column)

    return told + [f"{field} {digest(name)}" for field, name in sorted(wanted.items())]
