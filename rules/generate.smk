# Needs: a prompt set and a checkpoint, a user's own images, or (controls) the manifest.
# Makes: results/generate/{model}/{prompt_set}/part-*.parquet, seeded images as Parquet shards.
# An image depends on its model, prompt and seed, not on the number of shards. As in finetune.smk,
# only the config, the stage version and the contents of the inputs rerun it.


rule generate_sample:
    """Sample one shard of a prompt set from a text-to-image model."""
    input:
        prompts=per_job(RUN.sampled_prompts),
        # A folder has no checksum: what it holds is told by the curve, made by the same job.
        checkpoint=ancient(per_job(RUN.checkpoint)),
        curve=per_job(RUN.curve),
    output:
        "results/generate/{model}/{prompt_set}/part-{shard}-of-{shards}.parquet",
    log:
        "logs/generate/{model}/{prompt_set}_{shard}_of_{shards}.log",
    benchmark:
        "benchmarks/generate/{model}/{prompt_set}_{shard}_of_{shards}.tsv"
    wildcard_constraints:
        model="|".join(RUN.sampled) or "none",
    priority: 90
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=64000),
        runtime=partial(sampling_minutes, otherwise=720),
    params:
        version=VERSIONS["generate"],
        weights=per_job(READS.sampled_base),
        block=per_job(arguments.sampled_block, run=RUN),
        flags=per_job(arguments.sample_flags, run=RUN),
        progress="results/generate/{model}/{prompt_set}/.progress-{shard}-of-{shards}",
    shell:
        "python -m workflow_scripts.generate.sample --model {wildcards.model} {params.flags}"
        " --prompts {input.prompts} --shard {wildcards.shard} --shards {wildcards.shards}"
        " --output {output} --progress {params.progress} --version {params.version}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule generate_external:
    """Import one shard of a user's own images."""
    input:
        prompts=per_job(RUN.prompts),
        sources=ancient(per_job(RUN.external_tables)),
    output:
        "results/generate/{model}/{prompt_set}/part-{shard}-of-{shards}.parquet",
    log:
        "logs/generate/{model}/{prompt_set}_{shard}_of_{shards}.log",
    benchmark:
        "benchmarks/generate/{model}/{prompt_set}_{shard}_of_{shards}.tsv"
    wildcard_constraints:
        model="|".join(RUN.external) or "none",
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        *code("generate.import_external"),
        version=VERSIONS["generate"],
        contents=per_job(READS.external_images),
        flags=per_job(arguments.external_flags, run=RUN),
    shell:
        "python -m workflow_scripts.generate.import_external {params.flags}"
        " --prompts {input.prompts} --shard {wildcards.shard} --shards {wildcards.shards}"
        " --output {output} 2> {log}"


rule generate_control:
    """Make one shard of a control: real, copied, blurred or noise images."""
    input:
        manifest=per_job(RUN.manifest),
        prompts=per_job(RUN.prompts),
    output:
        "results/generate/{model}/{prompt_set}/part-{shard}-of-{shards}.parquet",
    log:
        "logs/generate/{model}/{prompt_set}_{shard}_of_{shards}.log",
    benchmark:
        "benchmarks/generate/{model}/{prompt_set}_{shard}_of_{shards}.tsv"
    wildcard_constraints:
        model="|".join(RUN.controls) or "none",
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        *code("generate.make_control"),
        version=VERSIONS["generate"],
        radiographs=radiographs(*SPLITS),
        flags=per_job(arguments.control_flags, run=RUN),
    shell:
        "python -m workflow_scripts.generate.make_control {params.flags}"
        " --manifest {input.manifest} --prompts {input.prompts}"
        " --prompt-set {wildcards.prompt_set}"
        " --shard {wildcards.shard} --shards {wildcards.shards} --output {output} 2> {log}"


rule generate_export:
    """Export a prompt set's images as a folder of PNG files with a metadata.csv."""
    input:
        shards=per_job(RUN.shards),
    output:
        directory("results/generate/{model}/{prompt_set}/images"),
    log:
        "logs/generate/{model}/{prompt_set}_export.log",
    benchmark:
        "benchmarks/generate/{model}/{prompt_set}_export.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        *code("generate.export_images"),
    shell:
        "python -m workflow_scripts.generate.export_images --shards-in {input.shards}"
        " --out {output} 2> {log}"
