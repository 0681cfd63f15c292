"""The kinds of planted leaks, in words."""

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
"""Each kind of planted leak that is made from a radiograph, in words."""

OVERFITTED: Final = "overfitted"
"""Images of a model that was overfitted on a few patients, where the config names any."""

EVERY_KIND: Final[Mapping[str, str]] = {
    **KINDS,
    OVERFITTED: "images of a model that learned a few patients by heart",
}
