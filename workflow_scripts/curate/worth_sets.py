"""The two training sets that a curated set's worth is measured by: the set, and as many unfiltered.

The unfiltered set is drawn from all images of the pool by the same quotas and in the same order as
the curated set, so the two differ in the filter alone.
"""

import argparse
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import link_or_copy, sha256_of, whole_folder, write_text
from workflow_scripts.common.images import read_shard_ids, write_shard
from workflow_scripts.common.manifest import FINDINGS, read_prompts, write_prompts
from workflow_scripts.curate.draw import drawn
from workflow_scripts.curate.gathered import digests_of, gathered
from workflow_scripts.curate.set_files import set_sha256
from workflow_scripts.curate.settings import read_quota
from workflow_scripts.curate.write_set import CHOSEN_SCHEMA, ROWS_PER_GROUP
from workflow_scripts.downstream.data import labels_of
from workflow_scripts.privacy.private_table import read_private_table

log = logging.getLogger(__name__)

SETS: Final = ("curated", "unfiltered")
"""The training sets: the curated one, and as many unfiltered images of its pool."""

SETS_FILE: Final = "sets.json"
"""The description of the training images, beside the outcomes."""

_SAME: Final = ("task", "draw_seed", "quotas", "pool_images", "dataset_sha256", "shared_images",
                "sets", "reason")  # fmt: skip
"""The keys of `sets.json` that are equal in all repeats."""

NOTHING: Final = "no image of the pool passed the filter"
OF_NOBODY: Final = (
    "prompts from templates belong to no patient, and by patient images are held out to choose "
    "the epoch"
)


@dataclass(frozen=True)
class Trained:
    """One training set.

    Attributes:
        ids: prompt ids of its images, sorted.
        prompts: the rows of the prompt set with these ids, in the same order.
    """

    ids: list[str]
    prompts: pd.DataFrame

    def description(self, images: Mapping[str, str]) -> dict[str, Any]:
        """Describe the set without its ids: counts, and digests of its ids and its images.

        Args:
            images: the sha256 of each image's bytes, by prompt id.
        """
        positive = labels_of(self.prompts)
        return {
            "images": len(self.ids),
            "prompt_ids_sha256": _digest(self.ids),
            "images_sha256": _digest([images[name] for name in self.ids]),
            "positive": {f: int(positive[:, k].sum()) for k, f in enumerate(FINDINGS)},
        }


def both_sets(
    prompts: pd.DataFrame,
    pool: Sequence[str],
    chosen: Sequence[str],
    quotas: Mapping[str, int],
    seed: int,
) -> dict[str, Trained]:
    """Return the curated set, and as many images of its pool drawn by the same quotas and seed.

    Args:
        prompts: the pool's prompt set.
        pool: prompt ids of the pool's images, in any order.
        chosen: prompt ids of the curated set.
        quotas: least number of images with a finding, by finding.
        seed: seed of the curated set's draw.

    Raises:
        InputError: an image of the set is not in the pool.
    """
    by_id = prompts.set_index("prompt_id", drop=False)
    strange = sorted(set(chosen) - set(pool))
    if strange:
        raise InputError(
            f"{len(strange)} image(s) of the set are not in the pool, first {strange[0]!r}",
            "chosen.parquet",
            "rerun curate_decide",
        )
    every = sorted(pool)
    rows, _ = drawn(every, labels_of(by_id.loc[every]), quotas, len(chosen), seed)
    ids = {"curated": sorted(chosen), "unfiltered": sorted(every[row] for row in rows)}
    return {name: Trained(x, by_id.loc[x].reset_index(drop=True)) for name, x in ids.items()}


def check_published(
    dataset: Sequence[Path], chosen: pd.DataFrame, images: Mapping[str, str]
) -> None:
    """Check that the files of the curated set hold the chosen images of the pool.

    Args:
        dataset: the files of the curated set.
        chosen: `file` and `prompt_id` of its rows.
        images: the sha256 of each pool image's bytes, by prompt id.

    Raises:
        InputError: a file cannot be read, or they hold other images.
    """
    remedy = "rerun curate_decide"
    digests: dict[str, str] = {}
    for path in dataset:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=["image"]):
                    for row in batch["image"].to_pylist():
                        digests[row["path"]] = hashlib.sha256(row["bytes"]).hexdigest()
        except (OSError, pa.ArrowException) as error:
            raise unreadable("cannot read the set", error, path, remedy) from None
    expected = {
        name: images[prompt]
        for name, prompt in zip(chosen["file"], chosen["prompt_id"], strict=True)
    }
    if digests != expected:
        raise InputError("the set does not hold the images that were chosen", dataset[0], remedy)


