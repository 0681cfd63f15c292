"""Rendering of a radiograph from anatomy and findings: attenuation, exposure, grain, display.

Everything in the beam adds to an attenuation map. The beam is attenuated exponentially, scattered,
counted in quanta and displayed through the logarithmic window of digital radiography. The numbers
are not measurements of real tissue; they are set such that the picture looks right.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workflow_scripts.world.anatomy import RIBS, SIDES, Chest, Patient, Study, vascular_tree
from workflow_scripts.world.canvas import Array, Canvas, Points, band, noise_field, smooth_curve
from workflow_scripts.world.findings import Finding

_TISSUE: Final = 2.35
_AIR: Final = 1.62
_ZONES: Final = {"upper": 0.24, "mid": 0.52, "lower": 0.80}


@dataclass(frozen=True)
class Radiograph:
    """A rendered radiograph with its ground truth.

    Attributes:
        image: uint8 (size, size); dense tissue is bright.
        clavicles: bool (2, size, size): the patient's right and left clavicle; all False in a
            lateral view.
        organs: bool (3, size, size): the patient's right and left lung, including the parts that
            the heart hides, and the heart; all False in a lateral view.
        cardiothoracic_ratio: the ratio in the outlines that were drawn.
    """

    image: NDArray[np.uint8]
    clavicles: NDArray[np.bool_]
    organs: NDArray[np.bool_]
    cardiothoracic_ratio: float


def render(
    patient: Patient, study: Study, findings: tuple[Finding, ...] = (), size: int = 256
) -> Radiograph:
    """Draw a radiograph; the same arguments always give the same pixels.

    Args:
        patient: the anatomy.
        study: the pose, view and exposure.
        findings: the findings to draw; empty for a normal chest.
        size: side in pixels.
    """
    canvas = Canvas(size, study.shift, study.rotation, study.scale)
    if study.view == "LATERAL":
        attenuation = _lateral(canvas, patient, findings)
        empty = np.zeros((3, size, size), bool)
        return Radiograph(_expose(canvas, attenuation, study), empty[:2], empty, float("nan"))
    drawing = _Drawing(canvas, patient, study, findings)
    clavicles = np.stack(drawing.clavicle_masks) >= 0.5
    organs = np.stack([*drawing.lungs.values(), canvas.fill([drawing.chest.heart()])]) >= 0.5
    image = _expose(canvas, drawing.attenuation(), study)
    return Radiograph(image, clavicles, organs, drawing.chest.cardiothoracic_ratio)


def _shape(patient: Patient, study: Study, findings: tuple[Finding, ...]) -> Chest:
    """Return the chest with the shapes that disease changes."""
    heart, mediastinum, lift = 0.0, 1.0, [0.0, 0.0]
    for finding in findings:
        s = finding.severity
        if finding.name == "Cardiomegaly":
            heart += 0.115 + 0.125 * s
        elif finding.name == "Enlarged Cardiomediastinum":
            mediastinum *= 1.5 + 0.6 * s
        elif finding.name == "Atelectasis":
            for side in finding.sides:
                lift[side > 0] += 0.02 + 0.08 * s
        elif finding.name == "Pleural Effusion":
            heart += 0.01 * s
    return Chest(patient, study, heart, mediastinum, (lift[0], lift[1]))


class _Drawing:
    """One frontal radiograph in the making."""

    def __init__(
        self, canvas: Canvas, patient: Patient, study: Study, findings: tuple[Finding, ...]
    ):
        self.canvas, self.patient, self.study, self.findings = canvas, patient, study, findings
        self.chest = _shape(patient, study, findings)
        self.lungs = {side: canvas.fill([self.chest.lung(side)]) for side in SIDES}
        self.clavicle_masks = [canvas.fill([self.chest.clavicle(side)[1]]) for side in SIDES]
        self.opaque = np.zeros_like(canvas.X)  # share of the air that is replaced
        self.dense = np.zeros_like(canvas.X)  # attenuation added on top: metal, calcium
        self.airless = np.zeros_like(canvas.X)  # pleural air, where there are no vessels
        self.vessel_gain = 1.0
        self.fluffy: Array | None = None

    def attenuation(self) -> Array:
        """Return the attenuation along each ray, float32 (size, size)."""
        canvas = self.canvas
        for finding in self.findings:
            _SIGNS[finding.name](self, finding)
        lungs = np.maximum(self.lungs[-1], self.lungs[1])
        heart = canvas.fill([self.chest.heart()])
        heart_soft = canvas.soften(heart, 0.010)
        vessels_soft = canvas.soften(canvas.fill([self.chest.mediastinum()]), 0.012)
        centre = 1 - (1 - 0.88 * heart_soft) * (1 - 0.90 * vessels_soft)
        # The lung is thinner towards its edge, which the blur models.
        depth = canvas.soften(lungs, 0.012) * (
            0.66 + 0.34 * np.clip(2 * canvas.soften(lungs, 0.085) - 1, 0, 1)
        )
        air = depth * (1 - centre) * (1 - self.opaque) * (1 + 0.10 * self.airless)
        air *= 1 - 0.10 * canvas.Y  # upper zones are darker than the bases
        aerated = depth * (1 - 0.8 * centre) * (1 - 0.75 * self.opaque) * (1 - self.airless)
        total = self._soft_tissue(lungs, heart_soft, vessels_soft)
        total -= _AIR * air
        total += (self._vessels() + self._parenchyma()) * aerated
        total += self._bones(lungs * (1 - 0.75 * centre))
        total -= self._gas()
        return total + self.dense

    def _soft_tissue(self, lungs: Array, heart: Array, vessels: Array) -> Array:
        canvas, p, chest = self.canvas, self.patient, self.chest
        X, Y = canvas.X, canvas.Y
        body = canvas.soften(canvas.fill(chest.body()), 0.012)
        trunk = np.sqrt(np.clip(1 - (X / (1.32 * (p.half_width + p.wall))) ** 2, 0, 1))
        neck = 1 / (1 + np.exp((Y - p.apex + 0.06) / 0.07))
        thick = 0.42 + 0.58 * (trunk + neck * (0.62 - trunk))
        thick = body * (thick + 1.2 * (p.wall - 0.15))
        belly = np.clip((Y - chest.dome(-1)) / 0.5, 0, 1) * (1 - lungs)
        total = _TISSUE * thick + body * 0.55 * canvas.soften(belly, 0.02)
        total += 0.36 * canvas.soften(np.maximum(heart, vessels), 0.012)
        grain = canvas.texture(noise_field([p.seed, 7], 96, 3.0))
        total += 0.05 * body * grain
        if p.breast:
            total += self._breasts()
        return total

    def _breasts(self) -> Array:
        p, canvas = self.patient, self.canvas
        total = np.zeros_like(canvas.X)
        for side in SIDES:
            x, y = side * 0.60 * p.half_width, p.breast_height - 0.26
            r2 = ((canvas.X - x) / 0.33) ** 2 + ((canvas.Y - y) / 0.27) ** 2
            fall = np.clip(0.5 + (canvas.Y - y) / 0.5, 0, 1)  # the lower fold is the thick one
            total += 0.42 * p.breast * np.sqrt(np.clip(1 - r2, 0, 1)) * fall
        return total

    def _vessels(self) -> Array:
        strokes: list[tuple[Points, float, float]] = []
        for side in SIDES:
            hilum = np.array(self.chest.hilum(side))
            for line, width in vascular_tree(self.patient.seed, side):
                strength = min(1.0, 0.10 + 30 * width)
                strokes.append((line + hilum, width * self.vessel_gain, strength))
        if self.patient.fissure:  # the minor fissure, seen edge-on in the right lung
            x, y = self.chest.hilum(-1)
            wall = -float(self.chest.wall(np.array(y)))
            line = np.array([[x, y + 0.03], [(x + wall) / 2, y + 0.025], [wall, y + 0.06]])
            strokes.append((smooth_curve(line), 0.006, 0.45 * self.patient.fissure))
        tree = self.canvas.lines(sorted(strokes, key=lambda stroke: stroke[1]))
        roots = np.zeros_like(tree)
        for side in SIDES:
            x, y = self.chest.hilum(side)
            r2 = ((self.canvas.X - x) / 0.075) ** 2 + ((self.canvas.Y - y - 0.02) / 0.12) ** 2
            roots += np.exp(-r2)
        return (0.66 * self.canvas.soften(tree, 0.0036) + 0.30 * roots) * self.vessel_gain**0.5

    def _parenchyma(self) -> Array:
        field = noise_field([self.patient.seed, 8], 384, 1.1)
        return 0.075 * self.canvas.texture(field)

    def _bones(self, clear: NDArray[np.floating]) -> Array:
        canvas, chest, p = self.canvas, self.chest, self.patient
        ribs = self._ribs()
        clavicles = sum(self.clavicle_masks)
        cortex = canvas.soften(np.asarray(clavicles), 0.016)
        clavicle = clavicles * (0.95 - 0.42 * cortex)
        blades = [chest.scapula(side) for side in SIDES]
        blade = canvas.fill([outline for outline, _ in blades])
        rim = blade * (1 - canvas.soften(blade, 0.02))
        spines = canvas.lines([(band_line, 0.028, 0.8) for _, band_line in blades])
        arm = canvas.fill([chest.humerus(side) for side in SIDES])
        arm_rim = arm * (1 - canvas.soften(arm, 0.022))
        # In front of dense organs a rib adds less contrast: scatter, and the eye's window.
        seen = 0.32 + 0.68 * canvas.soften(np.maximum(clear, self.patient.apex > canvas.Y), 0.03)
        total = 0.46 * clavicle + (ribs * seen) + self._spine()
        total += 0.09 * blade + 0.26 * rim + 0.10 * spines + 0.30 * arm + 0.36 * arm_rim
        grain = canvas.texture(noise_field([p.seed, 9], 512, 0.8))
        return p.bone * canvas.soften(total, 0.0035) * (1 + 0.15 * grain)

    def _ribs(self) -> Array:
        canvas, chest, width = self.canvas, self.chest, self.patient.rib_width
        breaks = {
            (side, rib): where
            for finding in self.findings
            if finding.name == "Fracture"
            for side, rib, where in _broken_ribs(finding)
        }
        back: list[Points] = []
        front: list[Points] = []
        callus = np.zeros_like(canvas.X)
        for side in SIDES:
            for index in range(RIBS):
                posterior, anterior = chest.rib(side, index)
                taper = np.linspace(0.80, 1.08, len(posterior))
                if (side, index) in breaks:
                    at = int(breaks[side, index] * len(posterior))
                    gap = posterior[at]
                    step = np.array([0.0, 1.15 * width])
                    back.append(band(posterior[: at - 1], width * taper[: at - 1]))
                    back.append(band(posterior[at + 1 :] + step, width * taper[at + 1 :]))
                    r2 = (canvas.X - gap[0]) ** 2 + (canvas.Y - gap[1] - 0.5 * width) ** 2
                    callus += np.exp(-r2 / 0.0016)
                    front.append(band(anterior + step, width * np.linspace(1, 0.9, len(anterior))))
                    continue
                back.append(band(posterior, width * taper))
                if index < RIBS - 1:
                    front.append(band(anterior, width * np.linspace(1.05, 1.2, len(anterior))))
        posterior_map, anterior_map = canvas.fill(back), canvas.fill(front)
        total = np.zeros_like(canvas.X)
        for ribs, weight in ((posterior_map, 1.0), (anterior_map, 0.55)):
            cortex = ribs * (1 - canvas.soften(ribs, 0.011))
            total += weight * (0.26 * ribs + 0.52 * cortex)
        return total + 0.75 * callus

    def _spine(self) -> Array:
        canvas, chest = self.canvas, self.chest
        Y = canvas.Y
        x = canvas.X - chest.midline(Y).astype(np.float32)
        spacing = 0.098 + 0.012 * Y
        half = 0.070 + 0.012 * (Y + 1)
        phase = np.mod(Y / spacing, 1.0)
        inside = np.clip((half - np.abs(x)) / 0.03, 0, 1)
        plates = np.exp(-(((phase - 0.08) / 0.05) ** 2)) + np.exp(-(((phase - 0.86) / 0.05) ** 2))
        disc = np.exp(-(((np.mod(phase + 0.03, 1.0) - 0.0) / 0.05) ** 2))
        pedicles = np.exp(
            -(((np.abs(x) - 0.62 * half) / 0.014) ** 2) - ((phase - 0.35) / 0.14) ** 2
        )
        process = np.exp(-((x / 0.012) ** 2) - ((phase - 0.62) / 0.17) ** 2)
        bone = inside * (0.12 + 0.13 * plates - 0.13 * disc + 0.10 * pedicles + 0.15 * process)
        return (bone + 0.08 * np.exp(-((x / 0.12) ** 2))).astype(np.float32)

    def _gas(self) -> Array:
        canvas, chest, p = self.canvas, self.chest, self.patient
        x, y = chest.carina()
        top = np.array([[x + 0.012, -1.4], [x + 0.010, y - 0.30], [x, y]])
        width = np.array([0.085, 0.080, 0.072])
        right = np.array([[x, y - 0.02], [x - 0.06, y + 0.07], [x - 0.13, y + 0.13]])
        left = np.array([[x, y - 0.02], [x + 0.08, y + 0.07], [x + 0.17, y + 0.12]])
        trachea = canvas.fill([band(top, width), band(right, 0.058), band(left, 0.050)])
        across, down, radius = p.gastric_bubble
        bx, by = canvas.X - across, canvas.Y - chest.dome(1) - down - 0.03
        bubble = np.clip(1 - (bx / (1.9 * radius)) ** 2 - (by / radius) ** 2, 0, 1)
        bubble *= np.clip(0.6 - by / radius, 0, 1)  # a fluid level below
        bubble *= 1 - np.maximum(self.lungs[1], self.lungs[-1])
        bowel = canvas.texture(noise_field([p.seed, 10], 96, 3.2))
        bowel = np.clip(bowel - 0.9, 0, 1.5) * np.clip(
            (canvas.Y - chest.angle(1) - 0.05) / 0.1, 0, 1
        )
        bowel *= np.clip(canvas.X / 0.1 + 0.5, 0.25, 1)
        return 0.55 * canvas.soften(trachea, 0.010) + 0.95 * bubble + 0.40 * bowel

    # The signs of the findings.

    def cover(self, share: Array) -> None:
        """Replace a share of the lung's remaining air."""
        self.opaque = 1 - (1 - self.opaque) * (1 - np.clip(share, 0, 1))

    def clouds(self, seed: int) -> Array:
        """Return uneven shading of mean 1."""
        n = self.canvas.size
        coarse = noise_field([seed, 11], 96, 2.6) + 0.7 * noise_field([seed, 12], 96, 1.0)
        field = self.canvas.texture(coarse)
        return np.clip(1 + 0.42 * field, 0.1, 2).astype(np.float32)[:n, :n]

    def place(self, side: int, share: float, outward: float) -> tuple[float, float]:
        """Return a point in a lung: `share` of its height down, `outward` of its width out."""
        apex = self.patient.apex + 0.05
        low = self.chest.dome(side) if outward < 0.7 else self.chest.angle(side) - 0.06
        y = apex + share * (low - apex)
        inner = 0.16 if y < 0.05 or side < 0 else 0.24
        x = inner + outward * (float(self.chest.wall(np.array(y))) - inner)
        return side * x, y

    def blob(self, x: float, y: float, rx: float, ry: float) -> Array:
        """Return a Gaussian spot of the given radii."""
        return np.exp(-(((self.canvas.X - x) / rx) ** 2) - ((self.canvas.Y - y) / ry) ** 2)


