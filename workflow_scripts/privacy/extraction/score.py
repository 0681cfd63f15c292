"""Attack models by extraction: which training radiographs do their images show?

    python -m workflow_scripts.privacy.extraction.score --protocol sound \\
        --manifest results/cohort/manifest.parquet \\
        --prompts sd_v1_4=results/cohort/prompts/privacy.parquet \\
        --images sd_v1_4=results/generate/sd_v1_4/privacy/part-00000-of-00001.parquet \\
        --rad-dino weights/rad-dino --false-alarms 0.01 --neighbours 50 --repeats 3 \\
        --threshold 0.85 --bootstrap 1000 --seed 42 \\
        --seen results/privacy/extraction/.seen --out results/privacy/extraction

The attacker gives the model each caption many times, and picks the image that is closest to the
caption's other images: what the model repeats. This image is compared with every training
radiograph, not only the prompt's, by four lenses (`alarms`), as it lies, mirrored and moved
(`views`). It is picked before any radiograph is looked at, so that a caption raises a false alarm
as often as a held-out radiograph. The other images are compared as they lie. Without any
radiograph, the attacker sees which captions repeat an image (`repeats`).

The script writes one record for each model, and beside it the table of its images, which names
patients and which only its owner may read. What was seen in images is kept in --seen. So a killed
job continues, and images that did not change are not looked at again.
"""

import argparse
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from workflow_scripts.common.as_published import PROTOCOLS, deviations
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.common.resuming import read_unless_damaged
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.features.encoders import load_encoder, weights_sha256
from workflow_scripts.features.extract import (
    Collection,
    manifest_collection,
    shard_collection,
)
from workflow_scripts.fidelity.inputs import rows_of
from workflow_scripts.fidelity.resample import effective_number, wilson_interval
from workflow_scripts.privacy.extraction.alarms import (
    LENSES,
    Limits,
    Scores,
    least_of,
    limits_of,
    scores_of,
)
from workflow_scripts.privacy.extraction.look import (
    Seen,
    look,
    pixel_tiles,
    token_scale,
    token_tiles,
)
from workflow_scripts.privacy.extraction.repeats import repeated, repeats_of, widths_by_chance
from workflow_scripts.privacy.extraction.settings import ExtractionSettings
from workflow_scripts.privacy.extraction.tiles import Nearest, Tiles, nearest
from workflow_scripts.privacy.extraction.views import (
    AS_IT_LIES,
    MIRRORED,
    View,
    mirrored_collection,
    viewed_pixels,
    views_digest,
    views_of,
)
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.settings import Settings

log = logging.getLogger(__name__)

FAMILY: Final = "extraction"

IMAGE_SCHEMA: Final = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("caption_image_id", pa.string(), nullable=False),
        pa.field("picked", pa.bool_(), nullable=False),
        pa.field("alarm", pa.bool_(), nullable=False),
        pa.field("alarm_as_it_lies", pa.bool_(), nullable=False),
        *(
            pa.field(f"{lens}{column}", kind, nullable=False)
            for lens in LENSES
            for column, kind in (
                ("", pa.float64()),
                ("_image_id", pa.string()),
                ("_patient_id", pa.string()),
                ("_tile", pa.int32()),
                ("_view", pa.string()),
                ("_alarm", pa.bool_()),
            )
        ),
    ]
)
"""A row for each generated image. `patient_id` is the prompt's patient, `caption_image_id` the
radiograph that the caption describes. `picked` says whether the attacker picks the image among
those of its caption: then its other columns are those of the view with the least score, against
limits that are set on held-out radiographs in the same views; otherwise of the image as it lies.
`alarm` says whether any lens raises an alarm at the joint limit, `alarm_as_it_lies` the same
without other views. The columns of a lens are its score, the training radiograph that it names and
that radiograph's patient, the patch (of the radiograph, 0 to 15, row by row; -1 for the whole
image), the view of the image, and whether the lens alone raises an alarm."""


