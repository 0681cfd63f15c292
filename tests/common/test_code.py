"""The code a script's results depend on: its import closure, and how edits change its digest."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rule_texts import rule_texts
from workflow_scripts.common.code import Code
from workflow_scripts.tables.metrics import measures_modules

RULES = Path("rules")

WITHOUT_CODE = {
    "finetune_canaries",
    "cohort_manifest",
    "cohort_prompts",
    "cohort_part",
    "cohort_stress",
    "cohort_drawn",
    "finetune_train",
    "finetune_finish",
    "generate_sample",
    "features_train_reid",
    "downstream_train_reporter",
}
"""Rules that only a new version or config reruns: they take days of GPUs, or all others follow."""

METRICS = "workflow_scripts/tables/metrics.py"
"""Imports every stage's `measures`."""

BY_NAME = {
    "workflow_scripts/common/folders.py",  # measures and settings of scores and tasks
    "workflow_scripts/common/config.py",  # settings classes: no script of a rule reads the schema
    "workflow_scripts/common/in_turn.py",  # scripts: the rules name each
    "workflow_scripts/features/encoders/__init__.py",  # encoders: the rules name each
    "workflow_scripts/fidelity/metrics/__init__.py",  # all modules of the package: `Code` sees it
    "workflow_scripts/finetune/families/__init__.py",  # families: for rules without code
    "workflow_scripts/finetune/families/diffusers_pipeline.py",  # diffusers' own classes
    METRICS,  # what stages measure: the rules name each (MEASURES)
    "workflow_scripts/world/warm_python.py",  # libraries alone
}
"""Modules that import others by computed names, each with the place that knows the names."""

LIGHT = (
    "cohort.draw_prompts",
    "generate.import_external",
    "generate.make_control",
    "privacy.score",
    "privacy.score_lenses",
    "downstream.segmentation.score",
    "downstream.segmentation.score_labeller",
    "downstream.report_generation.score",
)
"""Scripts of short jobs that a run has many of."""

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "monai", "sklearn", "matplotlib"}


def scripts_run_by(rule):
    """Return the scripts of a rule's command."""
    command = rule[rule.index("    shell:") :]
    alone = re.findall(r"(?:-m|launcher\}) workflow_scripts\.([\w.]+)", command)
    in_turn = re.findall(r'"(?: --then)? (\w+\.[\w.]+) --', command)
    return {*alone, *in_turn} - {"common.in_turn"}


def declared_by(rule):
    """Return the scripts whose code a rule declares."""
    called = re.search(r"\*code\((.*?)\),\n", rule, re.S)
    return set(re.findall(r'"([\w.]+)"', called[1])) if called else set()


SCRIPTS = sorted(set().union(*map(scripts_run_by, rule_texts(RULES).values())))


@pytest.fixture
def project(tmp_path):
    """A package of a few modules."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / "workflow_scripts" / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            for folder in path.relative_to(tmp_path).parents[:-1]:
                (tmp_path / folder / "__init__.py").touch()
        return tmp_path

    return write


def test_every_rule_declares_the_code_of_the_scripts_that_it_runs():
    texts = rule_texts(RULES)
    by_rule = {name: (scripts_run_by(rule), declared_by(rule)) for name, rule in texts.items()}
    assert len(by_rule) > 25
    assert all(scripts for scripts, _ in by_rule.values())
    assert {name for name, (_, declared) in by_rule.items() if not declared} == WITHOUT_CODE
    for name, (scripts, declared) in by_rule.items():
        assert declared in (scripts, set()), name
    code = Code(Path())
    for name, rule in rule_texts(RULES).items():
        shows = any(METRICS in code.files(script) for script in by_rule[name][1])
        assert shows == ("*MEASURES" in rule), name


def test_a_closure_is_what_importing_loads():
    """Import each script in a subprocess; compare the loaded modules with its closure."""
    code = """
