"""Conversion of an image file's samples to 8 bits, upright and opaque; ambiguous files are refused.

A file says how many bits a sample has, but seldom how many of them are used. Radiographs use 10 to
14 bits, which are often stored unscaled in 16. Read as 16-bit values, such images are nearly black.
Nothing in the file tells a 12-bit film from a dark 16-bit one, so a guess would be wrong for one of
them. The user states it in the config (`cohort.bits_used`), and the workflow passes it to every job
that decodes images.
"""

import os
from typing import Final

import numpy as np
from PIL import Image

from workflow_scripts.common.errors import InputError

_ORIENTATION: Final = 0x0112
"""The orientation tag of Exif and TIFF (Exif 2.3, 4.6.4)."""

_PHOTOMETRIC: Final = 0x0106
"""The PhotometricInterpretation tag of TIFF (6.0, section 8)."""

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
"""Formats that state their largest value; Pillow scales their samples to 16 bits."""

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
"""The environment variable that says how many of 16 bits are used, see `bits_used`. Without it, as
when a printed command is run by hand, an image with values in the upper half is read as 16 bits,
and any other 16-bit image is refused."""

BITS: Final = range(9, 16)

LONGEST: Final = 32
"""The largest allowed ratio of an image's longer side to its shorter one. Scaled to 512 pixels on
the shorter side, an image of 1 x 20000 pixels would take 5 GB."""


def bits_used() -> int | None:
    """Return how many bits of a 16-bit sample are used; None where all 16 are.

    Raises:
        InputError: the environment variable `BITS_USED` is not a whole number in `BITS`.
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
    """Return the setting that a digest of decoded images must include; empty for all 16 bits."""
    bits = bits_used()
    return {} if bits is None else {"bits_used": str(bits)}


def stored_as(image: Image.Image) -> str:
    """Return how an opened image's samples are stored (`L`, `RGB;16B`, `I;12`), before loading."""
    tiles = getattr(image, "tile", ())  # only an image opened from a file has any
    if not tiles:
        return ""
    arguments = tiles[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def eight_bits(image: Image.Image, stored: str, name: str) -> Image.Image:
    """Return a loaded image in 8 bits per channel, gray (L) or in colour (RGB).

    16-bit gray is scaled by 1/257 (65535 becomes 255). 12-bit gray is scaled by 255/4095, whether
    the file declares 12 bits or `bits_used` says so. A TIFF in which 0 is white is inverted. 8-bit
    samples stay as they are, bit for bit.

    Args:
        image: loaded.
        stored: from `stored_as`.
        name: what an error calls it.

    Raises:
        InputError: the samples have 16 bits, but their upper half is never used and `bits_used` is
            not set, or a value exceeds what `bits_used` allows; they have more than 16 bits, a sign
            or a floating point; or pixels are transparent.
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
    """Refuse a file with several pictures, and a strip too narrow to be a radiograph.

    A camera's MPO file is accepted: its first picture is the photograph, the others are previews.

    Args:
        image: opened, before it is loaded.
        name: what an error calls it.

    Raises:
        InputError: the file is one of the two.
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
    """Return an image rotated or mirrored as the Exif orientation of its file says.

    Args:
        shown: the file's pixels.
        source: the file, loaded; a missing or unreadable orientation changes nothing.
    """
    try:
        orientation = source.getexif().get(_ORIENTATION)
    except Exception:  # Pillow may raise anything on malformed Exif bytes
        return shown
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return shown if turn is None else shown.transpose(turn)


def _white_is_zero(image: Image.Image) -> bool:
    """Return whether 0 is white in a TIFF; Pillow inverts such 8-bit samples, not 16-bit ones."""
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _white_level(largest: int, name: str) -> int:
    """Return the 16-bit value of white: the largest that the bits in use (`bits_used`) can hold."""
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

    An image with transparent pixels is refused. The value stored under a transparent pixel is
    arbitrary, often black, and nothing says which background was meant: a radiograph on black and
    the same one on white are two different images.
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
