"""Run the whole workflow on the embedded world, anew where its results would be stale.

    python -m workflow_scripts.world.demo [--threads 2]

Where nothing has changed since a run that found nothing to do, Snakemake is not asked
(`workflow_scripts/world/unchanged.py`).

Snakemake reruns what an edit changes, but for the jobs that cost days at real size: these rerun
for their declared version alone. On the embedded world they cost seconds, so here an edit of their
code, or another world, runs everything again. `results/demo.json` says what the results were made
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
from workflow_scripts.world.warm_python import FOLDER, warm_python

log = logging.getLogger(__name__)

WORLD: Final = Path("results/world")
IMAGES: Final = Path("data/my_model")
"""Of the external model: what a user brings."""

PROMPTS: Final = ("test", "privacy", "stress")
STAMP: Final = Path("results/demo.json")
COMMAND: Final = ("snakemake", "--profile", "profiles/demo")

COSTLY: Final = (
    "cohort.build_manifest",
    "cohort.draw_prompts",
    "features.train_reid",
    "finetune.train",
    "finetune.families.stable_diffusion",
    "generate.sample",
    "downstream.report_generation.train",
)
"""Scripts whose jobs only their version reruns (`rules/*.smk` declare no code for them), with the
family that the demo trains."""


@functools.cache
def made_with() -> dict[str, str]:
    """Return what decides the demo's results beyond what Snakemake looks at, as digests."""
    return {
        "world": digest_of_code("world.build", "world.external_model"),
        "costly": digest_of_code(*COSTLY),
    }


def is_stale(folder: Path = Path()) -> bool:
    """Whether a checkout's results were made with another world or other costly code, or by nobody.

    Args:
        folder: the checkout.
    """
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8")) != made_with()
    except (OSError, ValueError):
        return True


def prepare(threads: int) -> list[str]:
    """Build the world and the external model's images in the working directory, where missing.

    Args:
        threads: processes that draw.

    Returns:
        The flags with which Snakemake makes everything anew, where the results are stale.

    Raises:
        InputError: a command failed; what it says stands above.
    """
    stale = is_stale()
    anew = []
    if stale and Path("results/cohort").exists():
        anew = ["--forceall"]
    elif stale:  # all that there will be is made with this; a killed run goes on
        _stamp()
    link(world(threads), WORLD)
    if stale or not (IMAGES / "metadata.csv").is_file():
        tables = [f"results/cohort/prompts/{name}.csv" for name in PROMPTS]
        _run([*COMMAND, *anew, "--", *tables])
        module = "workflow_scripts.world.external_model"
        words = ["--out", str(IMAGES), "--threads", str(threads), "--prompts", *tables]
        _run([sys.executable, "-m", module, *words])
    return anew


def run_demo(threads: int) -> None:
    """Prepare, and run the workflow in the working directory, where something has changed.

    Args:
        threads: processes that draw.

    Raises:
        InputError: see `prepare`.
    """
    if not is_stale() and unchanged.is_at_rest():
        log.info("demo: nothing has changed since it was made")
        return
    made_with()  # before anything runs: an edit meanwhile is not in the results
    before = unchanged.state()
    with warm_python() as folder:
        _run([*COMMAND, *prepare(threads)], {FOLDER: str(folder)})
    if is_stale():
        _stamp()
    after = unchanged.state()
    if before != after:
        # What was edited or deleted while it ran is found now, and done.
        _run([*COMMAND, "--quiet", "all"])
        before, after = after, unchanged.state()
    if before == after:
        unchanged.note(after)


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
