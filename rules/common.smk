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
from pkgutil import iter_modules

sys.path.insert(0, workflow.basedir)

from snakemake.exceptions import WorkflowError
from workflow_scripts.cohort.reads import UNLABELLED, cohort_reads
from workflow_scripts.cohort.refresh import CHANGED, changed_radiographs
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
from workflow_scripts.common.manifest import PROMPT_SETS, SPLITS
from workflow_scripts.fidelity import metrics as fidelity_metrics
from workflow_scripts.finetune.base_contents import base_contents
from workflow_scripts.finetune.span import is_finished
from workflow_scripts.generate.external_contents import external_contents
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
    "tables": 1,
}

RUN_MODELS = config["run_models"]
CONTROLS = [m for m in RUN_MODELS if config["models"][m]["family"] == "control"]
EXTERNAL = [m for m in RUN_MODELS if config["models"][m]["family"] == "external"]
SAMPLED = [m for m in RUN_MODELS if m not in CONTROLS + EXTERNAL]
FINETUNED = [m for m in SAMPLED if config["models"][m].get("finetune")]

# Table 3 stands under both protocols, side by side: this is the one that the config does not name.
OTHER_PROTOCOL = next(name for name in PROTOCOLS if name != config["protocol"])

# Which encoders the images pass through, all in one pass.
REFERENCE_ENCODERS = config["fidelity"]["encoders"]
FIDELITY_ENCODERS = [*REFERENCE_ENCODERS, "biovil_t_image", "biovil_t_text"]
PRIVACY_ENCODERS = ["rad_dino", "reid"]

# With which synthetic images each downstream task is trained, beside real data alone.
SYNTHETIC_SETTINGS = {
    "classification": ["augmented", "synthetic_only"],
    "segmentation": ["augmented"],
    "report_generation": ["augmented", "synthetic_only"],
}
# The networks that read generated reports: those that are configured.
REPORT_METRICS = config["downstream"]["report_generation"]["metrics"]
REPORT_SCORERS = [name for name, files in REPORT_METRICS.items() if files]
# Where `make reports` puts the packages of those that cannot live beside the core's.
REPORT_PACKAGES = os.path.join(sys.prefix, "reports")

# How the re-identification network is trained on the cohort, where its weights are not published.
REID_TRAINING = config["encoders"]["reid"].get("train")


# The scripts' code, as `code` reads it.
CODE = Code(Path(workflow.basedir), known=Path(".snakemake/code.json"))
# What tables and weights hold, and a user's own images.
CONTENTS = Contents(Path(".snakemake/contents.json"))
IMAGE_CONTENTS = Contents(Path(".snakemake/images.json"))


wildcard_constraints:
    captions=r"(captions_[\w.-]+/)?(unlabelled/)?",
    model="[a-z][a-z0-9_]*",
    encoder="|".join(REFERENCE_ENCODERS),
    prompt_set="|".join(PROMPT_SETS),
    repeat=r"\d+",
    setting="real_only|augmented|synthetic_only|released",
    shard=r"\d{5}",
    shards=r"\d{5}",


def code(*modules):
    """What scripts say, and all that they import: as parameters, they rerun jobs when it changes.

    One `file digest` for each file, so that Snakemake's reason names the one that was edited. A
    comment or a docstring changes nothing.
    """
    return CODE.digests(*modules)


def encoder_modules(names):
    """The modules of encoders, which scripts import by name."""
    return [f"features.encoders.{name}" for name in names]


def metric_modules():
    """The modules of fidelity's metrics, which its script finds by their being there."""
    names = [module.name for module in iter_modules(fidelity_metrics.__path__)]
    return [f"fidelity.metrics.{name}" for name in names]


def with_prompt_set(prompt_set):
    """Models of the run that have images of a prompt set."""
    return [m for m in RUN_MODELS if prompt_set in prompt_sets_of(config, m)]


def flags(settings):
    """Settings as command-line flags, sorted: `learning_rate: 1` becomes `--learning-rate 1`."""
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
    return [quote(word) for word in words]


def plain(value):
    """A value as flags write it."""
    return str(value).lower() if isinstance(value, bool) else value


