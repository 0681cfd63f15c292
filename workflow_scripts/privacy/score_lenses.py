"""Score which privacy lens sees a model's images resemble their prompts' radiographs.

    python -m workflow_scripts.privacy.score_lenses --model flipped_copies --protocol sound \\
        --pairs results/privacy/flipped_copies_pairs.parquet \\
        --unrelated results/privacy/held_out_real_pairs.parquet \\
        --output results/privacy/lenses/flipped_copies.json

Needs the tables of pairs of the model and of held-out real images, which show other patients than
the prompts; makes one record. A re-identification score of 0.9 and a distance of 0.2 cannot be
compared as they are. Here each lens raises its alarm where a prompt's riskiest image is riskier
than the riskiest unrelated one is for 95% of the prompts: how many prompts it then sees is the same
question to all lenses. Copies that were flipped or brightened tell what a lens misses.
"""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.fidelity.resample import wilson_interval
from workflow_scripts.privacy.private_table import read_private_table
from workflow_scripts.privacy.score import LENSES, PAIR_SCHEMA, prompt_table

log = logging.getLogger(__name__)

FALSE_ALARMS: Final = 0.05
FEWEST_PROMPTS: Final = 20
"""Fewer unrelated prompts say nothing of their riskiest twentieth."""


def risks(pairs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the risk of each prompt's riskiest image, (prompts,) by lens: higher is riskier."""
    table = prompt_table(pairs)
    return {
        lens: -table[f"{lens}_min"].to_numpy()
        if way == "higher"
        else table[f"{lens}_max"].to_numpy()
        for lens, way in LENSES.items()
    }


def lens_values(model: dict[str, np.ndarray], unrelated: dict[str, np.ndarray]) -> list[Value]:
    """Return the share of prompts that each lens, and any of them, sees at 5% false alarms.

    Args:
        model: see `risks`.
        unrelated: the same of held-out real images.
    """
    n, n_unrelated = len(model["reid"]), len(unrelated["reid"])
    names = [f"{lens}_seen" for lens in LENSES] + ["any_seen"]
    if n_unrelated < FEWEST_PROMPTS:
        reason = f"{n_unrelated} prompts of unrelated images: at least {FEWEST_PROMPTS} are needed"
        return [Value(name, None, "lower", n, "all", n_unrelated, reason=reason) for name in names]
    seen = []
    for lens in LENSES:
        # `higher`: never more than 5% of the unrelated ones lie above.
        alarm = np.quantile(unrelated[lens], 1 - FALSE_ALARMS, method="higher")
        seen.append(model[lens] > alarm)
    seen.append(np.any(seen, axis=0))
    values = []
    for name, flags in zip(names, seen, strict=True):
        share = float(flags.mean())
        interval = wilson_interval(share, n)
        values.append(Value(name, share, "lower", n, "all", n_unrelated, interval, "Wilson 95%"))
    return values


def read_pairs(path: Path) -> pd.DataFrame:
    """Read a table of pairs.

    Raises:
        InputError: it is missing, damaged, of another kind, or empty.
    """
    pairs = read_private_table(path, PAIR_SCHEMA)
    if pairs.empty:
        raise InputError("a table of pairs without pairs", path, "rerun the privacy stage")
    return pairs


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add: Callable[..., Any] = parser.add_argument
    add("--model", required=True, help="the model's key in the config")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--pairs", required=True, type=Path, help="the model's table of pairs")
    add("--unrelated", required=True, type=Path, help="held-out real images' table of pairs")
    add("--output", required=True, type=Path)
    args = parser.parse_args(argv)
    values = lens_values(risks(read_pairs(args.pairs)), risks(read_pairs(args.unrelated)))
    record = Record(
        stage="privacy",
        model=args.model,
        family="lenses",
        protocol=args.protocol,
        values=values,
        details={"false_alarms": FALSE_ALARMS},
        provenance=provenance({"protocol": args.protocol, "false_alarms": FALSE_ALARMS}),
    )
    write_record(record, args.output)
    for value in values:
        log.info("%s: %s %s (n %d)", args.model, value.metric, value.value, value.n)


if __name__ == "__main__":
    run_script(main)
