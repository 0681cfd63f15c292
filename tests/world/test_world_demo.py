"""When `make demo` continues, when it starts anew, and when its results count as up to date."""

import contextlib
import json

import pytest

from tests.common.test_code import RULES, WITHOUT_CODE, scripts_run_by
from tests.rule_texts import rule_texts
from workflow_scripts.common.errors import InputError
from workflow_scripts.world import demo
from workflow_scripts.world.warm_python import COLD_STARTS


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The commands that a demo in an empty folder runs; those with a word in `fails` fail."""
    ran = []

    class Commands(list):
        fails = ""

    ran = Commands()
    ran.cold_starts, ran.links = [], []

    def run(command, environment=None):
        ran.append(" ".join(command))
        if ran.fails and ran.fails in ran[-1]:
            raise InputError("failed")
        if "external_model" in ran[-1]:
            demo.IMAGES.mkdir(parents=True)
            (demo.IMAGES / "metadata.csv").touch()

    monkeypatch.chdir(tmp_path)

    @contextlib.contextmanager
    def warm_python(cold_starts):
        ran.cold_starts.append(cold_starts)
        yield tmp_path

    monkeypatch.setattr(demo, "_run", run)
    monkeypatch.setattr(demo, "warm_python", warm_python)
    monkeypatch.setattr(demo, "world", lambda threads, python, drawn: tmp_path)
    monkeypatch.setattr(demo, "link", lambda target, name: ran.links.append(target))
    monkeypatch.setattr(demo, "made_with", lambda: {"world": "w", "costly": "c"})
    return ran


def edit(monkeypatch, **changed):
    monkeypatch.setattr(demo, "made_with", lambda: {"world": "w", "costly": "c"} | changed)


def test_the_first_runs_all_and_the_second_asks_snakemake_alone(commands, monkeypatch):
    monkeypatch.setattr(demo.unchanged, "is_as_its_jobs_left_it", lambda: True)
    demo.run_demo(2)
    prompts, images, whole = commands
    tables = [f"results/cohort/prompts/{name}.csv" for name in ("test", "privacy", "stress")]
    assert prompts.split()[-3:] == tables
    assert "external_model" in images
    assert whole == "snakemake --profile profiles/demo"
    commands.clear()
    demo.Path("config.yaml").touch()
    demo.run_demo(2)
    assert commands == ["snakemake --profile profiles/demo"]
    # Where all is to be made, the libraries are imported at once; else only if many jobs run.
    assert commands.cold_starts == [0, COLD_STARTS]


def test_snakemake_looks_again_for_a_result_that_was_lost_while_it_ran(commands, monkeypatch):
    monkeypatch.setattr(demo.unchanged, "is_as_its_jobs_left_it", lambda: False)
    demo.run_demo(2)
    assert commands[-2:] == [
        "snakemake --profile profiles/demo",
        "snakemake --profile profiles/demo --quiet all",
    ]


def test_the_external_model_draws_beside_the_training_of_a_world_that_is_new(
    commands, tmp_path, monkeypatch
):
    def world(threads, python, drawn):
        commands.append("pictures")
        drawn(tmp_path / "half")
        commands.append("networks")
        return tmp_path / "whole"

    monkeypatch.setattr(demo, "world", world)
    demo.run_demo(2)
    pictures, _, images, networks, *runs = commands
    assert (pictures, networks) == ("pictures", "networks")
    assert "external_model" in images
    assert runs[0] == "snakemake --profile profiles/demo"
    assert commands.links == [tmp_path / "half", tmp_path / "whole"]


def test_scripts_outside_of_snakemake_run_with_the_python_of_its_own(commands, tmp_path):
    """Its libraries are imported already."""
    demo.run_demo(2)
    (images,) = [command for command in commands if "external_model" in command]
    assert images.startswith(f"{tmp_path}/python ")


def test_snakemake_is_not_asked_once_it_has_found_nothing_to_do(commands, monkeypatch):
    asked = []

    def run(command, environment=None):
        """Stand in for Snakemake: create missing outputs."""
        asked.append(command)
        demo.Path("results").mkdir(exist_ok=True)
        if not made.exists():
            made.touch()

    made = demo.Path("results/table.csv")
    demo.IMAGES.mkdir(parents=True)
    (demo.IMAGES / "metadata.csv").touch()
    demo.Path("results").mkdir()
    demo._stamp()
    monkeypatch.setattr(demo, "_run", run)
    demo.run_demo(2)
    assert [command[3:] for command in asked] == [[], ["--quiet", "all"]]
    asked.clear()
    demo.run_demo(2)
    assert not asked
    made.unlink()
    demo.run_demo(2)
    assert made.exists()
    asked.clear()
    demo.run_demo(2)
    assert not asked


def test_what_changes_while_snakemake_runs_is_not_taken_for_done(commands, monkeypatch):
    """After an edit during the run, even in its second pass, the next run calls Snakemake again."""
    asked = []

    def run(command, environment=None):
        asked.append(command)
        demo.Path("config.yaml").write_text(f"edited {len(asked)} times")

    monkeypatch.setattr(demo, "_run", run)
    (demo.IMAGES).mkdir(parents=True)
    (demo.IMAGES / "metadata.csv").touch()
    demo.Path("results").mkdir()
    demo._stamp()
    for _ in range(2):
        asked.clear()
        demo.run_demo(2)
        assert len(asked) == 2


def test_a_first_run_that_was_killed_goes_on(commands):
    commands.fails = "profiles/demo"
    with pytest.raises(InputError):
        demo.run_demo(2)
    demo.Path("results/cohort").mkdir(parents=True)
    commands.fails = ""
    demo.run_demo(2)
    assert not any("--forceall" in command for command in commands)


@pytest.mark.parametrize("what", ["world", "costly"])
def test_another_world_or_costly_code_runs_all_again_until_it_has_ended(
    commands, monkeypatch, what
):
    demo.run_demo(2)
    demo.Path("results/cohort").mkdir(parents=True)
    edit(monkeypatch, **{what: "other"})
    assert demo.is_stale()
    commands.clear()
    commands.fails = "--forceall"
    with pytest.raises(InputError):
        demo.run_demo(2)
    assert demo.is_stale(), "half of the results are of the code before"
    commands.fails = ""
    commands.clear()
    (demo.IMAGES / "metadata.csv").unlink()
    demo.IMAGES.rmdir()
    demo.run_demo(2)
    assert [("--forceall" in c) for c in commands] == [True, False, True, False]
    assert not demo.is_stale()


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"world": "w"})])
def test_a_damaged_stamp_is_no_stamp(commands, text):
    demo.STAMP.parent.mkdir()
    demo.STAMP.write_text(text)
    assert demo.is_stale()


def test_all_scripts_that_no_code_reruns_count_as_costly():
    rules = rule_texts(RULES)
    run = set().union(*(scripts_run_by(rules[name]) for name in WITHOUT_CODE))
    # The first links files, and computes nothing; the demo plants no canaries and draws no pool.
    elsewhere = {"finetune.finish", "finetune.canaries", "cohort.drawn_prompts"}
    assert run - elsewhere <= set(demo.COSTLY)
