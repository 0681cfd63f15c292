# Config validation and the helper functions of all rules; no other rule file has functions.

import json
import os
import shlex
import sys
import tempfile
from dataclasses import asdict
from functools import cache, partial
from itertools import count
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The folder that holds rules/ and workflow_scripts/: another one than the working directory, and
# than the main Snakefile's, where this workflow is a module of another one. The commands of the
# rules and the jobs on other nodes find the package there.
CHECKOUT = os.path.dirname(
    str(workflow.current_basedir.get_path_or_uri(secret_free=True))
)
sys.path.insert(0, CHECKOUT)
own_paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if CHECKOUT not in own_paths:
    own_paths = [CHECKOUT, *filter(None, own_paths)]
    os.environ.update(PYTHONPATH=os.pathsep.join(own_paths))

from workflow_scripts.cohort.parts import LABELLED, PARTS, part_digests
from workflow_scripts.cohort.refresh import CHANGED, changed_radiographs
from workflow_scripts.cohort.similar import ALIKE
from workflow_scripts.cohort.stress_prompts import STRESS_VERSION
from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.code import Code
from workflow_scripts.common.config import (
    caption_source_of,
    prompt_sets_of,
    validate_config,
)
from workflow_scripts.common.config_text import check_config_files
from workflow_scripts.common.contents import Contents, files_of
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.levels import BITS_USED, said_of_bits
from workflow_scripts.common.manifest import (
    COHORT_PROMPT_SETS,
    PROMPT_SETS,
    SPLITS,
    STRESS,
)
from workflow_scripts.finetune.base_contents import base_contents
from workflow_scripts.finetune.span import is_finished
from workflow_scripts.generate.external_contents import external_contents
from workflow_scripts.planning.models import (
    ablation_settings,
    base_settings,
    canonical,
    launcher,
    sampling_settings,
    training_settings,
    tuning,
)
from workflow_scripts.planning.records import (
    downstream_records,
    faithfulness_records,
    fidelity_records,
    privacy_records,
    stress_records,
)
from workflow_scripts.preflight.cost_model import expected_cohort, shard_minutes
from workflow_scripts.preflight.rates import read_rates
from workflow_scripts.preflight.site import request_of
from workflow_scripts.tables.rule_graph import rule_graph, to_json
from workflow_scripts.world.warm_python import FOLDER as WARM_PYTHON

# `python` in a rule's shell is the Python that runs Snakemake, also in a SLURM job and without an
# activated environment; with --sdm conda, the rule's environment comes before it. Before both comes
# a Python that a caller has warmed up (workflow_scripts/world/warm_python.py).
bin_folders = [os.environ.get(WARM_PYTHON, ""), os.path.dirname(sys.executable)]
os.environ.update(
    PATH=os.pathsep.join(
        [*filter(None, bin_folders), os.environ.get("PATH", os.defpath)]
    )
)
# Images, captions, features, logs: what the workflow writes is its owner's alone, also in a SLURM
# job. What may leave is what `make release` packs.
os.umask(0o077)
# No library may ask a hub for anything: every path is local and in the config.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1")

try:
    check_config_files(workflow.configfiles)
    validate_config(config)
except InputError as error:
    raise WorkflowError(str(error)) from None
# Every job that decodes images reads it; what the user's own environment says counts for nothing.
os.environ[BITS_USED] = str(config["cohort"].get("bits_used") or "")

# Explicit versions of what a stage computes: raise one to rerun the stage after a change that its
# code does not show (a library). Fine-tuning, sampling, training re-identification and training
# report generators cost days of GPUs; they and the cohort, from which they follow, declare no code:
# only their version and their own block of the config rerun them.
VERSIONS = {
    "cohort": 2,
    "finetune": 2,
    "generate": 2,
    "features": 1,
    "fidelity": 1,
    "privacy": 1,
    "downstream": 1,
    "faithfulness": 1,
    "tables": 1,
}

RUN_MODELS = config["run_models"]
CONTROLS = [m for m in RUN_MODELS if config["models"][m]["family"] == "control"]
EXTERNAL = [m for m in RUN_MODELS if config["models"][m]["family"] == "external"]
SAMPLED = [m for m in RUN_MODELS if m not in CONTROLS + EXTERNAL]
FINETUNED = [m for m in SAMPLED if config["models"][m].get("finetune")]

# Table 3 stands under both protocols, side by side: this is the one that the config does not name.
OTHER_PROTOCOL = next(name for name in PROTOCOLS if name != config["protocol"])

STRESS_PROMPTS = "results/cohort/prompts/stress.parquet"

# Which encoders the images pass through, all in one pass.
REFERENCE_ENCODERS = config["fidelity"]["encoders"]
FIDELITY_ENCODERS = [*REFERENCE_ENCODERS, "biovil_t_image", "biovil_t_text"]
PRIVACY_ENCODERS = ["rad_dino", "reid"]

