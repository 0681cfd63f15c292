# Needs: a fine-tuned checkpoint and its base, or a checkpoint that came trained and has a likelihood;
# the cohort, and the tables of radiographs that several splits show. For images that were made
# elsewhere: their features, and those of radiographs.
# Makes: results/privacy/membership/{model}.json: whether an attacker can tell who was trained on; and
# beside it {model}_scores.parquet, each patient's scores, for its owner only.
# Progress is kept in results/privacy/membership/{model}.progress. Snakemake does not know this folder
# and so does not delete it: a killed job's retry continues there.

from workflow_scripts.finetune.families import modules_of


rule privacy_membership:
    """Attack a model by its losses of members and non-members, calibrated by its base if it has one."""
    input:
        manifest=per_job(RUN.manifest),
        copies=per_job(RUN.copies),
        checkpoint=per_job(RUN.checkpoint),
    output:
        record="results/privacy/membership/{model}.json",
        scores="results/privacy/membership/{model}_scores.parquet",
    log:
        "logs/privacy/membership_{model}.log",
    benchmark:
        "benchmarks/privacy/membership_{model}.tsv"
    wildcard_constraints:
        model="|".join(RUN.finetuned + RUN.presumed) or "none",
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=64000),
        runtime=480,
    params:
        *code("privacy.membership.score", *modules_of(RUN.attacked_families)),
        version=VERSIONS["privacy"],
        radiographs=radiographs("train", "validate", "test"),
        protocol=config["protocol"],
        flags=per_job(arguments.membership_flags, run=RUN),
        weights=per_job(READS.presumed_base),
        checkpoint=flag("checkpoint"),
        progress="results/privacy/membership/{model}.progress",
    shell:
        "python -m workflow_scripts.privacy.membership.score --model {wildcards.model}"
        " --protocol {params.protocol} {params.flags} --manifest {input.manifest}"
        " --copies {input.copies} {params.checkpoint} --progress {params.progress}"
        " --scores {output.scores} --output {output.record}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule privacy_membership_samples:
    """Attack a model by its images alone, which were made elsewhere."""
    input:
        manifest=per_job(RUN.manifest),
        copies=per_job(RUN.copies),
        prompts=per_job(RUN.prompts, prompt_set="privacy"),
        training=rules.features_training.output,
        held_out=rules.features_held_out.output.features,
        generated=rules.features_privacy.output.features,
    output:
        "results/privacy/membership/{model}.json",
    log:
        "logs/privacy/membership_{model}.log",
    benchmark:
        "benchmarks/privacy/membership_{model}.tsv"
    wildcard_constraints:
        model="|".join(RUN.external) or "none",
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=8000),
        runtime=60,
    params:
        *code("privacy.membership.score_samples"),
        version=VERSIONS["privacy"],
        protocol=config["protocol"],
        flags=arguments.samples_flags(RUN),
        training=partial(input_folder, name="training"),
        held_out=partial(input_folder, name="held_out"),
        generated=partial(input_folder, name="generated"),
    shell:
        "python -m workflow_scripts.privacy.membership.score_samples --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --copies {input.copies}"
        " --prompts {input.prompts} --real {params.training} --held-out {params.held_out} --generated {params.generated}"
        " {params.flags} --output {output} 2> {log}"


rule privacy_membership_unknown:
    """Record that a model came trained, so that its members are unknown."""
    output:
        "results/privacy/membership/{model}.json",
    log:
        "logs/privacy/membership_{model}.log",
    benchmark:
        "benchmarks/privacy/membership_{model}.tsv"
    wildcard_constraints:
        model="|".join(m for m in RUN.published if m not in RUN.presumed) or "none",
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        *code("privacy.membership.score_samples"),
        version=VERSIONS["privacy"],
        protocol=config["protocol"],
        reason="it came trained, and who its members are is unknown",
    shell:
        "python -m workflow_scripts.privacy.membership.score_samples --model {wildcards.model}"
        " --protocol {params.protocol} --unknown {params.reason:q} --output {output} 2> {log}"
