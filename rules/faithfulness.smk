# Needs: a model's test images, the classifiers that were trained on radiographs alone, CXAS.
# Makes: results/faithfulness/: does an image show what its prompt asks for? seen/{model}.parquet has
# the networks' results for each image, from one pass; findings/{judge}/{model}.json,
# anatomy/{model}.json, structures/{model}.csv and texture/{model}.json are scored from it. `real`
# stands for the radiographs of the test split.


rule faithfulness_look:
    """Run judges and labeller once on a model's test images, or on the radiographs; measure texture."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts=per_job(RUN.looked_prompts),
        shards=per_job(RUN.looked_shards),
        judges=RUN.judge_networks(),
    output:
        "results/faithfulness/seen/{model}.parquet",
    log:
        "logs/faithfulness/look_{model}.log",
    benchmark:
        "benchmarks/faithfulness/look_{model}.tsv"
    conda:
        "../envs/core.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=partial(more_memory, base=32000),
        runtime=partial(
            job_minutes_of,
            stage="faithfulness",
            what=["test images: ", "test radiographs: "],
            otherwise=240,
        ),
    params:
        *code("faithfulness.look"),
        version=VERSIONS["faithfulness"],
        protocol=config["protocol"],
        weights=READS.looking(),
        radiographs=read_by_look,
        flags=arguments.looking_flags(RUN),
        shards=flag("shards"),
        judges=flag("judges", called="classifier"),
    shell:
        "python -m workflow_scripts.faithfulness.look --collection {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " {params.shards} {params.judges} {params.flags} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> {log}"


rule faithfulness_score:
    """Score findings, anatomy, texture and topology of one model."""
    input:
        manifest="results/cohort/manifest.parquet",
        prompts=per_job(RUN.looked_prompts),
        radiographs="results/faithfulness/seen/real.parquet",
        seen="results/faithfulness/seen/{model}.parquet",
    output:
        expand("results/faithfulness/findings/{judge}/{{model}}.json", judge=RUN.judges),
        "results/faithfulness/anatomy/{model}.json",
        "results/faithfulness/structures/{model}.csv",
        "results/faithfulness/texture/{model}.json",
    log:
        "logs/faithfulness/score_{model}.log",
    benchmark:
        "benchmarks/faithfulness/score_{model}.tsv"
    wildcard_constraints:
        model="|".join(RUN.models) or "none",
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=8000),
        runtime=60,
    params:
        *code("faithfulness.score"),
        version=VERSIONS["faithfulness"],
        protocol=config["protocol"],
        flags=arguments.faithfulness_flags(RUN),
        keep_draws=per_job(arguments.kept_axes_flags, run=RUN),
    shell:
        "python -m workflow_scripts.faithfulness.score --model {wildcards.model}"
        " --protocol {params.protocol} --manifest {input.manifest} --prompts {input.prompts}"
        " --radiographs {input.radiographs} --seen {input.seen} {params.flags}"
        " {params.keep_draws} --out results/faithfulness 2> {log}"


rule faithfulness_score_real:
    """Score the radiographs' anatomy, and CXAS's masks of them against exact ones if there are any."""
    input:
        manifest="results/cohort/manifest.parquet",
        radiographs="results/faithfulness/seen/real.parquet",
    output:
        anatomy="results/faithfulness/anatomy/real.json",
        labeller="results/faithfulness/labeller/real.json",
    log:
        "logs/faithfulness/score_real.log",
    benchmark:
        "benchmarks/faithfulness/score_real.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=partial(more_memory, base=8000),
        runtime=60,
    params:
        *code("faithfulness.score", "faithfulness.score_labeller"),
        version=VERSIONS["faithfulness"],
        protocol=config["protocol"],
        flags=arguments.faithfulness_flags(RUN),
        exact_organs=arguments.exact_organs_flag(RUN),
        contents=READS.exact_organs(),
    shell:
        "python -m workflow_scripts.common.in_turn"
        " faithfulness.score --model real"
        " --protocol {params.protocol} --manifest {input.manifest}"
        " --radiographs {input.radiographs} {params.flags} --out results/faithfulness"
        " --then faithfulness.score_labeller --protocol {params.protocol}"
        " --radiographs {input.radiographs} {params.exact_organs}"
        " --output {output.labeller} 2> {log}"
