# Config validation, and the functions that need Snakemake: its wildcards, inputs, checkpoints and
# jobs. No other rule file has functions; what only needs the config is in workflow_scripts/planning/.

import inspect
import json
import os
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

from workflow_scripts.cohort.drawn_prompts import DRAWN
from workflow_scripts.cohort.parts import PARTS
from workflow_scripts.cohort.stress_prompts import STRESS_VERSION
from workflow_scripts.common.code import Code
from workflow_scripts.common.config import validate_config
from workflow_scripts.common.config_text import check_config_files
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.folders import every_part
from workflow_scripts.common.levels import BITS_USED
from workflow_scripts.common.manifest import (
    COHORT_PROMPT_SETS,
    PROMPT_SETS,
    SPLITS,
    STRESS,
)
from workflow_scripts.common.speed import SWITCHES, switches_of_config
from workflow_scripts.finetune.span import is_finished
from workflow_scripts.planning import arguments
from workflow_scripts.planning.cohort import cohort_flags, cohort_tables
from workflow_scripts.planning.flags import quote, quoted
from workflow_scripts.planning.models import canonical, launcher
from workflow_scripts.planning.reads import Reads
from workflow_scripts.planning.run import (
    PRIVACY_ENCODERS,
    REID_WEIGHTS,
    STRESS_PROMPTS,
    Run,
)
from workflow_scripts.preflight.cost_model import (
    expected_cohort,
    job_minutes,
    shard_minutes,
    works_while_planning,
)
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
# Switches of speed stand in no rule, since none makes anything anew.
os.environ[SWITCHES] = switches_of_config(config)

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
    "curate": 1,
    "tables": 1,
}

# What the config says of the run, and what its jobs read that no job makes.
RUN = Run(config)
READS = Reads(RUN, VERSIONS, Path(".snakemake"))
# The scripts' code, as `code` reads it.
CODE = Code(Path(CHECKOUT), known=Path(".snakemake/code.json"))

# Where `make reports` puts the packages of those scorers that cannot live beside the core's.
REPORT_PACKAGES = os.path.join(sys.prefix, "reports")
if not os.path.samefile(
    CHECKOUT, os.curdir
):  # their commands set PYTHONPATH themselves
    REPORT_PACKAGES = os.pathsep.join([REPORT_PACKAGES, CHECKOUT])


wildcard_constraints:
    captions=rf"(captions_[\w.-]+/)?(({'|'.join(PARTS)})/)?",
    model="[a-z][a-z0-9_]*",
    encoder="|".join(RUN.reference_encoders),
    prompt_set="|".join([*PROMPT_SETS, DRAWN]),
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


def per_job(function, **given):
    """Make an input or parameter of rules from a function: wildcards give the arguments not given.

    `per_job(RUN.shards, prompt_set="test")` calls `RUN.shards(model=wildcards.model, ...)`. None
    stands for no file. Parameters with a default are left alone.
    """
    needed = inspect.signature(function).parameters.values()
    names = [x.name for x in needed if x.default is x.empty and x.name not in given]

    def of_wildcards(wildcards):
        found = function(**{name: wildcards[name] for name in names}, **given)
        return [] if found is None else found

    return of_wildcards


def flag(name, called=None):
    """The flag of a rule's optional inputs: `--name` and the files; nothing where there are none.

    `called`: the flag's own name, where it is another.
    """

    def of_input(wildcards, input):
        files = input[name]
        files = [files] if isinstance(files, str) else files
        return [f"--{called or name}", *quoted(files)] if files else []

    return of_input


def answers_flag(wildcards, input):
    """The flag that says where the features of a model's test images are, if there are any."""
    folder = os.path.dirname(input.answers) if input.answers else None
    return ["--answers", quote(folder)] if folder else []


def encoder_modules(names):
    """The modules of encoders, which scripts import by name."""
    return [f"features.encoders.{name}" for name in names]


