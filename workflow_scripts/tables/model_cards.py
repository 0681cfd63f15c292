"""The report's cards: the values of one model in every table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.tables.assemble import Cell, Row, Table, by_reason, is_few
from workflow_scripts.tables.examples import Gallery, Shown
from workflow_scripts.tables.models import CAPTION_SOURCES, ModelEntry, controls_last
from workflow_scripts.tables.report_pages import OVERVIEW_PAGE, PAGES, Page, by_page

_SETTINGS: Final = {
    "base": "Base checkpoint",
    "generate": "Generation",
    "finetune": "Fine-tuning",
    "caption_source": "Captions",
    "control": "Control",
}
"""Names of settings for readers; others are named by their key."""


@dataclass(frozen=True)
class Number:
    """One value of a model.

    Attributes:
        name: the metric's header; the finding if the table has a column for each.
        cell: the value, or the reason why there is none.
        rank: the rank among the models, from 1 for the best; None if no direction is better.
        ranked: the number of ranked models.
    """

    name: str
    cell: Cell
    rank: int | None
    ranked: int


@dataclass(frozen=True)
class TableNumbers:
    """The values of a model in one table."""

    table: Table
    numbers: tuple[Number, ...]

    @property
    def measured(self) -> tuple[Number, ...]:
        """The numbers that have a value."""
        return tuple(number for number in self.numbers if number.cell.value is not None)

    @property
    def per_finding(self) -> bool:
        """Whether the table has a column for each finding."""
        return sum(number.name in FINDINGS for number in self.numbers) > 1

    @property
    def has_published(self) -> bool:
        """Whether the paper has any of these values."""
        return any(number.cell.published for number in self.numbers)


@dataclass(frozen=True)
class Sample:
    """A caption with the real radiograph and the model's image."""

    caption: str
    real: Shown
    image: Shown


@dataclass(frozen=True)
class Missing:
    """The values that a model lacks for one reason, by table."""

    reason: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class ModelCard:
    """All that is known of a model.

    Attributes:
        model: the model.
        glance: one number of each question.
        settings: its settings, as (name, value); a value may be a list of (name, value) again.
        samples: captions with their images.
        by_page: its numbers by the page that has their tables.
        missing: what was not measured, and why.
        costs: its rows of the cost table.
        sections: key and title of each section, in the order of the card; keys are unique.
    """

    model: ModelEntry
    glance: TableNumbers
    settings: tuple[tuple[str, Any], ...]
    samples: tuple[Sample, ...]
    by_page: dict[str, tuple[TableNumbers, ...]]
    missing: tuple[Missing, ...]
    costs: tuple[Row, ...]
    sections: tuple[tuple[str, str], ...]


def model_cards(
    tables: dict[str, Table],
    glance: Table,
    models: Sequence[ModelEntry],
    gallery: Gallery | None,
    costs: Table | None,
    shown: Sequence[Page] = (OVERVIEW_PAGE, *PAGES),
) -> list[ModelCard]:
    """Return a card for each model, competitors first, then controls.

    Args:
        tables: all, by stem.
        glance: one column of each question's table.
        models: in the order of the tables.
        gallery: example images; None shows none.
        costs: the cost table, where there is one.
        shown: pages of the report whose tables a card repeats, in order.
    """
    pages = by_page(table.layout for table in tables.values())
    cards = []
    for model in controls_last(models):
        numbers = {
            page: tuple(
                of_table
                for layout in layouts
                if (of_table := _numbers(tables[layout.stem], model.key)).numbers
            )
            for page, layouts in pages.items()
        }
        everything = [of_table for of_page in numbers.values() for of_table in of_page]
        samples = tuple(_samples(gallery, model)) if gallery else ()
        measured = {
            page: of_page for page, of_page in numbers.items() if any(t.measured for t in of_page)
        }
        filled = {*measured, *(["samples"] if samples else [])}
        if model.settings and not model.is_control:
            filled.add("settings")
        cards.append(
            ModelCard(
                model,
                _numbers(glance, model.key),
                tuple((_SETTINGS.get(k, _words(k)), _value(v)) for k, v in model.settings.items()),
                samples,
                measured,
                tuple(_missing(everything)),
                tuple(row for row in costs.rows if row.key == model.key) if costs else (),
                _sections(filled, shown),
            )
        )
    return cards


