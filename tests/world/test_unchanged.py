"""Changes since the demo has run: every edit of a user counts, and nothing else does."""

import base64
import json
import os
import shutil

import pytest

from workflow_scripts.world import unchanged


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout at rest, with its state noted and a link to a world in another folder."""
    folder, world = tmp_path / "checkout", tmp_path / "world"
    for name in ("results/tables/table.csv", "rules/all.smk", "workflow_scripts/a/b.py", "docs/a"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "config.yaml").write_text("a: 1")
    (folder / ".snakemake").mkdir()
    world.mkdir()
    (world / "image.jpg").write_text("picture")
    (folder / "results/world").symlink_to(world)
    monkeypatch.chdir(folder)
    unchanged.note(unchanged.state())
    assert unchanged.is_at_rest()
    return folder


def back_in_time(path, change):
    """Change a file and restore its times."""
    was = path.stat()
    change(path)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


CHANGES = {
    "a result is deleted": lambda f: (f / "results/tables/table.csv").unlink(),
    "a result is touched": lambda f: os.utime(f / "results/tables/table.csv"),
    "a result is edited, its time kept": lambda f: back_in_time(
        f / "results/tables/table.csv", lambda path: path.write_text("other")
    ),
    "a result is replaced by an older file": lambda f: shutil.copy2(
        f / "rules/all.smk", f / "results/tables/table.csv"
    ),
    "a result is renamed": lambda f: (f / "results/tables/table.csv").rename(f / "results/other"),
    "a folder of results is deleted": lambda f: shutil.rmtree(f / "results/tables"),
    "code is edited": lambda f: (f / "workflow_scripts/a/b.py").write_text("other"),
    "a module is added": lambda f: (f / "workflow_scripts/a/c.py").touch(),
    "a rule is edited": lambda f: (f / "rules/all.smk").write_text("other"),
    "the config is edited": lambda f: (f / "config.yaml").write_text("a: 2"),
    "the world is another": lambda f: (f.parent / "world/image.jpg").write_text("darker"),
    "the link to the world is gone": lambda f: (f / "results/world").unlink(),
    "the world is gone": lambda f: shutil.rmtree(f.parent / "world"),
    "a run was killed": lambda f: (
        (f / ".snakemake/incomplete").mkdir() or (f / ".snakemake/incomplete/x").touch()
    ),
    "the note is deleted": lambda f: (f / unchanged.NOTE).unlink(),
    "the note is damaged": lambda f: (f / unchanged.NOTE).write_bytes(b"\xff"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_that_snakemake_would_look_at_is_seen(checkout, change):
    change(checkout)
    assert not unchanged.is_at_rest()


def test_reading_compiling_and_what_no_rule_reads_change_nothing(checkout):
    (checkout / "docs/a").write_text("other")
    (checkout / "config.yaml").read_text()
    (checkout / "workflow_scripts/a/__pycache__").mkdir()
    (checkout / "workflow_scripts/a/__pycache__/b.pyc").touch()
    assert unchanged.is_at_rest()


def test_another_environment_is_a_change(checkout, monkeypatch):
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "other")
    assert not unchanged.is_at_rest()


# What its jobs have written


LONG = f"results/{'long/' * 50}table.csv"
"""A path whose base64 is longer than the name of a file may be."""

OUTPUTS = ("results/tables/table.csv", "results/finetune/checkpoint", LONG)


@pytest.fixture
def written(checkout):
    """A checkout whose outputs Snakemake's metadata know, as Snakemake writes them."""
    (checkout / OUTPUTS[1]).mkdir(parents=True)
    (checkout / OUTPUTS[1] / ".snakemake_timestamp").touch()
    (checkout / LONG).parent.mkdir(parents=True)
    (checkout / LONG).touch()
    for name in OUTPUTS:
        stamp = checkout / name
        stamp = stamp / ".snakemake_timestamp" if stamp.is_dir() else stamp
        encoded = base64.urlsafe_b64encode(name.encode()).decode()
        pieces = [encoded[i : i + 254] for i in range(0, len(encoded), 254)]
        path = checkout.joinpath(
            ".snakemake/metadata", *(f"@{piece}" for piece in pieces[:-1]), pieces[-1]
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"endtime": stamp.stat().st_mtime}))
    assert unchanged.is_as_its_jobs_left_it()
    return checkout


@pytest.mark.parametrize(
    "change",
    [
        lambda f: (f / OUTPUTS[0]).unlink(),
        lambda f: os.utime(f / OUTPUTS[0]),
        lambda f: (f / OUTPUTS[0]).write_text("other"),
        lambda f: shutil.rmtree(f / OUTPUTS[1]),
        lambda f: os.utime(f / OUTPUTS[1] / ".snakemake_timestamp"),
        lambda f: (f / LONG).unlink(),
        lambda f: (f / ".snakemake/metadata/not-base64!").touch(),
        lambda f: next((f / ".snakemake/metadata").glob("c*")).write_text("{}"),
        lambda f: shutil.rmtree(f / ".snakemake/metadata"),
    ],
    ids=["deleted", "touched", "edited", "folder deleted", "folder touched", "long name deleted",
         "not a name", "no time", "nothing known"],
)  # fmt: skip
def test_an_output_that_its_job_did_not_leave_so_is_seen(written, change):
    change(written)
    assert not unchanged.is_as_its_jobs_left_it()


def test_outputs_are_no_inputs(written):
    before = unchanged.state(unchanged.INPUTS)
    (written / OUTPUTS[0]).write_text("other")
    assert unchanged.state(unchanged.INPUTS) == before
    (written.parent / "world/image.jpg").write_text("darker")
    assert unchanged.state(unchanged.INPUTS) != before
