"""Sentences for the report on the results of the downstream tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from workflow_scripts.tables.assemble import Cell, Row, Table


@dataclass(frozen=True)
class Gain:
    """The gain by which the report describes a task.

    Attributes:
        task: the task's name for readers.
        stem: the stem of the table that has the gain.
        metric: the key of the gain.
        name: the metric's name for readers.
    """

    task: str
    stem: str
    metric: str
    name: str


GAINS: Final = (
    Gain("Classification", "table04b_classification_gains", "auroc_gain", "mean AUROC"),
    Gain("Segmentation", "table05b_segmentation_gains", "dice_gain", "mean Dice"),
    Gain(
        "Report generation",
        "table06b_rrg_augmented_gains",
        "chexbert_micro_f1_14_gain",
        "micro F1 of 14 findings",
    ),
)


def gain_sentence(table: Table, gain: Gain) -> str | None:
    """Return which models' images help a task beyond noise and which harm; None without values.

    A gain from a single training run has no direction.

    Args:
        table: the table of gains, in which significant ones are marked.
        gain: the gain.
    """
    helps: list[str] = []
    harms: list[str] = []
    open_: list[str] = []
    once: list[str] = []
    for row, cell in table.values(gain.metric, "model"):
        group = open_
        if cell.p is None:
            group = once
        elif cell.beyond_noise:
            group = helps if (cell.value or 0) > 0 else harms
        group.append(f"{row.label} ({_signed(cell.text)})")
    parts = []
    if helps:
        parts.append(f"the images of {listed(helps)} raise the {gain.name} of real data alone")
    if harms:
        parts.append(f"those of {listed(harms)} lower it" if helps else _harm(harms, gain))
    if open_:
        gains = "the gain of" if len(open_) == 1 else "the gains of"
        parts.append(f"{gains} {listed(open_)} {'is' if len(open_) == 1 else 'are'} within noise")
    if once:
        parts.append(
            f"{listed(once)} cannot be told from noise, because an arm was trained only once"
        )
    return f"{gain.task}: {'; '.join(parts)}." if parts else None


def correlation_sentence(table: Table) -> str | None:
    """Return how well fidelity predicts utility over the models; None without values.

    Args:
        table: Table 10b.
    """
    parts = [_correlation(row, cell) for row, cell in table.values("spearman")]
    if not parts:
        return None
    return (
        f"Does fidelity predict utility? Over the models, Spearman's correlation of FID with "
        f"{'; with '.join(parts)} (Table 10b)."
    )


def _correlation(row: Row, cell: Cell) -> str:
    bounds = f" ({cell.bounds[0]} to {cell.bounds[1]})" if cell.bounds else ""
    return f"{row.label.lower()} is {cell.text}{bounds}, n = {cell.n}"


def _harm(harms: Sequence[str], gain: Gain) -> str:
    return f"the images of {listed(harms)} lower the {gain.name} of real data alone"


def _signed(text: str) -> str:
    return text if text.startswith("-") else f"+{text}"


def listed(names: Sequence[str]) -> str:
    """Return names in words: `A`, `A and B`, `A, B and C`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
