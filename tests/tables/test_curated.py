"""Curated sets in tables: the filter, the decision, and the worth with and without the filter."""

import json

import pytest

from tests.curate.test_terms_of_page import decided
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import Record, Value, write_record
from workflow_scripts.curate import worth
from workflow_scripts.curate.filter_record import filter_record
from workflow_scripts.curate.worth_record import absent
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.derive.curated import (
    NONE_MADE,
    NOT_ASKED,
    NOT_ASKED_MASKS,
    OF_REAL,
    OF_UNFILTERED,
)
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

SANA, NOISE = ModelEntry("sana", "sana", "Sana", {}), ModelEntry("noise", "control", "Noise", {})
ARMS = {  # AUROC, its gain over real images, and p
    "curated_alone": (0.71, -0.09, 0.001),
    "unfiltered_alone": (0.65, -0.15, 0.0005),
    "curated_added": (0.82, 0.02, 0.4),
    "unfiltered_added": (0.81, 0.01, 0.6),
}
FILTER = {"filter_alone": (0.06, 0.002), "filter_added": (0.01, 0.7)}


def filtered(**changed):
    decision = decided(**changed)
    return filter_record(decision, "sound", refused=17, tried=50, settings={})


def worth_record(ps=True, reason=None):
    values = []
    for metric, less in (("auroc", 0.0), ("f1", 0.3), ("accuracy", 0.1)):
        near = {"interval_kind": "bootstrap"}
        values.append(
            Value(f"real_{metric}", 0.8 - less, "higher", 90, interval=(0.4, 0.9), **near)
        )
        if reason:
            continue
        for arm, (value, gain, p) in ARMS.items():
            at = {"interval": (value - less - 0.02, value - less + 0.02), **near}
            values.append(Value(f"{arm}_{metric}", value - less, "higher", 90, **at))
            at = {"interval": (gain - 0.02, gain + 0.02), **near}
            own = p if ps and metric == "auroc" else None
            values.append(Value(f"{arm}_{metric}_gain", gain, "higher", 90, p=own, **at))
        for arm, (value, p) in FILTER.items():
            own = p if ps and metric == "auroc" else None
            values.append(Value(f"{arm}_{metric}", value, "higher", 90, p=own))
    values += absent([*worth.WAYS], worth.METRICS, reason, 90) if reason else []
    sizes = {name: {"images": 50} for name in ("curated", "unfiltered")}
    details = {"sets": None if reason else sizes, "reason": reason, "dataset_sha256": "0"}
    return Record("curate", "sana", "worth", "sound", values, details)


def run_of(*records):
    found = Records("sound")
    for record in records:
        found.add(record)
    return Run(found, [SANA, NOISE], "World")


def segmented_record(reason=None):
    near = {"interval": (0.1, 0.9), "interval_kind": "bootstrap"}
    values = [Value(f"real_{m}", 0.6, "higher", 40, **near) for m in ("dice", "dice_pooled")]
    for metric in () if reason else ("dice", "dice_pooled"):
        for name, gain in (("curated", 0.15), ("unfiltered", 0.05)):
            values.append(Value(f"{name}_added_{metric}", 0.6 + gain, "higher", 40, **near))
            key = f"{name}_added_{metric}_gain"
            values.append(Value(key, gain, "higher", 40, p=0.001, **near))
        values.append(Value(f"filter_added_{metric}", 0.1, "higher", 40, p=0.5))
    values += absent(["added"], ("dice", "dice_pooled"), reason, 40) if reason else []
    masked = {} if reason else {"masked": {"curated": 20, "unfiltered": 19}}
    details = {"sets": {}, "reason": reason, "dataset_sha256": "0", **masked}
    return Record("curate", "sana", "worth_segmentation", "sound", values, details)


def cells(row):
    return {cell.column.metric: cell for cell in row.cells}


def texts(table):
    return {row.attributes[0]: {c.column.metric: c.text for c in row.cells} for row in table.rows}


def test_a_set_stands_with_its_size_its_filter_and_the_decision():
    caught = {"rotation": (170, 200), "crop": (195, 200)}
    (row,) = one_table("table25_curated", run_of(filtered(leaks=4, caught=caught))).rows
    assert (row.label, row.kind) == ("Sana", "model")
    assert row.attributes == ("do not release",)  # fewer of the turned ones are found than may be
    shown = cells(row)
    assert {name: shown[name].value for name in list(shown)[:5]} == {
        "pool_images": 100, "pool_flagged": 0.04, "pool_refused": 17, "set_images": 50,
        "leaks_caught_least": 0.85,
    }  # fmt: skip
    least = shown["leaks_caught_least"]
    # One-sided bound of Clopper and Pearson for 170 of 200 at 97.5%, from a table of the beta.
    assert least.interval == (pytest.approx(0.7928, abs=1e-4), 1.0)
    assert least.n == 200
    left = shown["leaks_left"].value
    assert left == decided(leaks=4, caught=caught)["remaining_leaks_upper"] > 0
    assert shown["leaks_left_share"].value == left / 50
    assert (shown["unseen_flagged"].value, shown["unseen_flagged"].n) == (0.0, 50)


