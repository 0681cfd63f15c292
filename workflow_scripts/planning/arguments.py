"""The flags of the rules' scripts, quoted for the shell. No function here needs Snakemake."""

import json
from collections.abc import Sequence

from workflow_scripts.common.config import caption_source_of, prompt_sets_of
from workflow_scripts.common.manifest import COHORT_PROMPT_SETS, PROMPT_SETS, STRESS
from workflow_scripts.common.settings import flag_values
from workflow_scripts.curate.settings import CurateSettings
from workflow_scripts.downstream.classification.settings import ClassifierSettings
from workflow_scripts.downstream.report_generation.settings import ReporterSettings
from workflow_scripts.downstream.segmentation.settings import (
    DrawSettings,
    LabellerSettings,
    SegmenterSettings,
)
from workflow_scripts.features.settings import ReidSettings
from workflow_scripts.fidelity.settings import Settings as FidelitySettings
from workflow_scripts.generate.controls import ControlSettings
from workflow_scripts.planning.cohort import caption_source_in
from workflow_scripts.planning.flags import flags, labelled, quote, quoted
from workflow_scripts.planning.models import (
    ablation_settings,
    base_settings,
    canonical,
    sampling_settings,
    training_settings,
    tuning,
)
from workflow_scripts.planning.run import Run
from workflow_scripts.privacy.settings import ClosestSettings
from workflow_scripts.privacy.settings import Settings as PrivacySettings


def prompt_flags(run: Run, prompt_set: str) -> list[str]:
    """Return the flags that draw a prompt set."""
    settings = run.config["prompt_sets"][prompt_set]
    return flags({name: value for name, value in settings.items() if name != "shards"})


def finetune_flags(run: Run, model: str) -> list[str]:
    """Return the flags of a model's fine-tuning."""
    return flags(training_settings(run.block(model)))


def sample_flags(run: Run, model: str) -> list[str]:
    """Return the flags of sampling: where the weights lie, and the model's `generate` block."""
    return flags(sampling_settings(run.block(model), run.checkpoint(model)))


def sampled_block(run: Run, model: str) -> str:
    """Return what decides a model's images beside its checkpoint."""
    block = run.block(model)
    return canonical({key: block.get(key) for key in ("family", "base", "parts", "generate")})


def control_flags(run: Run, model: str) -> list[str]:
    """Return the flags of a control."""
    return flags(flag_values(ControlSettings, run.block(model)["control"]))


def external_flags(run: Run, model: str) -> list[str]:
    """Return the flags that import a user's images."""
    return flags(run.block(model)["external"])


def reid_flags(run: Run) -> list[str]:
    """Return the flags of the re-identification network's training; none where it is published."""
    return flags(flag_values(ReidSettings, run.config["encoders"]["reid"].get("train") or {}))


def encoder_flags(run: Run, names: Sequence[str]) -> list[str]:
    """Return the named encoders with their weights."""
    return [
        word
        for name in names
        for word in ("--encoder", quote(f"{name}={run.encoder_weights(name)}"))
    ]


def fidelity_flags(run: Run) -> list[str]:
    """Return the flags of the fidelity metrics."""
    return flags(flag_values(FidelitySettings, run.config["fidelity"]))


def privacy_flags(run: Run, only: Sequence[str] | None = None) -> list[str]:
    """Return the flags of the privacy scores; of some settings alone where they are named."""
    return flags(flag_values(PrivacySettings, run.config["privacy"], only))


def closest_flags(run: Run) -> list[str]:
    """Return the flags of the search of the closest training images alone."""
    return flags(flag_values(ClosestSettings, run.config["privacy"]))


def classifier_flags(run: Run) -> list[str]:
    """Return the flags of a classifier's training; each repeat has a seed of its own."""
    settings = run.config["downstream"]["classification"]
    return flags(flag_values(ClassifierSettings, settings, without=("seed",)))


def labeller_flags(run: Run) -> list[str]:
    """Return the flags of the pseudo-labeller: its network, and which prompts are drawn."""
    settings = run.config["downstream"]["segmentation"]
    network = flag_values(LabellerSettings, settings["labeller"])
    return flags(network | flag_values(DrawSettings, settings))


def segmenter_flags(run: Run) -> list[str]:
    """Return the flags of the U-Net's training; what masks depend on comes with their files."""
    settings = run.config["downstream"]["segmentation"]
    return flags(flag_values(SegmenterSettings, settings, without=("seed",)))


def exact_mask_flags(run: Run) -> list[str]:
    """Return where the masks drawn by hand lie and how masks are compared."""
    settings = run.config["downstream"]["segmentation"]
    return flags(flag_values(SegmenterSettings, settings, only=("exact_masks", "size")))


def reporter_flags(run: Run) -> list[str]:
    """Return the flags of a report generator's training."""
    settings = run.config["downstream"]["report_generation"]
    return flags(flag_values(ReporterSettings, settings, without=("seed",)))


