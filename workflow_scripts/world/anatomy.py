"""Patients with a stable anatomy, and studies with a pose and an exposure that vary.

A patient is a set of numbers drawn from one seed, which determine every outline of the chest. All
lengths are in the body coordinates of `canvas.py`. Sides are -1 (the patient's right, on the left
of the picture) and +1.
"""

import functools
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.world.canvas import Points, band, smooth_curve

SIDES: Final = (-1, 1)
RIBS: Final = 10
_ELSEWHERE_SCALE: Final = 0.88
_ELSEWHERE_CONTRAST: Final = 0.70
"""Framing and contrast of another scanner, relative to the usual one."""


@dataclass(frozen=True)
class Patient:
    """The stable anatomy of one patient.

    Attributes:
        seed: seed of the anatomy, also of the vascular tree and the bone grain.
        half_width: largest half-width of the thoracic cavity.
        apex, dome, angle: heights (y) of the lung apex, the right hemidiaphragm and the
            costophrenic angle in full inspiration.
        dome_step: height difference by which the left hemidiaphragm is lower.
        shoulder_slope: exponent of the chest wall from the apex down; a small one gives square
            shoulders.
        flare: widening of the chest wall towards the base.
        rib_spacing, rib_drop, rib_width, rib_offset: height between ribs, fall of a rib from the
            spine to the side, its width, start of the first rib below the apex.
        rib_jitter: deviation of single ribs, (2 sides, RIBS).
        heart_ratio: cardiothoracic ratio without disease; heart_axis: share of the heart's width
            to the left of the midline; heart_height: its height.
        mediastinum: half-width of the upper mediastinum; aorta: bulge of the aortic knob.
        clavicle_height, clavicle_rise, clavicle_bend, clavicle_length, clavicle_width: shape of the
            clavicles; clavicle_tilt: (2,) extra rise on each side.
        wall: thickness of the chest wall (habitus); breast: size of the breast shadows, 0 for none;
            breast_height: height of their lower edge.
        scapula: how far outwards the shoulder blades are; scoliosis: sideways bend of the spine.
        gastric_bubble: (x, y offset from the left dome, radius).
        fissure: visibility of the minor fissure, 0 to 1.
        bone: mineral content of the bones, about 1.
    """

    seed: int
    half_width: float
    apex: float
    dome: float
    angle: float
    dome_step: float
    shoulder_slope: float
    flare: float
    rib_spacing: float
    rib_drop: float
    rib_width: float
    rib_offset: float
    rib_jitter: tuple[tuple[float, ...], ...]
    heart_ratio: float
    heart_axis: float
    heart_height: float
    mediastinum: float
    aorta: float
    clavicle_height: float
    clavicle_rise: float
    clavicle_bend: float
    clavicle_length: float
    clavicle_width: float
    clavicle_tilt: tuple[float, float]
    wall: float
    breast: float
    breast_height: float
    scapula: float
    scoliosis: float
    gastric_bubble: tuple[float, float, float]
    fissure: float
    bone: float


@dataclass(frozen=True)
class Study:
    """One exposure of a patient.

    Attributes:
        seed: determines the quantum noise, the marker and the collimation.
        view: "PA", "AP" (portable: the heart is magnified, the breath shallower) or "LATERAL".
        shift, rotation, scale: pose, in body units and radians.
        inspiration: depth of breath, 1 full, 0 shallow (with a higher diaphragm).
        exposure: logarithm of the dose relative to the usual one.
        contrast: slope of the display window relative to the usual one.
    """

    seed: int
    view: str = "PA"
    shift: tuple[float, float] = (0.0, 0.0)
    rotation: float = 0.0
    scale: float = 1.0
    inspiration: float = 1.0
    exposure: float = 0.0
    contrast: float = 1.0


