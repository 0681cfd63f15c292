"""The paper's models: their names, which differ from table to table, and groups of them."""

import re
from collections.abc import Iterable
from typing import Final

from workflow_scripts.common.errors import InputError

NAMES: Final = {
    "sd_v1_4": "SD V1-4",
    "sd_v1_5": "SD V1-5",
    "sd_v2": "SD V2",
    "sd_v2_1": "SD V2-1",
    "radedit": "RadEdit",
    "pixart_sigma": "Pixart Sigma",
    "sana": "Sana",
    "sd_v3_5": "SD V3-5",
    "lumina_2": "Lumina 2.0",
    "flux_1_dev": "Flux.1-Dev",
    "llm_cxr": "LLM-CXR",
}
"""The paper's eleven models, by config key."""

EARLIER: Final = ("sd_v1_4", "sd_v1_5", "sd_v2", "sd_v2_1")
"""The models that the text calls earlier Stable Diffusion variants."""

LARGER: Final = ("sd_v3_5", "lumina_2", "flux_1_dev")
"""The larger models apart from LLM-CXR: those adapted by LoRA."""

HIGH_FIDELITY: Final = ("radedit", "pixart_sigma", "sana")
"""The models that Section 3.3 calls high-fidelity."""

_OTHER_NAMES: Final = {
    "Pixart": "pixart_sigma",
    "Pixart Σ": "pixart_sigma",
    "Pixart- Σ": "pixart_sigma",
    "SD V3.5 Medium": "sd_v3_5",
    "SD v3.5": "sd_v3_5",
    "Lumina 2": "lumina_2",
    "Lum. 2.0": "lumina_2",
    "Flux": "flux_1_dev",
    "Flux.1": "flux_1_dev",
    "SD-V1-4, LlaVA-Rad": "sd_v1_4",
    "SD-V1-5, LlaVA-Rad": "sd_v1_5",
    "SD-V2, LlaVA-Rad": "sd_v2",
    "SD-V1-4, Original MIMIC": "sd_v1_4_impression",
    "SD-V1-5, Original MIMIC": "sd_v1_5_impression",
    "SD-V2, Original MIMIC": "sd_v2_impression",
    "Original": "real",
    "Baseline (None)": "real",
    "Original (Real)": "real",
    "Original (Real Data Only)": "real",
}
"""Config keys by the other names that tables use; `real` is the baseline of real images."""

_KEYS: Final = {name: key for key, name in NAMES.items()} | _OTHER_NAMES


def names(keys: Iterable[str]) -> str:
    """Return the names of models as one text for readers; `none` for no model."""
    return listed(NAMES.get(key, key) for key in keys)


def listed(texts: Iterable[str]) -> str:
    """Return texts joined by commas; `none` for no text."""
    return ", ".join(texts) or "none"


def model_key(name: str) -> str:
    """Return the config key of a model from its name in a table.

    A citation or a number of training images in parentheses after the name is ignored, and so is
    `Real Data + ` before it.

    Raises:
        InputError: the paper has no such model.
    """
    plain = re.sub(r"\s*\(([^()]*\d{4}|N=[\d,]+)\)$", "", name.strip())
    plain = plain.removeprefix("Real Data + ")
    if plain not in _KEYS:
        raise InputError(
            f"the paper has no model {name!r}", "workflow_scripts/paper_audit/published"
        )
    return _KEYS[plain]
