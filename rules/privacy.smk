# Needs: features and images that a model made from training captions; the training images.
# Makes: results/privacy/{model}.json (each image against its prompt's own radiograph) and
# results/privacy/closest/{model}.json (against all training images), and beside each a table of
# pairs, for its owner only; results/privacy/novelty/{model}.json: nearer to the prompts' radiographs
# or to unseen ones; results/privacy/lenses/{model}.json: which lens sees what;
# results/privacy/attacker/real.json: the attacker on real pairs. The first and the last also under
# the protocol that the config does not name, in a folder of its name.


rule privacy_score:
    """Re-identification, latent and pixel distance of one model against its prompts' own images."""
    input:
        code=code("privacy"),
        manifest=manifest,
        prompts=partial(prompts, prompt_set="privacy"),
        shards=partial(shards, prompt_set="privacy"),
        real=own_radiographs,
        generated=rules.features_privacy.output,
    output:
        record="results/privacy/{other}{model}.json",
        pairs="results/privacy/{other}{model}_pairs.parquet",
    log:
        "logs/privacy/{other}{model}.log",
    benchmark:
        "benchmarks/privacy/{other}{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=0,
        mem_mb=partial(more_memory, base=16000),
        runtime=240,
    params:
        version=VERSIONS["privacy"],
        protocol=protocol,
        flags=privacy_flags,
        real=partial(input_folder, name="real"),
        generated=partial(input_folder, name="generated"),
    shell:
        "python -m workflow_scripts.privacy.score --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " --shards {input.shards} --real {params.real} --generated {params.generated}"
        " {params.flags} --output {output.record} --pairs {output.pairs}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule privacy_closest:
    """The closest training image of each of a model's images, over all of them."""
    input:
        code=code("privacy"),
        manifest=manifest,
        prompts=partial(prompts, prompt_set="privacy"),
        real=rules.features_training.output,
        generated=expand(rules.features_privacy.output, other="", allow_missing=True),
    output:
        record="results/privacy/closest/{model}.json",
        pairs="results/privacy/closest/{model}_pairs.parquet",
    log:
        "logs/privacy/closest_{model}.log",
    benchmark:
        "benchmarks/privacy/closest_{model}.tsv"
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
        "python -m workflow_scripts.privacy.score_closest --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " --real {params.real} --generated {params.generated}"
        " {params.flags} --output {output.record} --pairs {output.pairs}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule privacy_novelty:
    """Whether a model's images are nearer to training radiographs than to unseen ones."""
    input:
        code=code("privacy"),
        manifest=manifest,
        prompts=partial(prompts, prompt_set="privacy"),
        real=rules.features_training.output,
        held_out=expand(rules.features_held_out.output, other=""),
        generated=expand(rules.features_privacy.output, other="", allow_missing=True),
    output:
        "results/privacy/novelty/{model}.json",
    log:
        "logs/privacy/novelty_{model}.log",
    benchmark:
        "benchmarks/privacy/novelty_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=0,
        mem_mb=partial(more_memory, base=16000),
        runtime=60,
    params:
        version=VERSIONS["privacy"],
        protocol=config["protocol"],
        flags=privacy_flags,
        real=partial(input_folder, name="real"),
        held_out=partial(input_folder, name="held_out"),
        generated=partial(input_folder, name="generated"),
    shell:
        "python -m workflow_scripts.privacy.score_novelty --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " --real {params.real} --held-out {params.held_out} --generated {params.generated}"
        " {params.flags} --output {output} --gpus {resources.gpu} --threads {threads} 2> {log}"


rule privacy_lenses:
    """Which lens sees a model's images resemble their prompts' radiographs."""
    input:
        code=code("privacy"),
        pairs="results/privacy/{model}_pairs.parquet",
        unrelated=f"results/privacy/{UNRELATED}_pairs.parquet",
    output:
        "results/privacy/lenses/{model}.json",
    log:
        "logs/privacy/lenses_{model}.log",
    benchmark:
        "benchmarks/privacy/lenses_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=20,
    params:
        version=VERSIONS["privacy"],
        protocol=config["protocol"],
    shell:
        "python -m workflow_scripts.privacy.score_lenses --model {wildcards.model}"
        " --protocol {params.protocol} --pairs {input.pairs} --unrelated {input.unrelated}"
        " --output {output} 2> {log}"


rule privacy_attacker:
    """How well the re-identification network tells patients apart, on real pairs."""
    input:
        code=code("privacy"),
        manifest="results/cohort/manifest.parquet",
        prompts="results/cohort/prompts/privacy.parquet",
        real=rules.features_held_out.output,
    output:
        "results/privacy/{other}attacker/real.json",
    log:
        "logs/privacy/{other}attacker.log",
    benchmark:
        "benchmarks/privacy/{other}attacker.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=8000),
        runtime=120,
    params:
        version=VERSIONS["privacy"],
        protocol=protocol,
        threshold=config["privacy"]["threshold"],
        real=partial(input_folder, name="real"),
    shell:
        "python -m workflow_scripts.privacy.score_attacker --protocol {params.protocol}"
        " --manifest {input.manifest} --prompts {input.prompts} --real {params.real}"
        " --threshold {params.threshold} --output {output} 2> {log}"
