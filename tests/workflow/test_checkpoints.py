"""Checkpoints of a full fine-tuning and of LoRA are trained, attacked and joined in Figure 14."""

import shlex

import pandas as pd
import pytest
import yaml

from tests.docs.checkpoints import difference, rows
from tests.workflow.checkouts import WARM, make_checkout, run, with_world
from workflow_scripts.common.records import read_record
from workflow_scripts.planning.arguments import model_table
from workflow_scripts.planning.run import Run as Plan
from workflow_scripts.preflight.check import read_config
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.figures.attacks import ATTACKS, draw_attacks
from workflow_scripts.tables.figures.style import styles_by_key
from workflow_scripts.tables.models import parse_models, trainings
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

pytestmark = [pytest.mark.workflow, pytest.mark.full]

OVERLAYS = ("config.yaml", "profiles/demo/overlay.yaml", "tests/workflow/checkpoints.yaml")
MODELS = ("full_2", "full_8")
"""Of the config's trainings those that take least; the page states what the others give."""

SHORT = {
    "run_models": [*MODELS],
    "prompt_sets": {"privacy": {"captions": 10, "seeds": [1, 2, 3]}},
    "privacy": {"membership": {"images": 20, "noise_levels": 1}},
    "models": {model: {"generate": {"steps": 2}} for model in MODELS},
}
"""What makes the attacks and the images poor, and the test fast."""


def planned(checkout, *overlays):
    """Return the models of some overlays, as the tables show them."""
    plan = Plan(read_config([str(checkout / name) for name in overlays]))
    (said,) = shlex.split(model_table(plan))
    return parse_models(said)


def test_checkpoints_of_two_trainings_are_attacked_and_joined_where_they_are_of_one(tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    with_world(make_checkout(checkout))
    (checkout / "short.yaml").write_text(yaml.safe_dump(SHORT))
    kinds = ("fidelity/rad_dino", "privacy", "privacy/membership", "privacy/extraction")
    asked = [f"results/{kind}/{model}.json" for kind in kinds for model in MODELS]
    command = [*WARM, "snakemake", "--profile", "profiles/demo", "--configfile"]
    run([*command, *OVERLAYS, "short.yaml", "--", *asked], checkout)
    curves = [checkout / f"results/finetune/{model}/training.csv" for model in MODELS]
    shorter, longer = (path.read_text() for path in curves)
    assert longer.startswith(shorter), "the shorter one is the longer one's beginning"

    every = planned(checkout, *OVERLAYS)
    methods = ("full", "lora")
    assert [[model.key for model in found] for found in trainings(every)] == [
        [f"{method}_{epochs}" for epochs in (2, 8, 32, 64, 160)] for method in methods
    ]
    records = Records("sound")
    for name in asked:
        records.add(read_record(checkout / name))
    entries = planned(checkout, *OVERLAYS, "short.yaml")
    made = Run(records, entries, "World")
    stems = ["table01_fidelity", *(stem for stem, *_ in ATTACKS)]
    tables = {stem: one_table(stem, made) for stem in stems}
    drawing = draw_attacks(tables, entries, styles_by_key(entries))
    for axes in drawing.figure.axes:
        assert [text.get_text() for text in axes.texts] == ["2", "8"], axes.get_title(loc="left")

    # What the page of guarantees says is worked out from the same records.
    results = checkout / "results"
    shown = rows(results, MODELS)
    steps = [len(pd.read_csv(path)) for path in curves]
    for model, row, count in zip(MODELS, shown, steps, strict=True):
        assert row.startswith(f"| {model} | {count} | ")
    areas = [
        read_record(results / f"privacy/membership/{model}.json")
        .get("member_caption_calibrated_auc")
        .value
        for model in MODELS
    ]
    gap, low, high = difference(results, *MODELS, "caption_calibrated")
    assert gap == pytest.approx(areas[0] - areas[1])
    assert low < gap < high
