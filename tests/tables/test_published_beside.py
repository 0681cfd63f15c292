"""The paper's numbers beside the tables that are no plain join: 9, 10 and 12."""

import json

import pytest

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.published import published_values
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

MODELS = parse_models(
    json.dumps(
        [
            {"key": key, "family": "external", "display": {"name": key}, "finetuning": "-"}
            for key in ("sd_v1_4", "llm_cxr", "mine")
        ]
    )
)
COHORT = {"train": SplitCounts("train", 200_000, 1, 1, dict.fromkeys(FINDINGS, 80_000))}


def tables(dataset, protocol):
    run = Run(Records(protocol), MODELS, dataset, COHORT)
    stems = {stem: stem for stem in ("table09_prevalence", "table10_task_ranks")}
    stems |= {"table09b": "table09b_prevalence_correlation"}
    stems |= {"table12": "table12_downstream_hyperparameters"}
    return {name: one_table(stem, run) for name, stem in stems.items()}


def cells(table):
    return {(row.key, cell.column.metric): cell for row in table.rows for cell in row.cells}


def test_the_papers_numbers_stand_where_they_belong():
    found = tables("MIMIC-CXR", "as_published")
    prevalence = cells(found["table09_prevalence"])
    assert prevalence["No Finding", "count"].published.text == "78,939"
    assert prevalence["Fracture", "fid"].published.value == 211.58
    assert prevalence["Pneumothorax", "prevalence_rank"].published.value == 10
    assert prevalence["Pneumothorax", "kid"].published is None
    ranks = cells(found["table10_task_ranks"])
    assert ranks["sd_v1_4", "fid_rank"].published.value == 8
    assert ranks["llm_cxr", "segmentation_rank"].published.value == 1
    assert ranks["mine", "fid_rank"].published is None
    settings = cells(found["table12"])
    assert settings["segmentation", "learning_rate"].published.text == "5e-5"


def test_every_finding_is_named():
    assert {finding for finding, *_ in published_values("table09_prevalence")} == set(FINDINGS)


@pytest.mark.parametrize(("protocol", "difference"), [("as_published", 1061), ("sound", None)])
def test_a_difference_is_of_one_protocol(protocol, difference):
    cell = cells(tables("MIMIC-CXR", protocol)["table09_prevalence"])["No Finding", "count"]
    assert cell.published.value == 78_939
    assert cell.difference == difference


def test_nothing_of_the_paper_stands_beside_another_world():
    assert not any(table.has_published for table in tables("Embedded world", "sound").values())
