# Needs: nothing of a run; the paper's printed tables come with the code.
# Makes: results/paper_audit/audit.{csv,md,tex}: the paper's own numbers, recomputed from its printed
# tables, and audit.json, which the report's page shows. `make audit` makes them alone.


rule paper_audit:
    """What in the paper follows from other numbers in it, recomputed from its printed tables."""
    output:
        files=expand("results/paper_audit/audit.{format}", format=["csv", "md", "tex"]),
        page="results/paper_audit/audit.json",
    log:
        "logs/paper_audit/audit.log",
    benchmark:
        "benchmarks/paper_audit/audit.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        *code("paper_audit.build"),
        version=VERSIONS["tables"],
        folder=output_folder,
    shell:
        "python -m workflow_scripts.paper_audit.build --out {params.folder} 2> {log}"