import gc, importlib, json, os, sys
import diffusers, monai, peft, torch, transformers  # once, for all
import accelerate, h5py, jinja2, matplotlib.pyplot, pandas, pyarrow.parquet, sklearn.metrics
from workflow_scripts.common.code import Code
from workflow_scripts.tables.metrics import measures_modules
from pathlib import Path
code = Code(Path())
before = set(sys.modules)
METRICS, MEASURES = json.loads(os.environ["MEASURES"])
def ours():
    loaded = [m for n, m in sys.modules.items() if n.split(".")[0] == "workflow_scripts"]
    return {m.__file__ for m in loaded}
def relative(files):
    return {os.path.relpath(f) for f in files}
for name in (*sys.argv[1:], *MEASURES):
    code.files(name)  # parsed once, for all
gc.freeze()
for script in sys.argv[1:]:
    read, write = os.pipe()
    if os.fork() == 0:
        for name in [n for n in sys.modules if n.split(".")[0] == "workflow_scripts"]:
            del sys.modules[name]
        importlib.import_module(f"workflow_scripts.{script}")
        at_once = relative(ours())
        named = {f for f in code.files(script) if f.endswith(".py")}
        if METRICS in named:  # rules declare these beside the script
            named |= {f for name in MEASURES for f in code.files(name) if f.endswith(".py")}
        for path in named:
            importlib.import_module(path[:-3].replace("/", ".").removesuffix(".__init__"))
        os.write(write, json.dumps([
            script, sorted(at_once - named), sorted(relative(ours()) ^ named), len(named)
        ]).encode())
        os._exit(0)
    os.close(write)
    print(os.read(read, 100000).decode())
    os.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *SCRIPTS],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MEASURES": json.dumps([METRICS, measures_modules()])},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [script for script, *_ in answers] == SCRIPTS
    for script, not_named, not_closed, modules in answers:
        assert (not_named, not_closed) == ([], []), script
        assert modules > 3


def test_the_processes_of_a_pool_say_what_they_loaded(tmp_path):
    """Figures are drawn in two: what these load counts for the rule."""
    (tmp_path / "prompts.csv").write_text("prompt_id,caption,seed\na,No effusion.,1\nb,Clear.,2\n")
    (tmp_path / "traces").mkdir()
    words = ["--prompts", tmp_path / "prompts.csv", "--out", tmp_path / "out", "--threads", "2"]
    traced = {"PYTHONPATH": "tests/trace", "CHEXGENBENCH_TRACE": str(tmp_path / "traces")}
    subprocess.run(
        [sys.executable, "-m", "workflow_scripts.world.external_model", *map(str, words)],
        check=True,
        capture_output=True,
        env=os.environ | traced,
    )
    traces = [json.loads(path.read_text()) for path in (tmp_path / "traces").iterdir()]
    assert len(traces) == 3
    for trace in traces:
        assert trace["scripts"] == ["world.external_model"]
        assert "workflow_scripts.world.radiograph" in trace["modules"]


def test_modules_that_import_by_name_are_known():
    by_name = {
        str(path)
        for path in Path("workflow_scripts").rglob("*.py")
        if re.search(r"import_module\(|__import__\(", path.read_text())
    }
    assert by_name == BY_NAME


def test_light_jobs_load_no_heavy_library():
    code = "import json, sys, importlib\n"
    code += "for name in sys.argv[1:]:\n    importlib.import_module(f'workflow_scripts.{name}')\n"
    code += f"    print(json.dumps([name, sorted({HEAVY!r} & set(sys.modules))]))\n"
    done = subprocess.run(
        [sys.executable, "-c", code, *LIGHT], capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers == [[name, []] for name in LIGHT]


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("# a comment\nX = 1\n", False),
        ('"""A text."""\n\n\nX = 1\n', False),
        ('X = 1\n"""What X is."""\n', False),
        ("X = (\n    1\n)\n", False),
        ("X = 2\n", True),
        ("X = 1.0\n", True),
        ("X = 1\nY = 'text'\n", True),
        ("X: int = 1\n", True),
    ],
)
def test_what_a_module_says_and_what_it_says_of_itself(project, text, changes):
    root = project(stage__script="X = 1\n")
    before = Code(root).digests("stage.script")
    project(stage__script=text)
    assert (Code(root).digests("stage.script") != before) == changes


