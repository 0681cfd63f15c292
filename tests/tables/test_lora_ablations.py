"""Tables 13 and 14: which models share a row, and what stands where none ran."""

import json

import pytest

from workflow_scripts.common.records import Record, Value
from workflow_scripts.preflight.check import read_config
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.models import parse_models, variants
from workflow_scripts.tables.published import published_values
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

LORA_RANK = "table13_lora_rank"
LORA_POSITION = "table14_lora_position"


def entry(key, rank, targets="attention", base="one"):
    settings = {
        "base": base,
        "lora_rank": str(rank),
        "lora_alpha": str(rank),
        "lora_targets": json.dumps([targets]),
    }
    return {
        "key": key,
        "family": "stable_diffusion_3",
        "display": {"name": key.upper()},
        "finetuning": f"LoRA (r={rank})",
        "settings": settings,
    }


FULL = {"key": "full", "family": "sana", "settings": {"base": "three"}}


def tables_of(entries, fids, dataset="World"):
    records = Records()
    for key, fid in fids.items():
        values = [Value("fid", fid, "lower", 90, "all", 80)]
        values.append(Value("kid", fid / 10, "lower", 90, "all", 80, (0.0, fid), "b"))
        records.add(Record("fidelity", key, "rad_dino", "sound", values))
    run = Run(records, parse_models(json.dumps(entries)), dataset)
    return {stem: one_table(stem, run) for stem in (LORA_RANK, LORA_POSITION)}


def shown(table):
    return {
        row.key: {cell.column.header: cell.value for cell in row.cells if cell.value is not None}
        for row in table.rows
    }


def test_models_that_differ_in_rank_alone_share_a_row_in_table_13():
    entries = [
        entry("b_r64", 64, base="two"),
        entry("a", 32),
        entry("a_r64", 64),
        entry("b", 32, base="two"),
        FULL,
    ]
    fids = {"a": 4.0, "a_r64": 2.0, "b": 6.0, "b_r64": 5.0, "full": 1.0}
    table = tables_of(entries, fids)["table13_lora_rank"]
    found = shown(table)
    # A row is named after its lowest rank; the average is of the columns that every row has.
    assert list(found) == ["b", "a", "average"]
    fid = {key: [own.get(f"FID ↓, Rank {r}") for r in (32, 64, 128)] for key, own in found.items()}
    assert fid == {"b": [6, 5, None], "a": [4, 2, None], "average": [5, 3.5, None]}
    assert found["average"]["KID ↓, Rank 64"] == pytest.approx(0.35)
    own = table.rows[1].cells[0]
    assert (own.n, own.n_reference, own.interval) == (90, 80, None)
    assert table.rows[1].cells[3].interval == (0.0, 4.0)
    missing = table.rows[0].cells[2]
    assert missing.reason == "not run: no such model is among the run's models"


def test_models_that_differ_in_place_alone_share_a_row_in_table_14_and_are_not_in_table_13():
    entries = [
        entry("a", 32),
        entry("a_mlp", 32, "attention_mlp"),
        entry("a_all", 32, "attention_mlp_position"),
        entry("a_r64", 64),
    ]
    tables = tables_of(entries, {"a": 4.0, "a_mlp": 3.0, "a_all": 5.0, "a_r64": 2.0})
    fid = {k: v for k, v in shown(tables["table14_lora_position"])["a"].items() if "FID" in k}
    assert fid == {"FID ↓, Attn.": 4, "FID ↓, Attn. + MLP": 3, "FID ↓, All Layers": 5}
    assert list(shown(tables["table14_lora_position"])) == ["a"]
    assert tables["table14_lora_position"].rows[0].attributes == ("LoRA (r=32)",)
    found = shown(tables["table13_lora_rank"])
    assert list(found) == ["a"]  # one row has no average
    assert found["a"]["FID ↓, Rank 64"] == 2


