"""What was seen in a collection of images: the file between looking and scoring.

One Parquet file per collection, a row per image, readable by its owner alone:

    id                   prompt_id of a generated image, image_id of a radiograph
    image_id, patient_id the radiograph of its prompt, or itself, and whose it is
    probabilities_{judge} float32 (14,); nan where the judge knows nothing of a finding
    ANATOMY, ribs        see `anatomy.Anatomy`; nan where a structure is absent
    organs               heart and lungs, packed; see `pack_organs`
    spectrum, noise, signal_dependence   of the images whose texture was measured, else null

What made it, and the MS-SSIM of the drawn pairs, travel in the file's metadata.
"""

from collections.abc import Mapping
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
    "present",
)
"""The columns of `anatomy.Anatomy`."""

COMPARED: Final = ("heart", "right_lung", "left_lung")
"""The organs that are kept as masks."""

KEPT_SIDE: Final = 96
"""Side of the kept masks, pixels; the Dice of two hearts changes by a hundredth at most by it."""


@dataclass(frozen=True)
class Seen:
    """A collection as it was seen.

    Attributes:
        rows: see the module; `id` is the index.
        run: what made it (JSON types): `collection`, `settings`, `pairs`, `provenance`.
    """

    rows: pd.DataFrame
    run: dict[str, Any]

    def probabilities(self, judge: str) -> np.ndarray:
        """Return a judge's probabilities, float64 (n, 14)."""
        stacked = np.stack(self.rows[probability_column(judge)].to_list())
        return np.asarray(stacked, np.float64).reshape(-1, len(FINDINGS))


def probability_column(judge: str) -> str:
    """Return the column of a judge."""
    return f"probabilities_{judge}"


def pack_organs(masks: Mapping[str, np.ndarray]) -> list[bytes]:
    """Return heart and lungs of each image, shrunk to KEPT_SIDE and packed to bits.

    Args:
        masks: of COMPARED at least, each bool (n, size, size).
    """
    size = masks[COMPARED[0]].shape[1]
    # The pixel in the middle of each new one: a mask has no values between to be averaged.
    rows = (np.arange(KEPT_SIDE) * 2 + 1) * size // (2 * KEPT_SIDE)
    small = np.stack([masks[name][:, rows][:, :, rows] for name in COMPARED], axis=1)
    return [np.packbits(image).tobytes() for image in small]


def unpack_organs(packed: bytes) -> np.ndarray:
    """Return heart and lungs, bool (3, KEPT_SIDE, KEPT_SIDE), as `pack_organs` packed them."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=3 * KEPT_SIDE**2)
    return bits.reshape(3, KEPT_SIDE, KEPT_SIDE).astype(bool)


def write_seen(path: str | Path, columns: Mapping[str, Any], run: dict[str, Any]) -> None:
    """Write a collection, whole or not at all, with owner-only permissions."""
    write_outcomes(path, columns, run)


def read_seen(path: str | Path) -> Seen:
    """Read a collection.

    Raises:
        InputError: it is missing, damaged, or no such file.
    """
    found = read_outcomes(path)
    if not {"id", "organs", *ANATOMY} <= set(found.rows.columns):
        raise InputError(
            "not a file of what was seen in images",
            path,
            "delete it and rerun the rule faithfulness_look",
        )
    return Seen(found.rows.set_index("id", drop=False), found.run)


def prompts_of(
    prompts: Path,
    ids: pd.Index,
    radiographs: pd.Index,
    of_images: Path,
    of_radiographs: Path,
    rule: str,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the prompts of generated images, and where their radiographs stand.

    Args:
        prompts: the prompt set.
        ids: (n,) of the images.
        radiographs: ids of the radiographs that were seen, each once.
        of_images: what says what was seen in the images, for the message.
        of_radiographs: likewise.
        rule: that makes both files.

    Returns:
        The prompts' rows in the images' order, and int (n,), places in `radiographs`.

    Raises:
        InputError: an image is of no prompt of the set, or a prompt's radiograph was not seen.
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
        InputError: they did not; it names the first that differs.
    """
    for key, value in real.run["settings"].items():
        if other.run["settings"].get(key) != value:
            raise InputError(
                f"{key} is {other.run['settings'].get(key)!r}, of the radiographs {value!r}",
                where,
                "delete both and rerun the rule faithfulness_look",
            )
