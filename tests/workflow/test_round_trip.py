"""LLaVA-Rad reports on a model's images and CheXbert reads them, through Snakemake and a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from tests.workflow.checkouts import copy_results, make_checkout, run
from workflow_scripts.common.manifest import FINDINGS, read_prompts
from workflow_scripts.common.records import read_record

pytestmark = [pytest.mark.workflow, pytest.mark.full]

OVERLAY = {
    "faithfulness": {"judges": ["classifier", "llava_rad"]},
    "downstream": {"report_generation": {"generate_batch_size": 8}},
    "run_models": ["my_model", "noise"],
}
"""The renderer of the world, which draws what captions say, and no radiograph at all."""

REPORTS = "results/faithfulness/reports"
TABLE = "results/tables/table18d_round_trip.csv"
RECORDS = "results/faithfulness/round_trip"


def command(*targets):
    # Times alone: the demo has all else that the tables need, of more models.
    flags = ["--profile", "profiles/demo", "--rerun-triggers", "mtime"]
    flags += ["--configfile", "config.yaml", "profiles/demo/overlay.yaml", "own.yaml"]
    return ["snakemake", *flags, "--", *targets]


@pytest.fixture(scope="module")
def checkout(demo, tmp_path_factory):
    """A copy of the demo in which the tables were made with reports of two models' images."""
    folder = tmp_path_factory.mktemp("round_trip")
    make_checkout(folder)
    copy_results(demo, folder)
    (folder / "own.yaml").write_text(yaml.safe_dump(OVERLAY))
    (folder / TABLE).unlink()  # made without them, and by its time up to date
    run(command(TABLE), folder)
    return folder


def shown(folder, table, model):
    """Return a table's row of a model, by column."""
    rows = pd.read_csv(folder / f"results/tables/{table}.csv").set_index("Model")
    return rows.loc[model]


def test_every_prompt_has_a_report_and_only_its_owner_may_read_it(checkout):
    prompts = read_prompts(checkout / "results/cohort/prompts/test.parquet")
    prompts = prompts[~prompts["second_wording"]]
    for model in OVERLAY["run_models"]:
        reports = pd.read_parquet(checkout / f"{REPORTS}/{model}.parquet")
        assert sorted(reports["id"]) == sorted(prompts["prompt_id"])
        assert (reports["classes"].map(len) == len(FINDINGS)).all()
    real = checkout / f"{REPORTS}/real.parquet"
    assert set(prompts["image_id"]) <= set(pd.read_parquet(real)["id"])
    assert real.stat().st_mode & 0o077 == 0
    assert not list((checkout / REPORTS).glob(".progress-*"))


def test_the_faithful_renderer_reaches_a_share_of_the_ceiling_and_noise_does_not(checkout):
    faithful, noise = (read_record(checkout / f"{RECORDS}/{m}.json") for m in OVERLAY["run_models"])
    share = faithful.get("round_trip_share")
    assert share.interval[0] > 0.5
    assert abs(noise.get("round_trip_share").value) < 0.1
    # One report whatever the image: it has told nothing.
    assert noise.details["distinct_share"] < faithful.details["distinct_share"]


def test_tables_say_what_the_records_say(checkout):
    for model, name in (("my_model", "My model (external)"), ("noise", "Noise")):
        record = read_record(checkout / f"{RECORDS}/{model}.json")
        row = shown(checkout, "table18d_round_trip", name)
        assert float(row["Share ↑"]) == pytest.approx(record.get("round_trip_share").value)
        row = shown(checkout, "table18e_round_trip_share", name)
        asked = [f for f in FINDINGS if record.get("round_trip_share", f).value is not None]
        assert "Edema" in asked
        assert float(row["Edema"]) == pytest.approx(record.get("round_trip_share", "Edema").value)


def but_for_the_date(path):
    """Return a file's rows and what made it, without the time at which it was written."""
    table = pq.read_table(path)
    made = json.loads(table.schema.metadata[b"run"])
    del made["provenance"]["written"]
    return table.to_pylist(), made


def kill_snakemake(folder, target, written):
    """Start Snakemake and send SIGKILL to it and its jobs as soon as `written()` is true."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with subprocess.Popen(
        command(target),
        cwd=folder,
        env=os.environ | {"PATH": path},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not written():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_killed_in_the_middle_it_goes_on_where_it_was_to_the_same_reports(checkout):
    reports, record = f"{REPORTS}/my_model.parquet", f"{RECORDS}/my_model.json"
    whole = but_for_the_date(checkout / reports)
    values = read_record(checkout / record).values
    for name in (reports, record):
        (checkout / name).unlink()
    progress = checkout / f"{REPORTS}/.progress-my_model"
    kill_snakemake(checkout, record, lambda: len(list(progress.glob("reports-*.json"))) >= 3)
    assert not (checkout / reports).exists()
    run(["snakemake", "--unlock", *command()[1:-1]], checkout)
    run(command(record), checkout)
    log = (checkout / "logs/faithfulness/reports_my_model.log").read_text()
    done, batches = map(int, re.search(r"continuing at (\d+) of (\d+) batches", log).groups())
    assert 3 <= done < batches
    assert but_for_the_date(checkout / reports) == whole
    assert read_record(checkout / record).values == values
    assert not progress.exists()