def _cardiomegaly(drawing: _Drawing, finding: Finding) -> None:
    """Make the hila slightly fuller; the heart's outline is widened in `_shape`."""
    drawing.vessel_gain *= 1 + 0.12 * finding.severity


def _enlarged_cardiomediastinum(drawing: _Drawing, finding: Finding) -> None:
    """Add nothing here: the mediastinum is widened in `_shape`."""


def _edema(drawing: _Drawing, finding: Finding) -> None:
    """Draw bat wings of haze around the hila, full vessels, and Kerley lines at the bases."""
    rng = np.random.default_rng([finding.seed, 20])
    s = finding.severity
    drawing.vessel_gain *= 1.25 + 0.25 * s
    haze = np.zeros_like(drawing.canvas.X)
    strokes: list[tuple[Points, float, float]] = []
    for side in SIDES:
        x, y = drawing.chest.hilum(side)
        haze += drawing.blob(x + side * 0.14, y + 0.08, 0.26, 0.34)
        for _ in range(6 + int(8 * s)):
            across, height = drawing.place(side, rng.uniform(0.80, 1.05), 0.93)
            ends = [[across, height], [across - side * rng.uniform(0.05, 0.09), height + 0.006]]
            strokes.append((np.array(ends), 0.007, 0.9))
    drawing.cover((0.30 + 0.40 * s) * haze * drawing.clouds(finding.seed))
    drawing.cover(0.10 + 0.10 * s * np.ones_like(haze))
    lungs = drawing.lungs[-1] + drawing.lungs[1]
    drawing.dense = drawing.dense + 0.34 * lungs * drawing.canvas.lines(strokes)


