"""Parts of the manifest: the rows of each part, and that only those rows change its digests."""

import copy
import csv
import logging

import pandas as pd
import pytest

from tests.cohort.conftest import annotation
from workflow_scripts.cohort import parts
from workflow_scripts.cohort.build_manifest import main as build
from workflow_scripts.cohort.draw_prompts import draw_prompts
from workflow_scripts.cohort.parts import PARTS, part_digests
from workflow_scripts.common.contents import Contents
from workflow_scripts.common.manifest import FINDINGS, read_manifest
from workflow_scripts.finetune.data import read_training_rows

ALL_TRAINING = {"training", "labelled_training", "reports"}


class Digests:
    """The digests of a source's parts."""

    def __init__(self, words, tables, known):
        self.words, self.tables, self.known, self.version = words, tables, known, 1

    def __call__(self):
        return part_digests(self.words(), self.tables(), self.version, Contents(self.known))

    def changed(self, change):
        """Return the parts whose digests differ after a change."""
        before = self()
        change()
        return {part for part, digests in self().items() if digests != before[part]}


@pytest.fixture
def of_mimic(mimic, tmp_path):
    mimic.write(gz=False)

    def words():
        return ["mimic_cxr_jpg", "--root", str(mimic.root), "--annotations", str(mimic.captions),
                "--caption-source", "llava_rad", "--view", "AP=AP", "--view", "PA=PA"]  # fmt: skip

    def tables():
        return sorted([*mimic.root.glob("*.csv"), *mimic.captions.glob("*.json")])

    return mimic, Digests(words, tables, tmp_path / "known.json")


def test_a_part_is_told_by_its_own_rows(of_mimic):
    mimic, digests = of_mimic

    def changed_by(change):
        def write():
            change()
            mimic.write(gz=False, images=False)

        return digests.changed(write)

    def caption(part, number, text):
        return lambda: mimic.annotations[part][number]["conversations"][1].update(value=text)

    def label(row, **findings):
        return lambda: mimic.chexpert[row].update(findings)

    assert changed_by(lambda: None) == set()
    assert changed_by(caption("test", 1, "Another caption.")) == {"test"}
    assert changed_by(caption("test", 0, "The radiologist's words.")) == {"test", "reports"}
    assert changed_by(caption("dev", 0, "No device.")) == {"reports"}
    assert changed_by(caption("train", 0, "The radiologist's words.")) == {"reports"}
    assert changed_by(caption("train", 1, "A small heart.")) == ALL_TRAINING
    assert changed_by(label(0, Edema="0.0")) == ALL_TRAINING - {"training"}
    assert changed_by(label(5, Edema="1.0")) == set(), "a test label"
    # An annotation belongs to its image's split, whichever file holds it.
    moved = mimic.annotations["test"]
    assert changed_by(lambda: moved.append(mimic.annotations["train"].pop(1))) == set()
    new = annotation(mimic.image("d-b1"), "In the test file.")
    assert changed_by(lambda: moved.append(new)) == ALL_TRAINING
    assert changed_by(lambda: mimic.split[5].update(split="validate")) == ALL_TRAINING


def test_the_tables_are_read_once_for_a_content(of_mimic, monkeypatch):
    mimic, digests = of_mimic
    before = digests()
    mimic.write(gz=False, images=False)
    read = []
    monkeypatch.setattr(parts, "manifest_of", lambda words: read.append(words))
    assert digests() == before
    assert not read
    digests.version = 2
    with pytest.raises(TypeError):
        digests()
    assert len(read) == 1


def test_gone_or_refused_tables_say_what_they_said_and_never_seen_ones_are_missing(
    of_mimic, tmp_path, caplog
):
    mimic, digests = of_mimic
    before = digests()
    table = next(mimic.root.glob("*split*"))
    table.write_text("no,such,columns\n")
    assert digests() == before
    table.unlink()
    assert digests() == before
    digests.known = tmp_path / "others.json"
    with caplog.at_level(logging.INFO):
        assert digests() == {part: ["missing"] for part in PARTS}
    assert not caplog.records