def _sections(filled: set[str], shown: Sequence[Page]) -> tuple[tuple[str, str], ...]:
    """Return the sections of a card: one for each page that has a value of the model.

    Missing values and the cost always have a section. A section has the key of its page, so that
    the settings and the cost, which a card adds, are in one section with the tables of their page.
    """
    titles = {"samples": "Samples"}
    titles |= {page.key: page.title for page in shown if page.key in filled}
    titles |= {"missing": "Not measured, and why", "cost": "Cost"}
    return tuple((key, title) for key, title in titles.items() if key != "samples" or key in filled)


def rank_of(table: Table, row: Row, j: int) -> tuple[int | None, int]:
    """Return a value's rank among the models of its column, and how many models have a value.

    Values that look the same share the better rank, as in the tables' marks. The rank is None for a
    control, and in a column without a direction, in one of gains, which compare with real data, and
    in one in which a value rests on too few images.
    """
    column = table.layout.columns[j]
    rows = [other for other in table.rows if other.kind == "model"]
    one_row_each = len({other.key for other in rows}) == len(rows)
    if column.direction == "none" or row.kind != "model" or not one_row_each:
        return None, 0
    values = [float(other.cells[j].text) for other in rows if other.cells[j].value is not None]
    few = any(is_few(other.cells[j]) for other in rows if other.cells[j].value is not None)
    if few or column.is_gain or row.cells[j].value is None:
        return None, len(values)
    of_row, sign = float(row.cells[j].text), 1 if column.direction == "lower" else -1
    return 1 + sum(sign * value < sign * of_row for value in values), len(values)


def _numbers(table: Table, key: str) -> TableNumbers:
    numbers = []
    rows = [row for row in table.rows if row.key == key and row.kind in ("model", "control")]
    for row in rows:
        for j, cell in enumerate(row.cells):
            name = cell.column.subset if cell.column.subset in FINDINGS else cell.column.header
            if len(rows) > 1:
                name = ", ".join([name, *row.attributes])
            numbers.append(Number(name, cell, *rank_of(table, row, j)))
    return TableNumbers(table, tuple(numbers))


def _samples(gallery: Gallery, model: ModelEntry) -> list[Sample]:
    return [
        Sample(example.caption, example.images[0], image)
        for example in gallery.examples
        for image in example.images[1:]
        if image.label == model.name and image.uri is not None
    ]


def _missing(tables: Sequence[TableNumbers]) -> list[Missing]:
    places: dict[str, list[str]] = {}
    for of_table in tables:
        named = by_reason((number.name, number.cell) for number in of_table.numbers)
        for reason, names in named.items():
            place = f"Table {of_table.table.layout.number}"
            if len(names) < len(of_table.numbers):
                place += f" ({', '.join(names)})"
            places.setdefault(reason, []).append(place)
    return [Missing(reason, tuple(in_tables)) for reason, in_tables in places.items()]


def _words(key: str) -> str:
    words = key.replace("_", " ")
    return words[:1].upper() + words[1:]


def _value(text: str) -> Any:
    """Return a setting for readers: JSON becomes (name, value) pairs or a list in words."""
    if text in CAPTION_SOURCES:
        return CAPTION_SOURCES[text]
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, dict):
        return tuple((_words(str(k)), _plain(v)) for k, v in value.items())
    return _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return (
            ", ".join(f"{_words(str(k)).lower()} {_plain(v)}" for k, v in value.items()) or "none"
        )
    if isinstance(value, list):
        return ", ".join(_plain(v) for v in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "") else str(value)
