"""Checkouts for tests: commands run in them as a user would, what a dry run plans, the demo."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from workflow_scripts.world.demo import is_stale
from workflow_scripts.world.store import cache_folder

ROOT = Path(__file__).resolve().parents[2]


def run(command, folder, check=True, **environment):
    """Run a command as a user would, in a checkout, with this interpreter's tools first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=os.environ | {"PATH": path} | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}\n{done.stdout[-12000:]}")
    return done


def make_checkout(folder):
    """Copy what git tracks (and what is new and not ignored) to a folder, with this .venv."""
    listed = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT).stdout.split("\n")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").unlink(missing_ok=True)
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return folder


RESULTS = ("results", "data", "logs", "benchmarks", ".snakemake/metadata")
"""What a finished run consists of; all but the first may be missing."""


def finished_demo():
    """Return a checkout in which `make demo` has run, with this code's world and trainings.

    That is the one that the tests run from, where its demo is fresh, or one that is kept in the
    cache folder and brought up to date here.
    """
    running = ROOT / ".snakemake/locks"
    if not is_stale(ROOT) and not (running.is_dir() and any(running.iterdir())):
        return ROOT
    kept = cache_folder() / "demo"
    kept.mkdir(parents=True, exist_ok=True)
    checkout = kept / "checkout"
    with FileLock(kept / "lock"):
        if is_stale(checkout):
            shutil.rmtree(checkout, ignore_errors=True)
        for part in ("workflow_scripts", "rules", "profiles", "tests", "envs"):
            shutil.rmtree(checkout / part, ignore_errors=True)
        checkout.mkdir(exist_ok=True)
        make_checkout(checkout)
        run(["snakemake", "--unlock", "--profile", "profiles/demo"], checkout, check=False)
        run(["make", "demo"], checkout)
    return checkout


def copy_results(source, target):
    """Copy what a run has left to another checkout, times included: Snakemake goes by them."""
    for name in RESULTS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, symlinks=True, dirs_exist_ok=True)


def planned_jobs(folder, *arguments, **options):
    """Dry-run Snakemake; return the planned jobs as a set of (rule, model or None)."""
    done = run(["snakemake", "--dry-run", *arguments], folder, **options)
    return jobs_in(done.stdout)


def jobs_in(output):
    """The jobs that a dry run's output lists, as a set of (rule, model or None)."""
    jobs = set()
    for block in re.split(r"\n(?=\[)", output):
        rule = re.search(r"^(?:local)?(?:rule|checkpoint) (\w+):$", block, re.MULTILINE)
        if rule and rule[1] != "all":
            model = re.search(r"wildcards:.*\bmodel=(\w+)", block)
            jobs.add((rule[1], model[1] if model else None))
    return jobs
