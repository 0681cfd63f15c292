"""Draw captions with a given prevalence of findings, as prompts for the pool of a curated set.

    python -m workflow_scripts.cohort.drawn_prompts --manifest manifest.parquet --captions 20000
        --prevalence 'Pleural Other=0.05' --prevalence Fracture=0.05 --draw-seed 42
        --out drawn.parquet --csv drawn.csv

Prompts are unique training captions. A finding with a given prevalence is positive in exactly that
share of the prompts, rounded to whole prompts. Other findings have the prevalence that results. A
caption's place in the draw is the digest of the seed and the caption. So neither the draw nor the
sampled images depend on the order of the manifest or the number of shards. Ids and seeds are the
set's own, so no image of another set is sampled again.
"""

import argparse
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from workflow_scripts.cohort.draw_prompts import (
    prompts_of,
    unique_captions,
    write_prompt_csv,
)
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import FINDINGS, read_manifest, write_prompts

log = logging.getLogger(__name__)

DRAWN: Final = "drawn"
"""The set's name: `prompt_sets.drawn` of the config, which the paper does not have."""


def draw_to_prevalence(
    manifest: pd.DataFrame, captions: int, prevalence: Mapping[str, float], draw_seed: int
) -> pd.DataFrame:
    """Return training captions, one prompt each, in the order of the draw.

    The rarest finding is drawn first. A caption is left out if it would raise another finding above
    its given prevalence.

    Args:
        manifest: the cohort's manifest, with findings.
        captions: number of captions to draw.
        prevalence: share of prompts in which a finding is positive, in [0, 1], by finding.
        draw_seed: seed of the draw.

    Raises:
        InputError: there are too few captions; the message states how many are missing.
    """
    rows = unique_captions(manifest, "train")
    place = [
        hashlib.sha256(f"{draw_seed}\0{text}".encode()).hexdigest() for text in rows["caption"]
    ]
    rows = rows.iloc[np.argsort(np.array(place, dtype=str), kind="stable")].reset_index(drop=True)
    quotas = {name: round(share * captions) for name, share in prevalence.items()}
    asked = sorted(quotas, key=FINDINGS.index)
    positive = rows[asked].eq(1).fillna(False).to_numpy(dtype=bool)
    taken = _taken(positive, np.array([quotas[name] for name in asked], dtype=int), captions)
    missing = {name: quotas[name] - int(positive[taken, k].sum()) for k, name in enumerate(asked)}
    lacks = [f"{count} with {name}" for name, count in missing.items() if count > 0]
    if taken.sum() < captions:
        lacks.append(f"{captions - taken.sum()} in all")
    if lacks:
        raise InputError(
            f"of {captions} training captions that are asked for are missing: {', '.join(lacks)} "
            f"(the manifest has {len(rows)} unique ones)",
            "prompt_sets.drawn",
            "ask for fewer captions, or for shares that the training captions allow",
        )
    log.info("%d of %d unique training captions", captions, len(rows))
    return prompts_of(rows[taken], DRAWN)


def _taken(positive: np.ndarray, quotas: np.ndarray, captions: int) -> np.ndarray:
    """Return which captions the draw takes, bool (n,), at most `captions` of them.

    Args:
        positive: bool (n, k), the findings of n captions, in the order of the draw.
        quotas: (k,), how many captions are to have each finding.
        captions: how many to take.
    """
    taken = np.zeros(len(positive), dtype=bool)
    counts = np.zeros(len(quotas), dtype=int)

    def take(row: int) -> None:
        """Take a caption, unless it has a finding whose quota is filled."""
        if not taken[row] and not (positive[row] & (counts >= quotas)).any():
            taken[row] = True
            counts[:] += positive[row]

    for k in sorted(range(len(quotas)), key=lambda k: (positive[:, k].sum(), k)):
        for row in np.flatnonzero(positive[:, k]).tolist():
            if counts[k] >= quotas[k] or taken.sum() >= captions:
                break
            take(row)
    for row in np.flatnonzero(~taken).tolist():
        if taken.sum() >= captions:
            break
        take(row)
    return taken


def read_share(word: str) -> tuple[str, float]:
    """Read `FINDING=SHARE` from the command line.

    Raises:
        ValueError: the word has another form.
    """
    name, _, share = word.rpartition("=")
    if name not in FINDINGS or not 0 <= float(share) <= 1:
        raise ValueError(f"{word!r} is not FINDING=SHARE, of one of the 14 findings, 0 to 1")
    return name, float(share)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", required=True, help="Parquet file to read")
    parser.add_argument("--captions", required=True, type=int, help="number of captions to draw")
    parser.add_argument(
        "--prevalence",
        action="append",
        type=read_share,
        default=[],
        help="FINDING=SHARE of the prompts; repeats",
    )
    parser.add_argument("--draw-seed", required=True, type=int, help="seed of the draw")
    parser.add_argument("--out", required=True, type=Path, help="Parquet file of the prompt set")
    parser.add_argument("--csv", required=True, type=Path, help="CSV export, for external models")
    args = parser.parse_args(argv)
    manifest = read_manifest(args.manifest)
    prompts = draw_to_prevalence(manifest, args.captions, dict(args.prevalence), args.draw_seed)
    write_prompts(prompts, args.out)
    write_prompt_csv(prompts, args.csv)


if __name__ == "__main__":
    run_script(main)