@dataclass(frozen=True)
class Radiographs:
    """The training radiographs that images are compared with, and the limits set on held-out ones.

    Attributes:
        training: the training radiographs' pixels and tokens.
        patients: (n,) the patient of each.
        held_out: the same of radiographs of patients that no model was trained on.
        held_out_patients: the patient of each of these.
        scale: the mean and spread of tokens, see `token_scale`.
        limits: the limits of images in `views`; None if there are too few held-out patients.
        limits_as_they_lie: those of images as they lie.
        views: the views in which an image that the attacker picks is compared.
        known_widths: filled by `widths`.
    """

    training: Seen
    patients: np.ndarray
    held_out: Seen
    held_out_patients: np.ndarray
    scale: tuple[np.ndarray, np.ndarray]
    limits: Limits | None
    limits_as_they_lie: Limits | None
    views: tuple[View, ...] = (AS_IT_LIES,)
    known_widths: dict[tuple[int, int, int], np.ndarray | None] = field(default_factory=dict)

    def widths(self, size: int, repeats: int, seed: int) -> np.ndarray | None:
        """Return `widths_by_chance` of the held-out radiographs, computed once for all models."""
        asked = (size, repeats, seed)
        if asked not in self.known_widths:
            pixels = pixel_tiles(self.held_out)
            self.known_widths[asked] = widths_by_chance(pixels, self.held_out_patients, *asked)
        return self.known_widths[asked]


def closest_of(
    seen: Seen,
    training: Seen,
    scale: tuple[np.ndarray, np.ndarray],
    neighbours: int,
    device: torch.device,
    folder: Path,
    label: str,
) -> Scores:
    """Return the scores of images as they lie against all training radiographs.

    What was found is kept in `folder`, which may not be the one of `look`.
    """
    images = views_digest(seen, np.arange(len(seen.ids)), [AS_IT_LIES])
    made_by = [images, training.sha256, neighbours]
    pixels, tokens = (
        _nearest(kind, first, second, made_by, neighbours, device, folder, label)
        for kind, first, second in (
            ("pixels", pixel_tiles(seen), pixel_tiles(training)),
            ("tokens", token_tiles(seen, scale), token_tiles(training, scale)),
        )
    )
    return scores_of(pixels, tokens)


def closest_in_views(
    seen: Seen,
    as_they_lie: Scores,
    rows: np.ndarray,
    mirrored: Seen | None,
    training: Seen,
    scale: tuple[np.ndarray, np.ndarray],
    views: Sequence[View],
    neighbours: int,
    device: torch.device,
    folder: Path,
    label: str,
) -> Scores:
    """Return the scores of some images, each in the view in which it scores least.

    Args:
        seen: a collection's images.
        as_they_lie: their scores as they lie.
        rows: (m,) rows of the images to compare in all views.
        mirrored: what is seen in the mirror images of these rows; None if no view is mirrored.
        training: the training radiographs.
        scale: the mean and spread of tokens, see `token_scale`.
        views: see `views_of`; the first one is `AS_IT_LIES`.
        neighbours: see `nearest`.
        device: where to compare.
        folder: keeps what was found; may not be the one of `look`, nor of `closest_of`.
        label: the progress's name.

    Returns:
        Scores of m images.
    """
    found = [as_they_lie.of(rows)]
    others = views[1:]
    if not others or not len(rows):
        return found[0]
    made_by = [views_digest(seen, rows, views), training.sha256, neighbours]
    own = seen.pixels[rows]
    pixels = _nearest(
        "pixels",
        Tiles(np.concatenate([viewed_pixels(own, view) for view in others]), 127.5, 255.0),
        pixel_tiles(training), made_by, neighbours, device, folder,
        f"{label}, {len(others)} other views", exact=False,
    )  # fmt: skip
    tokens = None
    if mirrored is not None:
        tokens = _nearest(
            "tokens", token_tiles(mirrored, scale), token_tiles(training, scale),
            [mirrored.sha256, *made_by], neighbours, device, folder, f"{label}, mirrored",
        )  # fmt: skip
    for number, view in enumerate(others):
        part = slice(number * len(rows), (number + 1) * len(rows))
        of_view = Nearest(**{name: values[part] for name, values in vars(pixels).items()})
        found.append(scores_of(of_view, tokens if view == MIRRORED else None, number + 1))
    return least_of(found)


def look_mirrored(
    collection: Collection, rows: np.ndarray, views: Sequence[View], encoder: Any, sha256: str,
    folder: Path, label: str, threads: int,
) -> Seen | None:  # fmt: skip
    """Return what is seen in the mirror images of some rows; None if no view is mirrored."""
    if MIRRORED not in views:
        return None
    mirror = mirrored_collection(collection, rows)
    return look(mirror, encoder, sha256, folder, f"{label}, mirrored", threads)


