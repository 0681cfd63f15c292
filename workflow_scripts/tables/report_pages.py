"""The pages of the report, and which table stands on which."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from workflow_scripts.tables.layout import Layout, read_yaml
from workflow_scripts.tables.models import ModelEntry


@dataclass(frozen=True)
class Page:
    """A page of the report.

    Attributes:
        key: its address is `#/{key}`.
        title: its title, also in the navigation.
        group: its group in the navigation.
        lead: a sentence or two on what the page answers.
    """

    key: str
    title: str
    group: str
    lead: str


OVERVIEW: Final = "overview"
OVERVIEW_PAGE: Final = Page(OVERVIEW, "Other tables", "", "")

PAGES: Final = tuple(Page(**page) for page in read_yaml("pages.yaml"))
"""In the order of the navigation, after the overview and before the models."""

DOWNSTREAM_NOTE: Final = (
    "A gain or loss in bold is larger than the noise of test patients and training runs, among all "
    "values of its table (Holm's correction). If an arm was trained once (repeats: 1), the noise "
    "of the seed is not known, and no value is called a gain or a loss. The control of training "
    "copies adds no new information: its gain comes from more training steps."
)
"""The paragraph on gains on the pages of downstream tasks."""


def by_page(layouts: Iterable[Layout]) -> dict[str, list[Layout]]:
    """Return the tables of each page, in the paper's order."""
    pages: dict[str, list[Layout]] = {}
    for layout in sorted(layouts, key=lambda layout: _order(layout.number)):
        pages.setdefault(layout.page, []).append(layout)
    return pages


def navigation(
    pages: Sequence[Page], models: Sequence[ModelEntry]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return groups of (address after `#/`, words): overview, results, models, the rest."""
    groups: dict[str, list[tuple[str, str]]] = {"": [(OVERVIEW, "Overview")], "Results": []}
    for title, control in (("Models", False), ("Controls", True)):
        groups[title] = [(f"model/{m.key}", m.name) for m in models if m.is_control == control]
    for page in pages:
        groups.setdefault(page.group, []).append((page.key, page.title))
    return [(group, links) for group, links in groups.items() if links]


def _order(number: str) -> tuple[int, str]:
    """Return a key that sorts 2b between 2 and 10, and a table without a number last."""
    digits = number.rstrip("abcdefghijklmnopqrstuvwxyz")
    return (int(digits) if digits.isdigit() else 1000, number)
