"""Convert a torchxrayvision model, which is published as a pickled object, to safetensors.

    python -m workflow_scripts.features.convert_torchxrayvision \\
        --input mimic_ch-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt \\
        --output weights/densenet121-res224-mimic_ch.safetensors

No code in the file is run (common/pickled.py), and neither torchxrayvision nor torchvision is
needed.
"""

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor

from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.pickled import read_shells


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a pickled model object, without running code of the file.

    Raises:
        InputError: the file is missing, damaged, or does not hold a model with parameters.
    """
    model = read_shells(path)
    tensors = dict(_tensors(model, ""))
    if not tensors:
        raise InputError(
            "the file holds no model with parameters",
            path,
            "give the file that torchxrayvision's release has for densenet121-res224-mimic_ch",
        )
    return tensors


def _tensors(module: Any, prefix: str) -> Any:
    """Yield names and tensors in the order of `state_dict`."""
    state = getattr(module, "__dict__", {})
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value.detach().contiguous()
    for name, child in (state.get("_modules") or {}).items():
        yield from _tensors(child, f"{prefix}{name}.")


def main(argv: list[str] | None = None) -> None:
    """Convert one file."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, required=True, help="the published .pt")
    parser.add_argument("--output", type=Path, required=True, help=".safetensors to write")
    args = parser.parse_args(argv)
    tensors = read_tensors(args.input)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(args.output) as temporary:
        save_file(tensors, temporary)
    print(f"{len(tensors)} tensors in {args.output}")


if __name__ == "__main__":
    run_script(main)
