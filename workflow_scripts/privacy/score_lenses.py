"""Score how many prompts each privacy lens flags: whose images resemble the prompt's radiograph.

    python -m workflow_scripts.privacy.score_lenses --model flipped_copies --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --pairs results/privacy/flipped_copies_pairs.parquet \\
        --others results/privacy/flipped_copies_others.parquet \\
        --record results/privacy/flipped_copies.json \\
        --output results/privacy/lenses/flipped_copies.json

It reads the model's table of pairs, the table of the same images with other prompts' radiographs,
and the record that was written with them. It writes one record.

A re-identification score of 0.9 and a distance of 0.2 cannot be compared directly. So each lens
raises an alarm for a prompt whose riskiest image is riskier than all but 5% of the pairs by chance.
The number of prompts with an alarm then compares all lenses. The pairs by chance are the same
model's images and other prompts' radiographs. So smooth images, which are close to any radiograph,
raise no alarm for that reason. Controls of flipped or brightened copies show what a lens misses.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from workflow_scripts.privacy.scripts import write_scored
from workflow_scripts.privacy.settings import Settings

FALSE_ALARMS: Final = 0.05
FEWEST_PATIENTS: Final = 20
FEWEST_PAIRS: Final = 100
"""With fewer pairs by chance, their riskiest 5% is not known. A copy that one lens detects and the
other three miss would then not raise the combined alarm."""

METRICS: Final = tuple(f"{lens}_seen" for lens in (*LENSES, "any"))


@dataclass(frozen=True)
class Risks:
    """The risk of a prompt's riskiest image, compared with one radiograph; higher is riskier.

    Attributes:
        values: (n, lenses) one row for each prompt and radiograph.
        prompts: (n,) the patient of the prompt.
        compared: (n,) the patient of the radiograph; equal to `prompts` for the prompt's own.
    """

    values: np.ndarray
    prompts: np.ndarray
    compared: np.ndarray


def risks(pairs: pd.DataFrame, patient_of: pd.Series) -> Risks:
    """Return the risks of pairs with the prompts' own radiographs, or with `other_image_id`.

    Args:
        pairs: see `PAIR_SCHEMA` and `OTHERS_SCHEMA`.
        patient_of: the patient of each radiograph, indexed by its id.
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
    """The prompts that raise an alarm, for each lens and for any of them.

    A prompt's p-value in a lens is the share of the pairs by chance that are at least as risky, the
    prompt itself counted among them. This is the p-value of a Monte Carlo test (Davison and
    Hinkley, 1997, 4.2) and of conformal prediction (Vovk et al., 2005). At most 5% raises the
    alarm. The combined alarm ranks a prompt's smallest p-value among the smallest p-values of the
    pairs by chance. Its false-alarm rate is 5%, however the lenses depend on one another (the minP
    method of Westfall and Young, 1993).
    """

    def __init__(self, own: Risks, chance: Risks):
        """Sort the pairs by chance, once for all weights.

        Args:
            own: each prompt's images, compared with the prompt's own radiograph.
            chance: the same images, compared with other prompts' radiographs.
        """
        lenses = range(own.values.shape[1])
        falling = [np.sort(-chance.values[:, k]) for k in lenses]
        self.order = [np.argsort(-chance.values[:, k], kind="stable") for k in lenses]
        # The number of pairs by chance that are at least as risky as each pair, with ties.
        self.own, self.chance = (
            [np.searchsorted(falling[k], -x.values[:, k], "right") for k in lenses]
            for x in (own, chance)
        )

    def raised(self, weights: np.ndarray) -> np.ndarray:
        """Return whether each prompt raises the alarm, (lenses + 1, n); the last row combines all.

        Args:
            weights: (pairs by chance,) the weight of each pair by chance.
        """
        total_weight = 1 + weights.sum()
        sums = [np.concatenate([[0.0], np.cumsum(weights[order])]) for order in self.order]
        p_values = [
            (1 + total[at]) / total_weight for total, at in zip(sums, self.own, strict=True)
        ]
        p_values_of_chance = [
            total[at] / total_weight for total, at in zip(sums, self.chance, strict=True)
        ]
        least, least_of_chance = np.min(p_values, axis=0), np.min(p_values_of_chance, axis=0)
        order = np.argsort(least_of_chance)
        total = np.concatenate([[0.0], np.cumsum(weights[order])])
        # Rounding errors must not break ties.
        reached = np.searchsorted(least_of_chance[order], least * (1 + 1e-12), "right")
        of_any = (1 + total[reached]) / total_weight
        return np.array([*p_values, of_any]) <= FALSE_ALARMS


