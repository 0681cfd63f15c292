# Needs: the data source named in config.yaml (cohort.source).
# Makes: results/cohort/manifest.parquet (one row per radiograph), attrition.csv (what was dropped
# and why), identical_images.csv (radiographs that are one image under several ids),
# similar_images.csv (test and validation images that another split shows, changed), and
# prompts/{prompt_set}.parquet and .csv; for models with captions from another source, the same in
# results/cohort/captions_{source}/.
# prompts/drawn.parquet and .csv, if the config asks for a drawn pool of curated sets.
# prompts/stress.parquet and .csv, and stress.parquet with its attributes, come from templates alone.
# training/, test/, ... hold the parts of each manifest that fine-tuning, sampling and report
# generators read, so that a changed label or test caption retrains nothing
# (workflow_scripts/cohort/parts.py).
# No code is declared, because every stage depends on the cohort: an edited line here would rerun
# every fine-tuning. The config, the source's tables and the stage version rerun it.


rule cohort_manifest:
    """Split the data, join the captions, count what was removed, and check every film."""
    input:
        sources=ancient(per_job(cohort_tables, config=config)),
    output:
        manifest="results/cohort/{captions}manifest.parquet",
        attrition="results/cohort/{captions}attrition.csv",
        identical="results/cohort/{captions}identical_images.csv",
        similar="results/cohort/{captions}similar_images.csv",
    log:
        "logs/cohort/{captions}manifest.log",
    benchmark:
        "benchmarks/cohort/{captions}manifest.tsv"
    wildcard_constraints:
        captions=r"(captions_[\w.-]+/)?",
    priority: 110
    conda:
        "../envs/core.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        version=VERSIONS["cohort"],
        flags=per_job(cohort_flags, config=config),
        contents=per_job(READS.cohort),
        bits=READS.bits(),
    shell:
        "python -m workflow_scripts.cohort.build_manifest {params.flags}"
        " --manifest {output.manifest} --attrition {output.attrition}"
        " --identical {output.identical} --similar {output.similar} --threads {threads} 2> {log}"


rule cohort_part:
    """Write the part of the manifest that one kind of stage reads, without decoding films again."""
    input:
        sources=ancient(per_job(cohort_tables, config=config)),
    output:
        manifest="results/cohort/{captions}manifest.parquet",
        attrition="results/cohort/{captions}attrition.csv",
    log:
        "logs/cohort/{captions}manifest.log",
    benchmark:
        "benchmarks/cohort/{captions}manifest.tsv"
    wildcard_constraints:
        captions=rf"(captions_[\w.-]+/)?({'|'.join(PARTS)})/",
    priority: 110
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        version=VERSIONS["cohort"],
        flags=per_job(cohort_flags, config=config),
        contents=per_job(READS.cohort),
    shell:
        "python -m workflow_scripts.cohort.build_manifest {params.flags}"
        " --manifest {output.manifest} --attrition {output.attrition} 2> {log}"


rule cohort_prompts:
    """Draw one prompt set from the cohort's captions."""
    input:
        manifest="results/cohort/{captions}manifest.parquet",
    output:
        parquet="results/cohort/{captions}prompts/{prompt_set}.parquet",
        csv="results/cohort/{captions}prompts/{prompt_set}.csv",
    log:
        "logs/cohort/{captions}prompts_{prompt_set}.log",
    benchmark:
        "benchmarks/cohort/{captions}prompts_{prompt_set}.tsv"
    wildcard_constraints:
        prompt_set="|".join(COHORT_PROMPT_SETS),
    priority: 110
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=20,
    params:
        version=VERSIONS["cohort"],
        flags=per_job(arguments.prompt_flags, run=RUN),
    shell:
        "python -m workflow_scripts.cohort.draw_prompts --manifest {input.manifest}"
        " --prompt-set {wildcards.prompt_set} {params.flags}"
        " --out {output.parquet} --csv {output.csv} 2> {log}"


rule cohort_drawn:
    """Draw captions with a given prevalence of findings, for the pool of curated sets."""
    input:
        manifest="results/cohort/{captions}manifest.parquet",
    output:
        parquet="results/cohort/{captions}prompts/drawn.parquet",
        csv="results/cohort/{captions}prompts/drawn.csv",
    log:
        "logs/cohort/{captions}prompts_drawn.log",
    benchmark:
        "benchmarks/cohort/{captions}prompts_drawn.tsv"
    priority: 110
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=20,
    params:
        version=VERSIONS["cohort"],
        flags=arguments.drawn_flags(RUN),
    shell:
        "python -m workflow_scripts.cohort.drawn_prompts --manifest {input.manifest}"
        " {params.flags} --out {output.parquet} --csv {output.csv} 2> {log}"


rule cohort_stress:
    """Write the stress set: prompts from templates, the same for every cohort and caption source."""
    output:
        parquet="results/cohort/prompts/stress.parquet",
        csv="results/cohort/prompts/stress.csv",
        attributes="results/cohort/stress.parquet",
    log:
        "logs/cohort/prompts_stress.log",
    benchmark:
        "benchmarks/cohort/prompts_stress.tsv"
    priority: 110
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        version=STRESS_VERSION,
        flags=arguments.prompt_flags(RUN, STRESS),
    shell:
        "python -m workflow_scripts.cohort.stress_prompts {params.flags}"
        " --attributes {output.attributes} --out {output.parquet} --csv {output.csv} 2> {log}"