def _consolidation(drawing: _Drawing, finding: Finding) -> None:
    """Fill a lobe densely, with the bronchi still dark inside it."""
    rng = np.random.default_rng([finding.seed, 21])
    for side in finding.sides:
        x, y = drawing.place(side, _ZONES[finding.zone], rng.uniform(0.35, 0.55))
        reach = 0.15 + 0.10 * finding.severity
        r2 = ((drawing.canvas.X - x) / (1.25 * reach)) ** 2 + ((drawing.canvas.Y - y) / reach) ** 2
        edge = 0.30 * (drawing.clouds(finding.seed + (side > 0)) - 1)
        patch = np.clip((1 + edge - r2) * 1.9, 0, 1)
        hilum = np.array(drawing.chest.hilum(side))
        aim = np.arctan2(y - hilum[1], abs(x) - abs(hilum[0]))
        bronchi = []
        for turn in (-0.45, -0.12, 0.2, 0.5):
            t = np.linspace(0.2, 1.0, 6)[:, None] * (0.30 + 0.15 * rng.random())
            angle = aim + turn * (0.6 + 1.2 * t)
            line = hilum + t * np.concatenate([np.cos(angle), np.sin(angle)], 1) * [side, 1]
            bronchi.append((smooth_curve(line), 0.012, 1.0))
        air = drawing.canvas.soften(drawing.canvas.lines(bronchi), 0.004)
        drawing.cover((0.80 + 0.12 * finding.severity) * patch * (1 - 0.30 * air))


