"""A radiograph shows its findings."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy import ndimage

from workflow_scripts.world.anatomy import Chest, Study, draw_patient, draw_study
from workflow_scripts.world.canvas import Canvas, band, smooth_curve
from workflow_scripts.world.findings import DEVICES, Finding, draw_finding
from workflow_scripts.world.population import DRAWN
from workflow_scripts.world.radiograph import render

PATIENTS = range(200, 206)
STRAIGHT = Study(seed=3)


@functools.cache
def shown(patient: int, *findings: Finding) -> np.ndarray:
    return render(draw_patient(patient), STRAIGHT, findings).image.astype(float)


@functools.cache
def lung(patient: int, side: int) -> np.ndarray:
    return Canvas(256).fill([Chest(draw_patient(patient), STRAIGHT).lung(side)]) > 0.9


def test_same_arguments_give_the_same_pixels_and_others_do_not():
    one = render(draw_patient(1), draw_study(2, "AP"), (draw_finding("Edema", 3),))
    two = render(draw_patient(1), draw_study(2, "AP"), (draw_finding("Edema", 3),))
    assert one.image.dtype == np.uint8
    assert one.image.shape == (256, 256)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.clavicles, two.clavicles)
    other = render(draw_patient(1), draw_study(4, "AP"), (draw_finding("Edema", 3),))
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("seed", range(3))
def test_every_finding_leaves_a_visible_mark(name: str, seed: int):
    finding = dataclasses.replace(draw_finding(name, seed), severity=0.5)
    change = ndimage.gaussian_filter(shown(210, finding) - shown(210), 1.0)
    assert np.abs(change).max() > 20


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_is_brighter_than_what_lies_behind_it(device: str):
    change = shown(211, Finding("Support Devices", devices=(device,))) - shown(211)
    assert (change > 12).sum() > 40
    assert change.mean() > 0


@pytest.mark.parametrize("patient", PATIENTS)
def test_cardiomegaly_widens_the_heart_in_outline_and_in_pixels(patient: int):
    def bright_width(image: np.ndarray) -> int:
        chest = Chest(draw_patient(patient), STRAIGHT)
        row = round((chest.dome(-1) - 0.06 + 1) * 128)
        smooth = ndimage.gaussian_filter(image, 2)[row]
        inside = lung(patient, -1)[row] | lung(patient, 1)[row]
        level = np.percentile(smooth[inside], 30) + 45
        left = right = 128
        while smooth[left] > level:
            left -= 1
        while smooth[right] > level:
            right += 1
        return right - left

    big = Finding("Cardiomegaly", severity=0.8)
    normal = render(draw_patient(patient), STRAIGHT)
    large = render(draw_patient(patient), STRAIGHT, (big,))
    assert normal.cardiothoracic_ratio < 0.5 < large.cardiothoracic_ratio
    assert bright_width(large.image.astype(float)) > 1.2 * bright_width(normal.image.astype(float))


@pytest.mark.parametrize("patient", PATIENTS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_pneumothorax_darkens_the_apex_of_its_side_only(patient: int, side: str):
    sign = -1 if side == "right" else 1
    change = shown(patient, Finding("Pneumothorax", side=side, severity=0.9)) - shown(patient)
    top = draw_patient(patient).apex + 0.22 > Canvas(256).Y
    rim = ndimage.binary_erosion(lung(patient, sign), iterations=3) & top
    assert change[rim].mean() < -2
    assert np.median(change[rim & (np.abs(Canvas(256).X) > 0.3)]) < 0
    assert np.abs(change[lung(patient, -sign)]).mean() < 0.5


@pytest.mark.parametrize("patient", PATIENTS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_effusion_brightens_the_costophrenic_angle_of_its_side_only(patient: int, side: str):
    sign = -1 if side == "right" else 1
    change = shown(patient, Finding("Pleural Effusion", side=side, severity=0.5)) - shown(patient)
    chest = Chest(draw_patient(patient), STRAIGHT)
    low = chest.angle(sign) - 0.12 < Canvas(256).Y
    assert change[lung(patient, sign) & low].mean() > 25
    assert np.abs(change[lung(patient, -sign)]).mean() < 3


@pytest.mark.parametrize(
    "name", ["Consolidation", "Edema", "Lung Opacity", "Pneumonia", "Lung Lesion"]
)
def test_opacities_brighten_the_lungs_and_more_so_when_severe(name: str):
    def gain(severity: float) -> float:
        finding = dataclasses.replace(draw_finding(name, 5), severity=severity)
        both = lung(220, -1) | lung(220, 1)
        return (shown(220, finding) - shown(220))[both].mean()

    assert gain(0.9) > gain(0.1) > 0.2


def test_blurring_costs_texture_that_is_not_noise_alone():
    image = shown(230)
    blurred = ndimage.gaussian_filter(image, 0.02 * 256)

    def texture(picture: np.ndarray) -> float:
        return np.std((picture - ndimage.gaussian_filter(picture, 3))[lung(230, -1)])

    assert texture(blurred) < 0.25 * texture(image)
    other_noise = render(draw_patient(230), Study(seed=4)).image.astype(float)
    high, again = (
        ndimage.gaussian_filter(picture, 1) - ndimage.gaussian_filter(picture, 3)
        for picture in (image, other_noise)
    )
    inside = lung(230, -1)
    assert np.corrcoef(high[inside], again[inside])[0, 1] > 0.8


def test_patients_are_nearer_to_themselves_than_to_others_once_aligned():
    def aligned(patient: int, study: Study) -> np.ndarray:
        image = render(draw_patient(patient), study).image.astype(np.float32)
        # Undo the pose, as a perfect registration would.
        cos, sin = np.cos(study.rotation), np.sin(study.rotation)
        matrix = study.scale * np.array([[cos, sin], [-sin, cos]])
        offset = 127.5 + 128 * np.array(study.shift[::-1]) - matrix @ np.array([127.5, 127.5])
        crop = ndimage.affine_transform(image, matrix, offset, order=1)[50:200, 40:216]
        detail = ndimage.gaussian_filter(crop, 1.0) - ndimage.gaussian_filter(crop, 12.0)
        return ((detail - detail.mean()) / detail.std()).ravel()

    first = np.stack([aligned(p, draw_study(10 + p, "PA")) for p in PATIENTS])
    second = np.stack([aligned(p, draw_study(50 + p, "PA")) for p in PATIENTS])
    alike = first @ second.T / first.shape[1]
    others = alike[~np.eye(len(alike), dtype=bool)]
    assert (alike.argmax(1) == np.arange(len(alike))).all()
    assert np.diag(alike).mean() > others.mean() + 0.2


@pytest.mark.parametrize("patient", PATIENTS)
def test_masks_lie_on_the_clavicles_of_their_sides(patient: int):
    study = draw_study(patient, "PA")
    drawn = render(draw_patient(patient), study)
    image = ndimage.gaussian_filter(drawn.image.astype(float), 0.7)
    for mask, half in zip(drawn.clavicles, (slice(0, 140), slice(116, 256)), strict=True):
        assert 300 < mask.sum() < 2500
        assert mask[:, half].sum() == mask.sum()
        ring = ndimage.binary_dilation(mask, iterations=5) & ~ndimage.binary_dilation(mask)
        assert image[mask].mean() > image[ring].mean() + 5


@pytest.mark.parametrize("patient", PATIENTS)
def test_organs_lie_where_they_are_and_their_ratio_is_the_chests(patient: int):
    chest = Chest(draw_patient(patient), STRAIGHT)
    drawn = render(draw_patient(patient), STRAIGHT)
    right, left, heart = drawn.organs
    rows = np.flatnonzero((right | left).any(axis=1))
    columns = [np.flatnonzero(mask.any(axis=0)) for mask in (right, left, heart)]
    assert columns[0].mean() < columns[2].mean() < columns[1].mean()
    assert heart[rows[0] : rows[-1] + 1].sum() > 0.95 * heart.sum()
    assert drawn.image[right & ~heart].mean() < drawn.image[heart & ~right & ~left].mean() - 20
    # The chest is measured here where the lungs are drawn, in the world's parameters at its walls.
    width = columns[1][-1] - columns[0][0] + 1
    ratio = (columns[2][-1] - columns[2][0] + 1) / width
    assert ratio == pytest.approx(chest.cardiothoracic_ratio, rel=0.12)


def test_cardiomegaly_widens_the_heart_that_is_drawn_and_no_lung():
    patient = draw_patient(201)
    normal = render(patient, STRAIGHT).organs
    large = render(patient, STRAIGHT, (draw_finding("Cardiomegaly", 1),)).organs
    assert (normal[:2] == large[:2]).all()
    assert large[2].any(axis=0).sum() > 1.15 * normal[2].any(axis=0).sum()


def test_portable_views_magnify_the_heart_and_shallow_breaths_lift_the_diaphragm():
    patient = draw_patient(240)
    assert (
        Chest(patient, Study(1, "AP")).cardiothoracic_ratio
        > Chest(patient, Study(1, "PA")).cardiothoracic_ratio
    )
    shallow = Study(1, inspiration=0.2)
    assert Chest(patient, shallow).dome(-1) < Chest(patient, STRAIGHT).dome(-1)


def test_lateral_views_have_no_masks():
    drawn = render(draw_patient(1), draw_study(1, "LATERAL"), (draw_finding("Edema", 1),))
    assert drawn.image.std() > 30
    assert not drawn.clavicles.any()
    assert not drawn.organs.any()


def test_a_finding_needs_its_side_and_zone():
    with pytest.raises(ValueError, match="side"):
        Finding("Pneumothorax")
    with pytest.raises(ValueError, match="zone"):
        Finding("Consolidation", side="left")
    with pytest.raises(ValueError, match="drawn"):
        Finding("No Finding")


def test_a_band_is_as_wide_as_asked_and_a_curve_meets_its_points():
    line = np.array([[-0.5, 0.0], [0.5, 0.0]])
    covered = Canvas(200).fill([band(line, 0.1)]).sum() * (2 / 200) ** 2
    assert covered == pytest.approx(0.1, rel=0.15)
    points = np.array([[0.0, 0.0], [0.3, 0.4], [0.6, 0.1]])
    curve = smooth_curve(points, steps=4)
    assert curve[[0, 4, 8]] == pytest.approx(points)
