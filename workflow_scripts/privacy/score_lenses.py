"""Score which privacy lens sees a model's images resemble their prompts' radiographs.

    python -m workflow_scripts.privacy.score_lenses --model flipped_copies --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --pairs results/privacy/flipped_copies_pairs.parquet \\
        --others results/privacy/flipped_copies_others.parquet \\
        --record results/privacy/flipped_copies.json \\
        --output results/privacy/lenses/flipped_copies.json

Needs the model's table of pairs, that of the same images with other prompts' radiographs, and the
record that was made with them; makes one record. A re-identification score of 0.9 and a distance of
0.2 cannot be compared as they are. Here each lens raises its alarm where a prompt's riskiest image
is riskier than all but 5% of what chance gives: how many prompts it then sees is the same question
to all lenses. Chance is the same model's images before other prompts' radiographs, so that smooth
images, which are near to any radiograph, raise no alarm for that. Copies that were flipped or
brightened tell what a lens misses.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.records import (
    Record,
    Value,
    provenance,
    read_record,
    write_record,
)
from workflow_scripts.common.settings import add_flags
from workflow_scripts.fidelity.inputs import rows_of
from workflow_scripts.fidelity.resample import wilson_interval
from workflow_scripts.privacy.private_table import read_private_table
from workflow_scripts.privacy.score import (
    LENSES,
    OTHERS_SCHEMA,
    PAIR_SCHEMA,
    prompt_table,
)
from workflow_scripts.privacy.settings import Settings

log = logging.getLogger(__name__)

FALSE_ALARMS: Final = 0.05
FEWEST_PATIENTS: Final = 20
FEWEST_PAIRS: Final = 100
"""With fewer, the riskiest twentieth of what chance gives is not known: a copy that one lens sees
and the other three do not would raise no alarm of any of them."""

METRICS: Final = tuple(f"{lens}_seen" for lens in (*LENSES, "any"))


@dataclass(frozen=True)
class Risks:
    """The risk of the riskiest image of each prompt before one radiograph: higher is riskier.

    Attributes:
        values: (n, lenses).
        prompts: (n,) the prompt's patient.
        compared: (n,) the patient of the radiograph, the same one where it is the prompt's own.
    """

    values: np.ndarray
    prompts: np.ndarray
    compared: np.ndarray


def risks(pairs: pd.DataFrame, patient_of: pd.Series) -> Risks:
    """Return the risks of pairs, with their own radiographs or with `other_image_id`.

    Args:
        pairs: see `PAIR_SCHEMA` and `OTHERS_SCHEMA`.
        patient_of: the patient of each radiograph, by its id.
    """
    by = [name for name in ("image_id", "other_image_id") if name in pairs]
    table = prompt_table(pairs, by)
    columns = [
        -table[f"{lens}_min"] if way == "higher" else table[f"{lens}_max"]
        for lens, way in LENSES.items()
    ]
    ids = table.index.to_frame(index=False)
    patients = [patient_of[ids[name]].to_numpy(str) for name in (by[0], by[-1])]
    return Risks(np.column_stack(columns).astype(np.float64), *patients)


class Alarms:
    """Which prompts raise an alarm, of each lens and of any of them.

    A prompt's tail rank in a lens is the share of chance that is as risky, itself counted among it:
    at most 5% raises the alarm. That is the p-value of a Monte Carlo test (Davison and Hinkley,
    1997, 4.2), and of conformal prediction (Vovk et al., 2005). Any of the lenses raises it by the
    least of the tail ranks, ranked likewise among the least ones of chance: 5% in all, however the
    lenses depend on each other (the minP of Westfall and Young, 1993).
    """

    def __init__(self, own: Risks, chance: Risks):
        """Sort what chance gives, once for all weights.

        Args:
            own: each prompt's images before their own radiograph.
            chance: the same images before other prompts' radiographs.
        """
        lenses = range(own.values.shape[1])
        falling = [np.sort(-chance.values[:, k]) for k in lenses]
        self.order = [np.argsort(-chance.values[:, k], kind="stable") for k in lenses]
        # How many pairs of chance are as risky as each, ties among them.
        self.own, self.chance = (
            [np.searchsorted(falling[k], -x.values[:, k], "right") for k in lenses]
            for x in (own, chance)
        )

    def raised(self, weights: np.ndarray) -> np.ndarray:
        """Return whether each prompt raises the alarm, (lenses + 1, n); the last row is of any.

        Args:
            weights: (pairs of chance,) how often each counts.
        """
        whole = 1 + weights.sum()
        sums = [np.concatenate([[0.0], np.cumsum(weights[order])]) for order in self.order]
        own = [(1 + total[at]) / whole for total, at in zip(sums, self.own, strict=True)]
        chance = [total[at] / whole for total, at in zip(sums, self.chance, strict=True)]
        least, least_of_chance = np.min(own, axis=0), np.min(chance, axis=0)
        order = np.argsort(least_of_chance)
        total = np.concatenate([[0.0], np.cumsum(weights[order])])
        # A rounding error must not break a tie.
        reached = np.searchsorted(least_of_chance[order], least * (1 + 1e-12), "right")
        of_any = (1 + total[reached]) / whole
        return np.array([*own, of_any]) <= FALSE_ALARMS


def lens_values(own: Risks, chance: Risks, settings: Settings) -> list[Value]:
    """Return the share of prompts that each lens, and any of them, sees at 5% false alarms.

    The interval counts that both the prompts and what chance gives are samples: a bootstrap of
    patients, where a pair of two patients counts as often as the product of how often both are
    drawn (Owen, 2007), gives the variance, and Wilson's interval at this variance that of a share
    near 0 or 1. It never counts more prompts than there are patients.

    Args:
        own: each prompt's images before their own radiograph.
        chance: the same before other prompts' radiographs.
        settings: replicates and seed.
    """
    n, pairs = len(own.values), len(chance.values)
    names = np.unique(np.concatenate([own.prompts, chance.compared]))
    patients = len(np.unique(own.prompts))
    reason = None
    if patients < FEWEST_PATIENTS:
        reason = f"prompts of {patients} patients: at least {FEWEST_PATIENTS} are needed"
    elif pairs < FEWEST_PAIRS:
        reason = f"{pairs} pairs with other prompts' radiographs: {FEWEST_PAIRS} are needed"
    if reason:
        return [Value(name, None, "lower", n, "all", pairs, reason=reason) for name in METRICS]
    alarms = Alarms(own, chance)
    shares = alarms.raised(np.ones(pairs)).mean(axis=1)
    of_own, first, second = (
        np.searchsorted(names, x) for x in (own.prompts, chance.prompts, chance.compared)
    )
    rng = np.random.default_rng(settings.seed)
    draws = np.empty((settings.bootstrap, len(METRICS)))
    for i in range(settings.bootstrap):
        drawn = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        weights = drawn[of_own]
        raised = alarms.raised((drawn[first] * drawn[second]).astype(np.float64))
        draws[i] = raised @ weights / max(weights.sum(), 1)
    variances = draws.var(axis=0) if settings.bootstrap > 1 else np.zeros(len(METRICS))
    values = []
    for name, share, variance in zip(METRICS, shares.tolist(), variances, strict=True):
        count = float(patients)
        if variance > 0 and 0 < share < 1:
            count = min(count, share * (1 - share) / variance)
        interval = wilson_interval(share, count)
        values.append(Value(name, share, "lower", n, "all", pairs, interval, "Wilson 95%"))
    return values


def read_pairs(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """Read a table of pairs.

    Raises:
        InputError: it is missing, damaged, of another kind, or empty of own pairs.
    """
    pairs = read_private_table(path, schema)
    if pairs.empty and schema is PAIR_SCHEMA:
        raise InputError("a table of pairs without pairs", path, "rerun the privacy stage")
    return pairs


def inputs_of(path: Path, model: str, protocol: str) -> list[dict[str, Any]]:
    """Return what a model's record of pairs says of the features that pairs and record rest on.

    It counts the images that are no draws of their own (`repeated_images`, `constant_images`).

    Raises:
        InputError: the record is missing or damaged, or of something else.
    """
    record = read_record(path)
    of = (record.stage, record.family, record.model, record.protocol)
    wanted = ("privacy", "pairwise", model, protocol)
    if of != wanted:
        raise InputError(
            f"a record of {', '.join(of)}, not of {', '.join(wanted)}",
            path,
            "give the record that was made with the pairs",
        )
    return list(record.provenance.get("inputs", ()))


def main(argv: Sequence[str] | None = None) -> None:
    """Score one model from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add: Callable[..., Any] = parser.add_argument
    add("--model", required=True, help="the model's key in the config")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--pairs", required=True, type=Path, help="the model's table of pairs")
    add("--others", required=True, type=Path, help="that with other prompts' radiographs")
    add("--record", required=True, type=Path, help="the model's record of the same pairs")
    add_flags(parser, Settings, only=("bootstrap", "seed"))
    add("--output", required=True, type=Path)
    args = parser.parse_args(argv)
    settings = Settings(bootstrap=args.bootstrap, seed=args.seed)
    inputs = inputs_of(args.record, args.model, args.protocol)
    own = read_pairs(args.pairs, PAIR_SCHEMA)
    others = read_pairs(args.others, OTHERS_SCHEMA)
    patient_of = read_manifest(args.manifest).set_index("image_id")["patient_id"]
    for table, path in ((own["image_id"], args.pairs), (others["other_image_id"], args.others)):
        rows_of(patient_of.index, list(table.unique()), path, "manifest")
    if not set(others["image_id"]) <= set(own["image_id"]):
        raise InputError(
            "the pairs with other prompts' radiographs are of other prompts than the pairs",
            args.others,
            "delete both and rerun the privacy stage",
        )
    values = lens_values(risks(own, patient_of), risks(others, patient_of), settings)
    record = Record(
        stage="privacy",
        model=args.model,
        family="lenses",
        protocol=args.protocol,
        values=values,
        details={"false_alarms": FALSE_ALARMS},
        provenance=provenance(
            {
                "protocol": args.protocol,
                "false_alarms": FALSE_ALARMS,
                **{k: v for k, v in asdict(settings).items() if k != "threshold"},
            },
            inputs=inputs,
        ),
    )
    write_record(record, args.output)
    for value in values:
        log.info("%s: %s %s (n %d)", args.model, value.metric, value.value, value.n)


if __name__ == "__main__":
    run_script(main)
