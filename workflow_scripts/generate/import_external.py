"""Import one shard of a prompt set's images from a user's folder; any model may have made them.

    python -m workflow_scripts.generate.import_external --images DIR --metadata CSV \\
        --prompts P.parquet --shard 0 --shards 4 --output FILE

The metadata has the columns `file_name` (relative to the folder) and `prompt_id`. Files are copied
byte for byte. Rows of other prompt sets are ignored, so one metadata file serves all sets.
"""

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from workflow_scripts.cohort.checked_csv import header, other_encoding
from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.images import ImageItem, is_constant, write_shard
from workflow_scripts.common.manifest import PROMPT_SETS, read_prompts
from workflow_scripts.common.records import slurm_job
from workflow_scripts.generate.sharding import shard_rows

_SHOWN = 10


def read_metadata(metadata: Path, key: str = "prompt_id") -> pd.DataFrame:
    """Read the user's table of `file_name, prompt_id` (further columns are ignored).

    Args:
        metadata: the table.
        key: the second column, if the images do not answer prompts.

    Raises:
        InputError: the CSV is unreadable, lacks a column, has an empty field, or names a file in
            several rows, whose copies would count as independent draws.
    """
    remedy = f"write a UTF-8 CSV with the columns file_name,{key}"
    columns = ("file_name", key)
    try:
        frame = pd.read_csv(metadata, dtype=str, keep_default_na=False)
    except UnicodeDecodeError:
        encoding = other_encoding(metadata)
        raise InputError(
            "cannot read the metadata: they are not UTF-8"
            + (f" (it may be {encoding})" if encoding else ""),
            metadata,
            remedy,
        ) from None
    except (OSError, ValueError) as error:
        raise unreadable("cannot read the metadata", error, metadata, remedy) from None
    existing, separator = header(metadata)
    for column in columns:
        if column not in frame.columns:
            raise InputError(
                f"the metadata has no column {column!r}; it has: {', '.join(existing)}",
                metadata,
                f"save it with commas: {separator!r} stands between its columns"
                if separator
                else remedy,
            )
        if existing.count(column) > 1:
            raise InputError(f"the metadata has two columns {column!r}", metadata, remedy)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes the first cells for an index
        raise InputError("rows have more cells than the metadata have columns", metadata, remedy)
    for column in columns:
        empty = frame[column].str.strip() == ""
        if empty.any():
            row = int(empty.to_numpy().argmax())
            raise InputError(f"{column} is empty in data row {row + 1}", metadata, remedy)
    # Names are compared as paths, because `a.png` and `./a.png` are one file.
    names = pd.Series([os.path.normpath(name) for name in frame["file_name"]])
    repeated = names.duplicated()
    if repeated.any():
        row = int(repeated.to_numpy().argmax())
        first = int((names == names[row]).to_numpy().argmax())
        raise InputError(
            f"the file {names[row]!r} is named twice (data rows {first + 1} and {row + 1}; "
            f"{int(repeated.sum())} repeated in all)",
            metadata,
            "give each prompt an image of its own: a copy is no independent draw",
        )
    return frame


def match_files(frame: pd.DataFrame, prompts: pd.DataFrame, images: Path) -> list[Path]:
    """Return the image file of each prompt, in prompt order.

    Raises:
        InputError: a prompt has no image or several, a prompt id is in no prompt set, or a file is
            missing. The message counts all faults, and names the first ten.
    """
    ids = set(prompts["prompt_id"])
    rows = frame[frame["prompt_id"].isin(ids)]
    others = {f"{name}-" for name in PROMPT_SETS} - {
        f"{prompt_id.split('-')[0]}-" for prompt_id in ids
    }
    unknown = [
        prompt_id
        for prompt_id in frame.loc[~frame["prompt_id"].isin(ids), "prompt_id"]
        if not prompt_id.startswith(tuple(others))
    ]
    given = set(rows["prompt_id"])
    faults = [
        f"{prompt_id}: no image" for prompt_id in prompts["prompt_id"] if prompt_id not in given
    ]
    repeated = rows.loc[rows["prompt_id"].duplicated(), "prompt_id"].unique()
    faults += [f"{prompt_id}: several images" for prompt_id in repeated]
    faults += [f"{prompt_id}: no such prompt" for prompt_id in unknown]
    faults += [f"{name}: no such file" for name in rows["file_name"] if not _is_file(images / name)]
    _refuse(faults, images)
    file_of = dict(zip(rows["prompt_id"], rows["file_name"], strict=True))
    return [images / file_of[prompt_id] for prompt_id in prompts["prompt_id"]]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for any file
        return False


def import_shard(
    images: Path,
    metadata: Path,
    prompts: Path,
    output: Path,
    shard: int = 0,
    shards: int = 1,
    threads: int = 1,
) -> None:
    """Write one shard from the user's files, each of which is decoded once as a check.

    Raises:
        InputError: see `read_metadata` and `match_files`; or images are unreadable.
    """
    frame = read_prompts(prompts)
    files = match_files(read_metadata(metadata), frame, images)
    rows = shard_rows(len(frame), shard, shards)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        faults = [fault for fault in pool.map(_fault, [files[row] for row in rows]) if fault]
    _refuse(faults, images)

    def items() -> Iterator[ImageItem]:
        for row in rows:
            prompt = frame.iloc[row]
            name = f"{prompt['prompt_id']}{files[row].suffix.lower()}"
            yield ImageItem(prompt["prompt_id"], name, files[row].read_bytes(), prompt["caption"])

    write_shard(items(), output, [{"device": "cpu", **slurm_job()}])


def _fault(file: Path) -> str | None:
    try:
        if is_constant(ImageItem(str(file), str(file)).open()):
            return f"{file.name}: all pixels have one value"
    except InputError as error:
        return f"{file.name}: {error.what}"
    return None


def _refuse(faults: list[str], where: Path) -> None:
    if faults:
        shown = "; ".join(faults[:_SHOWN]) + ("; ..." if len(faults) > _SHOWN else "")
        raise InputError(
            f"{len(faults)} fault(s) in the given images: {shown}",
            where,
            "give one readable image per prompt of the set; the exported prompt set lists them",
        )


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and import a shard."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", required=True, type=Path, help="folder of image files")
    parser.add_argument("--metadata", required=True, type=Path, help="CSV: file_name, prompt_id")
    parser.add_argument("--prompts", required=True, type=Path)
    parser.add_argument("--shard", default=0, type=int)
    parser.add_argument("--shards", default=1, type=int)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--threads", default=1, type=int)
    import_shard(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_script(main)