def cxas_flags(run: Run) -> list[str]:
    """Return the flags of the network that draws organs: the pseudo-labeller's."""
    labeller = run.config["downstream"]["segmentation"]["labeller"]
    settings = {"cxas": labeller["weights"], "cxas_size": labeller["size"]}
    return flags({**settings, "batch_size": labeller["batch_size"]})


def looking_flags(run: Run) -> list[str]:
    """Return the flags of looking at images: the networks, and how many have texture measured."""
    settings = {"texture_images": run.config["faithfulness"]["texture_images"]}
    if "densenet_121" in run.judges:
        settings["densenet_121"] = run.config["encoders"]["densenet_121"]["weights"]
    return [*cxas_flags(run), *flags(settings)]


def faithfulness_flags(run: Run) -> list[str]:
    """Return the flags of scoring what was seen: judges, draws of patients and their seed."""
    block = run.config["faithfulness"]
    return flags({"judges": run.judges, "bootstrap": block["bootstrap"], "seed": block["seed"]})


def curate_flags(run: Run) -> list[str]:
    """Return the policy of a curated set as flags."""
    return flags(flag_values(CurateSettings, run.config["curate"]))


def curate_looking_flags(run: Run) -> list[str]:
    """Return the networks that look at a pool: the labeller, and the judges beside the classifier."""
    settings = {}
    if "densenet_121" in run.judges:
        settings["densenet_121"] = run.config["encoders"]["densenet_121"]["weights"]
    return [*cxas_flags(run), *flags(settings)]


def described_flags(run: Run, model: str) -> list[str]:
    """Return what the documents of a curated set say of its model."""
    block = run.block(model)
    return flags({"family": block["family"], "base": block.get("base")})


def exact_organs_flag(run: Run) -> list[str]:
    """Return the flag that says where exact organs lie, if there are any."""
    return flags({"exact_organs": run.config["faithfulness"]["exact_organs"]})


def stress_page_flags(run: Run) -> list[str]:
    """Return images and scores of the report's page of contrasts, with their models' keys."""
    models = run.with_stress()
    if not models:
        return []
    shards = [(m, shard) for m in models for shard in run.shards(m, STRESS)]
    scores = zip(models, run.stress_scores(), strict=True)
    return [*labelled("--stress-images", shards), *labelled("--stress-scores", scores)]


def scorer_flags(run: Run, name: str) -> list[str]:
    """Return the files of one scorer of reports as flags."""
    return flags(run.scorer_files(name))


def model_table(run: Run) -> str:
    """Return what tables show of the models, as JSON."""
    rows = []
    for key in run.models:
        block = run.block(key)
        missing = [s for s in PROMPT_SETS if s not in prompt_sets_of(run.config, key)]
        rows.append(
            {
                "key": key,
                "family": block["family"],
                "display": block["display"],
                "finetuning": tuning(block),
                "missing": {s: run.why_missing(key, s) for s in missing},
                "settings": ablation_settings(block, caption_source_of(run.config, key)),
            }
        )
    return quote(json.dumps(rows))


def tokenizers(run: Run) -> str:
    """Return where the text encoders of the run's models lie, as JSON."""
    found = {}
    for model in run.sampled:
        base = base_settings(run.block(model))
        found[model] = {"family": base["family"], "base": base["base"], "parts": base["part"]}
    return quote(json.dumps(found))


def example_flags(run: Run) -> list[str]:
    """Return the example shards with their models' keys."""
    pairs = zip(run.with_examples(), run.example_shards(), strict=True)
    return [word for m, shard in pairs for word in ("--images", quote(f"{m}={shard}"))]


def riskiest_flags(run: Run) -> list[str]:
    """Return the tables of closest pairs and the images that they name, with models' keys."""
    return [*_closest_pairs(run), *_privacy_images(run, "--images")]


def figure_flags(run: Run) -> list[str]:
    """Return captions, scores, pairs and images of the figures, with models' or sources' keys."""
    prompts = [
        (
            caption_source_in(run.config, folder) or "captions",
            f"results/cohort/{folder}prompts/{prompt_set}.parquet",
        )
        for folder in run.caption_folders()
        for prompt_set in COHORT_PROMPT_SETS
    ]
    scored = run.with_images("privacy")
    return [
        *quoted(["--test-prompts", "results/cohort/prompts/test.parquet"]),
        *labelled("--prompts", prompts),
        *labelled("--scores", zip(scored, run.privacy_pairs(), strict=True)),
        *_closest_pairs(run),
        *_privacy_images(run, "--privacy-images"),
        *example_flags(run),
    ]


def _closest_pairs(run: Run) -> list[str]:
    return labelled("--pairs", zip(run.with_images("privacy"), run.closest_pairs(), strict=True))


def _privacy_images(run: Run, flag: str) -> list[str]:
    scored = run.with_images("privacy")
    return labelled(flag, [(m, shard) for m in scored for shard in run.shards(m, "privacy")])
