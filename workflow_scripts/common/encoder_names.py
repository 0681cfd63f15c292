"""The encoders by name: each is a file in `features/encoders/`, in use because it is there."""

from pathlib import Path
from typing import Final

ALWAYS: Final = ("rad_dino", "biovil_t_image", "biovil_t_text", "reid")
"""Encoders that every run needs: parts of the workflow ask for them by name."""

_SHARED: Final = ("__init__", "layout", "transform")
"""The files beside the encoders that are none."""


def encoder_names() -> tuple[str, ...]:
    """Return the names of all encoders, sorted."""
    folder = Path(__file__).resolve().parents[1] / "features/encoders"
    return tuple(sorted({path.stem for path in folder.glob("*.py")} - set(_SHARED)))


def distance_encoders() -> tuple[str, ...]:
    """Return the encoders in whose features distances may be taken.

    They are all but those of alignment and of re-identification.
    """
    return tuple(name for name in encoder_names() if name not in ALWAYS[1:])
