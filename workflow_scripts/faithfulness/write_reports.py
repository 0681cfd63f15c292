"""Write reports on images with the released LLaVA-Rad, and label them with CheXbert.

    python -m workflow_scripts.faithfulness.write_reports --collection sd_v1_4 --protocol sound \\
        --manifest results/cohort/manifest.parquet --prompts results/cohort/prompts/test.parquet \\
        --shards results/generate/sd_v1_4/test/part-*.parquet --start weights/llava-rad \\
        --max-length 2048 --max-new-tokens 256 --mixed-precision bf16 --generate-batch-size 32 \\
        --chexbert weights/chexbert/chexbert.pth --bert weights/bert-base-uncased \\
        --progress results/faithfulness/reports/.progress-sd_v1_4 \\
        --output results/faithfulness/reports/sd_v1_4.parquet

`--collection real`, without shards, takes all radiographs of the test split. LLaVA-Rad is not given
an indication, because it would hint at findings, and a model's prompts have none.

The output has one row per image, which only its owner may read: `id`, `image_id` and `patient_id`
as in `seen`, `report`, and `classes`, int8 (14,), CheXbert's class of each of FINDINGS.
"""

import argparse
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.devices import accelerator_on, device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.images import ImageItem
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import provenance
from workflow_scripts.common.training import begin_attempt
from workflow_scripts.downstream.outcomes import write_outcomes
from workflow_scripts.downstream.report_generation.generate import generate_reports
from workflow_scripts.downstream.report_generation.images import Squares
from workflow_scripts.downstream.report_generation.layout import (
    check_start,
    image_tokens,
    read_llava_config,
    transform,
)
from workflow_scripts.downstream.report_generation.metrics import chexbert
from workflow_scripts.downstream.report_generation.metrics.chexbert_classes import HEADS
from workflow_scripts.downstream.report_generation.network import (
    PRECISIONS,
    load_llava,
    load_tokenizer,
)
from workflow_scripts.downstream.report_generation.prompts import ReportTokenizer
from workflow_scripts.downstream.report_generation.stages import RELEASED
from workflow_scripts.faithfulness.collection import collection_of
from workflow_scripts.faithfulness.seen import REAL
from workflow_scripts.finetune.data import digest_of_files

log = logging.getLogger(__name__)

_BATCH: Final = 64
"""Number of reports that CheXbert reads at a time."""


def main(argv: list[str] | None = None) -> None:
    """Report on one collection from the command line."""
    args = _arguments(argv)
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    accelerator = accelerator_on(device, args.mixed_precision)
    folder = args.start / RELEASED
    check_start(folder)
    rows, images = collection_of(args)
    items = list(images)
    if sorted(item.id for item in items) != sorted(rows["id"]):
        raise InputError("images are missing", f"the images of {args.collection}")
    settings = {
        "generator_sha256": sha256_of(folder),
        "chexbert_sha256": sha256_of(args.chexbert),
        "max_length": args.max_length,
        "max_new_tokens": args.max_new_tokens,
        "mixed_precision": args.mixed_precision,
        "protocol": args.protocol,
    }
    labeller = chexbert.load(args.chexbert, args.bert, device)
    attempt = begin_attempt(args.progress, accelerator)
    reports = _reports(items, args, accelerator, _key(settings, items))
    if attempt is None:
        return
    classes = labeller.label(reports, _BATCH, f"reports on {args.collection}")
    ordered = rows.set_index("id").loc[[item.id for item in items]]
    columns = {
        "id": [item.id for item in items],
        "image_id": ordered["image_id"].tolist(),
        "patient_id": ordered["patient_id"].tolist(),
        "report": reports,
        "classes": list(classes[:, [HEADS.index(name) for name in FINDINGS]]),
    }
    run = {
        "collection": args.collection,
        "settings": settings,
        "provenance": provenance(settings, device_name(accelerator.device)),
    }
    attempt.check()
    write_outcomes(args.output, columns, run)
    attempt.end()
    log.info("%d images reported on", len(items))


def _reports(
    items: Sequence[ImageItem], args: argparse.Namespace, accelerator: Any, key: str
) -> list[str]:
    folder = args.start / RELEASED
    config = read_llava_config(folder)
    tokens = ReportTokenizer(
        load_tokenizer(folder),
        int(config["image_token_index"]),
        image_tokens(config),
        args.max_length,
    )
    network = load_llava(folder, PRECISIONS[args.mixed_precision])
    return generate_reports(
        network.to(accelerator.device),
        tokens,
        tokens.prompts([None] * len(items), "v1"),
        Squares(items, transform(folder)),
        batch_size=args.generate_batch_size,
        max_new_tokens=args.max_new_tokens,
        progress=args.progress,
        key=f"{key} in batches of {args.generate_batch_size}",
        accelerator=accelerator,
        threads=args.threads,
    )


def _key(settings: dict[str, Any], items: Sequence[ImageItem]) -> str:
    """Return a digest of all that the reports depend on; only reports with it are continued."""
    content = [settings, own_digests("faithfulness.write_reports"), [item.id for item in items]]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    files = [item.path for item in items if item.data is None]
    digest.update(digest_of_files(files).encode())
    for item in items:
        digest.update(item.data or b"")
    return digest.hexdigest()


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--collection", required=True, help="key of the model; `real` for the test radiographs")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="the test prompt set")
    add("--shards", nargs="*", default=[], type=Path, help="the model's test images")
    add("--start", required=True, type=Path, help="folder of the converted LLaVA-Rad")
    add("--max-length", required=True, type=int, help="tokens of prompt, image and report")
    add("--max-new-tokens", required=True, type=int, help="of a report, at most")
    add("--mixed-precision", required=True, choices=tuple(PRECISIONS))
    add("--generate-batch-size", required=True, type=int, help="images at a time")
    add("--chexbert", required=True, type=Path, help="chexbert.pth")
    add("--bert", required=True, type=Path, help="folder of bert-base-uncased")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--progress", required=True, type=Path, help="folder; removed at the end")
    add("--output", required=True, type=Path, help="reports and their findings, Parquet")
    args = parser.parse_args(argv)
    if (args.collection == REAL) != (not args.shards):
        parser.error("--shards belongs to a model, and to it alone")
    return args


if __name__ == "__main__":
    run_script(main)
