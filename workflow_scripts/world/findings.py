"""A finding of the world: its name, place, severity and certainty, for drawing and describing."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from workflow_scripts.common.manifest import FINDINGS

SIDED: Final = {
    "Atelectasis": (0.3, 0.35, 0.35),
    "Consolidation": (0.45, 0.40, 0.15),
    "Edema": (0.0, 0.0, 1.0),
    "Fracture": (0.5, 0.5, 0.0),
    "Lung Lesion": (0.5, 0.5, 0.0),
    "Lung Opacity": (0.35, 0.35, 0.30),
    "Pleural Effusion": (0.3, 0.35, 0.35),
    "Pleural Other": (0.4, 0.4, 0.2),
    "Pneumonia": (0.4, 0.35, 0.25),
    "Pneumothorax": (0.55, 0.45, 0.0),
}
"""Findings that have a side, with the probabilities of right, left and bilateral."""

ZONED: Final = {
    "Consolidation": (0.3, 0.2, 0.5),
    "Fracture": (0.2, 0.6, 0.2),
    "Lung Lesion": (0.4, 0.35, 0.25),
    "Lung Opacity": (0.2, 0.3, 0.5),
    "Pneumonia": (0.15, 0.3, 0.55),
}
"""Findings that have a zone, with the probabilities of upper, mid and lower."""

DEVICES: Final = {
    "endotracheal tube": 0.26,
    "central line": 0.40,
    "picc": 0.18,
    "nasogastric tube": 0.28,
    "pacemaker": 0.20,
    "sternal wires": 0.24,
    "chest tube": 0.08,
}
"""Support devices, with the probability of each in a study with devices."""

SIDE_NAMES: Final = ("right", "left", "bilateral")
ZONE_NAMES: Final = ("upper", "mid", "lower")


@dataclass(frozen=True)
class Finding:
    """One finding of one study.

    Attributes:
        name: one of FINDINGS, never "No Finding".
        side: "right", "left" or "bilateral" (the patient's sides), or "" if it has none.
        zone: "upper", "mid" or "lower", or "" if it has none.
        severity: in [0, 1]; captions say mild below 1/3 and severe from 2/3 on.
        certain: True for label 1; False for an uncertain finding (label -1), drawn faintly.
        devices: keys of DEVICES; only for Support Devices.
        seed: determines its shape and place.
    """

    name: str
    side: str = ""
    zone: str = ""
    severity: float = 0.5
    certain: bool = True
    devices: tuple[str, ...] = field(default=())
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in FINDINGS or self.name == "No Finding":
            raise ValueError(f"{self.name!r} cannot be drawn")
        if (self.name in SIDED) != (self.side in SIDE_NAMES):
            raise ValueError(f"{self.name} with side {self.side!r}")
        if (self.name in ZONED) != (self.zone in ZONE_NAMES):
            raise ValueError(f"{self.name} with zone {self.zone!r}")

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides as signs of x: -1 right, +1 left."""
        return {"right": (-1,), "left": (1,), "bilateral": (-1, 1), "": ()}[self.side]

    @property
    def grade(self) -> int:
        """0 mild or small, 1 moderate, 2 severe or large."""
        return min(int(self.severity * 3), 2)


def draw_finding(name: str, seed: int, certain: bool = True) -> Finding:
    """Return a finding with side, zone, severity and devices drawn from a seed."""
    rng = np.random.default_rng([seed, 4])
    severity = rng.uniform(0.12, 1.0) if certain else rng.uniform(0.05, 0.30)
    side = str(rng.choice(SIDE_NAMES, p=SIDED[name])) if name in SIDED else ""
    zone = str(rng.choice(ZONE_NAMES, p=ZONED[name])) if name in ZONED else ""
    devices: tuple[str, ...] = ()
    if name == "Support Devices":
        devices = tuple(kind for kind, chance in DEVICES.items() if rng.random() < chance)
        devices = devices or (str(rng.choice(["central line", "pacemaker", "sternal wires"])),)
    return Finding(name, side, zone, float(severity), certain, devices, seed)
