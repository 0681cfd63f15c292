# Needs: every stage's records; every attempt of every job; what the report shows of the audit.
# Makes: results/tables/table*.{csv,md,tex,html} and report.html. tables_build joins the records, once:
# tables.json has every table for the figures and the report, measurements.parquet is the long table.
# Likewise costs.{csv,md,tex,html}, the attempts added up.
# Beside them riskiest_pairs.html and .csv, which show and name patients: for their owner only.
# Figures as SVG and PDF; those of radiographs are for their owner only, too.
# On request release.tar.gz: what may be published, after a search for images, captions and ids.

from workflow_scripts.finetune.families import modules_of
from workflow_scripts.tables.figure_list import FIGURES as ALL_FIGURES
from workflow_scripts.tables.figure_list import LIST as FIGURE_LIST
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.metrics import measures_modules

MEASURES = measures_modules()
TABLES = list(LAYOUTS)  # a spec each, workflow_scripts/tables/specs/

FIGURES = [figure.stem for figure in ALL_FIGURES if not figure.owner_only]
FIGURES_OF_PATIENTS = [figure.stem for figure in ALL_FIGURES if figure.owner_only]
FIGURE_DATA = [*(file for figure in ALL_FIGURES for file in figure.data), FIGURE_LIST]
FAMILY_MODULES = modules_of(config["models"][m]["family"] for m in RUN.sampled)

# In Snakemake's own report a table stands in the section that its spec names; captions/ says how to
# read it. What shows radiographs is not in there.
SECTION_OF = {stem: layout.section for stem, layout in LAYOUTS.items()}


rule tables_build:
    """The paper's tables for the models of the run, as CSV, Markdown, LaTeX and HTML."""
    input:
        manifest="results/cohort/manifest.parquet",
        attrition="results/cohort/attrition.csv",
        fidelity=records("fidelity"),
        privacy=records("privacy"),
        downstream=records("downstream"),
        faithfulness=records("faithfulness"),
        curate=records("curate"),
    output:
        tables=[
            *expand(
                "results/tables/{table}.{format}",
                table=TABLES,
                format=["csv", "md", "tex"],
            ),
            *[
                report(
                    f"results/tables/{table}.html",
                    caption=f"captions/{SECTION_OF[table].lower().replace(' ', '_')}.rst",
                    category=SECTION_OF[table],
                    labels={
                        "table": table.partition("_")[0].removeprefix("table"),
                        "shows": table.partition("_")[2].replace("_", " "),
                    },
                )
                for table in TABLES
            ],
        ],
        results="results/tables/tables.json",
        measurements="results/tables/measurements.parquet",
    log:
        "logs/tables/build.log",
    benchmark:
        "benchmarks/tables/build.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=20,
    params:
        *code("tables.build", *MEASURES),
        version=VERSIONS["tables"],
        protocol=config["protocol"],
        folder=output_folder,
        dataset=quote(config["cohort"]["dataset"]),
        models=model_table,
    shell:
        "python -m workflow_scripts.tables.build --fidelity {input.fidelity}"
        " --privacy {input.privacy} --downstream {input.downstream}"
        " --faithfulness {input.faithfulness} --curate {input.curate} --models {params.models}"
        " --dataset {params.dataset} --protocol {params.protocol} --attrition {input.attrition}"
        " --manifest {input.manifest} --out {params.folder} 2> {log}"


rule tables_costs:
    """What the run cost, by stage and model, over all attempts."""
    input:
        jobs=rules.costs_jobs.output,
    output:
        [
            *expand("results/tables/costs.{format}", format=["csv", "md", "tex"]),
            report(
                "results/tables/costs.html",
                caption="captions/cost.rst",
                category="Cost",
                labels={"table": "C", "shows": "cost by stage and model"},
            ),
        ],
    log:
        "logs/tables/costs.log",
    benchmark:
        "benchmarks/tables/costs.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        *code("tables.build_costs", *MEASURES),
        version=VERSIONS["tables"],
        folder=output_folder,
        dataset=quote(config["cohort"]["dataset"]),
        models=model_table,
    shell:
        "python -m workflow_scripts.tables.build_costs --jobs {input.jobs}"
        " --models {params.models} --dataset {params.dataset} --out {params.folder} 2> {log}"


