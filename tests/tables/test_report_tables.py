"""Tables 6 and 16 and ours beside them: metrics are rows, models columns, gains with intervals."""

import csv
from pathlib import Path

import pytest

from workflow_scripts.tables.build import main


def rows_of(bench, stem: str) -> dict[str, dict[str, str]]:
    """The table's rows by their metric."""
    out = Path(bench.root) / "out"
    if not out.exists():
        main([*bench.argv(bench), "--out", str(out)])
    with (out / f"{stem}.csv").open(encoding="utf-8") as file:
        return {row["Model"]: row for row in csv.DictReader(file)}


def test_the_papers_metrics_are_rows_and_original_stands_first(bench):
    rows = rows_of(bench, "table06_rrg_augmented")
    assert list(rows) == [
        "BLEU-1 ↑",
        "BLEU-4 ↑",
        "ROUGE-L ↑",
        "F1-RadGraph ↑",
        "Micro F1-5 ↑",
        "Micro F1-14 ↑",
        "GREENScore ↑",
        "RaTEScore ↑",
    ]
    columns = list(rows["ROUGE-L ↑"])
    assert columns[:4] == ["Model", "Original (Real Data Only)", "SD V1-4", "Sana"]
    assert float(rows["BLEU-1 ↑"]["Sana"]) == pytest.approx(31)
    assert float(rows["ROUGE-L ↑"]["Original (Real Data Only)"]) == pytest.approx(0.25)
    assert "Original" in rows_of(bench, "table16_rrg_synthetic_only")["BLEU-1 ↑"]


def test_published_values_stand_beside(published_bench):
    table6 = rows_of(published_bench, "table06_rrg_augmented")
    assert table6["BLEU-4 ↑"]["Sana [published]"] == "11.28"
    assert table6["BLEU-4 ↑"]["Original (Real Data Only) [published]"] == "10.29"
    table16 = rows_of(published_bench, "table16_rrg_synthetic_only")
    assert table16["RaTEScore ↑"]["Original [published]"] == "0.58"
    assert table16["Micro F1-5 ↑"]["SD V1-4 [published]"] == "0.56"


def test_gains_have_intervals_and_the_baseline_says_why_it_has_none(bench):
    for stem, real in (
        ("table06b_rrg_augmented_gains", "Original (Real Data Only)"),
        ("table16b_rrg_synthetic_only_gains", "Original"),
    ):
        row = rows_of(bench, stem)["ROUGE-L ↑, gain"]
        assert float(row["Sana"]) == pytest.approx(0.06)
        assert float(row["Sana [low]"]) < 0.06 < float(row["Sana [high]"])
        assert row[real] == "–"
        assert "measured against" in row["Notes"]


def test_both_conventions_and_the_share_of_distinct_reports_have_rows(bench):
    rows = rows_of(bench, "table06b_rrg_augmented_gains")
    for name in ("Micro F1-5 ↑, uncertain as present", "Micro F1-14 ↑, uncertain as present"):
        assert name in rows
        assert f"{name}, gain" in rows
    assert rows["Distinct reports (share)"]["Sana"] == "0.5"
