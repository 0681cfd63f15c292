# Needs: the features of a model's test images and of the real test images.
# Makes: results/fidelity/{encoder}/{model}.json: FID, KID, precision, recall, density, coverage and
# alignment, for all images and for each of the 14 findings.


rule fidelity_score:
    """Compute one model's fidelity in one encoder's features."""
    input:
        manifest=per_job(RUN.manifest),
        prompts=per_job(RUN.prompts, prompt_set="test"),
        real=rules.features_reference.output,
        generated=rules.features_fidelity.output,
    output:
        "results/fidelity/{encoder}/{model}.json",
    log:
        "logs/fidelity/{encoder}_{model}.log",
    benchmark:
        "benchmarks/fidelity/{encoder}_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=0,
        mem_mb=partial(more_memory, base=16000),
        runtime=120,
    params:
        *code("fidelity.score"),
        version=VERSIONS["fidelity"],
        protocol=config["protocol"],
        flags=arguments.fidelity_flags(RUN),
        real=partial(input_folder, name="real"),
        generated=partial(input_folder, name="generated"),
    shell:
        "python -m workflow_scripts.fidelity.score --model {wildcards.model} --encoder {wildcards.encoder}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " --real {params.real} --generated {params.generated} {params.flags}"
        " --output {output} --gpus {resources.gpu} --threads {threads} 2> {log}"
