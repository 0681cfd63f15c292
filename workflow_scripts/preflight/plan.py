"""Print the GPU-hours of a config's run before anything runs: `make plan`.

    python -m workflow_scripts.preflight.plan
    python -m workflow_scripts.preflight.plan --config config.yaml profiles/demo/overlay.yaml
    python -m workflow_scripts.preflight.plan --curate sana
    python -m workflow_scripts.preflight.plan --gpu H200 --csv plan.csv --json plan.json

The plan gives GPU-hours, and hours on 1, 4 and 8 GPUs, by model and stage. Each follows from a
measured rate, which is listed with its date and file. Rates that are missing are listed with the
command that measures them, and work that needs them has no hours. The plan needs neither Snakemake
nor a cohort nor any weights.
"""

import argparse
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from workflow_scripts.cohort.drawn_prompts import DRAWN
from workflow_scripts.common.config import validate_config
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import write_text
from workflow_scripts.preflight.check import read_config
from workflow_scripts.preflight.cost_model import (
    GPUS,
    NOT_PLANNED,
    SHARED,
    Cohort,
    Estimate,
    choose_kind,
    cohort_of,
    curated_in,
    draws_pool,
    estimate,
    expected_cohort,
    measured_as,
    prompts_of,
    works,
)
from workflow_scripts.preflight.made_from import MANIFEST, cohort_is_of
from workflow_scripts.preflight.needs import (
    GB,
    PUBLISHED,
    checkpoint_bytes,
    encoded_bytes,
    image_bytes,
    images_of,
)
from workflow_scripts.preflight.rates import FOLDERS, PARTS, Rate, read_rates

MISSING: Final = "missing"
UNKNOWN: Final = "not known"

UNMEASURED: Final[Mapping[str, str]] = {
    "read:radgraph": "nothing: gpu-check lacks its package, which `make reports` installs",
    "read:ratescore": "nothing: gpu-check lacks its package, which `make reports` installs",
}
"""The rates that gpu-check does not measure: for each, the command that does, or why none does."""

COLUMNS: Final = (
    "model", "stage", "what", "count", "unit", "gpu_hours", *(f"hours_{n}_gpus" for n in GPUS),
    "bound_gpu_hours",
    "rate", "rate_unit", "gpu", "date", "torch", "source", "missing", "measured_otherwise",
)  # fmt: skip


def how_to_measure(part: str) -> str:
    """Return the command that measures a rate, or why there is none."""
    if part in PARTS:
        return f'make gpu-check GPU_CHECK="{part}"'
    return UNMEASURED.get(part, "nothing: gpu-check measures only the networks of config.yaml")


def missing_rates(estimates: Iterable[Estimate]) -> list[tuple[str, str, str, str, str]]:
    """Return each missing rate once.

    Returns:
        For each rate: the part of gpu-check, the name of the value, the settings, how to measure
        it, and the nearest rate with other settings ("" if none).
    """
    missing = {}
    for entry in estimates:
        if entry.rate is None:
            work = entry.work
            part = work.parts[0]
            near = (
                f"{entry.near}, measured with: {entry.near.note.split('; ')[0]}"
                if entry.near
                else ""
            )
            key = (part, work.name, work.settings)
            missing[key] = (*key, how_to_measure(part), near)
    return list(missing.values())


def rows_of(estimates: Iterable[Estimate]) -> list[dict[str, Any]]:
    """Return a row of `COLUMNS` for each piece of work, with None for what is not known."""
    rows = []
    for entry in estimates:
        work, rate = entry.work, entry.rate
        why = None if entry.gpu_hours is not None else UNKNOWN
        if rate is None:
            why = f"{MISSING}: {work.parts[0]}, {work.name} ({work.settings})"
        rows.append(
            dict(
                zip(
                    COLUMNS,
                    (
                        work.model, work.stage, work.what, work.count, work.unit, entry.gpu_hours,
                        *(entry.hours.get(n) for n in GPUS),
                        entry.bound,
                        *((rate.value, rate.unit, rate.kind, rate.date, rate.torch, rate.file)
                          if rate else (None,) * 6),
                        why, str(entry.near) if entry.near else None,
                    ),
                    strict=True,
                )
            )
        )  # fmt: skip
    return rows


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return stream.getvalue()


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def disk(
    config: Mapping[str, Any], cohort: Cohort, curated: Sequence[str] = ()
) -> list[tuple[str, float | None, float, float]]:
    """Return the GB that each model writes to the disk, see preflight/needs.py.

    Args:
        config: the validated config.
        cohort: the numbers of images.
        curated: models for which a set is curated and a pool may be sampled.

    Returns:
        For each model: its key, encoded images (None if not known; those that models share count
        for each), progress and weights of training, and sampled images.
    """
    rows = []
    for key in config["run_models"]:
        block = config["models"][key]
        parts = PUBLISHED.get(key) or PUBLISHED.get(measured_as(block, key))
        sampled, tuned = block.get("generate"), block.get("finetune")
        if parts is None or not sampled:
            continue
        encoded, progress = 0.0, 0.0
        known = cohort.training is not None
        if tuned:
            scale = (tuned["size"] / 512) ** 2
            encoded = scale * encoded_bytes(parts.encoded, cohort.training or 0) / GB
            rank = tuned.get("lora", {}).get("rank", 32)
            lora = tuned["method"] == "lora"
            trained = parts.lora * rank / 32 if lora else parts.network
            progress = checkpoint_bytes(1e6 * trained, tuned) / GB
        number = images_of(config, key, cohort.test_prompts or 0)
        if key in curated and draws_pool(config, key):
            number += prompts_of(config, DRAWN, None) or 0
        images = image_bytes(sampled["size"], number) / GB
        rows.append((key, encoded if known or not tuned else None, progress, images))
    return rows


