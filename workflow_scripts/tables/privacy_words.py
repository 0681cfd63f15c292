"""Sentences for the report on the results of the privacy tables."""

from collections.abc import Mapping, Sequence
from typing import Final

from workflow_scripts.tables.assemble import Cell, Table
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.utility_words import listed

SEEN: Final = 0.5
"""The share of copies with an alarm from which a lens is said to see copies."""

CHANCE_AREA: Final = 0.5
"""The area under the ROC curve of an attack that guesses."""

_PROVES_NOTHING: Final = "An attack that fails proves no privacy."

_OTHER_ATTACKS: Final = {
    "member_caption_calibrated_auc": "what their captions are worth to it",
    "member_frequency_calibrated_auc": "its errors at low spatial frequencies",
    "member_loss_auc": "its loss as it is",
}
"""Attacks of Table 22 besides that on how far the loss fell, and by what they tell."""

_LENSES: Final = {
    "reid_seen": "the re-ID score",
    "latent_seen": "the latent distance",
    "pixel_seen": "the pixel distance",
    "mirrored_seen": "the pixel distance in the mirror",
}
_COPIES: Final = {
    "training_copies": "Training copies",
    "flipped_copies": "Flipped copies",
    "brightened_copies": "Brightened copies",
}


def lens_sentences(table: Table, models: Sequence[ModelEntry]) -> list[str]:
    """Return a sentence for each kind of copies: which lenses see them, and which miss them.

    Args:
        table: Table 3e.
        models: the models of the run; the settings of a control have its kind.
    """
    kinds = {model.key: model.settings.get("control") for model in models}
    sentences = []
    for row in table.rows:
        words = _COPIES.get(str(kinds.get(row.key)))
        lenses = [c for c in row.cells if c.column.metric in _LENSES and c.value is not None]
        if words is None or not lenses:
            continue
        seen = [cell for cell in lenses if (cell.value or 0) >= SEEN]
        missed = [cell for cell in lenses if (cell.value or 0) < SEEN]
        parts = [f"are seen by {_listed(seen)}" if seen else "are seen by no lens"]
        if missed and seen:
            parts.append(f"missed by {_listed(missed)}")
        sentences.append(f"{words} {' and '.join(parts)}.")
    return sentences


def attacker_sentence(table: Table) -> str | None:
    """Return how accurate the re-identification network is, and what it counts by chance.

    Args:
        table: Table 3c; its first row is `sound`.
    """
    sentences = []
    for row in table.rows:
        cells = {cell.column.metric: cell for cell in row.cells}
        auc, chance = cells["reid_auc"], cells["chance_count"]
        if auc.value is None or chance.value is None:
            continue
        protocol = row.label.split(", ")[-1]
        sentences.append(
            f"Under the protocol {protocol}, the re-identification network tells patients apart "
            f"with an AUC of {auc.text}; by chance, unrelated real radiographs put "
            f"{chance.text} of {chance.n:,} prompts above δ."
        )
    if not sentences:
        return None
    return " ".join(
        [*sentences, "A model's count is evidence only where it is larger than that of chance."]
    )


def membership_sentence(table: Table) -> str | None:
    """Return what membership inference learned about each model, and what it does not prove.

    Args:
        table: Table 22.
    """
    sentences, counts = [], []
    for row in table.rows:
        cells = {cell.column.metric: cell for cell in row.cells}
        area, detected = cells["member_loss_calibrated_auc"], cells["member_loss_calibrated_tpr"]
        if row.kind == "model" and area.value is None:
            sentences += _presumed(row.label, cells["member_loss_auc"])
        if row.kind == "model" and (area.reason or "").startswith("withheld"):
            sentences.append(f"{row.label} has no result: the comparison would not be fair.")
        if row.kind != "model" or area.value is None or area.interval is None:
            continue
        counts.append(area.n_reference or 0)
        if area.interval[0] > CHANCE_AREA:
            sentences.append(
                f"{row.label} reveals its training patients: a member scores above a non-member in "
                f"{100 * area.value:.0f}% of pairs (50% by chance), and at 1% false alarms "
                f"{100 * (detected.value or 0):.0f}% of members are found."
            )
        elif (told := _told_otherwise(cells)) is not None:
            means, other = told
            sentences.append(
                f"{row.label} reveals its training patients by {means}: a member scores above a "
                f"non-member in {100 * other:.0f}% of pairs (50% by chance; the strongest of four "
                f"attacks). By the fall of the loss alone it is {100 * area.value:.0f}%."
            )
        else:
            low, high = (100 * bound for bound in area.interval)
            sentences.append(
                f"{row.label}: this attack does not tell its training patients from others. A "
                f"member scores above a non-member in {100 * area.value:.0f}% of pairs (50% by "
                f"chance; with 95% confidence {low:.0f} to {high:.0f}%)."
            )
    if not counts:
        return " ".join([*sentences, _PROVES_NOTHING]) if sentences else None
    return " ".join(
        [
            *sentences,
            f"The attack compares members with {_count_range(counts)} patients on whom no "
            "model was trained. It needs the radiograph and its caption; an attacker with more "
            f"means may learn more. {_PROVES_NOTHING}",
        ]
    )


