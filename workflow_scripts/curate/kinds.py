"""The kinds of planted leaks, with their descriptions for readers."""

from collections.abc import Mapping
from typing import Final

KINDS: Final[Mapping[str, str]] = {
    "copy": "exact copies",
    "flip": "mirrored copies",
    "brighter": "brightened copies",
    "window": "copies with another gray window",
    "crop": "cropped copies",
    "rotation": "copies turned by a few degrees",
    "jpeg": "copies saved as JPEG",
    "blend": "mixtures of two patients",
}
"""The kinds that are made from a radiograph, each with its description."""

OVERFITTED: Final = "overfitted"
"""The kind of images of a model that was overfitted on a few patients (`curate.overfitted`)."""

EVERY_KIND: Final[Mapping[str, str]] = {
    **KINDS,
    OVERFITTED: "images of a model that learned a few patients by heart",
}