def _nearest(
    kind: str, first: Tiles, second: Tiles, made_by: list[Any], neighbours: int,
    device: torch.device, folder: Path, label: str, exact: bool = True,
) -> Nearest:  # fmt: skip
    """Return `nearest`, which `folder` keeps under a name that `made_by` and the code give it."""
    said = json.dumps([made_by, own_digests("privacy.extraction.tiles")])
    name = hashlib.sha256(said.encode()).hexdigest()[:24]
    path = folder / f"closest-{kind}-{name}.npz"
    kept = _kept(path)
    if kept is None:
        kept = nearest(first, second, neighbours, device, f"{label}, {kind}", exact)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in folder.glob(f"closest-{kind}-*.npz"):
            old.unlink()
        with whole_file(path, owner_only=True) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **vars(kept))
    return kept


def _kept(path: Path) -> Nearest | None:
    def read() -> Nearest:
        with np.load(path, allow_pickle=False) as arrays:
            return Nearest(**{name: arrays[name] for name in arrays.files})

    return read_unless_damaged(path, read) if path.exists() else None


def held_out_only(seen: Seen, patients: np.ndarray, trained_on: np.ndarray) -> tuple[Seen, Any]:
    """Return the radiographs of patients without training radiographs, and their patients."""
    rows = np.flatnonzero(~np.isin(patients, trained_on))
    kept = Seen([seen.ids[i] for i in rows], seen.pixels[rows], seen.tokens[rows], seen.sha256)
    return kept, patients[rows]


def model_values(
    table: pd.DataFrame,
    repeats: np.ndarray | None,
    patients: np.ndarray,
    training: int,
    attack: ExtractionSettings,
    why_not: str,
) -> list[Value]:
    """Return a model's values; means over captions, with intervals over patients.

    Args:
        table: see `IMAGE_SCHEMA`.
        repeats: (c,) which captions repeat an image, in the order of the picked images; None if
            that is unknown.
        patients: (c,) the patients of these captions.
        training: number of training radiographs.
        attack: the share of false alarms.
        why_not: why there are no limits; "" where there are.
    """
    picked = table[table["picked"]]
    n = len(picked)
    columns = {
        "extracted_share": picked["alarm"],
        **{f"{lens}_extracted": picked[f"{lens}_alarm"] for lens in LENSES},
    }
    shares = {
        name: _share(name, column.to_numpy(float), picked["patient_id"].to_numpy(str))
        for name, column in columns.items()
    }
    alarmed = picked[picked["alarm"]]
    named = named_patients(alarmed)
    own = (named == alarmed["patient_id"].to_numpy(str)).astype(float)
    by_image = _share(
        "images_alarmed",
        table["alarm_as_it_lies"].to_numpy(float),
        table["patient_id"].to_numpy(str),
    )
    none = "no caption raised an alarm"
    share = shares["extracted_share"]
    interval = share.interval and (n * share.interval[0], n * share.interval[1])
    values = [
        share,
        Value("extracted_count", float(len(alarmed)), "lower", n, interval=interval,
              interval_kind=share.interval_kind),
        Value("extracted_by_chance", n * attack.false_alarms, "none", n),
        Value("patients_named", float(len(set(named))), "lower", len(alarmed)),
        _share("own_patient_named", own, alarmed["patient_id"].to_numpy(str))
        if len(alarmed)
        else Value("own_patient_named", None, "lower", 0, reason=none),
        by_image,
        *(shares[f"{lens}_extracted"] for lens in LENSES),
        *_turned(picked, attack),
    ]  # fmt: skip
    if why_not:
        values = [
            Value(v.metric, None, v.direction, v.n, reason=why_not)
            if v.metric != "extracted_by_chance"
            else v
            for v in values
        ]
    if repeats is None:
        reason = "fewer images of each caption than are to be alike, or too few held-out patients"
        values.append(Value("captions_repeated", None, "lower", n, reason=reason))
    else:
        values.append(_share("captions_repeated", repeats.astype(float), patients))
    return [_against(value, training) for value in values]


