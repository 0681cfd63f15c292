"""The demo's records and tables as they are committed: how they are made and compared.

`make demo`, then `python -m tests.tables.freeze` commits to what the demo shows now. That is done
on purpose, where a change is meant to change the numbers, and the difference is looked at.
"""

import argparse
import difflib
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Final

from tests.workflow.checkouts import ROOT, run
from workflow_scripts.tables import build

FROZEN: Final = Path(__file__).parent / "frozen"
"""`inputs/` is what the tables are made of, `arguments.json` how, `tables/` what they are."""

RESULTS: Final = "results/"
SCRIPT: Final = "workflow_scripts.tables.build"
TARGET: Final = "results/tables/table01_fidelity.csv"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=ROOT, help="where the demo ran")
    freeze(parser.parse_args().checkout, FROZEN)


def freeze(checkout: Path, frozen: Path) -> None:
    """Keep what the tables of a finished demo are made of, and the tables."""
    shutil.rmtree(frozen, ignore_errors=True)
    frozen.mkdir()
    arguments = []
    for word in build_arguments(checkout):
        if word.startswith(RESULTS):
            kept = Path("inputs") / word.removeprefix(RESULTS)
            (frozen / kept).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkout / word, frozen / kept)
            word = str(kept)
        arguments.append(word)
    (frozen / "arguments.json").write_text(json.dumps(arguments, indent=1) + "\n")
    regenerate(frozen, frozen / "tables")


def build_arguments(checkout: Path) -> list[str]:
    """Return the flags that the workflow calls `tables.build` with, but where to write."""
    flags = ["--profile", "profiles/demo", "--dry-run", "--printshellcmds"]
    done = run(["snakemake", *flags, "--forcerun", "tables_build", "--", TARGET], checkout)
    (line,) = (x for x in done.stdout.splitlines() if f"{SCRIPT} " in x)
    words = shlex.split(line.split(" 2> ")[0])
    words = words[words.index(SCRIPT) + 1 :]
    out = words.index("--out")
    return words[:out] + words[out + 2 :]


def regenerate(frozen: Path, out: Path) -> None:
    """Make the tables of frozen records, by the script of the workflow."""
    arguments = json.loads((frozen / "arguments.json").read_text())
    here = Path.cwd()
    os.chdir(frozen)
    try:
        build.main([*arguments, "--out", str(out.resolve())])
    finally:
        os.chdir(here)


def differences(left: Path, right: Path) -> str:
    """Return the unified diff of two folders of text files, empty where they are the same bytes."""
    names = sorted({path.name for folder in (left, right) for path in folder.iterdir()})
    found: list[str] = []
    for name in names:
        texts = [
            (folder / name).read_bytes().decode().splitlines(keepends=True)
            if (folder / name).exists()
            else []
            for folder in (left, right)
        ]
        found += difflib.unified_diff(*texts, f"{left.name}/{name}", f"{right.name}/{name}")
    return "".join(found)


if __name__ == "__main__":
    main()
