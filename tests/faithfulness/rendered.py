"""Radiographs of the embedded world's renderer, a judge trained on them, and stress images."""

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from workflow_scripts.cohort import stress_prompts
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.pixels import normalise, to_unit
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.faithfulness.contrasts import Radiographs
from workflow_scripts.faithfulness.evidence import Readings, halves, read_images
from workflow_scripts.world import external_model
from workflow_scripts.world.anatomy import draw_patient, draw_study
from workflow_scripts.world.captions import describe
from workflow_scripts.world.findings import draw_finding
from workflow_scripts.world.radiograph import Radiograph, render

SIZE = 128
CPU = torch.device("cpu")
KNOWN = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Pleural Effusion",
    "Support Devices",
)
"""The findings that the judge learns: it sees some hundred patients, and each adds many."""

_SEED = 7


def radiographs(count: int, first: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draw patients with none to two findings: pixels, labels (n, 14), captions."""
    rng = np.random.default_rng(first)
    pixels, labels, captions = [], [], []
    for number in range(first, first + count):
        chosen = rng.choice(KNOWN, int(rng.integers(0, 3)), replace=False)
        drawn = tuple(draw_finding(str(name), number * 20 + k) for k, name in enumerate(chosen))
        view = "AP" if number % 2 else "PA"
        pixels.append(render(draw_patient(number), draw_study(number, view), drawn, SIZE).image)
        labels.append([name in chosen for name in FINDINGS])
        captions.append(describe(drawn, view, number))
    return np.stack(pixels), np.array(labels), captions


def trained_judge(pixels: np.ndarray, labels: np.ndarray, epochs: int = 10) -> ResNet:
    """Train a small ResNet on radiographs alone."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = ResNet((1, 1, 1, 1), width=8, outputs=len(FINDINGS))
    steps = epochs * -(-len(pixels) // 32)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    targets = torch.from_numpy(labels.astype(np.float32))
    for _ in range(epochs):
        order = rng.permutation(len(pixels))
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            logits = network(normalise(to_unit(pixels[rows], CPU)))
            loss = functional.binary_cross_entropy_with_logits(logits, targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def readings(judge: ResNet, pixels: np.ndarray) -> Readings:
    """Return what the judge says, by the halves of the images."""
    return read_images([judge], pixels, halves(len(pixels)), 64, CPU)


def held_out(judge: ResNet, pixels: np.ndarray, labels: np.ndarray, captions: Sequence[str]):
    """Return radiographs of one patient each, for the ceilings."""
    patients = np.array([f"p{k}" for k in range(len(pixels))])
    return Radiographs(readings(judge, pixels), patients, labels, list(captions))


def many_groups() -> pd.DataFrame:
    """Return stress prompts of the known findings: more groups of each than the published set.

    Effusions alone are asked about 40 times: the AUROC of 10 pairs moves by 0.1 with their sides.
    """
    findings = set(KNOWN)
    effusions_only = 120
    groups = {
        "presence": 480,
        "side": 30,
        "severity": 60,
        "zone": 36,
        "device": 48,
        "view": 0,
        "wording": 24,
    }
    rows = []
    for contrast, count in groups.items():
        for number in range(count):
            made = stress_prompts._MAKERS[contrast](number)
            asked = findings
            if contrast == "presence" and number >= effusions_only:
                asked = {"Pleural Effusion"}
            for level, content in made:
                if content.finding in asked:
                    rows.append(
                        {
                            "prompt_id": f"stress-{contrast}-{number:03d}-{level}",
                            "caption": stress_prompts.caption_of(content),
                            "seed": stress_prompts._seed(contrast, number),
                            "contrast": contrast,
                            "group": number,
                            "level": level,
                            "finding": content.finding,
                        }
                    )
    return pd.DataFrame(rows)


@functools.cache
def _rendered(*arguments: object) -> object:
    return render(*arguments)


def drawn(stress: pd.DataFrame, fault: str | None, monkeypatch) -> list[Radiograph]:
    """Draw the stress prompts with a fault; what two faults draw alike is drawn once."""
    monkeypatch.setattr(external_model, "render", _rendered)
    return [
        external_model.draw(row.prompt_id, row.caption, row.seed, _SEED, SIZE, fault)
        for row in stress.itertuples()
    ]
