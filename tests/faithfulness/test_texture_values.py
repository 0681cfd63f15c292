"""Texture and topology part: each fault moves its own numbers and no others."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from workflow_scripts.downstream.gains import patient_draws
from workflow_scripts.faithfulness.look import drawn_pairs
from workflow_scripts.faithfulness.seen import KEPT_SIDE, Seen
from workflow_scripts.faithfulness.ssim import multiscale_ssim
from workflow_scripts.faithfulness.texture import (
    SIDE,
    log_power_spectrum,
    noise_variance,
    signal_dependence,
)
from workflow_scripts.faithfulness.texture_values import (
    PARTNERS,
    drawn_axes,
    partners_of,
    texture_values,
    topology_values,
)

FILMS = 12  # whose texture is measured
N = 24


def films(seed=0, blur=0.0, deviation=0.02):
    """Return textures of anatomy with grain; blur takes the grain."""
    rng = np.random.default_rng(seed)
    pixels = []
    waves = np.sin(np.linspace(0, 5, SIDE))
    for _ in range(FILMS):
        smooth = 0.5 + 0.2 * rng.random() * np.outer(waves, waves)
        film = smooth + rng.normal(0, deviation, (SIDE, SIDE))
        pixels.append(ndimage.gaussian_filter(film, blur) if blur else film)
    return seen(pixels)


def seen(pixels):
    ids = [f"i{k}" for k in range(len(pixels))]
    rows = pd.DataFrame(
        {
            "id": ids,
            "patient_id": [f"p{k}" for k in range(len(pixels))],
            "spectrum": [log_power_spectrum(x) for x in pixels],
            "noise": [noise_variance(x) for x in pixels],
            "signal_dependence": [signal_dependence(x) for x in pixels],
        },
        index=ids,
    )
    pairs = [[ids[k], ids[k + 1], 0.3 + 0.01 * k] for k in range(0, len(ids), 2)]
    return Seen(rows, {"pairs": pairs})


def values_of(images, radiographs):
    return {value.metric: value for value in texture_values(images, radiographs)}


def test_the_same_grain_is_near_and_a_blur_takes_the_high_frequencies():
    real = films()
    same = values_of(films(1), real)
    assert same["spectrum_distance"].value < 0.3
    assert same["high_frequencies"].interval[0] < 0 < same["high_frequencies"].interval[1]
    blurred = values_of(films(1, blur=1.0), real)
    assert blurred["spectrum_distance"].value > 10
    assert blurred["high_frequencies"].interval[1] < -5
    assert blurred["noise"].value < -5
    doubled = values_of(films(1, deviation=0.04), real)
    # Twice the deviation is four times the power: 6.02 dB in every frequency and in the noise.
    assert doubled["noise"].value == pytest.approx(20 * np.log10(2), abs=0.2)
    assert doubled["high_frequencies"].value == pytest.approx(20 * np.log10(2), abs=0.2)
    assert doubled["spectrum_distance"].value == pytest.approx(20 * np.log10(2), abs=0.3)


def test_few_images_have_no_texture():
    few = Seen(films().rows.iloc[:5], {"pairs": []})
    found = values_of(few, films())
    assert found["noise"].reason == "texture of 5 images (10 needed)"
    assert found["ms_ssim"].reason == "0 pairs of images (5 needed)"
    assert found["ms_ssim_radiographs"].value == pytest.approx(0.3 + 0.01 * (FILMS - 2) / 2)


@pytest.mark.full  # MONAI takes seconds to import
def test_ms_ssim_is_that_of_the_field():
    import torch
    from monai.metrics.regression import MultiScaleSSIMMetric

    rng = np.random.default_rng(0)
    one = ndimage.gaussian_filter(rng.random((256, 256)), 3)
    one = (one - one.min()) / np.ptp(one)
    other = np.clip(0.7 * one + 0.3 * ndimage.gaussian_filter(rng.random((256, 256)), 2), 0, 1)
    metric = MultiScaleSSIMMetric(spatial_dims=2, data_range=1.0, kernel_size=11, kernel_sigma=1.5)
    tensors = [torch.from_numpy(x)[None, None].double() for x in (one, other)]
    expected = float(metric(*tensors).item())
    assert multiscale_ssim(one, other) == pytest.approx(expected, abs=2e-3)
    assert multiscale_ssim(one, one) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="176 pixels"):
        multiscale_ssim(one[:100, :100], other[:100, :100])


def test_ms_ssim_of_an_image_with_itself_is_one_and_noise_lowers_it():
    rng = np.random.default_rng(0)
    one = ndimage.gaussian_filter(rng.random((SIDE, SIDE)), 3)
    one = (one - one.min()) / np.ptp(one)
    found = [multiscale_ssim(one, one + rng.normal(0, s, one.shape)) for s in (0.0, 0.05, 0.2)]
    assert found[0] == pytest.approx(1.0)
    assert 1 > found[1] > found[2] > 0
    assert multiscale_ssim(one, 1 - one) < 0.1, "a negative has the opposite contrast"


def test_pairs_are_of_two_patients_and_no_image_is_in_two():
    patients = np.repeat(["a", "b", "c", "d"], 5)
    pairs = drawn_pairs(patients, 12, 0)
    rows = [row for pair in pairs for row in pair]
    assert len(rows) == len(set(rows)) <= 12
    assert all(patients[a] != patients[b] for a, b in pairs)
    assert pairs == drawn_pairs(patients, 12, 0)
    assert drawn_pairs(np.array(["a"] * 4), 4, 0) == []


def organs(rng, shift=0):
    """Return packed heart and lungs of a chest whose borders vary, moved down by `shift`."""
    masks = np.zeros((3, KEPT_SIDE, KEPT_SIDE), bool)
    d = rng.integers(-3, 4, 4)
    masks[0, 50 + d[0] : 80, 35 : 62 + d[1]] = True
    masks[1, 20 + d[2] : 80, 10:40] = True
    masks[2, 20 + d[3] : 80, 56:86] = True
    return np.packbits(np.roll(masks, shift, axis=1)).tobytes()


def chests(seed=0, shift=0, ratio=0.0):
    rng = np.random.default_rng(seed)
    ids = [f"i{k}" for k in range(N)]
    return pd.DataFrame(
        {
            "id": ids,
            "patient_id": [f"p{k}" for k in range(N)],
            "organs": [organs(rng, shift) for _ in range(N)],
            "ratio": 0.45 + ratio + rng.normal(0, 0.02, N),
        }
    )


def topology(images):
    own = chests()
    labels = np.zeros((N, 14))
    labels[::2, 1] = 1
    owners = own["patient_id"].to_numpy(str)
    partners = partners_of(labels, owners, labels, owners, 0)
    return {v.metric: v for v in topology_values(images, own, own, partners)}


def test_another_patients_chest_reaches_the_ceiling_and_a_bent_one_does_not():
    other = topology(chests(1))
    assert other["organ_dice_share"].interval[0] < 1 < other["organ_dice_share"].interval[1]
    assert other["organ_dice_radiographs"].value > 0.85
    bent = topology(chests(1, shift=12))
    assert bent["organ_dice_share"].interval[1] < 0.95
    wide = topology(chests(1, ratio=0.1))
    assert wide["ratio_error"].value == pytest.approx(0.1, abs=0.02)
    assert wide["ratio_error_radiographs"].value < 0.04
    assert wide["organ_dice"].value == other["organ_dice"].value
    copies = topology(chests())
    assert copies["organ_dice_share"].value == 1, "a copy gains nothing over the radiograph"


def test_where_radiographs_have_no_organs_there_is_nothing_to_compare_with():
    blank = np.packbits(np.zeros((3, KEPT_SIDE, KEPT_SIDE), bool)).tobytes()
    own = chests().assign(organs=[blank] * N)
    labels, owners = np.zeros((N, 14)), own["patient_id"].to_numpy(str)
    partners = partners_of(labels, owners, labels, owners, 0)
    images = chests(1)
    images.loc[:5, "ratio"] = np.nan
    found = {v.metric: v for v in topology_values(images, own, chests(), partners)}
    assert found["organ_dice_radiographs"].value == 0
    assert found["organ_dice_share"].value is None
    assert "no Dice at all" in found["organ_dice_share"].reason
    assert (found["organ_dice"].n, found["ratio_error"].n) == (N, N - 6)


def test_flat_images_have_the_noise_of_rounding_and_no_less():
    real = films(deviation=1 / 255 / 12**0.5)  # a noise of exactly that variance
    flat = seen([np.full((SIDE, SIDE), 0.5)] * FILMS)
    assert values_of(flat, real)["noise"].value == pytest.approx(0, abs=0.2)


def test_partners_are_other_patients_with_the_same_findings():
    asked = np.zeros((3, 14))
    asked[1, 2] = asked[2, 5] = 1
    labels = np.zeros((12, 14))
    labels[8:, 2] = 1
    owners = np.array(["a"] * 2 + [f"o{k}" for k in range(7)] + ["b"] * 3)
    found = partners_of(asked, np.array(["a", "b", "c"]), labels, owners, 0)
    assert len(found[0]) == PARTNERS
    assert set(found[0]) <= set(range(2, 8))
    assert found[1].tolist() == [8]
    assert found[2].tolist() == []
    reason = topology_values(chests()[:1], chests()[:1], chests(), [found[2]])[0].reason
    assert reason == "no prompt has a radiograph of another patient with the same findings"


def repeated(frame, times):
    """Return rows as often as their patients were drawn."""
    return frame.iloc[np.repeat(np.arange(len(frame)), times)].reset_index(drop=True)


def test_axes_on_drawn_sets_are_those_of_the_patients_drawn():
    """Against films that are really repeated as often as their patients were drawn."""
    real, blurred = films(0), films(1, blur=0.7)
    own, images = chests()[:FILMS], chests(1, shift=6)[:FILMS]
    owners = own["patient_id"].to_numpy(str)
    partners = [np.arange(FILMS)[np.arange(FILMS) != k][:PARTNERS] for k in range(FILMS)]
    kept = drawn_axes((blurred, real), (images, own, own), partners, 8, 42)
    names = np.unique(owners)
    (times,) = patient_draws(names, 8, 42)
    for draw, counts in enumerate(times.astype(int)):
        of_film = counts[np.searchsorted(names, owners)]
        two = [Seen(repeated(side.rows, of_film), {"pairs": []}) for side in (blurred, real)]
        found = {v.metric: v for v in texture_values(*two)}["spectrum_distance"].value
        assert kept["spectrum_distance"]["values"][draw] == pytest.approx(found)
        # A prompt with partners counts by its own patient, and each partner by that one's.
        again = np.repeat(np.arange(FILMS), of_film)
        weights = [np.repeat(partners[k], of_film[partners[k]]) for k in again]
        full = [len(rows) / len(partners[k]) for k, rows in zip(again, weights, strict=True)]
        means = [
            {v.metric: v for v in topology_values(images[k : k + 1], own[k : k + 1], own, [rows])}
            for k, rows in zip(again, weights, strict=True)
            if len(rows)
        ]
        full = [share for share in full if share]
        dices = [
            np.average([one[name].value for one in means], weights=full)
            for name in ("organ_dice", "organ_dice_radiographs")
        ]
        share = kept["organ_dice_share"]["values"][draw]
        assert share == pytest.approx(dices[0] / dices[1])
    assert {one["seed"] for one in kept.values()} == {42}
    assert {one["units"] for one in kept.values()} == {FILMS}


def test_steps_without_texture_or_partners_keep_what_they_have():
    few = Seen(films().rows.iloc[:5], {"pairs": []})
    none = [np.array([], int)] * FILMS
    own = chests()[:FILMS]
    assert drawn_axes((few, films()), (own, own, own), none, 8, 42) == {}
