# CheXGenBench: data split -> caption join -> fine-tuning -> generation -> features -> fidelity,
# privacy, downstream utility, faithfulness -> the paper's tables. This file is an index; each
# stage's rules say what they need and what they make.


configfile: "config.yaml"


# The opening words of `snakemake --report`.
report: "rules/captions/workflow.rst"


# Used with `--sdm apptainer` alone; envs/core.def says how to build it.
container: "envs/chexgenbench.sif"


include: "rules/common.smk"
include: "rules/cohort.smk"
include: "rules/finetune.smk"
include: "rules/generate.smk"
include: "rules/features.smk"
include: "rules/fidelity.smk"
include: "rules/privacy.smk"
include: "rules/privacy_membership.smk"
include: "rules/privacy_extraction.smk"
include: "rules/privacy_guarantee.smk"
include: "rules/downstream.smk"


for rules_of_part in PART_RULES:  # privacy scores and tasks that are one folder

    include: rules_of_part


include: "rules/faithfulness.smk"
include: "rules/faithfulness_round_trip.smk"
include: "rules/faithfulness_stress.smk"
include: "rules/curate.smk"
include: "rules/costs.smk"
include: "rules/paper_audit.smk"
include: "rules/tables.smk"


localrules:
    all,
    costs_jobs,
    finetune_finish,
    paper_audit,
    prompts,
    release,
    tables,
    tables_costs,


rule all:
    """Tables and report for every model of `run_models`."""
    default_target: True
    input:
        rules.tables_build.output,
        rules.costs_jobs.output,
        rules.tables_costs.output,
        rules.paper_audit.output,
        rules.tables_report.output,
        rules.tables_riskiest.output,
        rules.tables_figures.output,
        RUN.curated_sets(),


rule prompts:
    """The prompt sets alone, as CSV, for people who generate with a model of their own."""
    input:
        RUN.exported_prompts(),


rule release:
    """A bundle for publication: tables, the report without images, records, config."""
    input:
        rules.tables_release.output,


rule tables:
    """The tables and the figures, without the report."""
    input:
        rules.tables_build.output,
        rules.tables_figures.output,


onstart:
    preflight()