# The networks that read generated reports: those that are configured.
REPORT_METRICS = config["downstream"]["report_generation"]["metrics"]
REPORT_SCORERS = [name for name, files in REPORT_METRICS.items() if files]
# Where `make reports` puts the packages of those that cannot live beside the core's.
REPORT_PACKAGES = os.path.join(sys.prefix, "reports")
if not os.path.samefile(
    CHECKOUT, os.curdir
):  # their commands set PYTHONPATH themselves
    REPORT_PACKAGES = os.pathsep.join([REPORT_PACKAGES, CHECKOUT])

# Which networks judge generated images: those that are trained or named in this run. Organs are drawn
# by segmentation's labeller: without that task nothing looks at images.
JUDGES = [
    judge
    for judge in config["faithfulness"]["judges"]
    if judge != "classifier" or "classification" in config["downstream"]["tasks"]
]
LOOKS = "segmentation" in config["downstream"]["tasks"]

# How the re-identification network is trained on the cohort, where its weights are not published.
REID_TRAINING = config["encoders"]["reid"].get("train")


# The scripts' code, as `code` reads it.
CODE = Code(Path(CHECKOUT), known=Path(".snakemake/code.json"))
# What tables and weights hold, and a user's own images.
CONTENTS = Contents(Path(".snakemake/contents.json"))
IMAGE_CONTENTS = Contents(Path(".snakemake/images.json"))


wildcard_constraints:
    captions=rf"(captions_[\w.-]+/)?(({'|'.join(PARTS)})/)?",
    model="[a-z][a-z0-9_]*",
    encoder="|".join(REFERENCE_ENCODERS),
    prompt_set="|".join(PROMPT_SETS),
    repeat=r"\d+",
    setting="real_only|augmented|synthetic_only|released",
    shard=r"\d{5}",
    shards=r"\d{5}",


def of_checkout(name):
    """A file of the repository, as a rule's input: by its name alone where that is the work folder."""
    path = os.path.join(CHECKOUT, name)
    return name if os.path.realpath(name) == os.path.realpath(path) else path


def code(*modules):
    """What scripts say, and all that they import: as parameters, they rerun jobs when it changes.

    One `file digest` for each file, so that Snakemake's reason names the one that was edited. A
    comment or a docstring changes nothing.
    """
    return CODE.digests(*modules)


def encoder_modules(names):
    """The modules of encoders, which scripts import by name."""
    return [f"features.encoders.{name}" for name in names]


def with_prompt_set(prompt_set):
    """Models of the run that have images of a prompt set."""
    return [m for m in RUN_MODELS if prompt_set in prompt_sets_of(config, m)]


def flags(settings):
    """Settings as command-line flags, sorted: `learning_rate: 1` becomes `--learning-rate 1`."""
    return [quote(word) for word in unquoted_flags(settings)]


def unquoted_flags(settings):
    """The same as words that the shell does not see."""
    words = []
    for key, value in sorted(settings.items()):
        flag = f"--{key.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif isinstance(value, (list, tuple)):
            words += [flag, *[str(item) for item in value]]
        elif isinstance(value, dict):
            words += [
                w for k, v in sorted(value.items()) for w in (flag, f"{k}={plain(v)}")
            ]
        elif value is not False and value is not None:
            words += [flag, str(value)]
    return words


def plain(value):
    """A value as flags write it."""
    return str(value).lower() if isinstance(value, bool) else value


def quote(word):
    """A word as the shell reads it back."""
    return shlex.quote(str(word))


def captions(model):
    """The folder, below results/cohort, of what a model's captions decide.

    Empty for the cohort's own captions; `captions_{source}/` for a model with a caption source of
    its own (Table 17). The radiographs and their labels are the same for all.
    """
    own = caption_source_of(config)
    source = caption_source_of(config, model)
    return "" if source == own else f"captions_{source}/"


def manifest(wildcards):
    """The manifest with a model's captions."""
    return f"results/cohort/{captions(wildcards.model)}manifest.parquet"


def prompts(wildcards, prompt_set=None):
    """A model's prompts; of the wildcard's prompt set, or of the one given."""
    prompt_set = prompt_set or wildcards.prompt_set
    if prompt_set == STRESS:
        return STRESS_PROMPTS
    return f"results/cohort/{captions(wildcards.model)}prompts/{prompt_set}.parquet"


def read_training(wildcards):
    """The training split with a model's captions, which no label or test caption makes anew."""
    return f"results/cohort/{captions(wildcards.model)}training/manifest.parquet"


def asked(wildcards):
    """A model's prompts as it is sampled from them."""
    return drawn_from_part(captions(wildcards.model), wildcards.prompt_set)


