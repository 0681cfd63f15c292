"""Train segmenters on real images with a curated set, and with as many unfiltered images.

    python -m workflow_scripts.curate.train_worth_segmenters --model sana --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/augment.parquet \\
        --shards results/generate/sana/augment/part-*.parquet \\
        --chosen results/curate/sana/chosen.parquet \\
        --dataset results/curate/sana/dataset/data/train-*.parquet \\
        --quotas Fracture=100 --draw-seed 42 \\
        --real-masks results/downstream/segmentation/masks/real.parquet \\
        --labeller-weights weights/cxas.pth --labeller-size 512 ... --size 256 ... --seed 42 \\
        --progress results/curate/sana/.progress-segmenters-0 \\
        --output results/curate/sana/segmenters/repeat-0

The downstream stage's scripts draw the masks of both sets and train the U-Nets, with its settings.
As many images of each set are drawn as downstream draws of a prompt set, and are added to the real
images of the baseline. No U-Net learns from generated images alone, as in downstream. The output
folder holds the outcomes of each arm, and `sets.json` with the description of its images. If a set
cannot be trained on, the folder has the reason alone.

A stopped run continues: masks and finished arms stay under `--progress` until the folder is
complete.
"""

import argparse
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.code import own_digests
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.manifest import TEMPLATE
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.curate.settings import SegmentedSettings
from workflow_scripts.curate.worth_sets import (
    NOTHING,
    OF_NOBODY,
    SETS,
    BothSets,
    Trained,
    add_set_flags,
    made_once,
    publish,
    read_both,
    words_of,
)
from workflow_scripts.downstream.segmentation import label, train
from workflow_scripts.downstream.segmentation.masks import read_masks
from workflow_scripts.downstream.segmentation.settings import SegmenterSettings

log = logging.getLogger(__name__)

WAY: Final = "added"
"""How a set is used: added to real images."""


def why_not(chosen: Trained) -> str | None:
    """Return why no segmenter can be trained on real images and a set; None if one can."""
    if not chosen.ids:
        return NOTHING
    return OF_NOBODY if (chosen.prompts["caption_source"] == TEMPLATE).any() else None


def main(argv: list[str] | None = None) -> None:
    """Draw the masks and train both arms of one repeat from the command line."""
    args, drawing, settings = _arguments(argv)
    both = read_both(args)
    reason = next(filter(None, map(why_not, both.sets.values())), None)
    content: dict[str, Any] = {
        **both.described,
        "task": "segmentation",
        "seed": settings.seed,
        "reason": reason,
    }
    done: dict[str, Path] = {}
    if reason is None:
        both.write(args.shards, args.progress / "sets")
        masks = {name: _masks(args, drawing, name, both) for name in SETS}
        content["masked"] = {name: len(read_masks(path).by_id) for name, path in masks.items()}
        done = {f"{s}_{WAY}": _arm(args, settings, s, masks[s], content) for s in SETS}
    publish(args, content, done)
    log.info("%s: %s", args.model, reason or f"{len(done)} arms trained")


def _masks(args: argparse.Namespace, drawing: SegmentedSettings, name: str, both: BothSets) -> Path:
    """Return the masks of a set's drawn images, from an earlier attempt if it had the same."""
    given = asdict(drawing)
    identity = {
        "set": both.described["sets"][name],
        "settings": given,
        "weights": sha256_of(given["labeller"]["weights"]),
        "code": own_digests("downstream.segmentation.label"),
    }
    words = ["--model", args.model, *_of_set(args, name)]
    words += [word for part in given.values() for word in words_of(part)]
    words += ["--gpus", args.gpus, "--threads", args.threads, "--output"]

    def drawn(path: Path) -> None:
        label.main([str(word) for word in (*words, path)])

    return made_once(args.progress / "masks", name, identity, drawn)


def _arm(
    args: argparse.Namespace,
    settings: SegmenterSettings,
    name: str,
    masks: Path,
    content: Mapping[str, Any],
) -> Path:
    """Return the outcomes of one arm, from an earlier attempt if it had the same inputs."""
    arm = f"{name}_{WAY}"
    given = asdict(settings)
    exact = settings.exact_masks
    identity = {
        "arm": arm,
        "sets": content,
        "settings": given,
        "exact": None if exact is None else sha256_of(exact),
        "protocol": args.protocol,
        "masks": [sha256_of(masks), sha256_of(args.real_masks)],
        "real": sha256_of(args.manifest),
        "code": own_digests("downstream.segmentation.train"),
    }
    words = ["--setting", "augmented", "--model", args.model, "--protocol", args.protocol]
    words += [*_of_set(args, name), "--real-masks", args.real_masks, "--masks", masks]
    words += ["--other-prompts", *words_of(given)]
    words += ["--progress", args.progress / f"training-{arm}"]
    words += ["--gpus", args.gpus, "--threads", args.threads, "--output"]

    def trained(outcomes: Path) -> None:
        train.main([str(word) for word in (*words, outcomes)])

    return made_once(args.progress / "arms", arm, identity, trained)


def _of_set(args: argparse.Namespace, name: str) -> list[Any]:
    """Return the flags of the cohort and of a set's prompts and images."""
    folder = args.progress / "sets"
    prompts, shards = folder / f"{name}_prompts.parquet", folder / f"{name}.parquet"
    return ["--manifest", args.manifest, "--prompts", prompts, "--shards", shards]


def _arguments(
    argv: list[str] | None,
) -> tuple[argparse.Namespace, SegmentedSettings, SegmenterSettings]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_set_flags(parser)
    parser.add_argument(
        "--real-masks", required=True, type=Path, help="masks of the radiographs, of downstream"
    )
    add_flags(parser, SegmentedSettings)
    add_flags(parser, SegmenterSettings)
    args = parser.parse_args(argv)
    drawing = settings_of_flags(SegmentedSettings, args, parser)
    if drawing.labeller is None or drawing.masked is None:
        parser.error("give the flags --labeller-... and --masked-...")
    return args, drawing, settings_of_flags(SegmenterSettings, args, parser)


if __name__ == "__main__":
    run_script(main)
