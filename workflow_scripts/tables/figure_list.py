"""The list of the figures, from `figures.yaml`, for the rules, the report and the drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from workflow_scripts.tables.layout import read_yaml

LIST: Final = "figures.json"
INLINE: Final = "figures_inline.json"
"""The figures of the report, by stem: those that show no patients."""


@dataclass(frozen=True)
class FigureEntry:
    """An entry of the list of figures.

    Attributes:
        stem: the stem of its files.
        title: its title if it cannot be drawn.
        missing: the reason if it cannot be drawn.
        page: its page of the report; None if it shows patients, which only their owner may see.
        data: files with the values that it shows.
    """

    stem: str
    title: str
    missing: str
    page: str | None = None
    data: Sequence[str] = ()

    @property
    def owner_only(self) -> bool:
        """Whether it shows patients."""
        return self.page is None

    @property
    def number(self) -> str:
        """Its number."""
        return str(int(self.stem.removeprefix("figure").split("_")[0]))


FIGURES: Final = tuple(FigureEntry(**entry) for entry in read_yaml("figures.yaml"))
