"""Write the report: one HTML file that needs no network and no other file.

python -m workflow_scripts.tables.report --results results/tables/tables.json
    --manifest results/cohort/manifest.parquet --prompts results/cohort/prompts/test.parquet
    --images sd_v1_4=results/generate/sd_v1_4/test/part-00000-of-00004.parquet
    --tables results/tables --jobs results/costs/jobs.csv --figures results/tables
    --config '{"run_models": ["sd_v1_4"], ...}' --output results/tables/report.html
"""

import argparse
import base64
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file, write_text
from workflow_scripts.common.manifest import FINDINGS, read_prompts
from workflow_scripts.costs.attempts import read_attempts
from workflow_scripts.preflight.rates import read_rates
from workflow_scripts.tables import dot_plot
from workflow_scripts.tables.assemble import Cell, Row, Table, noted
from workflow_scripts.tables.audit_page import read_audit
from workflow_scripts.tables.costs import COSTS, cost_sentence, cost_table
from workflow_scripts.tables.examples import Gallery, gallery, parse_images
from workflow_scripts.tables.layout import Column
from workflow_scripts.tables.matrices import PAIRED
from workflow_scripts.tables.model_cards import model_cards
from workflow_scripts.tables.models import ModelEntry, controls_last
from workflow_scripts.tables.pages import render
from workflow_scripts.tables.privacy_words import (
    attacker_sentence,
    extraction_sentences,
    lens_sentences,
    membership_sentence,
)
from workflow_scripts.tables.published import PAPER_DATASET
from workflow_scripts.tables.records_in import REAL
from workflow_scripts.tables.report_answers import answers
from workflow_scripts.tables.report_figures import figures_by_page
from workflow_scripts.tables.report_pages import (
    DOWNSTREAM_NOTE,
    OVERVIEW,
    OVERVIEW_PAGE,
    PAGES,
    by_page,
    navigation,
)
from workflow_scripts.tables.report_plan import PlanSection, plan_section
from workflow_scripts.tables.results import Results, read_results
from workflow_scripts.tables.stress_page import shown_contrasts
from workflow_scripts.tables.utility_words import GAINS, correlation_sentence, gain_sentence

log = logging.getLogger(__name__)

