"""Run the judge on a collection for the stress set's contrasts, with its evidence by lung region.

    python -m workflow_scripts.faithfulness.look_stress --collection sd_v1_4 --protocol sound \\
        --prompts results/cohort/prompts/stress.parquet \\
        --shards results/generate/sd_v1_4/stress/part-*.parquet \\
        --judges results/downstream/classification/real_only/real/network-*.safetensors \\
        --cxas weights/cxas/UNet_ResNet50_default.pth --cxas-size 512 --batch-size 16 \\
        --output results/faithfulness/stress/seen/sd_v1_4.parquet

`--collection real`, with --manifest instead of prompts and shards, takes the radiographs of the
test split, which give the ceilings. Each image passes once through CXAS, which segments the lungs,
and twice through the judge: unchanged, and mirrored together with its lungs.
"""

import argparse
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.images import ImageItem, find_in_shards
from workflow_scripts.common.manifest import FINDINGS, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import provenance
from workflow_scripts.common.squares import middle
from workflow_scripts.downstream.data import check_complete
from workflow_scripts.downstream.outcomes import read_outcomes, write_outcomes
from workflow_scripts.downstream.segmentation.cxas import prepare
from workflow_scripts.faithfulness.collection import test_radiographs
from workflow_scripts.faithfulness.evidence import (
    LUNGS,
    REGIONS,
    Readings,
    lung_regions,
    read_images,
)
from workflow_scripts.faithfulness.judges import Classifier
from workflow_scripts.faithfulness.organs import Labeller, draw_organs, load_labeller
from workflow_scripts.faithfulness.seen import REAL

log = logging.getLogger(__name__)

_REMEDY: Final = "delete it and rerun the rule faithfulness_stress_look"


def main(argv: list[str] | None = None) -> None:
    """Look at one collection from the command line."""
    args = _arguments(argv)
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    torch.backends.cudnn.deterministic = True
    judge = Classifier(args.judges, args.protocol, device)
    labeller = load_labeller(args.cxas, args.cxas_size, args.batch_size, device)
    rows, items = _collection(args)
    meter = Progress(f"looking at {args.collection}", len(rows), "images")
    ids: list[str] = []
    parts: list[dict[str, Any]] = []
    while batch := list(itertools.islice(items, args.batch_size)):
        parts.append(_look_at(batch, judge, labeller))
        ids += [item.id for item in batch]
        meter.update(len(batch))
    if sorted(ids) != sorted(rows["id"]):
        raise InputError("images are missing", f"the images of {args.collection}")
    ordered = rows.set_index("id").loc[ids]
    columns: dict[str, Any] = {"id": ids}
    columns |= {name: ordered[name].tolist() for name in ("image_id", "patient_id")}
    for name in parts[0]:
        columns[name] = [row for part in parts for row in part[name]]
    settings = {
        "judges": judge.made_of,
        "cxas_sha256": sha256_of(args.cxas),
        "cxas_size": args.cxas_size,
        "protocol": args.protocol,
    }
    run = {
        "collection": args.collection,
        "settings": settings,
        "provenance": provenance(settings, device_name(device)),
    }
    write_outcomes(args.output, columns, run)
    log.info("%d images of %s", len(ids), args.collection)


def _collection(args: argparse.Namespace) -> tuple[pd.DataFrame, Iterator[ImageItem]]:
    """Return the rows of a collection (`id`, `image_id`, `patient_id`), and its images."""
    if args.collection == REAL:
        return test_radiographs(args.manifest)
    prompts = read_prompts(args.prompts)
    check_complete(args.shards, prompts)
    rows = pd.DataFrame({"id": prompts["prompt_id"], "image_id": None, "patient_id": None})
    return rows, find_in_shards(args.shards, set(rows["id"]))


def _look_at(batch: list[ImageItem], judge: Classifier, labeller: Labeller) -> dict[str, Any]:
    # Masks and the judge's map must cover the same frame: the film as in the judge's training.
    images = [item.open() if judge.squash else middle(item.open()) for item in batch]
    prepared = torch.stack([prepare(image, labeller.size) for image in images])
    regions = lung_regions(draw_organs(labeller, prepared, LUNGS))
    flipped = {name: region[:, :, ::-1] for name, region in regions.items()}
    flipped |= {"left": flipped["right"], "right": flipped["left"]}
    pixels = np.stack([judge.prepare(image) for image in images])
    mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
    readings = read_images(judge.networks, pixels, regions, judge.batch, judge.device)
    of_mirrored = read_images(judge.networks, mirrored, flipped, judge.batch, judge.device)
    return {**columns_of(readings, ""), **columns_of(of_mirrored, "mirrored_")}


def columns_of(readings: Readings, prefix: str) -> dict[str, Any]:
    """Return readings as columns of a table (`{prefix}probabilities`, ...), one row per image."""
    named = {"probabilities": readings.probabilities, "features": readings.features}
    named |= {f"evidence_{name}": readings.evidence[name] for name in REGIONS}
    return {f"{prefix}{name}": list(v.astype(np.float32)) for name, v in named.items()}


def read_looked(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a file of this script: its rows with `id`, and its provenance.

    Raises:
        InputError: the file is missing, damaged, or of another kind.
    """
    table = read_outcomes(path)
    if not {"id", "probabilities", "mirrored_probabilities"} <= set(table.rows.columns):
        raise InputError("not a file of what was seen of contrasts", path, _REMEDY)
    return table.rows, table.run


def readings_of(rows: pd.DataFrame, prefix: str = "") -> Readings:
    """Return the readings in rows of `read_looked`; with the prefix `mirrored_`, mirrored ones."""

    def stacked(name: str, width: int) -> np.ndarray:
        values = rows[f"{prefix}{name}"].to_list()
        return np.array(values, np.float64).reshape(len(values), width if values == [] else -1)

    width = len(FINDINGS)
    evidence = {name: stacked(f"evidence_{name}", width) for name in REGIONS}
    return Readings(stacked("probabilities", width), evidence, stacked("features", 1))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--collection", required=True, help="the model's key, or `real`")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", type=Path, help="of the cohort, for `real`")
    add("--prompts", type=Path, help="the stress prompt set, for a model")
    add("--shards", nargs="*", default=[], type=Path, help="the model's images of it")
    add("--judges", required=True, nargs="+", type=Path, help="networks of real_only")
    add("--cxas", required=True, type=Path, help="weights of CXAS")
    add("--cxas-size", required=True, type=int)
    add("--batch-size", required=True, type=int)
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--output", required=True, type=Path)
    args = parser.parse_args(argv)
    if args.collection == REAL and (args.manifest is None or args.shards):
        parser.error("`--collection real` needs --manifest and has no --shards")
    if args.collection != REAL and (args.prompts is None or not args.shards):
        parser.error("a model needs --prompts and --shards")
    return args


if __name__ == "__main__":
    run_script(main)
