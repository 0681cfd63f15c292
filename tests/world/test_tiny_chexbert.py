"""The world's CheXbert labels unseen captions, and its file is reproducible."""

from pathlib import Path

import numpy as np
import pytest
import torch

from workflow_scripts.common.files import sha256_of
from workflow_scripts.downstream.report_generation.metrics import chexbert, chexbert_classes
from workflow_scripts.downstream.report_generation.metrics.chexbert_classes import HEADS
from workflow_scripts.world import tiny_chexbert
from workflow_scripts.world.population import draw_population

CLASSES = {
    1: chexbert_classes.POSITIVE,
    0: chexbert_classes.NEGATIVE,
    -1: chexbert_classes.UNCERTAIN,
    None: chexbert_classes.BLANK,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("chexbert")
    tiny_chexbert.write_chexbert(out, 7)
    return out


@pytest.mark.full
def test_it_labels_the_worlds_captions(weights: Path):
    exposures = [e for e in draw_population(120, 11) if e.caption is not None]
    labeller = chexbert.load(
        weights / tiny_chexbert.CHEXBERT, weights / tiny_chexbert.BERT, torch.device("cpu")
    )
    labels = labeller.label([e.caption or "" for e in exposures], 64, "captions")
    truth = np.array([[CLASSES[e.labels[name]] for name in HEADS] for e in exposures])
    assert (labels == truth).mean() > 0.97
    for uncertain in (False, True):
        pair = (chexbert_classes.is_positive(side, uncertain) for side in (truth, labels))
        assert chexbert_classes.micro_f1(chexbert_classes.agreement(*pair).sum(axis=0)) > 0.9


def test_drawn_captions_say_what_their_classes_say():
    captions, classes = tiny_chexbert.draw_captions(300, 1)
    column = list(HEADS).index("Pleural Effusion")
    for caption, row in zip(captions, classes, strict=True):
        assert ("effusion" in caption.lower()) == (row[column] != chexbert_classes.BLANK)
    assert set(np.unique(classes)) == {0, 1, 2, 3}
    assert set(np.unique(classes[:, -1])) == {0, 1}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path):
    for name in ("one", "two"):
        tiny_chexbert.write_chexbert(tmp_path / name, 3, steps=3)
    assert sha256_of(tmp_path / "one") == sha256_of(tmp_path / "two")
