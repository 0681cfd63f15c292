"""Train classifiers on a curated set, and on as many unfiltered images of its pool.

    python -m workflow_scripts.curate.train_worth --model sana --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/augment.parquet \\
        --shards results/generate/sana/augment/part-*.parquet \\
        --real-prompts results/cohort/prompts/augment.parquet \\
        --chosen results/curate/sana/chosen.parquet \\
        --dataset results/curate/sana/dataset/data/train-*.parquet \\
        --quotas Fracture=100 --draw-seed 42 --weights weights/resnet50 ... --seed 42 \\
        --progress results/curate/sana/.progress-worth-0 --output results/curate/sana/worth/repeat-0

The downstream stage's script trains them, with its settings. Each set is used alone, and added to
the real images of the baseline. The unfiltered set is drawn from all images of the pool by the same
quotas and in the same order as the curated set, so the two differ in the filter alone. The output
folder holds the outcomes of each arm, and `sets.json` with the description of its training images.
If a set is too small to train on, the folder has the reason alone.

A stopped run continues: finished arms stay under `--progress` until the folder is complete.
"""

import argparse
import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.as_published import PROTOCOLS, deviations
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import link_or_copy, sha256_of, whole_folder, write_text
from workflow_scripts.common.images import read_shard_ids, write_shard
from workflow_scripts.common.manifest import (
    FINDINGS,
    TEMPLATE,
    read_manifest,
    read_prompts,
    write_prompts,
)
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.common.validation import split_at_random, split_by_patient
from workflow_scripts.curate.draw import drawn
from workflow_scripts.curate.gathered import digests_of, gathered
from workflow_scripts.curate.set_files import set_sha256
from workflow_scripts.curate.settings import read_quota
from workflow_scripts.curate.write_set import CHOSEN_SCHEMA, ROWS_PER_GROUP
from workflow_scripts.downstream.classification import train
from workflow_scripts.downstream.classification.settings import ClassifierSettings
from workflow_scripts.downstream.data import labels_of
from workflow_scripts.privacy.private_table import read_private_table

log = logging.getLogger(__name__)

SETS: Final = ("curated", "unfiltered")
"""The training sets: the curated one, and as many unfiltered images of its pool."""

WAYS: Final = {"alone": "synthetic_only", "added": "augmented"}
"""How a set is used: alone, or added to real images; each with the downstream setting."""

SETS_FILE: Final = "sets.json"


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


def why_not(
    chosen: Trained, manifest: pd.DataFrame, settings: ClassifierSettings, protocol: str
) -> str | None:
    """Return why no classifier can be trained on a set alone; None if one can.

    Args:
        chosen: the set.
        manifest: the cohort's manifest, with the patient of each radiograph.
        settings: the training's settings, which hold out a share of the patients.
        protocol: decides whether patients or images are held out.
    """
    if not chosen.ids:
        return "no image of the pool passed the filter"
    if (chosen.prompts["caption_source"] == TEMPLATE).any():
        return (
            "prompts from templates belong to no patient, and by patient images are held out to "
            "choose the epoch"
        )
    if deviations(protocol).classification_random_validation:
        training = split_at_random(len(chosen.ids), settings.validation_share, settings.seed)[0]
        return None if len(training) > 1 else f"{len(chosen.ids)} image(s) are too few to train on"
    owner = manifest.set_index("image_id")["patient_id"]
    patients = owner.loc[chosen.prompts["image_id"]].to_numpy(dtype=object)
    if len(set(patients)) < 2:
        return "the prompts of the set are of one patient: none can be held out"
    training = split_by_patient(patients, settings.validation_share, settings.seed)[0]
    return None if len(training) > 1 else f"{len(chosen.ids)} images leave one to train on"


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


