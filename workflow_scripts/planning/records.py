"""The paths of a run's records. No function here needs Snakemake."""

from collections.abc import Sequence

from workflow_scripts.common.folders import parts


def fidelity_records(encoders: Sequence[str], models: Sequence[str]) -> list[str]:
    """Return the records of fidelity, one for each encoder and model with test images."""
    return [f"results/fidelity/{encoder}/{m}.json" for encoder in encoders for m in models]


def privacy_records(models: Sequence[str], other_protocol: str) -> list[str]:
    """Return the records of privacy.

    Args:
        models: the models with images of the privacy set. Without any, the attacker has no record.
        other_protocol: the protocol that the config does not name, under which scores and attacker
            have records, too.
    """
    other = f"{other_protocol}/"
    attackers = [f"{folder}attacker/real" for folder in ("", other) if models]
    folders = ["", other, "closest/", "novelty/", "lenses/"]
    names = [f"{folder}{model}" for folder in folders for model in models]
    scores = [f"results/privacy/{name}.json" for name in attackers + names]
    scores += [record for part in parts("privacy") for record in part.records(models)]
    return scores + extraction_records(models)


def membership_records(models: Sequence[str]) -> list[str]:
    """Return the records of attacks on membership.

    Args:
        models: the models that were trained, here or elsewhere.
    """
    return [f"results/privacy/membership/{m}.json" for m in models]


def extraction_records(models: Sequence[str]) -> list[str]:
    """Return the records of the extraction attack."""
    return [f"results/privacy/extraction/{m}.json" for m in models]


def guarantee_records(models: Sequence[str]) -> list[str]:
    """Return the records of guarantees and of the attack on them.

    Args:
        models: the models fine-tuned with a guarantee or with canaries.
    """
    return [f"results/privacy/guarantee/{m}.json" for m in models]


def downstream_records(tasks: Sequence[str], models: Sequence[str]) -> list[str]:
    """Return the records of downstream, in the order of the tasks' families.

    Args:
        tasks: the run's tasks, which are folders of `workflow_scripts/downstream`.
        models: the models with images of the augmentation set.
    """
    known = {part.name: part for part in parts("downstream")}
    return [record for task in tasks for record in known[task].records(models)]


def faithfulness_records(judges: Sequence[str], models: Sequence[str]) -> list[str]:
    """Return the records of faithfulness: first the radiographs', then each model's.

    Args:
        judges: the networks that predict an image's findings.
        models: the models with images of the test set.
    """
    families = [*(f"findings/{judge}" for judge in judges), "anatomy", "texture"]
    names = ["anatomy/real", "labeller/real"]
    names += [f"{family}/{model}" for family in families for model in models]
    return [f"results/faithfulness/{name}.json" for name in names]


def round_trip_records(models: Sequence[str]) -> list[str]:
    """Return the records of reports on generated images.

    Args:
        models: the models with images of the test set.
    """
    return [f"results/faithfulness/round_trip/{m}.json" for m in models]


def stress_records(models: Sequence[str]) -> list[str]:
    """Return the records of the stress set.

    Args:
        models: the models whose images are judged.
    """
    return [f"results/faithfulness/stress/{m}.json" for m in models]


def curate_records(models: Sequence[str], *, worth: bool, also: Sequence[str] = ()) -> list[str]:
    """Return the records of curated sets: of each filter, and of what each set is worth.

    Args:
        models: the models for which every run makes a set.
        worth: whether classifiers are trained on the sets.
        also: the other tasks that networks are trained for on the sets.
    """
    tasks = ("worth", *(f"worth_{task}" for task in also)) if worth else ()
    names = ("filter", *tasks)
    return [f"results/curate/{model}/{name}.json" for model in models for name in names]
