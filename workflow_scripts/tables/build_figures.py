"""Write the figures as SVG and PDF, a list of them, and the data of two of them as CSV.

python -m workflow_scripts.tables.build_figures --results results/tables/tables.json
    --measurements results/tables/measurements.parquet --manifest results/cohort/manifest.parquet
    --prompts llava_rad=results/cohort/prompts/test.parquet
    --test-prompts results/cohort/prompts/test.parquet
    --images sd_v1_4=results/generate/sd_v1_4/test/part-00000-of-00008.parquet
    --scores sd_v1_4=results/privacy/sd_v1_4_pairs.parquet
    --pairs sd_v1_4=results/privacy/closest/sd_v1_4_pairs.parquet
    --privacy-images sd_v1_4=results/generate/sd_v1_4/privacy/part-00000-of-00008.parquet
    --tokenizers '{"sd_v1_4": {"family": "stable_diffusion", "base": "...", "parts": {}}}'
    --rules '[{"name": "cohort_manifest", "jobs": 1, "inputs": []}]'
    --jobs results/costs/jobs.csv --out results/tables

A figure without values says so in its place. `figures.json` has each figure's title, its caption,
and whether it shows patients; figures that do are readable by their owner only.
"""

import argparse
import contextlib
import functools
import json
import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import pandas as pd

from workflow_scripts.common.csv_cells import safe_frame
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import write_text
from workflow_scripts.common.measurement import read_measurements
from workflow_scripts.costs.attempts import read_attempts
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.text_encoders import TextEncoder
from workflow_scripts.finetune.layout import Base
from workflow_scripts.privacy.private_table import read_private_table
from workflow_scripts.privacy.score import PAIR_SCHEMA
from workflow_scripts.tables.caption_lengths import (
    caption_sets,
    histogram,
    lengths_of,
    not_counted,
    shares_cut,
)
from workflow_scripts.tables.costs import cost_table
from workflow_scripts.tables.derive.prevalence import floor_of, measure, positives
from workflow_scripts.tables.examples import gallery, parse_images
from workflow_scripts.tables.figure_list import FIGURES, INLINE, LIST, FigureEntry
from workflow_scripts.tables.figures.attacks import draw_attacks
from workflow_scripts.tables.figures.bars import draw_costs
from workflow_scripts.tables.figures.captions import draw_caption_lengths
from workflow_scripts.tables.figures.findings import draw_per_pathology, draw_prevalence
from workflow_scripts.tables.figures.images import (
    PAIRS,
    draw_examples,
    draw_riskiest,
    ends_by_fid,
)
from workflow_scripts.tables.figures.rows import draw_gains, draw_privacy, spread_table, spreads
from workflow_scripts.tables.figures.style import (
    Drawing,
    Styles,
    inline_svg,
    no_figure,
    styles_by_key,
    write_figure,
)
from workflow_scripts.tables.figures.trade_offs import (
    draw_fidelity_utility,
    draw_pareto,
    draw_texture_topology,
)
from workflow_scripts.tables.figures.workflow import draw_workflow
from workflow_scripts.tables.models import CAPTION_SOURCES, ModelEntry
from workflow_scripts.tables.results import Results, read_results
from workflow_scripts.tables.riskiest import every_model
from workflow_scripts.tables.rule_graph import parse_nodes

log = logging.getLogger(__name__)
_Made = TypeVar("_Made")

