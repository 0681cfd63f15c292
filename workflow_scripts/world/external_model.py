"""A stand-in for a user's own model, which turns exported prompts into a folder of images.

It reads the findings in each caption and draws them on a new patient, so it is a faithful model
that copies nobody. Prompts of the stress set that share a seed get the same patient, as a network
that starts from the same noise draws much the same chest.

`--fault` gives it one of FAULTS. Each tests which measures of faithfulness react, and which do not.
"""

import argparse
import contextlib
import functools
import hashlib
import logging
import multiprocessing
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from scipy import ndimage

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_folder
from workflow_scripts.common.images import png_bytes
from workflow_scripts.common.progress import Progress
from workflow_scripts.world.anatomy import draw_patient, draw_study
from workflow_scripts.world.captions import read_findings
from workflow_scripts.world.findings import Finding, draw_finding
from workflow_scripts.world.population import DRAWN
from workflow_scripts.world.radiograph import Radiograph, render

SIZE = 128
_COLUMNS = ("prompt_id", "caption", "seed")
_STRESS: Final = "stress-"
log = logging.getLogger(__name__)

FAULTS: Final = {
    "sides_swapped": "left is drawn for right, and right for left",
    "negation_ignored": "what a caption denies is drawn",
    "severity_constant": "all that is drawn is moderate",
    "paraphrases_differ": "other words of one content show another patient",
    "heart_normal": "no heart is ever enlarged",
    "device_left_out": "no device is ever drawn",
    "prompt_ignored": "the seed alone decides what is drawn",
    "blurred": "the right findings in blurred images",
    "warped": "the right findings in bent anatomy",
}

BLUR: Final = 0.006
"""Sigma of the fault `blurred`, as a share of the image's side."""

WARP: Final = 0.045
"""The largest shift of the fault `warped`, as a share of the image's side."""


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
    prompts: pd.DataFrame,
    out: Path,
    seed: int,
    size: int = SIZE,
    threads: int = 1,
    fault: str | None = None,
) -> None:
    """Write `images/{prompt_id}.png` for each prompt and `metadata.csv`, whole or not at all.

    Each image shows a new patient, drawn from `seed`, the prompt's seed and, except in the stress
    set, the prompt's id. `threads` is the number of processes, and `fault` one of FAULTS.
    """
    with whole_folder(out) as folder:
        (folder / "images").mkdir()
        names = []
        progress = Progress("external model", len(prompts), "images")
        rows = prompts[list(_COLUMNS)].itertuples(index=False, name=None)
        draw = functools.partial(_draw, seed=seed, size=size, fault=fault)
        with _mapped(draw, rows, threads) as drawn:
            for prompt_id, png in zip(prompts["prompt_id"], drawn, strict=True):
                name = f"images/{prompt_id}.png"
                (folder / name).write_bytes(png)
                names.append(name)
                progress.update()
        table = pd.DataFrame({"file_name": names, "prompt_id": prompts["prompt_id"].tolist()})
        table.to_csv(folder / "metadata.csv", index=False, lineterminator="\n")


@contextlib.contextmanager
def _mapped(
    draw: Callable[[tuple[str, str, int]], bytes], rows: Iterable[tuple], threads: int
) -> Iterator[Iterator[bytes]]:
    """Yield the result of `draw` for each row, in order, computed in several processes.

    They are forked, because spawned processes would have to import pandas first.
    """
    if threads == 1:
        yield map(draw, rows)
        return
    with multiprocessing.get_context("fork").Pool(threads) as pool:
        yield pool.imap(draw, rows, chunksize=8)
        pool.close()
        pool.join()


def _draw(row: tuple[str, str, int], seed: int, size: int, fault: str | None) -> bytes:
    return png_bytes(Image.fromarray(draw(*row, seed, size, fault).image))


def draw(
    prompt_id: str, caption: str, prompt_seed: int, seed: int, size: int, fault: str | None = None
) -> Radiograph:
    """Return the image of one prompt, `size` pixels a side, and its exact masks.

    Args:
        prompt_id: the prompt's id.
        caption: the prompt's text.
        prompt_seed: the prompt's seed.
        seed: seed of the model.
        size: side in pixels.
        fault: one of FAULTS, or None for a faithful image.

    Raises:
        KeyError: an unknown fault.
    """
    if fault is not None:
        FAULTS[fault]
    key = f"{seed}/{_STRESS if prompt_id.startswith(_STRESS) else prompt_id}/{prompt_seed}"
    if fault == "paraphrases_differ":
        key += f"/{caption}"
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")
    view = "AP" if number % 2 else "PA"
    findings = _with_fault(caption, number, fault)
    picture = render(draw_patient(number), draw_study(number, view), findings, size)
    if fault == "blurred":
        image = Image.fromarray(picture.image).filter(ImageFilter.GaussianBlur(BLUR * size))
        return replace(picture, image=np.asarray(image))
    if fault == "warped":
        organs = np.stack([warp(255 * mask.astype(np.uint8), number) for mask in picture.organs])
        return replace(picture, image=warp(picture.image, number), organs=organs > 127)
    return picture


def _with_fault(caption: str, number: int, fault: str | None) -> tuple[Finding, ...]:
    """Return the findings of a caption, as a renderer with this fault understands them."""
    if fault == "negation_ignored":
        caption = re.sub(r"\b(no|without)\b ", "", caption, flags=re.IGNORECASE)
    if fault == "sides_swapped":
        other = {"left": "right", "right": "left"}
        caption = re.sub(r"\b(left|right)\b", lambda m: other[m[1].lower()], caption, flags=re.I)
    if fault == "prompt_ignored":
        rng = np.random.default_rng([number, 9])
        return tuple(draw_finding(name, number) for name in DRAWN if rng.random() < 0.15)
    findings = read_findings(caption, number)
    if fault == "severity_constant":
        findings = tuple(replace(own, severity=0.5) for own in findings)
    left_out = {"heart_normal": "Cardiomegaly", "device_left_out": "Support Devices"}
    return tuple(own for own in findings if own.name != left_out.get(str(fault)))


def warp(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Bend an image smoothly; texture is kept, because the shift varies slowly over the image.

    Args:
        pixels: uint8 (n, n).
        seed: seed of the shifts.
    """
    size = len(pixels)
    rng = np.random.default_rng([seed, 10])
    coarse = rng.standard_normal((2, 4, 4))
    shifts = [ndimage.zoom(field, size / 4, order=3, mode="nearest") for field in coarse]
    rows, columns = np.mgrid[:size, :size].astype(float)
    places = [
        grid + WARP * size * shift / max(np.abs(shift).max(), 1e-9)
        for grid, shift in zip((rows, columns), shifts, strict=True)
    ]
    bent = ndimage.map_coordinates(pixels.astype(np.float32), places, order=3, mode="nearest")
    return np.clip(np.round(bent), 0, 255).astype(np.uint8)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, help="exported CSVs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="processes that draw")
    parser.add_argument("--fault", choices=FAULTS, help="draw with one fault")
    arguments = parser.parse_args(argv)
    prompts = read_prompts_csv(arguments.prompts)
    draw_prompts(
        prompts, arguments.out, arguments.seed, threads=arguments.threads, fault=arguments.fault
    )


if __name__ == "__main__":
    run_script(main)
