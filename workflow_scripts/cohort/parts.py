"""Parts of the manifest for what costs GPU-weeks: each holds the rows and columns that are read.

Fine-tuning, sampling and training report generators run again when their manifest is made anew. So
they read a part of it that is made for what they read alone: `part_digests` tells, from the
source's tables and before anything is made, what each part will hold, and the part's job has that
as a parameter. A changed test caption makes `test` anew and trains nothing; so do a label, the name
of a view, or a column that nobody reads.

- `training`: the training split with captions, patients and sites. Fine-tuning, training
  re-identification, and prompts that are drawn from training captions.
- `labelled_training`: the same with findings, for prompts that are drawn by them.
- `test`: the test split with captions and reports, for the test prompts.
- `reports`: what report generators are trained on and tested with.
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

PARTS: Final = ("training", "labelled_training", "test", "reports")
LABELLED: Final = ("labelled_training", "reports")

_NOT_READ: Final = "not read"


def part_of(manifest: "pd.DataFrame", part: str) -> "pd.DataFrame":
    """Return a part of a manifest: rows in their order, null what is not read of them."""
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
    """Return a digest of what each part holds, as the cohort's job would make it; no path counts.

    The tables are read once for each content of theirs. Where they are gone or refused, that is
    what they held last, and `missing` where nothing was ever told: their job says what is wrong.

    Args:
        words: of `build_manifest`'s command line that say how the source is read.
        tables: of the source.
        version: of the stage.
        contents: where digests are kept.
    """
    how = json.dumps([version, *words])

    def read() -> list[str]:
        with _silence():  # the cohort's own job says what there is to say
            manifest = _manifest(words)
        return [_digest(part_of(manifest, part)) for part in PARTS]

    def tell() -> list[str]:
        try:
            return contents.once(f"parts of {how}", tables, read)
        except InputError as error:
            raise OSError(str(error)) from None

    told = contents.last(f"parts of {how}", tell)
    return {part: told[k : k + 1] or told for k, part in enumerate(PARTS)}


def _manifest(words: Sequence[str]) -> "pd.DataFrame":
    from workflow_scripts.cohort.attrition import Attrition
    from workflow_scripts.cohort.build_manifest import parse, read_source

    args = parse([*words, "--manifest", "-", "--attrition", "-", "--no-check-files"])
    return read_source(args, Attrition())


def _digest(rows: "pd.DataFrame") -> str:
    columns = [name for name in MANIFEST_SCHEMA.names if name != "path"]
    rows = rows[columns].astype(object)
    return digest_of([json.dumps(rows.where(rows.notna(), None).to_numpy().tolist(), default=int)])


@contextmanager
def _silence() -> Iterator[None]:
    logger = logging.getLogger("workflow_scripts")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
