"""Tables: rows and cells of numbers, with marks, notes and captions.

No number is computed here. Tables join measurements, and the numbers that `derive/` computes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workflow_scripts.common.records import Record
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.copies import words_of_copies
from workflow_scripts.tables.derive.holm import holm
from workflow_scripts.tables.derive.long_table import (
    FEWEST_RANKED,
    FLOOR_LABEL,
    Head,
    LongTable,
    Number,
    few,
    measured,
)
from workflow_scripts.tables.layout import Column, Layout
from workflow_scripts.tables.models import NOT_RUN, ModelEntry, controls_last, variants
from workflow_scripts.tables.published import Key, Published, published_values
from workflow_scripts.tables.records_in import REAL, Records
from workflow_scripts.tables.run import Run


@dataclass(frozen=True)
class Cell:
    """One value of a table, or the reason why there is none.

    Attributes:
        column: the column of the table (a row where the table is transposed).
        value: the number with all its digits; None where there is none.
        n: number of images or prompts; None without a record.
        n_reference: number of reference images; None if there are none.
        interval: lower and upper bound, where there is one.
        interval_kind: what the bounds are, for readers.
        reason: why there is no value.
        note: the number of the note that gives the reason.
        published: the paper's number, where it may stand here.
        difference: the value less the paper's number, if both are of the same protocol.
        rank: `best` or `second` among the models of its column; None for all others.
        beyond_noise: whether a difference is significant.
        p: p value of a gain, see `Value.p`.
    """

    column: Column
    value: float | None
    n: int | None = None
    n_reference: int | None = None
    interval: tuple[float, float] | None = None
    interval_kind: str | None = None
    reason: str | None = None
    note: int | None = None
    published: Published | None = None
    difference: float | None = None
    rank: str | None = None
    beyond_noise: bool = False
    p: float | None = None

    @property
    def mark(self) -> str | None:
        """The mark that readers see: `bold`, `underlined` or none."""
        if self.beyond_noise or self.rank == "best":
            return "bold"
        return "underlined" if self.rank == "second" else None

    @property
    def text(self) -> str:
        """The value as a reader sees it."""
        return "–" if self.value is None else self.rounded(self.value)

    @property
    def is_nought(self) -> bool:
        """Whether a reader sees the value as zero: `0.000`, also where it is 1e-14."""
        return self.value is not None and not self.text.strip("0.-")

    @property
    def bounds(self) -> tuple[str, str] | None:
        """The interval as a reader sees it."""
        if self.interval is None:
            return None
        return self.rounded(self.interval[0]), self.rounded(self.interval[1])

    @property
    def published_text(self) -> str:
        """The paper's number as printed, and in brackets how far the value is from it."""
        if self.published is None:
            return ""
        if self.difference is None:
            return self.published.text
        sign = "" if self.rounded(self.difference).startswith("-") else "+"
        return f"{self.published.text} ({sign}{self.rounded(self.difference)})"

    def is_overall(self, metric: str) -> bool:
        """Whether it shows this metric over all images, not over those of a finding."""
        return (self.column.metric, self.column.subset) == (metric, "all")

    def rounded(self, number: float) -> str:
        """Round to the column's decimals; zero has no sign."""
        if self.column.decimals is None:
            return _short(number)
        text = f"{number:.{self.column.decimals}f}"
        return text.lstrip("-") if float(text) == 0 else text


