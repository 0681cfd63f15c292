"""Folders of privacy scores and downstream tasks: found, and their records by hand."""

from types import SimpleNamespace

import pytest

from workflow_scripts.common import folders
from workflow_scripts.common.folders import Part, parts


def test_the_tasks_are_found_with_the_families_of_their_records():
    found = {part.name: part for part in parts("downstream")}
    assert list(found) == ["classification", "report_generation", "segmentation"]
    assert found["segmentation"].records(["a", "b"]) == [
        "results/downstream/segmentation/real_only/real.json",
        "results/downstream/segmentation/augmented/a.json",
        "results/downstream/segmentation/augmented/b.json",
        "results/downstream/segmentation/labeller/real.json",
    ]
    assert all(part.rules is None and part.settings is None for part in found.values())


def test_a_privacy_score_has_a_record_of_each_model_and_family():
    part = Part("privacy", "twins", ("twins", "twins/mirrored"), ())
    assert part.records(["a"]) == [
        "results/privacy/twins/a.json",
        "results/privacy/twins/mirrored/a.json",
    ]
    assert part.records([]) == []


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage with a folder `twins` whose `measures` is what the test says."""
    declared = SimpleNamespace(METRICS=())
    (tmp_path / "privacy/twins").mkdir(parents=True)
    (tmp_path / "privacy/twins/measures.py").touch()
    monkeypatch.setattr(folders, "ROOT", tmp_path)
    monkeypatch.setattr(folders.importlib, "import_module", lambda _: declared)
    folders.parts.cache_clear()
    yield declared
    folders.parts.cache_clear()


def test_a_folder_that_names_no_families_is_registered_elsewhere(stage):
    assert parts("privacy") == ()


def test_a_folder_that_names_its_families_is_found(stage):
    stage.FAMILIES, stage.TABLES = ("twins",), ("table03z_twins.yaml",)
    assert parts("privacy") == (Part("privacy", "twins", ("twins",), ("table03z_twins.yaml",)),)


def test_records_of_another_folder_are_refused(stage):
    stage.FAMILIES = ("twins", "closest")
    with pytest.raises(TypeError, match=r"twins\.measures: the family 'closest' is not twins's"):
        parts("privacy")