def radiographs(*splits):
    """Which splits' radiographs were replaced since they were first read, see `Reads`."""
    try:
        return READS.radiographs(*splits)
    except InputError as error:
        raise WorkflowError(str(error)) from None


def read_by_look(wildcards):
    """The radiographs that a look reads: a model's images need none."""
    return radiographs("test") if wildcards.model == "real" else []


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


def gpu_model_of(rulename):
    """The kind of GPU that the profile gives a rule's jobs; None where it names none."""
    model = workflow.get_rule(rulename).resources.get("gpu_model")
    if model is None:
        return None
    # A profile's words are expressions to Snakemake, which evaluates them for each job.
    return model.raw if model.is_evaluable() else model.value


def sampling_minutes(wildcards, attempt, rulename, otherwise):
    """Minutes of one shard of sampling, by the cost model; where it has no rate, as the rule says."""
    gpu = gpu_model_of(rulename)
    asked = (wildcards.model, wildcards.prompt_set, otherwise, attempt, gpu)
    return shard_minutes(config, *measured(), *asked)


@cache
def planned_works(stage):
    """A stage's work on GPUs, by the cost model."""
    return works_while_planning(config, measured()[0], stage)


def job_minutes_of(wildcards, attempt, rulename, stage, what, otherwise):
    """Minutes of one job, by the cost model; where a rate is missing, as the rule says.

    `what` are beginnings of `Work.what`, in which {setting} is the job's.
    """
    starts = [start.format(**wildcards) for start in what]
    model = wildcards.get("model", "shared")
    rates = measured()[1]
    asked = (stage, model, starts, otherwise, attempt)
    gpu = gpu_model_of(rulename)
    return job_minutes(planned_works(stage), rates, *asked, gpu=gpu)


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


def job_patterns(wildcards):
    """Of every rule that leaves a benchmark file, whose its files are, as JSON.

    That is the rule's stage, the benchmark file as a regular expression, and the wildcards with
    their constraints in the order of the output, by which the SLURM executor names logs.
    """
    patterns = []
    for source in workflow.rules:
        if (
            source.benchmark is None or not source.output
        ):  # a rule that makes nothing has no jobs
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


# The files of rules in the folders of privacy scores and downstream tasks.
PART_RULES = [part.rules for part in every_part() if part.rules]

# What the tables are made from and show.
records = RUN.records
stress_shards = RUN.stress_shards()
stress_scores = RUN.stress_scores()
stress_page_flags = arguments.stress_page_flags(RUN)
every_manifest = RUN.every_manifest()
every_prompt_set = RUN.every_prompt_set()
example_shards = RUN.example_shards()
privacy_shards = RUN.privacy_shards()
privacy_pairs = RUN.privacy_pairs()
riskiest_pairs = RUN.closest_pairs()
model_table = per_job(arguments.model_table, run=RUN)
tokenizers = per_job(arguments.tokenizers, run=RUN)
example_flags = per_job(arguments.example_flags, run=RUN)
riskiest_flags = per_job(arguments.riskiest_flags, run=RUN)
figure_flags = per_job(arguments.figure_flags, run=RUN)


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
    if workflow.group_settings.group_components:
        raise WorkflowError(
            "Snakemake makes groups larger than `group-components` says and may run their jobs "
            "twice, because this workflow has a checkpoint (snakemake issue 1628)\n"
            "  where: --group-components, or `group-components:` of the profile\n"
            "  remedy: take it and `groups:` out; every job is then a job of its own"
        )
    planned = list(workflow.dag.needrun_jobs())
    stages = sorted({job.rule.name.split("_")[0] for job in planned})
    models = sorted(
        {job.wildcards.model for job in planned if "model" in job.wildcards.keys()}
    )
    drawn = [job.wildcards for job in planned if job.rule.name == "cohort_prompts"]
    prompts = sorted({names.captions + names.prompt_set for names in drawn})
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
            " --stages {stages} --models {models} --prompts {prompts}"
            " {devices} {memory} {asking} >&2"
        )
