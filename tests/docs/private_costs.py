"""What a guarantee costs at real size, worked out from counts: the table of guarantee.md.

    python -m tests.docs.private_costs

Nothing is run: the networks are built without weights, and their trained parameters counted.
"""

from pathlib import Path
from typing import Final

import torch
import yaml

from tests.gpu.published import NETWORKS
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.lora import LoraSettings, add_lora, trained_parameters
from workflow_scripts.preflight.cost_model import TRAINING_IMAGES
from workflow_scripts.preflight.needs import TRAINING_PATIENTS

SYSTEMS: Final = {
    "sd_v1_5": ("SD 1.4, 1.5", "sd1"),
    "sd_v2_1": ("SD 2, 2.1", "sd2"),
    "pixart_sigma": ("PixArt-Sigma", "pixart_sigma"),
    "sana": ("Sana", "sana"),
    "sd_v3_5": ("SD 3.5", "stable_diffusion_3"),
    "lumina_2": ("Lumina 2", "lumina2"),
    "flux_1_dev": ("FLUX.1", "flux"),
}
"""Of a key of the config: its name, and its network in `NETWORKS`."""

WITHOUT_LORA: Final = ("pixart_sigma",)
"""Whose diffusers pipeline cannot save an adapter."""

CONFIG: Final = Path(__file__).parents[2] / "config.yaml"
RANK: Final = 32
"""The paper's, also where the config trains in full."""

_BYTES: Final = 4  # of a gradient: trained weights are float32
HEAD: Final = (
    "| system | trained | parameters (million) | kept here (GB) | batch of gradients (GB) "
    "| passes | without |\n|---|---|---|---|---|---|---|"
)


def trained(family: str, network: str, lora: bool) -> int:
    """Return how many parameters are trained: all, or LoRA's of the rank on the attention."""
    import diffusers

    kind, config = NETWORKS[network]
    with torch.device("meta"):
        built = getattr(diffusers, kind)(**config)
    if not lora:
        return sum(parameter.numel() for parameter in built.parameters())
    add_lora(built, get_family(family), LoraSettings(RANK, RANK, True, ("attention",)))
    return sum(parameter.numel() for parameter in trained_parameters(built).values())


def rows() -> list[str]:
    """Return the table's rows, by system and kind of fine-tuning."""
    models = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["models"]
    found = []
    for key, (name, network) in SYSTEMS.items():
        block = models[key]
        tuned = block["finetune"]
        batch, most = tuned["batch_size"], tuned["per_device_batch_size"]
        patients = batch * TRAINING_PATIENTS / TRAINING_IMAGES
        methods = [False, True] if tuned["method"] == "full" else [True]
        for lora in methods:
            if lora and key in WITHOUT_LORA:
                continue
            count = trained(block["family"], network, lora)
            one = count * _BYTES / 1e9
            found.append(
                f"| {name} | {f'LoRA, rank {RANK}' if lora else 'in full'} | {count / 1e6:,.1f} "
                f"| {one:.2f} | {one * batch:,.1f} | {patients:.0f} | {batch / most:.0f} |"
            )
    return found


def table() -> str:
    """Return the table as Markdown."""
    return "\n".join([HEAD, *rows()])


if __name__ == "__main__":
    print(table())