def _pneumonia(drawing: _Drawing, finding: Finding) -> None:
    """Scatter several patches over a zone."""
    rng = np.random.default_rng([finding.seed, 22])
    patches = np.zeros_like(drawing.canvas.X)
    for side in finding.sides:
        for _ in range(3 + int(4 * finding.severity)):
            share = _ZONES[finding.zone] + rng.normal(0, 0.08)
            x, y = drawing.place(side, float(np.clip(share, 0.1, 0.95)), rng.uniform(0.2, 0.85))
            radius = rng.uniform(0.04, 0.085) * (0.8 + 0.5 * finding.severity)
            spot = drawing.blob(x, y, 1.3 * radius, radius) * rng.uniform(0.7, 1.0)
            patches = np.maximum(patches, spot)
    drawing.cover((0.70 + 0.25 * finding.severity) * patches * drawing.clouds(finding.seed) ** 1.5)


def _lung_opacity(drawing: _Drawing, finding: Finding) -> None:
    """Lay an ill-defined haze over a zone, through which the vessels stay visible."""
    rng = np.random.default_rng([finding.seed, 23])
    haze = np.zeros_like(drawing.canvas.X)
    for side in finding.sides:
        x, y = drawing.place(side, _ZONES[finding.zone], rng.uniform(0.4, 0.65))
        haze += drawing.blob(x, y, 0.20 + 0.06 * rng.random(), 0.17 + 0.08 * rng.random())
    drawing.cover((0.36 + 0.30 * finding.severity) * haze * drawing.clouds(finding.seed) ** 0.6)


