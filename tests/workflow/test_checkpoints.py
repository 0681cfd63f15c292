"""Checkpoints of a full fine-tuning and of LoRA are trained, attacked and joined in Figure 14."""

import shlex

import pytest
import yaml

from tests.workflow.checkouts import make_checkout, run, with_world
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
MODELS = ("full_2", "full_8", "lora_2")
"""Of the config's trainings those that take least; the page states what the others give."""

SHORT = {
    "privacy": {"membership": {"images": 20, "noise_levels": 1}},
    "models": {model: {"generate": {"steps": 2}} for model in MODELS},
}
"""What makes the attack and the images poor, and the test fast."""


def test_checkpoints_of_two_trainings_are_attacked_and_joined_where_they_are_of_one(tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    with_world(make_checkout(checkout))
    (checkout / "short.yaml").write_text(yaml.safe_dump(SHORT))
    overlays = (*OVERLAYS, "short.yaml")
    fidelity = [f"results/fidelity/rad_dino/{model}.json" for model in MODELS]
    attacks = [f"results/privacy/membership/{model}.json" for model in MODELS]
    command = ["snakemake", "--profile", "profiles/demo", "--configfile", *overlays, "--"]
    run([*command, *fidelity, *attacks], checkout)
    curves = [checkout / f"results/finetune/{model}/training.csv" for model in MODELS[:2]]
    shorter, longer = (path.read_text() for path in curves)
    assert longer.startswith(shorter), "the shorter one is the longer one's beginning"

    records = Records("sound")
    for name in [*fidelity, *attacks]:
        records.add(read_record(checkout / name))
    plan = Plan(read_config([str(checkout / name) for name in overlays]))
    (said,) = shlex.split(model_table(plan))
    entries = [model for model in parse_models(said) if model.key in MODELS]
    assert [[model.key for model in found] for found in trainings(entries)] == [
        ["full_2", "full_8"],
        ["lora_2"],
    ]
    made = Run(records, entries, "World")
    stems = ["table01_fidelity", *(stem for stem, *_ in ATTACKS)]
    tables = {stem: one_table(stem, made) for stem in stems}
    drawing = draw_attacks(tables, entries, styles_by_key(entries))
    by_loss, by_caption, *others = drawing.figure.axes
    for axes in (by_loss, by_caption):
        assert [text.get_text() for text in axes.texts] == ["2", "8"]
    assert not any(axes.texts for axes in others), "nothing else was measured"
