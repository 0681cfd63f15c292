# Needs: the checkpoints of models with `finetune.privacy` or `finetune.canaries`, and their canaries.
# Makes: results/privacy/guarantee/{model}.json: the epsilon that the checkpoint states, and what an
# attack on the canaries shows. It makes nothing if there is no such model.

from workflow_scripts.finetune.families import modules_of


rule privacy_guarantee:
    """Compare the epsilon that a fine-tuning states with what an attack on its canaries shows."""
    input:
        checkpoint="results/finetune/{model}/checkpoint",
        canaries=per_job(RUN.canaries),
    output:
        "results/privacy/guarantee/{model}.json",
    log:
        "logs/privacy/guarantee_{model}.log",
    benchmark:
        "benchmarks/privacy/guarantee_{model}.tsv"
    wildcard_constraints:
        model="|".join(RUN.guaranteed()) or "none",
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=64000),
        runtime=480,
    params:
        *code("privacy.score_guarantee", *modules_of(RUN.tuned_families)),
        version=VERSIONS["privacy"],
        weights=per_job(READS.base),
        protocol=config["protocol"],
        flags=per_job(arguments.guarantee_flags, run=RUN),
    shell:
        "python -m workflow_scripts.privacy.score_guarantee --model {wildcards.model}"
        " --protocol {params.protocol} {params.flags} --checkpoint {input.checkpoint}"
        " --output {output} --gpus {resources.gpu} --threads {threads} 2> {log}"