def _atelectasis(drawing: _Drawing, finding: Finding) -> None:
    """Draw plates above the diaphragm; the volume loss raises it in `_shape`."""
    rng = np.random.default_rng([finding.seed, 24])
    strokes: list[tuple[Points, float, float]] = []
    crowded = np.zeros_like(drawing.canvas.X)
    for side in finding.sides:
        for plate in range(2 + finding.grade):
            x, y = drawing.place(side, 0.96 - 0.075 * plate - rng.uniform(0, 0.03), 0.38)
            length, tilt = rng.uniform(0.14, 0.24), side * rng.normal(-0.02, 0.05)
            start = x - side * 0.3 * length
            line = [[start, y], [start + side * 0.5 * length, y + 0.4 * tilt - 0.008],
                    [start + side * length, y + tilt]]  # fmt: skip
            strokes.append((smooth_curve(np.array(line)), rng.uniform(0.014, 0.024), 1.0))
        x, y = drawing.place(side, 1.0, 0.4)
        crowded += drawing.blob(x, y, 0.30, 0.09)
    plates = drawing.canvas.soften(drawing.canvas.lines(strokes), 0.005)
    drawing.cover((0.55 + 0.25 * finding.severity) * plates)
    drawing.cover((0.18 + 0.25 * finding.severity) * crowded)


def _pleural_effusion(drawing: _Drawing, finding: Finding) -> None:
    """Fill the base with fluid whose surface climbs towards the chest wall."""
    chest, canvas = drawing.chest, drawing.canvas
    fluid = np.zeros_like(canvas.X)
    for side in finding.sides:
        edge = chest.angle(side)
        level = edge - 0.07 - 0.58 * finding.severity
        wall = np.maximum(chest.wall(canvas.Y.astype(np.float64)), 0.2)
        out = np.clip(side * canvas.X / wall, 0, 1)
        surface = level + 0.20 * (0.75 - out**4)
        fluid += np.clip((canvas.Y - surface) / 0.035, 0, 1) * (side * canvas.X > 0)
    fluid = np.clip(fluid, 0, 1).astype(np.float32)
    drawing.cover(0.95 * fluid)
    drawing.dense = drawing.dense + 0.12 * fluid * (drawing.lungs[-1] + drawing.lungs[1])


