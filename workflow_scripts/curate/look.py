"""Look at a pool as faithfulness looks at test images: what the judge sees, and the organs.

    python -m workflow_scripts.curate.look --model sana --protocol sound \\
        --shards results/generate/sana/augment/part-*.parquet \\
        --cxas weights/cxas/UNet_ResNet50_default.pth --cxas-size 512 --batch-size 16 \\
        --classifier results/downstream/classification/real_only/real/network-*.safetensors \\
        --output results/curate/sana/seen.parquet

Neither texture nor any prompt is looked at. The columns are those of `faithfulness/seen.py`, so
that the radiographs of the test split, which faithfulness has looked at, are compared without a
second look.
"""

import argparse
import itertools
import logging
from pathlib import Path
from typing import Any

from workflow_scripts.common.devices import device_name
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.images import ImageItem, count_shards, read_shards
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import provenance
from workflow_scripts.common.squares import middle
from workflow_scripts.downstream.segmentation.cxas import prepare
from workflow_scripts.faithfulness.look import look_at
from workflow_scripts.faithfulness.networks import add_network_flags, load_networks
from workflow_scripts.faithfulness.seen import write_seen

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Look at a pool from the command line."""
    args = _arguments(argv)
    networks = load_networks(args)
    meter = Progress(f"looking at {args.model}", count_shards(args.shards), "images")
    columns: dict[str, list[Any]] = {}
    items = read_shards(args.shards)
    while batch := list(itertools.islice(items, args.batch_size)):
        prepared = []
        for item in batch:
            image = item.open()
            seen = [judge.prepare(image) for judge in networks.judges]
            light = ImageItem(item.id, item.path)
            prepared.append((light, prepare(middle(image), args.cxas_size), seen, None))
        for name, values in look_at(prepared, networks.judges, networks.labeller).items():
            columns.setdefault(name, []).extend(values)
        meter.update(len(batch))
    # Faithfulness compares with the prompts' own radiographs, curation does not.
    columns["image_id"] = [None] * len(columns["id"])
    columns["patient_id"] = [None] * len(columns["id"])
    made = provenance(networks.settings, device_name(networks.device))
    run = {
        "collection": args.model,
        "settings": networks.settings,
        "pairs": [],
        "provenance": made,
    }
    write_seen(args.output, columns, run)
    log.info("%d images", len(columns["id"]))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key")
    add("--shards", required=True, nargs="+", type=Path, help="the pool")
    add("--output", required=True, type=Path)
    add_network_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
