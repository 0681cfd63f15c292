"""Score one model's privacy: each generated image against the radiograph of its prompt.

    python -m workflow_scripts.privacy.score --model sd_v1_4 --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/privacy.parquet \\
        --real results/features/real/train --generated results/features/sd_v1_4/privacy \\
        --shards results/generate/sd_v1_4/privacy/part-*.parquet \\
        --output results/privacy/sd_v1_4.json --pairs results/privacy/sd_v1_4_pairs.parquet \\
        --others results/privacy/sd_v1_4_others.parquet

It reads rad_dino.h5 and reid.h5 of both collections, and the images. It writes one record and the
table of pairs, which names patients' images and which only its owner may read. With `--others` it
also writes a table of the same images against other prompts' radiographs, from which
`score_lenses.py` takes similarity by chance (see `other_prompts.py`).

There are four lenses: the re-identification score (high is a risk), the latent and the pixel
distance (low is a risk), and the pixel distance to the mirrored radiograph, because the other three
can miss a flipped copy. The riskiest of a prompt's replicates counts, and a model's values are
means over prompts (the paper's Table 17b shows that its Table 3 averages them so).
"""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from workflow_scripts.common.as_published import PROTOCOLS, Deviations, deviations
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.images import ImageItem, decode_image, read_shards, shards_sha256
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.common.settings import add_flags
from workflow_scripts.features.cache import Features
from workflow_scripts.features.pair_scores import pair_scores
from workflow_scripts.fidelity.inputs import (
    origin,
    read_comparable,
    require_same_images,
    rows_in_order_of,
    rows_of,
)
from workflow_scripts.fidelity.resample import variance_of_mean, wilson_interval
from workflow_scripts.generate.make_control import positive_masks
from workflow_scripts.privacy.distances import latent_distance, pixel_distance, pixels
from workflow_scripts.privacy.other_prompts import OTHERS, other_radiographs
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.settings import Settings

log = logging.getLogger(__name__)

LENSES: Final = {"reid": "lower", "latent": "higher", "pixel": "higher", "mirrored": "higher"}
"""The lenses, each with the direction that is safer."""

EXTREMES: Final = {lens: "max" if way == "lower" else "min" for lens, way in LENSES.items()}
"""The extreme of a prompt's images that counts in each lens: the riskiest."""

PAIRS_AT_ONCE: Final = 4096
"""Pairs whose features are in memory at the same time, in float64."""

_PROMPT: Final = [
    pa.field("prompt_id", pa.string(), nullable=False),
    pa.field("image_id", pa.string(), nullable=False),
    pa.field("replicate", pa.int32(), nullable=False),
]
_SEEN: Final = [pa.field(lens, pa.float64(), nullable=False) for lens in LENSES]

PAIR_SCHEMA: Final = pa.schema([*_PROMPT, *_SEEN])
"""A generated image and the radiograph of its prompt, `image_id`."""

OTHERS_SCHEMA: Final = pa.schema(
    [*_PROMPT, pa.field("other_image_id", pa.string(), nullable=False), *_SEEN]
)
"""A generated image and the radiograph of another prompt, `other_image_id`."""


