# Needs: features and images that a model made from training captions; the training images.
# Makes: results/privacy/{model}.json and {model}_pairs.parquet (one row per pair, owner only).


rule privacy_score:
    """Re-identification, latent and pixel distance of one model against its prompts' own images."""
    input:
        code=code("privacy"),
        manifest=manifest,
        prompts=partial(prompts, prompt_set="privacy"),
        shards=partial(shards, prompt_set="privacy"),
        real=real_training_features,
        generated=rules.features_privacy.output,
    output:
        record="results/privacy/{model}.json",
        pairs="results/privacy/{model}_pairs.parquet",
    log:
        "logs/privacy/{model}.log",
    benchmark:
        "benchmarks/privacy/{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=0,
        mem_mb=partial(more_memory, base=16000),
        runtime=240,
    params:
        version=VERSIONS["privacy"],
        protocol=config["protocol"],
        flags=flags(config["privacy"]),
        real=partial(input_folder, name="real"),
        generated=partial(input_folder, name="generated"),
    shell:
        "python -m workflow_scripts.privacy.score --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " --shards {input.shards} --real {params.real} --generated {params.generated}"
        " {params.flags} --output {output.record} --pairs {output.pairs}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"
