"""The head of torchxrayvision's DenseNet-121: findings from their outputs, none untrained."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.faithfulness.findings import finding_values
from workflow_scripts.faithfulness.judges import DENSENET_OUTPUTS, DenseNetHead
from workflow_scripts.features.encoders.densenet_121 import DenseNet121

# As torchxrayvision lists the outputs of `mimic_ch`; the empty ones were not trained.
PUBLISHED = [
    "Atelectasis", "Consolidation", "", "Pneumothorax", "Edema", "", "", "Effusion", "Pneumonia",
    "", "Cardiomegaly", "", "", "", "Lung Lesion", "Fracture", "Lung Opacity",
    "Enlarged Cardiomediastinum",
]  # fmt: skip


@torch.no_grad()
def test_each_finding_is_read_from_its_output_and_untrained_ones_are_unknown(tmp_path):
    network = DenseNet121()
    network.classifier.weight.zero_()
    network.classifier.bias.copy_(torch.arange(18) / 10)
    save_file(network.state_dict(), tmp_path / "densenet.safetensors")
    judge = DenseNetHead(tmp_path / "densenet.safetensors", "sound", torch.device("cpu"))
    image = Image.fromarray(np.full((64, 64), 90, np.uint8))
    (seen,) = judge.judge([judge.prepare(image)])
    for finding, value in zip(FINDINGS, seen, strict=True):
        theirs = "Effusion" if finding == "Pleural Effusion" else finding
        if theirs in PUBLISHED:
            logit = PUBLISHED.index(theirs) / 10
            assert value == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
        else:
            assert np.isnan(value)
    known = {finding for finding, knows in zip(FINDINGS, judge.knows, strict=True) if knows}
    assert known == set(DENSENET_OUTPUTS)
    assert len(known) == 11


def test_a_judge_is_not_asked_what_it_was_not_trained_on():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 14)) < 0.4).astype(float)
    scores = np.clip(labels * 0.4 + rng.random((300, 14)) * 0.6, 0, 1)
    knows = np.arange(14) != 3
    scores[:, 3] = np.nan
    patients = np.repeat(np.arange(100), 3).astype(str)
    values = finding_values(labels, patients, scores, scores, 50, 0, knows)
    found = {(value.metric, value.subset): value for value in values}
    unknown = found["judged_share", FINDINGS[3]]
    assert unknown.reason == "the judge was not trained on this finding"
    assert found["judged_share", "all"].value == 1
    others = [found["judged_auroc", name].value for k, name in enumerate(FINDINGS) if k != 3]
    assert found["judged_auroc", "all"].value == pytest.approx(np.mean(others))