def _short(number: float) -> str:
    """Format a setting for readers: 768, 0.05, 1e-4."""
    if number == 0 or abs(number) >= 1e-2:
        return f"{number:,.10g}"
    mantissa, exponent = f"{number:.6e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        key: identifies the row: a model's key, a pair of models, a finding, a task.
        label: the row's name, for readers.
        kind: what the row shows: `real`, `model`, `control`, `floor`, `average`, `finding`, `pair`,
            `network`, `shared` or `total`.
        attributes: texts about the row, in the order of the table's attributes; may be empty.
        cells: in the order of the table's columns.
    """

    key: str
    label: str
    kind: str
    attributes: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def has_value(self) -> bool:
        """Whether any cell has a value."""
        return any(cell.value is not None for cell in self.cells)


@dataclass(frozen=True)
class Foot:
    """A row of counts under a table (a column where it is transposed)."""

    label: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table ready to be rendered.

    Attributes:
        layout: what it shows.
        rows: real data, models, controls and floor, in this order.
        feet: counts that the values rest on.
        caption: without the table's number.
        notes: the reasons of the dashes; note i is notes[i - 1].
    """

    layout: Layout
    rows: tuple[Row, ...]
    feet: tuple[Foot, ...]
    caption: str
    notes: tuple[str, ...]

    def values(self, metric: str, *kinds: str) -> list[tuple[Row, Cell]]:
        """Return the cells of a metric over all images that have a value, with their rows.

        Args:
            metric: the metric's key.
            kinds: the kinds of rows; all if there are none.
        """
        return [
            (row, cell)
            for row in self.rows
            if not kinds or row.kind in kinds
            for cell in row.cells
            if cell.is_overall(metric) and cell.value is not None
        ]

    @property
    def explained(self) -> str:
        """The caption after the title: the data, and the meaning of numbers and marks."""
        return self.caption.removeprefix(self.layout.heading).strip()

    @property
    def has_published(self) -> bool:
        """Whether it has any published value."""
        return any(cell.published for row in self.rows for cell in row.cells)

    @property
    def has_differences(self) -> bool:
        """Whether any value is compared with a published one of the same protocol."""
        return any(cell.difference is not None for row in self.rows for cell in row.cells)


def table_of(layout: Layout, rows: Sequence[Row], run: Run, *, counts: bool = True) -> Table:
    """Return rows as a table, with the paper's values, numbered reasons, counts and a caption.

    Args:
        layout: what the table shows.
        rows: in order.
        run: the run whose rows these are.
        counts: whether foot rows count the images behind the values.
    """
    printed = published_values(layout.printed or layout.stem) if run.of_the_paper else {}
    rows = [with_published(row, printed, run.protocol) for row in rows]
    with_notes, notes = noted(rows)
    feet = feet_of(layout, with_notes, run.cohort) if counts else ()
    return Table(layout, tuple(with_notes), feet, caption_of(layout, with_notes, run), tuple(notes))


def joined_table(layout: Layout, run: Run) -> Table:
    """Return a table whose cells are measurements: real data, models, controls and floor."""
    rows = []
    for real in layout.real_rows:
        columns = [replace(c, protocol=real.protocol or c.protocol) for c in layout.columns]
        cells = [measured_cell(c, layout, run, real.family, REAL, NOT_RUN) for c in columns]
        rows.append(Row(REAL, real.label, "real", (), tuple(cells)))
    for model in controls_last(_shown(layout, run.models)):
        measured = run.measurements.has(layout.stage, layout.family or "", model.key)
        if layout.none_measured is not None and not measured:
            continue
        cells = [
            measured_cell(c, layout, run, family, model.key, _why_missing(model, layout, c))
            for c in layout.columns
            for family in [c.family or layout.family]
        ]
        attributes = tuple(model.attributes[header] for header in layout.attributes)
        rows.append(Row(model.key, model.name, model.kind, attributes, tuple(cells)))
    if not rows:
        rows.append(_no_model(layout))
    if layout.floor is not None:
        rows.append(_floor(layout, layout.floor, run))
    table = table_of(layout, _told_apart(rows) if layout.has_gains else _ranked(rows), run)
    if layout.floor is None:
        return table
    return replace(table, feet=(*table.feet, *_floors_origin(layout, layout.floor, run)))


def _told_apart(rows: list[Row]) -> list[Row]:
    """Mark the gains that are larger than their noise among all gains of a table.

    Holm's correction holds over the models' gains, and apart from them over the controls'. A gain
    over one training run has no p and no mark.
    """
    marked = list(rows)
    for control in (False, True):
        places = [
            (i, j, cell.p)
            for i, row in enumerate(rows)
            for j, cell in enumerate(row.cells)
            if (row.kind == "control") == control and cell.p is not None
        ]
        for (i, j, _), apart in zip(places, holm([p for *_, p in places]), strict=True):
            if apart:
                marked[i] = _marked(marked[i], j, beyond_noise=True)
    return marked


def _marked(row: Row, j: int, **mark: Any) -> Row:
    """Return a row whose cell `j` has a mark."""
    cells = list(row.cells)
    cells[j] = replace(cells[j], **mark)
    return replace(row, cells=tuple(cells))


