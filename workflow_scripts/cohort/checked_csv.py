"""Strict reading of CSV files, and checks of their rows; errors name the file and the row.

Rows are counted as a spreadsheet counts them: the header is row 1.
"""

import codecs
import contextlib
import glob
import gzip
import logging
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from workflow_scripts.cohort.stand_ins import stand_in
from workflow_scripts.cohort.texts import id_fault
from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, SPLITS
from workflow_scripts.common.progress import Progress

log = logging.getLogger(__name__)

_LABELS: Final = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1}
_ZIP: Final = b"PK\x03\x04"
_GZIP: Final = b"\x1f\x8b"
_PATH: Final = "correct the path in the config"
_STAT_THREADS: Final = 32
_STAT_CHUNK: Final = 256


def find_csv(folder: str | Path, stem: str, remedy: str) -> Path:
    """Return `folder/stem.csv.gz` or, if it does not exist, `folder/stem.csv`.

    If both exist and differ, a warning says which one is read: the other may be the edited one.

    Raises:
        InputError: neither exists; the message names a folder nearby that has it. Or the folder may
            not be looked into.
    """
    packed, plain = (Path(folder) / (stem + suffix) for suffix in (".csv.gz", ".csv"))
    try:
        found = packed.is_file()
    except OSError as error:
        raise unreadable("cannot look into a folder", error, Path(folder), _PATH) from None
    if found:
        if plain.is_file() and _differ(packed, plain):
            log.warning(
                "%s is read, not %s, which has another content: remove the one that does not count",
                *(packed, plain.name),
            )
        return packed
    if plain.is_file():
        return plain
    raise InputError(
        f"{stem}.csv.gz (or .csv) is missing{found_nearby(folder, f'{stem}.csv*')}",
        Path(folder),
        remedy,
    )


def found_nearby(folder: str | Path, pattern: str) -> str:
    """Return `, but ... is there` if the folder above or one below has a file, else an empty text.

    Args:
        folder: the folder that lacks it.
        pattern: the file's name, which may have wildcards.
    """
    folder = Path(folder)
    try:
        around = [*folder.glob(f"*/{pattern}"), *folder.parent.glob(pattern)]
    except OSError:
        return ""
    files = sorted(str(path) for path in around if path.is_file())
    return f", but {files[0]} is there" if files else ""


def _differ(packed: Path, plain: Path) -> bool:
    """Return whether a gzipped file and a plain one differ; what cannot be read does."""
    try:
        with _opened(packed) as one, _opened(plain) as other:
            while (chunk := one.read(1 << 20)) == other.read(1 << 20):
                if not chunk:
                    return False
    except (OSError, EOFError, zlib.error):
        pass
    return True


