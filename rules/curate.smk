# Needs: a model's images of the pool's prompt set, features of the training radiographs, the judges,
# and what faithfulness saw in the test radiographs.
# Makes: results/curate/{model}/: decision.json and decision.html (may it be released, and why),
# published/ (the set with its documents), and for its owner alone what the lenses and the judge saw.
# filter.json: what the filter refused, found and may have missed, for the tables.
# worth.json: what a classifier learns from the set, and from as many unfiltered images of the pool;
# made where `curate.worth` asks for it, or where it is named. worth_segmentation.json: the same for
# U-Nets, where `curate.worth_also` asks for it.
# Nothing else asks for a set but `make curate MODEL=sana`, and `curate.models` of the config, whose
# sets every run makes and the tables show.


rule curate_plant:
    """Plant leaks beside a pool, and extract the features of both."""
    input:
        manifest="results/cohort/manifest.parquet",
        shards=per_job(RUN.curated_shards),
        trained=RUN.trained_weights(),
    output:
        # It holds radiographs, so it is removed as soon as the lenses have finished.
        candidates=temp("results/curate/{model}/candidates.parquet"),
        features=expand(
            "results/curate/{{model}}/features/{encoder}.h5", encoder=PRIVACY_ENCODERS
        ),
    log:
        "logs/curate/plant_{model}.log",
    benchmark:
        "benchmarks/curate/plant_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=240,
    params:
        *code("curate.plant", "features.extract"),
        *code(*encoder_modules(PRIVACY_ENCODERS)),
        version=VERSIONS["curate"],
        radiographs=radiographs(*SPLITS),
        weights=per_job(READS.encoders, names=PRIVACY_ENCODERS),
        protocol=config["protocol"],
        encoders=arguments.encoder_flags(RUN, PRIVACY_ENCODERS),
        folder=partial(folder_of_outputs, name="features"),
        planted=config["curate"]["planted"],
        overfitted=arguments.overfitted_flag(RUN),
        overfitted_images=READS.overfitted(),
        held_out=config["curate"]["held_out"],
        seed=config["curate"]["seed"],
        progress="results/curate/{model}/.progress",
    shell:
        "python -m workflow_scripts.common.in_turn"
        " curate.plant --model {wildcards.model} --manifest {input.manifest}"
        " --shards {input.shards} --planted {params.planted} {params.overfitted}"
        " --held-out {params.held_out} --seed {params.seed} --candidates {output.candidates}"
        " --then features.extract --collection {wildcards.model} --shards {output.candidates}"
        " {params.encoders} --purpose privacy --protocol {params.protocol}"
        " --out {params.folder} --progress {params.progress}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule curate_lenses:
    """Measure how close each image of a pool, and each planted leak, comes to a training radiograph."""
    input:
        manifest="results/cohort/manifest.parquet",
        training=rules.features_training.output,
        candidates=rules.curate_plant.output.candidates,
        features=rules.curate_plant.output.features,
    output:
        "results/curate/{model}/lenses.parquet",
    log:
        "logs/curate/lenses_{model}.log",
    benchmark:
        "benchmarks/curate/lenses_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=480,
    params:
        *code("curate.lenses"),
        version=VERSIONS["curate"],
        radiographs=radiographs("train"),
        protocol=config["protocol"],
        folder=partial(input_folder, name="features"),
        training=partial(input_folder, name="training"),
        progress="results/curate/{model}/.progress-lenses",
    shell:
        "python -m workflow_scripts.curate.lenses --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest}"
        " --candidates {input.candidates} --features {params.folder} --real {params.training}"
        " --progress {params.progress} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule curate_look:
    """Run the judges and the labeller of organs on a pool."""
    input:
        shards=per_job(RUN.curated_shards),
        judges=RUN.judge_networks(),
    output:
        "results/curate/{model}/seen.parquet",
    log:
        "logs/curate/look_{model}.log",
    benchmark:
        "benchmarks/curate/look_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=240,
    params:
        *code("curate.look"),
        version=VERSIONS["curate"],
        weights=READS.looking(),
        protocol=config["protocol"],
        judges=flag("judges", called="classifier"),
        flags=arguments.curate_looking_flags(RUN),
        progress="results/curate/{model}/.progress-look",
    shell:
        "python -m workflow_scripts.curate.look --model {wildcards.model}"
        " --protocol {params.protocol} --shards {input.shards} {params.judges} {params.flags}"
        " --progress {params.progress} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule curate_decide:
    """Filter a pool, draw the set, and decide whether it may be released."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts=per_job(RUN.curated_prompts),
        shards=per_job(RUN.curated_shards),
        training=rules.features_training.output,
        features=rules.curate_plant.output.features,
        lenses=rules.curate_lenses.output,
        seen=rules.curate_look.output,
        radiographs="results/faithfulness/seen/real.parquet",
        records=per_job(RUN.curated_records),
        manifests=RUN.every_manifest(),
        prompt_sets=RUN.every_prompt_set(),
    output:
        decision="results/curate/{model}/decision.json",
        page="results/curate/{model}/decision.html",
        record="results/curate/{model}/filter.json",
        chosen="results/curate/{model}/chosen.parquet",
        images=[
            f"results/curate/{{model}}/dataset/data/train-{part}.parquet"
            for part in RUN.curated_parts()
        ],
    log:
        "logs/curate/decide_{model}.log",
    benchmark:
        "benchmarks/curate/decide_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=16000),
        runtime=240,
    params:
        *code("curate.decide"),
        version=VERSIONS["curate"],
        protocol=config["protocol"],
        cohort=quote(config["cohort"]["dataset"]),
        source=config["cohort"]["source"],
        folder=partial(input_folder, name="features"),
        training=partial(input_folder, name="training"),
        flags=arguments.curate_flags(RUN),
        terms=per_job(arguments.described_flags, run=RUN),
        out=lambda wildcards, output: Path(output.decision).parent,
    shell:
        "python -m workflow_scripts.curate.decide --model {wildcards.model}"
        " --cohort {params.cohort} --protocol {params.protocol} --source {params.source}"
        " --manifest {input.manifest}"
        " --prompts {input.prompts} --shards {input.shards}"
        " --lenses {input.lenses} --features {params.folder} --real {params.training}"
        " --seen {input.seen} --radiographs {input.radiographs} --records {input.records}"
        " --searched-manifests {input.manifests} --searched-prompts {input.prompt_sets}"
        " {params.flags} {params.terms} --output {params.out} 2> {log}"


rule curate_worth_train:
    """Train classifiers on a curated set and on as many unfiltered images, alone and with real ones."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts=per_job(RUN.curated_prompts),
        shards=per_job(RUN.curated_shards),
        real="results/cohort/prompts/augment.parquet",
        chosen=rules.curate_decide.output.chosen,
        images=rules.curate_decide.output.images,
    output:
        directory("results/curate/{model}/worth/repeat-{repeat}"),
    log:
        "logs/curate/worth_{model}_{repeat}.log",
    benchmark:
        "benchmarks/curate/worth_{model}_{repeat}.tsv"
    wildcard_constraints:
        model="|".join(RUN.with_pool()) or "none",
    conda:
        "../envs/core.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=64000),
        runtime=1440,
    params:
        *code("curate.train_worth"),
        version=VERSIONS["curate"],
        weights=per_job(READS.classifier_start),
        radiographs=radiographs("train", "test"),
        protocol=config["protocol"],
        flags=arguments.worth_flags(RUN),
        seed=per_job(RUN.training_seed, task="classification"),
        progress="results/curate/{model}/.progress-worth-{repeat}",
    shell:
        "python -m workflow_scripts.curate.train_worth --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " --shards {input.shards} --real-prompts {input.real} --chosen {input.chosen}"
        " --dataset {input.images} {params.flags} --seed {params.seed}"
        " --progress {params.progress} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule curate_worth:
    """Score these classifiers: AUROC, F1, accuracy, and the gain over real data alone."""
    input:
        manifest="results/cohort/manifest.parquet",
        trained=per_job(RUN.worth_runs),
        baseline=RUN.outcomes("classification", "real_only", "real"),
    output:
        "results/curate/{model}/worth.json",
    log:
        "logs/curate/worth_{model}.log",
    benchmark:
        "benchmarks/curate/worth_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=4000),
        runtime=60,
    params:
        *code("curate.worth"),
        version=VERSIONS["curate"],
        protocol=config["protocol"],
        bootstrap=config["downstream"]["bootstrap"],
        seed=config["downstream"]["seed"],
    shell:
        "python -m workflow_scripts.curate.worth --model {wildcards.model}"
        " --protocol {params.protocol} --trained {input.trained} --baseline {input.baseline}"
        " --manifest {input.manifest} --bootstrap {params.bootstrap} --seed {params.seed}"
        " --output {output} 2> {log}"


