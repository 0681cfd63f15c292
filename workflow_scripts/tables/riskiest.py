"""Write the page of the riskiest pairs: generated images beside their closest training images.

python -m workflow_scripts.tables.riskiest --models '[{"key": "sd_v1_4", ...}]' --dataset MIMIC-CXR
    --manifest results/cohort/manifest.parquet
    --pairs sd_v1_4=results/privacy/closest/sd_v1_4_pairs.parquet
    --extraction sd_v1_4=results/privacy/extraction/sd_v1_4_images.parquet
    --images sd_v1_4=results/generate/sd_v1_4/privacy/part-00000-of-00008.parquet
    --output results/tables/riskiest_pairs.html --table results/tables/riskiest_pairs.csv

Makes one HTML file that needs nothing beside it, and the same pairs as CSV. Both show or name
patients and are readable by their owner only.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from workflow_scripts.common.csv_cells import safe_frame
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.images import decode_image, find_in_shards
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.privacy.extraction.score import IMAGE_SCHEMA
from workflow_scripts.privacy.extraction.views import AS_IT_LIES
from workflow_scripts.privacy.private_table import read_private_table
from workflow_scripts.privacy.score_closest import PAIR_SCHEMA
from workflow_scripts.tables.examples import parse_images, thumbnail
from workflow_scripts.tables.models import ModelEntry, controls_last, parse_models
from workflow_scripts.tables.pages import render

log = logging.getLogger(__name__)

MOST: Final = 12
"""Pairs of each model and lens."""


@dataclass(frozen=True)
class Lens:
    """How two images are compared; columns of the table of pairs begin with its name."""

    name: str
    title: str
    riskier: str  # `low` or `high` values
    decimals: int


LENSES: Final = (
    Lens("latent", "RAD-DINO distance, lowest first", "low", 4),
    Lens("reid", "Re-identification score, highest first", "high", 4),
)


EXTRACTED: Final = tuple(
    Lens(lens, f"Extracted: {words} (ratio to the closest radiographs)", "low", 3)
    for lens, words in {
        "pixel_whole": "pixels, whole image",
        "latent_whole": "RAD-DINO, whole image",
        "pixel_patch": "pixels, one patch",
        "latent_patch": "RAD-DINO, one patch",
    }.items()
)
"""The lenses of the extraction attack; pairs that raised no alarm are not shown."""


@dataclass(frozen=True)
class Pair:
    """A generated image beside a training image.

    Attributes:
        value: the lens's value, as text.
        own: whether the training image shows the patient of the prompt.
        caption: the prompt of the generated image.
        prompt_id: id of the generated image's prompt.
        image_id, patient_id: ids of the training image and of its patient.
        generated, training: the two images as data URIs.
        view: how the generated image was compared; "" as it lies. It is shown as it lies.
    """

    value: str
    own: bool
    caption: str
    prompt_id: str
    image_id: str
    patient_id: str
    generated: str
    training: str
    view: str = ""


@dataclass(frozen=True)
class Shown:
    """A model's riskiest pairs by one lens, the riskiest first."""

    lens: Lens
    pairs: tuple[Pair, ...]


def riskiest(pairs: pd.DataFrame, lens: Lens, most: int = MOST) -> pd.DataFrame:
    """Return a model's riskiest pairs by one lens, each training image once.

    Args:
        pairs: see `score_closest.PAIR_SCHEMA`, or `extraction.score.IMAGE_SCHEMA`.
        lens: the lens; for a lens of extraction, only pairs with an alarm count.
        most: the most pairs to return.

    Returns:
        Columns `prompt_id, patient_id, image_id, training_patient_id, value, view, own_patient`;
        the view is "" where images were compared as they lie.
    """
    renamed = {
        f"{lens.name}_image_id": "image_id",
        f"{lens.name}_patient_id": "training_patient_id",
        lens.name: "value",
    }
    if f"{lens.name}_alarm" in pairs:
        pairs = pairs[pairs[f"{lens.name}_alarm"]]
    riskiest = pairs[["prompt_id", "patient_id", *renamed]].rename(columns=renamed)
    riskiest["view"] = ""
    if f"{lens.name}_view" in pairs:
        riskiest["view"] = pairs[f"{lens.name}_view"].replace(AS_IT_LIES.name, "")
    by = ["value", "prompt_id", "image_id"]
    ascending = [lens.riskier == "low", True, True]
    riskiest = riskiest.sort_values(by, ascending=ascending, kind="stable")
    riskiest = riskiest.drop_duplicates("image_id").head(most).reset_index(drop=True)
    riskiest["own_patient"] = riskiest["training_patient_id"] == riskiest["patient_id"]
    return riskiest


