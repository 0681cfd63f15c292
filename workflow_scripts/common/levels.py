"""From what an image file holds to 8 bits, upright and opaque; what cannot be decided is refused.

A file says how many bits a sample has, seldom how many of them are used. Radiographs have 10 to 14
bits, and are often stored as they are in 16: read as 16, they are black. Nothing in the file tells
a 12-bit film from a dark one, so that a guess would be wrong for one of them. Whoever knows says it
in the config, `cohort.bits_used`; the workflow hands it to every job that decodes images.
"""

import os
from typing import Final

import numpy as np
from PIL import Image

from workflow_scripts.common.errors import InputError

_ORIENTATION: Final = 0x0112
"""The tag of Exif and TIFF (Exif 2.3, 4.6.4)."""

_PHOTOMETRIC: Final = 0x0106
"""The tag of TIFF (6.0, section 8)."""

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SCALED: Final = ("PPM", "JPEG2000")
"""Formats that say their largest value; Pillow brings theirs to 16 bits."""

_TOP: Final = 65535
_HALF: Final = 32768
_RESCALE: Final = (
    "save the images in 8 bits, or scale them to all of 16 bits (12-bit values times 16); where a "
    "window belongs to a film, apply it"
)
_SAY: Final = (
    f"{_RESCALE}; or, where all images of 16 bits use the same number of them, say it in the "
    "config: cohort.bits_used"
)

BITS_USED: Final = "CHEXGENBENCH_BITS_USED"
"""Environment variable: how many bits of 16 are used, see `bits_used`. Where a printed command is
run by hand without it, a film that reaches the upper half is read as one of 16 bits, and one that
does not is refused."""

BITS: Final = range(9, 16)

LONGEST: Final = 32
"""How many times its shorter side an image's longer one may be: scaled to 512 pixels on the shorter
side, one of 1 x 20000 would take 5 GB."""


def bits_used() -> int | None:
    """Return how many bits the samples of images that are stored in 16 use; None where all 16 are.

    Raises:
        InputError: the environment variable `BITS_USED` is no number of `BITS`.
    """
    said = os.environ.get(BITS_USED, "")
    if not said:
        return None
    if not said.isascii() or not said.isdecimal() or int(said) not in BITS:
        raise InputError(
            f"{said!r} bits of 16 cannot be what images use",
            f"the environment variable {BITS_USED}",
            f"a whole number from {BITS[0]} to {BITS[-1]}; cohort.bits_used in the config sets it",
        )
    return int(said)


def said_of_bits() -> dict[str, str]:
    """Return what a digest of decoded images' contents adds; nothing where all 16 bits are used."""
    bits = bits_used()
    return {} if bits is None else {"bits_used": str(bits)}


