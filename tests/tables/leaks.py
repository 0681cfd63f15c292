"""Looks through a published bundle for patients, by other means than the code that packs it.

Every file is opened as what it may be: an archive, an image, text that carries encoded parts. What
decodes as an image is compared with the cohort at a small size, so that resizing, compression and
small changes do not hide it.
"""

import base64
import functools
import gzip
import io
import re
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image

SIGNATURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"RIFF",
    b"II*\x00",
    b"BM",
)
BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)}
"""Sizes that a bitmap's header may have: a text has the two letters of its signature often."""

SIDE = 24


@functools.lru_cache(maxsize=1)
def all_parts(data):
    """Return `parts_of` as a list; of one file, images and words are looked for in turn."""
    return list(parts_of(data))


def parts_of(data, depth=0):
    """Yield a file's bytes and those of everything that it carries, packed or encoded."""
    yield data
    if depth > 4:
        return
    for unpack in (_tar, _zip, _gzip, _zlib, _base64, _hex):
        for part in unpack(data):
            yield from parts_of(part, depth + 1)


def _tar(data):
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            return [archive.extractfile(m).read() for m in archive if m.isfile()]
    except tarfile.TarError:
        return []


def _zip(data):
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def _gzip(data):
    try:
        return [gzip.decompress(data)] if data[:2] == b"\x1f\x8b" else []
    except (OSError, EOFError, zlib.error):  # other bytes begin like this, too
        return []


def _zlib(data):
    try:
        return [zlib.decompress(data)] if data[:1] == b"x" else []
    except zlib.error:
        return []


def _base64(data):
    if not _is_text(data):
        return
    text = re.sub(rb"\\n|\s", b"", data)
    for letters, altchars in ((rb"+/", b"+/"), (rb"_-", b"-_")):
        for run in re.findall(rb"[A-Za-z0-9%b]{120,}" % letters, text):
            if altchars == b"_-" and not re.search(rb"[_-]", run):
                continue  # a piece of a run of the other alphabet
            whole = run[:-1] if len(run) % 4 == 1 else run
            yield base64.b64decode(whole + b"=" * (-len(whole) % 4), altchars)


def _hex(data):
    if not _is_text(data):
        return []
    return [bytes.fromhex(r.decode()) for r in re.findall(rb"(?:[0-9a-fA-F]{2}){200,}", data)]


def _is_text(data):
    try:
        return bool(data.decode("utf-8"))
    except UnicodeDecodeError:
        return False


def images_in(data):
    """Return every image that a file is or carries, as small gray arrays."""
    found = []
    for part in all_parts(data):
        for start in sorted({0, *_starts(part)}):
            try:
                with Image.open(io.BytesIO(part[start:])) as image:
                    found.append(small(image))
            except Exception:  # not an image, or not from here on
                continue
    return found


def _starts(part):
    """Yield where in a file an image may begin."""
    for signature in SIGNATURES:
        for found in re.finditer(re.escape(signature), part):
            at = found.start()
            if signature != b"BM" or part[at + 14 : at + 18] in BMP_HEADERS:
                yield at


def small(image):
    """Return an image as a standardised (SIDE, SIDE) array."""
    gray = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), float)
    return (gray - gray.mean()) / (gray.std() + 1e-6)


def resembles(image, cohort):
    """Whether an image correlates with any of the cohort's, plain or mirrored.

    Args:
        image: see `small`.
        cohort: (n, SIDE, SIDE) likewise.
    """
    best = max((cohort * view).mean(axis=(1, 2)).max() for view in (image, image[:, ::-1]))
    return best > 0.95


def words_in(data):
    """Return all text that a file is or carries, lower case, as words with single spaces."""
    texts = []
    for part in all_parts(data):
        try:
            texts.append(part.decode("utf-8"))
        except UnicodeDecodeError:
            continue
    return " ".join(" ".join(texts).lower().split())