_TYPES: Final = {"csv": "text/csv", "md": "text/markdown", "tex": "application/x-tex"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _parser().parse_args(argv)
    results = read_results(args.results)
    examples = gallery(parse_images(args.images), results.models, args.prompts, args.manifest)
    context = _context(args, results)
    # The report shows radiographs of the cohort.
    with whole_file(args.output, owner_only=True) as temporary:
        temporary.write_text(_page(context, results, examples), encoding="utf-8")
    if args.public:
        write_text(args.public, _page(context, results, None))
    log.info("report of %d models in %s", len(results.models), args.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--results", required=True, help="tables.json, as tables.build wrote it")
    add("--manifest", required=True, help="manifest of the cohort (Parquet)")
    add("--prompts", required=True, help="test prompt set (Parquet)")
    for flag, what in (
        ("--images", "image shards of the test prompt set"),
        ("--stress-images", "image shards of the stress set"),
        ("--stress-scores", "images' scores of the stress set"),
    ):
        add(flag, nargs="*", action="extend", default=[], metavar="MODEL=FILE", help=what)
    add("--tables", required=True, help="folder that tables.build wrote")
    add("--jobs", help="attempts of every job (CSV), as costs.build wrote them")
    add("--config", help="the run's config (JSON): to compare planned and actual hours")
    add("--figures", help="folder that tables.build_figures wrote")
    add("--audit", help="audit of the paper (JSON); without it, its page is left out")
    add("--output", required=True, help="HTML file to write")
    add("--public", help="HTML file to write without images, to be published")
    return parser


def _context(args: argparse.Namespace, results: Results) -> dict[str, Any]:
    """Return the values that both reports show, by their names in the template."""
    models, tables = results.models, results.tables
    costs = cost_section(args.jobs, args.tables, models, results.dataset) if args.jobs else None
    on_page = by_page(table.layout for table in tables.values())
    glance = at_a_glance(tables, models)
    audit = read_audit(args.audit) if args.audit else None
    has_plan = args.config and args.jobs
    plan = _plan(args.config, args.jobs, args.prompts, results) if has_plan else None
    cost = costs["sentence"] if costs else None
    figures = figures_by_page(args.figures) if args.figures else {}
    keys = (OVERVIEW, *(page.key for page in PAGES))
    contrasts = shown_contrasts(
        {key: files[-1] for key, files in parse_images(args.stress_scores).items()},
        parse_images(args.stress_images, "--stress-images"),
        models,
    )
    return {
        "contrasts": contrasts,
        "dataset": results.dataset,
        "protocol": results.protocol,
        "confidential": results.dataset == PAPER_DATASET,  # applies to a report with images
        "models": [model for model in models if not model.is_control],
        "controls": [model for model in models if model.is_control],
        "cohort": results.cohort,
        "findings": FINDINGS,
        "attrition": results.attrition,
        "answers": answers(tables, glance, models, cost),
        "headlines": headlines(tables, results.reid_threshold),
        "glance": glance,
        "on_page": {
            page: [
                {"table": tables[layout.stem], "files": _downloads(args.tables, layout.stem)}
                for layout in on_page.get(page, [])
            ]
            for page in keys
        },
        "figures_on": {page: figures.get(page, []) for page in keys},
        "figure_links": {
            page: [(f"figure-{f.number}", f"Figure {f.number}") for f in figures.get(page, [])]
            for page in keys
        },
        "matrices": {PAIRED.stem: results.matrices},
        "lenses": lens_sentences(tables["table03e_lenses"], models),
        "extracted": extraction_sentences(tables["table23_extraction"], models),
        "attacker": attacker_sentence(tables["table03c_attacker"]),
        "membership": membership_sentence(tables["table22_membership"]),
        "gains": gain_plots(tables),
        "downstream_note": DOWNSTREAM_NOTE,
        "foretells": correlation_sentence(tables["table10b_rank_correlations"]),
        "costs": costs,
        "plan": plan,
        "dashes": _dashes(tables, models),
        "provenance": results.origins,
        "audit": audit,
        "verdicts": audit["verdicts"] if audit else [],
        "plot": dot_plot,
        "card_keys": {model.key for model in models},
    }


def _page(context: dict[str, Any], results: Results, examples: Gallery | None) -> str:
    """Render the report, with example images or, if `examples` is None, without."""
    models, tables, costs = results.models, results.tables, context["costs"]
    hidden = {"images"} if examples is None else set()
    hidden |= {"audit"} if context["audit"] is None else set()
    pages = [page for page in PAGES if page.key not in hidden]
    cost_rows = costs["entry"]["table"] if costs else None
    sections = (OVERVIEW_PAGE, *pages)
    further = {
        "gallery": examples,
        "site_pages": pages,
        "navigation": navigation(pages, models),
        "cards": model_cards(tables, context["glance"], models, examples, cost_rows, sections),
    }
    return render("report.html.j2", context | further)


def at_a_glance(tables: dict[str, Table], models: Sequence[ModelEntry]) -> Table:
    """Return a table with one metric for each question, and a row for real data and each model.

    Args:
        tables: all, by stem.
        models: in the order of the rows.
    """
    sources = [tables[stem] for stem, _, _ in _GLANCE]
    columns = tuple(
        replace(
            next(c for c in table.layout.columns if (c.metric, c.subset) == (metric, "all")),
            header=header,
        )
        for table, (_, metric, header) in zip(sources, _GLANCE, strict=True)
    )
    layout = replace(sources[0].layout, stem="at_a_glance", attributes=(), columns=columns)
    names = [(REAL, "Real data alone", "real")]
    names += [(model.key, model.name, model.kind) for model in controls_last(models)]
    by_key = {model.key: model for model in models}
    rows = []
    for key, label, kind in names:
        cells = []
        for table, column, (_, metric, _) in zip(sources, columns, _GLANCE, strict=True):
            cells_of_row = [
                cell
                for row in table.rows
                if row.key == key
                for cell in row.cells
                if cell.is_overall(metric)
            ]
            why = "real data is the reference of this measure, so it has no value of its own"
            if key in by_key:
                why = by_key[key].why_missing(table.layout.stage)
            cell = cells_of_row[0] if cells_of_row else Cell(column, None, reason=why)
            cells.append(replace(cell, column=column, published=None, difference=None))
        rows.append(Row(key, label, kind, (), tuple(cells)))
    with_notes, notes = noted([row for row in rows if row.kind != "real" or row.has_value])
    return Table(layout, tuple(with_notes), (), "", tuple(notes))


_GLANCE: Final = (
    ("table01_fidelity", "fid", "Fidelity: FID ↓"),
    ("table03_privacy", "reid_mean_of_max", "Privacy: re-ID score ↓"),
    ("table04_classification_augmented", "auroc", "Classification: AUROC ↑"),
    ("table05_segmentation", "dice", "Segmentation: Dice ↑"),
    ("table06_rrg_augmented", "chexbert_micro_f1_14", "Reports: micro F1 ↑"),
    ("table18_findings", "judged_share", "Findings asked for: share of the ceiling ↑"),
)
"""For each question: a table, one of its metrics, and the header of its column here."""


def cost_section(
    jobs: str | Path, folder: str | Path, models: Sequence[ModelEntry], dataset: str
) -> dict[str, Any]:
    """Return the report's section on cost: a sentence and the table.

    Args:
        jobs: CSV of attempts.
        folder: the folder of the tables.
        models: in the order of the rows.
        dataset: the data's name.

    Raises:
        InputError: the attempts or the table's files are not there.
    """
    attempts = read_attempts(jobs)
    table = cost_table(attempts, models, dataset)
    return {
        "sentence": cost_sentence(table, attempts),
        "entry": {"table": table, "files": _downloads(folder, COSTS.stem)},
    }


def _plan(config: str, jobs: str, prompts: str, results: Results) -> PlanSection:
    """Return planned and actual GPU-hours of the run.

    Args:
        config: the run's config, as JSON.
        jobs: CSV of attempts.
        prompts: the test prompt set.
        results: the results of the run.

    Raises:
        InputError: the config is not JSON, or a file cannot be read.
    """
    try:
        settings = json.loads(config)
    except ValueError as error:
        raise InputError(f"not JSON: {error}", "--config") from None
    attempts = read_attempts(jobs)
    n_prompts = len(read_prompts(prompts))
    return plan_section(settings, results.cohort, n_prompts, attempts, results.models, read_rates())


def gain_plots(tables: dict[str, Table]) -> list[dict[str, Any]]:
    """Return the gains of each downstream task: a sentence and a dot plot."""
    plots = []
    for gain in GAINS:
        table = tables[gain.stem]
        title = f"{gain.task}: gain in {gain.name}"
        plot = dot_plot.dot_plot(table, gain.metric, "all", title)
        sentence = gain_sentence(table, gain)
        if plot is not None and sentence is not None:
            plots.append({"task": gain.task, "sentence": sentence, "plot": plot})
    return plots


def headlines(tables: dict[str, Table], threshold: float | None) -> list[dict[str, Any]]:
    """Return the overview's statements: title, page with details, sentence and dot plot.

    Args:
        tables: all, by stem.
        threshold: δ of the re-identification score; None if it is not known.
    """
    fidelity, privacy = tables["table01_fidelity"], tables["table03_privacy"]
    utility = tables["table04_classification_augmented"]
    gains = tables["table04b_classification_gains"]
    plot = dot_plot.dot_plot
    return [
        {
            "title": "Fidelity",
            "page": "fidelity",
            "sentence": _fidelity_sentence(fidelity),
            "plot": plot(fidelity, "fid", "all", "FID (RAD-DINO)"),
        },
        {
            "title": "Privacy",
            "page": "privacy",
            "sentence": _privacy_sentence(privacy, threshold),
            "plot": plot(privacy, "reid_mean_of_max", "all", "Average re-identification score"),
        },
        {
            "title": "Utility",
            "page": "classification",
            "sentence": _utility_sentence(utility, gains),
            "plot": plot(utility, "auroc", "all", "Mean AUROC, real + synthetic"),
        },
    ]


def _fidelity_sentence(table: Table) -> str:
    ranked = _by_value(table, "fid", "model")
    if not ranked:
        return "No model has an FID; the notes of Table 1 say why."
    row, cell = ranked[0]
    subject = "has the lowest FID" if len(ranked) > 1 else "has an FID of"
    text = f"{row.label} {subject}{',' if len(ranked) > 1 else ''} {_with_bounds(cell)}."
    controls = _by_value(table, "fid", "control")
    if controls:
        listed = "; ".join(f"{control.label} {cell.text}" for control, cell in controls)
        text += f" For scale: {listed}."
    return text


def _privacy_sentence(table: Table, threshold: float | None) -> str:
    ranked = _by_value(table, "reid_mean_of_max", "model")
    if not ranked:
        return "No model has a re-identification score; the notes of Table 3 say why."
    row, cell = ranked[-1]
    count = next(cell for cell in row.cells if cell.column.metric == "reid_count")
    subject = "has the highest average score," if len(ranked) > 1 else "has an average score of"
    text = f"{row.label} {subject} {_with_bounds(cell)}."
    if count.value is not None:
        verb = "exceeds" if count.value == 1 else "exceed"
        text += f" {count.text} of its {count.n:,} prompts {verb} the threshold δ"
        text += "." if threshold is None else f" = {threshold:g}."
    return text


def _utility_sentence(table: Table, gains: Table) -> str:
    ranked = _by_value(table, "auroc", "model")
    if not ranked:
        return "No model has a mean AUROC; the notes of Table 4 say why."
    row, cell = ranked[0]
    real = _by_value(table, "auroc", "real")
    text = f"Training on real images and those of {row.label} gives a mean AUROC of "
    if not real:
        return f"{text}{_with_bounds(cell)}."
    text += f"{cell.text}; real images alone give {real[0][1].text}."
    gain = next((c for r, c in _by_value(gains, "auroc_gain", "model") if r.key == row.key), None)
    if gain is None or gain.interval is None or gain.bounds is None:
        return text
    text += f" The difference is {gain.text} ({gain.bounds[0]} to {gain.bounds[1]})"
    if gain.p is None:
        return text + ". With one training run it cannot be told from the noise of the seed."
    if not gain.beyond_noise:
        return text + ", which is within noise."
    return text + "."


def _by_value(table: Table, metric: str, kind: str) -> list[tuple[Row, Cell]]:
    """Return the rows of a kind that have the metric's overall value, the best first."""
    pairs = table.values(metric, kind)
    sign = -1 if pairs and pairs[0][1].column.direction == "higher" else 1
    return sorted(pairs, key=lambda pair: sign * (pair[1].value or 0.0))


def _with_bounds(cell: Cell) -> str:
    return cell.text + (f" ({cell.bounds[0]} to {cell.bounds[1]})" if cell.bounds else "")


def _dashes(tables: dict[str, Table], models: Sequence[ModelEntry]) -> list[dict[str, str]]:
    """Return every missing value: table, rows, columns and reason.

    Rows of a table that lack the same values for the same reason share an entry.
    """
    order = {model.key: i for i, model in enumerate(models)}
    dashes = []
    for table in tables.values():
        rows_by_lack: dict[tuple[str, str], list[str]] = {}
        for row in sorted(table.rows, key=lambda row: order.get(row.key, -1)):
            by_reason: dict[str, list[str]] = {}
            for cell in row.cells:
                if cell.reason is not None:
                    by_reason.setdefault(cell.reason, []).append(_full_name(cell.column))
            for reason, names in by_reason.items():
                columns = "all" if len(names) == len(row.cells) else "; ".join(names)
                rows_by_lack.setdefault((columns, reason), []).append(row.label)
        for (columns, reason), labels in rows_by_lack.items():
            every = len(labels) == len(table.rows) > 1
            dashes.append(
                {
                    "table": str(table.layout.number),
                    "rows": "all" if every else "; ".join(labels),
                    "columns": columns,
                    "reason": reason,
                }
            )
    return dashes


def _full_name(column: Column) -> str:
    """Return a column's name where no caption explains the abbreviation of its finding."""
    return column.subset if column.subset in FINDINGS else column.header


def _downloads(folder: str | Path, stem: str) -> list[tuple[str, str, str]]:
    """Return (file name, suffix, data URI) of a table's files, which the report embeds."""
    downloads = []
    for suffix, kind in _TYPES.items():
        path = Path(folder) / f"{stem}.{suffix}"
        try:
            data = base64.b64encode(path.read_bytes()).decode()
        except OSError as error:
            raise unreadable(
                "cannot read a table", error, path, "run workflow_scripts.tables.build first"
            ) from None
        downloads.append((path.name, suffix, f"data:{kind};charset=utf-8;base64,{data}"))
    return downloads


if __name__ == "__main__":
    run_script(main)
