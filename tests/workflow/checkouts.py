"""A checkout of one's own, commands run in it as a user would, and what a dry run plans."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

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
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return folder


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
