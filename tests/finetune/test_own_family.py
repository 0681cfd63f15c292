"""A family from outside the package: the docs' own example, trained and sampled."""

import re

import numpy as np

from tests.workflow.checkouts import ROOT
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.train import main


def test_the_docs_family_trains_and_is_refused_nothing(
    tiny_sd, two_images, cohort_writer, tmp_path, monkeypatch
):
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/how-to/new-model.md").read_text(), re.DOTALL
    )
    source = next(block for block in blocks if "class MinSnr" in block)
    assert source.count("\n") < 100
    (tmp_path / "my_families.py").write_text(source)
    manifest = cohort_writer(tmp_path, two_images)
    flags = {
        "model": "mine",
        "family": "my_families:MinSnr",
        "base": tiny_sd[1].folder,
        "manifest": manifest,
        "output": tmp_path / "span",
        "progress": tmp_path / "progress",
        "learning-rate": 1e-3,
        "epochs": 4,
        "batch-size": 4,
        "per-device-batch-size": 4,
        "size": 32,
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    monkeypatch.syspath_prepend(tmp_path)
    main(words)
    curve = np.genfromtxt(tmp_path / "span" / "training.csv", delimiter=",", names=True)
    assert np.isfinite(curve["loss"]).all()
    assert (tmp_path / "span" / "checkpoint" / "model_index.json").is_file()
    encoders = get_family("my_families:MinSnr").text_encoders(Base(tiny_sd[1].folder))
    assert [(encoder.name, encoder.folder.is_dir()) for encoder in encoders] == [("CLIP", True)]