def test_both_settings_crossed_give_a_row_for_each_value_of_the_other():
    entries = [
        entry("a", 32),
        entry("a_mlp", 32, "attention_mlp"),
        entry("a_r64", 64),
        entry("a_mlp_r64", 64, "attention_mlp"),
    ]
    tables = tables_of(entries, {})
    rows = {stem: [row.key for row in table.rows] for stem, table in tables.items()}
    assert rows["table13_lora_rank"] == ["a", "a_mlp", "average"]
    assert rows["table14_lora_position"] == ["a", "a_r64"]


def test_values_that_the_paper_does_not_have_get_columns():
    tables = tables_of([entry("a", 8), entry("a_k", 8, "to_k")], {"a": 1.0, "a_k": 2.0})
    headers = [column.header for column in tables["table13_lora_rank"].layout.columns]
    assert headers[:4] == [f"FID ↓, Rank {rank}" for rank in (8, 32, 64, 128)]
    assert shown(tables["table14_lora_position"])["a"]["FID ↓, to k"] == 2


def test_without_lora_the_tables_say_so():
    for table in tables_of([FULL], {"full": 1.0}).values():
        assert {cell.reason for row in table.rows for cell in row.cells} == {
            "not run: no model of the run is fine-tuned by LoRA"
        }


def test_the_papers_values_stand_beside_its_own_data():
    entries = [entry("sd_v3_5", 32), entry("lumina_2", 32, base="two")]
    tables = tables_of(entries, {"sd_v3_5": 90.0}, "MIMIC-CXR")
    rows = {row.key: row for row in tables["table13_lora_rank"].rows}
    texts = {
        key: [cell.published.text for cell in row.cells if cell.published]
        for key, row in rows.items()
    }
    assert texts["sd_v3_5"] == ["91.30", "84.14", "74.58"]
    assert texts["lumina_2"] == ["101.19", "96.51", "88.28"]
    assert texts["average"] == ["104.96", "95.31", "85.68"]
    (row,) = tables["table14_lora_position"].rows[:1]
    assert [c.published.text for c in row.cells if c.published] == ["91.30", "85.26", "99.19"]
    assert not tables_of(entries, {})["table13_lora_rank"].has_published


def test_the_printed_averages_are_means_of_the_printed_values_but_for_one():
    printed = published_values(LORA_RANK)
    for rank, correct in (("32", 104.96), ("64", 95.31), ("128", 86.01)):
        values = [
            own.value for key, own in printed.items() if key[3] == rank and key[0] != "average"
        ]
        assert len(values) == 3
        assert sum(values) / 3 == pytest.approx(correct, abs=0.005)
        own = printed["average", "fid", "all", rank].value
        assert own == (85.68 if rank == "128" else correct)  # rank 128's is printed too low
    assert len(published_values(LORA_POSITION)) == 3


def test_the_config_has_the_papers_variants():
    """Blocks of config.yaml that differ in the rank, or in the place, alone."""
    models = read_config(["config.yaml"])["models"]
    entries = []
    for key, own in models.items():
        lora = (own.get("finetune") or {}).get("lora")
        if lora:
            settings = {f"lora_{name}": json.dumps(value) for name, value in lora.items()}
            rest = {k: v for k, v in own["finetune"].items() if k != "lora"}
            settings |= {"base": own["base"], "rest": json.dumps([rest, own["generate"]])}
            entries.append({"key": key, "family": own["family"], "settings": settings})
    parsed = parse_models(json.dumps(entries))
    by_rank = [model.key for model in variants(parsed, "lora_rank", "lora_alpha")]
    assert by_rank == [
        f"{base}{rank}"
        for base in ("sd_v3_5", "lumina_2", "flux_1_dev")
        for rank in ("", "_r64", "_r128")
    ]
    by_place = [model.key for model in variants(parsed, "lora_targets")]
    assert by_place == ["sd_v3_5", "sd_v3_5_attention_mlp", "sd_v3_5_attention_mlp_position"]
