"""Runs a copy of the package, with something added: scores, then tables, report and release."""

import json
import os
import subprocess
import sys

from tests.workflow.checkouts import ROOT

MAIN = """
import json, sys
from importlib import import_module

for script, flags in json.load(sys.stdin):
    import_module(f"workflow_scripts.{script}").main(flags)
"""


def score_and_join(checkout, bench, out, script, scored, tables, stage):
    """Score models, and join all records of a bench to tables, a report and a release.

    Args:
        checkout: the copy.
        bench: see `tests.tables.conftest.make_bench`.
        out: folder of the outputs.
        script: the module that scores, below `workflow_scripts`.
        scored: its flags, for each model.
        tables: files of tables in `out` that are released.
        stage: the stage whose records are released.
    """
    lock = out.parent / "core.lock.txt"
    lock.write_text("torch==2.13.0\n")
    cohort = ["--manifest", str(bench.manifest), "--prompts", str(bench.prompts)]
    report = ["--results", str(out / "tables.json"), "--tables", str(out), *cohort]
    report += ["--output", str(out / "report.html"), "--public", str(out / "public.html")]
    release = ["--dataset", "World", "--tables", *(str(out / name) for name in tables), *cohort]
    release += ["--report", str(out / "public.html"), "--records", *bench.files[stage]]
    release += ["--config", "{}", "--lock", str(lock), "--citation", str(ROOT / "CITATION.cff")]
    release += ["--output", str(out / "release.tar.gz")]
    calls = [
        *((script, flags) for flags in scored),
        ("tables.build", [*bench.argv(bench), "--out", str(out)]),
        ("tables.report", report),
        ("tables.release", release),
    ]
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        cwd=checkout,
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(checkout)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