def _pneumothorax(drawing: _Drawing, finding: Finding) -> None:
    """Shrink the lung away from the apex and the wall; the rim is dark and has no vessels."""
    for side in finding.sides:
        hilum = np.add(drawing.chest.hilum(side), (0, 0.14))
        lateral = drawing.chest.lateral(side)
        t = np.linspace(0, 1, len(lateral))[:, None]
        shrink = (0.10 + 0.26 * finding.severity) * (1 - t**1.6)
        edge = lateral + (hilum - lateral) * (shrink + 0.015)
        inner = np.array([[side * 0.10, drawing.patient.apex + 0.06 + 0.5 * float(shrink[0, 0])]])
        edge = np.concatenate([inner, edge])
        rim = drawing.canvas.fill([np.concatenate([edge, drawing.chest.lung(side)[40:0:-1]])])
        collapsed = drawing.canvas.fill([np.concatenate([edge, drawing.chest.diaphragm(side)])])
        apical = drawing.lungs[side] * (1 - collapsed)
        rim = np.maximum(rim * (1 - collapsed), apical) * drawing.lungs[side]
        drawing.airless = np.maximum(drawing.airless, drawing.canvas.soften(rim, 0.004))
        drawing.opaque = drawing.opaque * (1 - 0.95 * rim)
        line = drawing.canvas.lines([(smooth_curve(edge[1:]), 0.010, 1.0)])
        drawing.dense = drawing.dense + 0.42 * line * drawing.lungs[side]
        drawing.cover((0.10 + 0.14 * finding.severity) * collapsed * drawing.lungs[side])


def _lung_lesion(drawing: _Drawing, finding: Finding) -> None:
    """Draw a round nodule or mass."""
    rng = np.random.default_rng([finding.seed, 25])
    for side in finding.sides:
        x, y = drawing.place(
            side, _ZONES[finding.zone] + rng.normal(0, 0.04), rng.uniform(0.3, 0.7)
        )
        radius = 0.035 + 0.065 * finding.severity
        angle = np.arctan2(drawing.canvas.Y - y, drawing.canvas.X - x)
        lobes = 1 + 0.07 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.05 * np.sin(5 * angle)
        r2 = ((drawing.canvas.X - x) ** 2 + (drawing.canvas.Y - y) ** 2) / (radius * lobes) ** 2
        sphere = np.sqrt(np.clip(1.1 - r2, 0, 1)).astype(np.float32)
        drawing.cover(0.85 * drawing.canvas.soften(sphere, 0.006))


def _broken_ribs(finding: Finding) -> list[tuple[int, int, float]]:
    """Return (side, rib, share of the posterior arc) of each break."""
    rng = np.random.default_rng([finding.seed, 26])
    first = {"upper": 2, "mid": 4, "lower": 6}[finding.zone]
    return [
        (side, first + k, float(rng.uniform(0.46, 0.60)))
        for side in finding.sides
        for k in range(1 + finding.grade)
    ]


def _fracture(drawing: _Drawing, finding: Finding) -> None:
    """Add nothing here: the ribs are broken in `_ribs`."""


def _pleural_other(drawing: _Drawing, finding: Finding) -> None:
    """Thicken the pleura along the wall and over the apex, with calcified plaques."""
    rng = np.random.default_rng([finding.seed, 27])
    for side in finding.sides:
        lateral = drawing.chest.lateral(side)
        thick = 0.035 + 0.055 * finding.severity
        wavy = thick * (1 + 0.5 * np.sin(np.linspace(0, 9, len(lateral)) + rng.uniform(0, 6)))
        wavy[:8] *= 1.6
        peel = drawing.canvas.fill([band(lateral, 2 * wavy)]) * drawing.lungs[side]
        drawing.cover(0.80 * drawing.canvas.soften(peel, 0.006))
        for _ in range(2 + finding.grade):
            x, y = drawing.place(side, rng.uniform(0.45, 0.92), rng.uniform(0.62, 0.9))
            spot = drawing.blob(x, y, rng.uniform(0.03, 0.05), rng.uniform(0.015, 0.03))
            spot = np.clip(spot * drawing.clouds(finding.seed + (side > 0)) ** 2 * 1.6 - 0.45, 0, 1)
            drawing.dense = drawing.dense + 0.75 * spot * drawing.lungs[side]


def device_side(seed: int) -> str:
    """Return the side that central lines and chest tubes of a seed come in from."""
    return "right" if np.random.default_rng([seed, 28]).random() < 0.75 else "left"


