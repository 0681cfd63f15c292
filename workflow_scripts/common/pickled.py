"""Files of pickled objects, read without running code that they contain or name.

Unpickling an object can run any code that its author put there. Here it runs none: only the classes
and functions that build tensors are called, and an empty shell that keeps its state replaces every
other class or function. The library that wrote the objects is not needed.
"""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch

from workflow_scripts.common.checkpoints import check_weight_file
from workflow_scripts.common.errors import InputError, first_line

_KINDS: Final = (
    "Float",
    "Double",
    "Half",
    "BFloat16",
    "Long",
    "Int",
    "Short",
    "Char",
    "Byte",
    "Bool",
)
_TENSOR_PARTS: Final = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    ("builtins", "set"),
    ("copyreg", "_reconstructor"),
    ("builtins", "object"),
    *(("torch", f"{kind}Storage") for kind in _KINDS),
}
"""The only names that are called while the file is read; none of them runs code of the file."""


class _Shell:
    """A stand-in for an object of any class: it does nothing and keeps the object's state."""

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
        """Ignore an element, for objects that are filled like a list."""

    def extend(self, values: Any) -> None:
        """Ignore elements, for objects that are filled like a list."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Files written by Python 2 use its module names.
        module = "builtins" if module == "__builtin__" else module
        module = "copyreg" if module == "copy_reg" else module
        if (module, name) in _TENSOR_PARTS:
            return super().find_class(module, name)
        return type(name, (_Shell,), {})


def _load(file: Any, **kwargs: Any) -> Any:
    return _Unpickler(file, **kwargs).load()


def read_shells(path: Path) -> Any:
    """Return the content of a torch file of pickled objects: tensors, containers and shells.

    A shell has the attributes of the object that it stands for.

    Raises:
        InputError: the file is missing, damaged or not a checkpoint.
    """
    check_weight_file(path)
    reader: Any = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="shells")
    try:
        with warnings.catch_warnings():
            # Old files carry their classes' source, which torch cannot compare with shells.
            warnings.filterwarnings("ignore", "Couldn't retrieve source code")
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)
    except Exception as error:  # a damaged or hostile file may raise anything
        raise InputError(
            f"cannot read the checkpoint: {first_line(error)}", path, "download it again"
        ) from None
