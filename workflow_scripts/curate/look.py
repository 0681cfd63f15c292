"""Run the judges and the labeller of organs on a pool, as faithfulness does on test images.

    python -m workflow_scripts.curate.look --model sana --protocol sound \\
        --shards results/generate/sana/augment/part-*.parquet \\
        --cxas weights/cxas/UNet_ResNet50_default.pth --cxas-size 512 --batch-size 16 \\
        --classifier results/downstream/classification/real_only/real/network-*.safetensors \\
        --progress results/curate/sana/.progress-look --output results/curate/sana/seen.parquet

Texture is not measured, and no prompt is read. The columns are those of `faithfulness/seen.py`. So
the pool can be compared with the test radiographs, for which faithfulness has the same table. A job
that was killed continues after its last finished batch.
"""

import argparse
import itertools
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from workflow_scripts.common.devices import device_name
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.images import ImageItem, count_shards, read_shards
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import provenance
from workflow_scripts.common.squares import middle
from workflow_scripts.curate.kept import Kept
from workflow_scripts.downstream.segmentation.cxas import prepare
from workflow_scripts.faithfulness.look import look_at
from workflow_scripts.faithfulness.networks import Networks, add_network_flags, load_networks
from workflow_scripts.faithfulness.seen import write_seen

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Look at a pool from the command line."""
    args = _arguments(argv)
    networks = load_networks(args)
    kept = Kept(
        args.progress,
        networks.settings
        | {
            "shards": [sha256_of(path) for path in args.shards],
            "batch_size": args.batch_size,
            "device": device_name(networks.device),
            "threads": args.threads,
        },
    )
    count = count_shards(args.shards)
    names = [f"images-{start:08d}" for start in range(0, count, args.batch_size)]
    done = sum(map(kept.has, names)) * args.batch_size
    meter = Progress(f"looking at {args.model}", count, "images", done=min(done, count))
    items = read_shards(args.shards)
    parts = []
    for name in names:
        batch = list(itertools.islice(items, args.batch_size))
        finished = kept.has(name)
        parts.append(kept.columns(name, partial(_seen, batch, networks, args.cxas_size)))
        if not finished:
            meter.update(len(batch))
    # A column that is null throughout one part takes its type from another part.
    table = pa.concat_tables(parts, promote_options="permissive")
    columns: dict[str, Any] = {name: table[name].combine_chunks() for name in table.column_names}
    # Faithfulness compares each image with its prompt's radiograph. Curation does not.
    columns["image_id"] = [None] * count
    columns["patient_id"] = [None] * count
    made = provenance(networks.settings, device_name(networks.device))
    run = {
        "collection": args.model,
        "settings": networks.settings,
        "pairs": [],
        "provenance": made,
    }
    write_seen(args.output, columns, run)
    kept.end()
    log.info("%d images", count)


def _seen(batch: list[ImageItem], networks: Networks, cxas_size: int) -> dict[str, list[Any]]:
    prepared = []
    for item in batch:
        image = item.open()
        seen = [judge.prepare(image) for judge in networks.judges]
        light = ImageItem(item.id, item.path)
        prepared.append((light, prepare(middle(image), cxas_size), seen, None))
    return look_at(prepared, networks.judges, networks.labeller)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key")
    add("--shards", required=True, nargs="+", type=Path, help="the pool's images")
    add("--progress", required=True, type=Path, help="folder of finished batches; not an output")
    add("--output", required=True, type=Path)
    add_network_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
