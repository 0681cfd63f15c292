"""The networks' results for a collection of images: the file between `look` and the scores.

Each collection has a Parquet file with one row per image, which only its owner may read:

    id                   prompt_id of a generated image, image_id of a radiograph
    image_id, patient_id the prompt's radiograph (or the radiograph itself), and its patient
    probabilities_{judge} float32 (14,); nan for findings that the judge does not know
    ANATOMY, ribs        see `anatomy.Anatomy`; nan if a structure is absent
    structures           which of the labeller's classes are present, packed; see `pack_structures`
    organs               masks of heart and lungs, packed; see `pack_organs`
    spectrum, noise, signal_dependence   texture, for the images that were drawn; else null

The file's metadata hold its provenance and the MS-SSIM of the drawn pairs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, read_prompts
from workflow_scripts.downstream.outcomes import read_outcomes, write_outcomes

REAL: Final = "real"
"""The collection of radiographs of the test split."""

ANATOMY: Final = (
    "ratio",
    "area_right",
    "area_left",
    "asymmetry",
    "heart_inside",
    "clavicles",
)
"""The attributes of `anatomy.Anatomy`, as columns."""

COMPARED: Final = ("heart", "right_lung", "left_lung")
"""The organs whose masks are stored."""

KEPT_SIDE: Final = 96
"""Side of the stored masks, pixels; it changes the Dice of two hearts by 0.01 at most."""


@dataclass(frozen=True)
class Seen:
    """The networks' results for a collection.

    Attributes:
        rows: see the module; `id` is the index.
        run: `collection`, `settings`, `pairs` and `provenance`, as JSON types.
    """

    rows: pd.DataFrame
    run: dict[str, Any]

    def probabilities(self, judge: str) -> np.ndarray:
        """Return a judge's probabilities, float64 (n, 14)."""
        stacked = np.stack(self.rows[probability_column(judge)].to_list())
        return np.asarray(stacked, np.float64).reshape(-1, len(FINDINGS))


def probability_column(judge: str) -> str:
    """Return the name of a judge's column."""
    return f"probabilities_{judge}"


def pack_organs(masks: Mapping[str, np.ndarray]) -> list[bytes]:
    """Return the masks of heart and lungs of each image, reduced to KEPT_SIDE and packed to bits.

    Args:
        masks: bool (n, size, size) each, with the names of COMPARED at least.
    """
    size = masks[COMPARED[0]].shape[1]
    # The central pixel of each new one counts, because a mask has no intermediate values.
    rows = (np.arange(KEPT_SIDE) * 2 + 1) * size // (2 * KEPT_SIDE)
    small = np.stack([masks[name][:, rows][:, :, rows] for name in COMPARED], axis=1)
    return [np.packbits(image).tobytes() for image in small]


def unpack_organs(packed: bytes) -> np.ndarray:
    """Return the masks that `pack_organs` packed, bool (3, KEPT_SIDE, KEPT_SIDE)."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=3 * KEPT_SIDE**2)
    return bits.reshape(3, KEPT_SIDE, KEPT_SIDE).astype(bool)


def pack_structures(present: np.ndarray) -> list[bytes]:
    """Return which classes each image shows, packed to bits.

    Args:
        present: bool (n, classes), by the classes' numbers.
    """
    return [image.tobytes() for image in np.packbits(present, axis=1)]


def unpack_structures(packed: Iterable[bytes]) -> np.ndarray:
    """Return which classes each image shows, bool (n, m); m is the classes' number, in whole bytes.

    No image shows a class beyond the network's last one.
    """
    rows = [np.frombuffer(image, np.uint8) for image in packed]
    return np.unpackbits(np.stack(rows), axis=1).astype(bool)


def write_seen(path: str | Path, columns: Mapping[str, Any], run: dict[str, Any]) -> None:
    """Write a collection, whole or not at all, with owner-only permissions."""
    write_outcomes(path, columns, run)


def read_seen(path: str | Path) -> Seen:
    """Read a collection.

    Raises:
        InputError: the file is missing, damaged, of another kind, or of an older version.
    """
    table = read_outcomes(path)
    has = set(table.rows.columns)
    remedy = "delete it and rerun the rule that writes it, faithfulness_look or curate_look"
    if not {"id", "organs", *ANATOMY} <= has:
        raise InputError("not a file of what was seen in images", path, remedy)
    if "structures" not in has:
        what = "an older version wrote it, without the column `structures`"
        raise InputError(what, path, remedy)
    return Seen(table.rows.set_index("id", drop=False), table.run)


def prompts_of(
    prompts: Path,
    ids: pd.Index,
    radiographs: pd.Index,
    of_images: Path,
    of_radiographs: Path,
    rule: str,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the prompts of generated images, and the positions of their radiographs.

    Args:
        prompts: the prompt set.
        ids: (n,), ids of the images.
        radiographs: ids of the radiographs, each once.
        of_images: the file with the images' results, for errors.
        of_radiographs: the file with the radiographs' results, for errors.
        rule: the rule that makes both files, for errors.

    Returns:
        The prompts' rows in the images' order, and int (n,), positions in `radiographs`.

    Raises:
        InputError: an image belongs to no prompt of the set, or a radiograph has no results.
    """
    remedy = f"delete it and rerun the rule {rule}"
    known = read_prompts(prompts).set_index("prompt_id", drop=False)
    if not ids.isin(known.index).all():
        raise InputError("images of other prompts", of_images, remedy)
    asked = known.loc[ids]
    places = radiographs.get_indexer(pd.Index(asked["image_id"]))
    if (places < 0).any():
        missing = int((places < 0).sum())
        raise InputError(f"{missing} prompts' radiographs were not seen", of_radiographs, remedy)
    return asked, places


def check_seen_alike(real: Seen, other: Seen, where: str | Path) -> None:
    """Check that the same networks looked at both, with the same settings.

    Raises:
        InputError: they did not; the message names the first difference.
    """
    for key, value in real.run["settings"].items():
        if other.run["settings"].get(key) != value:
            raise InputError(
                f"{key} is {other.run['settings'].get(key)!r}, of the radiographs {value!r}",
                where,
                "delete both and rerun the rule faithfulness_look",
            )
