"""A run of the workflow: its models, and the paths of their inputs and outputs.

Paths are relative to the working folder. No function here needs Snakemake.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from workflow_scripts.cohort.drawn_prompts import DRAWN
from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.config import caption_source_of, prompt_sets_of
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import COHORT_PROMPT_SETS, STRESS
from workflow_scripts.curate.set_files import set_parts
from workflow_scripts.planning.records import (
    curate_records,
    downstream_records,
    extraction_records,
    faithfulness_records,
    fidelity_records,
    guarantee_records,
    membership_records,
    privacy_records,
    round_trip_records,
    stress_records,
)
from workflow_scripts.privacy.membership.settings import LIKELIHOODS

PRIVACY_ENCODERS: Final = ("rad_dino", "reid")
"""The encoders in whose features privacy compares images."""

LLAVA_RAD: Final = "llava_rad"
"""The entry of `faithfulness.judges` that writes reports instead of giving probabilities."""

STRESS_PROMPTS: Final = "results/cohort/prompts/stress.parquet"
"""The prompts from templates, the same for every caption source."""

REID_WEIGHTS: Final = "results/features/reid/weights.pth"
"""The weights that the training of the re-identification network writes."""


class Run:
    """A run as its config describes it.

    Args:
        config: the whole config, validated.

    Attributes:
        config: the argument.
        models: keys of the models that run, in the order of the tables' rows.
        controls, external, sampled, finetuned: the models that are controls, a user's own images,
            sampled here, and fine-tuned here before.
        published: the models that are sampled as they were published.
        presumed: the published models whose family has a likelihood. The attack on membership
            assumes that they were trained on the train split.
        tuned_families: the families of fine-tuned models.
        attacked_families: these families, and those of `presumed`.
        other_protocol: the protocol that the config does not name. Table 3 shows both.
        reference_encoders: the encoders in whose features fidelity compares real and generated
            images.
        fidelity_encoders: these encoders, and the two that measure the alignment of image and
            caption.
        scorers: the configured networks that score generated reports.
        judges: the networks of this run that give an image a probability of each finding.
        reads_reports: whether the released LLaVA-Rad writes reports on generated images, which
            CheXbert reads.
        looks: whether networks look at images for faithfulness. Segmentation's labeller draws the
            organs, so nothing does without that task.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        blocks = config["models"]
        self.models: list[str] = config["run_models"]
        self.controls = [m for m in self.models if blocks[m]["family"] == "control"]
        self.external = [m for m in self.models if blocks[m]["family"] == "external"]
        others = (*self.controls, *self.external)
        self.sampled = [m for m in self.models if m not in others]
        self.finetuned = [m for m in self.sampled if blocks[m].get("finetune")]
        self.published = [m for m in self.sampled if m not in self.finetuned]
        self.presumed = [m for m in self.published if blocks[m]["family"] in LIKELIHOODS]
        self.tuned_families = sorted({blocks[m]["family"] for m in self.finetuned})
        likely = {blocks[m]["family"] for m in self.presumed}
        self.attacked_families = sorted({*self.tuned_families, *likely})
        self.other_protocol = next(name for name in PROTOCOLS if name != config["protocol"])
        self.reference_encoders: list[str] = config["fidelity"]["encoders"]
        self.fidelity_encoders = [*self.reference_encoders, "biovil_t_image", "biovil_t_text"]
        metrics = config["downstream"]["report_generation"]["metrics"]
        self.scorers = [name for name, files in metrics.items() if files]
        tasks = config["downstream"]["tasks"]
        self.judges = [
            judge
            for judge in config["faithfulness"]["judges"]
            if judge != LLAVA_RAD and (judge != "classifier" or "classification" in tasks)
        ]
        self.reads_reports = LLAVA_RAD in config["faithfulness"]["judges"]
        self.looks = "segmentation" in tasks

    def block(self, model: str) -> dict[str, Any]:
        """Return a model's block of the config."""
        return self.config["models"][model]

    def with_images(self, prompt_set: str) -> list[str]:
        """Return the models of the run that have images of a prompt set."""
        return [m for m in self.models if prompt_set in prompt_sets_of(self.config, m)]

    # The cohort: radiographs and labels are the same for all models, captions may differ.

    def captions(self, model: str) -> str:
        """Return the folder, below results/cohort, of the files that depend on a model's captions.

        It is empty for the cohort's captions, and `captions_{source}/` for a model with another
        caption source (Table 17).
        """
        source = caption_source_of(self.config, model)
        return "" if source == caption_source_of(self.config) else f"captions_{source}/"

    def caption_folders(self) -> list[str]:
        """Return the folder of each caption source of the run, see `captions`."""
        return sorted({"", *map(self.captions, self.models)})

    def manifest(self, model: str) -> str:
        """Return the manifest with a model's captions."""
        return f"results/cohort/{self.captions(model)}manifest.parquet"

    def prompts(self, model: str, prompt_set: str) -> str:
        """Return a model's prompts of a prompt set."""
        if prompt_set == STRESS:
            return STRESS_PROMPTS
        return f"results/cohort/{self.captions(model)}prompts/{prompt_set}.parquet"

    def training_manifest(self, model: str) -> str:
        """Return the training split with a model's captions.

        A changed label or test caption does not change this file.
        """
        return f"results/cohort/{self.captions(model)}training/manifest.parquet"

    def sampled_prompts(self, model: str, prompt_set: str) -> str:
        """Return the prompts that a model is sampled from."""
        return self.prompts_of_part(self.captions(model), prompt_set)

    def prompts_of_part(self, folder: str, prompt_set: str) -> str:
        """Return the prompt set that is drawn from one part of the manifest alone.

        Args:
            folder: the folder of the captions.
            prompt_set: its name. The stress set is drawn from no part.
        """
        if prompt_set == STRESS:
            return STRESS_PROMPTS
        settings = self.config["prompt_sets"][prompt_set]
        labelled = prompt_set == DRAWN or settings.get("draw") == "official"
        training = "labelled_training" if labelled else "training"
        part = "test" if prompt_set == "test" else training
        return f"results/cohort/{folder}{part}/prompts/{prompt_set}.parquet"

    def every_manifest(self) -> list[str]:
        """Return the manifest with the captions of each source."""
        return [f"results/cohort/{folder}manifest.parquet" for folder in self.caption_folders()]

    def every_prompt_set(self) -> list[str]:
        """Return, for every caption source, the prompt sets made of captions of radiographs."""
        return [
            f"results/cohort/{folder}prompts/{prompt_set}.parquet"
            for folder in self.caption_folders()
            for prompt_set in COHORT_PROMPT_SETS
        ]

    def exported_prompts(self) -> list[str]:
        """Return the prompts of every caption source of the run and the stress set, as CSV."""
        names = [*self.every_prompt_set(), STRESS_PROMPTS]
        return [str(Path(name).with_suffix(".csv")) for name in names]

    # Checkpoints and images.

    def checkpoint(self, model: str) -> str | None:
        """Return the fine-tuned checkpoint; None for a model that runs as it was published."""
        return f"results/finetune/{model}/checkpoint" if model in self.finetuned else None

    def curve(self, model: str) -> str | None:
        """Return the training curve of a fine-tuned model; None for one used as published."""
        return f"results/finetune/{model}/training.csv" if model in self.finetuned else None

    def canaries(self, model: str) -> str | None:
        """Return the folder of a model's canaries; None if its training set has none."""
        planted = model in self.finetuned and self.block(model)["finetune"].get("canaries")
        return f"results/finetune/{model}/canaries" if planted else None

    def guaranteed(self) -> list[str]:
        """Return the models that are fine-tuned with a guarantee or with canaries."""
        return [
            m
            for m in self.finetuned
            if self.canaries(m) or self.block(m)["finetune"].get("privacy")
        ]

    def external_tables(self, model: str) -> list[str]:
        """Return the user's table of images if it exists; preflight reports a missing one."""
        path = self.block(model)["external"]["metadata"]
        return [path] if Path(path).is_file() else []

    def shards(self, model: str, prompt_set: str) -> list[str]:
        """Return the image shards of one model and prompt set."""
        count = self.config["prompt_sets"][prompt_set]["shards"]
        return [
            f"results/generate/{model}/{prompt_set}/part-{k:05d}-of-{count:05d}.parquet"
            for k in range(count)
        ]

    # Features.

    def trains_reid(self) -> bool:
        """Return whether the re-identification network is trained on the cohort."""
        return bool(self.config["encoders"]["reid"].get("train"))

    def encoder_weights(self, name: str) -> str:
        """Return the weights of an encoder: the config's, or those that the workflow trains."""
        if name == "reid" and self.trains_reid():
            return REID_WEIGHTS
        return self.config["encoders"][name]["weights"]

    def trained_weights(self) -> list[str]:
        """Return the weights of encoders that the workflow trains itself."""
        return [REID_WEIGHTS] if self.trains_reid() else []

    def own_features(self, model: str) -> list[str]:
        """Return the features of the privacy prompts' radiographs, under the other protocol."""
        folder = f"results/features/real/{self.captions(model)}prompts/{self.other_protocol}"
        return [f"{folder}/{name}.h5" for name in PRIVACY_ENCODERS]

    def test_answers(self, model: str) -> str | None:
        """Return RAD-DINO's features of a model's test images, if it has any."""
        if model in self.with_images("test") and "rad_dino" in self.reference_encoders:
            return f"results/features/{model}/test/rad_dino.h5"
        return None

    # Downstream. An arm is a setting (real_only, augmented, ...) and a model.

    def training_shards(self, setting: str, model: str) -> list[str]:
        """Return the synthetic images that a network is trained on; none for the baselines."""
        return [] if setting in ("real_only", "released") else self.shards(model, "augment")

    def labelled_shards(self, model: str) -> list[str]:
        """Return the synthetic images that get pseudo-masks; none for radiographs (`real`)."""
        return [] if model == "real" else self.shards(model, "augment")

    def masks(self, setting: str, model: str) -> str | None:
        """Return the pseudo-masks of the synthetic images that a U-Net is trained on."""
        if setting == "real_only":
            return None
        return f"results/downstream/segmentation/masks/{model}.parquet"

    def outcomes(self, task: str, setting: str, model: str) -> list[str]:
        """Return the outcomes of an arm's training runs, one file for each repeat.

        A released network has no training runs, and one file.
        """
        repeats = 1 if setting == "released" else self.config["downstream"][task]["repeats"]
        arm = f"results/downstream/{task}/{setting}/{model}"
        return [f"{arm}/repeat-{k}.parquet" for k in range(repeats)]

    def baseline(self, task: str, setting: str) -> list[str]:
        """Return the outcomes that an arm's gains are measured against.

        These are the outcomes of real data alone. A report generator trained on synthetic data
        alone continues the released one, whose outcomes are its baseline. A baseline itself has
        none.
        """
        if setting in ("real_only", "released"):
            return []
        if task == "report_generation" and setting == "synthetic_only":
            return self.outcomes(task, "released", "real")
        return self.outcomes(task, "real_only", "real")

    def report_scores(self, setting: str, model: str) -> list[str]:
        """Return the scorers' outputs for the reports of an arm and of its baseline."""
        task = "report_generation"
        reports = self.outcomes(task, setting, model) + self.baseline(task, setting)
        return [
            str(path.with_name(path.name.replace("repeat-", f"{scorer}-")))
            for path in map(Path, reports)
            for scorer in self.scorers
        ]

    def training_seed(self, task: str, repeat: str) -> int:
        """Return the seed of a training run: each repeat has its own."""
        return self.config["downstream"][task]["seed"] + int(repeat)

    # Faithfulness.

    def looked_shards(self, model: str) -> list[str]:
        """Return a model's test images; none for radiographs (`real`), which the manifest names."""
        return [] if model == "real" else self.shards(model, "test")

    def looked_prompts(self, model: str) -> str:
        """Return the test prompts of a model; for radiographs (`real`) those of the cohort."""
        real = "results/cohort/prompts/test.parquet"
        return real if model == "real" else self.prompts(model, "test")

    def judge_networks(self) -> list[str]:
        """Return the weights of the classifiers that judge images, one for each training run."""
        if "classifier" not in self.judges:
            return []
        repeats = self.config["downstream"]["classification"]["repeats"]
        arm = "results/downstream/classification/real_only/real"
        return [f"{arm}/network-{k}.safetensors" for k in range(repeats)]

    def with_stress(self) -> list[str]:
        """Return the models whose images of the stress set are judged.

        There are none unless a classifier judges and CXAS draws the lungs.
        """
        return self.with_images(STRESS) if self.looks and "classifier" in self.judges else []

    def stress_shards(self) -> list[str]:
        """Return the images of the stress set of the models in `with_stress`."""
        return [shard for m in self.with_stress() for shard in self.shards(m, STRESS)]

    def stress_scores(self) -> list[str]:
        """Return the files of image scores, one for each model in `with_stress`."""
        return [f"results/faithfulness/stress/{m}.parquet" for m in self.with_stress()]

    # Privacy.

    def copies(self, model: str) -> list[str]:
        """Return the tables of identical and similar radiographs that lie in several splits."""
        names = ("identical_images.csv", "similar_images.csv")
        return [str(Path(self.manifest(model)).with_name(name)) for name in names]

    def attacked(self) -> list[str]:
        """Return the models with a record of membership: all but controls, which are not trained.

        A user's own images are attacked if they include the privacy set.
        """
        answered = self.with_images("privacy")
        return [
            m for m in self.models if m in self.sampled or (m in self.external and m in answered)
        ]

    # Records and what tables show of the models.

    def records(self, kind: str) -> list[str]:
        """Return every record of one kind, a stage's.

        The records of `curate` describe the sets that every run makes.
        """
        if kind == "curate":
            policy = self.config["curate"]
            worth, also = policy.get("worth", False), policy.get("worth_also", ())
            return curate_records(self.curated(), worth=worth, also=also)
        if kind == "fidelity":
            return fidelity_records(self.reference_encoders, self.with_images("test"))
        if kind == "privacy":
            records = privacy_records(self.with_images("privacy"), self.other_protocol)
            records += membership_records(self.attacked())
            return records + guarantee_records(self.guaranteed())
        if kind == "faithfulness":
            looked = self.with_images("test") if self.looks else []
            records = faithfulness_records(self.judges, looked) if self.looks else []
            records += round_trip_records(self.with_images("test")) if self.reads_reports else []
            return records + stress_records(self.with_stress())
        tasks: Sequence[str] = self.config["downstream"]["tasks"]
        return downstream_records(tasks, self.with_images("augment"))

    def curated(self) -> list[str]:
        """Return the models for which every run curates a set, in the order of the tables' rows."""
        curated = self.config["curate"].get("models", ())
        return [model for model in self.models if model in curated]

    def curated_sets(self) -> list[str]:
        """Return the folders to publish of the sets that every run makes."""
        return [f"results/curate/{model}/published" for model in self.curated()]

    def curated_parts(self) -> list[str]:
        """Return the parts of a curated set, each a file of its own."""
        return set_parts(self.config["curate"]["images"])

    def curated_shards(self, model: str) -> list[str]:
        """Return the pool that a model's curated set is drawn from.

        Raises:
            InputError: the model has no such images.
        """
        pool = self.config["curate"]["pool"]
        if pool == DRAWN:
            self._check_drawn(model)
            return self.shards(model, pool)
        if model not in self.with_images(pool):
            raise InputError(
                f"{model!r} has no images of the prompt set {pool!r} to curate a set from",
                "curate.pool",
                "name a model of run_models, or another prompt set",
            )
        return self.shards(model, pool)

    def with_pool(self) -> list[str]:
        """Return the models of the run for which a set can be curated."""
        pool = self.config["curate"]["pool"]
        return self.sampled if pool == DRAWN else self.with_images(pool)

    def _check_drawn(self, model: str) -> None:
        """Check that new images can be sampled for a model's curated set.

        Raises:
            InputError: the config does not say what to draw, or the model is not sampled here.
        """
        if DRAWN not in self.config["prompt_sets"]:
            raise InputError(
                "the pool of a curated set is to be drawn, but the config does not say how",
                f"prompt_sets.{DRAWN}",
                "set captions, prevalence, draw_seed and shards, or choose another curate.pool",
            )
        if model not in self.sampled:
            raise InputError(
                f"no new images of {model!r} can be drawn: it is not a model of run_models that is "
                "sampled here",
                "curate.pool",
                "name a model that is sampled, or curate from a prompt set that it has images of",
            )

    def curated_prompts(self, model: str) -> str:
        """Return the prompts of the pool of `curated_shards`.

        Raises:
            InputError: see `curated_shards`.
        """
        self.curated_shards(model)
        return self.prompts(model, self.config["curate"]["pool"])

    def curated_records(self, model: str) -> list[str]:
        """Return the records from which a model's curated set is described."""
        records = [
            *(self.records("fidelity") if model in self.with_images("test") else []),
            *(self.records("privacy") if model in self.with_images("privacy") else []),
            *self.records("faithfulness"),
        ]
        return [path for path in records if Path(path).name == f"{model}.json"]

    def worth_of(self, model: str) -> str | None:
        """Return the record of a curated set's worth, if the config asks for it."""
        measured = self.config["curate"].get("worth", False)
        return f"results/curate/{model}/worth.json" if measured else None

    def segmented_worth_of(self, model: str) -> str | None:
        """Return the record of a set's worth for segmentation, if the config asks for it."""
        asked = "segmentation" in self.config["curate"].get("worth_also", ())
        found = self.worth_of(model) and f"results/curate/{model}/worth_segmentation.json"
        return found if asked else None

    def worth_runs(self, model: str) -> list[str]:
        """Return the folders of trained classifiers that the record of `worth_of` compares.

        Raises:
            InputError: there is no baseline, or the pool shows test patients.
        """
        return self._trained_on_set(model, "classification", "worth", "worth")

    def segmented_worth_runs(self, model: str) -> list[str]:
        """Return the folders of U-Nets that the record of `segmented_worth_of` compares.

        Raises:
            InputError: see `worth_runs`.
        """
        return self._trained_on_set(model, "segmentation", "segmenters", "worth_also")

    def _trained_on_set(self, model: str, task: str, folder: str, key: str) -> list[str]:
        if task not in self.config["downstream"]["tasks"]:
            raise InputError(
                f"the worth of a curated set is measured by {task}, which does not run",
                "downstream.tasks",
                f"add {task}, or leave curate.{key} out",
            )
        if self.config["curate"]["pool"] == "test":
            raise InputError(
                "the pool's captions belong to test patients, on whom the networks are tested",
                "curate.pool",
                f"draw from another prompt set, or leave curate.{key} out",
            )
        self.curated_shards(model)
        repeats = self.config["downstream"][task]["repeats"]
        return [f"results/curate/{model}/{folder}/repeat-{k}" for k in range(repeats)]

    def with_examples(self) -> list[str]:
        """Return the models in the report's examples: those that use the cohort's captions."""
        return [m for m in self.with_images("test") if not self.captions(m)]

    def example_shards(self) -> list[str]:
        """Return the first test shard of every model, for the report's example images."""
        return [self.shards(m, "test")[0] for m in self.with_examples()]

    def privacy_shards(self) -> list[str]:
        """Return every model's images of the privacy set."""
        return [shard for m in self.with_images("privacy") for shard in self.shards(m, "privacy")]

    def closest_pairs(self) -> list[str]:
        """Return the tables of closest pairs of every model with images of the privacy set."""
        return [f"results/privacy/closest/{m}_pairs.parquet" for m in self.with_images("privacy")]

    def privacy_pairs(self) -> list[str]:
        """Return each model's table of scores of images against their prompts' radiographs."""
        return [f"results/privacy/{m}_pairs.parquet" for m in self.with_images("privacy")]

    def extraction_records(self) -> list[str]:
        """Return the record of the extraction attack on each model; one job makes all of them."""
        return extraction_records(self.with_images("privacy"))

    def extraction_images(self) -> list[str]:
        """Return each model's table of image scores of the extraction attack."""
        folder = "results/privacy/extraction"
        return [f"{folder}/{m}_images.parquet" for m in self.with_images("privacy")]

    def why_missing(self, model: str, prompt_set: str) -> str:
        """Return why a model has no images of a prompt set."""
        if self.captions(model) and prompt_set == "augment":
            return "its own captions point to other radiographs than the baseline's"
        if model in self.controls and prompt_set == STRESS:
            return "a control shows radiographs, and prompts from templates describe none"
        return f"no images of the prompt set `{prompt_set}` were given"

    def scorer_files(self, name: str) -> Mapping[str, str]:
        """Return the files of one scorer of reports; none if the config names none."""
        return self.config["downstream"]["report_generation"]["metrics"].get(name) or {}
