"""The specs: what a column says if its spec does not, and what is refused."""

from dataclasses import replace

import pytest

from tests.tables.stems import STEMS
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.tables.layout import LAYOUTS, Column, layout_of, read_specs
from workflow_scripts.tables.metrics import METRICS, by_key, measures_modules
from workflow_scripts.tables.report_pages import OVERVIEW, PAGES

SPEC = {
    "number": "30",
    "title": "A table",
    "stage": "fidelity",
    "family": "rad_dino",
    "columns": ["coverage"],
    "explanation": "Words.",
}


def columns_of(*entries):
    spec = SPEC | {"columns": list(entries), "counts": ["Models", "Reference"]}
    return layout_of("table30", spec, {}).columns


def test_there_is_a_spec_for_each_table():
    assert tuple(LAYOUTS) == STEMS


def test_a_column_says_what_its_stage_declares_and_what_its_spec_says_otherwise():
    assert columns_of("coverage") == (Column("Coverage ↑", "coverage", "higher", 3),)
    said = {"metric": "fid", "header": "FID (Inception)", "family": "inception_v3", "decimals": 1}
    expected = Column("FID (Inception)", "fid", "lower", 1, family="inception_v3")
    assert columns_of(said) == (expected,)
    assert columns_of({"rank_of": "kid", "header": "KID"}) == (
        Column("KID", "kid_rank", "none", 0, rank_of="kid"),
    )


def test_a_metric_of_each_finding_is_fourteen_columns():
    headers = [name[:2] for name in FINDINGS]
    columns = columns_of({"metric": "auroc", "decimals": 2, "per_finding": headers}, "auroc")
    assert [column.subset for column in columns] == [*FINDINGS, "all"]
    assert [column.header for column in columns] == [*headers, "AUROC ↑"]
    assert [column.decimals for column in columns] == [2] * 14 + [3]


def test_counts_are_those_of_the_first_metric_unless_the_spec_says_otherwise():
    assert layout_of("x", SPEC, {}).n_labels == ("Generated images", "Real images")
    counted = layout_of("x", SPEC | {"counts": ["Pairs", "Patients"]}, {})
    assert counted.n_labels == ("Pairs", "Patients")


def test_phrases_stand_among_the_words():
    spec = SPEC | {"explanation": ["First.", {"phrase": "note"}]}
    assert layout_of("x", spec, {"note": "Then."}).explanation == "First. Then."


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"columns": ["fidd"]}, "no stage declares 'fidd'"),
        ({"columns": [{"metric": "fidd", "header": "FID"}]}, "`counts` must say"),
        ({"colour": "red"}, "unknown field.*colour"),
        ({"columns": [{"metric": "fid", "digits": 3}]}, "digits"),
        ({"columns": [{"metric": "fid", "per_finding": ["a", "b"]}]}, "zip"),
        ({"explanation": [{"phrase": "none"}]}, "none"),
    ],
)
def test_a_spec_that_is_none_is_named(tmp_path, change, fault):
    import yaml

    (tmp_path / "table30_mine.yaml").write_text(yaml.safe_dump(SPEC | change))
    with pytest.raises(ValueError, match=f"(?s)table30_mine.yaml.*{fault}"):
        read_specs(tmp_path, {})


def test_every_page_that_a_spec_names_exists():
    assert {layout.page for layout in LAYOUTS.values()} <= {OVERVIEW, *(p.key for p in PAGES)}


def test_what_stages_declare_is_found_and_nothing_is_declared_twice():
    assert {"downstream.segmentation.measures", "privacy.measures"} <= set(measures_modules())
    assert METRICS["reid_max"].label == "Max. Re-ID Score"
    metric = METRICS["kid"]
    assert by_key([metric, metric]) == {"kid": metric}
    with pytest.raises(ValueError, match="kid is declared twice"):
        by_key([metric, replace(metric, decimals=9)])