def _told_otherwise(cells: Mapping[str, Cell]) -> tuple[str, float] | None:
    """Return by what another attack than the first tells members, and its area, if any does.

    Args:
        cells: of a model in Table 22, by metric.
    """
    telling = [
        (cell.value, means)
        for metric, means in _OTHER_ATTACKS.items()
        if (cell := cells[metric]).value is not None
        and cell.interval is not None
        and cell.interval[0] > CHANCE_AREA
    ]
    area, means = max(telling, default=(0.0, ""))
    return (means, area) if means else None


def _presumed(label: str, area: Cell) -> list[str]:
    """Return the result of the attack on a model that was not trained here, if there is one."""
    if area.value is None or area.interval is None:
        return []
    if area.interval[0] <= CHANCE_AREA:
        return [
            f"{label}, which was not trained here, does not tell the train split from other "
            "patients."
        ]
    return [
        f"{label}, which was not trained here, tells the train split from other patients in "
        f"{100 * area.value:.0f}% of pairs (50% by chance). It is not known whether it was trained "
        "on this split, and there is no base checkpoint to show that the comparison is fair, so "
        "this is a suspicion, not a finding."
    ]


def _count_range(counts: Sequence[int]) -> str:
    """Return the range of some counts: `60`, or `40 to 60`."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def extraction_sentences(table: Table, models: Sequence[ModelEntry]) -> list[str]:
    """Return how many captions of each model, and of copies, raise an alarm of extraction.

    Args:
        table: Table 23.
        models: the models of the run; the settings of a control have its kind.
    """
    kinds = {model.key: model.settings.get("control") for model in models}
    measured = []
    for row in table.rows:
        cells = {cell.column.metric: cell for cell in row.cells}
        if cells["extracted_count"].value is not None:
            measured.append((row, cells))
    sentences = []
    without_alarm: dict[int | None, list[str]] = {}
    for row, cells in measured:
        if row.kind != "model" or kinds.get(row.key) is not None:
            continue
        if cells["extracted_count"].value:
            sentences.append(_extracted(row.label, cells))
        else:
            without_alarm.setdefault(cells["extracted_count"].n, []).append(row.label)
    for n, names in without_alarm.items():
        sentences.append(f"{listed(names)}: no caption of {n:,} raises an alarm.")
    for row, cells in measured:
        words = _COPIES.get(str(kinds.get(row.key)))
        if words is not None:
            sentences.append(f"{words}: {_counted(cells)} raise an alarm.")
    return sentences


def _extracted(name: str, cells: Mapping[str, Cell]) -> str:
    count, chance = cells["extracted_count"], cells["extracted_by_chance"].value or 0
    low = count.interval[0] if count.interval else 0
    named = cells["patients_named"].value or 0
    if low <= chance:
        return (
            f"{name}: {_counted(cells)} raise an alarm, which chance may explain "
            f"({chance:.1f} are expected if no image copies a radiograph)."
        )
    return (
        f"{name}: {_counted(cells)} raise an alarm, more than chance explains ({chance:.1f}); "
        f"they show radiographs of {named:.0f} {'patient' if named == 1 else 'different patients'}."
    )


def _counted(cells: Mapping[str, Cell]) -> str:
    count = cells["extracted_count"]
    return f"{count.value or 0:.0f} of {count.n:,} captions"


def _listed(cells: Sequence[Cell]) -> str:
    return listed([f"{_LENSES[c.column.metric]} ({100 * (c.value or 0):.0f}%)" for c in cells])
