"""Where the records of a run lie. No function here needs Snakemake."""

from collections.abc import Sequence
from typing import Final

SYNTHETIC_SETTINGS: Final = {
    "classification": ["augmented", "synthetic_only"],
    "segmentation": ["augmented"],
    "report_generation": ["augmented", "synthetic_only"],
}
"""With which synthetic images each downstream task is trained, beside real data alone."""


def fidelity_records(encoders: Sequence[str], models: Sequence[str]) -> list[str]:
    """Return the records of fidelity, of each encoder and model with images of the test set."""
    return [f"results/fidelity/{encoder}/{m}.json" for encoder in encoders for m in models]


def privacy_records(models: Sequence[str], other_protocol: str) -> list[str]:
    """Return the records of privacy.

    Args:
        models: with images of the privacy set; without any there is no attacker to compare with.
        other_protocol: the one that the config does not name: scores and attacker under it, too.
    """
    other = f"{other_protocol}/"
    attackers = [f"{folder}attacker/real" for folder in ("", other) if models]
    folders = ["", other, "closest/", "novelty/", "lenses/"]
    names = [f"{folder}{model}" for folder in folders for model in models]
    return [f"results/privacy/{name}.json" for name in attackers + names]


def guarantee_records(models: Sequence[str]) -> list[str]:
    """Return the records of guarantees and of the attack on them.

    Args:
        models: fine-tuned with a guarantee or with canaries.
    """
    return [f"results/privacy/guarantee/{m}.json" for m in models]


def downstream_records(tasks: Sequence[str], models: Sequence[str]) -> list[str]:
    """Return the records of downstream: of each task real data alone, then each setting and model.

    Args:
        tasks: of the run, keys of `SYNTHETIC_SETTINGS`.
        models: with images of the augmentation set.
    """
    names = []
    for task in tasks:
        names.append(f"{task}/real_only/real")
        names += [f"{task}/{setting}/{m}" for setting in SYNTHETIC_SETTINGS[task] for m in models]
        if task == "segmentation":
            names.append("segmentation/labeller/real")
        if task == "report_generation":
            names.append("report_generation/released/real")
    return [f"results/downstream/{name}.json" for name in names]


def faithfulness_records(judges: Sequence[str], models: Sequence[str]) -> list[str]:
    """Return the records of faithfulness: of the radiographs themselves, then of each model.

    Args:
        judges: that say which findings an image shows.
        models: with images of the test set.
    """
    families = [*(f"findings/{judge}" for judge in judges), "anatomy", "texture"]
    names = ["anatomy/real", "labeller/real"]
    names += [f"{family}/{model}" for family in families for model in models]
    return [f"results/faithfulness/{name}.json" for name in names]


def stress_records(models: Sequence[str]) -> list[str]:
    """Return the records of the stress set.

    Args:
        models: whose images of it are judged.
    """
    return [f"results/faithfulness/stress/{m}.json" for m in models]
