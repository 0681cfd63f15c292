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
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pandas as pd

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.manifest import TEMPLATE, read_manifest
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.common.validation import split_at_random, split_by_patient
from workflow_scripts.curate.worth_sets import (
    NOTHING,
    OF_NOBODY,
    SETS,
    Trained,
    add_set_flags,
    made_once,
    publish,
    read_both,
    words_of,
)
from workflow_scripts.downstream.classification import train
from workflow_scripts.downstream.classification.settings import ClassifierSettings

log = logging.getLogger(__name__)

WAYS: Final = {"alone": "synthetic_only", "added": "augmented"}
"""How a set is used: alone, or added to real images; each with the downstream setting."""


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
        return NOTHING
    if (chosen.prompts["caption_source"] == TEMPLATE).any():
        return OF_NOBODY
    if deviations(protocol).classification_random_validation:
        training = split_at_random(len(chosen.ids), settings.validation_share, settings.seed)[0]
        return None if len(training) > 1 else f"{len(chosen.ids)} image(s) are too few to train on"
    owner = manifest.set_index("image_id")["patient_id"]
    patients = owner.loc[chosen.prompts["image_id"]].to_numpy(dtype=object)
    if len(set(patients)) < 2:
        return "the prompts of the set are of one patient: none can be held out"
    training = split_by_patient(patients, settings.validation_share, settings.seed)[0]
    return None if len(training) > 1 else f"{len(chosen.ids)} images leave one to train on"


def main(argv: list[str] | None = None) -> None:
    """Train all arms of one repeat from the command line."""
    args, settings = _arguments(argv)
    manifest = read_manifest(args.manifest, ["image_id", "patient_id"])
    both = read_both(args)
    reasons = [why_not(one, manifest, settings, args.protocol) for one in both.sets.values()]
    reason = next(filter(None, reasons), None)
    content: dict[str, Any] = {
        **both.described,
        "task": "classification",
        "seed": settings.seed,
        "reason": reason,
    }
    done: dict[str, Path] = {}
    if reason is None:
        both.write(args.shards, args.progress / "sets")
        for name in SETS:
            for way in WAYS:
                done[f"{name}_{way}"] = _arm(args, settings, name, way, content)
    publish(args, content, done)
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
    flags: list[Any] = ["--setting", WAYS[way], "--model", args.model]
    flags += ["--protocol", args.protocol, "--manifest", args.manifest]
    flags += ["--prompts", folder / f"{name}_prompts.parquet"]
    flags += ["--real-prompts", args.real_prompts] if way == "added" else []
    flags += ["--shards", folder / f"{name}.parquet"]
    flags += words_of(given)
    flags += ["--progress", args.progress / f"training-{arm}"]
    flags += ["--gpus", args.gpus, "--threads", args.threads, "--output"]

    def trained(outcomes: Path) -> None:
        train.main([str(word) for word in (*flags, outcomes)])

    return made_once(args.progress / "arms", arm, identity, trained)


def _arguments(argv: list[str] | None) -> tuple[argparse.Namespace, ClassifierSettings]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_set_flags(parser)
    parser.add_argument(
        "--real-prompts", required=True, type=Path, help="prompts of the baseline's radiographs"
    )
    add_flags(parser, ClassifierSettings)
    args = parser.parse_args(argv)
    return args, settings_of_flags(ClassifierSettings, args, parser)


if __name__ == "__main__":
    run_script(main)
