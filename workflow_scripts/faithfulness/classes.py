"""The classes of CXAS that this workflow knows by name; right and left are the patient's."""

from typing import Final

CLASSES: Final = {
    "heart": 121,
    "right_lung": 135,
    "left_lung": 136,
    "right_clavicle": 32,
    "left_clavicle": 31,
}
"""The class of each organ in CXAS; right and left are the patient's."""

RIBS: Final = tuple(range(69, 105))
"""The classes of ribs in CXAS, posterior and anterior, right and left."""

NAMES: Final = (
    {30: "clavicles"}
    | {number: name.replace("_", " ") for name, number in CLASSES.items()}
    | dict.fromkeys(RIBS, "rib")
)
"""The names of the classes that this workflow knows, by number; the others have numbers alone.

Some classes of CXAS are unions of others: class 30 is both clavicles.
"""
