# Needs: a model's images from training captions and their features; the features of its images from
# test captions, if there are any; the features of training and of held-out radiographs.
# Makes, for each model:
#   results/privacy/{model}.json: each image against its prompt's own radiograph; the same under the
#     protocol that the config does not name, in a folder of that protocol's name
#   results/privacy/closest/{model}.json: each image against all training radiographs
#   results/privacy/novelty/{model}.json: whether images are closer to training radiographs than their
#     captions explain
#   results/privacy/lenses/{model}.json: how many prompts each lens flags, measured against the same
#     images and other prompts' radiographs ({model}_others.parquet)
# Beside the first two lies a table of pairs, for its owner only.
# Makes, once: results/privacy/attacker/real.json: how well the re-identification network tells real
# patients apart, under both protocols.


rule privacy_score:
    """Compare a model's images with their prompts' own, all training and held-out radiographs."""
    input:
        manifest=per_job(RUN.manifest),
        prompts=per_job(RUN.prompts, prompt_set="privacy"),
        shards=per_job(RUN.shards, prompt_set="privacy"),
        training=rules.features_training.output,
        held_out=rules.features_held_out.output.features,
        own=per_job(RUN.own_features),
        generated=rules.features_privacy.output.features,
        other_generated=rules.features_privacy.output.other,
        held_out_prompts=per_job(RUN.prompts, prompt_set="test"),
        answers=per_job(RUN.test_answers),
    output:
        record="results/privacy/{model}.json",
        pairs="results/privacy/{model}_pairs.parquet",
        others="results/privacy/{model}_others.parquet",
        other_record=f"results/privacy/{RUN.other_protocol}/{{model}}.json",
        other_pairs=f"results/privacy/{RUN.other_protocol}/{{model}}_pairs.parquet",
        closest="results/privacy/closest/{model}.json",
        closest_pairs="results/privacy/closest/{model}_pairs.parquet",
        novelty="results/privacy/novelty/{model}.json",
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
        *code("privacy.score", "privacy.score_closest", "privacy.score_novelty"),
        version=VERSIONS["privacy"],
        radiographs=radiographs("train"),
        protocol=config["protocol"],
        other=RUN.other_protocol,
        flags=arguments.privacy_flags(RUN),
        matches=config["privacy"]["matches"],
        training=partial(input_folder, name="training"),
        held_out=partial(input_folder, name="held_out"),
        own=partial(input_folder, name="own"),
        generated=partial(input_folder, name="generated"),
        other_generated=partial(input_folder, name="other_generated"),
        answers=answers_flag,
    shell:
        "python -m workflow_scripts.common.in_turn"
        " privacy.score --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " --shards {input.shards} --real {params.training} --generated {params.generated}"
        " {params.flags} --output {output.record} --pairs {output.pairs}"
        " --others {output.others} --threads {threads}"
        " --then privacy.score --model {wildcards.model}"
        " --protocol {params.other} --manifest {input.manifest} --prompts {input.prompts}"
        " --shards {input.shards} --real {params.own} --generated {params.other_generated}"
        " {params.flags} --output {output.other_record} --pairs {output.other_pairs}"
        " --threads {threads}"
        " --then privacy.score_closest --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " --real {params.training} --generated {params.generated} {params.flags}"
        " --matches {params.matches} --output {output.closest} --pairs {output.closest_pairs}"
        " --gpus {resources.gpu} --threads {threads}"
        " --then privacy.score_novelty --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " --held-out-prompts {input.held_out_prompts} --real {params.training}"
        " --held-out {params.held_out} --generated {params.generated} {params.answers}"
        " {params.flags} --output {output.novelty} --gpus {resources.gpu} --threads {threads}"
        " 2> {log}"


rule privacy_lenses:
    """Count the prompts that each lens flags, since their images resemble their radiographs."""
    input:
        manifest=per_job(RUN.manifest),
        pairs="results/privacy/{model}_pairs.parquet",
        others="results/privacy/{model}_others.parquet",
        record="results/privacy/{model}.json",
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
        *code("privacy.score_lenses"),
        version=VERSIONS["privacy"],
        protocol=config["protocol"],
        flags=arguments.privacy_flags(RUN, only=("bootstrap", "seed")),
    shell:
        "python -m workflow_scripts.privacy.score_lenses --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --pairs {input.pairs}"
        " --others {input.others} --record {input.record} {params.flags} --output {output} 2> {log}"


rule privacy_attacker:
    """Measure how well the re-identification network tells real patients apart."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts="results/cohort/prompts/privacy.parquet",
        real=rules.features_held_out.output.features,
        other_real=rules.features_held_out.output.other,
    output:
        record="results/privacy/attacker/real.json",
        other_record=f"results/privacy/{RUN.other_protocol}/attacker/real.json",
    log:
        "logs/privacy/attacker.log",
    benchmark:
        "benchmarks/privacy/attacker.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=8000),
        runtime=120,
    params:
        *code("privacy.score_attacker"),
        version=VERSIONS["privacy"],
        protocol=config["protocol"],
        other=RUN.other_protocol,
        threshold=config["privacy"]["threshold"],
        real=partial(input_folder, name="real"),
        other_real=partial(input_folder, name="other_real"),
    shell:
        "python -m workflow_scripts.common.in_turn"
        " privacy.score_attacker --protocol {params.protocol}"
        " --manifest {input.manifest} --prompts {input.prompts} --real {params.real}"
        " --threshold {params.threshold} --output {output.record}"
        " --then privacy.score_attacker --protocol {params.other}"
        " --manifest {input.manifest} --prompts {input.prompts} --real {params.other_real}"
        " --threshold {params.threshold} --output {output.other_record} 2> {log}"