def text(
    config: Mapping[str, Any],
    cohort: Cohort,
    kind: str,
    estimates: Sequence[Estimate],
    curated: Sequence[str] = (),
) -> str:
    """Return the plan as text for readers; `curated`: models for which a set is curated."""
    training = UNKNOWN if cohort.training is None else f"{cohort.training:,}"
    tests = UNKNOWN if cohort.test_prompts is None else f"{cohort.test_prompts:,}"
    sources = list(dict.fromkeys(entry.rate for entry in estimates if entry.rate))
    lines = [
        f"GPU-hours of the run on the {kind}: measured rates times the counts of the config.",
        f"Captioned training images: {training}; test prompts: {tests} ({cohort.source}).",
        f"Left out: {NOT_PLANNED}.",
        "",
        *_table(_groups(estimates), sources),
        "",
        "* Not an estimate: the fewest GPU-hours that work without a rate can take. The network's",
        "  operations alone run at the bf16 peak of the GPU's data sheet; real rates are lower.",
        "",
        *_totals(estimates),
        "",
        "Rates, measured:",
        *(f"  [{i}] {rate.part}, {rate.name}: {rate}" for i, rate in enumerate(sources, 1)),
        *([] if sources else ["  none with these settings"]),
    ]
    if missing := missing_rates(estimates):
        lines += ["", f"Rates that are missing on {kind}: {len(missing)}"]
        for part, name, settings, command, near in missing:
            lines.append(f"  {part}, {name} ({settings})")
            lines.append(f"      measured by: {command}")
            if near:
                lines.append(f"      not used: {near}")
    if on_disk := disk(config, cohort, curated):
        lines += ["", "Disk in GB, estimates (docs/needs.md): encoded images, progress, images"]
        for key, encoded, progress, images in on_disk:
            size = UNKNOWN if encoded is None else f"{encoded:.1f}"
            lines.append(f"  {key:<28} {size:>9} {progress:>8.1f} {images:>8.1f}")
    return "\n".join(lines) + "\n"


def _groups(estimates: Sequence[Estimate]) -> list[tuple[str, str, list[Estimate]]]:
    """Return (model, stage, work) in order of appearance, with shared work last."""
    groups: dict[tuple[str, str], list[Estimate]] = {}
    for entry in sorted(estimates, key=lambda entry: entry.work.model == SHARED):
        groups.setdefault((entry.work.model, entry.work.stage), []).append(entry)
    models = list(dict.fromkeys(model for model, _ in groups))
    ordered = sorted(groups, key=lambda key: models.index(key[0]))
    return [(*key, groups[key]) for key in ordered]


