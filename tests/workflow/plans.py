"""The plan of the paper's whole config, made once per process for all tests that read it.

A plan takes Snakemake several seconds, and most tests need the same one.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.workflow.checkouts import make_checkout, run
from tests.workflow.stubs import make_stub_sources


@dataclass(frozen=True)
class Plan:
    """The output of a dry run with commands, and its checkout."""

    folder: Path
    output: str

    @property
    def counts(self) -> dict[str, int]:
        """The number of planned jobs by rule."""
        table = self.output[self.output.index("Job stats:") :].split("total")[0]
        rows = [line.split() for line in table.split("\n")]
        return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}

    @property
    def outputs(self) -> list[str]:
        """Return every file and folder that the planned jobs make."""
        lines = (line.strip() for line in self.output.split("\n"))
        listed = [line.removeprefix("output: ") for line in lines if line.startswith("output: ")]
        return [name for line in listed for name in line.split(", ")]

    def commands(self, script: str) -> list[list[str]]:
        """Return the words of every planned command of a script, in no order that is known."""
        command = f"python -m workflow_scripts.{script} "
        lines = (line for line in self.output.splitlines() if command in line)
        return [shlex.split(line[line.index(command) :].partition(" 2> ")[0])[3:] for line in lines]

    def words(self, script: str) -> list[str]:
        """Return the words of a planned command of a script; of any one, if there are several."""
        return self.commands(script)[0]

    def make_stub_outputs(self, checkout: Path) -> None:
        """Make stub files of all outputs in a checkout, so that single targets can be forced."""
        for name in self.outputs:
            path = checkout / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.parent.name == "spans":
                path.mkdir()
                (path / "span.json").write_text('{"finished": true, "step": 1, "steps": 1}')
            else:
                path.touch()


@pytest.fixture(scope="session")
def paper_plan(tmp_path_factory):
    """The plan of the whole paper on stub files. Tests must leave its checkout as it is."""
    folder = make_stub_sources(make_checkout(tmp_path_factory.mktemp("paper")))
    command = ["snakemake", "--dry-run", "--printshellcmds"]
    return Plan(folder, run(command, folder).stdout)
