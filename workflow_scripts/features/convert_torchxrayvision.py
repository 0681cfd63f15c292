"""Write the tensors of a torchxrayvision model, which is published as a pickled object, once.

    python -m workflow_scripts.features.convert_torchxrayvision \\
        --input mimic_ch-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt \\
        --output weights/densenet121-res224-mimic_ch.safetensors

Unpickling an object can run any code that its author put there. Here it runs none: of all that the
file names, only what tensors are made of is called; every other class or function is replaced by an
empty shell that keeps what it is given, and the tensors are then read from the shells. Neither
torchxrayvision nor torchvision is needed.
"""

import argparse
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import Tensor

from workflow_scripts.common.checkpoints import check_weight_file
from workflow_scripts.common.errors import InputError, first_line, run_script
from workflow_scripts.common.files import whole_file

_TENSOR_PARTS: Final = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    ("builtins", "set"),
    ("copyreg", "_reconstructor"),
    ("builtins", "object"),
    *(("torch", f"{kind}Storage") for kind in ("Float", "Double", "Half", "Long", "Int", "Byte")),
}
"""All that is called while the file is read; none of it runs code of the file."""


class _Shell:
    """Stands for an object of any class: does nothing, keeps its state."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Shell":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.__dict__.update(state)

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Ignore an element, of an object that is filled like a list."""

    def extend(self, values: Any) -> None:
        """Ignore elements, of an object that is filled like a list."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Python 2 named it otherwise.
        module = "builtins" if module == "__builtin__" else module
        module = "copyreg" if module == "copy_reg" else module
        if (module, name) in _TENSOR_PARTS:
            return super().find_class(module, name)
        return type(name, (_Shell,), {})


def _load(file: Any, **kwargs: Any) -> Any:
    return _Unpickler(file, **kwargs).load()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a pickled model object, without running code of the file.

    Raises:
        InputError: no checkpoint, a damaged one, or one without a model's parameters.
    """
    check_weight_file(path)
    reader: Any = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="shells")
    try:
        with warnings.catch_warnings():
            # Old files carry their classes' source, which torch cannot compare with shells.
            warnings.filterwarnings("ignore", "Couldn't retrieve source code")
            model = torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)
    except Exception as error:
        raise InputError(
            f"cannot read the model: {first_line(error)}", path, "download it again"
        ) from None
    found = dict(_tensors(model, ""))
    if not found:
        raise InputError(
            "the file holds no model with parameters",
            path,
            "give the file that torchxrayvision's release has for densenet121-res224-mimic_ch",
        )
    return found


def _tensors(module: Any, prefix: str) -> Any:
    """Yield names and tensors as `state_dict` orders them."""
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
