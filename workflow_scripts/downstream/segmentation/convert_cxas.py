"""Extract the tensors of CXAS's network from a checkpoint that holds more than tensors.

    python -m workflow_scripts.downstream.segmentation.convert_cxas \\
        --input UNet_ResNet50_default.pth --output weights/cxas/unet_resnet50.safetensors

A training checkpoint may hold the run's arguments or numpy objects besides the weights, and layers
that the network does not use. No code in the file is run (common/pickled.py). Every tensor of the
network must be there and fit. Everything else is left out, and named in the log.
"""

import argparse
import logging
from pathlib import Path

from workflow_scripts.common.checkpoints import load_exactly, load_state
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.pickled import read_shells
from workflow_scripts.downstream.segmentation.cxas import network_and_state

log = logging.getLogger(__name__)


def convert(source: Path, target: Path) -> list[str]:
    """Write the network's tensors as safetensors; return the names of those left out.

    Raises:
        InputError: the file is missing, damaged or holds another network; nothing is written.
    """
    from safetensors.torch import save_file

    loaded = load_state(source) if source.suffix == ".safetensors" else read_shells(source)
    if not isinstance(loaded, dict):
        raise InputError(
            f"the file holds a {type(loaded).__name__}, not a checkpoint",
            source,
            "give UNet_ResNet50_default.pth of CXAS or a mirror (docs/how-to/mimic-and-weights.md)",
        )
    network, state = network_and_state(loaded, source, tensors_alone=False)
    needed = network.state_dict().keys()
    load_exactly(network, {name: state[name] for name in state if name in needed}, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as temporary:
        save_file(
            {key: value.contiguous() for key, value in network.state_dict().items()}, temporary
        )
    return [name for name in state if name not in needed]


def main(argv: list[str] | None = None) -> None:
    """Convert one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, required=True, help="the published .pth")
    parser.add_argument("--output", type=Path, required=True, help=".safetensors to write")
    args = parser.parse_args(argv)
    left_out = convert(args.input, args.output)
    if left_out:
        names = ", ".join(left_out[:10]) + ", ..." * (len(left_out) > 10)
        log.warning(
            "%d tensors that the network does not have are left out: %s", len(left_out), names
        )
    print(f"the network's tensors are in {args.output}")


if __name__ == "__main__":
    run_script(main)
