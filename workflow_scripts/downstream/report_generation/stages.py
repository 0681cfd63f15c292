"""The stages of training a report generator, by setting: the start and the epochs of each.

This module needs neither a network nor data, because the cost model counts epochs with it.
"""

from dataclasses import dataclass
from typing import Final

from workflow_scripts.common.as_published import Deviations
from workflow_scripts.downstream.report_generation.settings import ReporterSettings

BASE: Final = "base"
RELEASED: Final = "released"
"""The folders that the conversion writes: the untrained start, and LLaVA-Rad as it was released."""

_PUBLISHED_EPOCHS: Final = {"real_only": 3, "augmented": 10, "synthetic_only": 5}


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: `projector` (the first) or `adapter` (the second).
        form: form of the prompt, see prompts.py.
        epochs, batch_size, learning_rate: the stage's settings.
    """

    name: str
    form: str
    epochs: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class Plan:
    """The start and the stages of a setting.

    Attributes:
        start: the folder of the start, below `--start`.
        new_projector: whether the projector starts from new random weights.
        stages: the stages of training, in order.
    """

    start: str
    new_projector: bool
    stages: tuple[Stage, ...]


def plan_of(setting: str, settings: ReporterSettings, switches: Deviations) -> Plan:
    """Return how an arm with a setting (`SETTINGS`) is trained."""
    epochs = settings.epochs
    if switches.report_epochs_by_setting:
        epochs = _PUBLISHED_EPOCHS.get(setting, epochs)
    projector = Stage(
        "projector",
        "plain",
        settings.projector_epochs,
        settings.projector_batch_size,
        settings.projector_learning_rate,
    )
    form = "v1_stored" if switches.report_stored_question else "v1"
    adapter = Stage("adapter", form, epochs, settings.batch_size, settings.learning_rate)
    if setting == "released":
        return Plan(RELEASED, False, ())
    if setting == "synthetic_only":
        start = BASE if switches.report_synthetic_from_base else RELEASED
        return Plan(start, False, (adapter,))
    return Plan(BASE, True, (projector, adapter))
