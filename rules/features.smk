# Needs: the manifest, or a model's image shards; the encoders' weights.
# Makes: results/features/{real or model}/{prompt_set}/{encoder}.h5. All encoders of a prompt set share
# one pass over its images. For privacy, the same job also makes the features under the other protocol,
# in a folder of that protocol's name.
# If the config asks for it, a re-identification network is trained on the cohort before all else
# (results/features/reid/). As for fine-tuning, no code is declared for that.
# A killed job continues from its .progress folder.


rule features_train_reid:
    """Train the re-identification network on the cohort's own patients."""
    input:
        manifest="results/cohort/training/manifest.parquet",
    output:
        weights=REID_WEIGHTS,
        preprocessing="results/features/reid/preprocessor_config.json",
        history="results/features/reid/training.csv",
    log:
        "logs/features/train_reid.log",
    benchmark:
        "benchmarks/features/train_reid.tsv"
    conda:
        "../envs/core.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=64000),
        runtime=partial(
            job_minutes_of,
            stage="features",
            what=["re-identification, "],
            otherwise=1440,
        ),
    params:
        version=VERSIONS["features"],
        radiographs=radiographs("train"),
        contents=per_job(READS.reid_start),
        initial=quote(config["encoders"]["reid"]["weights"]),
        flags=arguments.reid_flags(RUN),
        progress="results/features/reid/.progress",
    shell:
        "python -m workflow_scripts.features.train_reid --manifest {input.manifest}"
        " --weights {params.initial} {params.flags} --version {params.version}"
        " --progress {params.progress}"
        " --output {output.weights} --history {output.history}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule features_fidelity:
    """Compute the features of a model's test images and of their captions."""
    input:
        shards=per_job(RUN.shards, prompt_set="test"),
    output:
        expand(
            "results/features/{{model}}/test/{encoder}.h5",
            encoder=RUN.fidelity_encoders,
        ),
    log:
        "logs/features/{model}_test.log",
    benchmark:
        "benchmarks/features/{model}_test.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=partial(
            job_minutes_of,
            stage="features",
            what=["test: "],
            otherwise=240,
        ),
    params:
        *code("features.extract", *encoder_modules(RUN.fidelity_encoders)),
        version=VERSIONS["features"],
        protocol=config["protocol"],
        folder=output_folder,
        encoders=arguments.encoder_flags(RUN, RUN.fidelity_encoders),
        weights=per_job(READS.encoders, names=RUN.fidelity_encoders),
        bits=READS.bits(),
        progress="results/features/{model}/test/.progress",
    shell:
        "python -m workflow_scripts.features.extract --collection {wildcards.model}"
        " --shards {input.shards} {params.encoders} --purpose fidelity"
        " --protocol {params.protocol} --out {params.folder} --progress {params.progress}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule features_privacy:
    """Compute the features of a model's images from training captions, under both protocols."""
    input:
        shards=per_job(RUN.shards, prompt_set="privacy"),
        trained=RUN.trained_weights(),
    output:
        features=expand(
            "results/features/{{model}}/privacy/{encoder}.h5", encoder=PRIVACY_ENCODERS
        ),
        other=expand(
            f"results/features/{{{{model}}}}/privacy/{RUN.other_protocol}/{{encoder}}.h5",
            encoder=PRIVACY_ENCODERS,
        ),
    log:
        "logs/features/{model}_privacy.log",
    benchmark:
        "benchmarks/features/{model}_privacy.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=partial(
            job_minutes_of,
            stage="features",
            what=["privacy"],
            otherwise=240,
        ),
    params:
        *code("features.extract", *encoder_modules(PRIVACY_ENCODERS)),
        version=VERSIONS["features"],
        protocol=config["protocol"],
        other=RUN.other_protocol,
        folder=partial(folder_of_outputs, name="features"),
        other_folder=partial(folder_of_outputs, name="other"),
        encoders=arguments.encoder_flags(RUN, PRIVACY_ENCODERS),
        weights=per_job(READS.encoders, names=PRIVACY_ENCODERS),
        bits=READS.bits(),
        progress="results/features/{model}/privacy/.progress",
        other_progress="results/features/{model}/privacy/.progress-other",
    shell:
        "python -m workflow_scripts.common.in_turn"
        " features.extract --collection {wildcards.model} --shards {input.shards}"
        " {params.encoders} --purpose privacy --protocol {params.protocol}"
        " --out {params.folder} --progress {params.progress}"
        " --gpus {resources.gpu} --threads {threads}"
        " --then features.extract --collection {wildcards.model} --shards {input.shards}"
        " {params.encoders} --purpose privacy --protocol {params.other}"
        " --out {params.other_folder} --progress {params.other_progress}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule features_reference:
    """Compute the features of every test radiograph, the real side of fidelity."""
    input:
        manifest="results/cohort/manifest.parquet",
    output:
        expand(
            "results/features/real/test/{encoder}.h5", encoder=RUN.reference_encoders
        ),
    log:
        "logs/features/real_test.log",
    benchmark:
        "benchmarks/features/real_test.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=partial(
            job_minutes_of,
            stage="features",
            what=["test radiographs"],
            otherwise=240,
        ),
    params:
        *code("features.extract", *encoder_modules(RUN.reference_encoders)),
        version=VERSIONS["features"],
        protocol=config["protocol"],
        folder=output_folder,
        encoders=arguments.encoder_flags(RUN, RUN.reference_encoders),
        weights=per_job(READS.encoders, names=RUN.reference_encoders),
        radiographs=radiographs("test"),
        progress="results/features/real/test/.progress",
    shell:
        "python -m workflow_scripts.features.extract --collection real"
        " --manifest {input.manifest} --image-split test {params.encoders} --purpose fidelity"
        " --protocol {params.protocol} --out {params.folder} --progress {params.progress}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule features_training:
    """Compute the features of every training radiograph, for the search for the closest one."""
    input:
        manifest="results/cohort/manifest.parquet",
        trained=RUN.trained_weights(),
    output:
        expand("results/features/real/train/{encoder}.h5", encoder=PRIVACY_ENCODERS),
    log:
        "logs/features/real_train.log",
    benchmark:
        "benchmarks/features/real_train.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=partial(
            job_minutes_of,
            stage="features",
            what=["training radiographs"],
            otherwise=720,
        ),
    params:
        *code("features.extract", *encoder_modules(PRIVACY_ENCODERS)),
        version=VERSIONS["features"],
        protocol=config["protocol"],
        folder=output_folder,
        encoders=arguments.encoder_flags(RUN, PRIVACY_ENCODERS),
        weights=per_job(READS.encoders, names=PRIVACY_ENCODERS),
        radiographs=radiographs("train"),
        progress="results/features/real/train/.progress",
    shell:
        "python -m workflow_scripts.features.extract --collection real"
        " --manifest {input.manifest} --image-split train {params.encoders}"
        " --purpose privacy --protocol {params.protocol} --out {params.folder}"
        " --progress {params.progress} --gpus {resources.gpu} --threads {threads} 2> {log}"


