"""Parts of the manifest for stages that cost GPU-weeks: only the rows and columns that they read.

Fine-tuning, sampling and training of report generators rerun when their manifest changes. So each
of them reads a part of the manifest. The job that writes a part has a digest of its content as a
parameter, which `part_digests` computes from the source's tables before any job runs. So a changed
test caption rewrites the part `test` and retrains nothing. The same holds for a changed label, the
name of a view or an unused column.

- `training`: the training split with captions, patients and sites. Fine-tuning, training
  re-identification, and prompts that are drawn from training captions.
- `labelled_training`: the same with findings, for prompts that are drawn by findings.
- `test`: the test split with captions and reports, for the test prompts.
- `reports`: the rows that report generators are trained and tested on.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workflow_scripts.common.contents import Contents, digest_of
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, MANIFEST_SCHEMA

if TYPE_CHECKING:
    import pandas as pd

    from workflow_scripts.cohort.attrition import Attrition

PARTS: Final = ("training", "labelled_training", "test", "reports")
LABELLED: Final = ("labelled_training", "reports")

_NOT_READ: Final = "not read"


def part_of(manifest: "pd.DataFrame", part: str) -> "pd.DataFrame":
    """Return a part of a manifest: its rows in their order, with null in the unused columns."""
    split = manifest["split"]
    if part == "reports":
        rows = manifest.assign(site=None)
        rows.loc[split == "test", ["caption", "caption_source"]] = None
        rows.loc[split != "train", list(FINDINGS)] = None
    elif part == "test":
        rows = manifest[split == "test"].assign(site=None, indication=None)
    else:
        rows = manifest[split == "train"].assign(report=None, indication=None)
    if part not in LABELLED:
        rows = rows.assign(**dict.fromkeys(FINDINGS))
        rows = rows.astype(dict.fromkeys(FINDINGS, "Int8"))
    return rows.assign(view=_NOT_READ).reset_index(drop=True)


def part_digests(
    words: Sequence[str], tables: Sequence[str | Path], version: int, contents: Contents
) -> dict[str, list[str]]:
    """Return a digest of the content of each part, without paths, before the cohort's job runs.

    The tables are read again only when their content changes. If they are missing or faulty, the
    last digests are returned, or `missing` if there are none. The cohort's job reports the fault.

    Args:
        words: the arguments of `build_manifest` that decide how the source is read.
        tables: the source's tables.
        version: the stage's version.
        contents: the cache of digests.
    """
    how = json.dumps([version, *words])

    def read() -> list[str]:
        manifest = manifest_of(words)
        return [_digest(part_of(manifest, part)) for part in PARTS]

    def digests_of_parts() -> list[str]:
        try:
            return contents.once(f"parts of {how}", tables, read)
        except InputError as error:
            raise OSError(str(error)) from None

    digests = contents.last(f"parts of {how}", digests_of_parts)
    return {part: digests[k : k + 1] or digests for k, part in enumerate(PARTS)}


def manifest_of(words: Sequence[str], attrition: "Attrition | None" = None) -> "pd.DataFrame":
    """Return a source's manifest from its tables alone, as the cohort's job reads them.

    Nothing is logged: the cohort's own job logs the counts and the warnings.

    Args:
        words: the arguments of `build_manifest` that decide how the source is read.
        attrition: gets the counts and the warnings.

    Raises:
        InputError: see `build_manifest.read_source`.
    """
    from workflow_scripts.cohort.attrition import Attrition
    from workflow_scripts.cohort.build_manifest import mapped, parse, read_source
    from workflow_scripts.cohort.shares import warn_of_shares

    counts = Attrition() if attrition is None else attrition
    args = parse([*words, "--manifest", "-", "--attrition", "-", "--no-check-files"])
    with silence():
        manifest = read_source(args, counts)
        warn_of_shares(manifest, *mapped(args), counts)
    return manifest


def _digest(rows: "pd.DataFrame") -> str:
    columns = [name for name in MANIFEST_SCHEMA.names if name != "path"]
    rows = rows[columns].astype(object)
    return digest_of([json.dumps(rows.where(rows.notna(), None).to_numpy().tolist(), default=int)])


@contextmanager
def silence() -> Iterator[None]:
    """Keep the workflow's scripts from logging inside this context."""
    logger = logging.getLogger("workflow_scripts")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
