"""Build the embedded world: radiographs, annotations, masks and tiny checkpoints."""

import argparse
import io
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_folder
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.progress import Progress
from workflow_scripts.world import mimic_layout
from workflow_scripts.world.captions import describe, impression
from workflow_scripts.world.population import Exposure, draw_population
from workflow_scripts.world.radiograph import render

SEED, PATIENTS = 7, 320
"""The seed and number of patients of the world that the demo and the tests share."""

SIZE = 256
WORDINGS = 9  # captions of each image, for the language model
log = logging.getLogger(__name__)


def draw_pictures(exposure: Exposure) -> tuple[bytes, bytes]:
    """Return the encoded radiograph of an exposure and its clavicle mask."""
    drawn = render(exposure.patient, exposure.study, exposure.findings, SIZE)
    return mimic_layout.jpeg_bytes(drawn.image), mimic_layout.mask_bytes(drawn.clavicles)


def build_world(out: Path, seed: int, patients: int, threads: int, weights: bool = True) -> None:
    """Build a world of `patients` at `out`, whole or not at all.

    The same seed and number of patients give the same bytes, whatever `threads`.

    Args:
        out: folder for mimic-cxr-jpg/2.0.0/, llava-rad/, masks/ and weights/.
        seed: of everything that is drawn.
        patients: number of patients, 10 to 2400; 320 give about 800 frontal radiographs.
        threads: processes that draw, and that train the checkpoints in parallel; at least 1.
        weights: whether the tiny checkpoints are trained and written, too.

    Raises:
        InputError: the number of patients or threads is out of range.
    """
    if not 10 <= patients <= 2400 or threads < 1:
        raise InputError(
            f"{patients} patient(s) and {threads} thread(s)",
            "--patients, --threads",
            "give 10 to 2400 patients (each split has some, ids keep 8 digits) and 1 thread",
        )
    exposures = draw_population(patients, seed)
    with whole_folder(out) as folder:
        root = folder / "mimic-cxr-jpg" / "2.0.0"
        mimic_layout.write_tables(exposures, SIZE, root)
        mimic_layout.write_annotations(exposures, folder / "llava-rad")
        shown: list[Exposure] = []
        images: list[np.ndarray] = []
        masks: list[np.ndarray] = []
        progress = Progress("world", len(exposures), "radiographs")
        for exposure, (jpeg, mask) in zip(exposures, _draw_all(exposures, threads), strict=True):
            mimic_layout.write_pictures([(mimic_layout.image_path(exposure), jpeg)], root)
            if exposure.study.view != "LATERAL":
                name = f"masks/{exposure.image_id}.png"
                mimic_layout.write_pictures([(name, mask)], folder)
            if exposure.split == "train" and exposure.caption is not None:
                shown.append(exposure)
                images.append(np.asarray(Image.open(io.BytesIO(jpeg))))
                masks.append(np.asarray(Image.open(io.BytesIO(mask))))
            progress.update()
        if weights:
            pictures = np.stack(images), np.stack(masks)
            _write_weights(shown, *pictures, folder / "weights", seed, threads)
    log.info("world: %d radiographs of %d patients in %s", len(exposures), patients, out)


def _draw_all(exposures: list[Exposure], threads: int) -> Iterator[tuple[bytes, bytes]]:
    if threads == 1:
        yield from map(draw_pictures, exposures)
        return
    with multiprocessing.get_context("spawn").Pool(threads) as pool:
        yield from pool.imap(draw_pictures, exposures, chunksize=16)
        pool.close()
        pool.join()


def _write_weights(
    shown: list[Exposure],
    images: np.ndarray,
    masks: np.ndarray,
    out: Path,
    seed: int,
    threads: int,
) -> None:
    captions = [exposure.caption or "" for exposure in shown]
    findings = np.array([[e.labels[name] == 1 for name in FINDINGS] for e in shown], np.int8)
    patients = [exposure.patient_id for exposure in shown]
    out.mkdir()
    log.info("world: training the tiny networks")
    parts: tuple[tuple[Callable[..., None], tuple[Any, ...]], ...] = (
        (_write_diffusion, (images, captions, out, seed)),
        (_write_encoders, (images, captions, findings, patients, out, seed)),
        (_write_llava_rad, (images, shown, findings, out, seed)),
        (_write_cxas, (images, masks, out, seed)),
        (_write_chexbert, (out, seed)),
    )
    if threads == 1:
        for write, arguments in parts:
            write(*arguments)
        return
    with multiprocessing.get_context("spawn").Pool(min(threads, len(parts))) as pool:
        waiting = [pool.apply_async(write, arguments) for write, arguments in parts]
        for result in waiting:
            result.get()
        pool.close()
        pool.join()


def _write_diffusion(images: np.ndarray, captions: list[str], out: Path, seed: int) -> None:
    import torch

    from workflow_scripts.world.diffusion import write_diffusion_checkpoints

    # A fixed number, so that a seed gives the same weights on any machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    write_diffusion_checkpoints(images, captions, out, seed)
    torch.set_num_threads(threads)


def _write_encoders(
    images: np.ndarray,
    captions: list[str],
    findings: np.ndarray,
    patients: list[str],
    out: Path,
    seed: int,
) -> None:
    from workflow_scripts.world.encoders import write_encoder_checkpoints

    write_encoder_checkpoints(images, captions, findings, patients, out, seed)


def _write_cxas(images: np.ndarray, masks: np.ndarray, out: Path, seed: int) -> None:
    from workflow_scripts.world.tiny_cxas import write_cxas_checkpoint

    write_cxas_checkpoint(images, masks, out, seed)


def _write_chexbert(out: Path, seed: int) -> None:
    from workflow_scripts.world.tiny_chexbert import write_chexbert

    write_chexbert(out, seed)


def _write_llava_rad(
    images: np.ndarray, shown: list[Exposure], findings: np.ndarray, out: Path, seed: int
) -> None:
    from workflow_scripts.world.tiny_llava_rad import write_tiny_llava_rad

    wordings = [_wordings(exposure) for exposure in shown]
    summaries = [impression(exposure.findings) for exposure in shown]
    indications = [mimic_layout.indication(exposure) for exposure in shown]
    write_tiny_llava_rad(images, wordings, summaries, indications, findings, out, seed)


def _wordings(exposure: Exposure) -> list[str]:
    """Return an exposure's caption and paraphrases of it."""
    absent = [name for name in FINDINGS if exposure.labels[name] == 0]
    seeds = range(exposure.study.seed + 1, exposure.study.seed + WORDINGS)
    view = exposure.study.view
    others = [describe(exposure.findings, view, seed, absent) for seed in seeds]
    return [exposure.caption or "", *others]


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--patients", type=int, default=PATIENTS)
    parser.add_argument("--threads", type=int, default=1, help="processes at a time")
    parser.add_argument("--only", choices=["radiographs"], help="leave the checkpoints out")
    arguments = parser.parse_args(argv)
    build_world(
        arguments.out,
        arguments.seed,
        arguments.patients,
        arguments.threads,
        weights=arguments.only is None,
    )


if __name__ == "__main__":
    run_script(main)
