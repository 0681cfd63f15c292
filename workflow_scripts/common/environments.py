"""Write envs/core.yaml, the conda form of the lock, from the lock."""

from pathlib import Path

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import write_text

ENVS = Path(__file__).resolve().parents[2] / "envs"

_HEAD = """\
# The conda form of envs/cuda.txt for `snakemake --sdm conda`; `make envs/core.yaml` writes it and a
# test holds the two together. (The pins are repeated because Snakemake moves this file, which would
# break a relative `-r`.)
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def pins(path: Path) -> list[str]:
    """Return the `name==version` lines of a requirements file and of those it refers to."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found += pins(path.parent / line[3:].strip())
        elif line and not line.startswith("#"):
            found.append(line)
    return sorted(found, key=str.lower)


def conda_environment() -> str:
    """Return the text of envs/core.yaml."""
    return _HEAD + "".join(f"      - {pin}\n" for pin in pins(ENVS / "cuda.txt"))


def main() -> None:
    """Write envs/core.yaml."""
    write_text(ENVS / "core.yaml", conda_environment())


if __name__ == "__main__":
    run_script(main)