def test_planning_says_nothing_that_the_job_will_say(of_mimic, caplog):
    mimic, digests = of_mimic
    mimic.annotations["dev"].append(mimic.annotations["test"].pop(1))  # in another split's file
    mimic.write(gz=False, images=False)
    with caplog.at_level(logging.INFO):
        digests()
        assert not caplog.records
        build(mimic.arguments())
    assert "stand in the file of another split" in caplog.text


def test_parts_hold_what_is_read_of_them(mimic):
    mimic.write()
    where = mimic.folder / "whole.parquet"
    build(mimic.arguments(manifest=str(where)))
    whole, part = read_manifest(where), {}
    for name in PARTS:
        path = mimic.folder / f"{name}.parquet"
        build([*mimic.arguments(manifest=str(path)), "--part", name])
        part[name] = read_manifest(path)
    trained = read_training_rows(where)
    assert len(trained) == 3
    for name in ("training", "labelled_training"):
        pd.testing.assert_frame_equal(read_training_rows(mimic.folder / f"{name}.parquet"), trained)
    findings = list(FINDINGS)
    assert part["training"][findings].isna().all(axis=None)
    assert part["test"][findings].isna().all(axis=None)
    assert part["test"]["report"].notna().any()
    assert part["training"]["report"].isna().all()

    drawn = {"captions": 2, "draw_seed": 1}
    for name, of_part, settings in (
        ("test", "test", {}),
        ("privacy", "training", drawn | {"seeds": [1, 2]}),
        ("augment", "training", drawn | {"draw": "unique"}),
        ("augment", "labelled_training", drawn | {"captions": 1, "draw": "official"}),
    ):
        expected = draw_prompts(whole, name, settings)
        prompts = draw_prompts(part[of_part], name, settings)
        ours = [column for column in expected if column not in findings]
        pd.testing.assert_frame_equal(prompts[ours], expected[ours])

    reports, split = part["reports"], whole["split"]
    for rows, columns in (
        (split == "train", ["caption", "indication", *findings]),
        (split == "validate", ["caption", "indication"]),
        (split == "test", ["report", "indication"]),
        (split.notna(), ["image_id", "patient_id", "path", "split"]),
    ):
        pd.testing.assert_frame_equal(reports.loc[rows, columns], whole.loc[rows, columns])


NAMES = ("image", "patient", "kind", "text", "labels", "from", "note")
ROWS = [
    dict(zip(NAMES, (f"{k}.png", str(k), "PA", f"text {k}", "Edema", "A", "x"), strict=True))
    for k in range(40)
]


@pytest.fixture
def of_folder(tmp_path):
    path = tmp_path / "metadata.csv"
    fields = {"path": "image", "patient_id": "patient", "view": "kind", "caption": "text"}
    fields["site"] = "from"
    root = [str(tmp_path)]

    def write(rows):
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def words():
        columns = [w for k, v in fields.items() for w in ("--column", f"{k}={v}")]
        return ["image_folder", "--root", root[0], "--metadata", str(path), *columns,
                "--finding-column", "labels", "--finding", "Edema=Edema",
                "--test-share", "0.5"]  # fmt: skip

    write(ROWS)
    return write, fields, root, Digests(words, lambda: [path], tmp_path / "known.json")


def test_of_a_folder_s_table_names_places_and_other_columns_count_nothing(of_folder):
    write, fields, root, digests = of_folder
    for column in ("note", "kind"):
        assert digests.changed(lambda c=column: write([{**row, c: "y"} for row in ROWS])) == set()
    before = digests()
    write([{"file" if k == "image" else k: v for k, v in row.items()} for row in ROWS])
    fields["path"] = "file"
    root[0] += "/moved"
    assert digests() == before
    fields["path"] = "image"
    relabelled = copy.deepcopy(ROWS)
    for row in relabelled:
        row["labels"] = ""
    write(ROWS)
    assert digests.changed(lambda: write(relabelled)) == set(parts.LABELLED)
    write(ROWS)
    sites = [{**row, "from": "B"} for row in ROWS]
    assert digests.changed(lambda: write(sites)) == {"training", "labelled_training"}