def read_csv(
    path: str | Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> pd.DataFrame:
    """Read columns of a CSV file (gzipped if its suffix is .gz) as text; an empty cell is "".

    Args:
        path: the file, UTF-8, with a header.
        columns: the columns that it must have.
        optional: columns that are read if the file has them.

    Raises:
        InputError: the file is missing, truncated, empty, not UTF-8, a web page, a Git LFS pointer,
            gzipped although its name says otherwise or the reverse, has rows that differ in length
            from its header, lacks a column or has it twice.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("a CSV file is missing", path, "check the path in the config")
    check_no_stand_in(path)
    known = list(dict.fromkeys([*columns, *optional]))
    table = _parsed(path, known)
    absent = {name for name in known if table.num_rows and table[name].null_count}
    if missing := [name for name in columns if name in absent]:
        existing, separator = header(path)
        raise InputError(
            f"missing column(s): {', '.join(missing)}; it has: {', '.join(existing)}",
            path,
            f"save it with commas: {separator!r} stands between its columns"
            if separator
            else "map or rename the file's columns",
        )
    if table.num_rows == 0:
        raise InputError("the CSV file has no rows", path, "use the complete file")
    names, _ = header(path)
    if twice := [name for name in known if names.count(name) > 1]:
        raise InputError(
            f"two columns are called {twice[0]!r}: the right one is not known",
            path,
            "rename one of them",
        )
    return table.select([name for name in known if name not in absent]).to_pandas()


def check_no_stand_in(path: Path) -> None:
    """Refuse what often stands in place of a table or of annotations.

    Raises:
        InputError: the file is a web page or a Git LFS pointer, or its name does not say whether it
            is gzipped; or it could not be opened.
    """
    packed = path.suffix == ".gz"
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
        if head.startswith(_GZIP) and packed:
            with contextlib.suppress(OSError, EOFError, zlib.error), _opened(path) as stream:
                head = stream.read(512)
    except OSError as error:
        raise unreadable("cannot read a file", error, path, _PATH) from None
    if found := stand_in(head):
        raise InputError(found[0], path, found[1])
    if head.startswith(_ZIP):
        what = "a spreadsheet (xlsx) or zip archive stands in place of the file"
        raise InputError(what, path, "save the table as CSV in UTF-8, or unpack the archive")
    if head.startswith(_GZIP) and not packed:
        what = "the file is gzipped, but its name does not end in .gz"
        raise InputError(what, path, f"rename it to {path.name}.gz")
    if packed and head and not _is_gzip(path):
        raise InputError(
            "cannot read the file: it is not gzipped, but its name ends in .gz",
            path,
            f"if it is a readable table, rename it to {path.stem}; otherwise download it again",
        )


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == _GZIP


def _parsed(path: Path, columns: Sequence[str]) -> pa.Table:
    """Parse columns of a CSV file as text; a column that the file lacks is null."""
    try:
        # With one thread only, the parser names the row that it cannot read.
        return pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in columns},
                include_columns=columns,
                include_missing_columns=True,
                strings_can_be_null=False,
            ),
        )
    except (OSError, EOFError, pa.ArrowException, ValueError) as error:
        if encoding := other_encoding(path):
            raise InputError(
                f"the CSV file is not UTF-8 (it may be {encoding})",
                path,
                f"save it as UTF-8, by `iconv -f {encoding} -t UTF-8` for example",
            ) from None
        raise unreadable(
            "cannot read the CSV file",
            error,
            path,
            "a truncated or damaged download? Fetch the file again and compare its checksum",
        ) from None


def header(path: Path) -> tuple[list[str], str | None]:
    """Return the columns of a CSV file, and their separator if it is not a comma."""
    with _opened(path) as stream:
        line = stream.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
    separator = max(",;\t|", key=line.count)
    names = [name.strip('"') for name in line.split(separator)]
    return names, None if separator == "," or len(names) == 1 else separator


def other_encoding(path: Path) -> str | None:
    """Return the likely encoding of a text file that is not UTF-8; None if it is, or not text."""
    with contextlib.suppress(OSError, EOFError), _opened(path) as stream:
        start = stream.read(1 << 20)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return "UTF-16"
        try:
            codecs.getincrementaldecoder("utf-8")().decode(start + stream.read())
        except UnicodeDecodeError:
            return None if b"\0" in start else "WINDOWS-1252"
    return None


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def row_of(path: str | Path, index: int) -> str:
    """Return the place of a record in an error: the file and its row."""
    return f"{path}, row {index + 2}"


def check_filled(values: pd.Series, path: str | Path) -> None:
    """Raise if a required column has empty cells."""
    empty = values.str.strip() == ""
    if empty.any():
        index = int(empty.to_numpy().argmax())
        raise InputError(
            f"{values.name} is empty ({int(empty.sum())} rows)", row_of(path, index), "fill it in"
        )


def check_ids(values: pd.Series, path: str | Path) -> None:
    """Raise if an id is empty or invalid, or if two ids may be the same; see `id_fault`."""
    check_filled(values, path)
    if fault_and_index := id_fault(values):
        fault, index = fault_and_index
        raise InputError(
            fault,
            row_of(path, index),
            "write each id in the same way in the whole table: two spellings count as two patients "
            "(studies, images), which may be in different splits",
        )


def check_unique(values: pd.Series, path: str | Path, remedy: str) -> None:
    """Raise if a value occurs in two rows; the message names both."""
    repeated = values.duplicated()
    if repeated.any():
        index = int(repeated.to_numpy().argmax())
        first = int((values == values.iloc[index]).to_numpy().argmax())
        raise InputError(
            f"{values.name} {values.iloc[index]!r} occurs twice (rows {first + 2} and {index + 2}; "
            f"{int(repeated.sum())} repeated in all)",
            path,
            remedy,
        )


def check_splits(values: pd.Series, path: str | Path) -> None:
    """Raise if a split is none of train, validate and test."""
    wrong = ~values.isin(SPLITS)
    if wrong.any():
        index = int(wrong.to_numpy().argmax())
        raise InputError(
            f"unknown split {values.iloc[index]!r} ({int(wrong.sum())} rows)",
            row_of(path, index),
            f"use {', '.join(SPLITS)}",
        )


def check_patients(patients: pd.Series, splits: pd.Series, path: str | Path) -> None:
    """Raise if patients are in both train and test; the message names up to ten."""
    shared = sorted(set(patients[splits == "train"]) & set(patients[splits == "test"]))
    if shared:
        shown = ", ".join(shared[:10]) + (", ..." if len(shared) > 10 else "")
        raise InputError(
            f"train and test share {len(shared)} patient(s): {shown}",
            path,
            "assign every image of a patient to one split",
        )


def several_splits(patients: pd.Series, splits: pd.Series) -> list[str]:
    """Return the patients who are in more than one split, sorted."""
    pairs = pd.DataFrame({"patient": patients, "split": splits}).drop_duplicates()
    return sorted(pairs.loc[pairs["patient"].duplicated(), "patient"].unique())


def parse_labels(values: pd.Series, path: str | Path) -> pd.Series:
    """Convert a finding's text column to Int8: 1, 0, -1, and null for an empty cell.

    Raises:
        InputError: a cell has another value; the message names its row.
    """
    text = values.str.strip()
    parsed = text.map(_LABELS)
    wrong = parsed.isna() & (text != "")
    if wrong.any():
        index = int(wrong.to_numpy().argmax())
        raise InputError(
            f"{values.name} is {values.iloc[index]!r} ({int(wrong.sum())} such rows)",
            row_of(path, index),
            "labels are 1 (positive), 0 (negative), -1 (uncertain) or empty (not mentioned)",
        )
    return parsed.astype("Int8")


def no_findings(index: pd.Index) -> pd.DataFrame:
    """Return a table of the 14 findings, all null."""
    return pd.DataFrame({name: pd.array([pd.NA] * len(index), "Int8") for name in FINDINGS}, index)


def check_image_files(paths: Sequence[str], source: str | Path) -> None:
    """Check that every image file exists and is not empty; later stages read the contents.

    There is one `stat` per image, in threads, because each call waits for the server of a network
    file system. Listing folders would wait as often, since a study has only one or two frontal
    images.

    Args:
        paths: the image files.
        source: the table that lists them, for the error.

    Raises:
        InputError: files are missing or empty; the message names the first ones.
    """
    chunks = [paths[start : start + _STAT_CHUNK] for start in range(0, len(paths), _STAT_CHUNK)]
    progress = Progress("checking image files", len(paths), "files")
    faults: list[tuple[str, str]] = []
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        for chunk, faults_of_chunk in zip(chunks, pool.map(_file_faults, chunks), strict=True):
            faults += faults_of_chunk
            progress.update(len(chunk))
    if faults:
        lines = [f"{path} ({reason}{_instead_of(Path(path))})" for path, reason in faults[:5]]
        shown = "\n    ".join(lines) + ("\n    ..." if len(faults) > 5 else "")
        raise InputError(
            f"{len(faults)} of {len(paths)} image files are missing or empty:\n    {shown}",
            source,
            "not one is there: check the folder of the images, and their names"
            if len(faults) == len(paths)
            else "complete the download, or cut the table to the images that are there",
        )


def _file_faults(paths: Iterable[str]) -> list[tuple[str, str]]:
    faults = []
    for path in paths:
        try:
            if Path(path).stat().st_size == 0:
                faults.append((path, "empty"))
        except OSError as error:
            faults.append((path, str(error.strerror)))
    return faults


def _instead_of(path: Path) -> str:
    """Return `; ... is there` if a file of the same name with another suffix exists."""
    with contextlib.suppress(OSError):
        others = sorted(path.parent.glob(f"{glob.escape(path.stem)}.*"))
        if names := [other.name for other in others if other != path]:
            return f"; {names[0]} is there"
    return ""