def canonical(settings):
    """Settings as text that does not depend on the order of keys, to compare runs by."""
    return json.dumps(settings, sort_keys=True)


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
    return f"results/cohort/{captions(wildcards.model)}prompts/{prompt_set}.parquet"


def unlabelled(wildcards):
    """The manifest with a model's captions and without labels: relabelling makes no other one."""
    return f"results/cohort/{captions(wildcards.model)}unlabelled/manifest.parquet"


def asked(wildcards):
    """A model's prompts as it is sampled from them: without labels, unless labels draw them."""
    drawn = config["prompt_sets"][wildcards.prompt_set]
    labels = "" if drawn.get("draw") == "official" else "unlabelled/"
    folder = f"{captions(wildcards.model)}{labels}prompts"
    return f"results/cohort/{folder}/{wildcards.prompt_set}.parquet"


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
    """The prompts of every caption source of the run, as CSV."""
    return [str(Path(name).with_suffix(".csv")) for name in every_prompt_set(wildcards)]


def every_manifest(wildcards):
    """The manifest with the captions of each source."""
    return [f"results/cohort/{folder}manifest.parquet" for folder in caption_folders()]


def every_prompt_set(wildcards):
    """The prompts of every caption source of the run."""
    return [
        f"results/cohort/{folder}prompts/{prompt_set}.parquet"
        for folder in caption_folders()
        for prompt_set in PROMPT_SETS
    ]


def of_captions(wildcards):
    """The caption source that a cohort's folder stands for, and whether it has labels."""
    folder = wildcards.captions.removesuffix("unlabelled/")
    source = Path(folder).name.removeprefix("captions_") or caption_source_of(config)
    return source, folder == wildcards.captions


def cohort_flags(wildcards):
    """Flags of the cohort's reader, from its own block of the config."""
    cohort = config["cohort"]
    caption_source, labelled = of_captions(wildcards)
    settings = cohort[cohort["source"]]
    words = [
        cohort["source"],
        "--root",
        settings["root"],
    ]
    for name, label in cohort["views"].items():
        words += ["--view", f"{name}={label if labelled else name}"]
    if labelled:
        # Not declared as an output: only the job that looks at the files writes it.
        words += [
            "--identical",
            f"results/cohort/{wildcards.captions}identical_images.csv",
        ]
        words += flags(cohort.get("identical_images", {}))
    else:
        words.append("--no-check-files")  # the whole manifest's job does
    if cohort["source"] == "mimic_cxr_jpg":
        words += ["--annotations", settings["annotations"]]
        words += ["--caption-source", caption_source]
        words += [] if labelled else ["--unlabelled"]
    else:
        words += ["--metadata", settings["metadata"]]
        columns = settings["columns"] | (
            {"caption": caption_source} if caption_source else {}
        )
        for column, name in columns.items():
            if labelled or column in UNLABELLED:
                words += ["--column", f"{column}={name}"]
        if labelled:
            words += finding_flags(settings["findings"])
        for name in ("test_share", "validate_share", "split_seed", "exclude_nonempty"):
            if name in settings:
                words += flags({name: settings[name]})
    return [quote(word) for word in words]


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
    or a copy reruns nothing, whatever their size. Without labels, of what is read alone.
    """
    caption_source, labelled = of_captions(wildcards)
    if labelled:
        return CONTENTS.digests(cohort_sources(wildcards))
    return cohort_reads(config["cohort"], caption_source, CONTENTS)


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
    return external_contents(external, prompt_set, IMAGE_CONTENTS)


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


@cache
def radiographs(*splits):
    """Which splits' radiographs were replaced since they were first read, see `make refresh`.

    Nothing, for as long as none was: no plan looks at the radiographs themselves.
    """
    try:
        return changed_radiographs(CHANGED, splits)
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


def finetune_flags(wildcards):
    """Flags of fine-tuning, from the one model's block."""
    settings = config["models"][wildcards.model]
    block = settings["finetune"]
    tuned = {k: v for k, v in block.items() if k not in ("lora", "options")}
    lora = {f"lora_{k}": v for k, v in block.get("lora", {}).items()}
    option = {"option": block.get("options", {})}
    return flags({**base_settings(settings), **tuned, **lora, **option})


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


