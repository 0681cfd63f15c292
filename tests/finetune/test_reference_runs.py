"""`finetune` beside the reference trainers: the same draws, the same losses, step after step.

With the learning rates, warm-ups, clips and optimisers of the paper's config, larger rates apart.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.finetune import reference
from tests.finetune.conftest import SIDE, write_cohort
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.lora import LoraSettings
from workflow_scripts.finetune.train import finetune

STEPS = 10
RANK = 4
COMMON = {"batch_size": 4, "per_device_batch_size": 2, "caption_dropout": 0.3, "size": SIDE}
FULL = {"learning_rate": 2e-3, "max_grad_norm": 1.0, "weight_decay": 1e-2}
CAME = {"auto_learning_rate": True, "weight_decay": 0.0, "learning_rate": 4e-3}
LORA = {
    "method": "lora",
    "lora": LoraSettings(RANK, RANK, True, ("attention",)),
    "learning_rate": 1e-2,
    "ema_decay": 0.99,
}
RUNS = {
    "stable_diffusion 1": (reference.StableDiffusion, FULL),
    "stable_diffusion 2": (reference.StableDiffusion2, FULL),
    "pixart_sigma": (
        reference.PixArtSigma,
        {**CAME, "optimiser": "came", "max_grad_norm": 0.01, "warmup_steps": 4},
    ),
    "sana": (
        reference.Sana,
        {**CAME, "optimiser": "came_sana", "max_grad_norm": 0.1, "warmup_steps": 8},
    ),
    "stable_diffusion_3": (reference.StableDiffusion3, LORA),
    "lumina2": (reference.Lumina2, LORA),
    "flux": (reference.Flux, LORA),
}


@pytest.mark.parametrize("run", RUNS)
def test_ten_steps_have_the_losses_of_the_reference(
    run, base_of, tiny_sd, two_images, settings, tmp_path
):
    name, _, version = run.partition(" ")
    base = tiny_sd[int(version)] if version else base_of(name)
    kind, changed = RUNS[run]
    chosen = settings(**COMMON, **changed, epochs=STEPS * COMMON["batch_size"] / 2)
    pictures = {
        caption: np.asarray(Image.fromarray(image).resize((SIDE, SIDE)))
        for caption, image in two_images.items()
    }
    manifest = write_cohort(tmp_path, pictures)
    finetune(get_family(name), base, manifest, tmp_path / "span", tmp_path / "progress", chosen)
    found = pd.read_csv(tmp_path / "span" / "training.csv")["loss"].to_numpy()

    expected = kind(base.folder)
    if chosen.lora:
        weights = reference.adapters(expected.network, first_factors(kind, base), RANK, RANK)
    else:
        weights = list(expected.network.requires_grad_(True).parameters())
    expected.network.train()
    if "optimiser" in changed:
        optimiser = reference.Came(weights, as_sana=name == "sana")
    else:
        optimiser = reference.AdamW(weights, chosen.weight_decay)
    losses = reference.train(expected, weights, optimiser, pictures, chosen, STEPS)
    # The curve is written with six digits.
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    assert len(losses) == STEPS
    assert losses[-1] != pytest.approx(losses[0], rel=1e-3)


def first_factors(kind, base):
    """Return the factors that peft draws for the run's seed, by the modules that they stand at."""
    from peft import LoraConfig

    network = kind(base.folder).network
    torch.manual_seed(1)
    network.add_adapter(LoraConfig(r=RANK, target_modules=list(reference.ATTENTION)))
    ending = ".lora_A.default.weight"
    return {
        key.removesuffix(ending): value.detach()
        for key, value in network.named_parameters()
        if key.endswith(ending)
    }