def drawn_from_part(folder, prompt_set):
    """A prompt set, made of the part of the manifest that it is drawn from."""
    if prompt_set == STRESS:  # drawn from nothing
        return STRESS_PROMPTS
    labelled = config["prompt_sets"][prompt_set].get("draw") == "official"
    training = "labelled_training" if labelled else "training"
    part = "test" if prompt_set == "test" else training
    return f"results/cohort/{folder}{part}/prompts/{prompt_set}.parquet"


def own_radiographs(wildcards):
    """Features of the radiographs of a model's privacy prompts, under the other protocol."""
    folder = f"results/features/real/{captions(wildcards.model)}prompts"
    return expand(f"{folder}/{OTHER_PROTOCOL}/{{name}}.h5", name=PRIVACY_ENCODERS)


def test_answers(wildcards):
    """RAD-DINO's features of a model's test images, if it has any."""
    if wildcards.model in with_prompt_set("test") and "rad_dino" in REFERENCE_ENCODERS:
        return f"results/features/{wildcards.model}/test/rad_dino.h5"
    return []


def caption_folders():
    """The folders of every caption source of the run, see `captions`."""
    return sorted({"", *map(captions, RUN_MODELS)})


def exported_prompts(wildcards):
    """The prompts of every caption source of the run and the stress set, as CSV."""
    names = [*every_prompt_set(wildcards), STRESS_PROMPTS]
    return [str(Path(name).with_suffix(".csv")) for name in names]


def every_manifest(wildcards):
    """The manifest with the captions of each source."""
    return [f"results/cohort/{folder}manifest.parquet" for folder in caption_folders()]


def every_prompt_set(wildcards):
    """The prompts of every caption source of the run that are captions of its radiographs."""
    return [
        f"results/cohort/{folder}prompts/{prompt_set}.parquet"
        for folder in caption_folders()
        for prompt_set in COHORT_PROMPT_SETS
    ]


def of_captions(wildcards):
    """The folder of the caption source that a cohort's folder stands for, and its part."""
    path = Path(wildcards.captions)
    part = path.name if path.name in PARTS else ""
    return wildcards.captions.removesuffix(f"{part}/"), part


def cohort_flags(wildcards):
    """Flags of the cohort's job: how its source is read, and what is looked at beside."""
    folder, part = of_captions(wildcards)
    words = cohort_words(folder, part)
    if part:
        words += ["--part", part, "--no-check-files"]  # the whole manifest's job checks
    else:
        settings = config["cohort"].get("identical_images", {})
        words += unquoted_flags({"alike": ALIKE, **settings})
    return [quote(word) for word in words]


def cohort_words(folder, part=""):
    """How the source is read, from its own block of the config; of a part what it holds alone."""
    cohort = config["cohort"]
    caption_source = Path(folder).name.removeprefix("captions_") or caption_source_of(
        config
    )
    settings = cohort[cohort["source"]]
    words = [
        cohort["source"],
        "--root",
        settings["root"],
    ]
    for name, label in cohort["views"].items():
        words += ["--view", f"{name}={name if part else label}"]
    if cohort["source"] == "mimic_cxr_jpg":
        words += ["--annotations", settings["annotations"]]
        words += ["--caption-source", caption_source]
    else:
        words += ["--metadata", settings["metadata"]]
        columns = settings["columns"] | (
            {"caption": caption_source} if caption_source else {}
        )
        for column, name in columns.items():
            words += ["--column", f"{column}={name}"]
        if not part or part in LABELLED:
            words += finding_flags(settings["findings"])
        for name in ("test_share", "validate_share", "split_seed", "exclude_nonempty"):
            if name in settings:
                words += unquoted_flags({name: settings[name]})
    return [str(word) for word in words]


def finding_flags(findings):
    """Flags that say which column of a table holds the findings, and how."""
    words = ["--finding-column", findings["column"]]
    if "separator" in findings:
        words += ["--finding-separator", findings["separator"]]
    for label, finding in findings["values"].items():
        words += ["--finding", f"{finding}={label}"]
    if findings.get("absent") is not None:
        words += ["--finding-absent", findings["absent"]]
    return words


def cohort_sources(wildcards):
    """The source's tables that are there; preflight names those that are missing."""
    cohort = config["cohort"]
    settings = cohort[cohort["source"]]
    if cohort["source"] == "image_folder":
        found = [Path(settings["metadata"])]
    else:
        found = sorted(Path(settings["root"]).glob("mimic-cxr-2.0.0-*.csv*"))
        found += sorted(Path(settings["annotations"]).glob("*.json"))
        found += sorted(Path(settings["annotations"]).glob("*.csv"))
    return [str(path) for path in found if path.is_file()]


def cohort_contents(wildcards):
    """What the source's tables hold: as parameters, they rerun the job when it changes, and a touch
    or a copy reruns nothing, whatever their size. Of a part, what it will hold of them.
    """
    folder, part = of_captions(wildcards)
    tables = cohort_sources(wildcards)
    return cohort_parts(folder)[part] if part else CONTENTS.digests(tables)