def lens_values(own: Risks, chance: Risks, settings: Settings) -> list[Value]:
    """Return the share of prompts that each lens, and any of them, flags at 5% false alarms.

    The interval accounts for the sampling of both the prompts and the pairs by chance. A bootstrap
    of patients gives the variance; a pair of two patients has the product of both patients' counts
    as its weight (Owen, 2007). Wilson's interval at the number of prompts that gives this variance
    suits shares near 0 and 1. That number never exceeds the number of patients.

    Args:
        own: each prompt's images, compared with the prompt's own radiograph.
        chance: the same images, compared with other prompts' radiographs.
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
        InputError: the file is missing, damaged or has other columns, or a table of `PAIR_SCHEMA`
            has no rows.
    """
    pairs = read_private_table(path, schema)
    if pairs.empty and schema is PAIR_SCHEMA:
        raise InputError("a table of pairs without pairs", path, "rerun the privacy stage")
    return pairs


def inputs_of(path: Path, model: str, protocol: str) -> list[dict[str, Any]]:
    """Return the identity of the feature files behind a model's pairs, from the pairs' record.

    It includes the numbers of repeated and constant images (`repeated_images`, `constant_images`).

    Raises:
        InputError: the record is missing, damaged, or not the model's record of pairs.
    """
    record = read_record(path)
    actual = (record.stage, record.family, record.model, record.protocol)
    expected = ("privacy", "pairwise", model, protocol)
    if actual != expected:
        raise InputError(
            f"a record of {', '.join(actual)}, not of {', '.join(expected)}",
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
    add("--others", required=True, type=Path, help="the pairs with other prompts' radiographs")
    add("--record", required=True, type=Path, help="the model's record of the same pairs")
    add_flags(parser, Settings, only=("bootstrap", "seed"))
    add("--output", required=True, type=Path)
    args = parser.parse_args(argv)
    settings = Settings(bootstrap=args.bootstrap, seed=args.seed)
    inputs = inputs_of(args.record, args.model, args.protocol)
    own_pairs = read_pairs(args.pairs, PAIR_SCHEMA)
    others = read_pairs(args.others, OTHERS_SCHEMA)
    patient_of = read_manifest(args.manifest).set_index("image_id")["patient_id"]
    for table, path in (
        (own_pairs["image_id"], args.pairs),
        (others["other_image_id"], args.others),
    ):
        rows_of(patient_of.index, list(table.unique()), path, "manifest")
    if not set(others["image_id"]) <= set(own_pairs["image_id"]):
        raise InputError(
            "the pairs with other prompts' radiographs are of other prompts than the pairs",
            args.others,
            "delete both and rerun the privacy stage",
        )
    values = lens_values(risks(own_pairs, patient_of), risks(others, patient_of), settings)
    decides = {
        "protocol": args.protocol,
        "false_alarms": FALSE_ALARMS,
        "bootstrap": settings.bootstrap,
        "seed": settings.seed,
    }
    record = Record(
        stage="privacy",
        model=args.model,
        family="lenses",
        protocol=args.protocol,
        values=values,
        details={"false_alarms": FALSE_ALARMS},
        provenance=provenance(decides, inputs=inputs),
    )
    write_scored(record, args.output)


if __name__ == "__main__":
    run_script(main)