def _support_devices(drawing: _Drawing, finding: Finding) -> None:
    """Draw tubes, lines, a pacemaker and wires."""
    rng = np.random.default_rng([finding.seed, 28])
    chest, canvas = drawing.chest, drawing.canvas
    x, carina = chest.carina()
    apex, low = drawing.patient.apex, chest.dome(1)
    strokes: list[tuple[Points, float, float]] = []
    solid: list[Points] = []
    right = -1 if device_side(finding.seed) == "right" else 1
    rng.random()  # the number that `device_side` draws

    def tube(points: list[list[float]], width: float, strength: float) -> None:
        strokes.append((smooth_curve(np.array(points)), width, strength))

    atrium = [-0.13, carina + 0.20 + rng.uniform(0, 0.12)]
    for kind in finding.devices:
        if kind == "endotracheal tube":
            tip = carina - rng.uniform(0.06, 0.16)
            for offset in (-0.016, 0.016):
                tube([[x + offset, -1.3], [x + offset, apex], [x + offset, tip]], 0.007, 0.55)
            tube([[x + 0.022, -1.3], [x + 0.022, tip - 0.02]], 0.009, 1.0)
        elif kind == "nasogastric tube":
            end = [rng.uniform(0.28, 0.42), low + rng.uniform(0.14, 0.26)]
            tube([[x + 0.03, -1.3], [x + 0.04, apex], [0.03, carina], [0.05, low - 0.1],
                  [0.12, low + 0.08], end], 0.014, 0.85)  # fmt: skip
        elif kind == "central line":
            tube([[right * 0.20, -1.2], [right * 0.15, apex - 0.05], [right * 0.10, apex + 0.16],
                  [-0.10, carina - 0.05], atrium], 0.011, 0.9)  # fmt: skip
        elif kind == "picc":
            far = -right
            tube([[far * 1.2, apex + 0.55], [far * 0.95, apex + 0.22], [far * 0.60, apex + 0.08],
                  [far * 0.22, apex + 0.14], [-0.07 if far < 0 else 0.02, apex + 0.24],
                  [-0.11, carina + 0.02], [-0.12, carina + 0.16]], 0.008, 0.85)  # fmt: skip
        elif kind == "pacemaker":
            cx, cy = 0.56 + rng.uniform(-0.05, 0.05), apex + 0.20 + rng.uniform(-0.03, 0.05)
            turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            across_can = 0.115 * np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.7
            down_can = 0.090 * np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.8
            solid.append(np.stack([cx + across_can, cy + down_can], 1))
            start = [[cx - 0.06, cy - 0.08], [0.34, apex + 0.10], [0.08, apex + 0.22]]
            tube([*start, [-0.10, carina + 0.02], [-0.15, low - 0.28], [-0.10, low - 0.20]],
                 0.011, 1.0)  # fmt: skip
            tube([*start, [-0.09, carina + 0.02], [-0.10, low - 0.14], [0.10, low - 0.01],
                  [0.24, low - 0.02]], 0.011, 1.0)  # fmt: skip
            lead = np.array([[0.21, low - 0.018], [0.25, low - 0.02]])
            strokes.append((lead, 0.024, 1.0))
        elif kind == "sternal wires":
            for height in np.linspace(apex + 0.32, low - 0.10, 6).tolist():
                a, b, c = rng.normal(0, 0.006, 3).tolist()
                wide, tall = 0.038 + a, 0.020 + 0.3 * b
                across = [-wide, -0.4 * wide, wide, 0.2 * wide, -0.6 * wide]
                down = [height + b, height - tall, height + c, height + tall, height + 0.6 * tall]
                wire = np.array([across, down]).T
                strokes.append((smooth_curve(wire, closed=True), 0.009, 1.0))
        elif kind == "chest tube":
            side = right
            wall = float(chest.wall(np.array(0.25)))
            tube([[side * 1.3, 0.42], [side * (wall + 0.05), 0.30], [side * (wall - 0.10), 0.10],
                  [side * 0.34, apex + 0.22]], 0.026, 0.62)  # fmt: skip
    metal = canvas.lines(strokes) + 1.5 * canvas.fill(solid) if solid else canvas.lines(strokes)
    drawing.dense = drawing.dense + 1.05 * canvas.soften(metal, 0.002)


_SIGNS: Final = {
    "Atelectasis": _atelectasis,
    "Cardiomegaly": _cardiomegaly,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Enlarged Cardiomediastinum": _enlarged_cardiomediastinum,
    "Fracture": _fracture,
    "Lung Lesion": _lung_lesion,
    "Lung Opacity": _lung_opacity,
    "Pleural Effusion": _pleural_effusion,
    "Pleural Other": _pleural_other,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
    "Support Devices": _support_devices,
}


