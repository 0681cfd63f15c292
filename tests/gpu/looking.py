"""What faithfulness adds to CXAS, and steps of a re-identification network, at published sizes.

Weights are random. A judge is a classifier of 14 findings, with as many images as CXAS has at a
time: its passes are those of `faithfulness.look` and of `look_stress`. Organs are measured on drawn
ellipses, on one core, as a look measures them while it holds the GPU.
"""

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tests.gpu.building import ROOT
from tests.gpu.downstream import FINDINGS, step_of
from tests.gpu.lines import Writer
from tests.gpu.measure import peak_gib, seconds_of
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.features.extract import compute_exactly
from workflow_scripts.preflight.cost_model import judge_settings, organ_settings, reid_settings

ELLIPSES: Final = {
    "heart": (0.55, 0.62, 0.16, 0.14),
    "right_lung": (0.30, 0.45, 0.14, 0.30),
    "left_lung": (0.72, 0.45, 0.14, 0.30),
    "right_clavicle": (0.32, 0.16, 0.13, 0.03),
    "left_clavicle": (0.68, 0.16, 0.13, 0.03),
}
"""Of each organ: column and row of the centre, and half the width and height, in sides."""

PUBLISHED: Final[dict[str, Any]] = {"seed": 0, "rotation_degrees": 5.0, "contrast": 0.1}
"""The training of a re-identification network: sizes are the published ones, `ReidSettings`'."""


def time_judging(device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure a judge's passes, those that also say where, and the measuring of organs."""
    import yaml

    from workflow_scripts.downstream.classification.network import predict
    from workflow_scripts.faithfulness.anatomy import measure
    from workflow_scripts.faithfulness.evidence import halves, read_images

    compute_exactly()
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["downstream"]
    if tiny:
        config["classification"]["size"] = 32
        config["segmentation"]["labeller"] |= {"size": 64, "batch_size": 2}
    size = config["classification"]["size"]
    labeller = config["segmentation"]["labeller"]
    batch, repeats = labeller["batch_size"], 1 if tiny else 10
    torch.manual_seed(0)
    network = ResNet((1, 1, 1, 1), 4, FINDINGS) if tiny else ResNet(outputs=FINDINGS)
    network = network.eval().to(device)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size), dtype=np.uint8)
    settings = judge_settings(config)
    taken = seconds_of(lambda: predict(network, pixels, batch, device), device, repeats)
    say("passes per second", batch / taken, "1/s", settings)
    regions = halves(batch, labeller["size"])
    taken = seconds_of(
        lambda: read_images([network], pixels, regions, batch, device), device, repeats
    )
    say("passes with evidence per second", batch / taken, "1/s", settings)
    organs = drawn_organs(labeller["size"])
    taken = seconds_of(lambda: measure(organs), device, repeats)
    say("images measured per second", 1 / taken, "1/s", f"{organ_settings(config)}, one core")


def drawn_organs(size: int) -> dict[str, NDArray[np.bool_]]:
    """Return ellipses in the place of organs, bool (size, size) each."""
    row, column = (np.mgrid[:size, :size] + 0.5) / size
    return {
        name: ((column - x) / width) ** 2 + ((row - y) / height) ** 2 <= 1
        for name, (x, y, width, height) in ELLIPSES.items()
    }


def time_reid_training(device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure a step of a re-identification network, with augmentation and optimiser."""
    from workflow_scripts.common.settings import settings_of_block
    from workflow_scripts.features.encoders.reid import SiameseNetwork
    from workflow_scripts.features.settings import ReidSettings
    from workflow_scripts.features.train_reid import WIDTH, Pairs, Population, VerificationTask

    given = PUBLISHED | ({"size": 32, "batch_size": 4} if tiny else {})
    settings = settings_of_block(ReidSettings, given)
    images = 2 * settings.batch_size
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, settings.size, settings.size), dtype=np.uint8)
    rows = np.arange(images)
    patients = np.char.add("p", (rows // 2).astype(str))  # each has two images
    first = rows[:1]
    task = VerificationTask(
        pixels, (rows, Population(patients, np.full(images, "one site"))),
        Pairs(first, first, np.ones(1, bool)), settings, device,
    )  # fmt: skip
    torch.manual_seed(0)
    branch = ResNet((1, 1, 1, 1), 4, WIDTH) if tiny else ResNet(outputs=WIDTH)
    network = SiameseNetwork(branch).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    step, shown = step_of(network, optimiser, task, rows[: settings.batch_size], device, "no")
    said = reid_settings(given)
    taken = seconds_of(step, device, 1 if tiny else 5)
    note = f"{said}, images in the host's memory"
    say("pairs per second", settings.batch_size / taken, "1/s", note)
    say("peak memory", peak_gib(step, device), "GiB", said)
    say.losses(shown)