@cache
def cohort_parts(folder):
    """What each part of a manifest will hold."""
    tables = cohort_sources(None)
    return part_digests(cohort_words(folder), tables, VERSIONS["cohort"], CONTENTS)


@cache
def weights_of(path):
    """`file digest` of a file of weights, or of the files of a folder."""

    def tell():
        files = files_of(path)
        digests = CONTENTS.digests(files)
        return digests if len(files) < 50 else [CONTENTS.condensed(files)]

    return CONTENTS.last(path, tell)


@cache
def base_of(model):
    """`file digest` of what a model's base holds, of the files that are loaded."""
    return base_contents(config["models"][model], CONTENTS)


def trained_base(wildcards):
    """What the base holds that a model is fine-tuned from."""
    return base_of(wildcards.model)


def sampled_base(wildcards):
    """What the base holds that a model is sampled from; a checkpoint trained in full has none."""
    tuned = config["models"][wildcards.model].get("finetune")
    return [] if tuned and tuned["method"] == "full" else base_of(wildcards.model)


@cache
def external_images(model, prompt_set):
    """What a user's own images of a prompt set hold."""
    external = config["models"][model]["external"]
    return external_contents(external, prompt_set, IMAGE_CONTENTS) + bits()


def imported_images(wildcards):
    """The same, of a job."""
    return external_images(wildcards.model, wildcards.prompt_set)


def encoder_contents(wildcards, names):
    """What the weights of encoders hold; those that the workflow trains are inputs."""
    weights = config["encoders"]
    own = [name for name in names if not (name == "reid" and REID_TRAINING)]
    return [
        f"{name} {file}"
        for name in own
        for file in weights_of(weights[name]["weights"])
    ]


def reid_start(wildcards):
    """What the weights hold that the training of re-identification starts from."""
    return weights_of(config["encoders"]["reid"]["weights"])


def classifier_start(wildcards):
    """What the weights hold that classifiers start from."""
    return weights_of(config["downstream"]["classification"]["weights"])


def labeller_contents(wildcards):
    """What the pseudo-labeller's weights hold."""
    return weights_of(config["downstream"]["segmentation"]["labeller"]["weights"])


def exact_mask_contents(wildcards):
    """What the folder of masks drawn by hand holds, where there is one."""
    folder = config["downstream"]["segmentation"]["exact_masks"]
    return weights_of(folder) if folder else []


def reporter_start(wildcards):
    """What the networks hold that a report generator starts from, or that is released."""
    start = config["downstream"]["report_generation"]["start"]
    # Which of them synthetic_only continues, the protocol says.
    wanted = {"released": ["released"], "synthetic_only": ["base", "released"]}
    folders = wanted.get(wildcards.setting, ["base"])
    return [file for name in folders for file in weights_of(f"{start}/{name}")]


def scorer_contents(wildcards, name):
    """What the files of a scorer of reports hold; none where the config names none."""
    files = REPORT_METRICS.get(name) or {}
    return [f"{key} {file}" for key in sorted(files) for file in weights_of(files[key])]


def bits():
    """How many bits of 16 images use, where the config says it: what is read of them follows."""
    return [f"{name} {value}" for name, value in said_of_bits().items()]


@cache
def radiographs(*splits):
    """Which splits' radiographs were replaced since they were first read, see `make refresh`; and
    how many of their bits are used.

    Nothing, for as long as none was and all are: no plan looks at the radiographs themselves.
    """
    try:
        return changed_radiographs(CHANGED, splits) + bits()
    except InputError as error:
        raise WorkflowError(str(error)) from None


def fidelity_flags(wildcards):
    """Flags of the fidelity metrics; the encoder is the wildcard's."""
    return flags({k: v for k, v in config["fidelity"].items() if k != "encoders"})


def privacy_flags(wildcards):
    """Flags of every privacy score of a model."""
    return flags({k: v for k, v in config["privacy"].items() if k != "matches"})


def answers_flag(wildcards, input):
    """The flag that says where the features of a model's test images are, if there are any."""
    return flags({"answers": os.path.dirname(input.answers)}) if input.answers else []


def prompt_flags(wildcards):
    """Flags that draw a prompt set."""
    settings = config["prompt_sets"][wildcards.prompt_set]
    return flags({k: v for k, v in settings.items() if k != "shards"})


def stress_flags(wildcards):
    """Flags that write the stress set: how much of it."""
    settings = config["prompt_sets"][STRESS]
    return flags({k: v for k, v in settings.items() if k != "shards"})


def finetune_flags(wildcards):
    """Flags of fine-tuning, from the one model's block."""
    return flags(training_settings(config["models"][wildcards.model]))


