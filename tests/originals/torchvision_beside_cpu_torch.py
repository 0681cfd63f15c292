"""Import torchvision with a CPU build of torch, with which its own import fails.

torchvision registers fake kernels of two compiled operators that such a build lacks. They are
declared here first, so that the registration succeeds; they must not be called. If torchvision
imports without this, nothing is done.
"""

import importlib
import sys

import torch

_LIBRARIES: list[torch.library.Library] = []  # an operator lives as long as its library


def import_torchvision() -> None:
    """Import torchvision, with the two operators declared if need be.

    Raises:
        RuntimeError: The import fails for another reason.
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
