"""Handwritten files and answers of SLURM that the cost table is made from."""

from workflow_scripts.costs.slurm_accounting import Allocation

_CONSTRAINTS = {
    "model": "[a-z][a-z0-9_]*",
    "prompt_set": "test|privacy|augment",
    "other": "(as_published/)?",
    "captions": r"(captions_[\w.-]+/)?",
    "setting": "real_only|augmented|synthetic_only|released",
    "shard": r"\d{5}",
    "shards": r"\d{5}",
    "repeat": r"\d+",
}


def _rule(name, stage, benchmark, wildcards="", gpus=0):
    """Describe a rule; wildcards stand in braces in `benchmark`, `wildcards` are in its output."""
    for key, constraint in _CONSTRAINTS.items():
        benchmark = benchmark.replace(f"{{{key}}}", f"(?P<{key}>{constraint})")
    return {
        "name": name,
        "stage": stage,
        "benchmark": f"benchmarks/{benchmark}\\.tsv$",
        "wildcards": [[key, _CONSTRAINTS[key]] for key in wildcards.split()],
        "gpus": gpus,
    }


RULES = [
    _rule("cohort_manifest", "cohort", "cohort/{captions}manifest", "captions"),
    _rule("finetune_train", "finetune", "finetune/{model}", "model", gpus=4),
    _rule(
        "generate_sample",
        "generate",
        "generate/{model}/{prompt_set}_{shard}_of_{shards}",
        "model prompt_set shard shards",
        gpus=1,
    ),
    _rule("features_reference", "features", "features/real_test", gpus=1),
    _rule("features_fidelity", "features", "features/{model}_test", "model", gpus=1),
    _rule("features_privacy", "features", "features/{other}{model}_privacy", "model other", gpus=1),
    _rule("privacy_score", "privacy", "privacy/{other}{model}", "other model"),
    _rule("privacy_closest", "privacy", "privacy/closest_{model}", "model"),
    _rule(
        "train",
        "classification",
        "downstream/classification_{setting}_{model}_{repeat}",
        "setting model repeat",
        gpus=1,
    ),
    _rule("tables_build", "tables", "tables/build"),
]
"""Rules as the workflow describes them to the script."""


def write_benchmark(path, seconds, max_rss):
    """Write a benchmark file of Snakemake; it has no memory if the job was too short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    memory = "NA" if max_rss is None else max_rss
    path.write_text(
        "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
        f"{seconds}\t0:00:01\t{memory}\t1597.46\t98.76\t117.37\t0.05\t0.31\t48.57\t1.00\n"
    )


def write_log(path, text="Building DAG of jobs...\n"):
    """Write a log of the SLURM executor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def allocation(job_id, state, elapsed_s, gpus=0, gpu_model="", max_rss_mib=None):
    """Return a run of a job as SLURM's accounting gives it."""
    times = ("2026-11-01T10:00:00", "2026-11-01T12:00:00")
    return Allocation(
        *(job_id, "run", state, "0:0", *times, elapsed_s, gpus, gpu_model, 8, "n01", max_rss_mib)
    )
