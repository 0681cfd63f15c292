"""Privacy scores and downstream tasks that are one folder each, found by the folder's files.

A folder `workflow_scripts/{privacy,downstream}/NAME/` needs no registration. It is used if its
`measures.py` names the families of records that its rules write:

    METRICS = (Metric("twins", ...),)       # what it measures
    FAMILIES = ("twins",)                   # results/privacy/twins/{model}.json
    TABLES = ("table03z_twins.yaml",)       # specs of tables in the folder, if it has any

The folder may also have `settings.py`, with a class `Settings` for the block `NAME` of the stage's
config, and `rules.smk`, which the Snakefile includes. Both modules are imported while the workflow
is planned, so they import neither torch nor pandas.
"""

import functools
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]

STAGES: Final = ("privacy", "downstream")
"""The stages in which scores and tasks may be folders."""

PER_MODEL: Final = ("augmented", "synthetic_only")
"""Settings of a downstream task with one record for each model; others have one for real data."""


@dataclass(frozen=True)
class Part:
    """A privacy score or a downstream task that is a folder.

    Attributes:
        stage: `privacy` or `downstream`.
        name: the folder's name.
        families: the families of its records; for a task, `NAME/augmented` and the like.
        tables: files of table specs in the folder.
    """

    stage: str
    name: str
    families: tuple[str, ...]
    tables: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The folder itself."""
        return ROOT / self.stage / self.name

    @property
    def settings(self) -> type | None:
        """The settings class of its block in the config; None if it has no class, or several."""
        if not (self.folder / "settings.py").is_file():
            return None
        module = importlib.import_module(f"workflow_scripts.{self.stage}.{self.name}.settings")
        return getattr(module, "Settings", None)

    @property
    def rules(self) -> str | None:
        """Its file of rules, which the Snakefile includes; None if it has none."""
        path = self.folder / "rules.smk"
        return path.relative_to(ROOT.parent).as_posix() if path.is_file() else None

    def records(self, models: Sequence[str]) -> list[str]:
        """Return the paths of its records.

        Args:
            models: the models with images of the stage's prompt set.
        """
        names = []
        for family in self.families:
            of_real = self.stage == "downstream" and family.rpartition("/")[2] not in PER_MODEL
            names += [f"{family}/{model}" for model in (["real"] if of_real else models)]
        return [f"results/{self.stage}/{name}.json" for name in names]


@functools.cache
def parts(stage: str) -> tuple[Part, ...]:
    """Return the scores or tasks of a stage that are folders, sorted by name.

    Raises:
        TypeError: a family does not begin with the folder's name, which tells records apart.
    """
    folders = sorted(path.parent for path in (ROOT / stage).glob("*/measures.py"))
    return tuple(part for folder in folders if (part := _part(stage, folder)) is not None)


def every_part() -> tuple[Part, ...]:
    """Return the scores and tasks of all stages, sorted by stage and name."""
    return tuple(part for stage in STAGES for part in parts(stage))


def _part(stage: str, folder: Path) -> Part | None:
    package = f"workflow_scripts.{stage}.{folder.name}"
    measures = importlib.import_module(f"{package}.measures")
    families = getattr(measures, "FAMILIES", None)
    if families is None:
        return None
    foreign = [family for family in families if family.partition("/")[0] != folder.name]
    if foreign:
        raise TypeError(f"{package}.measures: the family {foreign[0]!r} is not {folder.name}'s")
    return Part(stage, folder.name, tuple(families), tuple(getattr(measures, "TABLES", ())))
