"""Label the findings in each reference and generated report of a training run by CheXbert.

python -m workflow_scripts.downstream.report_generation.metrics.label_chexbert
    --weights weights/chexbert/chexbert.pth --bert weights/bert-base-uncased
    --outcomes results/downstream/report_generation/augmented/sd_v1_4/repeat-0.parquet
    --output results/downstream/report_generation/augmented/sd_v1_4/chexbert-0.parquet
"""

from pathlib import Path

import numpy as np
import torch

from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.records import provenance
from workflow_scripts.downstream.report_generation.metrics import chexbert
from workflow_scripts.downstream.report_generation.metrics.chexbert_classes import HEADS
from workflow_scripts.downstream.report_generation.metrics.reports import (
    read_reports,
    scorer_arguments,
    write_scores,
)

BATCH = 64


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    parser = scorer_arguments(__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="chexbert.pth")
    parser.add_argument("--bert", type=Path, required=True, help="folder of bert-base-uncased")
    args = parser.parse_args(argv)
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    reports = read_reports(args.outcomes)
    labeller = chexbert.load(args.weights, args.bert, device)
    columns: dict[str, np.ndarray] = {}
    for side, texts in (("reference", reports.references), ("generated", reports.generated)):
        classes = labeller.label(texts, BATCH, f"{side} reports")
        columns |= {f"{side}_{name}": classes[:, k] for k, name in enumerate(HEADS)}
    settings = {
        "weights_sha256": sha256_of(args.weights),
        "classes": "0 not mentioned, 1 positive, 2 negative, 3 uncertain",
        "batch_size": BATCH,
    }
    made = {**settings, "provenance": provenance(settings, device_name(device))}
    write_scores(args.output, reports, "chexbert", columns, made)


if __name__ == "__main__":
    run_script(main)
