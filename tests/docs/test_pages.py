"""The documentation is true: its commands, code, configs, links, names of files and messages."""

import ast
import itertools
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.docs.blocks import (
    DOCS,
    GENERATED,
    code_blocks,
    inline_code,
    links,
    name_of,
    pages,
    prose,
)
from tests.workflow.checkouts import ROOT, run
from workflow_scripts.common.config import validate_config
from workflow_scripts.common.manifest import FINDINGS, MANIFEST_SCHEMA, PROMPT_SCHEMA
from workflow_scripts.common.records import Value
from workflow_scripts.curate import worth, worth_segmentation
from workflow_scripts.curate.measures import FILTER, LEARNED, SEGMENTED
from workflow_scripts.curate.worth_record import absent
from workflow_scripts.faithfulness.round_trip import METRICS as ROUND_TRIP
from workflow_scripts.privacy.score_guarantee import attack_values, stated_values

TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PLACES = ("workflow_scripts/", "rules/", "tests/", "profiles/", "envs/", "docs/", ".ci/")


def merged(config, overlay):
    """A config with an overlay on it, as Snakemake merges them."""
    if not (isinstance(config, dict) and isinstance(overlay, dict)):
        return overlay
    return config | {key: merged(config.get(key), value) for key, value in overlay.items()}


def test_the_readme_fits_a_screen_or_two():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        if target.startswith("https://"):
            continue
        place = (page.parent / path).resolve() if path else page
        made = place.is_relative_to(DOCS) and place.relative_to(DOCS).as_posix() in GENERATED
        if page.name == "README.md":
            assert place.exists(), target  # it is read where nothing is built
        else:
            assert place.exists() or made, target
        if anchor and not made:
            assert anchor in {anchor_of(heading) for heading in headings(place)}, target


def headings(page):
    """The headings of a page."""
    return re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)


def anchor_of(heading):
    """The anchor that the site gives a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def test_every_file_and_make_target_that_is_named_exists():
    missing = []
    for page in pages():
        for words in inline_code(page):
            if target := re.match(r"make ([a-z-]+)", words):
                if target[1] not in TARGETS:
                    missing.append((name_of(page), words))
            elif words.startswith(PLACES) and not re.search(r"[{}*\s]|[A-Z]{4}", words):
                path = ROOT / words.split("::")[0]
                if not path.exists():
                    missing.append((name_of(page), words))
    assert not missing


def test_every_command_can_be_planned():
    lines = sorted(
        {
            line.split(" #")[0].strip()
            for page in pages()
            for block in code_blocks(page, "bash")
            for line in block.splitlines()
            if line.strip() and not line.strip().startswith("#")
        }
    )
    known = set(re.findall(r"--[a-z-]+", run(["snakemake", "--help"], ROOT).stdout))
    known.add("--")  # what follows is a target
    for line in lines:
        words = shlex.split(line)
        if words[0] == "make":
            run(["make", "-n", *words[1:]], ROOT)
        elif words[:2] == ["python", "-m"]:
            if words[2] != "pytest":
                place = ROOT / words[2].replace(".", "/")
                assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), line
        elif words[0] == "snakemake":
            if "--profile" in words:
                profile = Path(words[words.index("--profile") + 1]).name
                assert list((ROOT / "profiles" / profile).glob("config*.yaml")), line
            assert {word for word in words if word.startswith("--")} <= known, line
        else:
            assert words[0] in ("source", "snakedeploy", "cd", "git", "export"), line
    assert any(line.startswith("make demo") for line in lines)


@pytest.mark.parametrize(
    "page", [page for page in pages() if code_blocks(page, "python")], ids=name_of
)
def test_python_runs(page, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["python"])
    names = {"__name__": "example"}
    for block in code_blocks(page, "python"):
        if "class MinSnr" not in block:  # tests/finetune/test_own_family.py trains it
            exec(compile(block, name_of(page), "exec"), names)


@pytest.mark.parametrize(
    "page", [page for page in pages() if code_blocks(page, "yaml")], ids=name_of
)
def test_configs_are_accepted(page):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    for block in code_blocks(page, "yaml"):
        overlay = yaml.safe_load(block)
        mine = merged(config, overlay)
        added = [key for key in overlay.get("models", {}) if key not in config["models"]]
        mine["run_models"] = [*config["run_models"], *added]
        validate_config(mine)


def test_json_is_what_records_hold():
    (block,) = code_blocks(DOCS / "reference/outputs.md", "json")
    content = json.loads(block)
    assert Value(**content).value == content["value"]


def test_every_output_of_a_rule_is_described():
    text = (DOCS / "reference/outputs.md").read_text()
    described = {stem_of(words) for words in re.findall(r"`([^`\s]+)`", text)}
    listed = []
    for path in sorted((ROOT / "rules").glob("*.smk")):
        blocks = re.findall(r"\n    output:\n(.*?)(?=\n    \w+:)", path.read_text(), re.DOTALL)
        listed += itertools.chain(*(re.findall(r'"results/([^"]+)"', block) for block in blocks))
    assert len(listed) > 50
    stems = {stem_of(output) for output in listed} - {"{file}"}  # the CSVs of figures
    assert stems <= described, stems - described


def stem_of(path):
    """The name of a file without its folder and endings, braces once."""
    return path.replace("{{", "{").replace("}}", "}").rpartition("/")[2].split(".")[0]


def test_every_column_of_the_manifest_and_the_prompts_is_described():
    text = (DOCS / "reference/outputs.md").read_text()
    for schema in (MANIFEST_SCHEMA, PROMPT_SCHEMA):
        for field in schema:
            if field.name not in FINDINGS:
                kind = str(field.type) + (" or null" if field.nullable else "")
                assert f"| `{field.name}` | {kind} |" in text


def test_every_metric_is_described_and_every_described_metric_is_measured():
    text = (DOCS / "reference/metrics.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    measured = set()
    for path in (ROOT / "tests/tables/frozen/inputs").rglob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and "values" in content:
            names = {value["metric"] for value in content["values"]}
            measured |= {re.sub(r"_(gain|sd|test_set|studies)$", "", name) for name in names}
    # The demo fine-tunes no model with a guarantee (tests/workflow/test_guarantee.py does).
    measured |= {m.metric for m in attack_values(None, np.empty(0), 0.0) + stated_values(None)}
    # Nor does it have reports written of images (tests/faithfulness/test_round_trip.py does).
    measured |= set(ROUND_TRIP)
    # Nor does it curate a set (tests/workflow/test_curate.py and test_curate_pools.py do).
    learned = [*absent([*worth.WAYS], worth.METRICS, "", 0)]
    learned += absent([worth_segmentation.WAY], worth_segmentation.METRICS, "", 0)
    measured |= {value.metric.removesuffix("_gain") for value in learned}
    measured |= {f"real_{key}" for key, _ in (*LEARNED, *SEGMENTED)}
    measured |= {metric.key for metric in FILTER}
    assert measured <= described, measured - described
    assert described <= measured, described - measured


def test_every_error_message_is_one_of_ours():
    said = []
    for path in (ROOT / "workflow_scripts").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (x.value if isinstance(x, ast.Constant) else "@" for x in node.values)
                said.append("".join(map(str, parts)))
    text = "\n".join(said)
    rows = (DOCS / "troubleshooting.md").read_text().splitlines()
    messages = [row.split("|")[1] for row in rows if row.startswith("| `")]
    ours = [cell for cell in messages if "'s words)" not in cell]
    assert len(ours) > 15
    for cell in ours:
        for message in re.findall(r"`([^`]+)`", cell):
            assert message in text, message
