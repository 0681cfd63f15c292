"""Checkouts for tests: run commands in them, list a dry run's jobs, copy the demo."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from filelock import FileLock

from workflow_scripts.world.demo import is_stale
from workflow_scripts.world.store import cache_folder

ROOT = Path(__file__).resolve().parents[2]

WARM = ("python", "-m", "workflow_scripts.world.warm_python")
"""Prefix of a command of many short jobs, as in `make demo`."""


def run(command, folder, check=True, **environment):
    """Run a command in a checkout as a user would, with this interpreter's tools first in PATH."""
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
    """Copy tracked and new, not ignored files to a folder, with this .venv."""
    listed = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT).stdout.split("\n")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").unlink(missing_ok=True)
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    parsed = ROOT / ".snakemake/code.json"  # by content: it only saves seconds of parsing
    if parsed.is_file():
        (folder / ".snakemake").mkdir(exist_ok=True)
        shutil.copyfile(parsed, folder / ".snakemake/code.json")
    return folder


def with_world(folder):
    """Give a checkout the embedded world, as `make world` does; return the checkout.

    For tests that need nothing else of the demo, and so do not wait for it.
    """
    command = ["python", "-m", "workflow_scripts.world.store", "world", "--link", "results/world"]
    run([*command, "--threads", "2"], folder)
    return folder


RESULTS = ("results", "data/my_model", "logs", "benchmarks", ".snakemake/metadata")
"""Folders of a finished run; all but the first may be missing."""


def copy_demo(target):
    """Copy the results of a finished demo, with the world and trainings of this code.

    It is the demo of this checkout if that is up to date, or else one that is kept in the cache
    folder and brought up to date here.
    """
    if holds_fresh_demo(ROOT):
        copy_results(ROOT, target)
        return
    kept = cache_folder() / "demo"
    kept.mkdir(parents=True, exist_ok=True)
    checkout = kept / "checkout"
    with FileLock(kept / "lock"):  # until it is copied: another session may bring it up to date
        if is_stale(checkout):
            shutil.rmtree(checkout, ignore_errors=True)
        for part in ("workflow_scripts", "rules", "profiles", "tests", "envs"):
            shutil.rmtree(checkout / part, ignore_errors=True)
        checkout.mkdir(exist_ok=True)
        make_checkout(checkout)
        run(["snakemake", "--unlock", "--profile", "profiles/demo"], checkout, check=False)
        run(["make", "demo"], checkout)
        copy_results(checkout, target)


def holds_fresh_demo(checkout):
    """Return whether a checkout has up-to-date results of the demo, at rest, and no others.

    A user may have run the workflow on real data in the same checkout, which is never copied.
    """
    results, locks = checkout / "results", checkout / ".snakemake/locks"
    overlay = yaml.safe_load((checkout / "profiles/demo/overlay.yaml").read_text())
    images = results / "generate"
    return (
        not is_stale(checkout)
        and (results / "tables/report.html").is_file()
        and {path.name for path in images.iterdir()} <= set(overlay["run_models"])
        and not (locks.is_dir() and any(locks.iterdir()))
    )


def copy_results(source, target):
    """Copy a run's outputs to another checkout with their times, which Snakemake compares."""
    for name in RESULTS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, symlinks=True, dirs_exist_ok=True)


def planned_jobs(folder, *arguments, **options):
    """Dry-run Snakemake; return the planned jobs as a set of (rule, model or None)."""
    done = run(["snakemake", "--dry-run", *arguments], folder, **options)
    return jobs_in(done.stdout)


def jobs_in(output):
    """Return the jobs that a dry run's output lists, as a set of (rule, model or None)."""
    jobs = set()
    for block in re.split(r"\n(?=\[)", output):
        rule = re.search(r"^(?:local)?(?:rule|checkpoint) (\w+):$", block, re.MULTILINE)
        if rule and rule[1] != "all":
            model = re.search(r"wildcards:.*\bmodel=(\w+)", block)
            jobs.add((rule[1], model[1] if model else None))
    return jobs
