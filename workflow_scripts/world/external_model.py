"""A stand-in for a user's own model: reads exported prompts, leaves a folder of images.

It reads the findings in each caption and draws them on a new patient, so it is a faithful model
that copies nobody.
"""

import argparse
import hashlib
import logging
from pathlib import Path

import pandas as pd
from PIL import Image

from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_folder
from workflow_scripts.common.images import png_bytes
from workflow_scripts.common.progress import Progress
from workflow_scripts.world.anatomy import draw_patient, draw_study
from workflow_scripts.world.captions import read_findings
from workflow_scripts.world.radiograph import render

_COLUMNS = ("prompt_id", "caption", "seed")
log = logging.getLogger(__name__)


def read_prompts_csv(paths: list[Path]) -> pd.DataFrame:
    """Read exported prompt sets into one table.

    Raises:
        InputError: a file is missing or is no CSV, lacks a column, or a prompt_id stands twice.
    """
    frames = []
    for path in paths:
        try:
            frame = pd.read_csv(path, dtype={"prompt_id": str, "caption": str})
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read prompts: {error}", path, "run `make prompts`") from None
        missing = [name for name in _COLUMNS if name not in frame.columns]
        if missing:
            raise InputError(f"missing column(s): {', '.join(missing)}", path, "run `make prompts`")
        frames.append(frame)
    prompts = pd.concat(frames, ignore_index=True)
    repeated = prompts.loc[prompts["prompt_id"].duplicated(), "prompt_id"]
    if len(repeated):
        raise InputError(f"prompt_id {repeated.iloc[0]!r} stands twice", ", ".join(map(str, paths)))
    return prompts


def draw_prompts(prompts: pd.DataFrame, out: Path, seed: int, size: int = 256) -> None:
    """Write `images/{prompt_id}.png` for each prompt and `metadata.csv`, whole or not at all.

    Each image is of a new patient, drawn from `seed`, the prompt's seed and its id.
    """
    with whole_folder(out) as folder:
        (folder / "images").mkdir()
        names = []
        progress = Progress("external model", len(prompts), "images")
        rows = prompts[list(_COLUMNS)].itertuples(index=False, name=None)
        for prompt_id, caption, prompt_seed in rows:
            key = f"{seed}/{prompt_id}/{prompt_seed}"
            number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")
            view = "AP" if number % 2 else "PA"
            picture = render(
                draw_patient(number), draw_study(number, view), read_findings(caption, number), size
            )
            name = f"images/{prompt_id}.png"
            (folder / name).write_bytes(png_bytes(Image.fromarray(picture.image)))
            names.append(name)
            progress.update()
        table = pd.DataFrame({"file_name": names, "prompt_id": prompts["prompt_id"].tolist()})
        table.to_csv(folder / "metadata.csv", index=False, lineterminator="\n")


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, help="exported CSVs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args(argv)
    draw_prompts(read_prompts_csv(arguments.prompts), arguments.out, arguments.seed)


if __name__ == "__main__":
    run_script(main)
