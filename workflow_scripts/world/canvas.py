"""Drawing in body coordinates: outlines and strokes become coverage maps of one radiograph.

In body coordinates the field of view is [-1, 1] x [-1, 1], y points down, and the patient's right
side is at negative x (the left of the picture). A pose (shift, rotation, scale) maps the body to
the picture, so a patient's outlines have the same coordinates in every study.
"""

import functools
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Array = NDArray[np.float32]
Points = NDArray[np.float64]

_SUPERSAMPLING: Final = 2


class Canvas:
    """A square picture and the pose that maps the body onto it.

    Args:
        size: side of the picture in pixels.
        shift: shift of the body (x, y), body units.
        rotation: rotation of the body, radians.
        scale: scale of the body.

    Attributes:
        X, Y: body coordinates of the pixel centres, float32 (size, size).
    """

    def __init__(
        self,
        size: int,
        shift: tuple[float, float] = (0.0, 0.0),
        rotation: float = 0.0,
        scale: float = 1.0,
    ):
        self.size = size
        cos, sin = np.cos(rotation), np.sin(rotation)
        self._matrix = scale * np.array([[cos, -sin], [sin, cos]])
        self._shift = np.array(shift)
        centres = (np.arange(size) + 0.5) * 2 / size - 1
        x, y = np.meshgrid(centres - shift[0], centres - shift[1])
        self.X: Array = ((cos * x + sin * y) / scale).astype(np.float32)
        self.Y: Array = ((-sin * x + cos * y) / scale).astype(np.float32)

    def fill(self, outlines: Iterable[Points]) -> Array:
        """Return the share of each pixel inside any of the closed outlines (n, 2), in [0, 1]."""
        image, draw = self._sheet()
        for outline in outlines:
            draw.polygon(self._pixels(outline), fill=255)
        return self._coverage(image)

    def lines(self, strokes: Iterable[tuple[Points, float, float]]) -> Array:
        """Return the strength of open lines, each (points (n, 2), width, strength in [0, 1]).

        Widths are in body units; a line thinner than a subpixel is drawn fainter instead. Later
        lines cover earlier ones.
        """
        image, draw = self._sheet()
        unit = self.size * _SUPERSAMPLING / 2
        listed = list(strokes)
        placed = self._pixels(np.concatenate([points for points, _, _ in listed])) if listed else []
        start = 0
        for points, width, strength in listed:
            wide = width * unit
            grey = round(255 * strength * min(1.0, max(wide, 0.15)))
            stop = start + len(points)
            joint = "curve" if wide > 4 else None
            draw.line(placed[start:stop], fill=grey, width=max(1, round(wide)), joint=joint)
            start = stop
        return self._coverage(image)

    def texture(self, field: Array) -> Array:
        """Map a square field (n, n), which spans [-1.5, 1.5] of the body, onto the picture."""
        n = field.shape[0]
        inverse = np.linalg.inv(self._matrix)
        step = inverse * (2 / self.size) * n / 3
        origin = (inverse @ (-1 - self._shift) + 1.5) * n / 3
        image = Image.fromarray(field).transform(
            (self.size, self.size),
            Image.Transform.AFFINE,
            (step[0, 0], step[0, 1], origin[0], step[1, 0], step[1, 1], origin[1]),
            Image.Resampling.BILINEAR,
        )
        return np.asarray(image, np.float32)

    def soften(self, array: NDArray[np.floating], sigma: float) -> Array:
        """Blur with a Gaussian of `sigma` body units; a wide one is computed on a coarser grid."""
        pixels = sigma * self.size / 2
        step = 4 if pixels > 10 else 2 if pixels > 4 else 1
        if step == 1:
            sharp = np.asarray(array, np.float32)
            return ndimage.gaussian_filter(sharp, pixels, truncate=2.5, mode="nearest")
        small = np.asarray(Image.fromarray(np.asarray(array, np.float32)).reduce(step))
        small = ndimage.gaussian_filter(small, pixels / step, truncate=2.5, mode="nearest")
        wide = Image.fromarray(small).resize(array.shape[::-1], Image.Resampling.BILINEAR)
        return np.asarray(wide, np.float32)

    def _sheet(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        image = Image.new("L", (self.size * _SUPERSAMPLING,) * 2)
        return image, ImageDraw.Draw(image)

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        placed = (points @ self._matrix.T + self._shift + 1) * (self.size * _SUPERSAMPLING / 2)
        return [(x, y) for x, y in placed.tolist()]

    def _coverage(self, image: Image.Image) -> Array:
        return np.asarray(image.reduce(_SUPERSAMPLING), np.float32) / np.float32(255)


def smooth_curve(points: Points, closed: bool = False, steps: int = 8) -> Points:
    """Return a Catmull-Rom curve through points (n, 2), `steps` samples for each span."""
    ends = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    p = np.concatenate([ends[0], points, ends[1]])
    t = np.arange(steps)[:, None, None] / steps
    p0, p1, p2, p3 = p[:-3], p[1:-2], p[2:-1], p[3:]
    spans = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    curve = spans.transpose(1, 0, 2).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def band(centre: Points, widths: float | NDArray[np.float64]) -> Points:
    """Return the outline of a band along a centre line (n, 2) with full width(s) `widths`."""
    tangent = np.gradient(centre, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    normal /= np.maximum(np.hypot(normal[:, 0], normal[:, 1]), 1e-9)[:, None]
    half = np.broadcast_to(np.asarray(widths) / 2, (len(centre),))[:, None] * normal
    return np.concatenate([centre + half, (centre - half)[::-1]])


def noise_field(seed: list[int], n: int, sigma: float) -> Array:
    """Return a smooth random field (n, n), mean 0, standard deviation 1; `sigma` in samples.

    All fields of one n and sigma are the same periodic field, rolled and mirrored by the seed.
    """
    rng = np.random.default_rng(seed)
    field = np.roll(_periodic_field(n, sigma), tuple(rng.integers(0, n, 2).tolist()), (0, 1))
    return np.ascontiguousarray(field[:: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))])


@functools.cache
def _periodic_field(n: int, sigma: float) -> Array:
    white = np.random.default_rng([n, round(1000 * sigma)]).standard_normal((n, n), np.float32)
    field = ndimage.gaussian_filter(white, sigma, mode="wrap")
    return (field - field.mean()) / field.std()