def _turned(picked: pd.DataFrame, attack: ExtractionSettings) -> list[Value]:
    """Return the shares of captions whose image shows a radiograph mirrored, or moved."""
    known = {view.name: view for view in views_of(attack.views)}
    seen_in = [known[name] for name in named_column(picked, "view")]
    values = []
    for metric, flags, compared in (
        ("extracted_mirrored", [view.mirrored for view in seen_in], attack.views != "as_it_lies"),
        ("extracted_moved", [view.moved for view in seen_in], attack.views.endswith("moved")),
    ):
        if not compared:
            reason = f"such views are not compared (privacy.extraction.views: {attack.views})"
            values.append(Value(metric, None, "lower", len(picked), reason=reason))
            continue
        found = picked["alarm"].to_numpy() & np.array(flags, bool)
        values.append(_share(metric, found.astype(float), picked["patient_id"].to_numpy(str)))
    return values


def alarms_by_view(table: pd.DataFrame, views: Sequence[View]) -> dict[str, int]:
    """Return how many captions raise an alarm by the image's view; views without any are left out.

    Args:
        table: see `image_table`.
        views: the views that were compared, whose order is kept.
    """
    alarmed = table[table["picked"] & table["alarm"]]
    seen_in = named_column(alarmed, "view").tolist()
    counts = {view.name: seen_in.count(view.name) for view in views}
    return {name: count for name, count in counts.items() if count}


def _against(value: Value, training: int) -> Value:
    fields = {name: getattr(value, name) for name in Value.__dataclass_fields__}
    return Value(**{**fields, "n_reference": training})


def _share(name: str, flags: np.ndarray, patients: np.ndarray) -> Value:
    """Return a share with its interval, whose units are as many as the patients are worth."""
    mean = float(flags.mean())
    interval = wilson_interval(mean, effective_number(flags, patients))
    return Value(name, mean, "lower", len(flags), interval=interval, interval_kind="Wilson 95%")


def named_patients(table: pd.DataFrame) -> np.ndarray:
    """Return the patient whom each image names, (n,), by the lens with the least held-out share.

    Args:
        table: see `IMAGE_SCHEMA`, with a column `named` that holds the number of that lens.
    """
    return named_column(table, "patient_id")


