"""Replaced radiographs are detected by their content, not by their times or paths."""

import os
import shutil

import pandas as pd
import pytest
from PIL import Image

from tests.cohort.conftest import MiniMimic
from workflow_scripts.cohort import refresh as module
from workflow_scripts.cohort.build_manifest import main as build
from workflow_scripts.cohort.refresh import changed_radiographs, refresh
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import SPLITS, read_manifest


class Cohort:
    """Nine radiographs of different bytes, their manifest, and the files that refreshing writes."""

    def __init__(self, source: MiniMimic):
        self.source = source.write()
        build(source.arguments())
        self.manifest = source.folder / "manifest.parquet"
        self.known, self.changed = source.folder / "known.parquet", source.folder / "changed.json"

    def refresh(self):
        return refresh(self.manifest, self.known, self.changed, readers=2)

    def path(self, image):
        frame = read_manifest(self.manifest)
        return self.source.root / frame.set_index("image_id").loc[image, "path"]


@pytest.fixture
def cohort(mimic):
    made = Cohort(mimic)
    assert made.refresh() == {}
    return made


def told(cohort):
    return changed_radiographs(cohort.changed, SPLITS)


def test_a_replaced_radiograph_is_told_of_its_split_until_it_is_put_back(cohort):
    assert told(cohort) == []
    path = cohort.path("d-b1")
    first, times = path.read_bytes(), path.stat()
    path.write_bytes(first[:-1] + b"x")  # of the same size, and with the times of before
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cohort.refresh() == {"train": ["d-b1"]}
    (once,) = told(cohort)
    assert once.startswith("train ")
    assert changed_radiographs(cohort.changed, ("test", "validate")) == []
    assert cohort.refresh() == {"train": ["d-b1"]}
    assert told(cohort) == [once]
    path.write_bytes(first[:-1] + b"y")
    cohort.refresh()
    assert told(cohort) != [once]
    path.write_bytes(first)
    assert cohort.refresh() == {}
    assert told(cohort) == []


def test_touched_and_copied_radiographs_say_the_same(cohort):
    for path in cohort.source.root.rglob("*.jpg"):
        os.utime(path)
    assert cohort.refresh() == {}
    elsewhere = cohort.source.folder / "elsewhere"
    shutil.copytree(cohort.source.root, elsewhere)
    shutil.rmtree(cohort.source.root)
    build(cohort.source.arguments(root=str(elsewhere)))
    assert cohort.refresh() == {}


def test_only_what_may_have_changed_is_read(cohort, monkeypatch):
    read = []
    monkeypatch.setattr(module, "sha256_of", lambda path: read.append(path) or "0")
    assert cohort.refresh() == {}
    assert read == []
    os.utime(cohort.path("d-e1"))
    assert cohort.refresh() == {"test": ["d-e1"]}
    assert read == [str(cohort.path("d-e1"))]


def test_a_radiograph_that_is_new_was_not_replaced(cohort):
    cohort.source.add("d-g1", 19000055, 50000010, "AP", "train")
    cohort.source.write(images=False)
    path = cohort.source.root / "files" / cohort.source.image("d-g1", "")
    path.parent.mkdir(parents=True)
    Image.linear_gradient("L").save(path)
    build(cohort.source.arguments())
    assert cohort.refresh() == {}
    path.write_bytes(b"newer")
    assert cohort.refresh() == {"train": ["d-g1"]}


def test_a_stopped_run_goes_on_and_mixes_nothing_up(cohort, monkeypatch):
    monkeypatch.setattr(module, "_KEPT_EVERY", 2)
    paths = [cohort.path(image) for image in read_manifest(cohort.manifest)["image_id"]]
    for path in paths:
        path.write_bytes(path.read_bytes() + b"!")
    whole = module.sha256_of

    def stops(path):
        if path == str(paths[4]):
            raise OSError("the disk is gone")
        return whole(path)

    monkeypatch.setattr(module, "sha256_of", stops)
    with pytest.raises(OSError, match="the disk is gone"):
        cohort.refresh()
    read = []
    monkeypatch.setattr(module, "sha256_of", lambda path: read.append(path) or whole(path))
    different = cohort.refresh()
    assert sorted(read) == sorted(map(str, paths[4:]))
    everything = {image for images in different.values() for image in images}
    assert everything == set(pd.read_parquet(cohort.manifest)["image_id"])


def test_a_missing_radiograph_is_named_and_nothing_written(cohort):
    before = cohort.known.read_bytes(), cohort.changed.read_bytes()
    cohort.path("d-e1").unlink()
    with pytest.raises(InputError, match=r"1 of 9 radiographs are missing.*d-e1"):
        cohort.refresh()
    assert (cohort.known.read_bytes(), cohort.changed.read_bytes()) == before


def test_what_was_read_is_its_owner_s_alone(cohort):
    assert cohort.known.stat().st_mode & 0o077 == 0


def test_damaged_digests_are_refused_and_stay(cohort):
    whole = cohort.known.read_bytes()
    for damaged in (whole[: len(whole) // 2], b""):
        cohort.known.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot read the digests") as error:
            cohort.refresh()
        assert "restore it" in error.value.remedy
        assert cohort.known.read_bytes() == damaged
    cohort.known.write_bytes(whole)
    assert cohort.refresh() == {}
