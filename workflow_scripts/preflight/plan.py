"""Print what a config's run takes on GPUs, before anything runs: `make plan`.

    python -m workflow_scripts.preflight.plan
    python -m workflow_scripts.preflight.plan --config config.yaml profiles/demo/overlay.yaml
    python -m workflow_scripts.preflight.plan --gpu H200 --csv plan.csv --json plan.json

GPU-hours and hours on 1, 4 and 8 GPUs by model and stage, each from a measured rate whose date and
file stand beside it; rates that nobody has measured are named with the command that measures them,
and what needs them has no hours. Needs neither Snakemake, a cohort nor any weights.
"""

import argparse
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from workflow_scripts.cohort.stress_prompts import stress_size
from workflow_scripts.common.config import prompt_sets_of, validate_config
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
    estimate,
    measured_as,
    works,
)
from workflow_scripts.preflight.needs import (
    GB,
    PUBLISHED,
    checkpoint_bytes,
    encoded_bytes,
    image_bytes,
)
from workflow_scripts.preflight.rates import FOLDERS, PARTS, Rate, read_rates

MISSING: Final = "missing"
UNKNOWN: Final = "not known"

UNMEASURED: Final[Mapping[str, str]] = {
    "read:radgraph": "no part of gpu-check measures it: a package of `make reports`",
    "read:ratescore": "no part of gpu-check measures it: a package of `make reports`",
}
"""What measures a rate where gpu-check does not, or why nothing does."""

COLUMNS: Final = (
    "model", "stage", "what", "count", "unit", "gpu_hours", *(f"hours_{n}_gpus" for n in GPUS),
    "bound_gpu_hours",
    "rate", "rate_unit", "gpu", "date", "torch", "source", "missing", "measured_otherwise",
)  # fmt: skip


def how_to_measure(part: str) -> str:
    """Return the command that measures a rate, or why there is none."""
    if part in PARTS:
        return f'make gpu-check GPU_CHECK="{part}"'
    return UNMEASURED.get(part, "nothing: gpu-check has the networks of config.yaml alone")


def missing_rates(estimates: Iterable[Estimate]) -> list[tuple[str, str, str, str, str]]:
    """Return each missing rate once.

    Returns:
        Part of gpu-check, name of the value, settings, what measures it, and what there is instead.
    """
    found = {}
    for one in estimates:
        if one.rate is None:
            work = one.work
            part = work.parts[0]
            near = f"{one.near}, measured with: {one.near.note.split('; ')[0]}" if one.near else ""
            key = (part, work.name, work.settings)
            found[key] = (*key, how_to_measure(part), near)
    return list(found.values())