def pixel_distances(
    pairs: pd.DataFrame,
    files: dict[str, str],
    shards: Sequence[Path],
    switches: Deviations,
    threads: int = 1,
) -> np.ndarray:
    """Return each pair's pixel distance, plain and to the mirrored radiograph, (n, 2), in order.

    A pair is a generated image and a radiograph: `other_image_id`, or without that column the
    prompt's own, `image_id`.

    The radiographs are decoded once and kept at the compared size (0.26 MB each if gray). The
    generated images are read in blocks.

    Args:
        pairs: `prompt_id`, `image_id`, `replicate` and optionally `other_image_id`.
        files: the file of each radiograph, by its id.
        shards: the generated images; ids that are not in `pairs` are ignored.
        switches: the protocol's switches; with `pixel_last_image_only` all images of a prompt get
            the distance of its last replicate.
        threads: images decoded at the same time.

    Raises:
        InputError: an image cannot be decoded, or no shard holds the image of a pair.
    """
    asked = pairs["prompt_id"]
    if switches.pixel_last_image_only:
        in_order = pairs.sort_values("replicate", kind="stable")
        last = in_order.drop_duplicates("image_id", keep="last").set_index("image_id")["prompt_id"]
        asked = pairs["image_id"].map(last)
    compared = pairs["other_image_id" if "other_image_id" in pairs else "image_id"]
    keys = list(zip(asked, compared, strict=True))
    radiographs_of: dict[str, list[str]] = {}
    for prompt, name in dict.fromkeys(keys):
        radiographs_of.setdefault(prompt, []).append(name)

    def of_file(name: str) -> np.ndarray:
        return pixels(decode_image(Path(files[name]), files[name]), switches)

    def of_item(item: ImageItem) -> list[tuple[tuple[str, str], list[float]]]:
        generated = pixels(item.open(), switches)
        return [
            (
                (item.id, name),
                [pixel_distance(x, generated, switches) for x in (real[name], real[name][:, ::-1])],
            )
            for name in radiographs_of[item.id]
        ]

    distances: dict[tuple[str, str], list[float]] = {}
    with ThreadPoolExecutor(threads) as pool:
        names = list(dict.fromkeys(compared))
        progress = Progress("radiographs", len(names), "images")
        real: dict[str, np.ndarray] = {}
        for block in _in_blocks(iter(names), 8 * threads):
            real.update(zip(block, pool.map(of_file, block), strict=True))
            progress.update(len(block))
        progress = Progress("pixel distance", len(radiographs_of), "images")
        wanted = (item for item in read_shards(shards) if item.id in radiographs_of)
        for items in _in_blocks(wanted, 8 * threads):
            for distances_of_image in pool.map(of_item, items):
                distances.update(distances_of_image)
            progress.update(len(items))
    missing = list(
        dict.fromkeys(prompt for prompt, name in keys if (prompt, name) not in distances)
    )
    if missing:
        raise InputError(
            f"{len(missing)} image(s) are in no shard, first {missing[0]!r}",
            shards[0] if shards else None,
            "rerun the generate stage for this prompt set",
        )
    return np.array([distances[key] for key in keys], np.float64)


def prompt_table(pairs: pd.DataFrame, by: Sequence[str] = ("image_id",)) -> pd.DataFrame:
    """Return the extremes and means of each prompt's pairs, one row for each prompt's radiograph.

    Args:
        pairs: the columns `by` and one column for each lens.
        by: the columns that identify a row of the result.

    Returns:
        Columns `reid_max`, `{lens}_min` of the distances and `{lens}_mean`, indexed by `by`.
    """
    groups = pairs.groupby(list(by) if len(by) > 1 else by[0], sort=False)
    return groups.agg(
        **{f"{lens}_{extreme}": (lens, extreme) for lens, extreme in EXTREMES.items()},
        **{f"{lens}_mean": (lens, "mean") for lens in LENSES},
    )


def privacy_values(prompts: pd.DataFrame, patients: np.ndarray, settings: Settings) -> list[Value]:
    """Return a model's values over prompts: means, standard deviations, shares, the maximum.

    The intervals take patients as units. Means and standard deviations have bootstrap intervals,
    the share and the count above the threshold Wilson's, and the maximum has none.

    Args:
        prompts: see `prompt_table`; at least one row.
        patients: (n,) the patient of each row's radiograph.
        settings: the threshold (a score above it is a re-identification), replicates and seed.
    """
    n = len(prompts)
    columns = {
        **{f"{lens}_mean_of_{e}": (f"{lens}_{e}", LENSES[lens]) for lens, e in EXTREMES.items()},
        **{f"{lens}_mean": (f"{lens}_mean", direction) for lens, direction in LENSES.items()},
    }
    table = np.column_stack([prompts[name].to_numpy(np.float64) for name, _ in columns.values()])
    draws = bootstrap_of_means(np.hstack([table, np.square(table)]), patients, settings)
    means, squares = np.hsplit(draws, 2) if draws is not None else (None, None)
    values = []
    for i, (name, (_, direction)) in enumerate(columns.items()):
        mean = float(table[:, i].mean())
        drawn = None if means is None else means[:, i]
        values.append(Value(name, mean, direction, n, **percentile_interval(drawn)))
    for i, (lens, extreme) in enumerate(EXTREMES.items()):
        deviation = float(table[:, i].std(ddof=1)) if n > 1 else None
        drawn = None
        if means is not None and squares is not None:
            variance = squares[:, i] - np.square(means[:, i])
            drawn = np.sqrt(np.maximum(variance, 0) * n / (n - 1))
        reason = None if deviation is not None else "one prompt has no deviation"
        name = f"{lens}_sd_of_{extreme}"
        interval = percentile_interval(drawn)
        values.append(Value(name, deviation, "none", n, reason=reason, **interval))
    # Wilson's interval: with no prompt above the threshold, a bootstrap would claim certainty.
    above = (prompts["reid_max"] > settings.threshold).to_numpy(np.float64)
    low, high = wilson_interval(float(above.mean()), effective_number(above, patients))
    share, count = (low, high), (n * low, n * high)
    return [
        *values,
        Value("reid_share", above.mean().item(), "lower", n, "all", None, share, "Wilson 95%"),
        Value("reid_count", above.sum().item(), "lower", n, "all", None, count, "Wilson 95%"),
        Value("reid_max", float(prompts["reid_max"].max()), "lower", n),
    ]


