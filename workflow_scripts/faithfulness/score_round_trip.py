"""Score the reports of one model's test images against the labels of their prompts.

    python -m workflow_scripts.faithfulness.score_round_trip --model sd_v1_4 --protocol sound \\
        --prompts results/cohort/prompts/test.parquet \\
        --radiographs results/faithfulness/reports/real.parquet \\
        --reports results/faithfulness/reports/sd_v1_4.parquet --bootstrap 1000 --seed 42 \\
        --output results/faithfulness/round_trip/sd_v1_4.json

`round_trip` defines the values. An uncertain finding counts as absent, as in the prompts' labels.
"""

import argparse
import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import Record, provenance, write_record
from workflow_scripts.downstream.data import labels_of
from workflow_scripts.downstream.outcomes import read_outcomes
from workflow_scripts.downstream.report_generation.metrics.chexbert_classes import is_positive
from workflow_scripts.faithfulness.round_trip import round_trip_values
from workflow_scripts.faithfulness.seen import prompts_of

log = logging.getLogger(__name__)

FAMILY: Final = "round_trip"
_REMEDY: Final = "delete it and rerun the rule faithfulness_reports"


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    args = _arguments(argv)
    images, run = read_reports_on(args.reports)
    radiographs, real_run = read_reports_on(args.radiographs)
    if run["settings"] != real_run["settings"]:
        raise InputError(
            "images and radiographs were reported on with different networks or settings",
            args.reports,
            "delete both and rerun the rule faithfulness_reports",
        )
    asked, places = prompts_of(
        args.prompts, images.index, radiographs.index, args.reports, args.radiographs,
        "faithfulness_reports",
    )  # fmt: skip
    values = round_trip_values(
        labels_of(asked),
        images["patient_id"].to_numpy(str),
        named_in(images),
        named_in(radiographs.iloc[places]),
        args.bootstrap,
        args.seed,
    )
    settings = {"bootstrap": args.bootstrap, "seed": args.seed, **run["settings"]}
    record = Record(
        "faithfulness",
        args.model,
        FAMILY,
        args.protocol,
        values,
        {
            "settings": run["settings"],
            "n_patients": int(images["patient_id"].nunique()),
            # A report generator that ignores the image always writes the same report.
            "distinct_share": float(images["report"].nunique() / len(images)),
            "distinct_share_radiographs": float(radiographs["report"].nunique() / len(radiographs)),
        },
        provenance(settings, run["provenance"]["device"]),
    )
    write_record(record, args.output)
    log.info("%d values of %d reports", len(values), len(images))


def read_reports_on(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a file of `write_reports`: its rows, indexed by `id`, and its provenance.

    Raises:
        InputError: the file is missing, damaged, or of another kind.
    """
    table = read_outcomes(path)
    rows = table.rows
    if not {"id", "report", "classes"} <= set(rows.columns):
        raise InputError("not a file of reports on images", path, _REMEDY)
    return rows.set_index("id", drop=False), table.run


def named_in(rows: pd.DataFrame) -> np.ndarray:
    """Return which of FINDINGS each report affirms, bool (n, 14)."""
    classes = np.array(rows["classes"].to_list(), np.int64).reshape(-1, len(FINDINGS))
    return is_positive(classes, uncertain_positive=False)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key in the config")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--prompts", required=True, type=Path, help="the test prompt set")
    add("--radiographs", required=True, type=Path, help="reports of the test radiographs")
    add("--reports", required=True, type=Path, help="reports of the model's images")
    add("--bootstrap", required=True, type=int, help="draws of test patients")
    add("--seed", required=True, type=int, help="of the draws")
    add("--output", required=True, type=Path, help="the record (JSON)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
