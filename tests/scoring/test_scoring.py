"""The scoring scripts reproduce the committed records, and every planted mistake is detected.

Nothing is trained here: the inputs are committed, so the records agree on every processor within
the tolerances of `compare`.
"""

import copy
import functools
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scoring import freeze, scripts
from tests.scoring.compare import differences
from tests.scoring.mistakes import MISTAKES
from tests.scoring.scripts import SCRIPTS
from tests.workflow.checkouts import ROOT
from workflow_scripts.preflight.check import read_config

METRICS = "downstream/report_generation/metrics"
NEED_NETWORKS = ("score_radgraph", "score_green", "score_ratescore")
"""Scripts that run a network on reports; their outputs are among the inputs."""

committed = functools.cache(freeze.committed)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The output folder of all scripts, and the contents by path."""
    folder = tmp_path_factory.mktemp("made")
    return folder, scripts.run_all(folder)


def test_the_records_are_the_committed_ones(made):
    assert differences(committed(), made[1]) == []


def test_every_scoring_script_is_run():
    folder = ROOT / "workflow_scripts"
    there = {str(path.relative_to(folder)) for path in folder.rglob("score*.py")}
    called = {Path(inspect.getfile(script.main)) for script in SCRIPTS.values()}
    called = {str(path.relative_to(folder)) for path in called}
    need_networks = {f"{METRICS}/{name}.py" for name in NEED_NETWORKS}
    page = {"curate/scorecard.py"}  # of a curated set; it measures nothing
    # Of reports of a network that reads them; tests/faithfulness runs it on small networks.
    reports = {"faithfulness/score_round_trip.py"}
    assert there - called == need_networks | page | reports


def test_the_config_asks_for_what_is_scored_here():
    config = read_config(["config.yaml"])
    assert (config["fidelity"]["nearest_k"], config["fidelity"]["seed"]) == (5, 42)
    assert config["privacy"]["threshold"] == 0.85
    assert (config["privacy"]["matches"], config["privacy"]["seed"]) == (5, 42)
    assert config["downstream"]["seed"] == 42


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_mistake_is_named(made, tmp_path, monkeypatch, mistake):
    mistake.plant(monkeypatch)
    contents = SCRIPTS[mistake.script].run(made[0], tmp_path)
    named = differences({name: committed()[name] for name in contents}, contents)
    where = mistake.file or mistake.script
    assert any(text.startswith(f"{where}: {mistake.moves}") for text in named), named


@pytest.mark.parametrize(
    ("metric", "field", "value"),
    [
        ("fid", "value", lambda x: 1.00001 * x),
        ("kid", "interval", lambda x: [x[0], 1.00001 * x[1]]),
        ("kid", "interval", lambda x: None),
        ("recall", "n", lambda x: x + 1),
        ("recall", "n_reference", lambda x: None),
        ("alignment", "direction", lambda x: "lower"),
        ("coverage", "interval_kind", lambda x: "bootstrap 95%"),
        ("density", "value", lambda x: None),
        ("precision", "reason", lambda x: "too few"),
    ],
)
def test_every_part_of_a_value_is_compared(metric, field, value):
    name = "fidelity/sound/tiny.json"
    changed = copy.deepcopy(committed()[name])
    (entry,) = (v for v in changed["values"] if (v["metric"], v["subset"]) == (metric, "all"))
    entry[field] = value(entry[field])
    (found,) = differences({name: committed()[name]}, {name: changed})
    assert found.startswith(f"{name}: values, {metric} of all, {field}")


def test_details_tables_and_lost_files_are_compared():
    was = committed()
    pairs = "privacy/closest/tiny_pairs.parquet"
    record = "fidelity/sound/tiny.json"
    now = copy.deepcopy(was)
    now[record]["details"]["prompts"] += 1
    now[pairs]["match"][7] += 1
    del now["privacy/lenses/tiny.json"]
    assert [text.split(" was ")[0] for text in differences(was, now)] == [
        f"{record}: details, prompts",
        f"{pairs}: match[7]",
        "privacy/lenses/tiny.json: ",
    ]


def test_rounding_is_no_difference():
    was = {"a.json": {"values": [{"metric": "kid", "subset": "all", "value": 2.0}]}}
    now = json.loads(json.dumps(was).replace("2.0", "2.000001"))
    assert differences(was, now) == []
    assert differences(was, json.loads(json.dumps(was).replace("2.0", "2.00001"))) != []


@pytest.mark.full
@pytest.mark.parametrize(("capability", "threads"), [("default", "2"), ("avx2", "1")])
def test_other_instructions_and_threads_give_the_same(capability, threads):
    done = subprocess.run(
        [sys.executable, "-m", "tests.scoring.freeze", "--check", "--threads", threads],
        cwd=ROOT,
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr[-2000:]
