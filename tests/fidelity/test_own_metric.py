"""A user's metric: one file and one line of a spec, and it is measured and shown everywhere.

The package is copied, so that the file lies in the folder where the package looks for it.
"""

import csv
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.feature_files import changed
from tests.tables.conftest import make_bench
from tests.tables.from_outside import score_and_join

ROOT = Path(__file__).resolve().parents[2]

METRIC = '''"""The distance of the means of two sets of features."""

import numpy as np

from workflow_scripts.common.measurement import Metric

MEANS = Metric("mean_distance", "Distance of means", "lower", 4, ("Made", "Real"))
METRICS = (MEANS,)


def measure(comparison, results):
    reason = comparison.too_few(1)
    if reason is not None:
        results.add_none(MEANS, comparison, reason)
        return
    gap = comparison.x.mean(axis=0) - comparison.y.mean(axis=0)
    results.add(MEANS, comparison, float(np.linalg.norm(gap)))
'''


def with_line(spec: Path, after: str, line: str) -> None:
    text = spec.read_text(encoding="utf-8")
    assert after in text
    spec.write_text(text.replace(after, f"{after}{line}\n", 1), encoding="utf-8")


@pytest.fixture
def checkout(tmp_path):
    """The package with the metric's file and its lines in Table 1 and in the ranks."""
    package = tmp_path / "checkout/workflow_scripts"
    shutil.copytree(
        ROOT / "workflow_scripts", package, ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", package.parent)
    (package / "fidelity/metrics/mean_distance.py").write_text(METRIC)
    specs = package / "tables/specs"
    with_line(specs / "table01_fidelity.yaml", "  - coverage\n", "  - mean_distance")
    with_line(
        specs / "table08_ranks.yaml",
        "  - {rank_of: coverage, header: Coverage, family: rad_dino}\n",
        "  - {rank_of: mean_distance, header: Distance of means}",
    )
    return package.parent


def column(path, name):
    with path.open(encoding="utf-8", newline="") as stream:
        return [row[name] for row in csv.DictReader(stream)]


@pytest.mark.full  # it copies the code and starts a Python of its own; see also test_metrics
def test_a_metric_is_one_file_and_one_line(checkout, cohort, tmp_path):
    bench = make_bench(tmp_path / "bench")
    scored = []
    for model in ("sd_v1_4", "sana"):
        folder = tmp_path / f"features/{model}/test"
        shutil.copytree(cohort.generated, folder)
        for path in folder.iterdir():
            with changed(path) as file:
                file.attrs["collection"] = model
        output = Path(bench.path_of("fidelity", model))
        scored.append(
            [
                *("--model", model, "--encoder", "rad_dino", "--protocol", "sound"),
                *("--manifest", str(cohort.manifest), "--prompts", str(cohort.prompts)),
                *("--real", str(cohort.real), "--generated", str(folder)),
                *("--kid-bootstrap", "20", "--output", str(output)),
            ]
        )
    for model in ("mine", "noise"):
        bench.files["fidelity"].remove(bench.path_of("fidelity", model))
    out = tmp_path / "out"
    files = [f"table01_fidelity.{suffix}" for suffix in ("csv", "tex")]
    score_and_join(checkout, bench, out, "fidelity.score", scored, files, "fidelity")
    record = json.loads(Path(bench.path_of("fidelity", "sana")).read_text())
    (value,) = (
        v["value"]
        for v in record["values"]
        if (v["metric"], v["subset"]) == ("mean_distance", "all")
    )
    shown = column(out / "table01_fidelity.csv", "Distance of means ↓")
    assert float(shown[1]) == pytest.approx(value)
    assert column(out / "table08_ranks.csv", "Distance of means")[:2] == ["1.0", "1.0"]
    assert "Distance of means" in (out / "table08b_leaderboard.csv").read_text(encoding="utf-8")
    assert f"{value:.4f}" in (out / "report.html").read_text(encoding="utf-8")
    with tarfile.open(out / "release.tar.gz") as archive:
        texts = {name: archive.extractfile(name).read().decode() for name in archive.getnames()}
    assert f"{value:.4f}" in next(t for n, t in texts.items() if n.endswith("report.html"))
    assert "Distance of means ↓" in next(t for n, t in texts.items() if n.endswith("fidelity.csv"))
