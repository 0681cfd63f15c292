"""A stand-in for a user's own model, which turns exported prompts into a folder of images.

It reads the findings in each caption and draws them on a new patient. So it follows the captions
and copies no training image.
"""

import argparse
import functools
import hashlib
import logging
import multiprocessing
from pathlib import Path

import pandas as pd
from PIL import Image

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_folder
from workflow_scripts.common.images import png_bytes
from workflow_scripts.common.progress import Progress
from workflow_scripts.world.anatomy import draw_patient, draw_study
from workflow_scripts.world.captions import read_findings
from workflow_scripts.world.radiograph import render

SIZE = 128
_COLUMNS = ("prompt_id", "caption", "seed")
log = logging.getLogger(__name__)


def read_prompts_csv(paths: list[Path]) -> pd.DataFrame:
    """Read exported prompt sets into one table.

    Raises:
        InputError: a file is missing, not a CSV or lacks a column, or a prompt_id is repeated.
    """
    frames = []
    for path in paths:
        try:
            frame = pd.read_csv(path, dtype={"prompt_id": str, "caption": str})
        except (OSError, ValueError) as error:
            raise unreadable("cannot read prompts", error, path, "run `make prompts`") from None
        missing = [name for name in _COLUMNS if name not in frame.columns]
        if missing:
            raise InputError(f"missing column(s): {', '.join(missing)}", path, "run `make prompts`")
        frames.append(frame)
    prompts = pd.concat(frames, ignore_index=True)
    repeated = prompts.loc[prompts["prompt_id"].duplicated(), "prompt_id"]
    if len(repeated):
        raise InputError(f"prompt_id {repeated.iloc[0]!r} stands twice", ", ".join(map(str, paths)))
    return prompts


def draw_prompts(
    prompts: pd.DataFrame, out: Path, seed: int, size: int = SIZE, threads: int = 1
) -> None:
    """Write `images/{prompt_id}.png` for each prompt and `metadata.csv`, whole or not at all.

    Each image shows a new patient, drawn from `seed`, the prompt's seed and its id. `threads`
    processes draw.
    """
    with whole_folder(out) as folder:
        (folder / "images").mkdir()
        names = []
        progress = Progress("external model", len(prompts), "images")
        rows = prompts[list(_COLUMNS)].itertuples(index=False, name=None)
        with multiprocessing.get_context("spawn").Pool(threads) as pool:
            drawn = pool.imap(functools.partial(_draw, seed=seed, size=size), rows, chunksize=8)
            for prompt_id, png in zip(prompts["prompt_id"], drawn, strict=True):
                name = f"images/{prompt_id}.png"
                (folder / name).write_bytes(png)
                names.append(name)
                progress.update()
            pool.close()
            pool.join()
        table = pd.DataFrame({"file_name": names, "prompt_id": prompts["prompt_id"].tolist()})
        table.to_csv(folder / "metadata.csv", index=False, lineterminator="\n")


def _draw(row: tuple[str, str, int], seed: int, size: int) -> bytes:
    prompt_id, caption, prompt_seed = row
    key = f"{seed}/{prompt_id}/{prompt_seed}"
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")
    view = "AP" if number % 2 else "PA"
    picture = render(
        draw_patient(number), draw_study(number, view), read_findings(caption, number), size
    )
    return png_bytes(Image.fromarray(picture.image))


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, help="exported CSVs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="processes that draw")
    arguments = parser.parse_args(argv)
    prompts = read_prompts_csv(arguments.prompts)
    draw_prompts(prompts, arguments.out, arguments.seed, threads=arguments.threads)


if __name__ == "__main__":
    run_script(main)
