"""Which table stands on which page, and what a model's card gathers."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tables.test_tables_build import table_of
from tests.tables.test_tables_report import tables_of
from workflow_scripts.tables.costs import COSTS
from workflow_scripts.tables.examples import gallery, parse_images
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.model_cards import model_cards, rank_of
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.report import at_a_glance
from workflow_scripts.tables.report_pages import OVERVIEW, PAGES, by_page

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("stem", "page"),
    [
        ("table01_fidelity", "fidelity"),
        ("table07_encoders", "fidelity"),
        ("table03e_lenses", "privacy"),
        ("table17a_caption_fidelity", "fidelity"),
        ("table17b_caption_privacy", "privacy"),
        ("table04b_classification_gains", "classification"),
        ("table15_classification_synthetic_only", "classification"),
        ("table05_segmentation", "segmentation"),
        ("table16b_rrg_synthetic_only_gains", "reports"),
        ("table08c_pareto", "ranks"),
        ("table10b_rank_correlations", "ranks"),
        ("table13_lora_rank", "settings"),
    ],
)
def test_a_table_stands_on_the_page_of_its_question(stem, page):
    assert LAYOUTS[stem].page == page


def test_tables_of_a_page_stand_in_the_papers_order():
    numbers = [replace(COSTS, page="fidelity", number=n) for n in ("9", "2b", "10", "2", "1c")]
    assert [x.number for x in by_page(numbers)["fidelity"]] == ["1c", "2", "2b", "9", "10"]


def test_every_table_has_a_page_that_exists(bench):
    keys = {page.key for page in PAGES} | {OVERVIEW}
    placed = by_page(table.layout for table in tables_of(bench).values())
    assert set(placed) <= keys
    assert OVERVIEW not in placed  # whatever there is has a place of its own


# Ranks and cards


def places(table, metric):
    j = next(j for j, c in enumerate(table.layout.columns) if c.metric == metric)
    return {row.key: rank_of(table, row, j) for row in table.rows}


def test_ranks_follow_the_direction_and_equal_values_share_the_better_place():
    fid = table_of({"a": 3.0, "b": 1.0, "c": 1.0001, "d": 2.0})
    assert places(fid, "fid") == {"a": (4, 4), "b": (1, 4), "c": (1, 4), "d": (3, 4)}
    coverage = table_of({"a": 0.3, "b": 0.1, "c": 0.2}, "coverage", "higher")
    assert places(coverage, "coverage") == {"a": (1, 3), "b": (3, 3), "c": (2, 3)}


def test_controls_have_no_rank_and_take_none():
    table = table_of({"a": 3.0, "b": 2.0, "copies": 0.0}, copies="control")
    assert places(table, "fid") == {"a": (2, 2), "b": (1, 2), "copies": (None, 0)}


def test_what_has_no_value_has_no_rank_and_what_is_no_better_or_worse_neither():
    table = table_of({"a": 3.0, "b": 2.0})
    assert places(table, "kid") == {"a": (None, 0), "b": (None, 0)}
    rows = tuple(
        replace(row, cells=tuple(replace(c, column=table.layout.columns[0]) for c in row.cells))
        for row in table.rows
    )
    columns = tuple(replace(column, direction="none") for column in table.layout.columns)
    neutral = replace(table, layout=replace(table.layout, columns=columns), rows=rows)
    assert places(neutral, "fid") == {"a": (None, 0), "b": (None, 0)}


@pytest.fixture
def cards(bench):
    bench.models[1]["settings"] = {
        "base": json.dumps({"family": "sana", "parts": ["a", "b"], "variant": None}),
        "caption_source": "llava_rad",
        "lora_rank": "16",
    }
    models, tables = parse_models(json.dumps(bench.models)), tables_of(bench)
    shown = gallery(parse_images(bench.images), models, bench.prompts, bench.manifest)
    found = model_cards(tables, at_a_glance(tables, models), models, shown, None)
    return {card.model.key: card for card in found}


def test_a_card_gathers_every_value_of_its_model_and_no_other(bench, cards):
    for key, card in cards.items():
        expected = sorted(
            (table.layout.stem, cell.column.metric, cell.column.subset, cell.value)
            for table in tables_of(bench).values()
            for row in table.rows
            if row.key == key
            for cell in row.cells
            if cell.value is not None
        )
        found = sorted(
            (t.table.layout.stem, n.cell.column.metric, n.cell.column.subset, n.cell.value)
            for page in card.by_page.values()
            for t in page
            for n in t.measured
        )
        assert found == expected
        assert len(found) > 30


def test_a_card_says_what_was_not_measured_and_why(cards):
    reasons = {lack.reason: lack.places for lack in cards["mine"].missing}
    privacy = reasons["no images of the prompt set `privacy` were given"]
    assert "Table 3" in privacy
    few = reasons["1 generated image: at least 2 are needed"]
    assert few == ("Table 2 (Pleural Other)",)


def test_a_card_has_the_models_own_images_beside_the_real_ones(cards):
    assert len(cards["sana"].samples) == 6
    assert {sample.image.label for sample in cards["sana"].samples} == {"Sana"}
    assert {sample.real.label for sample in cards["sana"].samples} == {"Real"}
    assert all(s.real.uri != s.image.uri for s in cards["sana"].samples)


def test_settings_stand_in_words(cards):
    assert cards["sana"].settings == (
        ("Base checkpoint", (("Family", "sana"), ("Parts", "a, b"), ("Variant", "none"))),
        ("Captions", "LLaVA-Rad"),
        ("Lora rank", "16"),
    )


def test_the_overview_has_one_number_of_each_question_and_says_why_not(bench):
    table = at_a_glance(tables_of(bench), parse_models(json.dumps(bench.models)))
    rows = {row.key: [cell.text for cell in row.cells] for row in table.rows}
    assert rows["real"] == ["–", "–", "0.75", "–", "0.25", "–"]
    assert rows["sana"] == ["54.225", "0.551", "0.76", "–", "0.31", "–"]
    assert rows["mine"] == ["80.000", "–", "0.70", "–", "0.20", "–"]
    assert list(rows) == ["real", "sd_v1_4", "sana", "mine", "noise"]
    assert "no images of the prompt set `privacy` were given" in table.notes


# Snakemake's own report


def test_every_category_has_a_caption():
    names = {layout.section for layout in LAYOUTS.values()}
    assert len(names) > 6
    for name in names:
        path = ROOT / "rules/captions" / f"{name.lower().replace(' ', '_')}.rst"
        assert len(path.read_text(encoding="utf-8").split()) > 8


def test_nothing_with_radiographs_is_put_into_snakemakes_report():
    text = (ROOT / "rules/tables.smk").read_text(encoding="utf-8")
    flagged = re.findall(r'report\(\s*f?"([^"]+)"', text)
    assert "results/tables/report_public.html" in flagged
    assert "results/tables/report.html" not in flagged
    assert not any("riskiest" in path for path in flagged)
