"""The names of encoders: each file in `features/encoders/` is one."""

from pathlib import Path
from typing import Final

ALWAYS: Final = ("rad_dino", "biovil_t_image", "biovil_t_text", "reid")
"""Encoders that every run needs, because parts of the workflow name them."""

_SHARED: Final = ("__init__", "layout", "transform")
"""The files in the folder that are not encoders."""


def encoder_names() -> tuple[str, ...]:
    """Return the names of all encoders, sorted."""
    folder = Path(__file__).resolve().parents[1] / "features/encoders"
    return tuple(sorted({path.stem for path in folder.glob("*.py")} - set(_SHARED)))


def distance_encoders() -> tuple[str, ...]:
    """Return the encoders with features in which distances may be measured.

    These are all encoders except those of alignment and re-identification.
    """
    return tuple(name for name in encoder_names() if name not in ALWAYS[1:])