def rows_of(estimates: Iterable[Estimate]) -> list[dict[str, Any]]:
    """Return a row of `COLUMNS` for each piece of work; None where there is nothing."""
    rows = []
    for one in estimates:
        work, rate = one.work, one.rate
        why = None if one.gpu_hours is not None else UNKNOWN
        if rate is None:
            why = f"{MISSING}: {work.parts[0]}, {work.name} ({work.settings})"
        rows.append(
            dict(
                zip(
                    COLUMNS,
                    (
                        work.model, work.stage, work.what, work.count, work.unit, one.gpu_hours,
                        *(one.hours.get(n) for n in GPUS),
                        one.bound,
                        *((rate.value, rate.unit, rate.kind, rate.date, rate.torch, rate.file)
                          if rate else (None,) * 6),
                        why, str(one.near) if one.near else None,
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


def disk(config: Mapping[str, Any], cohort: Cohort) -> list[tuple[str, float | None, float, float]]:
    """Return GB that each model leaves on the disk, as preflight/needs.py estimates them.

    Returns:
        Model, encoded images (None where not known; those that models share stand with each),
        progress and weights of training, sampled images.
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
        images = image_bytes(sampled["size"], _images(config, cohort, key)) / GB
        rows.append((key, encoded if known or not tuned else None, progress, images))
    return rows


def _images(config: Mapping[str, Any], cohort: Cohort, key: str) -> int:
    sets = config["prompt_sets"]
    drawn = {
        "test": cohort.test_prompts or 0,
        "privacy": sets["privacy"]["captions"] * len(sets["privacy"]["seeds"]),
        "augment": sets["augment"]["captions"],
        "stress": stress_size(sets["stress"].get("groups")),
    }
    return sum(drawn[name] for name in prompt_sets_of(dict(config), key))


def text(
    config: Mapping[str, Any], cohort: Cohort, kind: str, estimates: Sequence[Estimate]
) -> str:
    """Return the plan for people."""
    training = UNKNOWN if cohort.training is None else f"{cohort.training:,}"
    tests = UNKNOWN if cohort.test_prompts is None else f"{cohort.test_prompts:,}"
    sources = list(dict.fromkeys(one.rate for one in estimates if one.rate))
    lines = [
        f"The run on GPUs of the kind {kind}: what was measured, times what there is to do.",
        f"Captioned training images: {training}; test prompts: {tests} ({cohort.source}).",
        f"Left out: {NOT_PLANNED}.",
        "",
        *_table(_groups(estimates), sources),
        "",
        "* No estimate: GPU-hours that work without a rate takes at least, the operations of the",
        "  network alone at the GPU's bf16 peak by its data sheet. Real rates are a part of that.",
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
    if on_disk := disk(config, cohort):
        lines += ["", "Disk in GB, estimates (docs/needs.md): encoded images, progress, images"]
        for key, encoded, progress, images in on_disk:
            shown = UNKNOWN if encoded is None else f"{encoded:.1f}"
            lines.append(f"  {key:<28} {shown:>9} {progress:>8.1f} {images:>8.1f}")
    return "\n".join(lines) + "\n"


def _groups(estimates: Sequence[Estimate]) -> list[tuple[str, str, list[Estimate]]]:
    """Return model, stage and its work, shared work last; in the order in which they come."""
    groups: dict[tuple[str, str], list[Estimate]] = {}
    for one in sorted(estimates, key=lambda one: one.work.model == SHARED):
        groups.setdefault((one.work.model, one.work.stage), []).append(one)
    models = list(dict.fromkeys(model for model, _ in groups))
    ordered = sorted(groups, key=lambda key: models.index(key[0]))
    return [(*key, groups[key]) for key in ordered]


def _table(groups: Sequence[tuple[str, str, list[Estimate]]], sources: Sequence[Rate]) -> list[str]:
    head = ["model", "stage", "work", "GPU-hours", *(f"on {n}" for n in GPUS), "bound*", "rate"]
    rows = [head]
    for model, stage, own in groups:
        known = [one for one in own if one.gpu_hours is not None]
        hours = [_sum(known, own, n) for n in (None, *GPUS)]
        rows.append([model, stage, _work(own), *hours, _bound(own), _rates(own, sources)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    right = range(3, 5 + len(GPUS))
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _sum(known: Sequence[Estimate], own: Sequence[Estimate], gpus: int | None) -> str:
    """Return the sum over a group; a sum that lacks a part says so."""
    values = [one.gpu_hours if gpus is None else one.hours[gpus] for one in known]
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    whole = sum(there)
    shown = f"{whole:.1f}" if whole >= 0.1 else f"{whole:.1g}"
    return f"{'>' if len(there) < len(own) else ''}{shown}"


def _bound(own: Sequence[Estimate]) -> str:
    """Return the least GPU-hours of the work without a rate, as far as its operations are known."""
    bounds = [one.bound for one in own if one.rate is None and one.bound is not None]
    return f"{sum(bounds):.1f}" if bounds else "-"


def _work(own: Sequence[Estimate]) -> str:
    counts: dict[str, float] = {}
    for one in own:
        counts[one.work.unit] = counts.get(one.work.unit, 0) + (one.work.count or 0)
    said = ", ".join(f"{count:,.0f} {unit}" for unit, count in counts.items() if count)
    more = f" ({UNKNOWN} for all)" if any(one.work.count is None for one in own) else ""
    return (said or UNKNOWN) + (more if said else "")


def _rates(own: Sequence[Estimate], sources: Sequence[Rate]) -> str:
    """Return the numbers of a group's rates in the list of them, and how many are missing."""
    there = dict.fromkeys(f"[{sources.index(one.rate) + 1}]" for one in own if one.rate)
    lacking = len({(one.work.parts, one.work.name) for one in own if one.rate is None})
    return " ".join([*there, *([f"{lacking} {MISSING}"] if lacking else [])])


def _totals(estimates: Sequence[Estimate]) -> list[str]:
    lines = []
    for stage in [*dict.fromkeys(one.work.stage for one in estimates), None]:
        own = [one for one in estimates if stage in (None, one.work.stage)]
        known = [one.gpu_hours for one in own if one.gpu_hours is not None]
        lacking = len(own) - len(known)
        busy = "/".join(f"{sum(known) / n:.1f}" for n in GPUS)
        says = f"{sum(known):.1f} GPU-hours, {busy} hours on {'/'.join(map(str, GPUS))} busy GPUs"
        says = says if known else "no rate"
        more = f"; {lacking} of {len(own)} pieces of work without" if lacking else ""
        lines.append(f"{stage or 'all stages'}: {says}{more}")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Print the plan, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--config", nargs="+", default=["config.yaml"], help="later ones win")
    add("--gpu", help="kind of GPU: H200, H100, ...; by default the one with most rates")
    add("--rates", nargs="*", type=Path, default=list(FOLDERS), help="folders of rates")
    add(
        "--results", type=Path, default=Path("results"), help="where the cohort lies, if it is made"
    )
    add("--csv", type=Path, help="write a row for each piece of work")
    add("--json", type=Path, help="the same, with what is missing")
    add("--missing", type=Path, help="write the missing rates as a Markdown table")
    args = parser.parse_args(argv)
    config = read_config(args.config)
    validate_config(config)
    cohort = cohort_of(config, args.results)
    rates = read_rates(args.rates)
    planned = works(config, cohort)
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
            dict(zip(("part", "name", "settings", "measured_by", "near"), one, strict=True))
            for one in missing_rates(estimates)
        ]
        write_text(args.json, json.dumps({"gpu": kind, "work": rows, "missing": missing}, indent=1))
    if args.missing:
        write_text(args.missing, missing_page(kind, missing_rates(estimates)))
    print(text(config, cohort, kind, estimates), end="")


def missing_page(kind: str, missing: Sequence[tuple[str, str, str, str, str]]) -> str:
    """Return the missing rates as a Markdown table, for the docs."""
    lines = [
        f"| missing on {kind} | settings | measured by | measured otherwise, not used |",
        "|---|---|---|---|",
    ]
    for part, name, settings, command, near in missing:
        shown = f"`{command}`" if command.startswith(("make", "python")) else command
        lines.append(f"| {part}: {name} | {settings} | {shown} | {near} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(main)