rule curate_worth_segmenters:
    """Train U-Nets on real images with a curated set, and with as many unfiltered images."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts=per_job(RUN.curated_prompts),
        shards=per_job(RUN.curated_shards),
        real_masks="results/downstream/segmentation/masks/real.parquet",
        chosen=rules.curate_decide.output.chosen,
        images=rules.curate_decide.output.images,
    output:
        directory("results/curate/{model}/segmenters/repeat-{repeat}"),
    log:
        "logs/curate/segmenters_{model}_{repeat}.log",
    benchmark:
        "benchmarks/curate/segmenters_{model}_{repeat}.tsv"
    wildcard_constraints:
        model="|".join(RUN.with_pool()) or "none",
    conda:
        "../envs/core.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=1440,
    params:
        *code("curate.train_worth_segmenters"),
        version=VERSIONS["curate"],
        weights=per_job(READS.labeller),
        exact_masks=per_job(READS.exact_masks),
        radiographs=radiographs("train", "test"),
        protocol=config["protocol"],
        flags=arguments.segmented_worth_flags(RUN),
        seed=per_job(RUN.training_seed, task="segmentation"),
        progress="results/curate/{model}/.progress-segmenters-{repeat}",
    shell:
        "python -m workflow_scripts.curate.train_worth_segmenters --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " --shards {input.shards} --real-masks {input.real_masks} --chosen {input.chosen}"
        " --dataset {input.images} {params.flags} --seed {params.seed}"
        " --progress {params.progress} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule curate_worth_segmentation:
    """Score these U-Nets: Dice, and the gain over real data alone."""
    input:
        trained=per_job(RUN.segmented_worth_runs),
        baseline=RUN.outcomes("segmentation", "real_only", "real"),
    output:
        "results/curate/{model}/worth_segmentation.json",
    log:
        "logs/curate/worth_segmentation_{model}.log",
    benchmark:
        "benchmarks/curate/worth_segmentation_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=4000),
        runtime=60,
    params:
        *code("curate.worth_segmentation"),
        version=VERSIONS["curate"],
        protocol=config["protocol"],
        bootstrap=config["downstream"]["bootstrap"],
        seed=config["downstream"]["seed"],
    shell:
        "python -m workflow_scripts.curate.worth_segmentation --model {wildcards.model}"
        " --protocol {params.protocol} --trained {input.trained} --baseline {input.baseline}"
        " --bootstrap {params.bootstrap} --seed {params.seed} --output {output} 2> {log}"


rule curate_describe:
    """Write the set with its documents: card, Croissant, scorecard, datasheet, terms."""
    input:
        decision=rules.curate_decide.output.decision,
        images=rules.curate_decide.output.images,
        records=per_job(RUN.curated_records),
        worth=per_job(RUN.worth_of),
        segmented=per_job(RUN.segmented_worth_of),
        manifests=RUN.every_manifest(),
        prompt_sets=RUN.every_prompt_set(),
    output:
        directory("results/curate/{model}/published"),
    log:
        "logs/curate/describe_{model}.log",
    benchmark:
        "benchmarks/curate/describe_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=8000),
        runtime=60,
    params:
        *code("curate.describe"),
        version=VERSIONS["curate"],
        flags=per_job(arguments.described_flags, run=RUN),
        worth=flag("worth"),
        segmented=flag("segmented", called="worth-segmentation"),
        dataset=lambda wildcards, input: Path(input.images[0]).parents[1],
    shell:
        "python -m workflow_scripts.curate.describe --decision {input.decision}"
        " --dataset {params.dataset} --records {input.records} {params.flags}"
        " {params.worth} {params.segmented}"
        " --searched-manifests {input.manifests} --searched-prompts {input.prompt_sets}"
        " --output {output} 2> {log}"
