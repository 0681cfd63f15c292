"""The renderer of the embedded world, faithful and with one fault each, and what the numbers say.

The matrix below was written before the numbers were measured.
"""

import math

import numpy as np
import pytest

from tests.faithfulness.rendered import (
    drawn,
    held_out,
    many_groups,
    radiographs,
    readings,
    trained_judge,
)
from workflow_scripts.faithfulness.contrasts import stress_values
from workflow_scripts.faithfulness.texture import log_power_spectrum
from workflow_scripts.tables.derive.holm import holm
from workflow_scripts.world.external_model import FAULTS

pytestmark = pytest.mark.full

MUST, MAY, NOT = "must move", "may move", "must not move"

NUMBERS = {
    "presence": ("stress_presence", "all"),
    "effusion": ("stress_presence", "Pleural Effusion"),
    "heart": ("stress_presence", "Cardiomegaly"),
    "negation": ("stress_negation", "all"),
    "side": ("stress_side", "all"),
    "severity": ("stress_severity_tau", "all"),
    "severity of effusion": ("stress_severity_tau", "Pleural Effusion"),
    "zone": ("stress_zone", "all"),
    "device": ("stress_device", "all"),
    "wording": ("stress_wording", "all"),
}

# fmt: off
MATRIX = {
    #                      pres. eff.  heart neg.  side  sev.  s.eff zone  dev.  word. text. topo.
    "sides_swapped":      (NOT,  NOT,  NOT,  NOT,  MUST, NOT,  NOT,  NOT,  NOT,  NOT,  NOT,  NOT),
    "negation_ignored":   (NOT,  NOT,  NOT,  MUST, NOT,  NOT,  NOT,  NOT,  NOT,  NOT,  NOT,  NOT),
    "severity_constant":  (NOT,  NOT,  NOT,  NOT,  NOT,  MUST, MUST, NOT,  NOT,  NOT,  NOT,  NOT),
    "paraphrases_differ": (NOT,  NOT,  NOT,  NOT,  NOT,  MAY,  MAY,  NOT,  NOT,  MUST, NOT,  NOT),
    "heart_normal":       (MAY,  NOT,  MUST, NOT,  NOT,  MAY,  NOT,  NOT,  NOT,  MAY,  NOT,  NOT),
    "device_left_out":    (NOT,  NOT,  NOT,  NOT,  NOT,  NOT,  NOT,  NOT,  MUST, NOT,  NOT,  NOT),
    "prompt_ignored":     (MUST, MUST, MUST, NOT,  MUST, MUST, MUST, MUST, MUST, MAY,  NOT,  NOT),
    "blurred":            (NOT,  NOT,  NOT,  NOT,  NOT,  NOT,  NOT,  NOT,  MAY,  MAY,  MUST, NOT),
    "warped":             (NOT,  NOT,  MAY,  NOT,  NOT,  NOT,  NOT,  NOT,  MAY,  MAY,  NOT,  MUST),
}
# fmt: on

AUROCS = ("presence", "effusion", "heart", "negation", "side", "zone", "device")
NEAR = 0.1
"""An AUROC that must not move stays within it: that a test shows no difference is no proof."""

LEAST = 0.03
"""A standard error is not below it: of a perfect score no draw differs."""


@pytest.fixture(scope="module")
def judged():
    """The judge, held-out radiographs and the prompts."""
    pixels, labels, captions = radiographs(1000, 10_000)
    train = slice(0, 700)
    judge = trained_judge(pixels[train], labels[train])
    rest = slice(700, None)
    return judge, held_out(judge, pixels[rest], labels[rest], captions[rest]), many_groups()


def measured(judged, pictures):
    """Return each number with its standard error, and all values."""
    judge, real, stress = judged
    pixels = np.stack([picture.image for picture in pictures])
    own = readings(judge, pixels)
    turned = readings(judge, np.ascontiguousarray(pixels[:, :, ::-1]))
    values = {(v.metric, v.subset): v for v in stress_values(stress, own, turned, real, 300, 1)}
    found = {}
    for name, key in NUMBERS.items():
        value = values[key]
        error = 0.0
        if value.interval is not None:
            error = (value.interval[1] - value.interval[0]) / 3.92
        found[name] = (value.value, max(error, LEAST))
    return found, values


