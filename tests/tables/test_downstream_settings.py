"""Table 12 says what the records hold, and writes rates as people do."""

import pytest

from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.assemble import Cell
from workflow_scripts.tables.layout import Column
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.render.as_markdown import to_markdown
from workflow_scripts.tables.run import Run


def record(task, **settings):
    runs = [{"seed": seed, "settings": settings} for seed in (1, 2)]
    values = [Value("auroc", 0.7, "higher", 9)]
    return Record("downstream", "real", f"{task}/real_only", "sound", values, {"runs": runs})


def test_settings_are_those_of_the_records_and_what_did_not_run_says_so():
    records = Records("sound")
    records.add(record("classification", learning_rate=1e-4, batch_size=768, epochs=20))
    records.add(record("segmentation", learning_rate=5e-5, batch_size=16, steps=10000))
    table = one_table("table12_downstream_hyperparameters", Run(records, [], "World"))
    lines = to_markdown(table).splitlines()
    assert "| ResNet-50 (Classification) | FFT | 1e-4 | 768 | 20 | 2 |" in lines
    assert "| U-Net (Segmentation) | FFT | 5e-5 | 16 | 10,000 | 2 |" in lines
    assert "| LLaVA-Rad (RRG) | LoRA | –<sup>1</sup> | –<sup>1</sup> | –<sup>1</sup> |" in "".join(
        lines
    )
    assert table.notes == ("not run",)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (1e-4, "1e-4"),
        (2.5e-3, "2.5e-3"),
        (0.05, "0.05"),
        (1.0, "1"),
        (50000.0, "50,000"),
    ],
)
def test_numbers_without_decimals_are_as_short_as_they_are(number, text):
    assert Cell(Column("x", "x", "none", None), number).text == text
