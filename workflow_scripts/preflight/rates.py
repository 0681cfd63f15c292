"""Measured GPU rates, each with its date, versions and source file.

All files have the columns that `make gpu-check` writes. So the cost model and the plan only need
its CSV in one of `FOLDERS`. The folder `measured/` next to this module has the measurements from
before gpu-check existed. No rate is estimated.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from math import isfinite
from pathlib import Path
from typing import Final

from workflow_scripts.common.errors import InputError

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = (Path(__file__).with_name("measured"), ROOT / "tests/gpu/results")
"""The folders with files of rates."""

COLUMNS: Final = (
    "date", "gpu", "driver", "torch", "python", "part", "name", "value", "unit", "note",
)  # fmt: skip

_MODELS: Final = (
    "sd_v1_5", "sd_v2_1", "pixart_sigma", "sana", "sd_v3_5", "lumina_2", "flux_1_dev",
)  # fmt: skip
_ENCODERS: Final = (
    "rad_dino", "inception_v3", "densenet_121", "biovil_t_image", "biovil_t_text", "reid", "cxas",
)  # fmt: skip
PARTS: Final = frozenset(
    [
        *(f"train:{name}" for name in _MODELS),
        *(f"sample:{name}" for name in (*_MODELS, "radedit", "llm_cxr")),
        *(f"encode:{name}" for name in _ENCODERS),
        *(f"report:{name}" for name in ("projector", "adapter", "write")),
        *("search", "likeness", "classify", "unet", "reid", "judge", "read:chexbert", "read:green"),
    ]
)
"""The parts of gpu-check that measure rates for the plan."""

KINDS: Final = ("H200", "H100", "A100", "L40S", "V100")
"""Kinds of GPUs, by a word in their names; any other GPU is a kind of its own."""


@dataclass(frozen=True)
class Rate:
    """One measured number.

    Attributes:
        kind: the kind of GPU, such as `H100`; see `kind_of`.
        date: date of the measurement, ISO format.
        torch: torch's version; empty if it was not recorded.
        part: the part of gpu-check, such as `train:sd_v1_5`.
        name: the name of the value within its part, such as `images per second`.
        value: the measured number, > 0.
        unit: `s` or `1/s`.
        note: the settings, followed by how the rate was measured.
        file: the file that holds the rate.
    """

    kind: str
    date: str
    torch: str
    part: str
    name: str
    value: float
    unit: str
    note: str
    file: str

    def has(self, settings: str) -> bool:
        """Return whether the rate was measured with these settings, which begin its note."""
        return self.note == settings or self.note.startswith((f"{settings}, ", f"{settings}; "))

    @property
    def seconds(self) -> float:
        """Seconds per piece of work."""
        return self.value if self.unit == "s" else 1 / self.value

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit} on {self.kind}, {self.date} ({self.file})"


def kind_of(gpu: str) -> str:
    """Return a GPU's kind from its name in `nvidia-smi`, a CSV or a profile."""
    return next((kind for kind in KINDS if kind in gpu.upper()), gpu)


def read_rates(folders: Iterable[Path] = FOLDERS) -> list[Rate]:
    """Return all rates (in s or 1/s), the newest last.

    Raises:
        InputError: a file has other columns, or a rate is not a number above 0.
    """
    files = [file for folder in folders for file in sorted(folder.glob("*.csv"))]
    rates = [rate for file in files for rate in _read(file)]
    return sorted(rates, key=lambda rate: rate.date)


def newest(
    rates: Sequence[Rate], kind: str, parts: Sequence[str], name: str, settings: str
) -> Rate | None:
    """Return the newest rate of a kind of GPU for given settings, or None.

    Args:
        rates: the rates from `read_rates`.
        kind: the kind of GPU.
        parts: the parts of gpu-check, any of which will do.
        name: the name of the value.
        settings: the settings, see `Rate.has`.
    """
    fitting = (r for r in reversed(rates) if r.kind == kind and r.part in parts and r.name == name)
    return next((rate for rate in fitting if rate.has(settings)), None)


def _read(file: Path) -> list[Rate]:
    where = str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)
    with file.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise InputError(
                f"not a table of rates: its columns are {reader.fieldnames}",
                where,
                f"use what `make gpu-check` wrote, with the columns {', '.join(COLUMNS)}",
            )
        rows = [row for row in reader if row["unit"] in ("s", "1/s") and row["value"]]
    return [_rate(row, where) for row in rows if row["name"] != "state" and row["gpu"] != "cpu"]


def _rate(row: dict[str, str], where: str) -> Rate:
    try:
        value, day = float(row["value"]), date.fromisoformat(row["date"]).isoformat()
        if not (value > 0 and isfinite(value)):
            raise ValueError(f"{value} is not a rate")
    except ValueError as error:
        raise InputError(
            f"{row['part']}, {row['name']}: {error}", where, "correct the row"
        ) from None
    return Rate(
        kind_of(row["gpu"]), day, row["torch"], row["part"], row["name"], value, row["unit"],
        row["note"], where,
    )  # fmt: skip
