# Needs: every model's images from training captions; every training and held-out radiograph;
# RAD-DINO's weights.
# Makes: results/privacy/extraction/{model}.json: which training radiographs the images show, in
# pixels and in RAD-DINO's patches, as they lie, mirrored and moved; and beside it
# {model}_images.parquet, for its owner only.
# Pixels and tokens of images are kept in results/privacy/extraction/.seen: a killed job continues
# there, and images that did not change are not looked at again. So one job serves all models.


rule privacy_extraction:
    """Compare what each caption repeats with every training radiograph, whole and by patches."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts=[RUN.prompts(m, "privacy") for m in RUN.with_images("privacy")],
        shards=privacy_shards,
    output:
        records=RUN.extraction_records(),
        images=RUN.extraction_images(),
    log:
        "logs/privacy/extraction.log",
    benchmark:
        "benchmarks/privacy/extraction.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=partial(
            job_minutes_of,
            stage="privacy",
            what=["extraction, "],
            otherwise=720,
        ),
    params:
        *code("privacy.extraction.score", *encoder_modules(PRIVACY_ENCODERS[:1])),
        version=VERSIONS["privacy"],
        radiographs=radiographs(*SPLITS),
        weights=READS.encoders(PRIVACY_ENCODERS[:1]),
        bits=READS.bits(),
        protocol=config["protocol"],
        flags=arguments.extraction_flags(RUN),
        seen="results/privacy/extraction/.seen",
        folder=partial(folder_of_outputs, name="records"),
    shell:
        "python -m workflow_scripts.privacy.extraction.score --protocol {params.protocol}"
        " --manifest {input.manifest} {params.flags} --seen {params.seen} --out {params.folder}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"
