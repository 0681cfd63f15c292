"""What a part says: one JSON line for each value, kept in a file, and the CSV made from them."""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

COLUMNS: Final = (
    "date", "gpu", "driver", "torch", "python", "part", "name", "value", "unit", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One value of a part.

    Attributes:
        part: which part measured it.
        name: of the value, unique within its part.
        value: the number; None where there is none.
        unit: of the number; `state` for what became of a part.
        note: how it was measured, what it is compared with, or why there is none.
        failed: whether the part failed, or a difference is above its tolerance.
    """

    part: str
    name: str
    value: float | None
    unit: str
    note: str = ""
    failed: bool = False

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.part}: {self.name} is {self.value}")


class Writer:
    """Appends a part's lines to a file and prints them as they come."""

    def __init__(self, part: str, file: Path):
        self.part, self._file = part, file

    def __call__(self, name: str, value: float | None, unit: str, note: str = "", **more: Any):
        number = None if value is None else float(value)
        if number is not None and not math.isfinite(number):
            number, note, more = None, f"NOT FINITE: {number}; {note}", {"failed": True}
        line = Line(self.part, name, number, unit, note, **more)
        text = json.dumps(asdict(line))
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")
        print(text, flush=True)

    def compare(self, name: str, difference: float, tolerance: float, what: str) -> None:
        """Write a difference, and whether it keeps its tolerance."""
        above = not difference <= tolerance
        note = f"{what}; tolerance {tolerance:g}{': NOT KEPT' if above else ''}"
        self(name, difference if math.isfinite(difference) else None, "1", note, failed=above)

    def goal(self, name: str, ratio: float, least: float, what: str) -> None:
        """Write a ratio to what would be ideal, and whether it reaches a goal.

        A goal that is not met is said, and fails nothing: it is work to be done, not a fault.
        """
        met = "met" if ratio >= least else "NOT MET"
        self(name, ratio, "1", f"{what}; goal {least:g}: {met}")

    def losses(self, values: Iterable[float]) -> None:
        """Name the first of a part's losses that is not finite, by its step from 1, as a fault."""
        for step, loss in enumerate(values, 1):
            if not math.isfinite(loss):
                self("loss", loss, "1", f"of step {step}", failed=True)
                return


def read_lines(file: Path) -> list[Line]:
    """Return what parts have written; a last line that was cut off by a kill is left out."""
    found = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            found.append(Line(**json.loads(text)))
        except json.JSONDecodeError:
            continue
    return found


def write_csv(lines: Iterable[Line], about: Mapping[str, str], file: Path) -> None:
    """Write lines as CSV, each with the date, GPU, driver and versions in `about`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for line in lines:
            value = "" if line.value is None else f"{line.value:.6g}"
            row = {"part": line.part, "name": line.name, "value": value, "unit": line.unit}
            writer.writerow({**about, **row, "note": line.note})
