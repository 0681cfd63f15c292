"""The floors of FID: the score of a perfect generator at the same sample sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.fidelity.floor import (
    ENOUGH,
    FEWEST_DRAWS,
    RealImages,
    disjoint_groups,
    fid_floor,
    floor_of_finding,
    matched_floor,
    matched_groups,
    without_partner,
)
from workflow_scripts.fidelity.frechet import frechet_distance


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=60),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 999),
)
def test_groups_share_neither_image_nor_patient(patients, first, second, seed):
    patients = np.array([f"p{patient}" for patient in patients])
    a, b = disjoint_groups(patients, first, second, np.random.default_rng(seed))
    assert len(np.unique(np.concatenate([a, b]))) == len(a) + len(b)
    assert not set(patients[a]) & set(patients[b])
    assert len(a) <= first
    assert len(b) <= second


def test_groups_have_the_sizes_asked_for_where_they_fit():
    patients = np.repeat(np.arange(100), 3)
    a, b = disjoint_groups(patients, 50, 200, np.random.default_rng(0))
    assert (len(a), len(b)) == (50, 200)
    a, b = disjoint_groups(patients, 300, 300, np.random.default_rng(0))
    assert len(a) == 150
    assert 147 <= len(b) <= 150


@pytest.mark.parametrize(("n", "m"), [(20, 20), (15, 60), (150, 200)])
def test_is_what_a_perfect_generator_scores(n, m):
    # More and fewer images than dimensions, groups that fit and groups carried to the size.
    rng = np.random.default_rng(1)
    scale = np.arange(1, 31) ** -0.5
    perfect = []
    for _ in range(20):
        x, y = (rng.standard_normal((size, 30)) * scale for size in (m, n))
        perfect.append(frechet_distance(x, y))
    real = rng.standard_normal((200, 30)) * scale
    floor = fid_floor(RealImages(real, np.arange(200)), n, m, rng)
    assert floor is not None
    assert (floor.n, floor.n_reference) == (n, m)
    assert floor.value == pytest.approx(np.mean(perfect), rel=0.15)


def test_it_draws_until_the_mean_is_known_to_five_percent():
    # Patients with many images each make groups that differ from draw to draw.
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(30), 5)
    alike = rng.standard_normal((150, 2)) * 0.1 + 2 * rng.standard_normal((30, 2))[patients]
    first, second = (
        fid_floor(RealImages(alike, patients), 40, 40, np.random.default_rng(seed))
        for seed in (1, 2)
    )
    assert first is not None
    assert second is not None
    assert first.draws > FEWEST_DRAWS
    assert first.value == pytest.approx(second.value, rel=0.25)
    independent = fid_floor(RealImages(rng.standard_normal((400, 40)), np.arange(400)), 60, 60, rng)
    assert independent is not None
    assert independent.draws == FEWEST_DRAWS


def test_too_few_images_to_carry_it_say_the_sizes_they_had():
    real = np.random.default_rng(0).standard_normal((20, 30))
    floor = fid_floor(RealImages(real, np.arange(20)), 20, 20, np.random.default_rng(0))
    assert floor is not None
    assert (floor.n, floor.n_reference) == floor.measured == (10, 10)


def test_one_patient_gives_no_floor():
    real, rng = np.random.default_rng(0).standard_normal((30, 3)), np.random.default_rng(0)
    assert fid_floor(RealImages(real, np.zeros(30)), 10, 10, rng) is None
    assert fid_floor(RealImages(real[:3], np.arange(3)), 3, 3, rng) is None


def test_constant_features_have_a_floor_of_zero():
    floor = fid_floor(RealImages(np.ones((30, 3)), np.arange(30)), 10, 10, np.random.default_rng(0))
    assert floor is not None
    assert floor.value == 0


def test_one_image_on_a_side_is_refused():
    for n, m in ((1, 9), (9, 1)):
        with pytest.raises(ValueError, match="two images"):
            fid_floor(RealImages(np.zeros((9, 2)), np.arange(9)), n, m, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("n", "dimensions"),
    [(60, 48), (150, 48), pytest.param(60, 96, marks=pytest.mark.full)],
)
@pytest.mark.parametrize("width", [0.7, 1.0, 1.4])
def test_the_floor_of_a_finding_follows_its_own_spread(width, n, dimensions):
    """A perfect generator's FID scales with the squared width; the floor of all images does not."""
    scale = np.arange(1, dimensions + 1) ** -0.5
    perfect, floors, of_all = [], [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        real = rng.standard_normal((4 * n, dimensions)) * scale
        has = np.arange(4 * n) < n
        real[has] *= width
        images = RealImages(real, np.arange(4 * n))
        floor = floor_of_finding(images, has, n, n, rng)
        assert floor is not None
        assert floor.of_finding
        assert (floor.n, floor.n_reference) == (n, n)
        assert floor.measured == (n // 2, n // 2)
        floors.append(floor.value)
        of_all.append(fid_floor(images, n, n, rng).value)
        for _ in range(4):
            x, y = (width * scale * rng.standard_normal((n, dimensions)) for _ in "xy")
            perfect.append(frechet_distance(x, y))
    assert np.mean(floors) == pytest.approx(np.mean(perfect), rel=0.1)
    if width != 1:
        assert np.mean(of_all) != pytest.approx(np.mean(perfect), rel=0.25)


@pytest.mark.parametrize(
    ("images", "patients", "own"),
    [(20, 20, True), (19, 19, False), (40, 9, False), (40, 10, True), (0, 0, False)],
)
def test_a_finding_of_few_images_or_patients_has_the_floor_of_all_images(images, patients, own):
    rng = np.random.default_rng(0)
    shown = np.concatenate([np.arange(images) % max(patients, 1), 1000 + np.arange(100)])
    real = rng.standard_normal((len(shown), 4))
    has = np.arange(len(shown)) < images
    real[has] *= 3
    every = RealImages(real, shown)
    floor = floor_of_finding(every, has, 20, 20, rng)
    assert floor is not None
    assert floor.of_finding == own
    if own:
        assert min(floor.measured) >= ENOUGH
    else:
        assert floor.value == pytest.approx(fid_floor(every, 20, 20, rng).value, rel=0.4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=2, max_size=60),
    st.integers(0, 999),
)
def test_partners_have_the_same_findings_and_no_patient_is_on_both_sides(rows, seed):
    patients = np.array([f"p{patient}" for patient, _ in rows])
    findings = np.array([code for _, code in rows])
    a, b = matched_groups(patients, findings, np.random.default_rng(seed))
    assert len(a) == len(b)
    np.testing.assert_array_equal(findings[a], findings[b])
    assert len(np.unique(np.concatenate([a, b]))) == len(a) + len(b)
    assert not set(patients[a]) & set(patients[b])


def test_as_many_get_a_partner_as_can():
    """With two patients per set of findings, the sides are not drawn independently."""
    patients, findings = np.arange(40), np.repeat(np.arange(20), 2)
    a, b = matched_groups(patients, findings, np.random.default_rng(0))
    assert len(a) == len(b) == 20
    assert len(np.unique(findings[a])) == 20
    # Who is on which side, and who the partner is, is drawn.
    other, _ = matched_groups(patients, findings, np.random.default_rng(1))
    assert set(a) != set(other)


def test_images_of_one_patient_alone_have_no_partner():
    patients = np.array(["a", "a", "b", "c", "c", "d"])
    findings = np.array([0, 0, 1, 1, 2, 3])
    # 0: the two of patient a; 2 and 3: one image each; 1: of two patients.
    assert without_partner(RealImages(np.zeros((6, 2)), patients, findings)) == 4
    with pytest.raises(ValueError, match="findings: none"):
        without_partner(RealImages(np.zeros((6, 2)), patients))


def of_findings(rng, codes, effects):
    """Draw images, (n, d): unit noise about the effects of their findings."""
    return effects[codes] + rng.standard_normal((len(codes), effects.shape[1]))


def test_the_matched_floor_is_what_real_images_with_the_prompts_findings_score():
    n, dimensions = 120, 6
    effects = 2 * np.random.default_rng(9).standard_normal((12, dimensions))
    same, other, matched, plain = [], [], [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 12, n)
        real = of_findings(rng, codes, effects)
        for _ in range(5):
            same.append(frechet_distance(real, of_findings(rng, codes, effects)))
            anew = rng.integers(0, 12, n)
            other.append(frechet_distance(real, of_findings(rng, anew, effects)))
        images = RealImages(real, np.arange(n), codes)
        floors = matched_floor(images, n, n, rng), fid_floor(images, n, n, rng)
        assert all((floor.n, floor.n_reference) == (n, n) for floor in floors)
        for values, floor in zip((matched, plain), floors, strict=True):
            values.append(floor.value)
    assert np.mean(matched) == pytest.approx(np.mean(same), rel=0.15)
    assert np.mean(plain) == pytest.approx(np.mean(other), rel=0.2)
    assert np.mean(matched) < 0.7 * np.mean(plain)


def test_without_enough_partners_there_is_no_matched_floor():
    rng = np.random.default_rng(0)
    real = rng.standard_normal((40, 3))
    alone = RealImages(real, np.arange(40), np.arange(40))
    assert matched_floor(alone, 40, 40, rng) is None
    for pairs in (ENOUGH - 1, ENOUGH):
        some = RealImages(real[: 2 * pairs], np.arange(2 * pairs), np.zeros(2 * pairs))
        assert (matched_floor(some, 40, 40, rng) is None) == (pairs < ENOUGH)
    one = RealImages(real, np.zeros(40), np.zeros(40))
    assert matched_floor(one, 40, 40, rng) is None
    with pytest.raises(ValueError, match="findings: none"):
        matched_floor(RealImages(real, np.arange(40)), 40, 40, rng)
