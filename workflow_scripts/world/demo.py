"""Run the whole workflow on the embedded world, from the start if its results would be stale.

    python -m workflow_scripts.world.demo [--threads 2]

If nothing has changed since a run that made everything or found nothing to do, Snakemake is not
started (`workflow_scripts/world/unchanged.py`).

Snakemake reruns jobs that an edit affects, except those that take days at real size: these rerun
only for a new declared version. On the embedded world they take seconds, so here an edit of their
code, or a new world, reruns everything. `results/demo.json` records what the results were made
with.
"""

import argparse
import functools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import write_text
from workflow_scripts.world import unchanged
from workflow_scripts.world.store import digest_of_code, link, world
from workflow_scripts.world.warm_python import COLD_STARTS, FOLDER, warm_python

log = logging.getLogger(__name__)

WORLD: Final = Path("results/world")
IMAGES: Final = Path("data/my_model")
"""The external model's images, which a user would bring."""

PROMPTS: Final = ("test", "privacy", "stress")
STAMP: Final = Path("results/demo.json")
COMMAND: Final = ("snakemake", "--profile", "profiles/demo")

COSTLY: Final = (
    "cohort.build_manifest",
    "cohort.draw_prompts",
    "cohort.stress_prompts",
    "features.train_reid",
    "finetune.train",
    "finetune.families.stable_diffusion",
    "generate.sample",
    "downstream.report_generation.train",
)
"""Scripts with jobs that rerun only for a new version (`rules/*.smk` declare no code for them), and
the family that the demo trains."""


@functools.cache
def made_with() -> dict[str, str]:
    """Return digests of what determines the demo's results but is not checked by Snakemake."""
    return {
        "world": digest_of_code("world.build", "world.external_model"),
        "costly": digest_of_code(*COSTLY),
    }


def is_stale(folder: Path = Path()) -> bool:
    """Return whether a checkout's results are missing, or from another world or other costly code.

    Args:
        folder: the checkout.
    """
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8")) != made_with()
    except (OSError, ValueError):
        return True


def prepare(threads: int, environment: Mapping[str, str] | None = None) -> list[str]:
    """Build the world and the external model's images in the working directory, if missing.

    Args:
        threads: processes that draw, and that train the world's networks.
        environment: variables for the commands, in addition to this process's own; scripts run with
            the Python that they name, as Snakemake's do.

    Returns:
        The flags with which Snakemake reruns everything, if the results are stale; else none.

    Raises:
        InputError: a command failed; its output is above the error.
    """
    stale = is_stale()
    anew = []
    if stale and Path("results/cohort").exists():
        anew = ["--forceall"]
    elif stale:  # there are no results yet, so all will be current; a killed run continues
        _stamp()
    python = python_in(environment)
    given = False

    def draw_images(folder: Path) -> None:
        nonlocal given
        link(folder, WORLD)
        tables = [f"results/cohort/prompts/{name}.csv" for name in PROMPTS]
        _run([*COMMAND, *anew, "--", *tables], environment)
        module = "workflow_scripts.world.external_model"
        words = ["--out", str(IMAGES), "--threads", str(threads), "--prompts", *tables]
        _run([python or sys.executable, "-m", module, *words], environment)
        given = True

    # Snakemake's start keeps one core busy, so it runs while the networks of a new world train.
    whole = world(threads, python, draw_images if stale else None)
    link(whole, WORLD)
    if not given and (stale or not (IMAGES / "metadata.csv").is_file()):
        draw_images(whole)
    return anew


def run_demo(threads: int) -> None:
    """Prepare and run the workflow in the working directory, if anything has changed.

    Args:
        threads: processes that draw.

    Raises:
        InputError: see `prepare`.
    """
    if not is_stale() and unchanged.is_at_rest():
        log.info("demo: nothing has changed since it was made")
        return
    made_with()  # computed before anything runs: later edits are not in the results
    # If everything has to be made, many jobs follow, so the libraries are imported at once.
    with warm_python(cold_starts=0 if is_stale() else COLD_STARTS) as folder:
        warm = {FOLDER: str(folder)}
        anew = prepare(threads, warm)
        inputs = unchanged.state(unchanged.INPUTS)
        _run([*COMMAND, *anew], warm)
    if is_stale():
        _stamp()
    made = unchanged.state()
    if inputs != unchanged.state(unchanged.INPUTS) or not unchanged.is_as_its_jobs_left_it():
        # A second run handles what was edited or deleted during the first.
        _run([*COMMAND, "--quiet", "all"])
        if made != unchanged.state():
            return
    unchanged.note(made)


def python_in(environment: Mapping[str, str] | None) -> str | None:
    """Return the Python for scripts that a command's variables name, or None."""
    folder = (environment or {}).get(FOLDER)
    return None if folder is None else str(Path(folder) / "python")


def _stamp() -> None:
    write_text(STAMP, json.dumps(made_with(), indent=1) + "\n")


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    if subprocess.run(command, env=os.environ | dict(environment or {})).returncode:
        raise InputError(f"{' '.join(command)} failed", None, "see its own words above")


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="processes that draw the world")
    parser.add_argument("--prepare", action="store_true", help="world and images alone")
    args = parser.parse_args(argv)
    if args.prepare:
        prepare(args.threads)
        return
    run_demo(args.threads)
    tables = Path("results/tables").resolve()
    print(f"tables: {tables}, report: {(tables / 'report.html').as_uri()}")


if __name__ == "__main__":
    run_script(main)
