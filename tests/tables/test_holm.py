"""Holm's correction against its definition: the closed test of Bonferroni's."""

from itertools import chain, combinations

from hypothesis import example, given
from hypothesis import strategies as st

from workflow_scripts.tables.derive.holm import LEVEL, holm


def closed_test(p):
    """Reject what Bonferroni rejects in every set of hypotheses that it is in (Marcus, 1976)."""
    places = range(len(p))
    sets = list(chain.from_iterable(combinations(places, k + 1) for k in places))
    rejected = {s for s in sets if min(p[i] for i in s) <= LEVEL / len(s)}
    return [all(s in rejected for s in sets if i in s) for i in places]


@given(st.lists(st.sampled_from([0.0, 0.004, 0.011, 0.0125, 0.02, 0.026, 0.05, 0.3]), max_size=6))
@example([0.04, 0.01, 0.03])
@example([0.02, 0.02, 0.02])
def test_holm_rejects_what_the_closed_test_rejects(p):
    assert holm(p) == closed_test(p)