@dataclass(frozen=True)
class BothSets:
    """Both training sets of a pool, checked against the files of the curated set.

    Attributes:
        sets: by the names of SETS.
        digests: the sha256 of each of their images' files, by prompt id.
        described: what `sets.json` has of them.
    """

    sets: dict[str, Trained]
    digests: dict[str, bytes]
    described: dict[str, Any]

    def write(self, shards: Sequence[Path], folder: Path) -> None:
        """Write `{name}.parquet` and `{name}_prompts.parquet` of each set to a folder.

        Raises:
            InputError: the pool has changed since it was read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with gathered(shards, self.digests, folder) as items:
            for name, one in self.sets.items():
                write_prompts(one.prompts, folder / f"{name}_prompts.parquet")
                write_shard((items[i] for i in one.ids), folder / f"{name}.parquet")


def read_both(args: argparse.Namespace) -> BothSets:
    """Read the pool and the curated set that the command line names (`add_set_flags`).

    Raises:
        InputError: they do not belong together.
    """
    chosen = read_private_table(args.chosen, CHOSEN_SCHEMA)
    pool = read_shard_ids(args.shards)
    quotas = dict(args.quotas)
    ids = chosen["prompt_id"].tolist()
    sets = both_sets(read_prompts(args.prompts), pool, ids, quotas, args.draw_seed)
    digests = digests_of(args.shards, {name for one in sets.values() for name in one.ids})
    images = {name: digest.hex() for name, digest in digests.items()}
    check_published(args.dataset, chosen, images)
    described = {
        "draw_seed": args.draw_seed,
        "quotas": {name: count for name, count in sorted(quotas.items()) if count},
        "pool_images": len(pool),
        "dataset_sha256": set_sha256([sha256_of(path) for path in args.dataset]),
        "shared_images": len(set(sets["curated"].ids) & set(sets["unfiltered"].ids)),
        "sets": {name: one.description(images) for name, one in sets.items()},
    }
    return BothSets(sets, digests, described)


def made_once(
    folder: Path, name: str, depends_on: Mapping[str, Any], make: Callable[[Path], None]
) -> Path:
    """Return a file of the progress; it is made unless an earlier attempt made it of the same.

    Args:
        folder: of the progress.
        name: what the file holds, for instance an arm's outcomes.
        depends_on: everything that the file depends on.
        make: writes the file, whole or not at all.
    """
    text = json.dumps(depends_on, sort_keys=True, default=str)
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.parquet"
    if path.is_file():
        log.info("%s: taken from an earlier attempt", path)
    else:
        log.info("%s: being made", path)
        make(path)
    return path


def publish(args: argparse.Namespace, content: Mapping[str, Any], done: Mapping[str, Path]) -> None:
    """Write the output folder, whole or not at all, and remove the progress.

    Args:
        args: see `add_set_flags`.
        content: of `sets.json`.
        done: the outcomes of each arm, by its name.
    """
    with whole_folder(args.output) as folder:
        write_text(folder / SETS_FILE, json.dumps(content, indent=1, sort_keys=True) + "\n")
        for arm, outcomes in done.items():
            link_or_copy(outcomes, folder / f"{arm}.parquet")
    shutil.rmtree(args.progress, ignore_errors=True)


def read_sets(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the description of the training images, which all repeats share.

    Raises:
        InputError: a folder has no `sets.json`, or two repeats had different training images.
    """
    remedy = "delete the folder and rerun the rule that trains"
    contents: list[dict[str, Any]] = []
    for folder in folders:
        try:
            content = json.loads((folder / SETS_FILE).read_text(encoding="utf-8"))
            masked = {"masked": content["masked"]} if "masked" in content else {}
            contents.append({key: content[key] for key in _SAME} | masked)
        except (OSError, ValueError, KeyError) as error:
            raise unreadable("cannot read what was trained on", error, folder, remedy) from None
        if contents[-1] != contents[0]:
            raise InputError("trained on other images than the first repeat", folder, remedy)
    return contents[0]


def words_of(settings: Mapping[str, Any]) -> list[Any]:
    """Return settings as the flags of a script of downstream; None gives nothing."""
    words: list[Any] = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, tuple) else [value]
            words += [f"--{name.replace('_', '-')}", *values]
    return words


def add_set_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the set, its pool and the outputs, which every task has."""
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="of the pool")
    add("--shards", required=True, nargs="+", type=Path, help="the pool")
    add("--chosen", required=True, type=Path, help="table of the set's images, chosen.parquet")
    add("--dataset", required=True, nargs="+", type=Path, help="the curated set, Parquet")
    add("--quotas", action="append", type=read_quota, default=[], help="FINDING=COUNT; repeats")
    add("--draw-seed", required=True, type=int, help="of the curated set's draw")
    add("--progress", required=True, type=Path, help="folder; removed at the end")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--output", required=True, type=Path, help="folder of the outcomes")


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def add_score_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that the script which compares the arms has for every task."""
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--trained", required=True, nargs="+", type=Path, help="folders of outcomes, one per run")
    add(
        "--baseline",
        required=True,
        nargs="+",
        type=Path,
        help="outcomes of real data alone, of all runs",
    )
    add("--bootstrap", required=True, type=int, help="how many test sets are drawn")
    add("--seed", required=True, type=int, help="of the draws")
    add("--output", required=True, type=Path, help="the record, JSON")
