"""The generated references hold every key of the config and every script of the rules."""

import re
import sys

import pytest
import yaml

from tests.docs.blocks import DOCS
from tests.workflow.checkouts import ROOT
from workflow_scripts.common.config import schema


@pytest.fixture(autouse=True)
def site_on_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(DOCS / "site"), *sys.path])
    yield
    for name in ("config_reference", "command_reference"):
        sys.modules.pop(name, None)


def keys_of(value, path=""):
    """Yield every dotted key of a config's mappings."""
    for name, below in value.items() if isinstance(value, dict) else ():
        key_path = f"{path}.{name}" if path else name
        yield key_path
        yield from keys_of(below, key_path)


def test_every_key_of_the_papers_config_has_its_row():
    from config_reference import config_reference

    page = config_reference(schema(), ROOT / "config.yaml")
    sections = dict(re.findall(r"^## (\S+).*?\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    for key in keys_of(config):
        block, _, name = re.sub(r"^models\.\w+", "models.{model}", key).rpartition(".")
        if block in sections and name != "{model}":  # not the names of views or of findings
            assert f"| `{name}` |" in sections[block], key
    assert "| `learning_rate` |" in sections["models.{model}.finetune"]
    assert "| `steps` | integer, ≥ 1 | no |" in sections["models.{model}.generate"]


def test_every_key_of_the_schema_says_what_it_means():
    from config_reference import blocks

    for path, block in blocks(schema()):
        for name, key in block["properties"].items():
            assert key.get("description"), f"{path}.{name}"


def test_every_script_of_the_rules_is_among_the_command_lines():
    from command_reference import scripts

    listed = set(scripts(ROOT))
    rules = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    called = set(re.findall(r"(?:python -m|\{params.launcher\}) (workflow_scripts[\w.]+)", rules))
    called.remove("workflow_scripts.common.in_turn")  # it takes other scripts' words, no flags
    assert len(called) > 20
    assert called <= listed, called - listed


def test_a_scripts_help_names_its_flags_and_how_it_is_called():
    from command_reference import help_of

    text = help_of("workflow_scripts.preflight.check")
    assert text.startswith("usage: python -m workflow_scripts.preflight.check")
    assert "--config" in text