def score(
    model: str,
    protocol: str,
    manifest_path: Path,
    prompts_path: Path,
    real_folder: Path,
    generated_folder: Path,
    shards: Sequence[Path],
    settings: Settings,
    threads: int = 1,
    others: int = 0,
) -> tuple[Record, pd.DataFrame, pd.DataFrame]:
    """Read a model's features and images; return its privacy record, its pairs and other pairs.

    The other pairs are those of its images with the radiographs of `others` other prompts each.

    Raises:
        InputError: features or images are missing, damaged, not comparable or of other prompts.
    """
    switches = deviations(protocol)
    prompts = read_prompts(prompts_path)
    folders = (real_folder, generated_folder)
    own_images = (protocol, model, "privacy")
    latent_real, latent = read_comparable(*folders, "rad_dino", *own_images)
    reid_real, reid = read_comparable(*folders, "reid", *own_images)
    require_same_images(latent_real, reid_real, real_folder)
    rows = rows_of(prompts["prompt_id"], latent.ids, generated_folder, "prompt set")
    pairs = prompts.iloc[rows][["prompt_id", "image_id", "replicate"]].reset_index(drop=True)
    if pairs.empty:
        raise InputError("a collection without images has no privacy", generated_folder)
    if len(pairs) < len(prompts):
        log.warning("%s: %d of %d prompts have an image", model, len(pairs), len(prompts))
    if shards_sha256(shards) != latent.attrs["collection_sha256"]:
        raise InputError(
            "the features are of other images than the shards hold",
            generated_folder,
            "rerun the features stage for this collection",
        )

    manifest = read_manifest(manifest_path)
    asked = list(dict.fromkeys(pairs["image_id"]))
    radiographs = manifest.iloc[rows_of(manifest["image_id"], asked, prompts_path, "manifest")]
    patients = radiographs.set_index("image_id")["patient_id"]
    pairs_with_others = other_radiographs(
        patients, positive_masks(radiographs), others, settings.seed
    )
    pairs["row"] = np.arange(len(pairs))
    both = pd.concat(
        [
            pairs.assign(other_image_id=pairs["image_id"]),
            pairs.merge(pairs_with_others, on="image_id"),
        ],
        ignore_index=True,
    )
    row, compared = both.pop("row").to_numpy(), list(both["other_image_id"])
    in_real = rows_of(latent_real.ids, compared, real_folder, "features of radiographs")
    both["latent"] = _in_parts(latent_distance, latent_real, in_real, latent, row)
    in_real = rows_of(reid_real.ids, compared, real_folder, "features of radiographs")
    in_generated = rows_in_order_of(latent, reid, generated_folder)[row]
    weight, bias = siamese_head(reid, generated_folder)
    scores = partial(pair_scores, weight=weight, bias=bias)
    both["reid"] = _in_parts(scores, reid_real, in_real, reid, in_generated)
    files = dict(zip(radiographs["image_id"], radiographs["path"], strict=True))
    both[["pixel", "mirrored"]] = pixel_distances(both, files, shards, switches, threads)

    count = len(pairs)
    pairs, other_pairs = both.iloc[:count], both.iloc[count:].reset_index(drop=True)
    per_prompt = prompt_table(pairs)
    record = Record(
        stage="privacy",
        model=model,
        family="pairwise",
        protocol=protocol,
        values=privacy_values(per_prompt, patients[per_prompt.index].to_numpy(str), settings),
        details={
            **asdict(settings),
            "pairs": len(pairs),
            "prompts_asked": int(prompts["image_id"].nunique()),
            "pixel_distance": "root mean square over 512 x 512 pixels, 0 to 255",
        },
        provenance=provenance(
            {"protocol": protocol, **asdict(settings)},
            inputs=[origin(file) for file in (latent_real, latent, reid_real, reid)],
        ),
    )
    return record, pairs, other_pairs


def _in_parts(
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray],
    real: Features,
    in_real: np.ndarray,
    generated: Features,
    in_generated: np.ndarray,
) -> np.ndarray:
    """Compare features pair by pair, (n,), with `PAIRS_AT_ONCE` pairs in memory at a time."""
    parts = []
    for start in range(0, len(in_real), PAIRS_AT_ONCE):
        rows = slice(start, start + PAIRS_AT_ONCE)
        parts.append(compare(real.features[in_real[rows]], generated.features[in_generated[rows]]))
    return np.concatenate(parts)


