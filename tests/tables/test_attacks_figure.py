"""The figure of fidelity against attacks: what is one training, and what it draws."""

import json

import pytest

from tests.tables.conftest import MODELS
from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.figures.attacks import ATTACKS, draw_attacks
from workflow_scripts.tables.figures.style import styles_by_key
from workflow_scripts.tables.models import parse_models, trainings
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

EXTERNAL, CONTROL = parse_models(json.dumps(MODELS))[2:]


def model(key, epochs, **others):
    """A model with the settings that `planning.models.ablation_settings` writes."""
    lora = {name: value for name, value in others.items() if name.startswith("lora_")}
    rest = {name: value for name, value in others.items() if name not in lora}
    tuned = {"epochs": epochs, "learning_rate": 1e-3, **rest} if epochs else {}
    settings = {"base": "b", "generate": "g", "finetune": json.dumps(tuned), **lora}
    entry = {"key": key, "family": "stable_diffusion", "display": {"name": key.upper()}}
    return parse_models(json.dumps([{**entry, "settings": settings}]))[0]


FULL = [model(f"full_{epochs}", epochs, method="full") for epochs in (8, 2, 4)]
LORA = [model(f"lora_{epochs}", epochs, method="lora", lora_rank="4") for epochs in (2, 8)]


def test_models_that_differ_in_epochs_alone_are_one_training_in_their_order():
    others = [
        model("slower", 2, method="full", learning_rate=1e-4),
        model("base", None),
        model("other_base", None),
        model("private_2", 2, method="full", privacy={"epsilon": 8}),
        model("private_4", 4, method="full", privacy={"epsilon": 8}),
        EXTERNAL,
    ]
    found = [[m.key for m in run] for run in trainings([*FULL, *LORA, *others])]
    assert found == [
        ["full_2", "full_4", "full_8"],
        ["lora_2", "lora_8"],
        *[[m.key] for m in others],
    ]


@pytest.fixture
def run():
    """Two trainings and a control; one checkpoint was not attacked."""
    records = Records("sound")
    models = [*FULL, *LORA, CONTROL]
    for i, entry in enumerate(models):
        kid = Value("kid", 1.0 - 0.1 * i, "lower", 90, interval=(0.9 - 0.1 * i, 1.1 - 0.1 * i))
        records.add(Record("fidelity", entry.key, "rad_dino", "sound", [kid]))
        alarmed = [Value("images_alarmed", 0.1, "lower", 90)]
        records.add(Record("privacy", entry.key, "extraction", "sound", alarmed))
        if entry.key in ("full_4", "noise"):
            continue
        aucs = [
            Value(f"member_{attack}_calibrated_auc", 0.5 + 0.05 * i, "lower", 90)
            for attack in ("loss", "caption")
        ]
        records.add(Record("privacy", entry.key, "membership", "sound", aucs))
    return Run(records, models, "World")


def test_a_line_joins_the_checkpoints_of_a_training_and_no_others(run):
    stems = ["table01_fidelity", *(stem for stem, *_ in ATTACKS)]
    tables = {stem: one_table(stem, run) for stem in stems}
    drawing = draw_attacks(tables, run.models, styles_by_key(run.models))
    membership, _, extraction, reid = drawing.figure.axes
    x = {m.key: 1.0 - 0.1 * i for i, m in enumerate(run.models)}
    joined = [line.get_xdata() for line in membership.lines if line.get_linewidth() == 1.0]
    assert [pytest.approx(list(xs)) for xs in joined] == [
        [x["full_2"], x["full_8"]],
        [x["lora_2"], x["lora_8"]],
    ]
    joined = [line.get_xdata() for line in extraction.lines if line.get_linewidth() == 1.0]
    assert list(joined[0]) == pytest.approx([x["full_2"], x["full_4"], x["full_8"]])
    assert [text.get_text() for text in membership.texts] == ["2", "8", "2", "8"]
    corners = [(text.get_ha(), text.get_va()) for text in membership.texts]
    assert corners == [("left", "bottom")] * 2 + [("left", "top")] * 2, "one of each training"
    assert not reid.lines, "nothing was measured"
    (legend,) = drawing.figure.legends
    assert [text.get_text() for text in legend.texts] == [
        "FULL_8 and 2 earlier",
        "LORA_8 and 1 earlier",
    ]


def test_without_a_kid_there_is_no_figure(run):
    empty = Run(Records("sound"), run.models, "World")
    tables = {
        stem: one_table(stem, empty) for stem in ("table01_fidelity", *(a[0] for a in ATTACKS))
    }
    assert draw_attacks(tables, empty.models, styles_by_key(empty.models)) is None
