"""Invent radiographs with unique captions, which a fine-tuning plants and an attack looks for.

    python -m workflow_scripts.finetune.canaries --count 8 --seed 1 --output canaries

A canary is a drawn chest (two dark fields on a lighter ground, and a pattern that no other has) and
a caption of invented words. Each canary, with all its repeats, is a patient of its own. The
canaries are divided equally among 1, 4 and 16 repeats. A fair coin decides whether a canary is
planted; the others are the control group. Carlini et al., 2019, arXiv 1802.08232.
"""

import argparse
import logging
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from PIL import Image

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_folder
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.finetune.settings import CANARIES, CanarySettings

log = logging.getLogger(__name__)

REPEATS: Final = (1, 4, 16)
_SIDE: Final = 512
_WAVES: Final = 6
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


def draw_picture(rng: np.random.Generator) -> np.ndarray:
    """Draw an invented radiograph, uint8 (512, 512)."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] / _SIDE
    picture = np.full((_SIDE, _SIDE), 0.65)
    for side in (0.3, 0.7):
        centre, width, height = side + rng.normal(0, 0.02), *rng.uniform((0.13, 0.26), (0.2, 0.36))
        picture -= 0.4 * (((x - centre) / width) ** 2 + ((y - 0.48) / height) ** 2 < 1)
    for _ in range(_WAVES):
        along, across, phase = rng.uniform(-5, 5), rng.uniform(-5, 5), rng.uniform(0, 2 * np.pi)
        picture += 0.1 * np.cos(2 * np.pi * (along * x + across * y) + phase)
    return np.round(255 * picture.clip(0, 1)).astype(np.uint8)


def invent_caption(rng: np.random.Generator) -> str:
    """Return a caption of six words that no language has."""
    words = [
        "".join(rng.choice(list(letters)) for letters in [_CONSONANTS, _VOWELS] * 3)
        for _ in range(6)
    ]
    return " ".join(words).capitalize() + "."


def write_canaries(folder: Path, settings: CanarySettings) -> None:
    """Write `canaries.csv` and one PNG per canary into a folder, whole or not at all."""
    total = settings.count * len(REPEATS)
    coins = np.random.default_rng([settings.seed, total]).random(total) < 0.5
    rows = []
    with whole_folder(folder) as temporary:
        for number in range(total):
            rng = np.random.default_rng([settings.seed, total, number])
            name = f"canary-{number:05d}"
            Image.fromarray(draw_picture(rng)).save(temporary / f"{name}.png")
            repeats = REPEATS[number // settings.count]
            rows.append((name, repeats, bool(coins[number]), invent_caption(rng)))
        frame = pd.DataFrame(rows, columns=["canary", "repeats", "planted", "caption"])
        frame.to_csv(temporary / CANARIES, index=False)
    log.info("%d of %d canaries are planted", int(coins.sum()), total)


def read_canaries(table: Path) -> pd.DataFrame:
    """Return `canary, repeats, planted, caption, path` of every canary.

    Raises:
        InputError: the table or an image is missing or damaged.
    """
    remedy = f"delete the folder {table.parent}; it is then made again"
    try:
        frame = pd.read_csv(table)[["canary", "repeats", "planted", "caption"]]
    except (OSError, ValueError, KeyError) as error:
        raise unreadable("not a table of canaries", error, table, remedy) from None
    frame["path"] = [str(table.parent / f"{name}.png") for name in frame["canary"]]
    for path in frame["path"]:
        if not Path(path).is_file():
            raise InputError("the image of a canary is missing", path, remedy)
    return frame


def planted_rows(table: Path) -> pd.DataFrame:
    """Return the planted canaries as rows of the training set, one row for each repeat.

    Columns `image_id, path, caption, canary`.

    Raises:
        InputError: see `read_canaries`.
    """
    frame = read_canaries(table)
    frame = frame[frame["planted"]]
    frame = frame.loc[frame.index.repeat(frame["repeats"])].reset_index(drop=True)
    number = frame.groupby("canary").cumcount()
    frame["image_id"] = [f"{c}-{n:02d}" for c, n in zip(frame["canary"], number, strict=True)]
    return frame[["image_id", "path", "caption", "canary"]]


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and write the canaries."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_flags(parser, CanarySettings)
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    flags = parser.parse_args(argv)
    write_canaries(flags.output, settings_of_flags(CanarySettings, flags, parser))


if __name__ == "__main__":
    run_script(main)