def _lateral(canvas: Canvas, patient: Patient, findings: tuple[Finding, ...]) -> Array:
    """Return the attenuation of a simple lateral view (spine to the right of the picture)."""
    names = {finding.name for finding in findings}
    X, Y = canvas.X, canvas.Y
    apex, low = patient.apex, patient.angle
    back = 0.42 + 0.10 * np.cos(1.6 * Y)
    front = -0.50 - 0.10 * np.clip(Y + 0.3, 0, 1)
    trunk = np.array([[front[0, 0] - 0.1, -1.5], [-0.30, apex - 0.2], [-0.62, apex + 0.35],
                      [-0.68, 0.2], [-0.66, 1.5], [0.74, 1.5], [0.78, 0.1], [0.72, apex + 0.1],
                      [0.30, apex - 0.15], [0.22, -1.5]])  # fmt: skip
    body = canvas.soften(canvas.fill([smooth_curve(trunk, closed=True)]), 0.015)
    lung = np.array([[0.10, apex], [0.45, apex + 0.15], [0.60, 0.0], [0.55, low + 0.02],
                     [0.25, patient.dome + 0.02], [-0.10, patient.dome - 0.05],
                     [-0.45, patient.dome + 0.12], [-0.52, 0.0], [-0.38, apex + 0.22]])  # fmt: skip
    air = canvas.soften(canvas.fill([smooth_curve(lung, closed=True)]), 0.014)
    size = 1.25 if "Cardiomegaly" in names else 1.0
    heart = np.sqrt(
        np.clip(1 - ((X + 0.20) / (0.25 * size)) ** 2 - ((Y - 0.14) / (0.27 * size)) ** 2, 0, 1)
    )
    spine = np.clip((0.085 - np.abs(X - back - 0.05)) / 0.02, 0, 1)
    discs = np.exp(-((np.mod(Y / 0.13, 1.0) - 0.5) ** 2) / 0.008)
    if "Pleural Effusion" in names:
        air *= 1 - 0.9 * np.clip((Y - patient.dome + 0.12 - 0.15 * X) / 0.05, 0, 1)
    ribs = []
    for index in range(RIBS):
        y = apex + 0.10 + index * patient.rib_spacing
        line = np.array([[0.45, y - 0.05], [0.1, y + 0.05], [-0.35, y + 0.22]])
        ribs.append(band(smooth_curve(line), patient.rib_width * 0.8))
    bones = 0.14 * canvas.soften(canvas.fill(ribs), 0.006)
    bones = bones + spine * (0.42 - 0.30 * discs)
    total = 2.5 * body - 1.55 * air + 0.75 * heart * air + bones * body
    return (total + 0.06 * canvas.texture(noise_field([patient.seed, 8], 384, 1.1)) * air).astype(
        np.float32
    )


def _expose(canvas: Canvas, attenuation: Array, study: Study) -> NDArray[np.uint8]:
    """Turn attenuation into gray levels: scatter, quanta, logarithm, edge boost, window, frame."""
    rng = np.random.default_rng([study.seed, 30])
    size = canvas.size
    beam = np.exp(-attenuation)
    beam = 0.93 * beam + 0.07 * canvas.soften(beam, 0.16) + 0.004
    beam = canvas.soften(beam, 0.0028)  # focal spot and detector
    quanta = 9000.0 * np.exp(study.exposure) * (256 / size) ** 0.5
    noise = rng.standard_normal((size, size), dtype=np.float32)
    counts = beam + noise * np.sqrt(beam / quanta)
    shown = -np.log(np.maximum(counts, 0.002))
    shown += 0.55 * (shown - canvas.soften(shown, 0.012))  # the scanner's edge enhancement
    level = (shown - 1.60 - 0.25 * study.exposure) * study.contrast
    grey = 1 / (1 + np.exp(-1.62 * level))
    grey = np.clip((grey - 0.06) / 0.88, 0, 1)
    grey = _frame(canvas, grey, study, rng)
    return (255 * grey + 0.5).astype(np.uint8)


def _frame(canvas: Canvas, grey: Array, study: Study, rng: np.random.Generator) -> Array:
    """Add the collimator's edges and the side marker."""
    size = canvas.size
    if rng.random() < 0.45:
        left, top, right, bottom = (rng.uniform(0, 0.045, 4) * size).astype(int)
        mask = np.zeros_like(grey)
        mask[top : size - bottom, left : size - right] = 1
        grey = grey * ndimage.uniform_filter(mask, 3)
    straight = Canvas(size)
    letter = "R" if rng.random() < 0.4 else "L"
    x = (-0.90 if letter == "R" else 0.84) + rng.uniform(-0.03, 0.03)
    y = -0.86 + rng.uniform(-0.05, 0.22)
    glyphs: dict[str, list[list[tuple[float, float]]]] = {
        "L": [[(0, 0), (0, 0.10), (0.06, 0.10)]],
        "R": [
            [(0, 0.10), (0, 0), (0.045, 0), (0.06, 0.025), (0.045, 0.05), (0, 0.05)],
            [(0.02, 0.05), (0.062, 0.10)],
        ],
    }
    lines = [(np.add(stroke, (x, y)), 0.018, 1.0) for stroke in glyphs[letter]]
    if study.view == "AP":
        lines += [(np.array([[x, y + 0.15], [x + 0.06, y + 0.15]]), 0.014, 0.9)]
    return np.maximum(grey, 0.96 * straight.lines(lines))
