"""What costly jobs read of a cohort: told by tables and settings that decide it, and no others."""

import copy
import csv

import pytest

from workflow_scripts.cohort.reads import ASPECTS, cohort_reads
from workflow_scripts.common.contents import Contents

TRAINING = ("images", "captions")


class Source:
    """A config's block `cohort`, and what is told of it."""

    def __init__(self, cohort, source, known):
        self.cohort, self.source, self.known = cohort, source, known

    def told(self, *aspects):
        return cohort_reads(self.cohort, self.source, aspects, Contents(self.known))

    def all(self):
        return {aspect: self.told(aspect) for aspect in ASPECTS}

    def changed(self, change):
        """The aspects that a change is told of."""
        before = self.all()
        change()
        return {aspect for aspect, told in self.all().items() if told != before[aspect]}


@pytest.fixture
def of_mimic(mimic, tmp_path):
    mimic.write(images=False)
    paths = {"root": str(mimic.root), "annotations": str(mimic.captions)}
    cohort = {
        "dataset": "MIMIC-CXR",
        "source": "mimic_cxr_jpg",
        "views": {"AP": "AP", "PA": "PA"},
        "mimic_cxr_jpg": paths,
    }
    return mimic, Source(cohort, "llava_rad", tmp_path / "known.json")


def test_each_table_of_mimic_counts_for_what_is_read_of_it(of_mimic):
    mimic, source = of_mimic

    def relabel():
        mimic.chexpert[0]["Edema"] = "0.0"
        mimic.write(images=False)

    def recaption():
        mimic.annotations["test"][0]["conversations"][1]["value"] = "Another caption."
        mimic.write(images=False)

    def move_to_another_split():
        mimic.split[0]["split"] = "validate"
        mimic.write(images=False)

    assert source.changed(relabel) == {"findings"}
    assert source.changed(recaption) == {"captions"}
    assert source.changed(move_to_another_split) == {"images"}
    assert source.changed(lambda: mimic.write(images=False)) == set()


def test_names_count_nothing_and_which_views_are_taken_does(of_mimic):
    _, source = of_mimic
    assert source.changed(lambda: source.cohort.update(dataset="another")) == set()
    assert source.changed(lambda: source.cohort["views"].update(AP="frontal")) == set()
    assert source.changed(lambda: source.cohort["views"].pop("PA")) == set(ASPECTS)
    before = source.told("captions")
    source.source = "impression"
    assert source.told("captions") != before


def test_tables_that_are_gone_say_what_they_said_and_never_seen_ones_are_missing(of_mimic, tmp_path):
    mimic, source = of_mimic
    before = source.told(*TRAINING)
    next(mimic.root.glob("*split*")).unlink()
    assert source.told(*TRAINING) == before
    source.known = tmp_path / "others.json"
    assert source.told(*TRAINING) == ["missing"]


ROWS = [
    {"image": "a.png", "patient": "1", "kind": "PA", "text": "clear", "labels": "Edema", "from": "A"},
    {"image": "b.png", "patient": "2", "kind": "PA", "text": "large", "labels": "", "from": "B"},
]
COLUMNS = {
    "path": "image",
    "patient_id": "patient",
    "view": "kind",
    "caption": "text",
    "site": "from",
}


@pytest.fixture
def of_folder(tmp_path):
    path = tmp_path / "metadata.csv"

    def write(rows):
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    settings = {
        "root": str(tmp_path),
        "metadata": str(path),
        "columns": dict(COLUMNS),
        "findings": {"column": "labels", "values": {"Edema": "Edema"}},
        "test_share": 0.5,
    }
    cohort = {"source": "image_folder", "views": {"PA": "PA"}, "image_folder": settings}
    write(ROWS)
    return write, settings, Source(cohort, "text", tmp_path / "known.json")


@pytest.mark.parametrize(
    ("column", "aspect"),
    [("image", "images"), ("patient", "images"), ("kind", "images"), ("text", "captions")]
    + [("labels", "findings"), ("from", "sites")],
)
def test_each_column_of_a_folder_counts_for_what_is_read_of_it(of_folder, column, aspect):
    write, _, source = of_folder
    rows = copy.deepcopy(ROWS)
    rows[1][column] = "other"
    assert source.changed(lambda: write(rows)) == {aspect}


def test_of_a_folder_s_table_names_and_other_columns_count_nothing(of_folder):
    write, settings, source = of_folder
    assert source.changed(lambda: write([{**row, "note": "x"} for row in ROWS])) == set()
    renamed = [{"file" if k == "image" else k: v for k, v in row.items()} for row in ROWS]

    def rename():
        write(renamed)
        settings["columns"]["path"] = "file"

    assert source.changed(rename) == set()
    assert source.changed(lambda: settings.update(test_share=0.2)) == {"images"}
    assert source.changed(lambda: settings["findings"].update(absent=0)) == {"findings"}
    assert source.changed(lambda: settings.update(exclude_nonempty="labels")) == {"images"}
