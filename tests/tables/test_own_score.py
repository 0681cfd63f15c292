"""A privacy score and a downstream task from outside: a folder each, planned, run and shown.

The checkout is copied, so that the folders lie where the package looks for them.
"""

import csv
import tarfile

import pytest
import yaml

from tests.tables.conftest import PROVENANCE, make_bench
from tests.tables.from_outside import score_and_join
from tests.workflow.checkouts import make_checkout, run
from tests.workflow.plans import Plan
from tests.workflow.stubs import make_stub_sources

MEASURES = """
from workflow_scripts.common.measurement import Metric

METRICS = (Metric("twins", "Twins", "lower", 4, ("Generated images", "Training images")),)
FAMILIES = ("twins",)
TABLES = ("table03z_twins.yaml",)
"""

SETTINGS = """
from dataclasses import dataclass
from typing import Annotated

from workflow_scripts.common.settings import Key


@dataclass(frozen=True)
class Settings:
    radius: Annotated[float, Key("Distance of a twin.", above=0, optional=True)] = 0.5
"""

SCORE = """
import argparse

from workflow_scripts.common.records import Record, Value, write_record
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.privacy.twins.settings import Settings

PROVENANCE = {provenance}


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--output")
    add_flags(parser, Settings)
    flags = parser.parse_args(argv)
    radius = settings_of_flags(Settings, flags, parser).radius
    twins = Value("twins", radius / 2, "lower", 40, interval=(0.0, 1.0), interval_kind="b")
    write_record(
        Record("privacy", flags.model, "twins", "sound", [twins], {{}}, PROVENANCE), flags.output
    )
"""

RULES = """
rule privacy_twins:
    input:
        manifest=per_job(RUN.manifest),
    output:
        "results/privacy/twins/{model}.json",
    params:
        *code("privacy.twins.score"),
        flags=arguments.part_flags(RUN, "privacy", "twins"),
    shell:
        "python -m workflow_scripts.privacy.twins.score --model {wildcards.model}"
        " {params.flags} --output {output}"
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

TASK_MEASURES = """
from workflow_scripts.common.measurement import Metric
from workflow_scripts.downstream.trained import TESTED, with_runs

METRICS = tuple(with_runs(Metric("sides", "Sides told apart", "higher", 3, TESTED)))
FAMILIES = ("laterality/real_only", "laterality/augmented")
"""

TASK_SETTINGS = SETTINGS.replace(", optional=True", "").replace("radius", "rate")

TASK_RULES = """
rule downstream_score_laterality:
    input:
        manifest="results/cohort/manifest.parquet",
        shards=per_job(RUN.training_shards),
    output:
        "results/downstream/laterality/{setting}/{model}.json",
    params:
        flags=arguments.part_flags(RUN, "downstream", "laterality"),
    shell:
        "python -m workflow_scripts.downstream.laterality.score {params.flags} --output {output}"
"""

FOLDERS = {
    "privacy/twins": {
        "measures.py": MEASURES,
        "settings.py": SETTINGS,
        "rules.smk": RULES,
        "table03z_twins.yaml": SPEC,
    },
    "downstream/laterality": {
        "measures.py": TASK_MEASURES,
        "settings.py": TASK_SETTINGS,
        "rules.smk": TASK_RULES,
    },
}


@pytest.fixture
def checkout(tmp_path):
    """A checkout with the two folders, and stub sources for the paper's config."""
    folder = make_stub_sources(make_checkout(tmp_path / "checkout"))
    for name, files in FOLDERS.items():
        place = folder / "workflow_scripts" / name
        place.mkdir()
        for file in ("__init__.py", *files):
            (place / file).write_text(files.get(file, ""))
    score = folder / "workflow_scripts/privacy/twins/score.py"
    score.write_text(SCORE.format(provenance=PROVENANCE))
    return folder


def plan(checkout, tasks, **blocks):
    """Dry-run the paper's config with other downstream tasks, and blocks by stage."""
    overlay = {"downstream": {"tasks": tasks}}
    for stage, block in blocks.items():
        overlay[stage] = overlay.get(stage, {}) | block
    (checkout / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    flags = ["--dry-run", "--printshellcmds", "--configfile", "config.yaml", "overlay.yaml"]
    return run(["snakemake", *flags], checkout, check=False).stdout


@pytest.mark.full  # it plans the paper's config twice
def test_a_score_and_a_task_are_planned_from_their_folders(checkout):
    tasks = ["classification", "laterality"]
    planned = Plan(
        checkout,
        plan(
            checkout,
            tasks,
            privacy={"twins": {"radius": 0.25}},
            downstream={"laterality": {"rate": 0.125}},
        ),
    )
    with_privacy = planned.counts["privacy_lenses"]
    with_augment = planned.counts["downstream_score_classifier"] // 2
    assert planned.counts["privacy_twins"] == with_privacy > 10
    assert planned.counts["downstream_score_laterality"] == with_augment + 1
    assert planned.words("privacy.twins.score")[2:4] == ["--radius", "0.25"]
    assert planned.words("downstream.laterality.score")[:2] == ["--rate", "0.125"]
    joined = set(planned.words("tables.build"))
    assert {
        "results/privacy/twins/sana.json",
        "results/downstream/laterality/real_only/real.json",
        "results/downstream/laterality/augmented/sana.json",
    } <= joined
    assert "results/tables/table03z_twins.csv" in planned.outputs

    refused = plan(checkout, tasks, privacy={"twins": {"radios": 0.25}})
    assert "privacy.twins: unknown key 'radios' (did you mean 'radius'?)" in refused
    assert "downstream.laterality: missing, with rate" in plan(checkout, tasks)


RADII = {"sd_v1_4": 0.2469, "sana": 0.46912}


@pytest.mark.full  # it starts a Python of its own
def test_a_privacy_score_in_one_folder_is_in_table_report_and_release(checkout, tmp_path):
    bench = make_bench(tmp_path / "bench")
    scored = []
    for model, radius in RADII.items():
        path = tmp_path / f"twins/{model}.json"
        scored.append(["--model", model, "--radius", str(radius), "--output", str(path)])
        bench.files["privacy"].append(str(path))

    out = tmp_path / "out"
    table = out / "table03z_twins.csv"
    script = "privacy.twins.score"
    score_and_join(checkout, bench, out, script, scored, [table.name], "privacy")
    with table.open(encoding="utf-8", newline="") as stream:
        shown = [row["Twins ↓"] for row in csv.DictReader(stream)]
    assert [value for value in shown if value != "–"] == [
        str(radius / 2) for radius in RADII.values()
    ]
    assert "<strong>0.1235</strong>" in (out / "report.html").read_text(encoding="utf-8")
    with tarfile.open(out / "release.tar.gz") as archive:
        names = archive.getnames()
    assert any(name.endswith("table03z_twins.csv") for name in names)