rule features_prompts:
    """Compute the features of the prompts' own radiographs under the other protocol, which needs no others."""
    input:
        manifest="results/cohort/{captions}manifest.parquet",
        prompts="results/cohort/{captions}prompts/privacy.parquet",
        trained=RUN.trained_weights(),
    output:
        expand(
            f"results/features/real/{{{{captions}}}}prompts/{RUN.other_protocol}/{{encoder}}.h5",
            encoder=PRIVACY_ENCODERS,
        ),
    log:
        "logs/features/{captions}real_prompts.log",
    benchmark:
        "benchmarks/features/{captions}real_prompts.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=partial(
            job_minutes_of,
            stage="features",
            what=["prompts"],
            otherwise=240,
        ),
    params:
        *code("features.extract", *encoder_modules(PRIVACY_ENCODERS)),
        version=VERSIONS["features"],
        protocol=RUN.other_protocol,
        folder=output_folder,
        encoders=arguments.encoder_flags(RUN, PRIVACY_ENCODERS),
        weights=per_job(READS.encoders, names=PRIVACY_ENCODERS),
        radiographs=radiographs("train"),
        progress="results/features/real/{captions}prompts/.progress",
    shell:
        "python -m workflow_scripts.features.extract --collection real"
        " --manifest {input.manifest} --prompts {input.prompts} {params.encoders}"
        " --purpose privacy --protocol {params.protocol} --out {params.folder}"
        " --progress {params.progress} --gpus {resources.gpu} --threads {threads} 2> {log}"


rule features_held_out:
    """Compute the features of radiographs that no model was trained on, under both protocols."""
    input:
        manifest="results/cohort/manifest.parquet",
        trained=RUN.trained_weights(),
    output:
        features=expand(
            "results/features/real/held_out/{encoder}.h5", encoder=PRIVACY_ENCODERS
        ),
        other=expand(
            f"results/features/real/held_out/{RUN.other_protocol}/{{encoder}}.h5",
            encoder=PRIVACY_ENCODERS,
        ),
    log:
        "logs/features/real_held_out.log",
    benchmark:
        "benchmarks/features/real_held_out.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=partial(
            job_minutes_of,
            stage="features",
            what=["held out"],
            otherwise=240,
        ),
    params:
        *code("features.extract", *encoder_modules(PRIVACY_ENCODERS)),
        version=VERSIONS["features"],
        protocol=config["protocol"],
        other=RUN.other_protocol,
        folder=partial(folder_of_outputs, name="features"),
        other_folder=partial(folder_of_outputs, name="other"),
        encoders=arguments.encoder_flags(RUN, PRIVACY_ENCODERS),
        weights=per_job(READS.encoders, names=PRIVACY_ENCODERS),
        radiographs=radiographs("test", "validate"),
        progress="results/features/real/held_out/.progress",
        other_progress="results/features/real/held_out/.progress-other",
    shell:
        "python -m workflow_scripts.common.in_turn"
        " features.extract --collection real --manifest {input.manifest} --image-split test validate"
        " {params.encoders} --purpose privacy --protocol {params.protocol}"
        " --out {params.folder} --progress {params.progress}"
        " --gpus {resources.gpu} --threads {threads}"
        " --then features.extract --collection real --manifest {input.manifest} --image-split test validate"
        " {params.encoders} --purpose privacy --protocol {params.other}"
        " --out {params.other_folder} --progress {params.other_progress}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"
