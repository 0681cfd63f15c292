"""Drawing radiographs and encoding them: from a scene to the bytes of its three files."""

import io
import multiprocessing
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workflow_scripts.world.anatomy import Patient, Study
from workflow_scripts.world.findings import Finding
from workflow_scripts.world.radiograph import render


class Scene(NamedTuple):
    """The arguments of `render`, which determine a picture."""

    patient: Patient
    study: Study
    findings: tuple[Finding, ...]
    size: int


def draw_pictures(scene: Scene) -> tuple[bytes, bytes, bytes]:
    """Return the encoded radiograph of a scene and its masks of clavicles and of organs."""
    drawn = render(*scene)
    return jpeg_bytes(drawn.image), mask_bytes(drawn.clavicles), organ_bytes(drawn.organs)


def draw_all(scenes: Sequence[Scene], threads: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield the result of `draw_pictures` for each scene, in order, in several processes."""
    if threads == 1:
        yield from map(draw_pictures, scenes)
        return
    with multiprocessing.get_context("spawn").Pool(threads) as pool:
        yield from pool.imap(draw_pictures, scenes, chunksize=16)
        pool.close()
        pool.join()


def jpeg_bytes(image: NDArray[np.uint8]) -> bytes:
    """Encode a grey image (h, w) as MIMIC-CXR-JPG does: JPEG, quality 95."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def mask_bytes(clavicles: NDArray[np.bool_]) -> bytes:
    """Encode clavicle masks (2, h, w) as one grey PNG: 1 the right, 2 the left, 0 neither."""
    labels = np.where(clavicles[0], 1, np.where(clavicles[1], 2, 0)).astype(np.uint8)
    return _png(labels)


def organ_bytes(organs: NDArray[np.bool_]) -> bytes:
    """Encode organ masks (3, h, w) as one grey PNG: 1 the right lung, 2 the left, 4 the heart."""
    return _png(np.packbits(organs[::-1], axis=0, bitorder="big")[0] >> 5)


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
