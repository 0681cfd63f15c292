"""The content of a curated set's documents: its decision, its shards and its model's records."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, STRESS
from workflow_scripts.common.records import Record, read_record
from workflow_scripts.curate.terms import ACCESS, TRAINING_DATA, Terms, terms_of

PROMPT: Final = "prompt"
"""The column of prompts. Only a set whose readers may see its prompts has it."""

IMAGE: Final = "image"

_REMEDY: Final = "run workflow_scripts.curate again for this model"
_KEYS: Final = {
    "model": str,
    "cohort": dict,
    "pool": dict,
    "policy": list,
    "measured": list,
    "planted": list,
    "kept": int,
    "verdict": str,
    "reasons": list,
    "not_tested": list,
}


@dataclass(frozen=True)
class Shard:
    """One Parquet file of the set.

    Attributes:
        path: the file.
        name: its path relative to the set, with `/`.
        sha256: hex digest of its bytes.
        size: its size in bytes.
    """

    path: Path
    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Described:
    """A curated set, as its documents describe it.

    Attributes:
        decision: the content of `decision.json`.
        terms: licence and access.
        shards: in the order of their names; empty if no image was kept.
        schema: the columns of the shards; empty if there are no shards.
        images: number of images.
        positives: number of images whose prompt asks for the finding, by finding.
        stated: number of images with a label of the finding (positive, negative or uncertain).
        records: the model's records of the protocol `sound`.
        version: version of the workflow.
        worth: the record of classifiers trained on the set; None if none was trained.
        segmented: the record of U-Nets trained on it, likewise.
    """

    decision: dict[str, Any]
    terms: Terms
    shards: tuple[Shard, ...]
    schema: pa.Schema
    images: int
    positives: dict[str, int]
    stated: dict[str, int]
    records: tuple[Record, ...]
    version: str
    worth: Record | None = None
    segmented: Record | None = None

    @property
    def name(self) -> str:
        """The set's name, in the characters that a hub and Croissant allow."""
        letters = (c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in self.model)
        return f"chexgenbench-{''.join(letters)}"

    @property
    def model(self) -> str:
        """The model's key in the config."""
        return str(self.decision["model"])

    @property
    def cohort(self) -> str:
        """The name of the cohort that the model was trained on."""
        return str(self.decision["cohort"]["name"])

    @property
    def confidence(self) -> float:
        """The confidence of the bound on remaining leaks."""
        return float(self.decision.get("confidence", 0.95))

    @property
    def prompts_shown(self) -> bool:
        """Whether the set has a column of prompts."""
        return PROMPT in self.schema.names

    @property
    def scores(self) -> tuple[str, ...]:
        """The columns other than image, findings and prompt."""
        return tuple(c for c in self.schema.names if c not in (IMAGE, PROMPT, *FINDINGS))


def read_decision(path: str | Path) -> dict[str, Any]:
    """Read `decision.json`.

    Raises:
        InputError: the file is not valid JSON, lacks a key, or has a verdict that is not one of
            `ACCESS`.
    """
    try:
        decision = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable("cannot read a decision", error, path, _REMEDY) from None
    if not isinstance(decision, dict):
        raise InputError("a decision is an object", path, _REMEDY)
    wrong = [key for key, kind in _KEYS.items() if not isinstance(decision.get(key), kind)]
    if not isinstance(decision.get("remaining_leaks_upper"), int | float | None):
        wrong.append("remaining_leaks_upper")
    if wrong:
        raise InputError(f"the decision lacks or misstates {', '.join(wrong)}", path, _REMEDY)
    if decision["verdict"] not in ACCESS:
        raise InputError(
            f"the verdict {decision['verdict']!r} is none of {', '.join(ACCESS)}", path, _REMEDY
        )
    if "name" not in decision["cohort"] or "prompt_set" not in decision["pool"]:
        raise InputError("the decision names no cohort or no prompt set", path, _REMEDY)
    return decision


def describe_set(
    decision_path: str | Path,
    dataset: str | Path,
    records: Sequence[str | Path],
    family: str | None,
    base: str | None,
    version: str,
) -> Described:
    """Read decision, shards and records, and check that they belong together.

    Args:
        decision_path: `decision.json`.
        dataset: the folder that holds `data/*.parquet`.
        records: records; those of other models and protocols are ignored.
        family, base: from the model's block in the config (`terms.weights_of`).
        version: version of the workflow.

    Raises:
        InputError: a file cannot be read; the shards hold another number of images than the
            decision kept; or they show captions to readers who may not see them.
    """
    decision = read_decision(decision_path)
    terms = terms_of(decision["verdict"], decision["cohort"]["name"], family, base)
    shards = tuple(_shard(path, Path(dataset)) for path in sorted(Path(dataset).rglob("*.parquet")))
    schema, images, positives, stated = _count(shards)
    if images != decision["kept"]:
        raise InputError(
            f"the decision kept {decision['kept']} images, the shards hold {images}",
            dataset,
            _REMEDY,
        )
    described = Described(
        decision,
        terms,
        shards,
        schema,
        images,
        positives,
        stated,
        tuple(_records_of(decision["model"], records)),
        version,
    )
    _refuse_captions(described, dataset)
    return described


def _refuse_captions(described: Described, dataset: str | Path) -> None:
    """Refuse a set that may be published and shows captions of radiographs."""
    templates = described.decision["pool"]["prompt_set"] == STRESS
    open_data = any(
        row.name == described.cohort and row.access == "release" for row in TRAINING_DATA
    )
    published = described.terms.access == "release"
    if described.prompts_shown and published and not (templates or open_data):
        raise InputError(
            f"the set may be published, and its column `{PROMPT}` holds captions of radiographs",
            dataset,
            f"leave the column out, or draw the pool from the {STRESS} prompts",
        )


def _records_of(model: str, paths: Sequence[str | Path]) -> list[Record]:
    records = [read_record(path) for path in paths]
    return [record for record in records if (record.model, record.protocol) == (model, "sound")]


def _shard(path: Path, dataset: Path) -> Shard:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    name = path.relative_to(dataset).as_posix()
    return Shard(path, name, digest.hexdigest(), path.stat().st_size)


def _count(
    shards: Sequence[Shard],
) -> tuple[pa.Schema, int, dict[str, int], dict[str, int]]:
    """Return the shards' schema, their rows, and the rows that are positive for and state each."""
    schema, images = pa.schema([]), 0
    positives, stated = dict.fromkeys(FINDINGS, 0), dict.fromkeys(FINDINGS, 0)
    for shard in shards:
        try:
            columns = pq.read_schema(shard.path).remove_metadata()
            missing = [name for name in (IMAGE, *FINDINGS) if name not in columns.names]
            if missing:
                raise InputError(f"a shard lacks {', '.join(missing)}", shard.path, _REMEDY)
            table = pq.read_table(shard.path, columns=list(FINDINGS))
        except (OSError, pa.ArrowException) as error:
            raise unreadable("cannot read a shard", error, shard.path, _REMEDY) from None
        if schema.names and schema != columns:
            raise InputError("the shards have different columns", shard.path, _REMEDY)
        schema, images = columns, images + table.num_rows
        for name in FINDINGS:
            positives[name] += pc.sum(pc.equal(table[name], 1)).as_py() or 0
            stated[name] += table.num_rows - table[name].null_count
    return schema, images, positives, stated


def number(value: float | int | None) -> str:
    """Return a number with four significant digits; a dash for None."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """Return a value with its interval, if it has one."""
    if value is None or low is None or high is None:
        return number(value)
    return f"{number(value)} ({number(low)} to {number(high)})"
