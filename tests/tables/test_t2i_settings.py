"""Table 11 says what the config does, and the paper's learning rates are the config's."""

import json

from workflow_scripts.preflight.check import read_config
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.published import published_values
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.render.as_markdown import to_markdown
from workflow_scripts.tables.run import Run

T2I_SETTINGS = "table11_t2i_hyperparameters"
TUNED = {
    "optimiser": "came",
    "learning_rate": 2e-5,
    "batch_size": 128,
    "epochs": 20,
    "auto_learning_rate": True,
    "warmup_steps": 1000,
    "caption_dropout": 0.1,
    "size": 512,
}
MODELS = [
    {
        "key": "pixart_sigma",
        "family": "pixart_sigma",
        "finetuning": "LoRA (r=32)",
        "settings": {
            "finetune": json.dumps(TUNED),
            "generate": json.dumps({"steps": 20, "guidance": 4.5, "size": 256}),
            "lora_targets": '["attention_mlp"]',
        },
    },
    {
        "key": "llm_cxr",
        "family": "llm_cxr",
        "finetuning": "N/A",
        "settings": {"finetune": "{}", "generate": '{"size": 256}'},
    },
    {"key": "mine", "family": "external", "finetuning": "-"},
    {"key": "noise", "family": "control", "settings": {"control": "noise"}},
]


def table(dataset="World"):
    return one_table(T2I_SETTINGS, Run(Records(), parse_models(json.dumps(MODELS)), dataset))


def test_settings_are_the_models_and_what_there_is_not_says_why():
    found = table()
    assert [row.key for row in found.rows] == ["pixart_sigma", "llm_cxr", "mine"]
    tuned, published, mine = found.rows
    assert tuned.attributes == (
        "LoRA (r=32)",
        "attention mlp",
        "CAME, LR times sqrt(batch / 256)",
    )
    assert [cell.value for cell in tuned.cells] == [2e-5, 128, 20, 1000, 0.1, 512, 20, 4.5, 256]
    assert tuned.cells[0].text == "2e-5"
    assert published.attributes == ("N/A", "–", "–")
    assert published.cells[-1].value == 256
    assert published.cells[0].reason == "not fine-tuned"
    assert published.cells[-3].reason == "its sampler has no such setting"
    assert {cell.reason for cell in mine.cells} == {"its images were made outside of the workflow"}
    assert "| 2e-5 | 128 | 20 | 1,000 | 0.1 | 512 | 20 | 4.5 | 256 |" in to_markdown(found)


def test_the_papers_rates_stand_beside_its_own_data():
    tuned, published, _ = table("MIMIC-CXR").rows
    assert tuned.cells[0].published.text == "2e-5"
    assert not any(cell.published for cell in published.cells)
    assert not table().has_published


def test_the_config_has_the_printed_learning_rates():
    models = read_config(["config.yaml"])["models"]
    printed = published_values(T2I_SETTINGS)
    tuned = {key for key, *_ in printed}
    assert len(tuned) == 9
    for model, metric, *rest in printed:
        assert models[model]["finetune"][metric] == printed[(model, metric, *rest)].value
    assert all("finetune" not in models[key] for key in ("radedit", "llm_cxr"))
