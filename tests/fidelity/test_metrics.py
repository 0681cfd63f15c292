"""Modules of metrics: each is found, declares its metrics and measures exactly those."""

import numpy as np
import torch

from workflow_scripts.fidelity import metrics
from workflow_scripts.fidelity.comparison import SUBSETS, Side
from workflow_scripts.fidelity.score import distribution_values
from workflow_scripts.fidelity.settings import Settings

MINE = """
from workflow_scripts.common.measurement import Metric

METRICS = (Metric("mean_of_both", "Mean", "none", 1, ("Made", "Real")),)


def measure(comparison, results):
    results.add(METRICS[0], comparison, float((comparison.x.mean() + comparison.y.mean()) / 2))
"""


def sides():
    rng = np.random.default_rng(3)
    subsets = np.zeros((24, len(SUBSETS)), dtype=bool)
    subsets[:, 0] = True
    patients = np.array([f"p{i // 2}" for i in range(24)])
    return [Side(rng.standard_normal((24, 4)), subsets, patients) for _ in range(2)]


def measured(real, generated):
    settings = Settings(kid_bootstrap=5)
    cosines = np.linspace(0, 1, len(generated.features))
    return distribution_values(
        real, generated, settings, torch.device("cpu"), cosines=cosines
    ).values


def test_every_declared_metric_has_a_value_or_a_reason_in_every_subset():
    keys = [(value.metric, value.subset) for value in measured(*sides())]
    declared = [m.key for module in metrics.metric_modules() for m in module.METRICS]
    assert sorted(keys) == sorted((key, subset) for key in declared for subset in SUBSETS)
    assert len(declared) == len(set(declared)) == 11


def test_the_bounds_of_a_mean_cosine_are_cosines():
    """Of two patients, Student's interval reaches from -5.9 to 6.7."""
    real, generated = sides()
    generated = generated.only(np.array([0, 23]))
    value = next(v for v in measured(real, generated) if v.metric == "alignment")
    assert value.interval == (-1.0, 1.0)


def test_a_value_has_the_direction_that_its_metric_declares():
    directions = {metric.key: metric.direction for metric in metrics.declared()}
    for value in measured(*sides()):
        assert value.direction == directions[value.metric]


def test_a_file_of_ones_own_is_found_and_measures(tmp_path, monkeypatch):
    (tmp_path / "zz_mine.py").write_text(MINE)
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    real, generated = sides()
    subsets = np.ones_like(real.subsets)
    real, generated = (Side(s.features, subsets, s.patients) for s in (real, generated))
    by_subset = {v.subset: v for v in measured(real, generated) if v.metric == "mean_of_both"}
    assert set(by_subset) == set(SUBSETS)
    expected = (real.features.mean() + generated.features.mean()) / 2
    assert np.isclose(by_subset["all"].value, expected)
    assert "mean_of_both" in {metric.key for metric in metrics.declared()}
