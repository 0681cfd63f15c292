"""The paper's whole config over files that are there in name alone: enough to plan on."""

import yaml

from workflow_scripts.preflight.check import read_config

# The paper's systems whose families a later version adds: planning must not need their code.
LATER = {
    "radedit": "radedit",
    "pixart_sigma": "pixart_sigma",
    "sana": "sana",
    "sd_v3_5": "stable_diffusion_3",
    "lumina_2": "lumina2",
    "flux_1": "flux",
    "llm_cxr": "llm_cxr",
}


def write_overlay(checkout, overlay):
    """Write a config overlay into a checkout; return the flags that use it."""
    (checkout / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    return ["--configfile", "config.yaml", "overlay.yaml"]


def make_stub_sources(checkout):
    """Make empty files where MIMIC-CXR-JPG's tables and the annotations would lie."""
    names = [
        f"data/mimic-cxr-jpg/2.0.0/mimic-cxr-2.0.0-{name}.csv.gz"
        for name in ("metadata", "split", "chexpert")
    ]
    names += [
        f"data/llava-rad/chat_{split}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
        for split in ("train", "dev", "test")
    ]
    for name in names:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    return checkout


def paper_overlay(checkout):
    """Write an overlay with the paper's eleven systems and the controls; return its flags."""
    config = read_config([str(checkout / "config.yaml")])
    template = config["models"]["sd_v1_4"]
    models = {
        key: template | {"family": family, "base": f"weights/{key}", "display": {"name": key}}
        for key, family in LATER.items()
    }
    for key in ("radedit", "llm_cxr"):  # not fine-tuned
        models[key] = {k: v for k, v in models[key].items() if k != "finetune"}
    run_models = [*config["run_models"][:4], *models, *config["run_models"][4:]]
    return write_overlay(checkout, {"models": models, "run_models": run_models})
