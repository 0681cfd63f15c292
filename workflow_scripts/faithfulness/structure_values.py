"""Which of the labeller's classes the images show, against radiographs.

`organs.draw_and_find` finds the classes of each image. A class that no test radiograph shows is
left out: the labeller may be unable to draw it. Some classes of CXAS are unions of others, and each
class counts as one structure. The classes that `classes.NAMES` lacks are known by number alone.
"""

from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.records import Value
from workflow_scripts.faithfulness.classes import NAMES
from workflow_scripts.faithfulness.patients import jackknifed, jackknifed_value
from workflow_scripts.faithfulness.seen import unpack_structures

ALWAYS_THERE: Final = 0.99
"""A structure is missed if at least this share of radiographs shows it."""

COLUMNS: Final = (
    "model",
    "class",
    "name",
    "images",
    "radiographs",
    "difference",
    "low",
    "high",
    "n_images",
    "n_radiographs",
    "asked",
)
"""The columns of `structure_table`."""

_NONE_DRAWN: Final = "the labeller draws no structure in any test radiograph"
_NONE_ASKED: Final = f"no structure is in {ALWAYS_THERE:.0%} of the radiographs that decide"


class Structures:
    """The classes that count, and those that images are asked for.

    Args:
        radiographs: all radiographs of the test split, see `anatomy_values.measured`.
        first: bool (n,), the radiographs that decide which structures nearly all radiographs show.
            Images are not tested on their patients.

    Attributes:
        drawn: numbers of the classes that at least one test radiograph shows, ascending.
        asked: those that at least ALWAYS_THERE of the radiographs of `first` show.
    """

    def __init__(self, radiographs: pd.DataFrame, first: np.ndarray):
        shown = unpack_structures(radiographs["structures"])
        self.drawn = np.flatnonzero(shown.any(axis=0))
        always = shown[first].mean(axis=0) >= ALWAYS_THERE
        self.asked = np.flatnonzero(always)

    def details(self, classes: int) -> dict[str, Any]:
        """Return the classes that count, for a record; `classes` is the number of all."""
        return {
            "drawn": self.drawn.tolist(),
            "asked": self.asked.tolist(),
            "left_out": classes - len(self.drawn),
            "why_left_out": "the labeller draws them in no test radiograph",
        }

    def values(
        self, images: pd.DataFrame, tried: pd.DataFrame, held_out: pd.DataFrame
    ) -> list[Value]:
        """Return how many structures images show, and how many of those asked for they lack.

        Args:
            images: the model's images.
            tried: those for prompts of patients that did not decide what is asked.
            held_out: the radiographs of these patients.
        """
        n = len(images)
        if len(self.drawn) == 0:
            return [Value(name, None, way, 0, reason=_NONE_DRAWN) for name, way in _METRICS]
        values = [
            _mean("structures", "none", images, self.drawn, len(self.drawn)),
            Value("structures_drawn", float(len(self.drawn)), "none", n),
        ]
        if len(self.asked) == 0:
            lacking = [Value(name, None, way, 0, reason=_NONE_ASKED) for name, way in _METRICS[2:]]
            return [*values, *lacking]
        for (name, way), rows in zip(_METRICS[2:4], (tried, held_out), strict=True):
            if rows.empty:
                reason = "no prompt of a patient that the rule was not set on"
                values.append(Value(name, None, way, 0, reason=reason))
            else:
                values.append(_mean(name, way, rows, self.asked, len(self.asked), lacks=True))
        return [*values, Value("structures_asked", float(len(self.asked)), "none", n)]

    def table(self, model: str, images: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
        """Return a row with COLUMNS for each class that counts.

        `images` and `radiographs` are shares that show the class, `difference` is the first minus
        the second. `low` and `high` are a 95% jackknife interval over patients; nan if the
        difference does not vary, or if there are too few patients. The radiographs are those of the
        prompts, each once.

        Args:
            model: key of the model.
            images: the model's images.
            own: the prompts' own radiographs.
        """
        reference = own.drop_duplicates("id")
        sides = [unpack_structures(rows["structures"]) for rows in (reference, images)]
        patients = [rows["patient_id"].to_numpy(str) for rows in (reference, images)]
        rows = []
        for number in self.drawn.tolist():
            real, made = (side[:, number].astype(float) for side in sides)

            def statistic(
                keep: np.ndarray,
                kept: np.ndarray,
                real: np.ndarray = real,
                made: np.ndarray = made,
            ) -> float:
                return float(made[kept].mean() - real[keep].mean())

            difference, interval = jackknifed(statistic, patients[0], patients[1], -1.0, 1.0)
            low, high = (np.nan, np.nan) if interval is None else interval
            shares = float(made.mean()), float(real.mean())
            sizes = len(made), len(real)
            asked = bool(number in self.asked)
            name = NAMES.get(number, "")
            rows.append((model, number, name, *shares, difference, low, high, *sizes, asked))
        return pd.DataFrame(rows, columns=list(COLUMNS))


_METRICS: Final = (
    ("structures", "none"),
    ("structures_drawn", "none"),
    ("structures_lacking", "lower"),
    ("structures_lacking_radiographs", "none"),
    ("structures_asked", "none"),
)


def _mean(
    metric: str, way: str, rows: pd.DataFrame, classes: np.ndarray, most: int, lacks: bool = False
) -> Value:
    """Return the mean number of the classes that an image shows, or lacks."""
    shown = unpack_structures(rows["structures"])[:, classes]
    counts = (shown != lacks).sum(axis=1).astype(float)
    patients = rows["patient_id"].to_numpy(str)
    estimate = jackknifed(
        lambda _, kept: float(counts[kept].mean()), patients, patients, 0.0, float(most)
    )
    return jackknifed_value(metric, way, len(rows), estimate)
