"""Write envs/*.yaml, the conda form of the lock files, from the lock files."""

from pathlib import Path

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import write_text

ENVS = Path(__file__).resolve().parents[2] / "envs"

_HEAD_COMMENT = """\
# The conda form of envs/cuda.txt for `snakemake --sdm conda`; `make envs/core.yaml` writes it and a
# test holds the two together. (The pins are repeated because Snakemake moves this file, which would
# break a relative `-r`.)
"""

_HEAD = """\
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""

_REPORTS_HEAD = """\
# The conda form of envs/reports.txt: the core environment, on which Snakemake runs
# reports.post-deploy.sh. `make envs/core.yaml` writes both and a test holds them together.
"""

_POST_DEPLOY = """\
#!/usr/bin/env bash
# Snakemake runs this in the environment of reports.yaml once it has made it; envs/reports.txt says
# why these packages are installed without their dependencies.
set -euo pipefail
python -m pip install --no-deps \\
"""


def pins(path: Path) -> list[str]:
    """Return the `name==version` lines of a requirements file and of those it refers to."""
    pinned = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            pinned += pins(path.parent / line[3:].strip())
        elif line and not line.startswith("#"):
            pinned.append(line)
    return sorted(pinned, key=str.lower)


def conda_environment() -> str:
    """Return the text of envs/core.yaml."""
    listed = "".join(f"      - {pin}\n" for pin in pins(ENVS / "cuda.txt"))
    return _HEAD_COMMENT + _HEAD + listed


def reports_environment() -> str:
    """Return the text of envs/reports.yaml: the core environment under another name."""
    return _REPORTS_HEAD + conda_environment().removeprefix(_HEAD_COMMENT)


def reports_post_deploy() -> str:
    """Return the text of envs/reports.post-deploy.sh."""
    return _POST_DEPLOY + " \\\n".join(f"  {pin}" for pin in pins(ENVS / "reports.txt")) + "\n"


def main() -> None:
    """Write every conda form."""
    write_text(ENVS / "core.yaml", conda_environment())
    write_text(ENVS / "reports.yaml", reports_environment())
    write_text(ENVS / "reports.post-deploy.sh", reports_post_deploy())


if __name__ == "__main__":
    run_script(main)
