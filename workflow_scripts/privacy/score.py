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

from workflow_scripts.common.as_published import Deviations, deviations
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.images import ImageItem, decode_image, read_shards, shards_sha256
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, Value
from workflow_scripts.features.cache import Features
from workflow_scripts.features.pair_scores import pair_scores
from workflow_scripts.fidelity.inputs import ScoredModel, model_of, rows_in_order_of, rows_of
from workflow_scripts.fidelity.resample import effective_number, wilson_interval
from workflow_scripts.generate.make_control import positive_masks
from workflow_scripts.privacy.distances import latent_distance, pixel_distance, pixels
from workflow_scripts.privacy.intervals import bootstrap_of_means, percentile_interval
from workflow_scripts.privacy.other_prompts import OTHERS, other_radiographs
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.scripts import (
    ModelFeatures,
    privacy_arguments,
    privacy_record,
    read_model_features,
    settings_of,
    siamese_head,
    write_scored,
)
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
    compared = _compared_in_pixels(pairs, switches)
    radiographs_of: dict[str, list[str]] = {}
    for prompt, name in dict.fromkeys(compared):
        radiographs_of.setdefault(prompt, []).append(name)

    def radiograph(name: str) -> np.ndarray:
        return pixels(decode_image(Path(files[name]), files[name]), switches)

    def distances_of(item: ImageItem) -> dict[tuple[str, str], list[float]]:
        generated = pixels(item.open(), switches)
        return {
            (item.id, name): [
                pixel_distance(view, generated, switches)
                for view in (radiographs[name], radiographs[name][:, ::-1])
            ]
            for name in radiographs_of[item.id]
        }

    names = list(dict.fromkeys(name for _, name in compared))
    images = (item for item in read_shards(shards) if item.id in radiographs_of)
    distances: dict[tuple[str, str], list[float]] = {}
    with ThreadPoolExecutor(threads) as pool:
        progress = Progress("radiographs", len(names), "images")
        arrays = _in_threads(pool, radiograph, iter(names), 8 * threads, progress)
        radiographs = dict(zip(names, arrays, strict=True))
        progress = Progress("pixel distance", len(radiographs_of), "images")
        for of_image in _in_threads(pool, distances_of, images, 8 * threads, progress):
            distances |= of_image
    missing = list(dict.fromkeys(pair[0] for pair in compared if pair not in distances))
    if missing:
        raise InputError(
            f"{len(missing)} image(s) are in no shard, first {missing[0]!r}",
            shards[0] if shards else None,
            "rerun the generate stage for this prompt set",
        )
    return np.array([distances[pair] for pair in compared], np.float64)


def _compared_in_pixels(pairs: pd.DataFrame, switches: Deviations) -> list[tuple[str, str]]:
    """Return the generated image and the radiograph that give each pair's pixel distance."""
    images = pairs["prompt_id"]
    if switches.pixel_last_image_only:
        in_order = pairs.sort_values("replicate", kind="stable")
        last = in_order.drop_duplicates("image_id", keep="last").set_index("image_id")["prompt_id"]
        images = pairs["image_id"].map(last)
    radiographs = pairs["other_image_id" if "other_image_id" in pairs else "image_id"]
    return list(zip(images, radiographs, strict=True))


def _in_threads(
    pool: ThreadPoolExecutor,
    function: Callable[[Any], Any],
    items: Iterator[Any],
    block: int,
    progress: Progress,
) -> Iterator[Any]:
    """Yield a function's results in the order of the items, with a block of items in memory."""
    while taken := list(islice(items, block)):
        yield from pool.map(function, taken)
        progress.update(len(taken))


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
    n, count = len(prompts), len(np.unique(patients))
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
        values.append(Value(name, mean, direction, n, **percentile_interval(drawn, count)))
    for i, (lens, extreme) in enumerate(EXTREMES.items()):
        deviation = float(table[:, i].std(ddof=1)) if n > 1 else None
        drawn = None
        if means is not None and squares is not None:
            variance = squares[:, i] - np.square(means[:, i])
            drawn = np.sqrt(np.maximum(variance, 0) * n / (n - 1))
        reason = None if deviation is not None else "one prompt has no deviation"
        name = f"{lens}_sd_of_{extreme}"
        interval = percentile_interval(drawn, count)
        values.append(Value(name, deviation, "none", n, reason=reason, **interval))
    # Wilson's interval: with no prompt above the threshold, a bootstrap would claim certainty.
    above = (prompts["reid_max"] > settings.threshold).to_numpy(np.float64)
    low, high = wilson_interval(float(above.mean()), effective_number(above, patients))
    share, number = (low, high), (n * low, n * high)
    return [
        *values,
        Value("reid_share", above.mean().item(), "lower", n, "all", None, share, "Wilson 95%"),
        Value("reid_count", above.sum().item(), "lower", n, "all", None, number, "Wilson 95%"),
        Value("reid_max", float(prompts["reid_max"].max()), "lower", n),
    ]


