"""Draw captions so that findings have a prevalence that is asked for: the pool of a curated set.

    python -m workflow_scripts.cohort.drawn_prompts --manifest manifest.parquet --captions 20000
        --prevalence 'Pleural Other=0.05' --prevalence Fracture=0.05 --draw-seed 42
        --out drawn.parquet --csv drawn.csv

Prompts are unique training captions, one image each. A finding that is asked for is positive in
exactly its share of them, rounded to whole prompts; the others come as they come. A caption's place
in the draw is the digest of the seed and the caption: neither the manifest's order nor the number
of shards changes which captions are drawn, nor what is sampled from them. Ids and seeds belong to
this set alone, so that no image of another set is made again.
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
    prompt_id,
    prompt_seed,
    unique_captions,
    write_prompt_csv,
)
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.manifest import FINDINGS, PROMPT_SCHEMA, read_manifest, write_prompts

log = logging.getLogger(__name__)

DRAWN: Final = "drawn"
"""The set's name: `prompt_sets.drawn` of the config, which the paper does not have."""


def draw_to_prevalence(
    manifest: pd.DataFrame, captions: int, prevalence: Mapping[str, float], draw_seed: int
) -> pd.DataFrame:
    """Return training captions, one prompt each, in the order of the draw.

    The rarest finding is drawn first. No caption is taken that would make another finding, for
    which a share is asked, more frequent than asked for.

    Args:
        manifest: the cohort's manifest, with findings.
        captions: how many to draw.
        prevalence: the share of prompts, in [0, 1], in which a finding is positive, by finding.
        draw_seed: of the draw.

    Raises:
        InputError: there are not as many captions; the message says how many are missing.
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
    return _prompts(rows[taken])


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


def _prompts(rows: pd.DataFrame) -> pd.DataFrame:
    prompts = rows[["image_id", "caption", "caption_source", *FINDINGS]].reset_index(drop=True)
    prompts["second_wording"] = False
    prompts["replicate"] = pd.array([0] * len(prompts), "int32")
    prompts["prompt_id"] = [prompt_id(DRAWN, caption, 0) for caption in prompts["caption"]]
    prompts["seed"] = [prompt_seed(DRAWN, caption) for caption in prompts["caption"]]
    return prompts[PROMPT_SCHEMA.names]


def read_share(word: str) -> tuple[str, float]:
    """Read `FINDING=SHARE` of the command line.

    Raises:
        ValueError: not of that form.
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
    parser.add_argument("--captions", required=True, type=int, help="how many to draw")
    parser.add_argument(
        "--prevalence",
        action="append",
        type=read_share,
        default=[],
        help="FINDING=SHARE of the prompts; repeats",
    )
    parser.add_argument("--draw-seed", required=True, type=int, help="of the draw")
    parser.add_argument("--out", required=True, type=Path, help="Parquet file of the prompt set")
    parser.add_argument("--csv", required=True, type=Path, help="CSV export, for external models")
    args = parser.parse_args(argv)
    manifest = read_manifest(args.manifest)
    prompts = draw_to_prevalence(manifest, args.captions, dict(args.prevalence), args.draw_seed)
    write_prompts(prompts, args.out)
    write_prompt_csv(prompts, args.csv)


if __name__ == "__main__":
    run_script(main)