def span_before(wildcards):
    """The span that a span of fine-tuning continues; the first has none."""
    if wildcards.span == "1":
        return []
    return f"results/finetune/{wildcards.model}/spans/{int(wildcards.span) - 1}"


def last_span(wildcards):
    """The span that finished a model's fine-tuning; until there is one, the next to be run.

    `get` raises for a span that has not run, and Snakemake asks again once it has.
    """
    for span in count(1):
        made = checkpoints.finetune_train.get(model=wildcards.model, span=span)
        if is_finished(made.output[0]):
            return made.output[0]


def processes_of(resources):
    """In how many processes a training job computes: one per GPU, or what the CPU is asked for."""
    return resources.gpu or resources.get("cpu_processes", 1)


def launch(wildcards, resources):
    """How a script starts that trains in one process or several."""
    return launcher(processes_of(resources))


def checkpoint(wildcards):
    """The fine-tuned checkpoint; nothing for a model that runs as it was published."""
    if wildcards.model in FINETUNED:
        return f"results/finetune/{wildcards.model}/checkpoint"
    return []


def curve(wildcards):
    """The training curve that lies beside a fine-tuned checkpoint, made with it."""
    tuned = checkpoint(wildcards)
    return str(Path(tuned).with_name("training.csv")) if tuned else []


def generate_flags(wildcards):
    """Flags of sampling: where the weights lie, and the one model's generate block."""
    settings = config["models"][wildcards.model]
    return flags(sampling_settings(settings, checkpoint(wildcards)))


def generate_block(wildcards):
    """What decides a model's images beyond its checkpoint."""
    settings = config["models"][wildcards.model]
    keys = ("family", "base", "parts", "generate")
    return canonical({k: settings.get(k) for k in keys})


def control_flags(wildcards):
    """Flags of a control."""
    return flags(config["models"][wildcards.model]["control"])


def external_flags(wildcards):
    """Flags that import a user's images."""
    return flags(config["models"][wildcards.model]["external"])


def external_sources(wildcards):
    """The user's table of images, if it is there; preflight names it if it is missing."""
    path = config["models"][wildcards.model]["external"]["metadata"]
    return [path] if os.path.isfile(path) else []


def shards_of(model, prompt_set):
    """The image shards of one model and prompt set."""
    count = config["prompt_sets"][prompt_set]["shards"]
    return [
        f"results/generate/{model}/{prompt_set}/part-{k:05d}-of-{count:05d}.parquet"
        for k in range(count)
    ]


def shards(wildcards, prompt_set=None):
    """The image shards that a job reads; of the wildcard's prompt set, or of the one given."""
    return shards_of(wildcards.model, prompt_set or wildcards.prompt_set)


def encoder_flags(wildcards, names):
    """The named encoders with their weights."""
    words = [f"{name}={encoder_weights(name)}" for name in names]
    return [word for name in words for word in ("--encoder", quote(name))]


def encoder_weights(name):
    """The weights of an encoder: those of the config, or what training makes of them."""
    if name == "reid" and REID_TRAINING:
        return rules.features_train_reid.output.weights
    return config["encoders"][name]["weights"]


def trained_weights(wildcards):
    """The encoders of privacy that the workflow trains itself."""
    return [encoder_weights("reid")] if REID_TRAINING else []


def output_folder(wildcards, output):
    """The folder that a rule's outputs lie in."""
    return os.path.dirname(output[0])


def folder_of_outputs(wildcards, output, name):
    """The folder that a rule's outputs of one name lie in."""
    return os.path.dirname(output[name][0])


def input_folder(wildcards, input, name):
    """The folder that a rule's inputs of one name lie in."""
    return os.path.dirname(input[name][0])


def more_memory(wildcards, attempt, base):
    """Memory in MB that grows with the attempt."""
    return base * attempt


@cache
def measured():
    """What the cost model knows without reading the cohort: its size, and rates measured on GPUs."""
    return expected_cohort(config), read_rates()


def sampling_minutes(wildcards, attempt, otherwise):
    """Minutes of one shard of sampling, by the cost model; where it has no rate, as the rule says."""
    asked = (wildcards.model, wildcards.prompt_set, otherwise, attempt)
    return shard_minutes(config, *measured(), *asked)


def why_missing(model, prompt_set):
    """Why a model has no images of a prompt set."""
    if captions(model) and prompt_set == "augment":
        return "its own captions point to other radiographs than the baseline's"
    if model in CONTROLS and prompt_set == STRESS:
        return "a control shows radiographs, and prompts from templates describe none"
    return f"no images of the prompt set `{prompt_set}` were given"


