"""Read the radiographs of the cohort, and report those whose content changed since the first read.

    python -m workflow_scripts.cohort.refresh

The workflow's plan does not check MIMIC-CXR's hundreds of thousands of radiographs. To detect
radiographs that were replaced under the same name, run this by hand (`make refresh`): once when the
cohort is made, and again after files were replaced. It reads only files whose size or time has
changed. For each split it writes a digest of the images whose content differs from the first read.
These digests are parameters of the jobs that read radiographs of the split. Equal contents rerun
nothing, whatever the files' times and folders. The same holds for restored original contents.
"""

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import pandas as pd
import pyarrow as pa

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.contents import READERS, digest_of, stamp
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of, whole_file, write_text
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.progress import Progress

log = logging.getLogger(__name__)

T = TypeVar("T")

MANIFEST: Final = Path("results/cohort/manifest.parquet")
KNOWN: Final = Path("results/cohort/.radiographs.parquet")
CHANGED: Final = Path("results/cohort/radiographs.json")

_COLUMNS: Final = ["image_id", "path", "stamp", "first", "now"]
_KEPT_EVERY: Final = 20_000
"""Number of files after which the progress is saved; a stopped run continues from there."""


def refresh(
    manifest: Path, known: Path, changed: Path, readers: int = READERS
) -> dict[str, list[str]]:
    """Read files that may have changed; return the images of each split with changed content.

    Args:
        manifest: the cohort's manifest.
        known: table of the images' digests at the first read and now; it is created if it does not
            exist. Only its owner may read it.
        changed: JSON file to write: a digest of the changed images for each split that has any.
        readers: files read at a time.

    Raises:
        InputError: radiographs are missing, or `known` cannot be read; nothing is written then.
    """
    rows = read_manifest(manifest, ["image_id", "path", "split"])
    before = _read(known) if known.exists() else pd.DataFrame(columns=_COLUMNS)
    images = rows.assign(stamp=_stamps(rows["path"], readers)).merge(
        before, on="image_id", how="left", suffixes=("", "_before"), validate="1:1"
    )
    same = (images["path"] == images["path_before"]) & (images["stamp"] == images["stamp_before"])
    if new := int(images["first"].isna().sum()):
        log.info("%d radiographs are read for the first time", new)
        _warn_of_younger(images, manifest)
    todo = images.index[~same]
    progress = Progress("reading radiographs", len(todo), "files")
    others = before[~before["image_id"].isin(images["image_id"])]
    for start in range(0, len(todo), _KEPT_EVERY):
        part = todo[start : start + _KEPT_EVERY]
        digests = _each(sha256_of, images.loc[part, "path"], readers)
        for row, digest in zip(part, digests, strict=True):
            images.at[row, "now"] = digest
            progress.update()
        # The saved entries of files that are not yet read belong to their earlier versions.
        unread = todo[start + _KEPT_EVERY :]
        images["first"] = images["first"].where(images["first"].notna(), images["now"])
        entries = images.copy()
        for name in ("path", "stamp"):
            entries.loc[unread, name] = entries.loc[unread, f"{name}_before"]
        entries = entries.loc[entries["now"].notna(), _COLUMNS]
        _write(pd.concat([others, entries]) if len(others) else entries, known)
    different = images[images["now"] != images["first"]].sort_values("image_id")
    groups = {str(split): group for split, group in different.groupby("split")}
    digests_by_split = {
        split: digest_of((group["image_id"] + " " + group["now"]).tolist())
        for split, group in groups.items()
    }
    text = json.dumps(digests_by_split, indent=1, sort_keys=True) + "\n"
    if not changed.exists() or changed.read_text("utf-8") != text:
        write_text(changed, text)
    return {split: group["image_id"].tolist() for split, group in groups.items()}


def changed_radiographs(changed: Path, splits: tuple[str, ...]) -> list[str]:
    """Return `split digest` for each of the splits with replaced radiographs; see `refresh`.

    Raises:
        InputError: the file is damaged.
    """
    if not changed.exists():
        return []
    try:
        digests = dict(json.loads(changed.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise unreadable(
            "cannot read what was refreshed", error, changed, "run `make refresh`"
        ) from None
    return [f"{split} {digests[split]}" for split in splits if split in digests]


def _stamps(paths: pd.Series, readers: int) -> list[str]:
    """Return size and times of each file as text, because floats would round nanoseconds."""

    def text_of(path: str) -> str:
        try:
            return " ".join(map(str, stamp(path)))
        except OSError:
            return ""

    stamps = list(_each(text_of, paths, 4 * readers))
    missing = [path for path, text in zip(paths, stamps, strict=True) if not text]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(paths)} radiographs are missing, first {missing[0]}",
            "the manifest",
            "restore them, or correct the path in the config and make the cohort anew",
        )
    return stamps


def _each(do: Callable[[str], T], paths: pd.Series, readers: int) -> Iterator[T]:
    with ThreadPoolExecutor(readers) as pool:
        yield from pool.map(do, paths)


def _warn_of_younger(images: pd.DataFrame, manifest: Path) -> None:
    new = images.loc[images["first"].isna(), "stamp"]
    younger = new.str.split().str[1].astype("int64") > manifest.stat().st_mtime_ns
    if younger.any():
        log.warning(
            "%d of them are younger than the manifest. If they replaced other radiographs, results "
            "made with those are not recognised as outdated: delete these results",
            int(younger.sum()),
        )


def _read(known: Path) -> pd.DataFrame:
    """Return the table of the images' digests.

    Raises:
        InputError: it is damaged. It is not made anew, because the first digests would be lost.
    """
    try:
        return pd.read_parquet(known, columns=_COLUMNS)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(
            "cannot read the digests of the radiographs",
            error,
            known,
            "restore it from a backup; without one, delete it: radiographs that were replaced "
            "until now are then no longer recognised, so also delete results made before that",
        ) from None


def _write(frame: pd.DataFrame, path: Path) -> None:
    with whole_file(path, owner_only=True) as temporary:
        frame.to_parquet(temporary, index=False)


def main(argv: list[str] | None = None) -> None:
    """Parse the flags, read the radiographs, and log those that were replaced."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    parser.add_argument("--known", type=Path, default=KNOWN, help="table of earlier digests")
    parser.add_argument("--changed", type=Path, default=CHANGED, help="JSON to write")
    parser.add_argument("--readers", type=int, default=READERS, help="files read at a time")
    args = parser.parse_args(argv)
    if not args.manifest.exists():
        raise InputError("there is no manifest yet", args.manifest, "make the cohort first")
    different = refresh(args.manifest, args.known, args.changed, args.readers)
    for split, images in different.items():
        log.info("%s: %d radiographs differ from the first read", split, len(images))
    if not different:
        log.info("no radiograph differs from the first read")


if __name__ == "__main__":
    run_script(main)