def base_settings(settings):
    """What says where a model's base checkpoint lies."""
    return {
        "family": settings["family"],
        "base": settings["base"],
        "part": settings.get("parts", {}),
    }


def processes_of(resources):
    """In how many processes a training job computes: one per GPU, or what the CPU is asked for."""
    return resources.gpu or resources.get("cpu_processes", 1)


def launcher(wildcards, resources):
    """How a script starts that trains in one process or several: one per GPU.

    `accelerate` costs a process of its own, so only where it is needed; told that there are several,
    it asks neither the machine nor a user's own settings.
    """
    processes = processes_of(resources)
    if processes == 1:
        return "python -m"
    return (
        f"python -m accelerate.commands.launch --multi_gpu --num_processes {processes}"
        " --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0 -m"
    )


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
    found = base_settings(settings)
    if tuned := checkpoint(wildcards):
        if settings["finetune"]["method"] == "lora":
            found["lora"] = tuned
        else:
            found.update(base=tuned, part={})
    sampled = {k: v for k, v in settings["generate"].items() if k != "options"}
    return flags(
        {**found, **sampled, "option": settings["generate"].get("options", {})}
    )


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


def tuning(settings):
    """How a model was fine-tuned, as Table 11 writes it."""
    tuned = settings.get("finetune")
    if not tuned:
        return "N/A"
    return f"LoRA (r={tuned['lora']['rank']})" if "lora" in tuned else "FFT"


def model_settings(model):
    """What made a model: two that differ in one setting alone are an ablation."""
    settings = config["models"][model]
    if model not in SAMPLED:
        return {"control": settings["control"]["kind"]} if model in CONTROLS else {}
    tuned = {k: v for k, v in (settings.get("finetune") or {}).items() if k != "lora"}
    lora = (settings.get("finetune") or {}).get("lora", {})
    return {
        "base": canonical(base_settings(settings)),
        "generate": canonical(settings["generate"]),
        "finetune": canonical(tuned),
        "caption_source": caption_source_of(config, model),
        **{f"lora_{name}": canonical(value) for name, value in lora.items()},
    }


def why_missing(model, prompt_set):
    """Why a model has no images of a prompt set."""
    if captions(model) and prompt_set == "augment":
        return "its own captions point to other radiographs than the baseline's"
    return f"no images of the prompt set `{prompt_set}` were given"


def model_table(wildcards):
    """What tables show of the models, as JSON."""
    rows = []
    for key in RUN_MODELS:
        settings = config["models"][key]
        tuned = settings.get("finetune")
        missing = [s for s in PROMPT_SETS if s not in prompt_sets_of(config, key)]
        rows.append(
            {
                "key": key,
                "family": settings["family"],
                "display": settings["display"],
                "finetuning": "-" if key in CONTROLS + EXTERNAL else tuning(settings),
                "missing": {s: why_missing(key, s) for s in missing},
                "settings": model_settings(key),
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
        return [
            f"results/fidelity/{encoder}/{m}.json"
            for encoder in REFERENCE_ENCODERS
            for m in with_prompt_set("test")
        ]
    if kind == "privacy":
        scored = with_prompt_set("privacy")
        other = f"{OTHER_PROTOCOL}/"
        folders = ["", other, "closest/", "novelty/", "lenses/"]
        attackers = [f"{folder}attacker/real" for folder in ("", other) if scored]
        models = [f"{folder}{m}" for folder in folders for m in scored]
        return [f"results/privacy/{name}.json" for name in attackers + models]
    found = []
    for task in config["downstream"]["tasks"]:
        found.append(f"results/downstream/{task}/real_only/real.json")
        found += [
            f"results/downstream/{task}/{setting}/{m}.json"
            for setting in SYNTHETIC_SETTINGS[task]
            for m in with_prompt_set("augment")
        ]
        if task == "segmentation":
            found.append("results/downstream/segmentation/labeller/real.json")
        if task == "report_generation":
            found.append("results/downstream/report_generation/released/real.json")
    return found


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
            for prompt_set in PROMPT_SETS
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
        shell(
            "python -m workflow_scripts.preflight.check --config {resolved}"
            " --stages {stages} --models {models} {devices} {asking} >&2"
        )
