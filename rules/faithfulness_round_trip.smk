# Needs: a model's test images, the released LLaVA-Rad, CheXbert. It runs if `faithfulness.judges`
# names llava_rad.
# Makes: results/faithfulness/round_trip/{model}.json: does a report on the image state what the
# prompt asked for? reports/{model}.parquet has the reports with their findings. `real` stands for
# the radiographs of the test split.


rule faithfulness_reports:
    """Write LLaVA-Rad's reports on a model's test images, or on the radiographs, with their findings."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts=per_job(RUN.looked_prompts),
        shards=per_job(RUN.looked_shards),
    output:
        "results/faithfulness/reports/{model}.parquet",
    log:
        "logs/faithfulness/reports_{model}.log",
    benchmark:
        "benchmarks/faithfulness/reports_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=64000),
        runtime=partial(
            job_minutes_of,
            stage="faithfulness",
            what=["reports of test images", "reports of test radiographs"],
            otherwise=480,
        ),
    params:
        *code("faithfulness.write_reports"),
        version=VERSIONS["faithfulness"],
        protocol=config["protocol"],
        weights=READS.round_trip(),
        radiographs=read_by_look,
        flags=arguments.round_trip_flags(RUN),
        shards=flag("shards"),
        progress="results/faithfulness/reports/.progress-{model}",
    shell:
        "python -m workflow_scripts.faithfulness.write_reports --collection {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " {params.shards} {params.flags} --progress {params.progress} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule faithfulness_round_trip:
    """Score the reports on one model's images against the labels of its prompts."""
    input:
        prompts=per_job(RUN.looked_prompts),
        radiographs="results/faithfulness/reports/real.parquet",
        reports="results/faithfulness/reports/{model}.parquet",
    output:
        "results/faithfulness/round_trip/{model}.json",
    log:
        "logs/faithfulness/round_trip_{model}.log",
    benchmark:
        "benchmarks/faithfulness/round_trip_{model}.tsv"
    wildcard_constraints:
        model="|".join(RUN.models) or "none",
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=4000),
        runtime=60,
    params:
        *code("faithfulness.score_round_trip"),
        version=VERSIONS["faithfulness"],
        protocol=config["protocol"],
        bootstrap=config["faithfulness"]["bootstrap"],
        seed=config["faithfulness"]["seed"],
    shell:
        "python -m workflow_scripts.faithfulness.score_round_trip --model {wildcards.model}"
        " --protocol {params.protocol} --prompts {input.prompts}"
        " --radiographs {input.radiographs} --reports {input.reports}"
        " --bootstrap {params.bootstrap} --seed {params.seed} --output {output} 2> {log}"
