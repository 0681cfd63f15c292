"""Draw a prompt set from the manifest.

    python -m workflow_scripts.cohort.draw_prompts --manifest manifest.parquet --prompt-set privacy
        --captions 2000 --draw-seed 42 --seeds 639 25 275 --out privacy.parquet --csv privacy.csv

A prompt takes its id and findings from the first image with its caption, in the manifest's order.
The three sets are:

- `test`: every unique caption of the test split, in the manifest's order. If captions are rewritten
  reports, the unique original reports that are not yet prompts follow (`second_wording`). The
  published list of 5,034 test prompts is longer than the list of images, so it holds both wordings;
- `privacy`: `captions` of the unique training captions, each with every given seed;
- `augment`: `captions` of the unique training captions.

Training captions are drawn by `DataFrame.sample(n=captions, random_state=draw_seed)` from the
unique ones. `augment` may be drawn as in the official release instead (`draw_augment`). The draw
depends on the manifest (its training captions and their order).

The seed of a test or augment prompt comes from the sha256 of the prompt set and the caption alone.
So an image does not change with the batch, the shard or the other prompts of the set.
"""

import argparse
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.cohort.annotations import GPT4, RULE_BASED
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.manifest import (
    COHORT_PROMPT_SETS,
    FINDINGS,
    PROMPT_SCHEMA,
    read_manifest,
    write_prompts,
)

log = logging.getLogger(__name__)

DRAWS: Final = ("unique", "official")

CSV_COLUMNS = ["prompt_id", "caption", "seed", "replicate"]
"""Columns of the export for external models; none of them names an image or a patient."""


def draw_prompts(
    manifest: pd.DataFrame, prompt_set: str, settings: Mapping[str, Any]
) -> pd.DataFrame:
    """Draw a prompt set with the config's settings.

    Args:
        manifest: the cohort's manifest.
        prompt_set: `test`, `privacy` or `augment`.
        settings: the arguments of `draw_privacy` or `draw_augment`; empty for `draw_test`.

    Raises:
        InputError: the manifest has too few captions, or a setting is invalid.
    """
    draws: dict[str, Callable[..., pd.DataFrame]]
    draws = {"test": draw_test, "privacy": draw_privacy, "augment": draw_augment}
    return draws[prompt_set](manifest, **settings)