def model_table(wildcards):
    """What tables show of the models, as JSON."""
    rows = []
    for key in RUN_MODELS:
        settings = config["models"][key]
        missing = [s for s in PROMPT_SETS if s not in prompt_sets_of(config, key)]
        rows.append(
            {
                "key": key,
                "family": settings["family"],
                "display": settings["display"],
                "finetuning": tuning(settings),
                "missing": {s: why_missing(key, s) for s in missing},
                "settings": ablation_settings(settings, caption_source_of(config, key)),
            }
        )
    return quote(json.dumps(rows))


def job_patterns(wildcards):
    """Of every rule that leaves a benchmark file, whose its files are, as JSON.

    That is the rule's stage, the benchmark file as a regular expression, and the wildcards with
    their constraints in the order of the output, by which the SLURM executor names logs.
    """
    patterns = []
    for source in workflow.rules:
        if source.benchmark is None:
            continue
        output = source.output[0]
        place = Path(output).parts
        constraints = output.wildcard_constraints()
        gpu = source.resources.get("gpu")
        patterns.append(
            {
                "name": source.name,
                "stage": place[2] if place[1] == "downstream" else place[1],
                "benchmark": source.benchmark.regex().pattern,
                "wildcards": [
                    [name, constraints[name].pattern if name in constraints else ".+"]
                    for name in output.regex().groupindex
                ],
                "gpus": None if gpu.is_evaluable() else gpu.value or 0,
            }
        )
    return quote(json.dumps(patterns))


def rules_drawn(wildcards):
    """The rules, which of them feed which, and how many jobs the run has of each, as JSON."""
    return rules_as_json()


@cache
def rules_as_json():
    """The same, walked once: Snakemake asks for parameters many times, and the rules stay."""
    return quote(to_json(rule_graph(workflow.rules)))


def records(kind):
    """Every record of one kind that the run's models have."""
    if kind == "fidelity":
        return fidelity_records(REFERENCE_ENCODERS, with_prompt_set("test"))
    if kind == "privacy":
        return privacy_records(with_prompt_set("privacy"), OTHER_PROTOCOL)
    if kind == "faithfulness":
        looked = faithfulness_records(JUDGES, with_prompt_set("test")) if LOOKS else []
        return looked + stress_records(with_stress())
    return downstream_records(config["downstream"]["tasks"], with_prompt_set("augment"))


def with_examples():
    """Models that the report's example images compare: those with the cohort's captions."""
    return [m for m in with_prompt_set("test") if not captions(m)]


def example_shards(wildcards):
    """The first test shard of every model, for the report's example images."""
    return [shards_of(m, "test")[0] for m in with_examples()]


def example_flags(wildcards):
    """The example shards with their models' keys."""
    pairs = [f"{m}={shards_of(m, 'test')[0]}" for m in with_examples()]
    return [word for pair in pairs for word in ("--images", quote(pair))]


def riskiest_pairs(wildcards):
    """The tables of closest pairs of every model that has images of the privacy set."""
    return [
        f"results/privacy/closest/{m}_pairs.parquet" for m in with_prompt_set("privacy")
    ]


def privacy_shards(wildcards):
    """Every model's images of the privacy set."""
    return [s for m in with_prompt_set("privacy") for s in shards_of(m, "privacy")]


def riskiest_flags(wildcards):
    """The same with their models' keys."""
    scored = with_prompt_set("privacy")
    pairs = [f"{m}=results/privacy/closest/{m}_pairs.parquet" for m in scored]
    images = [f"{m}={s}" for m in scored for s in shards_of(m, "privacy")]
    return ["--pairs", *map(quote, pairs), "--images", *map(quote, images)]


def privacy_pairs(wildcards):
    """The scores of each image against its prompt's radiograph, of every model that has any."""
    return [f"results/privacy/{m}_pairs.parquet" for m in with_prompt_set("privacy")]


def figure_flags(wildcards):
    """Captions, scores, pairs and images of the figures, with their models' or sources' keys."""
    own = caption_source_of(config)
    words = ["--test-prompts", "results/cohort/prompts/test.parquet", "--prompts"]
    for folder in caption_folders():
        source = Path(folder).name.removeprefix("captions_") or own or "captions"
        words += [
            f"{source}=results/cohort/{folder}prompts/{prompt_set}.parquet"
            for prompt_set in COHORT_PROMPT_SETS
        ]
    scored = with_prompt_set("privacy")
    words += ["--scores", *[f"{m}=results/privacy/{m}_pairs.parquet" for m in scored]]
    closest = "results/privacy/closest"
    words += ["--pairs", *[f"{m}={closest}/{m}_pairs.parquet" for m in scored]]
    words += [
        "--privacy-images",
        *[f"{m}={s}" for m in scored for s in shards_of(m, "privacy")],
    ]
    return [*map(quote, words), *example_flags(wildcards)]


