"""The judges and the labeller of organs, loaded from the command line's flags."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.devices import pick_device
from workflow_scripts.common.files import sha256_of
from workflow_scripts.faithfulness.judges import Classifier, DenseNetHead, Judge
from workflow_scripts.faithfulness.organs import Labeller, load_labeller


@dataclass(frozen=True)
class Networks:
    """The networks that run on a collection of images.

    Attributes:
        judges: the judges, none or more.
        labeller: the labeller of organs.
        device: the device that computes.
        settings: everything that their results depend on, as JSON types.
    """

    judges: list[Judge]
    labeller: Labeller
    device: torch.device
    settings: dict[str, Any]


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `load_networks` reads."""
    add: Any = parser.add_argument
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--cxas", required=True, type=Path, help="CXAS's published network")
    add("--cxas-size", required=True, type=int, help="side of its input, pixels")
    add("--batch-size", required=True, type=int, help="images at a time")
    add("--classifier", nargs="*", default=[], type=Path, help="networks of real_only")
    add("--densenet-121", type=Path, help="torchxrayvision's DenseNet-121")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)


def load_networks(args: argparse.Namespace) -> Networks:
    """Load the networks that the flags name. They compute repeatably, in true float32.

    Raises:
        InputError: see `judges` and `load_labeller`.
    """
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    judges: list[Judge] = []
    if args.classifier:
        judges.append(Classifier(args.classifier, args.protocol, device))
    if args.densenet_121 is not None:
        judges.append(DenseNetHead(args.densenet_121, args.protocol, device))
    labeller = load_labeller(args.cxas, args.cxas_size, args.batch_size, device)
    settings = {
        "judges": {judge.key: judge.made_of for judge in judges},
        "cxas_sha256": sha256_of(args.cxas),
        "cxas_size": args.cxas_size,
        "cxas_classes": labeller.network.classes,
        "protocol": args.protocol,
    }
    return Networks(judges, labeller, device, settings)