rule tables_figures:
    """The figures as SVG and PDF, and what each shows."""
    input:
        manifest="results/cohort/manifest.parquet",
        results="results/tables/tables.json",
        measurements="results/tables/measurements.parquet",
        prompts=every_prompt_set,
        scores=privacy_pairs,
        pairs=riskiest_pairs,
        images=example_shards,
        privacy_images=privacy_shards,
        jobs=rules.costs_jobs.output,
    output:
        svg=[
            report(
                f"results/tables/{figure}.svg",
                caption="captions/figures.rst",
                category="Figures",
                labels={
                    "figure": figure.partition("_")[0].removeprefix("figure"),
                    "shows": figure.partition("_")[2].replace("_", " "),
                },
            )
            for figure in FIGURES
        ],
        pdf=expand("results/tables/{figure}.pdf", figure=FIGURES),
        data=expand("results/tables/{file}", file=FIGURE_DATA),
        inline="results/tables/figures_inline.json",
        of_patients=expand(
            "results/tables/{figure}.{format}",
            figure=FIGURES_OF_PATIENTS,
            format=["svg", "pdf"],
        ),
    log:
        "logs/tables/figures.log",
    benchmark:
        "benchmarks/tables/figures.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        *code("tables.build_figures", *MEASURES, *FAMILY_MODULES),
        version=VERSIONS["tables"],
        radiographs=radiographs(*SPLITS),
        folder=output_folder,
        flags=figure_flags,
        tokenizers=tokenizers,
        rules=rules_drawn,
    shell:
        "python -m workflow_scripts.tables.build_figures --results {input.results}"
        " --measurements {input.measurements}"
        " --manifest {input.manifest} {params.flags} --tokenizers {params.tokenizers}"
        " --rules {params.rules} --jobs {input.jobs} --out {params.folder} --threads {threads} 2> {log}"


rule tables_report:
    """One HTML file with the tables, example images and where every number comes from."""
    input:
        manifest="results/cohort/manifest.parquet",
        results="results/tables/tables.json",
        prompts="results/cohort/prompts/test.parquet",
        images=example_shards,
        tables=rules.tables_build.output.tables,
        costs=rules.tables_costs.output,
        jobs=rules.costs_jobs.output,
        figures=rules.tables_figures.output.data,
        inline=rules.tables_figures.output.inline,
        audit=rules.paper_audit.output.page,
        stress_images=stress_shards,
        stress_scores=stress_scores,
    output:
        report="results/tables/report.html",
        public=report(
            "results/tables/report_public.html",
            caption="captions/report.rst",
            category="Report",
            labels={
                "table": "all",
                "shows": "pages by stage and model, without images",
            },
        ),
    log:
        "logs/tables/report.log",
    benchmark:
        "benchmarks/tables/report.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=20,
    params:
        *code("tables.report", *MEASURES),
        version=VERSIONS["tables"],
        radiographs=radiographs(*SPLITS),
        folder=output_folder,
        images=example_flags,
        config=quote(canonical(config)),
        stress=stress_page_flags,
    shell:
        "python -m workflow_scripts.tables.report --results {input.results}"
        " --manifest {input.manifest} --prompts {input.prompts} {params.images} {params.stress}"
        " --tables {params.folder} --jobs {input.jobs} --config {params.config}"
        " --figures {params.folder} --audit {input.audit}"
        " --output {output.report} --public {output.public} 2> {log}"


rule tables_riskiest:
    """A page of the riskiest pairs: generated images beside their closest training images."""
    input:
        manifest="results/cohort/manifest.parquet",
        pairs=riskiest_pairs,
        extraction=RUN.extraction_images(),
        images=privacy_shards,
    output:
        page="results/tables/riskiest_pairs.html",
        table="results/tables/riskiest_pairs.csv",
    log:
        "logs/tables/riskiest.log",
    benchmark:
        "benchmarks/tables/riskiest.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        *code("tables.riskiest", *MEASURES),
        version=VERSIONS["tables"],
        radiographs=radiographs("train"),
        dataset=quote(config["cohort"]["dataset"]),
        models=model_table,
        flags=riskiest_flags,
    shell:
        "python -m workflow_scripts.tables.riskiest --models {params.models}"
        " --dataset {params.dataset} --manifest {input.manifest} {params.flags}"
        " --output {output.page} --table {output.table} 2> {log}"


rule tables_release:
    """Pack what may be published, after a search for images, captions and ids."""
    input:
        manifest=every_manifest,
        prompts=every_prompt_set,
        tables=rules.tables_build.output.tables,
        costs=rules.tables_costs.output,
        audit=rules.paper_audit.output.files,
        figures=rules.tables_figures.output.svg
        + rules.tables_figures.output.pdf
        + rules.tables_figures.output.data,
        report=rules.tables_report.output.public,
        records=records("fidelity")
        + records("privacy")
        + records("downstream")
        + records("faithfulness")
        + records("curate"),
        lock=of_checkout("envs/core.lock.txt"),
        citation=of_checkout("CITATION.cff"),
    output:
        "results/tables/release.tar.gz",
    log:
        "logs/tables/release.log",
    benchmark:
        "benchmarks/tables/release.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        *code("tables.release"),
        version=VERSIONS["tables"],
        dataset=quote(config["cohort"]["dataset"]),
        config=quote(canonical(config)),
    shell:
        "python -m workflow_scripts.tables.release --dataset {params.dataset}"
        " --tables {input.tables} {input.costs} {input.audit} --figures {input.figures}"
        " --records {input.records} --report {input.report}"
        " --config {params.config} --lock {input.lock} --citation {input.citation}"
        " --manifest {input.manifest}"
        " --prompts {input.prompts} --output {output} 2> {log}"