def tokenizers(wildcards):
    """Where the text encoders of the run's models lie, as JSON."""
    found = {m: base_settings(config["models"][m]) for m in SAMPLED}
    return quote(
        json.dumps(
            {
                m: {"family": s["family"], "base": s["base"], "parts": s["part"]}
                for m, s in found.items()
            }
        )
    )


def looked_shards(wildcards):
    """A model's test images; none for the radiographs, which the manifest names."""
    return [] if wildcards.model == "real" else shards(wildcards, "test")


def looked_prompts(wildcards):
    """The test prompts of a model, or for the radiographs those of the cohort."""
    real = "results/cohort/prompts/test.parquet"
    return real if wildcards.model == "real" else prompts(wildcards, "test")


def judges(wildcards):
    """The classifiers that judge images: one for each training run on radiographs alone."""
    if "classifier" not in JUDGES:
        return []
    repeats = config["downstream"]["classification"]["repeats"]
    arm = "results/downstream/classification/real_only/real"
    return [f"{arm}/network-{k}.safetensors" for k in range(repeats)]


def looking_flags(wildcards, input):
    """Flags of looking at images: what they are, the networks, how many images have their texture measured."""
    labeller = config["downstream"]["segmentation"]["labeller"]
    settings = {
        "shards": input.shards,
        "classifier": input.judges,
        "cxas": labeller["weights"],
        "cxas_size": labeller["size"],
        "batch_size": labeller["batch_size"],
        "texture_images": config["faithfulness"]["texture_images"],
        "seed": config["faithfulness"]["seed"],
    }
    if "densenet_121" in JUDGES:
        settings["densenet_121"] = config["encoders"]["densenet_121"]["weights"]
    return flags({key: value for key, value in settings.items() if value != []})


def looking_contents(wildcards):
    """What the published networks hold that look at images."""
    names = [name for name in JUDGES if name == "densenet_121"]
    return labeller_contents(wildcards) + encoder_contents(wildcards, names)


def exact_organ_contents(wildcards):
    """What the folder of exact organs holds, where there is one."""
    folder = config["faithfulness"]["exact_organs"]
    return weights_of(folder) if folder else []


def faithfulness_flags(wildcards):
    """Flags of scoring what was seen: judges, draws of patients and their seed."""
    kept = ("bootstrap", "seed")
    return flags({"judges": JUDGES, **{k: config["faithfulness"][k] for k in kept}})


def exact_organs_flag(wildcards):
    """The flag that says where exact organs lie, if there are any."""
    return flags({"exact_organs": config["faithfulness"]["exact_organs"]})


def training_shards(wildcards):
    """The synthetic images that a downstream network is trained on; none for the baselines."""
    baselines = ("real_only", "released")
    return [] if wildcards.setting in baselines else shards(wildcards, "augment")


def training_shards_flag(wildcards, input):
    """The same as a flag."""
    return ["--shards", *map(quote, input.shards)] if input.shards else []


def downstream_settings(task):
    """Settings of a task's training: how often it is repeated and what is measured is no part of it."""
    settings = config["downstream"][task]
    others = ("repeats", "seed", "bootstrap", "metrics")
    return {k: v for k, v in settings.items() if k not in others}


def labeller_flags(wildcards):
    """Flags of the pseudo-labeller: its network, and which prompts are drawn."""
    settings = config["downstream"]["segmentation"]
    drawn = {k: settings[k] for k in ("images", "draw_seed")}
    return flags({**settings["labeller"], **drawn})


def segmenter_flags(wildcards):
    """Flags of the U-Net's training; what the masks depend on comes with their files."""
    settings = downstream_settings("segmentation")
    of_masks = ("labeller", "images", "draw_seed")
    return flags({k: v for k, v in settings.items() if k not in of_masks})


def exact_masks_flags(wildcards):
    """Flags that say where the masks drawn by hand lie and how masks are compared."""
    settings = config["downstream"]["segmentation"]
    return flags({k: settings[k] for k in ("exact_masks", "size")})


def labelled_shards(wildcards):
    """The images that get pseudo-masks; none for the radiographs, which the manifest names."""
    return [] if wildcards.model == "real" else shards(wildcards, "augment")


def masks_of_model(wildcards):
    """The pseudo-masks of the synthetic images that a U-Net is trained on."""
    if wildcards.setting == "real_only":
        return []
    return f"results/downstream/segmentation/masks/{wildcards.model}.parquet"


def masks_flag(wildcards, input):
    """The same as a flag."""
    return ["--masks", quote(input.masks)] if input.masks else []


def training_seed(wildcards, task):
    """The seed of a training run: each repeat has its own."""
    return config["downstream"][task]["seed"] + int(wildcards.repeat)


def outcomes(wildcards, task, setting=None, model=None):
    """What the training runs of an arm left, one file for each repeat.

    A released network has no training runs, and one file.
    """
    setting = setting or wildcards.setting
    repeats = 1 if setting == "released" else config["downstream"][task]["repeats"]
    arm = f"{setting}/{model or wildcards.model}"
    return [
        f"results/downstream/{task}/{arm}/repeat-{k}.parquet" for k in range(repeats)
    ]


