"""How the paper names its models, each table a little differently."""

import re
from typing import Final

from workflow_scripts.common.errors import InputError

_MODEL_KEYS: Final = {
    "SD V1-4": "sd_v1_4",
    "SD V1-5": "sd_v1_5",
    "SD V2": "sd_v2",
    "SD V2-1": "sd_v2_1",
    "RadEdit": "radedit",
    "Pixart Sigma": "pixart_sigma",
    "Pixart Σ": "pixart_sigma",
    "Pixart- Σ": "pixart_sigma",
    "Sana": "sana",
    "SD V3.5 Medium": "sd_v3_5",
    "SD V3-5": "sd_v3_5",
    "SD v3.5": "sd_v3_5",
    "Lumina 2.0": "lumina_2",
    "Lumina 2": "lumina_2",
    "Lum. 2.0": "lumina_2",
    "Flux.1-Dev": "flux_1_dev",
    "Flux": "flux_1_dev",
    "LLM-CXR": "llm_cxr",
    "SD-V1-4, LlaVA-Rad": "sd_v1_4",
    "SD-V1-5, LlaVA-Rad": "sd_v1_5",
    "SD-V2, LlaVA-Rad": "sd_v2",
    "SD-V1-4, Original MIMIC": "sd_v1_4_impression",
    "SD-V1-5, Original MIMIC": "sd_v1_5_impression",
    "SD-V2, Original MIMIC": "sd_v2_impression",
    "Flux.1": "flux_1_dev",
    "Original": "real",
    "Baseline (None)": "real",
    "Original (Real)": "real",
    "Original (Real Data Only)": "real",
    "Real Data + SD V1-4": "sd_v1_4",
    "Real Data + SD V1-5": "sd_v1_5",
    "Real Data + RadEdit": "radedit",
    "Real Data + Pixart": "pixart_sigma",
    "Real Data + Sana": "sana",
}
"""How the paper names its models (each table a little differently), and their config keys."""


def model_key(name: str) -> str:
    """Return the config key of a model as the paper names it.

    With or without its citation, or the number of training images that Table 6 sets there.

    Raises:
        InputError: the paper has no such model.
    """
    plain = re.sub(r"\s*\(([^()]*\d{4}|N=[\d,]+)\)$", "", name.strip())
    if plain not in _MODEL_KEYS:
        raise InputError(
            f"the paper has no model {name!r}", "workflow_scripts/paper_audit/published"
        )
    return _MODEL_KEYS[plain]
