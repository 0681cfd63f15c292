"""The checks of `make dist` before it packs: one version everywhere."""

import pytest

from tests.dist import ROOT, disagreements
from workflow_scripts.common.code import Code
from workflow_scripts.common.version import version

CITATION = "version: 1.2.0\ndate-released: 2026-05-04\n"
CHANGELOG = "## [Unreleased]\n\n## [1.2.0] - 2026-05-04\n\n## [1.1.0] - 2026-01-01\n"


def test_version_citation_and_changelog_of_this_checkout_agree():
    citation, changelog = (ROOT / "CITATION.cff").read_text(), (ROOT / "CHANGELOG.md").read_text()
    assert disagreements(version(), citation, changelog) == []


@pytest.mark.parametrize(
    ("number", "citation", "changelog", "said"),
    [
        ("1.2", CITATION, CHANGELOG, "'1.2' is no version"),
        ("1.3.0", CITATION, CHANGELOG, "CITATION.cff: version 1.2.0, not 1.3.0"),
        (
            "1.2.0",
            CITATION,
            CHANGELOG.replace("1.2.0", "1.2.1"),
            "newest numbered heading is 1.2.1",
        ),
        ("1.2.0", CITATION, "## [Unreleased]\n", "newest numbered heading is none"),
        ("1.2.0", CITATION, CHANGELOG.replace(" - 2026-05-04", ""), "1.2.0 is of no date"),
        ("1.2.0", CITATION.replace("05", "06"), CHANGELOG, "CITATION.cff 2026-06-04"),
    ],
)
def test_what_does_not_agree_is_named(number, citation, changelog, said):
    assert disagreements("1.2.0", CITATION, CHANGELOG) == []
    assert said in "\n".join(disagreements(number, citation, changelog))


def test_a_new_version_is_no_edited_code():
    """Otherwise each release would score and extract everything again."""
    for script in ("fidelity.score", "features.extract"):
        assert not [path for path in Code(ROOT).files(script) if path.endswith(".toml")]
