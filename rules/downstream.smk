# Needs: the manifest, the augmentation prompts and a model's images of them; ImageNet weights for
# classification; CXAS's weights for segmentation; for reports, a LLaVA to start from and the
# networks that score reports.
# Makes: results/downstream/{task}/{setting}/{model}.json. Each arm (setting and model) is trained
# once for each repeat, which leaves {model}/repeat-{k}.parquet; all repeats are scored together.
# The arm of real data alone is real_only/real, made once for all models. released/real is LLaVA-Rad
# as it was released. The classifiers of real data alone are kept as network-{k}.safetensors, since
# they judge generated images (faithfulness.smk).
# Training a report generator takes several GPUs for hours in each arm. As for fine-tuning, only the
# config, the stage version and the content of its inputs rerun it, never an edited line.


rule downstream_train_judge:
    """Train a classifier on real images alone, which judges generated ones; apply it to the test images."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts="results/cohort/prompts/augment.parquet",
    output:
        outcomes="results/downstream/classification/{setting}/{model}/repeat-{repeat}.parquet",
        network="results/downstream/classification/{setting}/{model}/network-{repeat}.safetensors",
    log:
        "logs/downstream/classification_{setting}_{model}_{repeat}.log",
    benchmark:
        "benchmarks/downstream/classification_{setting}_{model}_{repeat}.tsv"
    wildcard_constraints:
        setting="real_only",
    conda:
        "../envs/core.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=64000),
        runtime=partial(
            job_minutes_of,
            stage="classification",
            what=["{setting}: "],
            otherwise=720,
        ),
    params:
        *code("downstream.classification.train"),
        version=VERSIONS["downstream"],
        weights=per_job(READS.classifier_start),
        radiographs=radiographs("train", "test"),
        protocol=config["protocol"],
        flags=arguments.classifier_flags(RUN),
        seed=per_job(RUN.training_seed, task="classification"),
        shards="",
        network=lambda wildcards, output: f"--network {output.network}",
        progress="results/downstream/classification/{setting}/{model}/.progress-{repeat}",
    shell:
        "python -m workflow_scripts.downstream.classification.train"
        " --setting {wildcards.setting} --model {wildcards.model} --protocol {params.protocol}"
        " --manifest {input.manifest} --prompts {input.prompts} {params.shards} {params.flags}"
        " --seed {params.seed} --progress {params.progress} --output {output.outcomes} {params.network}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


use rule downstream_train_judge as downstream_train_classifier with:
    """Train a classifier on a model's images, or on real ones and these; apply it to the test images."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts="results/cohort/prompts/augment.parquet",
        shards=per_job(RUN.training_shards),
    output:
        outcomes="results/downstream/classification/{setting}/{model}/repeat-{repeat}.parquet",
    wildcard_constraints:
        setting="augmented|synthetic_only",
    params:
        shards=flag("shards"),
        network="",


rule downstream_score_classifier:
    """AUROC, F1 and accuracy of an arm's classifiers, and the gain over real data alone."""
    input:
        manifest="results/cohort/manifest.parquet",
        outcomes=per_job(RUN.outcomes, task="classification"),
        baseline=per_job(RUN.baseline, task="classification"),
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
        *code("downstream.classification.score"),
        version=VERSIONS["downstream"],
        bootstrap=config["downstream"]["bootstrap"],
        seed=config["downstream"]["seed"],
        keep_draws=per_job(arguments.keep_draws_flag, run=RUN),
        baseline=flag("baseline"),
    shell:
        "python -m workflow_scripts.downstream.classification.score --outcomes {input.outcomes}"
        " {params.baseline} {params.keep_draws} --manifest {input.manifest}"
        " --bootstrap {params.bootstrap} --seed {params.seed} --output {output} 2> {log}"


