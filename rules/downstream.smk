# Needs: the manifest, the augmentation prompts and a model's images of them; ImageNet weights; for
# reports, a LLaVA to start from.
# Makes: results/downstream/{task}/{setting}/{model}.json. Each arm (setting and model) is trained
# once for each repeat, which leaves {model}/repeat-{k}.parquet, and scored together. Real data
# alone is real_only/real, made once for all models; released/real is LLaVA-Rad as it was released.
# Training a report generator takes several GPUs for hours, an arm: as for fine-tuning, only the
# config and the stage version rerun it, never an edited line.


rule downstream_train_classifier:
    """Train a classifier on real images, on a model's, or on both; apply it to the test images."""
    input:
        code=code("downstream", "classification"),
        manifest="results/cohort/manifest.parquet",
        prompts="results/cohort/prompts/augment.parquet",
        shards=training_shards,
    output:
        "results/downstream/classification/{setting}/{model}/repeat-{repeat}.parquet",
    log:
        "logs/downstream/classification_{setting}_{model}_{repeat}.log",
    benchmark:
        "benchmarks/downstream/classification_{setting}_{model}_{repeat}.tsv"
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
        flags=flags(downstream_settings("classification")),
        seed=partial(training_seed, task="classification"),
        shards=training_shards_flag,
        progress="results/downstream/classification/{setting}/{model}/.progress-{repeat}",
    shell:
        "python -m workflow_scripts.downstream.classification.train"
        " --setting {wildcards.setting} --model {wildcards.model} --protocol {params.protocol}"
        " --manifest {input.manifest} --prompts {input.prompts} {params.shards} {params.flags}"
        " --seed {params.seed} --progress {params.progress} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule downstream_score_classifier:
    """AUROC, F1 and accuracy of an arm's classifiers, and the gain over real data alone."""
    input:
        code=code("downstream", "classification"),
        manifest="results/cohort/manifest.parquet",
        outcomes=partial(outcomes, task="classification"),
        baseline=partial(baseline, task="classification"),
    output:
        "results/downstream/classification/{setting}/{model}.json",
    log:
        "logs/downstream/score_classifier_{setting}_{model}.log",
    benchmark:
        "benchmarks/downstream/score_classifier_{setting}_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=4000),
        runtime=60,
    params:
        version=VERSIONS["downstream"],
        bootstrap=config["downstream"]["bootstrap"],
        seed=config["downstream"]["seed"],
        baseline=baseline_flag,
    shell:
        "python -m workflow_scripts.downstream.classification.score --outcomes {input.outcomes}"
        " {params.baseline} --manifest {input.manifest} --bootstrap {params.bootstrap}"
        " --seed {params.seed} --output {output} 2> {log}"


rule downstream_train_reporter:
    """Train a report generator on real images, on a model's, or on both; it describes the test images."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts="results/cohort/prompts/augment.parquet",
        shards=training_shards,
    output:
        "results/downstream/report_generation/{setting}/{model}/repeat-{repeat}.parquet",
    log:
        "logs/downstream/report_generation_{setting}_{model}_{repeat}.log",
    benchmark:
        "benchmarks/downstream/report_generation_{setting}_{model}_{repeat}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 32
    resources:
        gpu=4,
        mem_mb=partial(more_memory, base=200000),
        runtime=2880,
    params:
        version=VERSIONS["downstream"],
        launcher=launcher,
        protocol=config["protocol"],
        flags=flags(downstream_settings("report_generation")),
        seed=partial(training_seed, task="report_generation"),
        shards=training_shards_flag,
        progress="results/downstream/report_generation/{setting}/{model}/.progress-{repeat}",
    shell:
        "{params.launcher} workflow_scripts.downstream.report_generation.train"
        " --setting {wildcards.setting} --model {wildcards.model} --protocol {params.protocol}"
        " --manifest {input.manifest} --prompts {input.prompts} {params.shards} {params.flags}"
        " --seed {params.seed} --progress {params.progress} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"
