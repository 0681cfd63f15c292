"""What the unlabelled manifest is made of: told by what decides it, and by nothing else."""

import copy
import csv

import pandas as pd
import pytest

from tests.cohort.conftest import ANNOTATIONS
from workflow_scripts.cohort.build_manifest import main as build
from workflow_scripts.cohort.reads import cohort_reads
from workflow_scripts.common.contents import Contents
from workflow_scripts.common.manifest import FINDINGS, read_manifest


class Source:
    """A config's block `cohort`, and what is told of it."""

    def __init__(self, cohort, source, known):
        self.cohort, self.source, self.known = cohort, source, known

    def told(self):
        return cohort_reads(self.cohort, self.source, Contents(self.known))

    def changed(self, change):
        """The first words of what is told otherwise after a change."""
        before = self.told()
        change()
        return {line.split()[0] for line in set(self.told()) - set(before)}


@pytest.fixture
def of_mimic(mimic, tmp_path):
    mimic.write(gz=False, images=False)
    paths = {"root": str(mimic.root), "annotations": str(mimic.captions)}
    cohort = {"source": "mimic_cxr_jpg", "mimic_cxr_jpg": paths}
    return mimic, Source(cohort, "llava_rad", tmp_path / "known.json")


def test_tables_of_images_and_captions_count_and_those_of_labels_do_not(of_mimic):
    mimic, source = of_mimic

    def relabel():
        mimic.chexpert[0]["Edema"] = "0.0"
        mimic.write(gz=False, images=False)

    def recaption():
        mimic.annotations["test"][0]["conversations"][1]["value"] = "Another caption."
        mimic.write(gz=False, images=False)

    def move_to_another_split():
        mimic.split[0]["split"] = "validate"
        mimic.write(gz=False, images=False)

    assert source.changed(relabel) == set()
    assert source.changed(recaption) == {ANNOTATIONS.format("test")}
    assert source.changed(move_to_another_split) == {"mimic-cxr-2.0.0-split.csv"}
    assert source.changed(lambda: mimic.write(gz=False, images=False)) == set()


def test_gone_tables_say_what_they_said_and_never_seen_ones_are_missing(of_mimic, tmp_path):
    mimic, source = of_mimic
    before = source.told()
    next(mimic.root.glob("*split*")).unlink()
    assert source.told() == before
    source.known = tmp_path / "others.json"
    assert source.told() == ["missing"]


def test_without_labels_the_manifest_is_the_same_but_for_them(mimic):
    mimic.write()
    whole, bare = mimic.folder / "whole.parquet", mimic.folder / "bare.parquet"
    build(mimic.arguments(manifest=str(whole)))
    next(mimic.root.glob("*chexpert*")).unlink()
    build([*mimic.arguments(manifest=str(bare)), "--unlabelled"])
    expected, found = read_manifest(whole), read_manifest(bare)
    findings = list(FINDINGS)
    assert expected[findings].notna().any(axis=None)
    assert found[findings].isna().all(axis=None)
    pd.testing.assert_frame_equal(found.drop(columns=findings), expected.drop(columns=findings))


NAMES = ("image", "patient", "kind", "text", "labels", "from")
ROWS = [
    dict(zip(NAMES, ("a.png", "1", "PA", "clear", "Edema", "A"), strict=True)),
    dict(zip(NAMES, ("b.png", "2", "PA", "large", "", "B"), strict=True)),
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
    }
    write(ROWS)
    cohort = {"source": "image_folder", "image_folder": settings}
    return write, settings, Source(cohort, "text", tmp_path / "known.json")


@pytest.mark.parametrize(
    ("column", "field"),
    zip(NAMES, ("path", "patient_id", "view", "caption", None, "site"), strict=True),
)
def test_each_column_of_a_folder_counts_if_it_is_no_label(of_folder, column, field):
    write, _, source = of_folder
    rows = copy.deepcopy(ROWS)
    rows[1][column] = "other"
    assert source.changed(lambda: write(rows)) == ({field} - {None})


def test_of_a_folder_s_table_names_and_other_columns_count_nothing(of_folder):
    write, settings, source = of_folder
    assert source.changed(lambda: write([{**row, "note": "x"} for row in ROWS])) == set()

    def rename():
        write([{"file" if k == "image" else k: v for k, v in row.items()} for row in ROWS])
        settings["columns"]["path"] = "file"

    assert source.changed(rename) == set()
    assert source.changed(lambda: settings.update(exclude_nonempty="labels")) == {"labels"}
