"""Score one model's test images: findings, anatomy, texture and topology.

    python -m workflow_scripts.faithfulness.score --model sd_v1_4 --protocol sound \\
        --manifest results/cohort/manifest.parquet --prompts results/cohort/prompts/test.parquet \\
        --radiographs results/faithfulness/seen/real.parquet \\
        --seen results/faithfulness/seen/sd_v1_4.parquet --judges classifier \\
        --bootstrap 1000 --seed 42 --out results/faithfulness

The records are findings/{judge}/{model}.json for each judge, anatomy/{model}.json and
texture/{model}.json. structures/{model}.csv has a row for each structure of the labeller. For
`--model real`, without prompts, there is anatomy/real.json alone.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import write_text
from workflow_scripts.common.manifest import FINDINGS, read_manifest
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.downstream.data import labels_of, manifest_rows
from workflow_scripts.faithfulness.anatomy_values import (
    CARDIOMEGALY,
    anatomy_values,
    measured,
    real_values,
    structures_of,
)
from workflow_scripts.faithfulness.findings import finding_values
from workflow_scripts.faithfulness.judges import DENSENET, DENSENET_OUTPUTS, JUDGES
from workflow_scripts.faithfulness.seen import REAL, Seen, check_seen_alike, prompts_of, read_seen
from workflow_scripts.faithfulness.texture_values import (
    drawn_axes,
    partners_of,
    texture_values,
    topology_values,
)

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    args = _arguments(argv)
    radiographs = read_seen(args.radiographs)
    manifest = read_manifest(args.manifest)
    shown = manifest_rows(manifest, radiographs.rows["id"].tolist(), str(args.radiographs))
    real_labels = labels_of(shown)
    heart = FINDINGS.index(CARDIOMEGALY)
    rows = measured(radiographs.rows)
    structures = structures_of(rows, args.seed)
    counted = {"structures": structures.details(radiographs.run["settings"]["cxas_classes"])}
    if args.model == REAL:
        values = real_values(rows, real_labels[:, heart], args.bootstrap, args.seed)
        _write(args, "anatomy", values, radiographs, counted)
        return
    seen = read_seen(args.seen)
    check_seen_alike(radiographs, seen, args.seen)
    asked, places = prompts_of(
        args.prompts, seen.rows.index, radiographs.rows.index, args.seen, args.radiographs,
        "faithfulness_look",
    )  # fmt: skip
    labels, patients = labels_of(asked), seen.rows["patient_id"].to_numpy(str)
    for judge in args.judges:
        knows = np.array([judge != DENSENET or f in DENSENET_OUTPUTS for f in FINDINGS])
        of_images, of_radiographs = (x.probabilities(judge) for x in (seen, radiographs))
        values = finding_values(
            labels,
            patients,
            of_images,
            of_radiographs[places],
            args.bootstrap,
            args.seed,
            knows,
        )
        _write(args, f"findings/{judge}", values, seen)
    images, own = measured(seen.rows), rows.iloc[places]
    values = anatomy_values(images, own, rows, labels[:, heart], args.bootstrap, args.seed)
    _write(args, "anatomy", values, seen, counted)
    table = structures.table(args.model, images, own)
    write_text(args.out / "structures" / f"{args.model}.csv", table.to_csv(index=False))
    owners = rows["patient_id"].to_numpy(str)
    partners = partners_of(labels, patients, real_labels, owners, args.seed)
    first, second, third = (
        frame.assign(organs=source.rows.loc[frame["id"], "organs"].to_numpy())
        for frame, source in ((images, seen), (own, radiographs), (rows, radiographs))
    )
    organs = first, second, third
    values = [*texture_values(seen, radiographs), *topology_values(*organs, partners)]
    details = {}
    if args.keep_draws:
        drawn = drawn_axes((seen, radiographs), organs, partners, args.keep_draws, args.draws_seed)
        details["replicates"] = drawn
    _write(args, "texture", values, seen, details)


def _write(
    args: argparse.Namespace,
    family: str,
    values: list[Value],
    seen: Seen,
    more: dict[str, Any] | None = None,
) -> None:
    settings = seen.run["settings"]
    kept = {"bootstrap": args.bootstrap, "seed": args.seed, **settings}
    details = {"settings": settings, "n_patients": int(seen.rows["patient_id"].nunique())}
    details |= more or {}
    device = seen.run["provenance"]["device"]
    record = Record(
        "faithfulness",
        args.model,
        family,
        args.protocol,
        values,
        details,
        provenance(kept, device),
    )
    path = Path(args.out) / family / f"{args.model}.json"
    write_record(record, path)
    log.info("%s: %d values", path, len(values))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="key of the model; `real` for the radiographs themselves")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--prompts", type=Path, help="the test prompt set")
    add("--radiographs", required=True, type=Path, help="output of look for the test radiographs")
    add("--seen", type=Path, help="output of look for the model's images")
    add("--judges", nargs="*", default=[], choices=JUDGES)
    add("--bootstrap", required=True, type=int, help="draws of test patients")
    add("--seed", required=True, type=int, help="of all draws")
    add("--keep-draws", type=int, default=0, help="keep texture and topology on so many test sets")
    add("--draws-seed", type=int, default=0, help="of these, as downstream draws them")
    add("--out", required=True, type=Path, help="folder of the stage's records")
    args = parser.parse_args(argv)
    if args.model != REAL and (args.seen is None or args.prompts is None):
        parser.error("a model has --seen and --prompts")
    return args


if __name__ == "__main__":
    run_script(main)