LENGTHS: Final = "figure03_caption_lengths.csv"
CUT: Final = "figure03_captions_cut.csv"
SPREADS: Final = "figure07_privacy_distributions.csv"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    words = tuple(sys.argv[1:] if argv is None else argv)
    args = _parse(words)
    _drawn.cache_clear()
    with _mapped(functools.partial(_make, words), args.threads) as made:
        listed, inline = [], {}
        for entry, (told, svg) in zip(FIGURES, made, strict=True):
            listed.append(told)
            if svg is not None:
                inline[entry.stem] = svg
    for name, content in ((LIST, listed), (INLINE, inline)):
        write_text(args.out / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    log.info("%d figures in %s", len(listed), args.out)


@contextlib.contextmanager
def _mapped(make: Callable[[FigureEntry], _Made], threads: int) -> Iterator[Iterator[_Made]]:
    """Yield what is made of each figure, in turn, in so many processes.

    They are forked before anything is read: a fork has none of the threads of pyarrow and of
    tokenizers.
    """
    if threads == 1:
        yield map(make, FIGURES)
        return
    with multiprocessing.get_context("fork").Pool(threads) as pool:
        yield pool.imap(make, FIGURES)
        pool.close()
        pool.join()


def _make(words: tuple[str, ...], entry: FigureEntry) -> tuple[dict[str, Any], str | None]:
    """Write a figure; return what the list says of it, and its SVG in the report, if any."""
    drawing = _drawn(words)[entry.stem]()
    told = _write(entry, drawing, _parse(words).out)
    shown = drawing is not None and not entry.owner_only
    return told, inline_svg(drawing) if shown and drawing else None


@functools.cache  # a process that makes several figures reads once
def _drawn(words: tuple[str, ...]) -> dict[str, Callable[[], Drawing | None]]:
    """Read the results that a command line names; return how each figure is drawn."""
    args = _parse(words)
    results = read_results(args.results)
    measurements = read_measurements(args.measurements, results.protocol)
    models, tables = results.models, results.tables
    styles = styles_by_key(models)
    return {
        "figure01_workflow": lambda: draw_workflow(parse_nodes(args.rules)),
        "figure02_real_and_synthetic": lambda: _examples(args, results),
        "figure03_caption_lengths": lambda: _captions(args, models),
        "figure04_fid_per_pathology": lambda: draw_per_pathology(
            tables["table02_fid_per_pathology"], results.cohort, "FID"
        ),
        "figure05_kid_per_pathology": lambda: draw_per_pathology(
            tables["table02b_kid_per_pathology"], results.cohort, "KID"
        ),
        "figure06_prevalence": lambda: draw_prevalence(
            measure(measurements, models),
            floor_of(measurements, models),
            positives(results.cohort),
            styles,
        ),
        "figure07_privacy_distributions": lambda: _privacy(args, results, styles),
        "figure08_riskiest_pairs": lambda: _riskiest(args, models),
        "figure09_downstream_gains": lambda: draw_gains(tables, models, styles),
        "figure10_fidelity_and_utility": lambda: draw_fidelity_utility(tables, models, styles),
        "figure11_fidelity_privacy_utility": lambda: draw_pareto(
            results.standings, tables["table08c_pareto"].layout.columns, styles
        ),
        "figure12_costs": lambda: draw_costs(
            cost_table(read_attempts(args.jobs), models, results.dataset)
        ),
        "figure13_texture_topology": lambda: draw_texture_topology(tables, models, styles),
        "figure14_fidelity_and_attacks": lambda: draw_attacks(tables, models, styles),
    }


def _write(entry: FigureEntry, drawing: Drawing | None, folder: Path) -> dict[str, Any]:
    """Write a figure, or the reason why there is none, and return its entry of the list."""
    drawn = drawing or no_figure(entry.stem, entry.title, entry.missing)
    written = write_figure(drawn, folder / entry.stem, entry.owner_only)
    return {
        "number": entry.number,
        "stem": entry.stem,
        "title": drawn.title,
        "caption": drawn.caption,
        "drawn": drawing is not None,
        "owner_only": entry.owner_only,
        "files": [path.name for path in written],
        "data": list(entry.data),
    }


def _examples(args: argparse.Namespace, results: Results) -> Drawing | None:
    files = parse_images(args.images)
    table = results.tables["table01_fidelity"]
    chosen = ends_by_fid(table, [model for model in results.models if model.key in files])
    files_of_chosen = {model.key: files[model.key] for model in chosen}
    return draw_examples(gallery(files_of_chosen, chosen, args.test_prompts, args.manifest), table)


def _captions(args: argparse.Namespace, models: Sequence[ModelEntry]) -> Drawing | None:
    sets = caption_sets(parse_images(args.prompts, "--prompts"))
    encoders = parse_tokenizers(args.tokenizers)
    counted = lengths_of(sets, encoders)
    write_text(args.out / LENGTHS, safe_frame(histogram(counted, sets)).to_csv(index=False))
    write_text(args.out / CUT, safe_frame(shares_cut(counted, sets)).to_csv(index=False))
    names = {model.key: model.name for model in models}
    return draw_caption_lengths(counted, sets, names, CAPTION_SOURCES, not_counted(encoders))


def _privacy(args: argparse.Namespace, results: Results, styles: Styles) -> Drawing | None:
    scores = dict(_scores(args.scores, results.models))
    distributions = spreads(scores)
    write_text(args.out / SPREADS, safe_frame(spread_table(distributions)).to_csv(index=False))
    return draw_privacy(distributions, results.models, styles, results.reid_threshold)


def _scores(
    pairs: Sequence[str], models: Sequence[ModelEntry]
) -> Iterator[tuple[str, pd.DataFrame]]:
    files = parse_images(pairs, "--scores")
    unknown = sorted(set(files) - {model.key for model in models})
    if unknown:
        raise InputError(f"scores of unknown model(s): {', '.join(unknown)}", "--scores")
    for model in models:
        for path in files.get(model.key, []):
            yield model.key, read_private_table(path, PAIR_SCHEMA)


def _riskiest(args: argparse.Namespace, models: Sequence[ModelEntry]) -> Drawing | None:
    pairs = parse_images(args.pairs, "--pairs")
    shards = parse_images(args.privacy_images, "--privacy-images")
    pairs_by_model = [
        (model, shown)
        for model, shown, _ in every_model(pairs, shards, models, args.manifest, PAIRS)
    ]
    return draw_riskiest(pairs_by_model)


def parse_tokenizers(text: str) -> dict[str, list[TextEncoder]]:
    """Parse `--tokenizers` and return the text encoders of each model, as its family names them.

    Raises:
        InputError: it is not an object of models with `family` and `base`, or a family is unknown.
    """
    try:
        entries: Mapping[str, Any] = json.loads(text)
        bases = {
            model: Base(
                Path(entry["base"]),
                {name: Path(folder) for name, folder in entry.get("parts", {}).items()},
            )
            for model, entry in entries.items()
        }
        families = {model: str(entry["family"]) for model, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"not an object of models with `family` and `base`: {error!r}", "--tokenizers"
        ) from None
    return {model: get_family(families[model]).text_encoders(base) for model, base in bases.items()}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--results", required=True, help="tables.json, as tables.build wrote it")
    add("--measurements", required=True, help="measurements.parquet, likewise")
    add("--manifest", required=True, help="manifest of the cohort (Parquet)")
    for flag, value, what in (
        ("--prompts", "SOURCE=FILE", "prompt sets of every caption source"),
        ("--images", "MODEL=FILE", "image shards of the test prompt set"),
        ("--scores", "MODEL=FILE", "privacy scores of each pair"),
        ("--pairs", "MODEL=FILE", "closest training images"),
        ("--privacy-images", "MODEL=FILE", "image shards of the privacy prompt set"),
    ):
        add(flag, nargs="*", action="extend", default=[], metavar=value, help=what)
    add("--test-prompts", required=True, help="test prompt set of the cohort's own captions")
    add("--tokenizers", default="{}", help="JSON: family, base and parts of each model")
    add("--rules", required=True, help="JSON: the rules, see rule_graph")
    add("--jobs", required=True, help="attempts of every job (CSV)")
    add("--out", required=True, type=Path, help="folder of the figures")
    add("--threads", type=int, default=1, help="processes that draw")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