def texture_of(pictures):
    """Return the mean log power of the higher frequencies of some images."""
    return np.array([log_power_spectrum(p.image / 255.0)[10:].mean() for p in pictures[::10]])


def topology_of(pictures, faithful):
    """Return the Dice of some images' lungs with faithful ones of other patients, the mean of five.

    The masks are the renderer's own.
    """
    some, others = pictures[::10], faithful[::10]
    lungs = [picture.organs[:2].any(0) for picture in some]
    real = [picture.organs[:2].any(0) for picture in others]
    found = []
    for k, own in enumerate(lungs):
        compared = [real[(k + step) % len(real)] for step in (3, 7, 11, 17, 23)]
        found.append(np.mean([2 * (own & x).sum() / (own.sum() + x.sum()) for x in compared]))
    return np.array(found)


def change(own, before, least):
    """Return the mean paired change of images, and its standard error."""
    gaps = own - before
    return gaps.mean(), max(gaps.std(ddof=1) / len(gaps) ** 0.5, least)


def p_of(one, other):
    """Return the two-sided p of no difference between two numbers with standard errors."""
    z = abs(one[0] - other[0]) / math.hypot(one[1], other[1])
    return math.erfc(z / math.sqrt(2))


def test_each_fault_moves_what_it_must_and_nothing_else(judged, monkeypatch):
    pictures = drawn(judged[2], None, monkeypatch)
    faithful, values = measured(judged, pictures)
    for key in ("presence", "side", "zone", "device"):
        share = values[f"stress_{key}_share", "all"]
        assert share.interval[1] > 0.9, (key, share)
        assert share.interval[0] > 0.3, (key, share)
    assert values["stress_severity_tau", "all"].interval[0] > 0
    assert abs(values["stress_negation", "all"].value - 0.5) < 0.1
    mirrored = values["stress_side_mirrored", "all"].value
    assert mirrored == pytest.approx(1 - values["stress_side", "all"].value, abs=0.1)
    cells, far = {}, {}
    for fault in FAULTS:
        own_pictures = drawn(judged[2], fault, monkeypatch)
        own, _ = measured(judged, own_pictures)
        moves = {
            name: 1.0 if own[name][0] is None else p_of(own[name], faithful[name])
            for name in NUMBERS
        }
        # Findings have some texture and shape themselves: a tenth of a decade, a Dice of 0.005.
        texture = change(texture_of(own_pictures), texture_of(pictures), 0.1)
        before = topology_of(pictures, pictures)
        topology = change(topology_of(own_pictures, pictures), before, 0.005)
        for name, said in zip(NUMBERS, MATRIX[fault], strict=False):
            if said == NOT and name in AUROCS:
                far[fault, name] = abs(own[name][0] - faithful[name][0])
        moves |= {"texture": p_of(texture, (0.0, 0.0)), "topology": p_of(topology, (0.0, 0.0))}
        shown = {name: own[name][0] for name in NUMBERS}
        shown |= {"texture": texture, "topology": topology}
        for (name, p), said in zip(moves.items(), MATRIX[fault], strict=True):
            cells[fault, name] = (said, p, shown[name])
    moved = holm([p for _, p, _ in cells.values()])
    wrong = []
    for (fault, name), moves_it in zip(cells, moved, strict=True):
        said, p, value = cells[fault, name]
        if (said == MUST and not moves_it) or (said == NOT and moves_it):
            wrong.append(f"{fault}: {name} {said}; {faithful.get(name)} became {value}, p {p:.3g}")
    assert not wrong, "\n".join(wrong)
    assert {cell: gap for cell, gap in far.items() if gap >= NEAR} == {}


def test_what_ignores_the_prompt_stands_at_chance_everywhere(judged, monkeypatch):
    _, values = measured(judged, drawn(judged[2], "prompt_ignored", monkeypatch))
    for key in ("presence", "negation", "side", "severity", "zone", "device"):
        value = values[f"stress_{key}", "all"]
        low, high = value.interval or (value.value, value.value)
        assert low - 1e-9 <= 0.5 <= high + 1e-9, (key, value)
    assert values["stress_severity_tau", "all"].value == 0
    assert values["stress_wording", "all"].value is None
