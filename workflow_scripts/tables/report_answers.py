"""The overview's five questions, each answered in a sentence or two from the tables.

They are: which model is best at what, which differences are noise, what is risky, what was not
measured, and what the run cost. If the tables have no answer, the sentence says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from workflow_scripts.tables.assemble import Cell, Row, Table
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.utility_words import GAINS, listed

CHANCE: Final = 0.05
"""The share of prompts with a false alarm in Table 3e, as its caption says."""

MOST_NAMED: Final = 4
"""The most pairs of models that a sentence names; it counts the others."""


@dataclass(frozen=True)
class Answer:
    """A question of the overview.

    Attributes:
        question: the question.
        sentence: the answer, or why there is none.
        page: the key of the page with details.
    """

    question: str
    sentence: str
    page: str


def answers(
    tables: Mapping[str, Table], glance: Table, models: Sequence[ModelEntry], cost: str | None
) -> list[Answer]:
    """Return the five answers.

    Args:
        tables: all, by stem.
        glance: one column for each question, see `report.at_a_glance`.
        models: the models of the run; the settings of a control have its kind.
        cost: a sentence on the cost; None if no job is known.
    """
    return [
        Answer("Which model is best at what?", best_sentence(glance), "ranks"),
        Answer("Which differences are noise?", noise_sentence(tables), "fidelity"),
        Answer("What is risky?", risk_sentence(tables, models), "privacy"),
        Answer("What was not measured?", missing_sentence(tables, glance), "dashes"),
        Answer("What did it cost?", cost or "Not known: no job's cost was found.", "cost"),
    ]


def best_sentence(glance: Table) -> str:
    """Return the model with the best value of each question, if two or more have a value."""
    won: dict[str, list[str]] = {}
    alone: dict[str, list[str]] = {}
    open_: list[str] = []
    for j, column in enumerate(glance.layout.columns):
        question, _, metric = column.header.rstrip(" ↓↑").partition(": ")
        valued = [row for row in _models(glance) if row.cells[j].value is not None]
        best = [row for row in valued if row.cells[j].rank == "best"]
        if best:
            text = f"{question.lower()} ({metric} {best[0].cells[j].text})"
            won.setdefault(listed([row.label for row in best]), []).append(text)
        elif len(valued) == 1:
            alone.setdefault(valued[0].label, []).append(question.lower())
        elif valued:
            open_.append(question.lower())
    sentences = []
    if won:
        parts = [f"{name} in {listed(questions)}" for name, questions in won.items()]
        sentences.append(f"Best by the measured values: {'; '.join(parts)}.")
    for name, questions in alone.items():
        sentences.append(f"Only {name} has a value for {listed(questions)}.")
    if open_:
        sentences.append(f"Too few images to compare models in {listed(open_)}.")
    return " ".join(sentences) or "Not known: no model has a value of any question."


def noise_sentence(tables: Mapping[str, Table]) -> str:
    """Return how many differences between models, and how many gains, are within their noise."""
    sentences = [*_pairs_in_words(tables["table01c_paired_differences"]), *_gains_in_words(tables)]
    if not sentences:
        return (
            "Not known: no two models were compared on the same prompts, and no gain was measured."
        )
    return " ".join(sentences)


def _pairs_in_words(table: Table) -> list[str]:
    tested = {row.label: _valued(row) for row in table.rows if row.kind == "pair"}
    tested = {label: cells for label, cells in tested.items() if cells}
    cells = [cell for of_pair in tested.values() for cell in of_pair]
    if not cells:
        return []
    within = sum(not cell.beyond_noise for cell in cells)
    not_told_apart = [
        label.replace(" − ", " from ")
        for label, of_pair in tested.items()
        if not any(cell.beyond_noise for cell in of_pair)
    ]
    text = (
        f"{_of(within, len(cells))} differences between two models in fidelity "
        f"{'is' if within == 1 else 'are'} within noise (Table 1c)"
    )
    if not_told_apart:
        more = len(not_told_apart) - MOST_NAMED
        named = not_told_apart[:MOST_NAMED] + ([f"{more} more"] if more > 0 else [])
        return [f"{text}; no metric tells {listed(named)}."]
    return [f"{text}; every pair that can be compared differs beyond noise in at least one metric."]


def _gains_in_words(tables: Mapping[str, Table]) -> list[str]:
    cells = [cell for gain in GAINS for _, cell in tables[gain.stem].values(gain.metric, "model")]
    if not cells:
        return []
    once = sum(cell.p is None for cell in cells)
    within = sum(cell.p is not None and not cell.beyond_noise for cell in cells)
    text = f"{_of(within, len(cells))} gains in downstream tasks"
    text += f" {'is' if within == 1 else 'are'} within noise"
    if once:
        text = (
            f"{_of(once, len(cells))} gains in downstream tasks cannot be told from noise, because "
            "an arm was trained once or its value never varies"
        )
        if within:
            text += f"; {within} more {'is' if within == 1 else 'are'} within noise"
    return [f"{text} (Tables 4b, 5b, 6b)."]


def risk_sentence(tables: Mapping[str, Table], models: Sequence[ModelEntry]) -> str:
    """Return the riskiest model controls the controls, and which models raise alarms beyond chance.

    Args:
        tables: all, by stem; of them 3, 3d and 3e.
        models: the models of the run.
    """
    scores = tables["table03_privacy"].values("reid_mean_of_max")
    ranked = sorted(
        (pair for pair in scores if pair[0].kind == "model"), key=lambda pair: -(pair[1].value or 0)
    )
    sentences = []
    if ranked:
        row, cell = ranked[0]
        kinds = {model.key: model.settings.get("control") for model in models}
        scale = [
            f"{words} {other.text}"
            for kind, words in _SCALE.items()
            for control, other in scores
            if control.kind == "control" and kinds.get(control.key) == kind
        ]
        controls = f"; {' and '.join(scale)}" if scale else ""
        top = [other.label for other, score in ranked if score.text == cell.text]
        what = f"{listed(top)} {'has' if len(top) == 1 else 'have'} the highest re-ID score"
        if len(ranked) == 1:
            what = f"{row.label} has a re-ID score of"
        comma = " " if len(ranked) == 1 else ", "
        sentences.append(f"{what}{comma}{cell.text}{controls} (Table 3).")
    sentences += _beyond(
        tables["table03e_lenses"].values("any_seen", "model"),
        CHANCE,
        ("raises", "raise"),
        "more alarms than chance explains (Table 3e)",
    )
    sentences += _beyond(
        tables["table03d_novelty"].values("nearer_to_training_excess", "model"),
        0.0,
        ("comes", "come"),
        "nearer to training radiographs than captions explain (Table 3d)",
    )
    return " ".join(sentences) or "Not known: no model's privacy was measured."


_SCALE: Final = {
    "held_out_real": "real radiographs of other patients score",
    "training_copies": "copies of training radiographs score",
}
"""Kinds of controls that give the re-ID score its scale, and their words."""


def _beyond(
    values: Sequence[tuple[Row, Cell]], bar: float, verbs: tuple[str, str], what: str
) -> list[str]:
    """Return the models whose interval is above a bar; nothing if no interval is known."""
    known = [(row, cell.interval) for row, cell in values if cell.interval is not None]
    above = [row.label for row, interval in known if interval[0] > bar]
    if not known:
        return []
    if not above:
        return [f"No model of {len(known)} measured {verbs[0]} {what}, by its 95% interval."]
    return [f"{listed(above)} {verbs[len(above) > 1]} {what}, each by its own 95% interval."]


def missing_sentence(tables: Mapping[str, Table], glance: Table) -> str:
    """Return the questions that each model has no value for, and the number of all dashes."""
    models_without: dict[tuple[str, ...], list[str]] = {}
    for row in _models(glance):
        questions = tuple(
            cell.column.header.partition(":")[0].lower() for cell in row.cells if cell.value is None
        )
        if questions:
            models_without.setdefault(questions, []).append(row.label)
    keys = {row.key for row in _models(glance)}  # an empty table has a row without a model
    cells = [
        cell
        for table in tables.values()
        for row in table.rows
        if row.kind == "model" and row.key in keys
        for cell in row.cells
    ]
    dashes = sum(cell.value is None for cell in cells)
    if not cells:
        return "Nothing was measured: the run has no model but controls."
    if not dashes:
        return "Nothing is missing: every value of every model was measured."
    parts = [
        f"{listed(names)} {'has' if len(names) == 1 else 'have'} no value for {_or(questions)}"
        for questions, names in models_without.items()
    ]
    whole = f"{_of(dashes, len(cells))} values of the models are dashes, each with its reason"
    return f"{'; '.join(parts)}. {whole}." if parts else f"{whole}."


def _models(table: Table) -> list[Row]:
    return [row for row in table.rows if row.kind == "model"]


def _valued(row: Row) -> list[Cell]:
    return [cell for cell in row.cells if cell.value is not None]


def _of(count: int, whole: int) -> str:
    return f"{count:,} of {whole:,}"


def _or(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