def draw_patient(seed: int) -> Patient:
    """Return the patient of a seed."""
    rng = np.random.default_rng([seed, 1])
    u, n = rng.uniform, rng.normal
    woman = rng.random() < 0.5
    return Patient(
        seed=seed,
        half_width=float(np.clip(n(0.72, 0.045), 0.62, 0.82)),
        apex=u(-0.78, -0.64),
        dome=u(0.30, 0.48),
        angle=u(0.58, 0.72),
        dome_step=float(np.clip(n(0.035, 0.025), -0.02, 0.09)),
        shoulder_slope=u(0.46, 0.70),
        flare=u(-0.02, 0.06),
        rib_spacing=u(0.115, 0.142),
        rib_drop=u(0.14, 0.27),
        rib_width=u(0.046, 0.064),
        rib_offset=u(-0.01, 0.05),
        rib_jitter=tuple(tuple(n(0, 0.008, RIBS).tolist()) for _ in SIDES),
        heart_ratio=u(0.40, 0.475),
        heart_axis=u(0.64, 0.73),
        heart_height=u(0.64, 0.74),
        mediastinum=u(0.115, 0.145),
        aorta=u(0.02, 0.075),
        clavicle_height=u(0.07, 0.17),
        clavicle_rise=u(0.02, 0.17),
        clavicle_bend=u(0.018, 0.050),
        clavicle_length=u(0.66, 0.76),
        clavicle_width=u(0.044, 0.060),
        clavicle_tilt=(n(0, 0.02), n(0, 0.02)),
        wall=u(0.09, 0.20),
        breast=u(0.6, 1.0) if woman else 0.0,
        breast_height=u(0.40, 0.62),
        scapula=u(-0.10, 0.06),
        scoliosis=n(0, 0.012),
        gastric_bubble=(u(0.28, 0.40), u(0.06, 0.11), u(0.05, 0.09)),
        fissure=u(0, 1) if rng.random() < 0.6 else 0.0,
        bone=u(0.8, 1.2),
    )


def draw_study(seed: int, view: str, elsewhere: bool = False) -> Study:
    """Return the pose and exposure of a seed; portable (AP) studies vary more.

    Args:
        seed: seed of the study.
        view: see `Study`.
        elsewhere: whether the study is from another scanner, with wider framing and less contrast.
    """
    rng = np.random.default_rng([seed, 2])
    portable = 1.5 if view == "AP" else 1.0
    study = Study(
        seed=seed,
        view=view,
        shift=(rng.normal(0, 0.022) * portable, rng.normal(0, 0.025) * portable),
        rotation=rng.normal(0, 0.014) * portable,
        scale=float(np.exp(rng.normal(0, 0.022) * portable)),
        inspiration=float(np.clip(rng.normal(0.9 if view != "AP" else 0.6, 0.15), 0, 1)),
        exposure=rng.normal(0, 0.10) * portable,
        contrast=float(np.exp(rng.normal(0, 0.06) * portable)) * (0.92 if view == "AP" else 1.0),
    )
    if not elsewhere:
        return study
    scale, contrast = study.scale * _ELSEWHERE_SCALE, study.contrast * _ELSEWHERE_CONTRAST
    return replace(study, scale=scale, contrast=contrast)


