"""The stratified draw: it keeps every prevalence, rare ones best, and is reproducible."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.downstream.report_generation.subset import stratified_subset

# The long tail of the paper's Table 9, roughly: from a third down to a handful in ten thousand.
SHARES = np.array(
    [0.33, 0.25, 0.2, 0.2, 0.15, 0.1, 0.07, 0.05, 0.04, 0.03, 0.02, 0.01, 0.005, 8e-4]
)


def long_tail(rows: int, seed: int) -> np.ndarray:
    """Draw correlated labels, as findings are: a sick patient has several."""
    generator = np.random.default_rng(seed)
    sickness = generator.gamma(0.7, 1 / 0.7, (rows, 1))
    return (generator.random((rows, 14)) < SHARES * sickness).astype(np.int8)


def test_every_prevalence_is_kept_to_within_a_row_or_two():
    labels = long_tail(20_000, 0)
    chosen = stratified_subset(labels, 4_213, 1)
    assert len(np.unique(chosen)) == len(chosen) == 4_213
    wanted = labels.sum(axis=0) * 4_213 / 20_000
    assert np.abs(labels[chosen].sum(axis=0) - wanted).max() <= 2


def test_rare_findings_keep_their_share_better_than_in_a_plain_draw():
    labels = long_tail(20_000, 2)
    wanted = labels.sum(axis=0) * 0.2
    rare = np.argsort(wanted)[:5]

    def error(rows: np.ndarray) -> np.ndarray:
        return (np.abs(labels[rows].sum(axis=0) - wanted) / wanted)[rare]

    seeds = range(10)
    ours = np.mean([error(stratified_subset(labels, 4_000, seed)) for seed in seeds], axis=0)
    plain = np.mean(
        [error(np.random.default_rng(s).choice(20_000, 4_000, replace=False)) for s in seeds],
        axis=0,
    )
    assert (ours < plain / 2).all(), (ours, plain)


def test_a_finding_below_one_row_is_drawn_as_often_as_is_due():
    labels = np.zeros((1_000, 1), np.int8)
    labels[7] = 1
    hits = [7 in stratified_subset(labels, 300, seed) for seed in range(400)]
    assert 0.22 < np.mean(hits) < 0.38


def test_which_rows_are_drawn_depends_on_the_seed_alone():
    labels = long_tail(3_000, 3)
    one, again, other = (stratified_subset(labels, 700, seed) for seed in (5, 5, 6))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert (np.diff(one) > 0).all()


def test_all_rows_where_there_are_no_more():
    assert stratified_subset(long_tail(50, 4), 80, 0).tolist() == list(range(50))
    assert stratified_subset(long_tail(50, 4), 50, 0).tolist() == list(range(50))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(2, 60), size=st.integers(1, 60), seed=st.integers(0, 99), share=st.floats(0, 1)
)
def test_the_size_is_exact_whatever_the_labels(rows, size, seed, share):
    generator = np.random.default_rng(seed)
    labels = (generator.random((rows, 4)) < share).astype(np.int8)
    chosen = stratified_subset(labels, size, seed)
    assert len(np.unique(chosen)) == len(chosen) == min(size, rows)
    assert set(chosen) <= set(range(rows))
