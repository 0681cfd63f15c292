"""Rough images: each line of the tables is a file, and its decoded pixels or its refusal.

Most files show `RAMP`: 0, 85, 170, 255 from left to right, twice as wide as it is high.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import decode_image, is_constant
from workflow_scripts.common.levels import BITS_USED
from workflow_scripts.downstream.segmentation.masks import open_mask
from workflow_scripts.finetune.data import digest_of_files

RAMP = np.tile(np.array([0, 85, 170, 255]), (2, 1))
COLOUR = np.stack([RAMP, RAMP[:, ::-1], np.full_like(RAMP, 9)], axis=2)
TURNED = {  # by Exif orientation: RAMP with one corner marked, as it has to be decoded
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a),
}
CORNER = np.array([[0, 85, 170, 255], [40, 90, 100, 110]])


def saved(array, kind, dtype=np.uint8, mode=None, **options):
    """Encode an array as an image file."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.asarray(array).astype(dtype))
    (image.convert(mode) if mode else image).save(buffer, format=kind, **options)
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def png(width, height, depth, colour, rows, *chunks):
    """Encode a PNG chunk by chunk, for variants that Pillow cannot write (16-bit colour, tRNS)."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*one) for one in chunks), chunk(b"IDAT", data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def deep_png(array):
    """Encode colour, (h, w, 3), as a PNG of 16 bits per channel."""
    rows = [row.tobytes() for row in array.astype(">u2")]
    return png(array.shape[1], array.shape[0], 16, 2, rows)


def pgm(largest, array):
    head = f"P5 {array.shape[1]} {array.shape[0]} {largest}\n".encode()
    return head + array.astype(">u2" if largest > 255 else "u1").tobytes()


def tiff(array, bits, photometric=1, sample_format=1, data=None):
    """Encode a gray little-endian TIFF with a single strip."""
    height, width = array.shape
    data = array.tobytes() if data is None else data
    tags = [
        (256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data)), (339, 3, sample_format),
    ]  # fmt: skip
    place = 8 + len(data) + len(data) % 2
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    return b"II*\0" + struct.pack("<I", place) + data.ljust(place - 8, b"\0") + directory


def packed_12_bits(array):
    """Pack 12-bit values, two in three bytes, most significant bits first."""
    flat = array.reshape(-1, 2).astype(int)
    pairs = [bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in flat]
    return b"".join(pairs)


def with_alpha(gray, alpha, mode="LA"):
    image = Image.fromarray(gray.astype(np.uint8)).convert(mode)
    image.putalpha(Image.fromarray(np.broadcast_to(alpha, gray.shape).astype(np.uint8)))
    return image


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def palette(transparency=None):
    image = Image.fromarray((RAMP // 85).astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255])
    return encoded(image, **({} if transparency is None else {"transparency": transparency}))


def several(kind, count=2):
    """Encode a file with several different pictures."""
    first, *others = (
        Image.fromarray(((RAMP + 50 * i) % 256).astype(np.uint8)) for i in range(count)
    )
    return encoded(first.convert("RGB"), kind, save_all=True, append_images=others)


def turned_bit(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


HALF = np.where(RAMP > 100, 255, 0)  # an alpha channel that hides half of the picture
UNSAID = "how many bits are used is not said"

# name: the file, and the pixels that it decodes to, gray (h, w) or colour (h, w, 3)
DECODED = {
    "8-bit gray PNG": (saved(RAMP, "PNG"), RAMP),
    "8-bit colour PNG": (saved(COLOUR, "PNG"), COLOUR),
    "8-bit gray TIFF": (saved(RAMP, "TIFF"), RAMP),
    "8-bit gray TIFF, 0 is white": (tiff(255 - RAMP.astype(np.uint8), 8, 0), RAMP),
    "8-bit gray BMP": (saved(RAMP, "BMP"), RAMP),
    "8-bit gray GIF": (saved(RAMP, "GIF"), RAMP),
    "8-bit gray WebP": (saved(RAMP, "WEBP", lossless=True, mode="RGB"), RAMP),
    "8-bit gray PGM": (pgm(255, RAMP), RAMP),
    "dark 8 bits stay dark": (saved(RAMP // 17, "PNG"), RAMP // 17),
    "1 bit": (saved(RAMP > 100, "PNG", bool), HALF),
    "2-bit gray PNG": (png(4, 2, 2, 0, [bytes([0b00011011])] * 2), RAMP),
    "4-bit gray PNG": (png(4, 2, 4, 0, [bytes([0x05, 0xAF])] * 2), RAMP),
    "palette": (palette(), RAMP),
    "16-bit gray PNG": (saved(RAMP * 257, "PNG", np.uint16), RAMP),
    "16-bit gray PNG, rounded": (saved(RAMP * 257 + 100 * (RAMP < 255), "PNG", np.uint16), RAMP),
    "16-bit gray TIFF": (saved(RAMP * 257, "TIFF", np.uint16), RAMP),
    "16-bit gray TIFF, 0 is white": (tiff((65535 - RAMP * 257).astype("<u2"), 16, 0), RAMP),
    "16-bit gray PGM": (pgm(65535, RAMP * 257), RAMP),
    "12-bit gray PGM": (pgm(4095, np.round(RAMP * 4095 / 255)), RAMP),
    "12-bit gray TIFF": (
        tiff(RAMP, 12, data=packed_12_bits(np.round(RAMP * 4095 / 255))), RAMP
    ),
    "12 bits times 16 in 16": (saved(np.round(RAMP * 4095 / 255) * 16, "PNG", np.uint16), RAMP),
    "16 bits, just above half": (
        saved(np.where(RAMP == 255, 32768, 0), "PNG", np.uint16), np.where(RAMP == 255, 128, 0)
    ),
    "16-bit colour PNG": (deep_png(COLOUR * 257), COLOUR),
    "opaque gray alpha": (encoded(with_alpha(RAMP, 255)), RAMP),
    "opaque colour alpha": (encoded(with_alpha(RAMP, 255, "RGBA")), RAMP),
    "opaque palette": (palette(bytes([255] * 4)), RAMP),
    "a transparent gray level that no pixel has": (saved(RAMP, "PNG", transparency=7), RAMP),
    "more bytes behind the picture": (saved(RAMP, "PNG") + b"note", RAMP),
    "a camera's file with a preview": (
        encoded(Image.fromarray(np.full((8, 8, 3), 90, np.uint8)), "MPO", save_all=True,
                append_images=[Image.new("RGB", (8, 8))]),
        np.full((8, 8), 90),
    ),
    "just no strip": (saved(np.arange(32).reshape(1, 32), "PNG"), np.arange(32).reshape(1, 32)),
    "orientation 1": (saved(RAMP, "PNG", exif=exif(1)), RAMP),
    "orientation 9 is none": (saved(RAMP, "PNG", exif=exif(9)), RAMP),
    "a damaged Exif turns nothing": (saved(RAMP, "PNG", exif=b"Exif\0\0II*\0\xff"), RAMP),
    "orientation 6 in 16 bits": (
        saved(CORNER * 257, "PNG", np.uint16, exif=exif(6)), TURNED[6](CORNER)
    ),
    "orientation 6 of a TIFF": (saved(CORNER, "TIFF", tiffinfo={274: 6}), TURNED[6](CORNER)),
    "orientation 8 in WebP": (
        saved(CORNER, "WEBP", mode="RGB", lossless=True, exif=exif(8)), TURNED[8](CORNER)
    ),
    **{
        f"orientation {i}": (saved(CORNER, "PNG", exif=exif(i)), turn(CORNER))
        for i, turn in TURNED.items()
    },
}  # fmt: skip

# name: the file, and words of the refusal
REFUSED = {
    "12 bits in a 16-bit PNG": (saved(RAMP * 16, "PNG", np.uint16), "no value above 4080 of 65535"),
    "10 bits in a 16-bit TIFF": (saved(RAMP * 4, "TIFF", np.uint16), "no value above 1020"),
    "14 bits in a 16-bit PNG": (saved(RAMP * 64, "PNG", np.uint16), UNSAID),
    "15 bits in a 16-bit PNG": (saved(RAMP * 128, "PNG", np.uint16), UNSAID),
    "8 bits in a 16-bit PNG": (saved(RAMP, "PNG", np.uint16), "no value above 255"),
    "a black 16-bit PNG": (saved(RAMP * 0, "PNG", np.uint16), "no value above 0"),
    "12 bits in a big-endian 16-bit TIFF": (
        encoded(Image.fromarray((RAMP * 16).astype(">u2")), "TIFF"), UNSAID
    ),
    "12 bits in 16 bits of colour": (
        deep_png(COLOUR * 16), UNSAID
    ),
    "int32 TIFF": (saved(RAMP * 16, "TIFF", np.int32), "32 bits or with a sign"),
    "int32 TIFF of 8 bits": (saved(RAMP, "TIFF", np.int32), "32 bits or with a sign"),
    "uint32 TIFF": (tiff(RAMP.astype("<u4"), 32), "32 bits or with a sign"),
    "signed 16-bit TIFF": (
        tiff((RAMP - 100).astype("<i2"), 16, 1, 2), "cannot decode|with a sign"
    ),
    "float TIFF, 0 to 1": (saved(RAMP / 255, "TIFF", np.float32), "floating-point"),
    "float TIFF, 0 to 255": (saved(RAMP, "TIFF", np.float32), "floating-point"),
    "float TIFF of NaN": (saved(RAMP * np.nan, "TIFF", np.float32), "floating-point"),
    "gray with alpha": (encoded(with_alpha(RAMP, HALF)), "50.0% of the pixels are transparent"),
    "colour with alpha": (encoded(with_alpha(RAMP, HALF, "RGBA")), "50.0% of the pixels"),
    "a shape of alpha alone": (encoded(with_alpha(RAMP * 0, RAMP, "RGBA")), "75.0% of the pixels"),
    "faint alpha": (encoded(with_alpha(RAMP, 254)), "100.0% of the pixels are transparent"),
    "alpha in WebP": (
        encoded(with_alpha(RAMP, HALF, "RGBA"), "WEBP", lossless=True), "are transparent"
    ),
    "alpha in TIFF": (encoded(with_alpha(RAMP, HALF, "RGBA"), "TIFF"), "are transparent"),
    "a transparent colour of a palette": (palette(0), "25.0% of the pixels"),
    "a transparent gray level": (saved(RAMP, "PNG", transparency=85), "25.0% of the pixels"),
    "a TIFF of three pages": (several("TIFF", 3), "3 pictures in one file"),
    "a moving GIF": (several("GIF"), "2 pictures in one file: which of them is meant"),
    "a moving PNG": (several("PNG"), "2 pictures in one file"),
    "a moving WebP": (several("WEBP"), "2 pictures in one file"),
    "a strip": (saved(np.arange(40).reshape(1, 40), "PNG"), "40 x 1 pixels: a strip"),
    "an upright strip": (saved(np.arange(66).reshape(66, 1), "PNG"), "1 x 66 pixels: a strip"),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot decode an image"),
    "a web page": (b"<!DOCTYPE html>", "cannot decode an image"),
    "NIfTI": (struct.pack("<i", 348) + bytes(344), "cannot decode an image"),
    "an array of numpy": (b"\x93NUMPY\x01\0" + bytes(120), "cannot decode an image"),
    "a zip": (b"PK\x03\x04" + bytes(30), "cannot decode an image"),
    "40,000 million pixels": (png(200_000, 200_000, 8, 0, [b""]), "cannot decode an image"),
    "no pixels": (b"P5 0 0 255\n", "cannot decode an image"),
    "a bit that turned": (turned_bit(saved(RAMP, "PNG"), 50), "cannot decode an image"),
    "a PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot decode"),
    "truncated": (saved(np.tile(RAMP, (50, 50)), "JPEG")[:300], "cannot decode an image"),
    "empty": (b"", "cannot decode an image"),
    "a text": (b"P001;image.png\n", "cannot decode an image"),
    "DICOM": (b"\0" * 128 + b"DICM", "cannot decode an image"),
    "a PDF": (b"%PDF-1.4\n", "cannot decode an image"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "cannot decode"),
}  # fmt: skip


@pytest.mark.parametrize("name", DECODED)
def test_is_shown_as_it_is_meant(name):
    data, wanted = DECODED[name]
    wanted = wanted if wanted.ndim == 3 else np.stack([wanted] * 3, axis=2)
    shown = decode_image(data, name)
    assert shown.mode == "RGB"
    assert np.asarray(shown).tolist() == wanted.tolist()
    gray = decode_image(data, name, keep_gray=True)
    assert np.asarray(gray.convert("RGB")).tolist() == wanted.tolist()


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_with_its_reason(name, tmp_path):
    data, reason = REFUSED[name]
    path = tmp_path / "film.png"
    path.write_bytes(data)
    for source in (data, path):
        with pytest.raises(InputError, match=reason) as caught:
            decode_image(source, "film.png")
        assert "where: film.png" in str(caught.value)
        assert "remedy: " in str(caught.value)


def of_bits(bits, array=RAMP):
    """Rescale an array of 8-bit values to `bits` bits."""
    return np.round(array * (2**bits - 1) / 255)


# name: the file, the number of used bits in the config, and the pixels or words of the refusal
OF_BITS = {
    **{
        f"{bits} bits in a 16-bit {kind}": (saved(of_bits(bits), kind, np.uint16), bits, RAMP)
        for bits in (10, 12, 14, 15)
        for kind in ("PNG", "TIFF")
    },
    "12 bits in a big-endian TIFF": (
        encoded(Image.fromarray(of_bits(12).astype(">u2")), "TIFF"), 12, RAMP
    ),
    "12 bits of a TIFF, 0 is white": (tiff((4095 - of_bits(12)).astype("<u2"), 16, 0), 12, RAMP),
    "a dark film of 12 bits": (saved(of_bits(12) // 16, "PNG", np.uint16), 12, RAMP // 16),
    "a turned one": (
        saved(of_bits(12, CORNER), "PNG", np.uint16, exif=exif(6)), 12, TURNED[6](CORNER)
    ),
    "8 bits stay": (saved(RAMP, "PNG"), 12, RAMP),
    "8 bits of colour stay": (saved(COLOUR, "PNG"), 12, COLOUR),
    "a file that says its white": (pgm(4095, of_bits(12)), 10, RAMP),
    "14 bits, 12 said": (
        saved(of_bits(14), "PNG", np.uint16), 12,
        "a value of 16383, though cohort.bits_used is 12: no value is above 4095",
    ),
    "16 bits, 15 said": (saved(RAMP * 257, "TIFF", np.uint16), 15, "a value of 65535, though"),
    "one above": (
        saved(np.where(RAMP == 255, 4096, 0), "PNG", np.uint16), 12, "value of 4096, though"
    ),
    "16 bits of colour": (deep_png(COLOUR * 16), 12, "16 bits of colour.*cohort.bits_used is 12"),
    "int32": (saved(RAMP * 16, "TIFF", np.int32), 12, "32 bits or with a sign"),
    "floating-point": (saved(RAMP, "TIFF", np.float32), 12, "floating-point"),
    "8 bits said": (saved(RAMP, "PNG", np.uint16), 8, "'8' bits of 16 cannot be"),
    "16 bits said": (saved(RAMP * 257, "PNG", np.uint16), 16, "'16' bits of 16 cannot be"),
    "a word": (saved(RAMP * 257, "PNG", np.uint16), "twelve", "'twelve' bits of 16 cannot be"),
    "a superscript": (saved(RAMP * 257, "PNG", np.uint16), "\u00b9\u00b2", "bits of 16 cannot be"),
    "a sign": (saved(RAMP * 257, "PNG", np.uint16), "+12", "bits of 16 cannot be"),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_BITS)
def test_how_many_bits_are_used_may_be_said(name, monkeypatch):
    data, bits, expected = OF_BITS[name]
    monkeypatch.setenv(BITS_USED, str(bits))
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected) as caught:
            decode_image(data, "film.png")
        assert "remedy: " in str(caught.value)
        return
    wanted = expected if expected.ndim == 3 else np.stack([expected] * 3, axis=2)
    assert np.abs(np.asarray(decode_image(data, "film.png")).astype(int) - wanted).max() <= (
        1 if name == "a dark film of 12 bits" else 0
    )


def test_what_is_refused_for_its_bits_names_the_key_that_would_say_them():
    with pytest.raises(InputError) as caught:
        decode_image(saved(RAMP * 16, "PNG", np.uint16), "film.png")
    assert "cohort.bits_used" in str(caught.value.remedy)


def test_digests_of_contents_change_with_the_bits_that_are_said(monkeypatch, tmp_path):
    (tmp_path / "film.png").write_bytes(saved(RAMP * 16, "PNG", np.uint16))
    seen = []
    for bits in ("", "12", "14", "12", ""):
        monkeypatch.setenv(BITS_USED, bits)
        seen.append(digest_of_files([str(tmp_path / "film.png")]))
    assert seen[0] == seen[4]
    assert seen[1] == seen[3]
    assert len(set(seen)) == 3


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_plain_8_bits_are_what_pillow_decodes_bit_for_bit(mode, kind):
    rng = np.random.default_rng(5)
    for size in ((64, 48), (33, 57)):
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).convert(mode)
        data = encoded(image, kind)
        plain = Image.open(io.BytesIO(data))
        kept = decode_image(data, "film", keep_gray=True)
        assert (kept.mode, kept.tobytes()) == (mode, plain.tobytes())
        assert decode_image(data, "film").tobytes() == plain.convert("RGB").tobytes()


MASK = np.array([[0, 1, 1, 1], [0, 0, 0, 1]])
# name: the file of a mask, and the drawn mask
MASKS = {
    "0 and 1": (saved(MASK, "PNG"), MASK),
    "0 and 255": (saved(MASK * 255, "PNG"), MASK),
    "1 bit": (saved(MASK, "PNG", bool), MASK),
    "16 bits, 0 and 1": (saved(MASK, "PNG", np.uint16), MASK),
    "colour": (saved(np.stack([MASK * 0, MASK * 200, MASK * 0], 2), "PNG"), MASK),
    "an alpha says nothing": (encoded(with_alpha(MASK, 128, "RGBA")), MASK),
    **{
        f"orientation {i}": (saved(MASK * 255, "PNG", exif=exif(i)), turn(MASK))
        for i, turn in TURNED.items()
    },
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_turned_as_its_radiograph_is(name):
    data, wanted = MASKS[name]
    assert (np.asarray(open_mask(data, name)) // 255).tolist() == wanted.tolist()


@pytest.mark.parametrize("orientation", TURNED)
def test_a_turn_is_the_one_that_pillow_makes(orientation):
    """Compare with another implementation: Pillow's own, on a file with an Exif orientation."""
    data = saved(np.arange(24).reshape(4, 6) * 10, "PNG", exif=exif(orientation))
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert decode_image(data, "film", keep_gray=True).tobytes() == turned.tobytes()


# name: the image, and whether it is constant
CONSTANT = {
    "black": (Image.new("L", (5, 4)), True),
    "gray in colour": (Image.new("RGB", (5, 4), (9, 9, 9)), True),
    "one colour": (Image.new("RGB", (5, 4), (9, 0, 200)), True),
    "one pixel differs": (Image.fromarray(np.eye(1, 20, dtype=np.uint8).reshape(4, 5)), False),
    "one channel varies": (Image.fromarray(COLOUR.astype(np.uint8)), False),
    "a single pixel": (Image.new("L", (1, 1), 7), True),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_constant_images_are_told(name):
    image, wanted = CONSTANT[name]
    assert is_constant(image) is wanted