rule downstream_masks:
    """CXAS's masks of the radiographs of segmentation (`real`), or of a model's images."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts="results/cohort/prompts/augment.parquet",
        shards=per_job(RUN.labelled_shards),
    output:
        "results/downstream/segmentation/masks/{model}.parquet",
    log:
        "logs/downstream/masks_{model}.log",
    benchmark:
        "benchmarks/downstream/masks_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=partial(
            job_minutes_of,
            stage="segmentation",
            what=["pseudo-masks"],
            otherwise=240,
        ),
    params:
        *code("downstream.segmentation.label"),
        version=VERSIONS["downstream"],
        weights=per_job(READS.labeller),
        radiographs=radiographs("train", "test"),
        flags=arguments.labeller_flags(RUN),
        shards=flag("shards"),
    shell:
        "python -m workflow_scripts.downstream.segmentation.label --model {wildcards.model}"
        " --manifest {input.manifest} --prompts {input.prompts} {params.shards} {params.flags}"
        " --output {output} --gpus {resources.gpu} --threads {threads} 2> {log}"


rule downstream_train_segmenter:
    """Train a U-Net on masks of real images, or of real and a model's; apply it to the test images."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts="results/cohort/prompts/augment.parquet",
        real_masks="results/downstream/segmentation/masks/real.parquet",
        masks=per_job(RUN.masks),
        shards=per_job(RUN.training_shards),
    output:
        "results/downstream/segmentation/{setting}/{model}/repeat-{repeat}.parquet",
    log:
        "logs/downstream/segmentation_{setting}_{model}_{repeat}.log",
    benchmark:
        "benchmarks/downstream/segmentation_{setting}_{model}_{repeat}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=partial(
            job_minutes_of,
            stage="segmentation",
            what=["{setting}: "],
            otherwise=720,
        ),
    params:
        *code("downstream.segmentation.train"),
        version=VERSIONS["downstream"],
        radiographs=radiographs("train", "test"),
        protocol=config["protocol"],
        exact_masks=per_job(READS.exact_masks),
        flags=arguments.segmenter_flags(RUN),
        seed=per_job(RUN.training_seed, task="segmentation"),
        masks=flag("masks"),
        shards=flag("shards"),
        progress="results/downstream/segmentation/{setting}/{model}/.progress-{repeat}",
    shell:
        "python -m workflow_scripts.downstream.segmentation.train"
        " --setting {wildcards.setting} --model {wildcards.model} --protocol {params.protocol}"
        " --manifest {input.manifest} --prompts {input.prompts} --real-masks {input.real_masks}"
        " {params.masks} {params.shards} {params.flags} --seed {params.seed}"
        " --progress {params.progress} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule downstream_score_segmenter:
    """Dice of an arm's U-Nets, and the gain over real data alone."""
    input:
        outcomes=per_job(RUN.outcomes, task="segmentation"),
        baseline=per_job(RUN.baseline, task="segmentation"),
    output:
        "results/downstream/segmentation/{setting}/{model}.json",
    log:
        "logs/downstream/score_segmenter_{setting}_{model}.log",
    benchmark:
        "benchmarks/downstream/score_segmenter_{setting}_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=4000),
        runtime=60,
    params:
        *code("downstream.segmentation.score"),
        version=VERSIONS["downstream"],
        bootstrap=config["downstream"]["bootstrap"],
        seed=config["downstream"]["seed"],
        keep_draws=per_job(arguments.keep_draws_flag, run=RUN),
        baseline=flag("baseline"),
    shell:
        "python -m workflow_scripts.downstream.segmentation.score --outcomes {input.outcomes}"
        " {params.baseline} {params.keep_draws} --bootstrap {params.bootstrap} --seed {params.seed}"
        " --output {output} 2> {log}"


rule downstream_score_labeller:
    """The Dice of CXAS's masks of the test images against those drawn by hand, where there are any."""
    input:
        manifest="results/cohort/manifest.parquet",
        masks="results/downstream/segmentation/masks/real.parquet",
    output:
        "results/downstream/segmentation/labeller/real.json",
    log:
        "logs/downstream/score_labeller.log",
    benchmark:
        "benchmarks/downstream/score_labeller.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=4000),
        runtime=60,
    params:
        *code("downstream.segmentation.score_labeller"),
        version=VERSIONS["downstream"],
        exact_masks=per_job(READS.exact_masks),
        protocol=config["protocol"],
        flags=arguments.exact_mask_flags(RUN),
        bootstrap=config["downstream"]["bootstrap"],
        seed=config["downstream"]["seed"],
    shell:
        "python -m workflow_scripts.downstream.segmentation.score_labeller --masks {input.masks}"
        " --manifest {input.manifest} {params.flags} --protocol {params.protocol}"
        " --bootstrap {params.bootstrap} --seed {params.seed} --output {output}"
        " --threads {threads} 2> {log}"