def score(
    model: ScoredModel,
    settings: Settings,
    shards: Sequence[Path],
    threads: int = 1,
    others: int = 0,
) -> tuple[Record, pd.DataFrame, pd.DataFrame]:
    """Read a model's features and images; return its privacy record, its pairs and other pairs.

    The other pairs are those of its images with the radiographs of `others` other prompts each.

    Raises:
        InputError: features or images are missing, damaged, not comparable or of other prompts.
    """
    features = read_model_features(model)
    prompts = read_prompts(model.prompts)
    rows = rows_of(prompts["prompt_id"], features.latent.ids, model.generated, "prompt set")
    pairs = prompts.iloc[rows][["prompt_id", "image_id", "replicate"]].reset_index(drop=True)
    if len(pairs) < len(prompts):
        log.warning("%s: %d of %d prompts have an image", model.key, len(pairs), len(prompts))
    if shards_sha256(shards) != features.latent.attrs["collection_sha256"]:
        raise InputError(
            "the features are of other images than the shards hold",
            model.generated,
            "rerun the features stage for this collection",
        )
    manifest = read_manifest(model.manifest)
    described = list(dict.fromkeys(pairs["image_id"]))
    rows = rows_of(manifest["image_id"], described, model.prompts, "manifest")
    radiographs = manifest.iloc[rows].set_index("image_id", drop=False)
    patients = radiographs["patient_id"]

    compared = _with_other_prompts(pairs, radiographs, others, settings.seed)
    image_rows = compared.pop("row").to_numpy()
    compared["latent"], compared["reid"] = _feature_lenses(
        features, image_rows, list(compared["other_image_id"]), model
    )
    files = dict(zip(radiographs["image_id"], radiographs["path"], strict=True))
    switches = deviations(model.protocol)
    distances = pixel_distances(compared, files, shards, switches, threads)
    compared[["pixel", "mirrored"]] = distances

    count = len(pairs)
    pairs, other_pairs = compared.iloc[:count], compared.iloc[count:].reset_index(drop=True)
    per_prompt = prompt_table(pairs)
    patients_of_prompts = patients[per_prompt.index].to_numpy(str)
    record = privacy_record(
        model,
        "pairwise",
        privacy_values(per_prompt, patients_of_prompts, settings),
        {
            **asdict(settings),
            "pairs": count,
            "prompts_asked": int(prompts["image_id"].nunique()),
            "pixel_distance": "root mean square over 512 x 512 pixels, 0 to 255",
        },
        settings,
        features.files,
    )
    return record, pairs, other_pairs


def _with_other_prompts(
    pairs: pd.DataFrame, radiographs: pd.DataFrame, others: int, seed: int
) -> pd.DataFrame:
    """Return the pairs with the prompts' own radiographs, then those with other prompts'.

    Args:
        pairs: `prompt_id`, `image_id` and `replicate` of each generated image.
        radiographs: the manifest's rows of the prompts' radiographs, indexed by `image_id`.
        others: other prompts for each image.
        seed: decides between equally similar prompts.

    Returns:
        The columns of `pairs`, `other_image_id` (the radiograph that is compared) and `row`, the
        row of `pairs` that the image has.
    """
    findings = positive_masks(radiographs)
    chosen = other_radiographs(radiographs["patient_id"], findings, others, seed)
    pairs = pairs.assign(row=np.arange(len(pairs)))
    own = pairs.assign(other_image_id=pairs["image_id"])
    return pd.concat([own, pairs.merge(chosen, on="image_id")], ignore_index=True)


def _feature_lenses(
    features: ModelFeatures, image_rows: np.ndarray, radiographs: list[str], model: ScoredModel
) -> tuple[np.ndarray, np.ndarray]:
    """Return the latent distance and the re-identification score of each pair, (n,) each.

    Args:
        features: see `ModelFeatures`.
        image_rows: (n,) the row of each pair's image among RAD-DINO's features.
        radiographs: n ids of radiographs.
        model: the model, for errors.
    """

    def rows_in(real: Features) -> np.ndarray:
        return rows_of(real.ids, radiographs, model.real, "features of radiographs")

    real, images = features.latent_real, features.latent
    latent = _in_parts(latent_distance, real, rows_in(real), images, image_rows)
    weight, bias = siamese_head(features.reid, model.generated)
    scores = partial(pair_scores, weight=weight, bias=bias)
    reid_rows = rows_in_order_of(images, features.reid, model.generated)[image_rows]
    real = features.reid_real
    reid = _in_parts(scores, real, rows_in(real), features.reid, reid_rows)
    return latent, reid


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


def main(argv: list[str] | None = None) -> None:
    """Score one model from the command line."""
    parser = privacy_arguments((__doc__ or "").splitlines()[0], pairs=True)
    parser.add_argument(
        "--shards", required=True, type=Path, nargs="+", help="the generated images"
    )
    parser.add_argument(
        "--others", type=Path, help="the table of pairs with other prompts' radiographs, if wanted"
    )
    args = parser.parse_args(argv)
    others = OTHERS if args.others else 0
    record, pairs, other_pairs = score(
        model_of(args), settings_of(args), args.shards, args.threads, others
    )
    write_private_table(pairs, PAIR_SCHEMA, args.pairs)
    if args.others:
        write_private_table(other_pairs, OTHERS_SCHEMA, args.others)
    write_scored(record, args.output)


if __name__ == "__main__":
    run_script(main)