def _table(groups: Sequence[tuple[str, str, list[Estimate]]], sources: Sequence[Rate]) -> list[str]:
    head = ["model", "stage", "work", "GPU-hours", *(f"on {n}" for n in GPUS), "bound*", "rate"]
    rows = [head]
    for model, stage, group in groups:
        known = [entry for entry in group if entry.gpu_hours is not None]
        hours = [_sum(known, group, n) for n in (None, *GPUS)]
        rows.append([model, stage, _work(group), *hours, _bound(group), _rates(group, sources)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    right = range(3, 5 + len(GPUS))
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _sum(known: Sequence[Estimate], group: Sequence[Estimate], gpus: int | None) -> str:
    """Return the sum over a group as text; an incomplete sum begins with `>`."""
    values = [entry.gpu_hours if gpus is None else entry.hours[gpus] for entry in known]
    values_known = [value for value in values if value is not None]
    if not values_known:
        return "-"
    total = sum(values_known)
    text = f"{total:.1f}" if total >= 0.1 else f"{total:.1g}"
    return f"{'>' if len(values_known) < len(group) else ''}{text}"


def _bound(group: Sequence[Estimate]) -> str:
    """Return the lower bound of GPU-hours of work without a rate, as far as it is known."""
    bounds = [entry.bound for entry in group if entry.rate is None and entry.bound is not None]
    return f"{sum(bounds):.1f}" if bounds else "-"


def _work(group: Sequence[Estimate]) -> str:
    counts: dict[str, float] = {}
    for entry in group:
        counts[entry.work.unit] = counts.get(entry.work.unit, 0) + (entry.work.count or 0)
    counted = ", ".join(f"{count:,.0f} {unit}" for unit, count in counts.items() if count)
    more = f" ({UNKNOWN} for all)" if any(entry.work.count is None for entry in group) else ""
    return (counted or UNKNOWN) + (more if counted else "")


def _rates(group: Sequence[Estimate], sources: Sequence[Rate]) -> str:
    """Return the indices of a group's rates in the list of rates, and the count of missing ones."""
    numbers = dict.fromkeys(f"[{sources.index(entry.rate) + 1}]" for entry in group if entry.rate)
    lacking = len({(entry.work.parts, entry.work.name) for entry in group if entry.rate is None})
    return " ".join([*numbers, *([f"{lacking} {MISSING}"] if lacking else [])])


def total_hours(estimates: Sequence[Estimate], gpus: int) -> float:
    """Return the hours of work with a rate on a number of GPUs that are always busy.

    They are no fewer than those of the longest piece, because a piece can use only some GPUs.
    """
    known = [entry for entry in estimates if entry.gpu_hours is not None]
    longest = max((entry.hours.get(gpus) or 0 for entry in known), default=0)
    return max(sum(entry.gpu_hours or 0 for entry in known) / gpus, longest)


def _totals(estimates: Sequence[Estimate]) -> list[str]:
    lines = []
    for stage in [*dict.fromkeys(entry.work.stage for entry in estimates), None]:
        group = [entry for entry in estimates if stage in (None, entry.work.stage)]
        known = [entry.gpu_hours for entry in group if entry.gpu_hours is not None]
        lacking = len(group) - len(known)
        least = "/".join(f"{total_hours(group, n):.1f}" for n in GPUS)
        hours = f"{sum(known):.1f} GPU-hours, {least} hours on {'/'.join(map(str, GPUS))} GPUs"
        hours = hours if known else "no rate"
        more = f"; {lacking} of {len(group)} pieces of work without" if lacking else ""
        lines.append(f"{stage or 'all stages'}: {hours}{more}")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Print the plan, and write it to files if asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--config", nargs="+", default=["config.yaml"], help="later ones win")
    add("--gpu", help="kind of GPU: H200, H100, ...; by default the one with most rates")
    add("--rates", nargs="*", type=Path, default=list(FOLDERS), help="folders of rates")
    add("--results", type=Path, default=Path("results"), help="folder of the cohort, if it is made")
    add(
        "--curate",
        nargs="*",
        default=[],
        metavar="MODEL",
        help="models to curate a set for, besides curate.models",
    )
    add("--csv", type=Path, help="write a row for each piece of work")
    add("--json", type=Path, help="the same, with what is missing")
    add("--missing", type=Path, help="write the missing rates as a Markdown table")
    args = parser.parse_args(argv)
    config = read_config(args.config)
    validate_config(config)
    cohort = cohort_for(config, args.results)
    rates = read_rates(args.rates)
    planned = works(config, cohort, args.curate)
    kind = args.gpu or choose_kind(planned, rates)
    if kind is None:
        raise InputError(
            "no rate was ever measured", ", ".join(map(str, args.rates)), "run `make gpu-check`"
        )
    estimates = [estimate(work, rates, kind) for work in planned]
    rows = rows_of(estimates)
    if args.csv:
        write_text(args.csv, to_csv(rows))
    if args.json:
        missing = [
            dict(zip(("part", "name", "settings", "measured_by", "near"), rate, strict=True))
            for rate in missing_rates(estimates)
        ]
        totals = {
            stage: {f"hours_{n}_gpus": total_hours(group, n) for n in GPUS}
            for stage in [*dict.fromkeys(entry.work.stage for entry in estimates), "all stages"]
            for group in [[e for e in estimates if stage in ("all stages", e.work.stage)]]
        }
        content = {"gpu": kind, "totals": totals, "work": rows, "missing": missing}
        write_text(args.json, json.dumps(content, indent=1))
    if args.missing:
        write_text(args.missing, missing_page(kind, missing_rates(estimates)))
    print(text(config, cohort, kind, estimates, curated_in(config, args.curate)), end="")


def cohort_for(config: Mapping[str, Any], results: Path) -> Cohort:
    """Return the numbers of images of this config's cohort, or those expected before it is made."""
    if cohort_is_of(config, results):
        return cohort_of(config, results)
    expected = expected_cohort(config)
    if not (results / MANIFEST).exists():
        return expected
    other = f"{expected.source}; {results / MANIFEST} belongs to another config"
    return replace(expected, source=other)


def missing_page(kind: str, missing: Sequence[tuple[str, str, str, str, str]]) -> str:
    """Return the missing rates as a Markdown table for the docs."""
    lines = [
        f"| missing on {kind} | settings | measured by | measured otherwise, not used |",
        "|---|---|---|---|",
    ]
    for part, name, settings, command, near in missing:
        measured_by = f"`{command}`" if command.startswith(("make", "python")) else command
        lines.append(f"| {part}: {name} | {settings} | {measured_by} | {near} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(main)