rule downstream_train_reporter:
    """Train a report generator on real images, on a model's, or on both; it describes the test images."""
    input:
        manifest="results/cohort/reports/manifest.parquet",
        prompts=RUN.prompts_of_part("", "augment"),
        shards=per_job(RUN.training_shards),
    output:
        "results/downstream/report_generation/{setting}/{model}/repeat-{repeat}.parquet",
    log:
        "logs/downstream/report_generation_{setting}_{model}_{repeat}.log",
    benchmark:
        "benchmarks/downstream/report_generation_{setting}_{model}_{repeat}.tsv"
    priority: 80  # these are the longest jobs: started first, they do not end alone
    conda:
        "../envs/core.yaml"
    threads: 32
    resources:
        gpu=4,
        mem_mb=partial(more_memory, base=200000),
        runtime=2880,
    params:
        version=VERSIONS["downstream"],
        weights=per_job(READS.reporter_start),
        radiographs=radiographs(*SPLITS),
        launcher=launch,
        protocol=config["protocol"],
        flags=arguments.reporter_flags(RUN),
        seed=per_job(RUN.training_seed, task="report_generation"),
        shards=flag("shards"),
        progress="results/downstream/report_generation/{setting}/{model}/.progress-{repeat}",
    shell:
        "{params.launcher} workflow_scripts.downstream.report_generation.train"
        " --setting {wildcards.setting} --model {wildcards.model} --protocol {params.protocol}"
        " --manifest {input.manifest} --prompts {input.prompts} {params.shards} {params.flags}"
        " --seed {params.seed} --version {params.version} --progress {params.progress}"
        " --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule downstream_chexbert:
    """The findings of each reference and each generated report, by CheXbert."""
    input:
        outcomes="results/downstream/report_generation/{setting}/{model}/repeat-{repeat}.parquet",
    output:
        "results/downstream/report_generation/{setting}/{model}/chexbert-{repeat}.parquet",
    log:
        "logs/downstream/chexbert_{setting}_{model}_{repeat}.log",
    benchmark:
        "benchmarks/downstream/chexbert_{setting}_{model}_{repeat}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=16000),
        runtime=partial(
            job_minutes_of,
            stage="report_generation",
            what=["{setting}: reports that chexbert"],
            otherwise=60,
        ),
    params:
        *code("downstream.report_generation.metrics.label_chexbert"),
        version=VERSIONS["downstream"],
        weights=per_job(READS.scorer, name="chexbert"),
        flags=arguments.scorer_flags(RUN, "chexbert"),
    shell:
        "python -m workflow_scripts.downstream.report_generation.metrics.label_chexbert"
        " --outcomes {input.outcomes} {params.flags} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule downstream_radgraph:
    """F1-RadGraph of each report."""
    input:
        outcomes="results/downstream/report_generation/{setting}/{model}/repeat-{repeat}.parquet",
    output:
        "results/downstream/report_generation/{setting}/{model}/radgraph-{repeat}.parquet",
    log:
        "logs/downstream/radgraph_{setting}_{model}_{repeat}.log",
    benchmark:
        "benchmarks/downstream/radgraph_{setting}_{model}_{repeat}.tsv"
    conda:
        "../envs/reports.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=16000),
        runtime=partial(
            job_minutes_of,
            stage="report_generation",
            what=["{setting}: reports that radgraph"],
            otherwise=240,
        ),
    params:
        *code("downstream.report_generation.metrics.score_radgraph"),
        version=VERSIONS["downstream"],
        weights=per_job(READS.scorer, name="radgraph"),
        packages=quote(REPORT_PACKAGES),
        flags=arguments.scorer_flags(RUN, "radgraph"),
        progress="results/downstream/report_generation/{setting}/{model}/.radgraph-{repeat}",
    shell:
        "PYTHONPATH={params.packages}"
        " python -m workflow_scripts.downstream.report_generation.metrics.score_radgraph"
        " --outcomes {input.outcomes} {params.flags} --progress {params.progress}"
        " --output {output} --gpus {resources.gpu} --threads {threads} 2> {log}"