def stress_cxas_flags(wildcards):
    """Flags of the network that draws lungs: the pseudo-labeller's."""
    labeller = config["downstream"]["segmentation"]["labeller"]
    return [
        "--cxas",
        quote(labeller["weights"]),
        "--cxas-size",
        labeller["size"],
        "--batch-size",
        labeller["batch_size"],
    ]


def with_stress():
    """Models whose images of the stress set are judged: where a classifier does and CXAS draws lungs."""
    return with_prompt_set(STRESS) if LOOKS and "classifier" in JUDGES else []


def stress_shards(wildcards):
    """Those models' images of the stress set."""
    return [s for m in with_stress() for s in shards_of(m, STRESS)]


def stress_scores(wildcards):
    """Each image's score in its contrast."""
    return [f"results/faithfulness/stress/{m}.parquet" for m in with_stress()]


def stress_page_flags(wildcards):
    """Images and scores of the report's page of contrasts, with their models' keys."""
    models = with_stress()
    pairs = [f"{m}={s}" for m in models for s in shards_of(m, STRESS)]
    scores = [f"{m}=results/faithfulness/stress/{m}.parquet" for m in models]
    words = ["--stress-images", *pairs, "--stress-scores", *scores] if models else []
    return [quote(word) for word in words]


def baseline(wildcards, task):
    """The outcomes of real data alone, which the gains are measured against."""
    if wildcards.setting == "real_only":
        return []
    return outcomes(wildcards, task, "real_only", "real")


def report_baseline(wildcards):
    """The reports that gains are measured against.

    Of real data alone; for synthetic data alone those of the released generator that they continue.
    """
    if wildcards.setting == "released":
        return []
    if wildcards.setting == "synthetic_only":
        return outcomes(wildcards, "report_generation", "released", "real")
    return baseline(wildcards, "report_generation")


def report_scores(wildcards):
    """What the scorers leave of the reports of an arm and of its baseline."""
    reports = outcomes(wildcards, "report_generation") + report_baseline(wildcards)
    return [
        str(path.with_name(path.name.replace("repeat-", f"{scorer}-")))
        for path in map(Path, reports)
        for scorer in REPORT_SCORERS
    ]


def scores_flag(wildcards, input):
    """The same as a flag."""
    return ["--scores", *map(quote, input.scores)] if input.scores else []


def report_metric_flags(name):
    """The files of one scorer as flags; none where the config names none."""
    return flags(REPORT_METRICS.get(name) or {})


def baseline_flag(wildcards, input):
    """The same as a flag."""
    return ["--baseline", *map(quote, input.baseline)] if input.baseline else []


def slurm_requests(jobs):
    """What each rule's jobs ask of SLURM, for preflight; nothing where another executor runs them."""
    if workflow.executor_plugin.name != "slurm":
        return []
    submitted = [job for job in jobs if not workflow.is_local(job.rule)]
    requests = {
        (job.rule.name, request_of(job.resources, job.threads)) for job in submitted
    }
    return [
        (rule, asdict(request))
        for rule, request in sorted(requests, key=str)
        if request
    ]


def gpu_memory(jobs):
    """GB of the smallest GPU that each stage's jobs ask for, as flags, where the profile says it."""
    found = {}
    for job in jobs:
        size = job.resources.get("gpu_memory_gb")
        if size and job.rule.name in ("finetune_train", "generate_sample"):
            found.setdefault(job.rule.name.split("_")[0], []).append(size)
    sizes = [f"{stage}={min(asked)}" for stage, asked in sorted(found.items())]
    return " ".join(["--gpu-memory", *sizes] if sizes else [])


def preflight():
    """Check every file that the planned jobs need, and what they ask of SLURM, before the first."""
    planned = list(workflow.dag.needrun_jobs())
    stages = sorted({job.rule.name.split("_")[0] for job in planned})
    models = sorted(
        {job.wildcards.model for job in planned if "model" in job.wildcards.keys()}
    )
    tuning = [job for job in planned if job.rule.name == "finetune_train"]
    devices = f"--devices {processes_of(tuning[0].resources)}" if tuning else ""
    with tempfile.TemporaryDirectory() as folder:
        resolved, asked = Path(folder, "config.json"), Path(folder, "requests.json")
        resolved.write_text(json.dumps(config))
        requests = slurm_requests(planned)
        asked.write_text(json.dumps(requests))
        asking = f"--requests {asked}" if requests else ""
        memory = gpu_memory(planned)
        shell(
            "python -m workflow_scripts.preflight.check --config {resolved}"
            " --stages {stages} --models {models} {devices} {memory} {asking} >&2"
        )
