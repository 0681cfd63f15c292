"""Every benchmark runs, and prints lines that can be read. How fast it is, no test says."""

import csv
import json
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pytest

from tests.benchmarks import __main__ as driver
from tests.benchmarks.inputs import with_nulls
from tests.benchmarks.measure import MARK, PeakMemory, Result, in_turn, read_results, report

PAIRS = {
    "classification": ["step", "epochs with decoding"],
    "closest": ["closest by distance"],
    "closest_score": ["closest by score"],
    "cohort": ["growth"],
    "counts": [
        "fidelity.score",
        "privacy.score_closest",
        "privacy.score_novelty",
        "privacy.score_attacker",
        "privacy.membership.score_samples",
    ],
    "curated_set": ["set growth"],
    "encode_once": ["encode images", "read both"],
    "extraction": ["inception_v3", "densenet_121", "inception_v3 + densenet_121"],
    "fidelity": ["FID", "KID", "PRDC", "all", "all, official", "one FID"],
    "fidelity_growth": ["FID growth", "KID growth", "PRDC growth"],
    "models": ["fine-tuning", "sampling"],
    "planning": ["growth"],
    "preparing": ["densenet_121", "stretch"],
    "reporter": ["step"],
    "scheduling": ["scheduling"],
}
"""What each benchmark compares."""


def test_every_benchmark_is_known():
    assert driver.find_benchmarks() == sorted(PAIRS)


@pytest.mark.full
@pytest.mark.parametrize("name", driver.find_benchmarks())
def test_benchmark_runs_small(name):
    done = subprocess.run(
        driver.command_of(name, small=True),
        cwd=driver.ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    results = read_results(done.stdout)  # whose times are finite and above 0
    assert [result.name for result in results] == PAIRS[name]
    assert all(result.compared for result in results)


@pytest.fixture
def pretended(monkeypatch):
    """Put programs in the place of benchmarks; returns the folder of programs by name."""
    programs: dict[str, str] = {}

    def command_of(name: str, small: bool) -> list[str]:
        return [sys.executable, "-c", programs[name]]

    monkeypatch.setattr(driver, "command_of", command_of)
    monkeypatch.setattr(driver, "find_benchmarks", lambda: list(programs))
    return programs


def line(capsys, *results):
    for result in results:
        report(result)
    return f"print({capsys.readouterr().out!r}, end='')\n"


def test_driver_goes_on_after_a_failure_and_names_it(pretended, capsys, tmp_path):
    one, two = Result("one", "this; that", 2.0, 1.0), Result("two", "a; b", 1.0, 3.0, "peer 1.2")
    pretended["dies"] = "raise SystemExit(3)"
    pretended["silent"] = "print('nothing to read')"
    pretended["slow"] = line(capsys, one) + "raise SystemExit('over the limit')"
    pretended["good"] = line(capsys, one, two)
    out = tmp_path / "bench.csv"
    with pytest.raises(SystemExit) as end:
        driver.main(["--out", str(out), "--small"])
    assert end.value.code == "error: failed: dies, silent, slow"
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == driver.COLUMNS
    assert [(row["benchmark"], row["name"]) for row in rows] == [
        ("slow", "one"), ("good", "one"), ("good", "two"),
    ]  # fmt: skip
    last = rows[-1]
    assert (last["ours_s"], last["theirs_s"], last["ratio"]) == ("1", "3", "3")
    assert (last["compared"], last["peer"], last["small"]) == ("a; b", "peer 1.2", "yes")
    assert all(last[name] for name in driver.COLUMNS)
    driver.main(["--out", str(out), "good"])
    assert len(out.read_text().splitlines()) == 3


def test_driver_refuses_a_benchmark_that_is_not_there(pretended, tmp_path):
    pretended["good"] = ""
    with pytest.raises(SystemExit) as end:
        driver.main(["goood", "--out", str(tmp_path / "bench.csv")])
    assert end.value.code == 2


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_no_time_is_no_result(seconds):
    with pytest.raises(ValueError, match="is no time"):
        Result("one", "this; that", seconds, 1.0)
    with pytest.raises(ValueError, match="is no time"):
        Result("one", "this; that", 1.0, seconds)


def test_lines_that_are_not_results_are_refused(capsys):
    good = Result("one", "this; that", 2.0, 1.0)
    report(good)
    printed = capsys.readouterr().out
    assert read_results(f"text\n{printed}more") == [good]
    fields = json.loads(printed.removeprefix(MARK))
    wrong = {
        "no line": "text",
        "stands twice": printed + printed,
        "not that of the times": MARK + json.dumps(fields | {"ratio": 9.0}),
        "unexpected": MARK + json.dumps(fields | {"more": 1}),
        "missing": MARK + json.dumps({"name": "one", "ratio": 0.5}),
        "Expecting": MARK + "{",
    }
    for message, output in wrong.items():
        with pytest.raises(ValueError, match=message):
            read_results(output)


def test_ways_are_timed_in_turn_without_the_warm_up():
    calls = []
    seconds = in_turn(
        {name: lambda n, name=name: calls.append((name, n)) for name in "ab"}, 2, warm_up=1
    )
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert [len(seconds[name]) for name in "ab"] == [2, 2]


def test_peak_memory_is_that_of_the_block():
    before = bytearray(64 << 20)
    del before
    with PeakMemory() as peak:
        block = bytearray(b"1") * (32 << 20)
        del block
    assert 30 < peak.mib < 50


def test_columns_that_may_be_null_are_added_and_no_others():
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("new", pa.string(), nullable=False),
            pa.field("site", pa.string()),
            pa.field("Edema", pa.int8()),
        ]
    )
    frame = with_nulls(pd.DataFrame({"id": ["a", "b"], "site": ["x", "y"]}), schema)
    assert list(frame) == ["id", "site", "Edema"]
    assert frame["site"].tolist() == ["x", "y"]
    assert frame["Edema"].isna().all()
    pa.Table.from_pandas(frame.assign(new="n")[schema.names], schema=schema)
