# Needs: results/cohort/training/manifest.parquet and a base checkpoint (models.{model}.base).
# Makes: results/finetune/{model}/checkpoint (a diffusers folder, or a LoRA adapter) and training.csv.
# Training takes as many jobs as its time limit requires: the spans 1, 2, ... of a model. Each span
# ends successfully, well before its limit, and Snakemake then checks whether it was the last.
# Encoded images lie in results/finetune/.encoded, for all models that encode in the same way; delete
# the folder when no more fine-tuning is planned.
# Progress lies in results/finetune/{model}/.progress, which Snakemake does not know and so does not
# delete: the next span, or a killed job's retry, continues from there. The script is no input: only
# the config and the stage version rerun days of GPUs, never an edited comment.


rule finetune_canaries:
    """Invent the radiographs that a fine-tuning plants and an attack looks for."""
    output:
        directory("results/finetune/{model}/canaries"),
    log:
        "logs/finetune/{model}/canaries.log",
    benchmark:
        "benchmarks/finetune/{model}/canaries.tsv"
    wildcard_constraints:
        model="|".join(filter(RUN.canaries, RUN.finetuned)) or "none",
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        version=VERSIONS["finetune"],
        flags=per_job(arguments.canary_flags, run=RUN),
    shell:
        "python -m workflow_scripts.finetune.canaries {params.flags} --output {output} 2> {log}"


checkpoint finetune_train:
    """Fine-tune one model on every captioned training image, up to the end or the time limit."""
    input:
        manifest=per_job(RUN.training_manifest),
        before=span_before,
        canaries=per_job(RUN.canaries),
    output:
        directory("results/finetune/{model}/spans/{span}"),
    log:
        "logs/finetune/{model}/span_{span}.log",
    benchmark:
        "benchmarks/finetune/{model}/span_{span}.tsv"
    priority: 100
    conda:
        "../envs/core.yaml"
    threads: 32
    resources:
        gpu=4,
        mem_mb=partial(more_memory, base=200000),
        runtime=2880,
    params:
        version=VERSIONS["finetune"],
        weights=per_job(READS.base),
        radiographs=radiographs("train"),
        flags=per_job(arguments.finetune_flags, run=RUN),
        launcher=launch,
        progress="results/finetune/{model}/.progress",
        cache="results/finetune/.encoded",
    shell:
        "{params.launcher} workflow_scripts.finetune.train --model {wildcards.model} {params.flags}"
        " --manifest {input.manifest} --output {output} --progress {params.progress}"
        " --cache {params.cache} --version {params.version} --time-limit {resources.runtime}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule finetune_finish:
    """Put the last span's result in its place, without a second copy, and remove the progress."""
    input:
        last_span,
    output:
        checkpoint=directory("results/finetune/{model}/checkpoint"),
        curve="results/finetune/{model}/training.csv",
    log:
        "logs/finetune/{model}/finish.log",
    benchmark:
        "benchmarks/finetune/{model}/finish.tsv"
    priority: 100
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        version=VERSIONS["finetune"],
        progress="results/finetune/{model}/.progress",
    shell:
        "python -m workflow_scripts.finetune.finish --span {input} --checkpoint {output.checkpoint}"
        " --curve {output.curve} --progress {params.progress} 2> {log}"