def stored_as(image: Image.Image) -> str:
    """Return how an opened image's samples are stored (`L`, `RGB;16B`, `I;12`), before loading."""
    tiles = getattr(image, "tile", ())  # of an image from a file alone
    if not tiles:
        return ""
    arguments = tiles[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def eight_bits(image: Image.Image, stored: str, name: str) -> Image.Image:
    """Return a loaded image in 8 bits per channel, gray (L) or in colour (RGB).

    16 bits of gray are scaled by 1/257 (65535 becomes 255), 12 bits that the file declares by
    255/4095, and likewise where `bits_used` says that 12 of 16 are; of a TIFF in which 0 is white
    they are inverted. 8 bits stay as they are, bit for bit.

    Args:
        image: loaded.
        stored: from `stored_as`.
        name: what an error calls it.

    Raises:
        InputError: 16 bits of which the upper half is never used though `bits_used` says nothing,
            or of which more are used than it says; more than 16 bits, signed or floating-point
            values, or pixels that are transparent.
    """
    if image.mode in ("L", "RGB") and ";16" not in stored and not image.has_transparency_data:
        return image.copy()
    if image.mode == "F":
        raise InputError("floating-point pixels: what is white is not said", name, _RESCALE)
    if image.mode == "I" and image.format not in _SCALED:
        raise InputError(
            "pixels of 32 bits or with a sign: what is black and what is white is not said",
            name,
            _RESCALE,
        )
    if image.mode.startswith("I"):
        values = np.asarray(image)
        top = 4095 if stored.startswith("I;12") else _TOP
        if top == _TOP and image.format not in _SCALED:
            top = _white_level(int(values.max()), name)
        if _white_is_zero(image):
            values = top - values
        scale = 257 if top == _TOP else top / 255
        return Image.fromarray((values.astype(np.float64) / scale).round().astype("u1"))
    if image.has_transparency_data:
        image = _opaque(image, name)
    if ";16" in stored:  # Pillow keeps the upper 8 of a colour's 16 bits
        if bits_used() is not None:
            raise InputError(
                "16 bits of colour, of which the lower 8 cannot be read, though cohort.bits_used "
                f"is {bits_used()}",
                name,
                "save the image in gray, or in 8 bits",
            )
        _white_level(256 * int(np.asarray(image).max()), name)
    return image.copy() if image.mode in ("L", "RGB") else image.convert("RGB")


def require_one_picture(image: Image.Image, name: str) -> None:
    """Refuse a file of several pictures, and one that is a strip: no radiograph is.

    Of a camera's MPO the first picture is the photograph, the others are previews.

    Args:
        image: opened, before it is loaded.
        name: what an error calls it.

    Raises:
        InputError: it is one of both.
    """
    pictures = getattr(image, "n_frames", 1)
    if pictures > 1 and image.format != "MPO":
        raise InputError(
            f"{pictures} pictures in one file: which of them is meant is not said",
            name,
            "save the one that is meant as a file of its own",
        )
    if max(image.size) > LONGEST * min(image.size):
        raise InputError(
            f"{image.width} x {image.height} pixels: a strip, no radiograph",
            name,
            f"restore the image; its longer side may be {LONGEST} times the shorter",
        )


def upright(shown: Image.Image, source: Image.Image) -> Image.Image:
    """Return an image turned as the Exif orientation of the file that it is of says.

    Args:
        shown: the file's pixels.
        source: the file, loaded; what it does not say, or not legibly, turns nothing.
    """
    try:
        orientation = source.getexif().get(_ORIENTATION)
    except Exception:  # over any bytes
        return shown
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return shown if turn is None else shown.transpose(turn)


def _white_is_zero(image: Image.Image) -> bool:
    """Return whether a TIFF says that 0 is white; Pillow inverts 8 bits of it, but not 16."""
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _white_level(largest: int, name: str) -> int:
    """Return the value of 16 bits that is white: of the bits that the config names, or of all."""
    bits = bits_used()
    if bits is not None:
        top = 2**bits - 1
        if largest > top:
            raise InputError(
                f"16 bits per pixel with a value of {largest}, though cohort.bits_used is {bits}: "
                f"no value is above {top}",
                name,
                "correct cohort.bits_used, or take it out of the config where all 16 bits are used",
            )
        return top
    if largest < _HALF:
        raise InputError(
            f"16 bits per pixel, and no value above {largest} of {_TOP}: how many bits are used "
            "is not said, and as 16 bits the image is dark",
            name,
            _SAY,
        )
    return _TOP


def _opaque(image: Image.Image, name: str) -> Image.Image:
    """Drop an alpha channel that hides nothing.

    One that does is refused: what stands under a transparent pixel is any value, often black, and
    which background was meant nobody says; a radiograph on black and one on white are two.
    """
    with_alpha = image.convert("RGBA")
    alpha = np.asarray(with_alpha.getchannel("A"))
    if alpha.min() < 255:
        raise InputError(
            f"{(alpha < 255).mean():.1%} of the pixels are transparent: what shows there is not "
            "said",
            name,
            "save the image without transparency, on the background that it is meant for",
        )
    return image.convert("L") if image.mode in ("LA", "La", "L") else with_alpha.convert("RGB")
