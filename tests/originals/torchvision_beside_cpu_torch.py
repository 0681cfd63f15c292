"""torchvision beside a CPU build of torch, where its own import stops.

It registers the fake forms of two compiled operators that such a build lacks. Declared before, they
are there to be registered; they must not be called. Where torchvision imports, nothing is done.
"""

import importlib
import sys

import torch

_LIBRARIES: list[torch.library.Library] = []  # an operator lives as long as its library


def import_torchvision() -> None:
    """Import torchvision, with the two operators declared if need be.

    Raises:
        RuntimeError: it does not import for another reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)
    importlib.import_module("torchvision")