def shown_of(
    pairs: pd.DataFrame,
    shards: Sequence[Path],
    paths: dict[str, str],
    most: int,
    attacked: pd.DataFrame | None = None,
) -> tuple[list[Shown], pd.DataFrame]:
    """Return a model's riskiest pairs by every lens with their images, and as a table.

    Args:
        pairs: the model's table of closest pairs.
        shards: the model's images of the prompt set `privacy`.
        paths: the file of each training image.
        most: pairs of each lens.
        attacked: the extraction attack's table of its images; None if it was not attacked.

    Raises:
        InputError: an image is missing or cannot be decoded.
    """
    chosen = {lens: riskiest(pairs, lens, most) for lens in LENSES}
    if attacked is not None:
        extracted = {lens: riskiest(attacked, lens, most) for lens in EXTRACTED}
        chosen |= {lens: frame for lens, frame in extracted.items() if not frame.empty}
    table = pd.concat(
        [
            frame.assign(lens=lens.name, rank=range(1, len(frame) + 1))
            for lens, frame in chosen.items()
        ],
        ignore_index=True,
    )
    drawn = _generated(set(table["prompt_id"]), shards)
    training = _training(set(table["image_id"]), paths)
    shown = []
    for lens, frame in chosen.items():
        lens_pairs = tuple(
            Pair(
                f"{row['value']:.{lens.decimals}f}",
                bool(row["own_patient"]),
                drawn[row["prompt_id"]][1],
                row["prompt_id"],
                row["image_id"],
                row["training_patient_id"],
                drawn[row["prompt_id"]][0],
                training[row["image_id"]],
                row["view"],
            )
            for row in frame.to_dict("records")
        )
        shown.append(Shown(lens, lens_pairs))
    return shown, table


def _generated(wanted: set[str], shards: Sequence[Path]) -> dict[str, tuple[str, str]]:
    """Return the thumbnail and the caption of each generated image, by prompt."""
    drawn = {
        item.id: (thumbnail(item.open()), item.caption or "")
        for item in find_in_shards(shards, wanted)
    }
    missing = sorted(wanted - set(drawn))
    if missing:
        raise InputError(
            f"{len(missing)} image(s) are in no shard, first {missing[0]!r}",
            shards[0] if shards else None,
            "rerun the privacy stage for this model",
        )
    return drawn


def _training(wanted: set[str], paths: dict[str, str]) -> dict[str, str]:
    """Return the thumbnail of each training image, by its id."""
    missing = sorted(wanted - set(paths))
    if missing:
        raise InputError(f"{missing[0]!r} is not in the manifest", None, "rerun the privacy stage")
    return {name: thumbnail(decode_image(Path(paths[name]), paths[name])) for name in wanted}


def every_model(
    pairs: dict[str, list[Path]],
    shards: dict[str, list[Path]],
    models: Sequence[ModelEntry],
    manifest: str | Path,
    most: int,
    attacked: Mapping[str, list[Path]] | None = None,
) -> Iterator[tuple[ModelEntry, list[Shown], pd.DataFrame]]:
    """Yield each model that has pairs, with what `shown_of` returns.

    Raises:
        InputError: an unknown model, or see `shown_of`.
    """
    unknown = sorted((set(pairs) | set(shards)) - {model.key for model in models})
    if unknown:
        raise InputError(f"pairs of unknown model(s): {', '.join(unknown)}", "--pairs, --images")
    frame = read_manifest(manifest, ["image_id", "path"])
    paths = dict(zip(frame["image_id"], frame["path"], strict=True))
    for model in controls_last(models):
        for path in pairs.get(model.key, []):
            table = read_private_table(path, PAIR_SCHEMA)
            files = (attacked or {}).get(model.key, [])
            extracted = read_private_table(files[0], IMAGE_SCHEMA) if files else None
            yield model, *shown_of(table, shards.get(model.key, []), paths, most, extracted)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", required=True, help="JSON list of models, in table order")
    add("--dataset", required=True, help="name of the data")
    add("--manifest", required=True, help="manifest of the cohort (Parquet)")
    add("--pairs", nargs="*", action="extend", default=[], metavar="MODEL=FILE")
    add("--images", nargs="*", action="extend", default=[], metavar="MODEL=FILE")
    add("--extraction", nargs="*", action="extend", default=[], metavar="MODEL=FILE")
    add("--most", type=int, default=MOST, help="pairs of each model and lens")
    add("--output", required=True, type=Path, help="HTML file to write")
    add("--table", required=True, type=Path, help="CSV file to write")
    args = parser.parse_args(argv)
    models = parse_models(args.models)
    sections, tables = [], []
    pairs, shards = parse_images(args.pairs, "--pairs"), parse_images(args.images, "--images")
    attacked = parse_images(args.extraction, "--extraction")
    for model, shown, table in every_model(
        pairs, shards, models, args.manifest, args.most, attacked
    ):
        sections.append({"model": model, "lenses": shown})
        tables.append(table.assign(model=model.key))
    columns = ["model", "lens", "rank", "value", "own_patient", "prompt_id", "patient_id"]
    columns += ["image_id", "training_patient_id", "view"]
    frame = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    with whole_file(args.table, owner_only=True) as temporary:
        safe_frame(frame[columns]).to_csv(temporary, index=False)
    with whole_file(args.output, owner_only=True) as temporary:
        page = render("riskiest.html.j2", {"dataset": args.dataset, "sections": sections})
        temporary.write_text(page, encoding="utf-8")
    log.info("%d pairs of %d models in %s", len(frame), len(sections), args.output)


if __name__ == "__main__":
    run_script(main)
