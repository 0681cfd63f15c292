"""`make docs` builds the site without a warning, and no page loads files of other sites."""

import re

import pytest

from tests.workflow.checkouts import ROOT, run

pytestmark = pytest.mark.full


def test_the_site_is_built_and_needs_no_network():
    run(["make", "docs"], ROOT)
    site = ROOT / ".venv/docs-site"
    text = {path: path.read_text() for path in site.rglob("*.html")}
    assert len(text) > 30
    for path, page in text.items():
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\bsrc="(https?:[^"]+)"', page)
        loaded += re.findall(
            r'<link[^>]*rel="(?:stylesheet|preload)"[^>]*href="(https?:[^"]+)"', page
        )
        assert not loaded, f"{path.name}: {loaded}"
    assert "mixed_precision" in text[site / "reference/config.html"]
    assert "python -m workflow_scripts.finetune.train" in text[site / "reference/commands.html"]
    assert "read_record" in text[site / "reference/python.html"]
