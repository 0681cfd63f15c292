"""The report's page on the audit, from the file that the audit writes."""

import json

import pytest

from tests.tables.test_tables_report import report
from workflow_scripts.common.errors import InputError
from workflow_scripts.paper_audit.build import main
from workflow_scripts.tables.audit_page import read_audit


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    main(["--out", str(folder)])
    return folder / "audit.json"


def test_the_page_has_every_claim_with_its_verdict_and_is_not_there_without_an_audit(
    bench, written
):
    text = report(bench, audit=written).read_text(encoding="utf-8")
    page = read_audit(written)
    assert len(page["items"]) > 100
    assert all(f'id="audit-{item["key"]}"' in text for item in page["items"])
    assert text.count('class="verdict ') >= len(page["items"])
    bare = report(bench, "bare.html").read_text(encoding="utf-8")
    assert 'id="audit' not in bare
    assert "Audit of the paper" not in bare


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda page: page.pop("words"), "lacks"),
        (lambda page: page["items"][0].pop("claim"), "lacks"),
        (lambda page: page["items"][0].update(verdict="perhaps"), "lacks"),
        (lambda page: page.update(items=3), "no JSON"),
    ],
)
def test_an_audit_that_lacks_something_is_refused(written, tmp_path, change, message):
    page = json.loads(written.read_text())
    change(page)
    (tmp_path / "audit.json").write_text(json.dumps(page))
    with pytest.raises(InputError, match=message):
        read_audit(tmp_path / "audit.json")


def test_an_audit_that_is_not_there_is_named_with_the_remedy(tmp_path):
    with pytest.raises(InputError, match="make audit"):
        read_audit(tmp_path / "audit.json")