@dataclass(frozen=True)
class Chest:
    """A patient's chest in one study: anatomy, breath and the effects of disease on the shapes.

    Args:
        patient: the anatomy.
        study: determines the breath and the projection.
        heart_gain: added to the cardiothoracic ratio.
        mediastinum_gain: factor on the mediastinum's half-width.
        lift: height by which each hemidiaphragm is raised (right, left).
    """

    patient: Patient
    study: Study
    heart_gain: float = 0.0
    mediastinum_gain: float = 1.0
    lift: tuple[float, float] = (0.0, 0.0)

    @property
    def cardiothoracic_ratio(self) -> float:
        """Largest width of the heart over that of the chest; AP magnifies the heart."""
        ratio = self.patient.heart_ratio + self.heart_gain
        return ratio * (1.07 if self.study.view == "AP" else 1.0)

    def dome(self, side: int) -> float:
        """Return the height of a hemidiaphragm's top."""
        p = self.patient
        step = p.dome_step if side > 0 else 0.0
        return p.dome + step - 0.14 * (1 - self.study.inspiration) - self.lift[side > 0]

    def angle(self, side: int) -> float:
        """Return the height of a costophrenic angle."""
        p = self.patient
        raised = 0.10 * (1 - self.study.inspiration) + 0.5 * self.lift[side > 0]
        return max(p.angle - raised, self.dome(side) + 0.10)

    def wall(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the half-width of the thoracic cavity at heights y."""
        p = self.patient
        h = np.clip((np.asarray(y) - p.apex) / (p.angle - p.apex), 0, 1.1)
        rise = np.clip(1 - (1 - np.minimum(h, 1)) ** 2, 0, 1) ** p.shoulder_slope
        return p.half_width * (0.34 + 0.66 * rise) + p.flare * (h - 1) * h

    def lateral(self, side: int) -> Points:
        """Return the lung's outer border from the apex to the costophrenic angle (n, 2)."""
        t = np.linspace(0, 1, 40) ** 1.7
        y = self.patient.apex + t * (self.angle(side) - self.patient.apex)
        return np.stack([side * self.wall(y), y], 1)

    def diaphragm(self, side: int) -> Points:
        """Return a hemidiaphragm from the costophrenic angle to the midline side (n, 2)."""
        dome, angle = self.dome(side), self.angle(side)
        edge = float(self.wall(np.array(angle)))
        top, inner = 0.50 * self.patient.half_width, 0.06
        x = np.concatenate(
            [edge - (edge - top) * np.linspace(0, 1, 20)[:-1] ** 0.8, np.linspace(top, inner, 14)]
        )
        outer = np.clip((x - top) / (edge - top), 0, 1) ** 2.3 * (angle - dome)
        return np.stack(
            [side * x, dome + outer + 0.045 * np.clip((top - x) / (top - inner), 0, 1) ** 2], 1
        )

    def lung(self, side: int) -> Points:
        """Return the closed outline of one lung, its inner border hidden by the mediastinum."""
        apex = self.patient.apex
        base = self.diaphragm(side)
        inner = np.array(
            [base[-1], [side * 0.055, 0.1], [side * 0.07, apex + 0.35], [side * 0.12, apex + 0.10],
             [side * 0.19, apex + 0.02]]
        )  # fmt: skip
        return np.concatenate([self.lateral(side), base, smooth_curve(inner)[1:]])

    def hilum(self, side: int) -> tuple[float, float]:
        """Return the point where the vessels enter a lung; the left hilum is slightly higher."""
        y = 0.46 * self.dome(side) + 0.54 * self.patient.apex + 0.03
        return side * (0.125 + 0.02 * (side < 0)), y - 0.03 * (side > 0)

    def heart(self) -> Points:
        """Return the closed outline of the heart."""
        p = self.patient
        width = self.cardiothoracic_ratio * 2 * p.half_width
        left = p.heart_axis * width
        right = width - left
        bottom = max(self.dome(1), self.dome(-1)) + 0.085
        height = p.heart_height * (0.62 + 0.38 * width / (0.45 * 2 * p.half_width))
        top = bottom - height
        shape = np.array(
            [[-0.50, 0.00], [-0.62, 0.22], [-0.92, 0.45], [-1.00, 0.64], [-0.86, 0.86],
             [-0.30, 0.99], [0.30, 1.04], [0.75, 1.01], [0.96, 0.91], [1.00, 0.79], [0.88, 0.58],
             [0.64, 0.34], [0.44, 0.15], [0.22, 0.00]]
        )  # fmt: skip
        x = np.where(shape[:, 0] < 0, shape[:, 0] * right, shape[:, 0] * left)
        return smooth_curve(np.stack([x, top + shape[:, 1] * height], 1), closed=True)

    def mediastinum(self) -> Points:
        """Return the closed outline of the great vessels and soft tissue above the heart."""
        p = self.patient
        m, a = p.mediastinum * self.mediastinum_gain, p.apex
        knob = m + p.aorta * (1 + 0.6 * (self.mediastinum_gain - 1))
        low = self.dome(1) - 0.25
        points = np.array(
            [[-0.12, -1.3], [-0.12, a - 0.1], [-0.9 * m, a + 0.10], [-m, a + 0.30],
             [-0.95 * m, a + 0.45], [-0.9 * p.mediastinum, low], [0.06, low], [0.95 * m, a + 0.50],
             [1.02 * m, a + 0.42], [0.98 * knob, a + 0.36], [knob, a + 0.30],
             [0.9 * knob, a + 0.23], [0.82 * m, a + 0.12], [0.12, a - 0.1], [0.12, -1.3]]
        )  # fmt: skip
        return smooth_curve(points, closed=True)

    def rib(self, side: int, index: int) -> tuple[Points, Points]:
        """Return a rib's posterior and anterior part as centre lines from spine and side (n, 2)."""
        p = self.patient
        jitter = p.rib_jitter[side > 0][index]
        breath = 0.02 * (1 - self.study.inspiration)
        start = p.apex + p.rib_offset + index * (p.rib_spacing - 0.2 * breath) + jitter
        drop = p.rib_drop * (0.55 + 0.07 * min(index, 7)) + jitter + breath
        reach = float(self.wall(np.array(start + drop))) + 0.012
        if index == 0:
            reach *= 0.80
        phi = np.linspace(0.035, 0.5, 24) * np.pi
        posterior = np.stack([side * reach * np.sin(phi), start + drop * (1 - np.cos(phi))], 1)
        posterior[:, 1] -= 0.022 * np.sin(2 * phi)
        phi = np.linspace(0.5, 0.84 - 0.012 * max(index - 5, 0), 20) * np.pi
        anterior = np.stack(
            [side * reach * np.sin(phi), start + drop * (1 - 1.45 * np.cos(phi))], 1
        )
        return posterior, anterior

    def clavicle(self, side: int) -> tuple[Points, Points]:
        """Return a clavicle's centre line (n, 2) and its closed outline (2n, 2)."""
        p = self.patient
        t = np.linspace(0, 1, 40)
        rise = p.clavicle_rise + p.clavicle_tilt[side > 0]
        rise += 0.05 if self.study.view == "AP" else 0.0
        rise = min(rise, p.clavicle_height + 0.015)  # the lateral end stays below the skin
        x = 0.075 + p.clavicle_length * t
        y = p.apex + p.clavicle_height - rise * t**0.9 + p.clavicle_bend * np.sin(2 * np.pi * t)
        centre = np.stack([side * x, y], 1)
        rounded = np.minimum(1, 30 * np.minimum(t, 1 - t) + 0.35)
        return centre, band(centre, p.clavicle_width * (0.72 + 1.1 * (t - 0.52) ** 2) * rounded)

    def body(self) -> list[Points]:
        """Return the outlines of neck, shoulders and trunk."""
        p = self.patient
        b, top = p.half_width + p.wall, p.apex
        outlines = []
        for side in SIDES:
            half = np.array(
                [[0, -1.6], [0.20, -1.6], [0.205, top - 0.32], [0.25, top - 0.20],
                 [0.48, top - 0.10], [0.80, top - 0.07], [1.02, top + 0.0], [1.20, top + 0.14],
                 [1.35, top + 0.5], [1.35, top + 0.72], [1.08, top + 0.60], [b + 0.06, top + 0.62],
                 [b + 0.01, 0.15], [b + 0.005, 0.5], [b + 0.05, 1.6], [0, 1.6]]
            )  # fmt: skip
            inner = smooth_curve(half[1:-1], steps=6)
            outlines.append(np.concatenate([half[:1], inner, half[-1:]]) * [side, 1])
        return outlines

    def scapula(self, side: int) -> tuple[Points, Points]:
        """Return the closed outline of the shoulder blade and the line of its spine."""
        p = self.patient
        out = p.scapula - (0.07 if self.study.view == "AP" else 0.0)
        a, w = p.apex, p.half_width
        shape = np.array(
            [[w - 0.10 + out, a + 0.10], [w - 0.05 + out, a + 0.30], [w + 0.02 + out, a + 0.62],
             [w + 0.06 + out, a + 0.60], [w + 0.13 + out, a + 0.34], [w + 0.20 + out, a + 0.17],
             [w + 0.17 + out, a + 0.06], [w + 0.05 + out, a + 0.03]]
        )  # fmt: skip
        spine = np.array(
            [[w - 0.06 + out, a + 0.16], [w + 0.08 + out, a + 0.04], [w + 0.24 + out, a - 0.04]]
        )
        return smooth_curve(shape, closed=True) * [side, 1], smooth_curve(spine) * [side, 1]

    def humerus(self, side: int) -> Points:
        """Return the closed outline of the humeral head and the upper shaft."""
        x, y = self.patient.half_width + 0.24 + self.patient.scapula * 0.5, self.patient.apex + 0.11
        head = np.array(
            [[x - 0.09, y - 0.02], [x - 0.05, y - 0.10], [x + 0.04, y - 0.11], [x + 0.11, y - 0.04],
             [x + 0.14, y + 0.15], [x + 0.20, y + 0.6], [x + 0.10, y + 0.6], [x + 0.04, y + 0.17],
             [x - 0.06, y + 0.09]]
        )  # fmt: skip
        return smooth_curve(head, closed=True) * [side, 1]

    def midline(self, y: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the x of the spine at heights y."""
        return self.patient.scoliosis * np.sin(2.2 * np.asarray(y) + 1)

    def carina(self) -> tuple[float, float]:
        """Return the point where the trachea divides."""
        y = self.patient.apex + 0.42
        return float(self.midline(np.array(y))) - 0.012, y


@functools.lru_cache(maxsize=64)
def vascular_tree(seed: int, side: int) -> tuple[tuple[Points, float], ...]:
    """Return a lung's vessels as (line (n, 2), width), around the hilum at the origin.

    The tree is drawn once per patient and makes the chest recognisable. Branches leave in all
    directions except towards the midline, fork and taper.
    """
    rng = np.random.default_rng([seed, 3, side > 0])
    angle = np.linspace(-1.45, 1.40, 8) + rng.normal(0, 0.10, 8)
    lobe = np.where(angle > 0, 1.2, 1.0)  # the lower lobes are perfused more
    length = 0.10 * lobe * rng.uniform(0.85, 1.3, 8)
    width = 0.030 * lobe * rng.uniform(0.75, 1.15, 8)
    start = np.zeros((8, 2))
    t = np.linspace(0, 1, 4)
    vessels: list[tuple[Points, float]] = []
    for _ in range(6):
        bend = rng.normal(0, 0.16, len(angle))
        turn = angle[:, None] + bend[:, None] * t
        reach = length[:, None] * t
        line = np.stack([side * reach * np.cos(turn), reach * np.sin(turn)], 2) + start[:, None]
        vessels += zip(line, width.tolist(), strict=True)
        fork = np.abs(rng.normal(0.42, 0.13, len(angle)))
        lean = rng.uniform(0.3, 0.7, len(angle))
        share = np.concatenate([lean, 1 - lean])
        sign = np.repeat([1, -1], len(angle))
        start = np.tile(line[:, -1], (2, 1))
        angle = np.tile(angle + bend, 2) + sign * np.tile(fork, 2) * (1.25 - share)
        shrink = rng.uniform(0.62, 0.92, len(angle))
        length = np.tile(length, 2) * shrink * (0.75 + 0.5 * share)
        width = np.tile(width, 2) * (0.58 + 0.32 * share)
    return tuple(sorted(vessels, key=lambda vessel: vessel[1]))
