# Needs: results/cohort/manifest.parquet and a base checkpoint (models.{model}.base).
# Makes: results/finetune/{model}/checkpoint (a diffusers folder, or a LoRA adapter) and training.csv.
# Encoded images lie in results/finetune/.encoded, for all models that encode alike; delete it when
# no more fine-tuning is planned.
# Progress lives in results/finetune/{model}/.progress, which Snakemake does not know and so does
# not delete: a killed job continues from there. The script is no input: only the config and the
# stage version rerun days of GPUs, never an edited comment.


rule finetune_train:
    """Fine-tune one model on every captioned training image."""
    input:
        manifest=manifest,
    output:
        checkpoint=directory("results/finetune/{model}/checkpoint"),
        curve="results/finetune/{model}/training.csv",
    log:
        "logs/finetune/{model}.log",
    benchmark:
        "benchmarks/finetune/{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 32
    resources:
        gpu=4,
        mem_mb=partial(more_memory, base=200000),
        runtime=2880,
    params:
        version=VERSIONS["finetune"],
        flags=finetune_flags,
        processes=processes,
        progress="results/finetune/{model}/.progress",
        cache="results/finetune/.encoded",
    shell:
        "python -m accelerate.commands.launch --num_processes {params.processes} --num_machines 1"
        " --mixed_precision no --dynamo_backend no --main_process_port 0"
        " -m workflow_scripts.finetune.train --model {wildcards.model} {params.flags}"
        " --manifest {input.manifest} --output {output.checkpoint} --curve {output.curve}"
        " --progress {params.progress} --cache {params.cache} --gpus {resources.gpu} --threads {threads} 2> {log}"
