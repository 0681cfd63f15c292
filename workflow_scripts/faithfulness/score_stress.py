"""Score a model's images of the stress set: do they change where their prompts do?

    python -m workflow_scripts.faithfulness.score_stress --model sd_v1_4 --protocol sound \\
        --stress results/cohort/stress.parquet --manifest results/cohort/manifest.parquet \\
        --seen results/faithfulness/stress/seen/sd_v1_4.parquet \\
        --real results/faithfulness/stress/seen/real.parquet --bootstrap 1000 --seed 42 \\
        --scores results/faithfulness/stress/sd_v1_4.parquet \\
        --output results/faithfulness/stress/sd_v1_4.json

`contrasts` defines the values. A table of each image's score, for the report, comes with the
record.
"""

import argparse
import logging
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workflow_scripts.cohort.stress_prompts import STRESS_VERSION, read_stress
from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.records import Record, provenance, write_record
from workflow_scripts.downstream.data import labels_of, manifest_rows
from workflow_scripts.faithfulness.caption_attributes import ERRORS
from workflow_scripts.faithfulness.contrasts import Radiographs, image_scores, stress_values
from workflow_scripts.faithfulness.look_stress import read_looked, readings_of

log = logging.getLogger(__name__)

FAMILY: Final = "stress"


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    args = _arguments(argv)
    stress = read_stress(args.stress)
    seen, run = read_looked(args.seen)
    real, real_run = read_looked(args.real)
    if run["settings"] != real_run["settings"]:
        raise InputError(
            "images and radiographs were looked at with different networks or settings",
            args.seen,
            "delete both and rerun the rule faithfulness_stress_look",
        )
    rows = seen.set_index("id").reindex(stress["prompt_id"].to_numpy())
    if rows["probabilities"].isna().any():
        unseen = rows.index[rows["probabilities"].isna()]
        raise InputError(
            f"{len(unseen)} prompts of the stress set were not looked at, first {unseen[0]!r}",
            args.seen,
            "images and prompts are of different runs: delete it and rerun",
        )
    images = readings_of(rows)
    values = stress_values(
        stress,
        images,
        readings_of(rows, "mirrored_"),
        radiographs_of(real, read_manifest(args.manifest), args.manifest),
        args.bootstrap,
        args.seed,
    )
    settings = {"protocol": args.protocol, "bootstrap": args.bootstrap, "seed": args.seed}
    record = Record(
        "faithfulness",
        args.model,
        FAMILY,
        args.protocol,
        values,
        {
            "stress_version": STRESS_VERSION,
            "prompts": len(stress),
            "groups": int(stress.groupby(["contrast", "group"]).ngroups),
            "radiographs": len(real),
            "parser_errors": ERRORS,
            **run["settings"],
        },
        provenance({**settings, **run["settings"]}, run["provenance"]["device"]),
    )
    write_record(record, args.output)
    table = pa.Table.from_pandas(image_scores(stress, images, values), preserve_index=False)
    with whole_file(args.scores) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    log.info("%d values of %d prompts", len(values), len(stress))


def radiographs_of(real: pd.DataFrame, manifest: pd.DataFrame, where: Path) -> Radiographs:
    """Return the judge's readings of radiographs, with their patients, labels and captions.

    Raises:
        InputError: a radiograph is not in the manifest.
    """
    rows = manifest_rows(manifest, real["image_id"].tolist(), str(where))
    return Radiographs(
        readings_of(real),
        rows["patient_id"].to_numpy(str),
        labels_of(rows) == 1,
        rows["caption"].tolist(),
    )


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key in the config")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--stress", required=True, type=Path, help="the stress prompts with their attributes")
    add("--manifest", required=True, type=Path, help="of the cohort")
    add("--seen", required=True, type=Path, help="output of look_stress for the model's images")
    add("--real", required=True, type=Path, help="its output for radiographs")
    add("--bootstrap", required=True, type=int, help="draws of groups and of test patients")
    add("--seed", required=True, type=int, help="of the draws")
    add("--scores", required=True, type=Path, help="each image's score (Parquet)")
    add("--output", required=True, type=Path, help="the record (JSON)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