def named_column(table: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column of the lens with the least held-out share, (n,), see `named_patients`."""
    if table.empty:
        return np.zeros(0, str)
    columns = table[[f"{lens}_{column}" for lens in LENSES]].to_numpy(str)
    return columns[np.arange(len(table)), table["named"].to_numpy()]


def image_table(
    seen: Seen,
    as_they_lie: Scores,
    in_views: Scores,
    asked: pd.DataFrame,
    picked: np.ndarray,
    radiographs: Radiographs,
) -> pd.DataFrame:
    """Return the table of a model's images, see `IMAGE_SCHEMA`.

    Without limits, no image raises an alarm.

    Args:
        seen: the images.
        as_they_lie: the images' scores.
        in_views: the scores of the picked images in all views.
        asked: `image_id` and `patient_id` of each image's caption, n rows.
        picked: rows of the images that the attacker picks.
        radiographs: the radiographs that the images are compared with, and the limits.
    """
    n = len(seen.ids)
    scores = Scores(*(values.copy() for values in vars(as_they_lie).values()))
    for name, values in vars(in_views).items():
        getattr(scores, name)[picked] = values
    alarms, named = _alarms_of(as_they_lie, radiographs.limits_as_they_lie)
    alone = alarms[:, -1].copy()
    alarms[picked], named[picked] = _alarms_of(in_views, radiographs.limits)
    chosen = np.zeros(n, bool)
    chosen[picked] = True
    ids = np.array(radiographs.training.ids)
    names = np.array([view.name for view in radiographs.views])
    table = pd.DataFrame(
        {
            "prompt_id": seen.ids,
            "patient_id": asked["patient_id"].to_numpy(),
            "caption_image_id": asked["image_id"].to_numpy(),
            "picked": chosen,
            "alarm": alarms[:, -1],
            "alarm_as_it_lies": alone,
            "named": named,
        }
    )
    for k, lens in enumerate(LENSES):
        rows = scores.rows[:, k]
        table[lens] = scores.values[:, k]
        table[f"{lens}_image_id"] = ids[rows]
        table[f"{lens}_patient_id"] = radiographs.patients[rows]
        table[f"{lens}_tile"] = scores.tiles[:, k].astype(np.int32)
        table[f"{lens}_view"] = names[scores.views[:, k]]
        table[f"{lens}_alarm"] = alarms[:, k]
    return table


def _alarms_of(scores: Scores, limits: Limits | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the alarms (n, 5), see `Limits.alarms`, and the lens with the least share (n,)."""
    n = len(scores.values)
    if limits is None:
        return np.zeros((n, len(LENSES) + 1), bool), np.zeros(n, np.int64)
    # Of lenses with equal shares, the one with the smaller score.
    named = np.lexsort((scores.values, limits.shares(scores.values)), axis=1)[:, 0]
    return limits.alarms(scores), named


def read_radiographs(
    manifest: pd.DataFrame,
    manifest_path: Path,
    encoder: Any,
    sha256: str,
    attack: ExtractionSettings,
    device: torch.device,
    folder: Path,
    threads: int,
) -> Radiographs:
    """Look at every training radiograph and at the held-out ones, and set the limits.

    Raises:
        InputError: there are fewer than two training radiographs, or no held-out patient.
    """
    patient_of = manifest.set_index("image_id")["patient_id"]
    training = look(
        manifest_collection(manifest_path, ["train"]), encoder, sha256, folder / "training",
        "training radiographs", threads,
    )  # fmt: skip
    if len(training.ids) < 2:
        raise InputError("fewer than two training images", manifest_path, "check the split")
    patients = patient_of[training.ids].to_numpy(str)
    others = manifest_collection(manifest_path, ["test", "validate"])
    other = look(others, encoder, sha256, folder / "held_out", "held-out radiographs", threads)
    other_patients = patient_of[other.ids].to_numpy(str)
    held_out, held_out_patients = held_out_only(other, other_patients, patients)
    views = views_of(attack.views)
    if not held_out.ids:
        raise InputError(
            "every held-out patient is a training patient", manifest_path, "check the split"
        )
    scale = token_scale(training)
    scores = closest_of(
        held_out, training, scale, attack.neighbours, device, folder / "held_out/closest",
        "held out",
    )  # fmt: skip
    mirrored = look_mirrored(
        others, np.flatnonzero(np.isin(other.ids, held_out.ids)), views, encoder, sha256,
        folder / "held_out/mirrored", "held-out radiographs", threads,
    )  # fmt: skip
    in_views = closest_in_views(
        held_out, scores, np.arange(len(held_out.ids)), mirrored, training, scale, views,
        attack.neighbours, device, folder / "held_out/views", "held out",
    )  # fmt: skip
    return Radiographs(
        training, patients, held_out, held_out_patients, scale,
        limits_of(in_views, held_out_patients, attack.false_alarms),
        limits_of(scores, held_out_patients, attack.false_alarms),
        views,
    )  # fmt: skip


def attack_model(
    model: str,
    shards: list[Path],
    prompts_path: Path,
    patient_of: pd.Series,
    radiographs: Radiographs,
    encoder: Any,
    sha256: str,
    settings: Settings,
    attack: ExtractionSettings,
    device: torch.device,
    folder: Path,
    threads: int,
) -> tuple[list[Value], pd.DataFrame, str]:
    """Return one model's values, the table of its images, and the digest of what was seen in them.

    Raises:
        InputError: images are missing, or of other prompts.
    """
    collection = shard_collection(shards)
    seen = look(collection, encoder, sha256, folder / model, model, threads)
    prompts = read_prompts(prompts_path)
    rows = rows_of(prompts["prompt_id"], seen.ids, shards[0], "prompt set")
    asked = prompts.iloc[rows][["image_id"]].reset_index(drop=True)
    rows_of(patient_of.index, list(asked["image_id"]), prompts_path, "manifest")
    asked["patient_id"] = patient_of[asked["image_id"]].to_numpy(str)
    scores = closest_of(
        seen, radiographs.training, radiographs.scale, attack.neighbours, device,
        folder / model / "closest", model,
    )  # fmt: skip
    grouped = asked.groupby("image_id", sort=True).indices.values()
    groups = [np.asarray(rows, np.int64) for rows in grouped]
    captions = repeats_of(pixel_tiles(seen), groups, attack.repeats)
    chance = {
        int(size): radiographs.widths(int(size), attack.repeats, settings.seed)
        for size in np.unique(captions.size[captions.size >= attack.repeats])
    }
    known = bool(chance) and all(widths is not None for widths in chance.values())
    flags = repeated(captions, chance, attack.false_alarms) if known else None
    picked = np.sort(captions.middle)
    mirrored = look_mirrored(
        collection, picked, radiographs.views, encoder, sha256, folder / model / "mirrored", model,
        threads,
    )  # fmt: skip
    in_views = closest_in_views(
        seen, scores, picked, mirrored, radiographs.training, radiographs.scale, radiographs.views,
        attack.neighbours, device, folder / model / "views", model,
    )  # fmt: skip
    table = image_table(seen, scores, in_views, asked, picked, radiographs)
    held_out = len(np.unique(radiographs.held_out_patients))
    why_not = (
        ""
        if radiographs.limits
        else f"{held_out} held-out patients, fewer than 1 / {attack.false_alarms:g}"
    )
    patients = asked["patient_id"].to_numpy()[captions.middle]
    training = len(radiographs.training.ids)
    values = model_values(table, flags, patients, training, attack, why_not)
    return values, table, seen.sha256


def score(
    protocol: str,
    manifest_path: Path,
    prompts: Mapping[str, Path],
    images: Mapping[str, list[Path]],
    rad_dino: Path,
    folder: Path,
    out: Path,
    settings: Settings,
    attack: ExtractionSettings,
    device: torch.device,
    threads: int,
) -> None:
    """Attack every model and write their records and tables.

    Raises:
        InputError: see `read_radiographs` and `attack_model`.
    """
    if set(prompts) != set(images):
        raise InputError("other models have prompts than have images", "--prompts, --images")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    manifest = read_manifest(manifest_path)
    encoder = load_encoder("rad_dino", rad_dino, device, deviations(protocol), "privacy")
    sha256 = weights_sha256("rad_dino", rad_dino)
    radiographs = read_radiographs(
        manifest, manifest_path, encoder, sha256, attack, device, folder, threads
    )
    patient_of = manifest.set_index("image_id")["patient_id"]
    for model, shards in images.items():
        values, table, seen = attack_model(
            model, shards, prompts[model], patient_of, radiographs, encoder, sha256, settings,
            attack, device, folder, threads,
        )  # fmt: skip
        details = {
            **asdict(attack),
            "training_images": len(radiographs.training.ids),
            "held_out_images": len(radiographs.held_out.ids),
            "held_out_patients": len(np.unique(radiographs.held_out_patients)),
            "images": len(table),
            "alarms_by_view": alarms_by_view(table, radiographs.views),
        }
        decides = {"protocol": protocol, **asdict(settings), **asdict(attack)}
        decides |= {"seen": seen, "training": radiographs.training.sha256}
        decides |= {"held_out": radiographs.held_out.sha256, "rad_dino": sha256}
        record = Record(
            "privacy", model, FAMILY, protocol, values, details,
            provenance=provenance(decides, device_name(device)),
        )  # fmt: skip
        write_private_table(table, IMAGE_SCHEMA, out / f"{model}_images.parquet")
        write_record(record, out / f"{model}.json")
        log.info("%s: %s captions extracted of %d", model, values[1].value, values[1].n)


def labelled_files(words: list[str], flag: str) -> dict[str, list[Path]]:
    """Return the files of each model from `MODEL=FILE`.

    Raises:
        InputError: a word has no model or no file.
    """
    files: dict[str, list[Path]] = {}
    for word in words:
        model, _, path = word.partition("=")
        if not model or not path:
            raise InputError(f"{word!r} is not MODEL=FILE", flag)
        files.setdefault(model, []).append(Path(path))
    return files


def main(argv: list[str] | None = None) -> None:
    """Attack models from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add: Any = parser.add_argument
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path, help="of the cohort")
    add("--prompts", required=True, nargs="+", metavar="MODEL=FILE", help="prompt sets `privacy`")
    add("--images", required=True, nargs="+", metavar="MODEL=SHARD", help="images of them")
    add("--rad-dino", required=True, type=Path, help="weights of RAD-DINO")
    add("--seen", required=True, type=Path, help="folder that keeps what was seen; not an output")
    add("--out", required=True, type=Path, help="folder of records and tables")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add_flags(parser, Settings)
    add_flags(parser, ExtractionSettings)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    prompts = labelled_files(args.prompts, "--prompts")
    score(
        args.protocol,
        args.manifest,
        {model: files[0] for model, files in prompts.items()},
        labelled_files(args.images, "--images"),
        args.rad_dino,
        args.seen,
        args.out,
        Settings(args.threshold, args.bootstrap, args.seed),
        settings_of_flags(ExtractionSettings, args, parser),
        pick_device(args.gpus),
        args.threads,
    )


if __name__ == "__main__":
    run_script(main)
