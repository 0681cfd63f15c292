"""The flags of the rules' scripts, quoted for the shell. No function here needs Snakemake."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from workflow_scripts.cohort.drawn_prompts import DRAWN
from workflow_scripts.common.config import caption_source_of, prompt_sets_of
from workflow_scripts.common.folders import parts
from workflow_scripts.common.manifest import COHORT_PROMPT_SETS, PROMPT_SETS, STRESS
from workflow_scripts.common.settings import flag_values
from workflow_scripts.curate.settings import CurateSettings, SegmentedSettings
from workflow_scripts.downstream.classification.settings import ClassifierSettings
from workflow_scripts.downstream.report_generation.settings import ReporterSettings
from workflow_scripts.downstream.segmentation.settings import (
    DrawSettings,
    LabellerSettings,
    SegmenterSettings,
)
from workflow_scripts.features.settings import ReidSettings
from workflow_scripts.fidelity.settings import Settings as FidelitySettings
from workflow_scripts.finetune.settings import CANARIES, CanarySettings, TrainSettings
from workflow_scripts.generate.controls import LADDERS, ControlSettings
from workflow_scripts.planning.cohort import caption_source_in
from workflow_scripts.planning.flags import flags, labelled, quote, quoted
from workflow_scripts.planning.models import (
    ablation_settings,
    base_settings,
    canonical,
    named_display,
    sampling_settings,
    training_settings,
    tuning,
)
from workflow_scripts.planning.run import Run
from workflow_scripts.privacy.extraction.settings import ExtractionSettings
from workflow_scripts.privacy.membership.settings import TRAINED_WITH, MembershipSettings
from workflow_scripts.privacy.settings import ClosestSettings
from workflow_scripts.privacy.settings import Settings as PrivacySettings


def prompt_flags(run: Run, prompt_set: str) -> list[str]:
    """Return the flags that draw a prompt set."""
    settings = run.config["prompt_sets"][prompt_set]
    return flags({name: value for name, value in settings.items() if name != "shards"})


def drawn_flags(run: Run) -> list[str]:
    """Return the flags that draw the pool of curated sets; none if the config has no such set."""
    settings = run.config["prompt_sets"].get(DRAWN, {})
    return flags({name: value for name, value in settings.items() if name != "shards"})


def finetune_flags(run: Run, model: str) -> list[str]:
    """Return the flags of a model's fine-tuning."""
    planted = run.canaries(model)
    table = [] if planted is None else flags({"canary_table": f"{planted}/{CANARIES}"})
    return flags(training_settings(run.block(model))) + table


def canary_flags(run: Run, model: str) -> list[str]:
    """Return the flags that invent a model's canaries."""
    return flags(flag_values(CanarySettings, run.block(model)["finetune"]["canaries"]))


def guarantee_flags(run: Run, model: str) -> list[str]:
    """Return the flags of the attack on a model's canaries: checkpoints and training settings."""
    block = run.block(model)
    tuned, planted = block["finetune"], run.canaries(model)
    chosen = base_settings(block) | flag_values(TrainSettings, tuned, TRAINED_WITH)
    return flags(chosen | ({"canaries": planted} if planted else {}))


def sample_flags(run: Run, model: str) -> list[str]:
    """Return the flags of sampling: the paths of the weights, and the model's `generate` block."""
    return flags(sampling_settings(run.block(model), run.checkpoint(model)))


def sampled_block(run: Run, model: str) -> str:
    """Return the settings that decide a model's images, without its checkpoint, as text."""
    block = run.block(model)
    return canonical({key: block.get(key) for key in ("family", "base", "parts", "generate")})


def control_flags(run: Run, model: str) -> list[str]:
    """Return the flags of a control."""
    return flags(flag_values(ControlSettings, run.block(model)["control"]))


def keep_draws_flag(run: Run, model: str) -> list[str]:
    """Return the flag that keeps the gain on each drawn test set, for models on a ladder."""
    is_step = model in run.controls and run.block(model)["control"]["kind"] in LADDERS
    return ["--keep-draws"] if is_step else []


def kept_axes_flags(run: Run, model: str) -> list[str]:
    """Return the flags by which a step keeps texture and topology on downstream's test sets."""
    block = run.config["downstream"]
    kept = {"keep_draws": block["bootstrap"], "draws_seed": block["seed"]}
    return flags(kept) if keep_draws_flag(run, model) else []


def external_flags(run: Run, model: str) -> list[str]:
    """Return the flags that import a user's images."""
    return flags(run.block(model)["external"])


def reid_flags(run: Run) -> list[str]:
    """Return the flags of the re-identification network's training; none if it is not trained."""
    return flags(flag_values(ReidSettings, run.config["encoders"]["reid"].get("train") or {}))


