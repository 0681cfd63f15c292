"""`published.csv` against the paper's tables as printed, and numbers of each by hand."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from tests.tables.stems import STEMS
from workflow_scripts.preflight.check import read_config
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.published import published_values

ROOT = Path(__file__).resolve().parents[2]
PRINTED = ROOT / "workflow_scripts/paper_audit/published"
"""The paper's tables as they are printed, misprints included."""

NO_NUMBERS = {
    # What a printed table says of a model before its numbers, and headings inside of it.
    "table01_fidelity": 4,
    "table11_t2i_hyperparameters": 1,
    "table17a_caption_fidelity": 1,
    "table17b_caption_privacy": 1,
}


def is_number(text):
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("path", sorted(PRINTED.glob("*.csv")), ids=lambda path: path.stem)
def test_every_printed_number_is_there_with_its_digits(path):
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    first = 1 + NO_NUMBERS.get(path.stem, 0)
    printed = Counter(text for row in rows for text in row[first:] if is_number(text))
    if path.stem == "table12_downstream_hyperparameters":  # the rest is in one row of text
        printed = Counter(rows[2][1:])
    kept = Counter(number.text for number in published_values(path.stem).values())
    assert kept == printed


def test_each_number_has_a_column_of_its_table():
    for stem, layout in LAYOUTS.items():
        shown = {(column.metric, column.subset) for column in layout.columns}
        for _, metric, subset, _ in published_values(stem):
            assert (metric, subset) in shown, (stem, metric, subset)


def test_every_model_of_the_paper_has_every_number_of_a_table():
    known = set(read_config(["config.yaml"])["models"])
    fewer = {"table06_rrg_augmented": 5, "table17a_caption_fidelity": 6}
    fewer["table17b_caption_privacy"] = 6
    by_metric = [
        stem
        for stem in STEMS
        if published_values(stem)
        and stem[5:7] in ("01", "02", "03", "04", "05", "06", "07", "08", "10", "15", "16", "17")
    ]
    assert len(by_metric) == 13
    for stem in by_metric:
        values = published_values(stem)
        models = {model for model, *_ in values}
        assert len(models - {"real"}) == fewer.get(stem, 11), stem
        assert models - {"real"} <= known, stem
        assert ("real" in models) == bool(LAYOUTS[stem].real_rows), stem
        assert len(values) % len(models) == 0, stem


def test_published_values_are_those_of_the_paper():
    assert published_values("table01_fidelity")["sana", "fid", "all", ""].value == 54.225
    assert published_values("table01_fidelity")["llm_cxr", "coverage", "all", ""].value == 0.459
    table2 = published_values("table02_fid_per_pathology")
    assert table2["sana", "fid", "Pleural Other", ""].value == 199.45
    table3 = published_values("table03_privacy")
    assert table3["pixart_sigma", "reid_count", "all", ""].value == 442
    assert table3["flux_1_dev", "reid_mean_of_max", "all", ""].value == 0.404
    table4 = published_values("table04_classification_augmented")
    assert table4["real", "auroc", "all", ""].value == 0.73
    assert table4["sd_v3_5", "auroc", "Support Devices", ""].value == 0.84
    table5 = published_values("table05_segmentation")
    assert table5["real", "dice", "all", ""].value == 0.669
    assert table5["flux_1_dev", "dice", "all", ""].value == 0.562
    assert table5["sana", "n_images", "all", ""].value == 6000
    table6 = published_values("table06_rrg_augmented")
    assert table6["sana", "bleu_4", "all", ""].value == 11.28
    assert table6["real", "ratescore", "all", ""].value == 0.45
    assert table6["pixart_sigma", "chexbert_micro_f1_5", "all", ""].value == 0.51
    table16 = published_values("table16_rrg_synthetic_only")
    assert table16["real", "bleu_1", "all", ""].value == 38.16
    assert table16["flux_1_dev", "green", "all", ""].value == 0.27
    table7 = published_values("table07_encoders")
    assert table7["flux_1_dev", "kid", "all", "densenet_121"].value == 0.006
    assert table7["sana", "fid", "all", "rad_dino"].value == 54.22
    table15 = published_values("table15_classification_synthetic_only")
    assert table15["lumina_2", "auroc", "Atelectasis", ""].value == 0.46


def test_a_table_that_is_not_the_papers_has_none():
    assert published_values("table01b_fid_sample_size") == {}