def draw_test(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return one prompt for every unique test caption and second wording, in the manifest's order.

    Second wordings come after all captions, so that the images of captions do not depend on them.
    Impressions have no second wordings.

    Raises:
        InputError: no test image has a caption.
    """
    captions = unique_captions(manifest, "test")
    if captions.empty:
        raise InputError(
            "no test image has a caption", "the manifest", "check the source of the captions"
        )
    rewritten = manifest[(manifest["split"] == "test") & (manifest["caption_source"] == GPT4)]
    second = rewritten[rewritten["report"].notna() & ~rewritten["report"].isin(captions["caption"])]
    second = second.drop_duplicates("report")
    second = second.assign(caption=second["report"], caption_source=RULE_BASED)
    both = pd.concat([captions, second], ignore_index=True)
    prompts = prompts_of(both, "test")
    prompts["second_wording"] = np.arange(len(prompts)) >= len(captions)
    log.info("%d test prompts of images, %d second wordings", len(captions), len(second))
    return prompts


def draw_privacy(
    manifest: pd.DataFrame, captions: int, draw_seed: int, seeds: Sequence[int]
) -> pd.DataFrame:
    """Return `captions` training captions x `seeds`; replicate i has `seeds[i]`.

    A caption's replicates follow one another.

    Args:
        manifest: the cohort's manifest.
        captions: number of captions.
        draw_seed: seed of the draw.
        seeds: the seed of each replicate: 1 to 100 different numbers, >= 0.

    Raises:
        InputError: there are too few captions, or the seeds are invalid.
    """
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0 or len(seeds) > 100:
        raise InputError(
            f"the seeds {list(seeds)} are not 1 to 100 different numbers from 0",
            "prompt_sets.privacy.seeds",
            "the published ten are 639 25 275 223 736 677 892 87 422 30",
        )
    return prompts_of(drawn_captions(manifest, captions, draw_seed), "privacy", seeds)


def draw_augment(
    manifest: pd.DataFrame, captions: int, draw_seed: int, draw: str = "unique"
) -> pd.DataFrame:
    """Return training captions, one prompt each.

    Args:
        manifest: the cohort's manifest.
        captions: number of captions to draw.
        draw_seed: seed of the draw.
        draw: `unique` draws among unique captions, which gives `captions` prompts. `official` draws
            images like those of the released list of 20,000 (no uncertain label, GPT-4's captions
            alone, with repeated captions). It then drops repeated captions, as the release's
            sampler does, which leaves fewer than `captions` prompts (18,575 of the released list).

    Raises:
        InputError: there are too few captions.
    """
    if draw == "official":
        return prompts_of(_official_draw(manifest, captions, draw_seed), "augment")
    return prompts_of(drawn_captions(manifest, captions, draw_seed), "augment")


def _official_draw(manifest: pd.DataFrame, captions: int, draw_seed: int) -> pd.DataFrame:
    rows = manifest[(manifest["split"] == "train") & manifest["caption"].notna()]
    certain = ~(rows[list(FINDINGS)] == -1).fillna(False).any(axis=1)
    other = rows["caption_source"] == RULE_BASED
    rows = rows[certain & ~other]
    if len(rows) < captions:
        raise InputError(
            f"{captions} training images are asked for, and {len(rows)} have a caption that the "
            f"official draw takes ({int((~certain).sum())} have an uncertain label, "
            f"{int(other.sum())} a rule-based caption)",
            "prompt_sets.augment",
            f"ask for 1 to {len(rows)} captions, or set draw: unique"
            if len(rows)
            else "set draw: unique, or give training images a caption",
        )
    return rows.sample(n=captions, random_state=draw_seed).drop_duplicates("caption")


def unique_captions(manifest: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the first image of each caption of a split, in the manifest's order."""
    part = manifest[(manifest["split"] == split) & manifest["caption"].notna()]
    return part.drop_duplicates("caption")


def drawn_captions(manifest: pd.DataFrame, captions: int, draw_seed: int) -> pd.DataFrame:
    """Draw images with unique training captions, as the module's docstring says.

    Raises:
        InputError: there are fewer unique training captions than asked for.
    """
    unique = unique_captions(manifest, "train")
    if captions < 1 or len(unique) < captions:
        raise InputError(
            f"{captions} training captions are asked for, and the manifest has {len(unique)} "
            f"unique ones (on {int((manifest['split'] == 'train').sum())} training images)",
            "prompt_sets.*.captions",
            f"ask for 1 to {len(unique)}, or give more training images a caption"
            if len(unique)
            else "give training images a caption: is the source of captions the right one?",
        )
    return unique.sample(n=captions, random_state=draw_seed)


def prompt_seed(prompt_set: str, caption: str) -> int:
    """Return the seed of a caption's prompt in a set, in [0, 2**31 - 1]."""
    digest = hashlib.sha256(f"{prompt_set}\0{caption}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**31


def prompt_id(prompt_set: str, caption: str, replicate: int) -> str:
    """Return a prompt's id: the set, 16 hex digits of the caption's sha256, the replicate."""
    return f"{prompt_set}-{hashlib.sha256(caption.encode()).hexdigest()[:16]}-r{replicate:02d}"


def prompts_of(
    images: pd.DataFrame, prompt_set: str, seeds: Sequence[int] | None = None
) -> pd.DataFrame:
    """Return a set's prompts (`PROMPT_SCHEMA`), one for each image, or for each image and seed.

    Args:
        images: rows of the manifest; their captions are all different.
        prompt_set: the set's name, which ids and seeds depend on.
        seeds: the seeds of each image's replicates; None draws one from the caption.
    """
    replicates = 1 if seeds is None else len(seeds)
    prompts = images[["image_id", "caption", "caption_source", *FINDINGS]]
    prompts = prompts.loc[prompts.index.repeat(replicates)].reset_index(drop=True)
    prompts["second_wording"] = False
    prompts["replicate"] = pd.array(list(range(replicates)) * len(images), "int32")
    keys = list(zip(prompts["caption"], prompts["replicate"], strict=True))
    prompts["prompt_id"] = [prompt_id(prompt_set, caption, number) for caption, number in keys]
    prompts["seed"] = [
        prompt_seed(prompt_set, caption) if seeds is None else int(seeds[number])
        for caption, number in keys
    ]
    return prompts[PROMPT_SCHEMA.names]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", required=True, help="Parquet file to read")
    parser.add_argument("--prompt-set", required=True, choices=COHORT_PROMPT_SETS)
    parser.add_argument("--captions", type=int, help="number of captions (privacy, augment)")
    parser.add_argument("--draw-seed", type=int, help="seed of the draw (privacy, augment)")
    parser.add_argument("--draw", choices=DRAWS, help="see `draw_augment` (augment)")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds of the replicates (privacy)")
    parser.add_argument("--out", required=True, help="Parquet file to write")
    parser.add_argument("--csv", required=True, help="CSV export to write, for external models")
    args = parser.parse_args(argv)

    names = {
        "test": (),
        "privacy": ("captions", "draw_seed", "seeds"),
        "augment": ("captions", "draw_seed", "draw"),
    }[args.prompt_set]
    for name in ("captions", "draw_seed", "seeds", "draw"):
        if (getattr(args, name) is not None) != (name in names):
            verb = "needs" if name in names else "takes no"
            parser.error(f"prompt set {args.prompt_set} {verb} --{name.replace('_', '-')}")

    manifest = read_manifest(args.manifest)
    settings = {name: getattr(args, name) for name in names}
    prompts = draw_prompts(manifest, args.prompt_set, settings)
    write_prompts(prompts, args.out)
    write_prompt_csv(prompts, args.csv)


def write_prompt_csv(prompts: pd.DataFrame, path: str | Path) -> None:
    """Write the export for external models, see `CSV_COLUMNS`."""
    with whole_file(path) as temporary:
        prompts[CSV_COLUMNS].to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    run_script(main)
