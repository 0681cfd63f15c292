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

import torch

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.images import ImageItem, count_shards, read_shards
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import provenance
from workflow_scripts.common.squares import middle
from workflow_scripts.downstream.segmentation.cxas import prepare
from workflow_scripts.faithfulness.judges import Classifier, DenseNetHead, Judge
from workflow_scripts.faithfulness.look import look_at
from workflow_scripts.faithfulness.organs import load_labeller
from workflow_scripts.faithfulness.seen import write_seen

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Look at a pool from the command line."""
    args = _arguments(argv)
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    torch.backends.cudnn.deterministic = True
    judges: list[Judge] = []
    if args.classifier:
        judges.append(Classifier(args.classifier, args.protocol, device))
    if args.densenet_121 is not None:
        judges.append(DenseNetHead(args.densenet_121, args.protocol, device))
    labeller = load_labeller(args.cxas, args.cxas_size, args.batch_size, device)
    meter = Progress(f"looking at {args.model}", count_shards(args.shards), "images")
    columns: dict[str, list[Any]] = {}
    items = read_shards(args.shards)
    while batch := list(itertools.islice(items, args.batch_size)):
        prepared = []
        for item in batch:
            image = item.open()
            seen = [judge.prepare(image) for judge in judges]
            light = ImageItem(item.id, item.path)
            prepared.append((light, prepare(middle(image), args.cxas_size), seen, None))
        for name, values in look_at(prepared, judges, labeller).items():
            columns.setdefault(name, []).extend(values)
        meter.update(len(batch))
    # Faithfulness compares with the prompts' own radiographs, curation does not.
    columns["image_id"] = [None] * len(columns["id"])
    columns["patient_id"] = [None] * len(columns["id"])
    settings = {
        "judges": {judge.key: judge.made_of for judge in judges},
        "cxas_sha256": sha256_of(args.cxas),
        "cxas_size": args.cxas_size,
        "protocol": args.protocol,
    }
    made = provenance(settings, device_name(device))
    run = {"collection": args.model, "settings": settings, "pairs": [], "provenance": made}
    write_seen(args.output, columns, run)
    log.info("%d images", len(columns["id"]))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--shards", required=True, nargs="+", type=Path, help="the pool")
    add("--cxas", required=True, type=Path, help="CXAS's published network")
    add("--cxas-size", required=True, type=int, help="side of its input, pixels")
    add("--batch-size", required=True, type=int, help="images at a time")
    add("--classifier", nargs="*", default=[], type=Path, help="networks of real_only")
    add("--densenet-121", type=Path, help="torchxrayvision's DenseNet-121")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--output", required=True, type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