def _shown(layout: Layout, models: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Return the models that have rows; a control without such images by design has none."""
    if not layout.models:
        return []
    if layout.varies is not None:
        return variants(models, layout.varies)
    return [
        m
        for m in models
        if not (m.is_control and m.why_missing(layout.stage, layout.family) != NOT_RUN)
    ]


def _no_model(layout: Layout) -> Row:
    why = "the run has no model for this table"  # only controls, which templates do not describe
    if layout.none_measured is not None:
        why = layout.none_measured
    elif layout.varies is not None:
        why = f"no two models differ in their {layout.varies.replace('_', ' ')} alone"
    cells = tuple(Cell(column, None, reason=f"not run: {why}") for column in layout.columns)
    return Row("none", "–", "model", ("–",) * len(layout.attributes), cells)


def _record(records: Records, layout: Layout, column: Column, model: ModelEntry) -> Record | None:
    family = column.family or layout.family
    return records.find(layout.stage, family, model.key, column.protocol)


def _why_missing(model: ModelEntry, layout: Layout, column: Column) -> str:
    why = model.why_missing(layout.stage, column.family or layout.family)
    if why == NOT_RUN and layout.stage == "faithfulness":
        family = column.family or layout.family or ""
        if family == "stress":
            return "not run: no judge classifier (`faithfulness.judges`, `downstream.tasks`)"
        if family.startswith("findings/"):
            judge = family.removeprefix("findings/")
            return f"not run: no judge {judge} (`faithfulness.judges`, `downstream.tasks`)"
        return "not run: `downstream.tasks` has no segmentation, whose labeller draws organs"
    if why == NOT_RUN and column.family not in (None, layout.family):
        return f"not run: `{layout.stage}.encoders` does not name {column.family}"
    return why


def measured_cell(
    column: Column, layout: Layout, run: Run, family: str | None, model: str, why_missing: str
) -> Cell:
    """Return the cell of a measurement, or the reason why there is none.

    Args:
        column: names the metric and the subset, and the protocol where it is not the tables'.
        layout: names the stage that measures it.
        run: has the measurements of all stages.
        family: the measurement's family.
        model: the model's key.
        why_missing: the reason where nothing was measured there.

    Raises:
        InputError: the measurement says that the opposite direction is better.
    """
    place = (run.measurements, layout.stage, family, model, column.metric, why_missing)
    subset, protocol = column.subset, column.protocol
    number = measured(*place, direction=column.direction, subset=subset, protocol=protocol)
    return cell_of(column, number)


def cell_of(column: Column, number: Number) -> Cell:
    """Return a number as the cell of a column."""
    return Cell(column, **vars(number))


def derived_table(layout: Layout, numbers: LongTable, run: Run, *, counts: bool) -> Table:
    """Return the table of numbers that were computed from measurements.

    Args:
        layout: what it shows.
        numbers: the long table; its rows are the table's.
        run: the run whose measurements these are.
        counts: see `table_of`.
    """
    rows = [_derived_row(layout, head, numbers) for head in numbers.heads]
    words = f"{layout.explanation} {numbers.note}".strip()
    return table_of(replace(layout, explanation=words), rows, run, counts=counts)


def _derived_row(layout: Layout, head: Head, numbers: LongTable) -> Row:
    cells = tuple(
        cell_of(column, numbers.number((head.key, column.metric, column.subset, column.variant)))
        for column in layout.columns
    )
    attributes = tuple(head.attributes.get(header, "–") for header in layout.attributes)
    return Row(head.key, head.label, head.kind, attributes, cells)


def _floor(layout: Layout, metric: str, run: Run) -> Row:
    """Return the row of real images against real images, from the first record of each column.

    The floor depends on the number of images, which is the same for every model that generated
    the whole prompt set. Models come before controls.
    """
    ordered = controls_last(run.models)
    cells = []
    for column in layout.columns:
        of_floor = replace(column, metric=metric)
        place = (of_floor, layout, run, layout.family)
        of_models = [measured_cell(*place, model.key, NOT_RUN) for model in ordered]
        valued = [cell for cell in of_models if cell.value is not None]
        counted = [cell for cell in of_models if cell.n is not None]
        cells.append((valued or counted or of_models or [Cell(of_floor, None, reason=NOT_RUN)])[0])
    return Row("floor", FLOOR_LABEL, "floor", (), tuple(cells))


def _floors_origin(layout: Layout, metric: str, run: Run) -> list[Foot]:
    """Return the images from which each floor of `_floor` is drawn; nothing if no record says."""
    texts = []
    for column in layout.columns:
        drawn_from = ""
        for record in _models_first(layout, column, run):
            measured = record.details.get("floors", {}).get(metric, {}) if record else {}
            if column.subset in measured:
                of_finding = measured[column.subset]["drawn_from"] == "finding"
                drawn_from = "with it" if of_finding else "all"
                break
        texts.append(drawn_from)
    return [Foot("Radiographs of the floor", tuple(texts))] if any(texts) else []


def _models_first(layout: Layout, column: Column, run: Run) -> list[Record | None]:
    """Return the records of a column, those of models before those of controls."""
    ordered = controls_last(run.models)
    return [_record(run.records, layout, column, model) for model in ordered]


def with_published(row: Row, printed: Mapping[Key, Published], protocol: str) -> Row:
    """Return a row with the paper's numbers beside its values.

    A difference is taken only where both are of the paper's protocol.

    Args:
        row: a row of one model.
        printed: the table's published values, see `published_values`.
        protocol: the protocol of values whose columns name none.
    """
    cells = []
    for cell in row.cells:
        column = cell.column
        key = (row.key, column.metric, column.subset, column.variant)
        measured_alike = column.protocol in (None, "as_published")
        published = printed.get(key) if measured_alike else None
        difference = None
        if published and cell.value is not None and (column.protocol or protocol) == "as_published":
            difference = cell.value - published.value
        cells.append(replace(cell, published=published, difference=difference))
    return replace(row, cells=tuple(cells))


def _ranked(rows: list[Row]) -> list[Row]:
    """Mark the best and the second value of each column among the models.

    Values that look equal to a reader share their mark, and the second is the next value after the
    best. A column with one model has no best. A column has no marks if one of its values rests on
    fewer than `FEWEST_RANKED` images.
    """
    ranked = list(rows)
    for j in range(len(rows[0].cells) if rows else 0):
        printed = {
            i: float(row.cells[j].text)
            for i, row in enumerate(rows)
            if row.kind == "model" and row.cells[j].value is not None
        }
        few = any(is_few(rows[i].cells[j]) for i in printed)
        if few or len(printed) < 2 or rows[0].cells[j].column.direction == "none":
            continue
        lower = rows[0].cells[j].column.direction == "lower"
        order = sorted(set(printed.values()), reverse=not lower)
        for i, value in printed.items():
            place = order.index(value)
            if place < 2:
                ranked[i] = _marked(ranked[i], j, rank=("best", "second")[place])
    return ranked


def is_few(cell: Cell) -> bool:
    """Return whether a value rests on fewer than `FEWEST_RANKED` images, of either side."""
    return few(cell.n, cell.n_reference)


def by_reason(cells: Iterable[tuple[str, Cell]]) -> dict[str, list[str]]:
    """Return the names of the cells without a value, by the reason; the cells come with names."""
    named: dict[str, list[str]] = {}
    for name, cell in cells:
        if cell.reason is not None:
            named.setdefault(cell.reason, []).append(name)
    return named


def noted(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Number the reasons for missing values, each once, in the order of their appearance."""
    reasons = dict.fromkeys(c.reason for row in rows for c in row.cells if c.reason is not None)
    numbers = {reason: number for number, reason in enumerate(reasons, 1)}
    noted = [
        replace(row, cells=tuple(replace(c, note=numbers.get(c.reason or "")) for c in row.cells))
        for row in rows
    ]
    return noted, list(reasons)


def feet_of(layout: Layout, rows: list[Row], cohort: dict[str, SplitCounts]) -> tuple[Foot, ...]:
    """Return the rows that count the images behind each column's values."""
    measured = [row for row in rows if row.kind != "floor"]
    groups = (
        [row.cells for row in measured]
        if layout.transposed
        else list(zip(*(row.cells for row in measured), strict=True))
    )
    feet = []
    for label, counts in (
        (layout.n_labels[0], [[cell.n for cell in group] for group in groups]),
        (layout.n_labels[1], [[cell.n_reference for cell in group] for group in groups]),
    ):
        texts = tuple(_span([count for count in group if count is not None]) for group in counts)
        if any(texts):
            feet.append(Foot(label, texts))
    if layout.positives and "test" in cohort:
        positives = cohort["test"].positives
        texts = tuple(
            f"{positives[column.subset]:,}" if column.subset in positives else ""
            for column in layout.columns
        )
        feet.append(Foot("Positive test images", texts))
    return tuple(feet)


def _span(counts: list[int]) -> str:
    """Return the range of some counts; nothing if there are none: a dash would need a reason."""
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def caption_of(layout: Layout, rows: list[Row], run: Run) -> str:
    """Return a table's caption: its content, the data, and the meaning of its marks."""
    sizes = " and ".join(
        f"{run.cohort[split].images:,} {word}"
        for split, word in (("train", "training"), ("test", "test"))
        if split in run.cohort
    )
    left_out = f"; {run.images_removed:,} left out" if run.images_removed else ""
    parts = [
        f"{layout.heading} {run.dataset}{f' ({sizes} radiographs{left_out})' if sizes else ''}, "
        f"protocol {run.protocol}.",
        layout.explanation,
    ]
    if layout.has_gains:
        parts.append(_words_of_gains(rows))
    elif any(cell.rank for row in rows if row.kind == "model" for cell in row.cells):
        parts.append(
            "Best in bold and second underlined among the models, without the controls; "
            "equal values share their mark. A column in which a value rests on fewer than "
            f"{FEWEST_RANKED} images has no marks."
        )
    kinds = _interval_kinds(layout, rows)
    if kinds:
        parts.append(f"Bounds: {kinds}.")
    names = {row.key: row.label for row in rows if row.kind in ("model", "control")}
    of_stage = (r for r in run.records.all() if r.stage == layout.stage and r.model in names)
    parts.append(words_of_copies((names[record.model], record) for record in of_stage))
    if any(cell.published for row in rows for cell in row.cells):
        parts.append("Published: the paper's value, as printed.")
        if any(cell.difference is not None for row in rows for cell in row.cells):
            parts.append("In brackets: the measured value less the published one.")
        protocols = {
            cell.column.protocol or run.protocol
            for row in rows
            for cell in row.cells
            if cell.published
        }
        if protocols != {"as_published"}:
            parts.append(
                "The protocols differ: the paper's values were measured under as_published, "
                f"these under {run.protocol}, so that a difference need not be the model's."
            )
    return " ".join(part for part in parts if part)


def _words_of_gains(rows: list[Row]) -> str:
    """Return the meaning of the marks in a table of gains, or why there are none."""
    gains = [cell for row in rows for cell in row.cells if cell.column.is_gain]
    if any(cell.p is not None for cell in gains):
        return (
            "Gains and losses in bold are larger than the noise of test patients and training runs "
            "among all values of the table (Holm's correction, 5%; controls are tested apart)."
        )
    if any(cell.value is not None for cell in gains):
        return (
            "An arm was trained only once (`repeats: 1`). No difference can be told from the noise "
            "of the training seed, so none is marked as a gain or a loss."
        )
    return ""


def _interval_kinds(layout: Layout, rows: list[Row]) -> str:
    """Return the kinds of intervals, with their columns if they differ; each column once."""
    columns_by_kinds: dict[tuple[str, ...], list[str]] = {}
    for j, column in enumerate(layout.columns):
        known = [row.cells[j].interval_kind for row in rows]
        kinds = tuple(dict.fromkeys(kind for kind in known if kind is not None))
        if kinds:
            columns_by_kinds.setdefault(kinds, []).append(_undirected(column.header))
    words = {kinds: " or ".join(kinds) for kinds in columns_by_kinds}
    if len(words) == 1:
        return next(iter(words.values()))
    return "; ".join(
        f"{words[kinds]} ({_each(names)})" for kinds, names in columns_by_kinds.items()
    )


def _undirected(header: str) -> str:
    """Return a header without the arrow that says which direction is better."""
    return header.replace(" ↑", "").replace(" ↓", "")


def _each(names: Sequence[str]) -> str:
    """Return names in a row, in quotation marks if a comma within one would divide it."""
    quoted = [f"“{name}”" for name in names] if any("," in name for name in names) else names
    return ", ".join(quoted)