def test_the_record_has_each_planted_kind_and_why_one_was_not_tried():
    record = filtered(caught={"flip": (198, 200)}, without="overfitted")
    assert record.get("leaks_caught_flip").value == 0.99
    assert record.get("leaks_caught_copy").interval[1] == 1
    untried = record.get("leaks_caught_overfitted")
    assert untried.value is None
    assert "no images of such a model" in untried.reason
    assert record.get("leaks_caught_least").value == 0.99


def test_the_decision_is_in_words():
    (row,) = one_table("table25_curated", run_of(filtered())).rows
    assert row.attributes == ("release",)
    (row,) = one_table("table25_curated", run_of(filtered(access="credentialed"))).rows
    assert row.attributes == ("credentialed access only",)


def test_the_worth_stands_with_and_without_the_filter_beside_real_images():
    table = one_table("table25b_curated_worth", run_of(filtered(), worth_record()))
    assert [row.label for row in table.rows] == ["Sana"] * 5
    found = {words: {k: row[k] for k in ("set_images", "auroc", "auroc_gain", "auroc_filter", "f1")}
             for words, row in texts(table).items()}  # fmt: skip
    names = ("set_images", "auroc", "auroc_gain", "auroc_filter", "f1")
    assert found == {
        words: dict(zip(names, values, strict=True))
        for words, values in {
            "real images alone": ("–", "0.800", "–", "–", "0.500"),
            "as many images, no filter": ("50", "0.650", "-0.150", "–", "0.350"),
            "the set": ("50", "0.710", "-0.090", "0.060", "0.410"),
            "real images and as many, no filter": ("50", "0.810", "0.010", "–", "0.510"),
            "real images and the set": ("50", "0.820", "0.020", "0.010", "0.520"),
        }.items()
    }
    assert cells(table.rows[2])["auroc"].interval == pytest.approx((0.69, 0.73))
    assert list(table.notes) == [OF_REAL, OF_UNFILTERED]


def test_differences_are_marked_only_beyond_their_noise_and_over_several_runs():
    def marked(table):
        return {(row.attributes[0], cell.column.metric) for row in table.rows
                for cell in row.cells if cell.beyond_noise}  # fmt: skip

    table = one_table("table25b_curated_worth", run_of(worth_record()))
    alone = ("as many images, no filter", "the set")
    assert marked(table) == {
        *((words, "auroc_gain") for words in alone),
        (alone[1], "auroc_filter"),
    }
    assert "Holm" in table.caption
    table = one_table("table25b_curated_worth", run_of(worth_record(ps=False)))
    assert not marked(table)
    assert "An arm was trained only once" in table.caption


def test_where_nothing_could_be_trained_the_reason_stands():
    reason = "no image of the pool passed the filter"
    table = one_table("table25b_curated_worth", run_of(worth_record(reason=reason)))
    first, *others = table.rows
    assert cells(first)["auroc"].value == 0.8
    for row in others:
        assert {c.value for c in row.cells} == {None}
        assert cells(row)["auroc"].reason == cells(row)["set_images"].reason == reason


def test_segmentation_stands_beside_real_images_without_sets_alone():
    table = one_table("table25c_curated_segmentation", run_of(filtered(), segmented_record()))
    names = ("set_images", "dice", "dice_gain", "dice_filter", "dice_pooled")
    assert {words: tuple(row[name] for name in names) for words, row in texts(table).items()} == {
        "real images alone": ("–", "0.600", "–", "–", "0.600"),
        "real images and as many, no filter": ("19", "0.650", "0.050", "–", "0.650"),
        "real images and the set": ("20", "0.750", "0.150", "0.100", "0.750"),
    }
    last = cells(table.rows[-1])
    assert last["dice_gain"].beyond_noise
    assert not last["dice_filter"].beyond_noise


def test_where_no_u_net_could_be_trained_the_reason_stands():
    reason = "no image of the pool passed the filter"
    table = one_table("table25c_curated_segmentation", run_of(segmented_record(reason)))
    for row in table.rows[1:]:
        assert {c.value for c in row.cells} == {None}
        assert cells(row)["dice"].reason == cells(row)["set_images"].reason == reason


@pytest.mark.parametrize(
    ("stem", "records", "reason"),
    [
        ("table25_curated", [], NONE_MADE),
        ("table25b_curated_worth", [], NONE_MADE),
        ("table25b_curated_worth", [filtered()], NOT_ASKED),
        ("table25c_curated_segmentation", [], NONE_MADE),
        ("table25c_curated_segmentation", [filtered(), worth_record()], NOT_ASKED_MASKS),
    ],
)
def test_without_a_set_one_row_says_why(stem, records, reason):
    table = one_table(stem, run_of(*records))
    (row,) = table.rows
    assert (row.label, row.attributes) == ("–", ("–",))
    assert table.notes == (reason,)


def test_tables_are_built_of_the_records_that_stages_write(bench):
    for record in (filtered(), worth_record()):
        path = bench.root / f"curate/sana/{record.family}.json"
        write_record(record, path)
        bench.files.setdefault("curate", []).append(str(path))
    results = json.loads((bench.root / bench.built(bench)[1]).read_text())
    assert "table25_curated" in json.dumps(results)
    csv = (bench.root / "out/table25b_curated_worth.csv").read_text()
    assert "Sana,real images and the set" in csv
    assert "release" in (bench.root / "out/table25_curated.csv").read_text()
    bench.models = [model for model in bench.models if model["key"] != "sana"]
    with pytest.raises(InputError, match="not among the tables' models"):
        bench.built(bench)
