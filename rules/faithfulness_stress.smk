# Needs: a model's images of the stress set, the classifiers that were trained on radiographs alone,
# CXAS.
# Makes: results/faithfulness/stress/{model}.json and .parquet: do images change where their prompts
# do, and nowhere else? seen/ has the judge's readings.


rule faithfulness_stress_radiographs:
    """Run the judge on the radiographs of the test split, for the ceilings."""
    input:
        manifest="results/cohort/manifest.parquet",
        judges=RUN.judge_networks(),
    output:
        "results/faithfulness/stress/seen/real.parquet",
    log:
        "logs/faithfulness/stress_seen_real.log",
    benchmark:
        "benchmarks/faithfulness/stress_seen_real.tsv"
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=16000),
        runtime=partial(
            job_minutes_of,
            stage="faithfulness",
            what=["stress, test radiographs: "],
            otherwise=120,
        ),
    params:
        *code("faithfulness.look_stress"),
        version=VERSIONS["faithfulness"],
        weights=READS.labeller(),
        radiographs=radiographs("test"),
        protocol=config["protocol"],
        cxas=arguments.cxas_flags(RUN),
    shell:
        "python -m workflow_scripts.faithfulness.look_stress --collection real"
        " --protocol {params.protocol} --manifest {input.manifest} --judges {input.judges}"
        " {params.cxas} --output {output} --gpus {resources.gpu} --threads {threads} 2> {log}"


rule faithfulness_stress_look:
    """Run the judge on a model's images of the stress set."""
    input:
        prompts=STRESS_PROMPTS,
        shards=per_job(RUN.shards, prompt_set="stress"),
        judges=RUN.judge_networks(),
    output:
        "results/faithfulness/stress/seen/{model}.parquet",
    log:
        "logs/faithfulness/stress_seen_{model}.log",
    benchmark:
        "benchmarks/faithfulness/stress_seen_{model}.tsv"
    wildcard_constraints:
        model="|".join(RUN.with_images(STRESS)) or "none",
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=16000),
        runtime=partial(
            job_minutes_of,
            stage="faithfulness",
            what=["stress images: "],
            otherwise=120,
        ),
    params:
        *code("faithfulness.look_stress"),
        version=VERSIONS["faithfulness"],
        weights=READS.labeller(),
        protocol=config["protocol"],
        cxas=arguments.cxas_flags(RUN),
    shell:
        "python -m workflow_scripts.faithfulness.look_stress --collection {wildcards.model}"
        " --protocol {params.protocol} --prompts {input.prompts} --shards {input.shards}"
        " --judges {input.judges} {params.cxas} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule faithfulness_stress:
    """Score presence, negation, side, severity, zone, device and wording of one model's images."""
    input:
        stress=rules.cohort_stress.output.attributes,
        manifest="results/cohort/manifest.parquet",
        seen=rules.faithfulness_stress_look.output,
        real=rules.faithfulness_stress_radiographs.output,
    output:
        record="results/faithfulness/stress/{model}.json",
        scores="results/faithfulness/stress/{model}.parquet",
    log:
        "logs/faithfulness/stress_{model}.log",
    benchmark:
        "benchmarks/faithfulness/stress_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=8000),
        runtime=60,
    params:
        *code("faithfulness.score_stress"),
        version=VERSIONS["faithfulness"],
        protocol=config["protocol"],
        bootstrap=config["faithfulness"]["bootstrap"],
        seed=config["faithfulness"]["seed"],
    shell:
        "python -m workflow_scripts.faithfulness.score_stress --model {wildcards.model}"
        " --protocol {params.protocol} --stress {input.stress} --manifest {input.manifest}"
        " --seen {input.seen} --real {input.real} --bootstrap {params.bootstrap}"
        " --seed {params.seed} --scores {output.scores} --output {output.record} 2> {log}"
