"""A guarantee is read wherever the model is: Tables 1, 3 and 24, in every format, and its card."""

import re
from types import SimpleNamespace

import pytest

from tests.tables.conftest import PROVENANCE
from workflow_scripts.common.records import Record, Value, write_record
from workflow_scripts.planning.models import named_display
from workflow_scripts.tables import build
from workflow_scripts.tables.model_cards import model_cards
from workflow_scripts.tables.results import RESULTS, read_results

PRIVACY = {"epsilon": 8.0, "delta": 1e-6, "unit": "patient", "max_grad_norm": 0.1}
WORDS = {
    "csv": "SD V1-4 (ε = 8, δ = 1e-06)",
    "md": "SD V1-4 (ε = 8, δ = 1e-06)",
    "html": "SD V1-4 (ε = 8, δ = 1e-06)",
    "tex": r"SD V1-4 ($\varepsilon$ = 8, $\delta$ = 1e-06)",
}


def test_a_model_whose_noise_is_known_is_said_to_have_no_guarantee():
    block = {"display": {"name": "Mine"}, "finetune": {"privacy": {**PRIVACY, "noise_seed": 3}}}
    assert named_display(block)["name"] == "Mine (no guarantee: its noise is known)"
    assert named_display({"display": {"name": "Mine"}, "finetune": {}})["name"] == "Mine"
    assert block["display"] == {"name": "Mine"}, "the config is left as it was"


@pytest.fixture
def private(bench: SimpleNamespace) -> SimpleNamespace:
    """The small benchmark, whose first model is fine-tuned with a guarantee."""
    block = {"display": bench.models[0]["display"], "finetune": {"privacy": PRIVACY}}
    bench.models = [{**bench.models[0], "display": named_display(block)}, *bench.models[1:]]
    said = [
        Value("guarantee_epsilon", 7.99, "lower", 300),
        Value("guarantee_delta", 1e-6, "lower", 300),
    ]
    path = bench.root / "guarantee.json"
    record = Record("privacy", "sd_v1_4", "guarantee", "sound", said, {}, PROVENANCE)
    write_record(record, path)
    bench.files["privacy"].append(str(path))
    bench.out = bench.root / "out"
    build.main([*bench.argv(bench), "--out", str(bench.out)])
    return bench


@pytest.mark.parametrize("stem", ["table01_fidelity", "table03_privacy", "table24_guarantee"])
def test_tables_say_epsilon_and_delta_in_every_format(private, stem):
    for kind, words in WORDS.items():
        text = (private.out / f"{stem}.{kind}").read_text()
        assert words in text.replace("\u00a0", " "), kind
    written = (private.out / f"{stem}.tex").read_text()
    assert not re.search(r"\W\?", written), "a letter that LaTeX was not told"


def test_the_card_says_it_in_its_title_and_among_its_numbers(private):
    results = read_results(private.out / RESULTS)
    tables = results.tables
    cards = model_cards(tables, tables["table01_fidelity"], results.models, None, None)
    (card,) = [card for card in cards if card.model.key == "sd_v1_4"]
    assert card.model.name == WORDS["md"]
    numbers = {
        number.cell.column.metric: number.cell.value
        for found in card.by_page["privacy"]
        if found.table.layout.stem == "table24_guarantee"
        for number in found.numbers
    }
    assert numbers["guarantee_epsilon"] == 7.99
    assert numbers["guarantee_delta"] == 1e-6
