# Needs: that the records are there; Snakemake's benchmark files and logs, SLURM's accounting.
# Makes: results/costs/jobs.csv, every attempt of every job, which names the cluster's nodes.


rule costs_jobs:
    """Every attempt of every job, where the workflow runs: SLURM's accounting is asked."""
    input:
        # Every job but the tables' ends in a record: whatever was run again made one anew.
        records=records("fidelity")
        + records("privacy")
        + records("downstream")
        + records("faithfulness"),
    output:
        "results/costs/jobs.csv",
    log:
        "logs/costs/jobs.log",
    benchmark:
        "benchmarks/costs/jobs.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        *code("costs.build"),
        version=VERSIONS["tables"],
        models=RUN.models,
        rules=job_patterns,
        benchmarks="benchmarks",
        job_logs="logs",
        logs=".snakemake/slurm_logs",
    shell:
        "python -m workflow_scripts.costs.build --rules {params.rules} --models {params.models}"
        " --benchmarks {params.benchmarks} --job-logs {params.job_logs}"
        " --slurm-logs {params.logs} --output {output} 2> {log}"
