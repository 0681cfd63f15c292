# Needs: the manifest, the augmentation prompts and a model's images of them; ImageNet weights.
# Makes: results/downstream/classification/{setting}/{model}.json; real data alone is
# real_only/real.json, made once for all models.


rule downstream_real:
    """Train and test a classifier on real images alone: the baseline of every model."""
    input:
        code=code("downstream"),
        manifest="results/cohort/manifest.parquet",
        prompts="results/cohort/prompts/augment.parquet",
    output:
        record="results/downstream/classification/real_only/real.json",
        predictions="results/downstream/classification/real_only/real_predictions.parquet",
    log:
        "logs/downstream/classification_real_only_real.log",
    benchmark:
        "benchmarks/downstream/classification_real_only_real.tsv"
    conda:
        "../envs/core.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=64000),
        runtime=720,
    params:
        version=VERSIONS["downstream"],
        protocol=config["protocol"],
        flags=flags(config["downstream"]["classification"]),
        progress="results/downstream/classification/real_only/.progress-real",
    shell:
        "python -m workflow_scripts.downstream.train_classifier --setting real_only --model real"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " {params.flags} --progress {params.progress} --output {output.record}"
        " --predictions {output.predictions} --gpus {resources.gpu} --threads {threads} 2> {log}"


rule downstream_classification:
    """Train a classifier with one model's images, alone or beside the real ones."""
    input:
        code=code("downstream"),
        manifest="results/cohort/manifest.parquet",
        prompts="results/cohort/prompts/augment.parquet",
        shards=partial(shards, prompt_set="augment"),
    output:
        record="results/downstream/classification/{setting}/{model}.json",
        predictions="results/downstream/classification/{setting}/{model}_predictions.parquet",
    log:
        "logs/downstream/classification_{setting}_{model}.log",
    benchmark:
        "benchmarks/downstream/classification_{setting}_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=64000),
        runtime=720,
    params:
        version=VERSIONS["downstream"],
        protocol=config["protocol"],
        flags=flags(config["downstream"]["classification"]),
        progress="results/downstream/classification/{setting}/.progress-{model}",
    shell:
        "python -m workflow_scripts.downstream.train_classifier --setting {wildcards.setting}"
        " --model {wildcards.model} --protocol {params.protocol} --manifest {input.manifest}"
        " --prompts {input.prompts} --shards {input.shards} {params.flags}"
        " --progress {params.progress} --output {output.record}"
        " --predictions {output.predictions} --gpus {resources.gpu} --threads {threads} 2> {log}"