def main(argv: list[str] | None = None) -> None:
    """Train all arms of one repeat from the command line."""
    args, settings = _arguments(argv)
    manifest = read_manifest(args.manifest, ["image_id", "patient_id"])
    chosen = read_private_table(args.chosen, CHOSEN_SCHEMA)
    prompts = read_prompts(args.prompts)
    pool = read_shard_ids(args.shards)
    quotas = dict(args.quotas)
    sets = both_sets(prompts, pool, chosen["prompt_id"].tolist(), quotas, args.draw_seed)
    ids = {name for one in sets.values() for name in one.ids}
    digests = digests_of(args.shards, ids)
    images = {name: digest.hex() for name, digest in digests.items()}
    check_published(args.dataset, chosen, images)
    reasons = [why_not(one, manifest, settings, args.protocol) for one in sets.values()]
    reason = next(filter(None, reasons), None)
    shared = set(sets["curated"].ids) & set(sets["unfiltered"].ids)
    content: dict[str, Any] = {
        "task": "classification",
        "seed": settings.seed,
        "draw_seed": args.draw_seed,
        "quotas": {name: count for name, count in sorted(quotas.items()) if count},
        "pool_images": len(pool),
        "dataset_sha256": set_sha256([sha256_of(path) for path in args.dataset]),
        "shared_images": len(shared),
        "sets": {name: one.description(images) for name, one in sets.items()},
        "reason": reason,
    }
    done: dict[str, Path] = {}
    if reason is None:
        folder = args.progress / "sets"
        folder.mkdir(parents=True, exist_ok=True)
        with gathered(args.shards, digests, folder) as items:
            for name, one in sets.items():
                write_prompts(one.prompts, folder / f"{name}_prompts.parquet")
                write_shard((items[i] for i in one.ids), folder / f"{name}.parquet")
        for name in SETS:
            for way in WAYS:
                done[f"{name}_{way}"] = _arm(args, settings, name, way, content)
    with whole_folder(args.output) as folder:
        write_text(folder / SETS_FILE, json.dumps(content, indent=1, sort_keys=True) + "\n")
        for arm, outcomes in done.items():
            link_or_copy(outcomes, folder / f"{arm}.parquet")
    shutil.rmtree(args.progress, ignore_errors=True)
    log.info("%s: %s", args.model, reason or f"{len(done)} arms trained")


def _arm(
    args: argparse.Namespace,
    settings: ClassifierSettings,
    name: str,
    way: str,
    content: Mapping[str, Any],
) -> Path:
    """Return the outcomes of one arm, from an earlier attempt if it had the same inputs."""
    arm = f"{name}_{way}"
    folder = args.progress / "sets"
    given = {name: value for name, value in asdict(settings).items() if value is not None}
    identity = {
        "arm": arm,
        "sets": content,
        "settings": given,
        "protocol": args.protocol,
        "weights": sha256_of(settings.weights),
        "real": [sha256_of(args.real_prompts), sha256_of(args.manifest)],
        "code": own_digests("downstream.classification.train"),
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
    outcomes: Path = args.progress / "arms" / f"{arm}-{key[:16]}.parquet"
    if outcomes.is_file():
        log.info("%s was trained before", arm)
        return outcomes
    flags: list[Any] = ["--setting", WAYS[way], "--model", args.model]
    flags += ["--protocol", args.protocol, "--manifest", args.manifest]
    flags += ["--prompts", folder / f"{name}_prompts.parquet"]
    flags += ["--real-prompts", args.real_prompts] if way == "added" else []
    flags += ["--shards", folder / f"{name}.parquet"]
    flags += [w for n, v in given.items() for w in (f"--{n.replace('_', '-')}", v)]
    flags += ["--progress", args.progress / f"training-{arm}"]
    flags += ["--gpus", args.gpus, "--threads", args.threads, "--output", outcomes]
    log.info("training %s of %s", arm, args.model)
    train.main([str(word) for word in flags])
    return outcomes


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _arguments(argv: list[str] | None) -> tuple[argparse.Namespace, ClassifierSettings]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="of the pool")
    add("--shards", required=True, nargs="+", type=Path, help="the pool")
    add("--real-prompts", required=True, type=Path, help="prompts of the baseline's radiographs")
    add("--chosen", required=True, type=Path, help="table of the set's images, chosen.parquet")
    add("--dataset", required=True, nargs="+", type=Path, help="the curated set, Parquet")
    add("--quotas", action="append", type=read_quota, default=[], help="FINDING=COUNT; repeats")
    add("--draw-seed", required=True, type=int, help="of the curated set's draw")
    add_flags(parser, ClassifierSettings)
    add("--progress", required=True, type=Path, help="folder; removed at the end")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--output", required=True, type=Path, help="folder of the outcomes")
    args = parser.parse_args(argv)
    return args, settings_of_flags(ClassifierSettings, args, parser)


if __name__ == "__main__":
    run_script(main)