rule downstream_green:
    """GREEN of each report, as a language model of 7 billion parameters judges it."""
    input:
        outcomes="results/downstream/report_generation/{setting}/{model}/repeat-{repeat}.parquet",
    output:
        "results/downstream/report_generation/{setting}/{model}/green-{repeat}.parquet",
    log:
        "logs/downstream/green_{setting}_{model}_{repeat}.log",
    benchmark:
        "benchmarks/downstream/green_{setting}_{model}_{repeat}.tsv"
    conda:
        "../envs/reports.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=64000),
        runtime=partial(
            job_minutes_of,
            stage="report_generation",
            what=["{setting}: reports that green"],
            otherwise=1440,
        ),
    params:
        *code("downstream.report_generation.metrics.score_green"),
        version=VERSIONS["downstream"],
        weights=per_job(READS.scorer, name="green"),
        packages=quote(REPORT_PACKAGES),
        flags=arguments.scorer_flags(RUN, "green"),
        progress="results/downstream/report_generation/{setting}/{model}/.green-{repeat}",
    shell:
        "PYTHONPATH={params.packages}"
        " python -m workflow_scripts.downstream.report_generation.metrics.score_green"
        " --outcomes {input.outcomes} {params.flags} --progress {params.progress}"
        " --output {output} --gpus {resources.gpu} --threads {threads} 2> {log}"


rule downstream_ratescore:
    """RaTEScore of each report."""
    input:
        outcomes="results/downstream/report_generation/{setting}/{model}/repeat-{repeat}.parquet",
    output:
        "results/downstream/report_generation/{setting}/{model}/ratescore-{repeat}.parquet",
    log:
        "logs/downstream/ratescore_{setting}_{model}_{repeat}.log",
    benchmark:
        "benchmarks/downstream/ratescore_{setting}_{model}_{repeat}.tsv"
    conda:
        "../envs/reports.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=16000),
        runtime=partial(
            job_minutes_of,
            stage="report_generation",
            what=["{setting}: reports that ratescore"],
            otherwise=240,
        ),
    params:
        *code("downstream.report_generation.metrics.score_ratescore"),
        version=VERSIONS["downstream"],
        weights=per_job(READS.scorer, name="ratescore"),
        packages=quote(REPORT_PACKAGES),
        flags=arguments.scorer_flags(RUN, "ratescore"),
        progress="results/downstream/report_generation/{setting}/{model}/.ratescore-{repeat}",
    shell:
        "PYTHONPATH={params.packages}"
        " python -m workflow_scripts.downstream.report_generation.metrics.score_ratescore"
        " --outcomes {input.outcomes} {params.flags} --progress {params.progress}"
        " --output {output} --gpus {resources.gpu} --threads {threads} 2> {log}"


rule downstream_score_reports:
    """BLEU, ROUGE-L, CheXbert, RadGraph, GREEN and RaTEScore of an arm's reports, and the gain."""
    input:
        outcomes=per_job(RUN.outcomes, task="report_generation"),
        baseline=per_job(RUN.baseline, task="report_generation"),
        scores=per_job(RUN.report_scores),
    output:
        "results/downstream/report_generation/{setting}/{model}.json",
    log:
        "logs/downstream/score_reports_{setting}_{model}.log",
    benchmark:
        "benchmarks/downstream/score_reports_{setting}_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=8000),
        runtime=60,
    params:
        *code("downstream.report_generation.score"),
        version=VERSIONS["downstream"],
        bootstrap=config["downstream"]["report_generation"]["bootstrap"],
        seed=config["downstream"]["seed"],
        keep_draws=per_job(arguments.keep_draws_flag, run=RUN),
        baseline=flag("baseline"),
        scores=flag("scores"),
    shell:
        "python -m workflow_scripts.downstream.report_generation.score"
        " --outcomes {input.outcomes} {params.baseline} {params.keep_draws} {params.scores}"
        " --bootstrap {params.bootstrap} --seed {params.seed} --output {output} 2> {log}"
