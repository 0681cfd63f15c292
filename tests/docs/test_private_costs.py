"""What the page of guarantees says that they cost is what the counts give."""

import pytest

from tests.docs.private_costs import table, trained
from tests.workflow.checkouts import ROOT

PAGE = ROOT / "docs/explanation/guarantee.md"


@pytest.mark.full
def test_the_page_has_the_costs_that_follow_from_counts():
    """To renew the table: `python -m tests.docs.private_costs`."""
    found = table()
    assert found in PAGE.read_text(encoding="utf-8"), found


def test_an_adapter_is_counted_as_by_hand():
    # 16 blocks with two attentions of three projections; of the second, two from text of 768.
    widths = [320] * 5 + [640] * 5 + [1280] * 6
    by_hand = 32 * sum(4 * (w + w) + 2 * (768 + w) for w in widths)
    assert trained("stable_diffusion", "sd1", lora=True) == by_hand