def siamese_head(features: Features, where: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight (1, d) and the bias that turn |a - b| into the score's logit.

    Raises:
        InputError: the feature file lacks them.
    """
    try:
        return features.extras["fc_end_weight"], features.extras["fc_end_bias"]
    except KeyError as error:
        raise InputError(
            f"re-identification features without {error.args[0]!r}",
            where,
            "delete reid.h5 and rerun the features stage",
        ) from None


def bootstrap_of_means(
    table: np.ndarray, patients: np.ndarray, settings: Settings
) -> np.ndarray | None:
    """Return the columns' means in each bootstrap replicate of patients, (replicates, columns).

    All rows of a patient are drawn together, and all columns share the draws.

    Args:
        table: (rows, columns).
        patients: (rows,) the patient of each row.
        settings: replicates and seed.

    Returns:
        The means; None without replicates or with a single patient.
    """
    codes = np.unique(patients, return_inverse=True)[1]
    sizes = np.bincount(codes).astype(np.float64)
    if settings.bootstrap == 0 or len(sizes) < 2:
        return None
    sums = np.zeros((len(sizes), table.shape[1]))
    np.add.at(sums, codes, table)
    rng = np.random.default_rng(settings.seed)
    means = np.empty((settings.bootstrap, table.shape[1]))
    for i in range(settings.bootstrap):
        drawn = rng.integers(0, len(sizes), len(sizes))
        means[i] = sums[drawn].sum(axis=0) / sizes[drawn].sum()
    return means


def effective_number(values: np.ndarray, patients: np.ndarray) -> float:
    """Return the effective sample size of clustered rows, in (0, n].

    It is the number of rows over their design effect (Kish, 1965), never more than the rows. If all
    values are equal, the design effect is unknown, and the number of patients is returned.

    Args:
        values: (n,) the value of each row.
        patients: (n,) the patient of each row.
    """
    alone = variance_of_mean(values)
    count = len(np.unique(patients))
    if count < 2 or alone == 0:
        return count
    together = variance_of_mean(values, patients)
    return len(values) * (alone / together if together > alone else 1.0)


def percentile_interval(draws: np.ndarray | None) -> dict[str, Any]:
    """Return a value's interval and its kind from its bootstrap replicates (b,); {} if None."""
    if draws is None:
        return {}
    low, high = (float(bound) for bound in np.quantile(draws, [0.025, 0.975]))
    return {"interval": (low, high), "interval_kind": "bootstrap 95%"}


def _in_blocks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while block := list(islice(items, size)):
        yield block


def model_arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that all scripts for one model share."""
    parser = argparse.ArgumentParser(description=description)
    add: Callable[..., Any] = parser.add_argument
    add("--model", required=True, help="the model's key in the config")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="the prompt set `privacy`")
    add("--real", required=True, type=Path, help="folder of the training radiographs' features")
    add("--generated", required=True, type=Path, help="folder of the model's features")
    add_flags(parser, Settings)
    add("--threads", type=int, default=1)
    add("--output", required=True, type=Path)
    return parser


def gpus_argument(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the number of GPUs to the parser of a score that computes on one."""
    parser.add_argument("--gpus", type=int, default=0)
    return parser


def pairs_argument(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the table of pairs to a parser."""
    parser.add_argument(
        "--pairs", required=True, type=Path, help="the table of pairs, for its owner only"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    parser = pairs_argument(model_arguments((__doc__ or "").splitlines()[0]))
    parser.add_argument(
        "--shards", required=True, type=Path, nargs="+", help="the generated images"
    )
    parser.add_argument(
        "--others", type=Path, help="the table of pairs with other prompts' radiographs, if wanted"
    )
    args = parser.parse_args(argv)
    record, pairs, other_pairs = score(
        args.model,
        args.protocol,
        args.manifest,
        args.prompts,
        args.real,
        args.generated,
        args.shards,
        Settings(args.threshold, args.bootstrap, args.seed),
        args.threads,
        OTHERS if args.others else 0,
    )
    write_private_table(pairs, PAIR_SCHEMA, args.pairs)
    if args.others:
        write_private_table(other_pairs, OTHERS_SCHEMA, args.others)
    write_record(record, args.output)
    for value in record.values:
        log.info("%s: %s %s (n %d)", args.model, value.metric, value.value, value.n)


if __name__ == "__main__":
    run_script(main)