def test_docstrings_of_functions_and_classes_do_not_count(project):
    plain = "def f():\n    return 1\n\nclass C:\n    x = 1\n"
    documented = 'def f():\n    """Say."""\n    return 1\n\nclass C:\n    """Say."""\n    x = 1\n'
    root = project(stage__script=plain)
    before = Code(root).digests("stage.script")
    project(stage__script=documented)
    assert Code(root).digests("stage.script") == before


def test_imports_are_followed_wherever_they_stand(project):
    root = project(
        stage__script="from workflow_scripts.other import module\n",
        other__module="def f():\n    import workflow_scripts.deep.inner\n",
        deep__inner="from workflow_scripts.other.beside import name\n",
        other__beside="name = 1\n",
        other__unused="X = 1\n",
        other__types="X = 1\n",
    )
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
    text += "    from workflow_scripts.other.types import X\nelse:\n"
    text += "    from workflow_scripts.deep import inner\nname = 1\n"
    project(other__beside=text)
    files = [f.removeprefix("workflow_scripts/") for f in Code(root).files("stage.script")]
    assert files == [
        "__init__.py",
        "deep/__init__.py",
        "deep/inner.py",
        "other/__init__.py",
        "other/beside.py",
        "other/module.py",
        "stage/__init__.py",
        "stage/script.py",
    ]


def test_data_files_that_a_module_names_belong_to_it(project):
    root = project(
        stage__script='FILE = "rows.csv"\nFOLDER = "templates"\n', stage__other="X = 1\n"
    )
    stage = root / "workflow_scripts/stage"
    (stage / "templates").mkdir()
    for name in ("rows.csv", "templates/page.html", "unnamed.csv"):
        (stage / name).write_text("before")
    files = Code(root).files("stage.script")
    assert [
        f.removeprefix("workflow_scripts/stage/") for f in files if "." in f and f[-3:] != ".py"
    ] == [
        "rows.csv",
        "templates/page.html",
    ]
    before = Code(root).digests("stage.script")
    (stage / "unnamed.csv").write_text("after")
    assert Code(root).digests("stage.script") == before
    (stage / "templates/page.html").write_text("after")
    after = Code(root).digests("stage.script")
    assert [a.split()[0] for a, b in zip(after, before, strict=True) if a != b] == [
        "stage/templates/page.html"
    ]
    assert not any("rows.csv" in f for f in Code(root).files("stage.other"))


def test_what_is_kept_gives_the_same_and_may_be_damaged(project, tmp_path):
    root = project(
        stage__script="from workflow_scripts.stage import other\n", stage__other="X = 1\n"
    )
    known = tmp_path / "kept/code.json"
    fresh = Code(root).digests("stage.script")
    assert Code(root, known).digests("stage.script") == fresh
    assert known.exists()
    assert Code(root, known).digests("stage.script") == fresh
    known.write_text("{")
    assert Code(root, known).digests("stage.script") == fresh
    project(stage__other="X = 2\n")
    assert Code(root, known).digests("stage.script") == Code(root).digests("stage.script") != fresh


def test_a_module_that_is_not_there_is_named(project):
    root = project(stage__script="X = 1\n")
    with pytest.raises(ValueError, match=r"no module workflow_scripts\.stage\.scripd"):
        Code(root).files("stage.scripd")


def test_an_import_by_a_short_name_is_refused(project):
    root = project(stage__script="from . import other\n")
    with pytest.raises(ValueError, match=r"script\.py: line 1: import by the full name"):
        Code(root).files("stage.script")
