"""Filter a pool, draw the curated set, and decide whether it may be released.

    python -m workflow_scripts.curate.decide --model sana --cohort MIMIC-CXR \\
        --protocol sound --source mimic_cxr_jpg --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/augment.parquet \\
        --shards results/generate/sana/augment/part-*.parquet --family sana --base weights/sana \\
        --lenses results/curate/sana/lenses.parquet --features results/curate/sana/features \\
        --real results/features/real/train --seen results/curate/sana/seen.parquet \\
        --radiographs results/faithfulness/seen/real.parquet \\
        --searched-manifests results/cohort/manifest.parquet \\
        --searched-prompts results/cohort/prompts/*.parquet \\
        --pool augment --images 10000 ... --output results/curate/sana

The folder gets `dataset/data/` (the set), `decision.json`, `decision.html` (a page for the data
steward), `filter.json` (the record, for the tables) and `chosen.parquet` (which image of the pool
each file is; readable by its owner alone). The script first searches the set for captions, ids and
real images of the cohort. It does not write a set that contains any. The same inputs give the same
bytes, but for the record's time.
"""

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import write_text
from workflow_scripts.common.records import write_record
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.curate.decision import decision_of
from workflow_scripts.curate.draw import drawn
from workflow_scripts.curate.filter_record import filter_record
from workflow_scripts.curate.page import page
from workflow_scripts.curate.pool_filter import filter_pool
from workflow_scripts.curate.settings import CurateSettings
from workflow_scripts.curate.write_set import write_set

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Decide on one model's set from the command line."""
    args, policy = _arguments(argv)
    filtered = filter_pool(args, policy)
    passed = filtered.passed
    rows, missing = drawn(
        filtered.pool["id"].iloc[passed].tolist(),
        filtered.labels[passed],
        policy.quotas,
        policy.images,
        policy.seed,
    )
    kept = passed[rows]
    decision = decision_of(args, policy, filtered, kept, missing)
    write_set(args, policy, filtered.pool.iloc[kept])
    text = json.dumps(decision, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_text(args.output / "decision.html", page(decision))
    write_text(args.output / "decision.json", text)
    failed, tried = len(filtered.pool) - len(passed), len(filtered.refused)
    record = filter_record(decision, args.protocol, failed, tried, asdict(policy))
    write_record(record, args.output / "filter.json")
    log.info("%s: %d images, %s", args.model, len(kept), decision["verdict"])


def _arguments(argv: list[str] | None) -> tuple[argparse.Namespace, CurateSettings]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key")
    add("--cohort", required=True, help="the cohort's name")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--source", required=True, help="the kind of the cohort's source, cohort.source")
    add("--family", help="the model's family in the config")
    add("--base", help="the model's base checkpoint in the config")
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="the pool's prompt set")
    add("--shards", required=True, nargs="+", type=Path, help="the pool's images")
    add("--lenses", required=True, type=Path, help="output of lenses.py")
    add("--features", required=True, type=Path, help="folder of the candidates' features")
    add("--real", required=True, type=Path, help="folder of the training radiographs' features")
    add("--seen", required=True, type=Path, help="output of look.py for the pool")
    add(
        "--radiographs",
        required=True,
        type=Path,
        help="output of faithfulness.look for radiographs",
    )
    add("--records", nargs="*", default=[], type=Path, help="the model's records")
    add("--searched-manifests", required=True, nargs="+", type=Path, help="texts not to publish")
    add("--searched-prompts", required=True, nargs="+", type=Path, help="texts not to publish")
    add_flags(parser, CurateSettings)
    add("--output", required=True, type=Path, help="the folder to write to")
    args = parser.parse_args(argv)
    return args, settings_of_flags(CurateSettings, args, parser)


if __name__ == "__main__":
    run_script(main)
