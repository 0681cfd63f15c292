"""A privacy score from outside: a folder and a spec, and it is in table, report and release.

The package is copied, so that the folder lies where the package looks for it.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.tables.conftest import PROVENANCE, make_bench
from workflow_scripts.common.records import Record, Value, write_record

ROOT = Path(__file__).resolve().parents[2]

MEASURES = """
from workflow_scripts.common.measurement import Metric

METRICS = (Metric("twins", "Twins", "lower", 4, ("Generated images", "Training images")),)
"""

SPEC = """
number: 3z
title: Twins
page: privacy
section: Privacy
stage: privacy
family: twins
columns: [twins]
explanation: Generated images that have a twin among the training images.
"""

MAIN = """
import json, sys
from workflow_scripts.tables import build, release, report

for script, flags in json.load(sys.stdin):
    {"build": build, "report": report, "release": release}[script].main(flags)
"""

VALUES = {"sd_v1_4": 0.12345, "sana": 0.23456}


@pytest.mark.full  # it copies the code and starts a Python of its own
def test_a_privacy_score_is_one_folder_and_one_spec(tmp_path):
    package = tmp_path / "checkout/workflow_scripts"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "workflow_scripts", package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", package.parent)
    (package / "privacy/twins").mkdir()
    (package / "privacy/twins/__init__.py").touch()
    (package / "privacy/twins/measures.py").write_text(MEASURES)
    (package / "tables/specs/table03z_twins.yaml").write_text(SPEC)

    bench = make_bench(tmp_path / "bench")
    for model, value in VALUES.items():
        path = tmp_path / f"twins/{model}.json"
        record = Record(
            "privacy",
            model,
            "twins",
            "sound",
            [Value("twins", value, "lower", 40, interval=(0.0, 1.0), interval_kind="b")],
            {},
            PROVENANCE,
        )
        write_record(record, path)
        bench.files["privacy"].append(str(path))

    out = tmp_path / "out"
    (tmp_path / "core.lock.txt").write_text("torch==2.13.0\n")
    table = out / "table03z_twins.csv"
    calls = [
        ("build", [*bench.argv(bench), "--out", str(out)]),
        (
            "report",
            [
                *("--results", str(out / "tables.json"), "--manifest", str(bench.manifest)),
                *("--prompts", str(bench.prompts), "--tables", str(out)),
                *("--output", str(out / "report.html"), "--public", str(out / "public.html")),
            ],
        ),
        (
            "release",
            [
                *("--dataset", "World", "--tables", str(table)),
                *("--report", str(out / "public.html")),
                *("--records", *bench.files["privacy"], "--config", "{}"),
                *("--lock", str(tmp_path / "core.lock.txt")),
                *("--citation", str(ROOT / "CITATION.cff"), "--manifest", str(bench.manifest)),
                *("--prompts", str(bench.prompts), "--output", str(out / "release.tar.gz")),
            ],
        ),
    ]
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        cwd=package.parent,
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(package.parent)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with table.open(encoding="utf-8", newline="") as stream:
        shown = [row["Twins ↓"] for row in csv.DictReader(stream)]
    assert [value for value in shown if value != "–"] == [str(value) for value in VALUES.values()]
    assert "<strong>0.1235</strong>" in (out / "report.html").read_text(encoding="utf-8")
    with tarfile.open(out / "release.tar.gz") as archive:
        names = archive.getnames()
    assert any(name.endswith("table03z_twins.csv") for name in names)