def encoder_flags(run: Run, names: Sequence[str]) -> list[str]:
    """Return the flags of the named encoders, each with its weights."""
    return [
        word
        for name in names
        for word in ("--encoder", quote(f"{name}={run.encoder_weights(name)}"))
    ]


def fidelity_flags(run: Run) -> list[str]:
    """Return the flags of the fidelity metrics."""
    return flags(flag_values(FidelitySettings, run.config["fidelity"]))


def privacy_flags(run: Run, only: Sequence[str] | None = None) -> list[str]:
    """Return the flags of the privacy scores: all of them, or those named in `only`."""
    return flags(flag_values(PrivacySettings, run.config["privacy"], only))


def closest_flags(run: Run) -> list[str]:
    """Return the flags of the search for the closest training images alone."""
    return flags(flag_values(ClosestSettings, run.config["privacy"]))


def part_flags(run: Run, stage: str, name: str) -> list[str]:
    """Return the flags of a privacy score or downstream task that is one folder."""
    (cls,) = (part.settings for part in parts(stage) if part.name == name)
    return flags(flag_values(cls, run.config[stage].get(name) or {})) if cls else []


def membership_flags(run: Run, model: str) -> list[str]:
    """Return the flags of the attack on a model's losses, which are computed as in its training.

    For a model that was published trained, the settings follow from its sampling.
    """
    block = run.block(model)
    trained = flag_values(TrainSettings, _trained_with(block), TRAINED_WITH)
    attack = flag_values(MembershipSettings, run.config["privacy"]["membership"])
    seed = flag_values(PrivacySettings, run.config["privacy"], ("seed",))
    return flags(base_settings(block) | trained | attack | seed)


def _trained_with(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of `TRAINED_WITH` of a model's block."""
    if block.get("finetune"):
        tuned: Mapping[str, Any] = block["finetune"]
        return tuned
    sampled = block["generate"]
    precision = sampled.get("precision", "fp32")
    chosen = {k: v for k, v in sampled.get("options", {}).items() if k == "instruction"}
    return {
        "method": "full",
        "size": sampled["size"],
        "mixed_precision": "no" if precision == "fp32" else precision,
        **({"options": chosen} if chosen else {}),
    }


def samples_flags(run: Run) -> list[str]:
    """Return the flags of the membership attack on a user's own images."""
    attack = flag_values(MembershipSettings, run.config["privacy"]["membership"], ("images",))
    return flags(attack | flag_values(PrivacySettings, run.config["privacy"], ("seed",)))


def extraction_flags(run: Run) -> list[str]:
    """Return the flags of the extraction attack: each model's prompts and images, and settings."""
    attacked = run.with_images("privacy")
    block = run.config["privacy"]
    settings = flag_values(ExtractionSettings, block["extraction"])
    settings |= flag_values(PrivacySettings, block, ("bootstrap", "seed"))
    return [
        *flags({**settings, "rad_dino": run.encoder_weights("rad_dino")}),
        *labelled("--prompts", [(m, run.prompts(m, "privacy")) for m in attacked]),
        *_privacy_images(run, "--images"),
    ]


def classifier_flags(run: Run) -> list[str]:
    """Return the flags of a classifier's training, without the seed, which each repeat has."""
    settings = run.config["downstream"]["classification"]
    return flags(flag_values(ClassifierSettings, settings, without=("seed",)))


def labeller_flags(run: Run) -> list[str]:
    """Return the flags of the pseudo-labeller: its network, and the draw of prompts."""
    settings = run.config["downstream"]["segmentation"]
    network = flag_values(LabellerSettings, settings["labeller"])
    return flags(network | flag_values(DrawSettings, settings))


def segmenter_flags(run: Run) -> list[str]:
    """Return the flags of the U-Net's training; the settings of masks lie in their files."""
    settings = run.config["downstream"]["segmentation"]
    return flags(flag_values(SegmenterSettings, settings, without=("seed",)))


def exact_mask_flags(run: Run) -> list[str]:
    """Return the flags of masks drawn by hand: their folder, and the size of the comparison."""
    settings = run.config["downstream"]["segmentation"]
    return flags(flag_values(SegmenterSettings, settings, only=("exact_masks", "size")))


def reporter_flags(run: Run) -> list[str]:
    """Return the flags of a report generator's training."""
    settings = run.config["downstream"]["report_generation"]
    return flags(flag_values(ReporterSettings, settings, without=("seed",)))


def cxas_flags(run: Run) -> list[str]:
    """Return the flags of the network that segments organs, which is the pseudo-labeller."""
    labeller = run.config["downstream"]["segmentation"]["labeller"]
    settings = {"cxas": labeller["weights"], "cxas_size": labeller["size"]}
    return flags({**settings, "batch_size": labeller["batch_size"]})


def looking_flags(run: Run) -> list[str]:
    """Return the flags of faithfulness' networks, and the number of images measured for texture."""
    settings = {"texture_images": run.config["faithfulness"]["texture_images"]}
    if "densenet_121" in run.judges:
        settings["densenet_121"] = run.config["encoders"]["densenet_121"]["weights"]
    return [*cxas_flags(run), *flags(settings)]


def faithfulness_flags(run: Run) -> list[str]:
    """Return the flags of the faithfulness scores: judges, bootstrap draws and their seed."""
    block = run.config["faithfulness"]
    return flags({"judges": run.judges, "bootstrap": block["bootstrap"], "seed": block["seed"]})


def round_trip_flags(run: Run) -> list[str]:
    """Return the flags of reports on images: LLaVA-Rad, its settings of writing, and CheXbert."""
    settings = run.config["downstream"]["report_generation"]
    written = ("start", "max_length", "max_new_tokens", "mixed_precision", "generate_batch_size")
    reader = run.scorer_files("chexbert")
    files = {"chexbert": reader["weights"], "bert": reader["bert"]} if reader else {}
    return flags(flag_values(ReporterSettings, settings, only=written) | files)


def curate_flags(run: Run) -> list[str]:
    """Return the policy of a curated set as flags."""
    return flags(flag_values(CurateSettings, run.config["curate"]))


def overfitted_flag(run: Run) -> list[str]:
    """Return the flag with the folder of an overfitted model's images, if the config has one."""
    return flags({"overfitted": run.config["curate"].get("overfitted")})


def curate_looking_flags(run: Run) -> list[str]:
    """Return the flags of the networks that look at a pool: the labeller and the DenseNet-121."""
    settings = {}
    if "densenet_121" in run.judges:
        settings["densenet_121"] = run.config["encoders"]["densenet_121"]["weights"]
    return [*cxas_flags(run), *flags(settings)]


def described_flags(run: Run, model: str) -> list[str]:
    """Return the flags that describe a curated set's model in its documents."""
    block = run.block(model)
    return flags({"family": block["family"], "base": block.get("base")})


def worth_flags(run: Run) -> list[str]:
    """Return the flags of a curated set's draw, and of the classifier that is trained on it."""
    policy = run.config["curate"]
    draw = {"quotas": policy["quotas"], "draw_seed": policy["seed"]}
    return [*flags(draw), *classifier_flags(run)]


def segmented_worth_flags(run: Run) -> list[str]:
    """Return the flags of a set's draw, of its masks, and of the U-Net that is trained on it."""
    policy, task = run.config["curate"], run.config["downstream"]["segmentation"]
    draw = {"quotas": policy["quotas"], "draw_seed": policy["seed"]}
    drawn = {"labeller": task["labeller"], "masked": task}
    return [*flags(draw | flag_values(SegmentedSettings, drawn)), *segmenter_flags(run)]


def exact_organs_flag(run: Run) -> list[str]:
    """Return the flag with the folder of exact organ masks, if the config has one."""
    return flags({"exact_organs": run.config["faithfulness"]["exact_organs"]})


def stress_page_flags(run: Run) -> list[str]:
    """Return the flags of the report's page of contrasts: images and scores, with models' keys."""
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
    """Return each model's entry in the tables, as JSON."""
    rows = []
    for key in run.models:
        block = run.block(key)
        missing = [s for s in PROMPT_SETS if s not in prompt_sets_of(run.config, key)]
        rows.append(
            {
                "key": key,
                "family": block["family"],
                "display": named_display(block),
                "finetuning": tuning(block),
                "missing": {s: run.why_missing(key, s) for s in missing},
                "settings": ablation_settings(block, caption_source_of(run.config, key)),
            }
        )
    return quote(json.dumps(rows))


def tokenizers(run: Run) -> str:
    """Return the paths of the text encoders of the run's models, as JSON."""
    by_model = {}
    for model in run.sampled:
        base = base_settings(run.block(model))
        by_model[model] = {"family": base["family"], "base": base["base"], "parts": base["part"]}
    return quote(json.dumps(by_model))


def example_flags(run: Run) -> list[str]:
    """Return the example shards with their models' keys."""
    pairs = zip(run.with_examples(), run.example_shards(), strict=True)
    return [word for m, shard in pairs for word in ("--images", quote(f"{m}={shard}"))]


def riskiest_flags(run: Run) -> list[str]:
    """Return the tables of closest and extracted pairs and their images, with models' keys."""
    attacked = zip(run.with_images("privacy"), run.extraction_images(), strict=True)
    return [
        *_closest_pairs(run),
        *_privacy_images(run, "--images"),
        *labelled("--extraction", attacked),
    ]


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
