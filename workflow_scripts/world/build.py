"""Build the embedded world: radiographs, annotations, masks and tiny checkpoints."""

import argparse
import functools
import hashlib
import logging
import multiprocessing
import pickle
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_folder
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.progress import Progress
from workflow_scripts.world import mimic_layout
from workflow_scripts.world.captions import describe, impression
from workflow_scripts.world.pictures import Scene, draw_all
from workflow_scripts.world.population import Exposure, draw_population
from workflow_scripts.world.store import digest_of_code, stored

SEED, PATIENTS = 7, 320
"""The seed and number of patients of the world that the demo and the tests share."""

SIZE = 256
IMAGES: Final = "mimic-cxr-jpg/2.0.0"
WORDINGS = 9  # captions of an image, for the language model
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Part:
    """A part of the world that can be made, and cached, separately.

    Attributes:
        name: the part's name.
        modules: modules below `workflow_scripts` that determine its content.
        write: writes the part; its arguments are the inputs and then a folder.
        inputs: everything else that determines its content.
    """

    name: str
    modules: tuple[str, ...]
    write: Callable[..., None]
    inputs: tuple[Any, ...]

    def key(self) -> str:
        """Return a digest of everything that determines the part."""
        digest = hashlib.sha256()
        for value in self.inputs:
            array = isinstance(value, np.ndarray)
            text = f"{value.dtype}{value.shape}" if array else repr(value)
            digest.update(text.encode() + b"\0" + (value.tobytes() if array else b""))
        return digest_of_code(*self.modules, further=[digest.hexdigest()])

    def put(self, out: Path, key: str | None) -> None:
        """Write the part to an existing folder, or copy it from the cache by its key."""
        if key is None:
            self.write(*self.inputs, out)
            return
        kept = stored(f"part-{self.name}", key, self.make)
        shutil.copytree(kept, out, dirs_exist_ok=True)

    def make(self, path: Path) -> None:
        """Write the part, whole or not at all."""
        with whole_folder(path) as folder:
            self.write(*self.inputs, folder)


def build_world(
    out: Path,
    seed: int,
    patients: int,
    threads: int,
    weights: bool = True,
    kept: bool = False,
    python: str | None = None,
    drawn: Callable[[Path], None] | None = None,
) -> None:
    """Build a world of `patients` at `out`, whole or not at all.

    The same seed and number of patients give the same bytes, whatever `threads`, `kept` and
    `python`.

    Args:
        out: the folder to create; it gets mimic-cxr-jpg/2.0.0/, llava-rad/, masks/, organs/ and
            weights/.
        seed: seed of everything that is drawn.
        patients: number of patients, 10 to 2400; 320 give about 800 frontal radiographs.
        threads: processes that draw, and that train the checkpoints in parallel; at least 1.
        weights: whether the tiny checkpoints are trained and written, too.
        kept: whether to use the cache folder: it provides pictures and checkpoints with unchanged
            code and inputs, and stores the others.
        python: the Python that trains the checkpoints, one process for each. A Python that has
            imported the libraries already saves time. The default is processes of
            `multiprocessing`.
        drawn: called with the world's folder once everything but the checkpoints exists, in
            parallel with their training. The folder is renamed to `out` when both have ended.

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
        mimic_layout.write_tables(exposures, SIZE, folder / IMAGES)
        mimic_layout.write_annotations(exposures, folder / "llava-rad")
        # A partial, because the number of processes does not change the pictures and is no input.
        write = functools.partial(_write_pictures, threads)
        files = [_files(exposure) for exposure in exposures]
        scenes = [Scene(e.patient, e.study, e.findings, SIZE) for e in exposures]
        pictures = _Part("pictures", ("world.pictures",), write, (files, scenes))
        pictures.put(folder, pictures.key() if kept else None)
        with ThreadPoolExecutor(1) as beside:
            done = beside.submit(drawn, folder) if drawn is not None else None
            if weights:
                (folder / "weights").mkdir()
                log.info("world: training the tiny networks")
                parts = _checkpoints(exposures, folder, seed)
                _put_all(parts, folder / "weights", threads, kept, python)
            if done is not None:
                done.result()
    log.info("world: %d radiographs of %d patients in %s", len(exposures), patients, out)


def _files(exposure: Exposure) -> tuple[str, str | None]:
    """Return the path of an exposure's radiograph, and the file name of its masks.

    The masks of clavicles and organs are in `masks/` and `organs/`. A lateral view has none.
    """
    frontal = exposure.study.view != "LATERAL"
    mask = f"{exposure.image_id}.png" if frontal else None
    return f"{IMAGES}/{mimic_layout.image_path(exposure)}", mask


def _write_pictures(
    threads: int, files: list[tuple[str, str | None]], scenes: list[Scene], out: Path
) -> None:
    progress = Progress("world", len(files), "radiographs")
    drawn = draw_all(scenes, threads)
    for (name, mask_name), (jpeg, mask, organs) in zip(files, drawn, strict=True):
        mimic_layout.write_pictures([(name, jpeg)], out)
        if mask_name is not None:
            both = [(f"masks/{mask_name}", mask), (f"organs/{mask_name}", organs)]
            mimic_layout.write_pictures(both, out)
        progress.update()


def _checkpoints(exposures: list[Exposure], folder: Path, seed: int) -> list[_Part]:
    """Return the tiny networks' parts; they learn from captioned radiographs of the training split.

    Args:
        exposures: the world's exposures.
        folder: the world's folder, with its pictures.
        seed: the world's seed.
    """
    shown = [e for e in exposures if e.split == "train" and e.caption is not None]
    files = [_files(exposure) for exposure in shown]
    images = np.stack([_gray(folder / name) for name, _ in files])
    masks = np.stack(
        [
            _gray(folder / "masks" / str(mask)) | _gray(folder / "organs" / str(mask)) << 2
            for _, mask in files
        ]
    )
    captions = [exposure.caption or "" for exposure in shown]
    findings = np.array([[e.labels[name] == 1 for name in FINDINGS] for e in shown], np.int8)
    patients = [exposure.patient_id for exposure in shown]
    wordings = [_wordings(exposure) for exposure in shown]
    summaries = [impression(exposure.findings) for exposure in shown]
    indications = [mimic_layout.indication(exposure) for exposure in shown]
    spoken = (images, wordings, summaries, indications, findings, seed)
    # Started in this order, they keep two processes busy until the end.
    return [
        _Part("llava_rad", ("world.tiny_llava_rad",), _write_llava_rad, spoken),
        _Part("diffusion", ("world.diffusion",), _write_diffusion, (images, captions, seed)),
        _Part("cxas", ("world.tiny_cxas",), _write_cxas, (images, masks, seed)),
        _Part(
            "encoders",
            ("world.encoders",),
            _write_encoders,
            (images, captions, findings, patients, seed),
        ),
        _Part("chexbert", ("world.tiny_chexbert",), _write_chexbert, (seed,)),
    ]


def _put_all(
    parts: list[_Part], out: Path, threads: int, kept: bool, python: str | None = None
) -> None:
    tasks = [(part, out, part.key() if kept else None) for part in parts]
    if threads == 1:
        for part, folder, key in tasks:
            part.put(folder, key)
        return
    count = min(threads, len(parts))
    if python is not None:
        with tempfile.TemporaryDirectory() as notes, ThreadPool(count) as waiting:
            put = functools.partial(_put_with, python, Path(notes))
            waiting.starmap(put, tasks, chunksize=1)
        return
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        put_all = [pool.apply_async(_Part.put, task) for task in tasks]
        for result in put_all:
            result.get()
        pool.close()
        pool.join()


def _put_with(python: str, folder: Path, part: _Part, out: Path, key: str | None) -> None:
    """Let another Python put a part in its place."""
    task = folder / part.name
    task.write_bytes(pickle.dumps((part, out, key)))
    command = [python, "-m", "workflow_scripts.world.build_part", str(task)]
    if subprocess.run(command).returncode:
        raise InputError(f"the world's part {part.name} failed", None, "see its own words above")


def _gray(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def _write_diffusion(images: np.ndarray, captions: list[str], seed: int, out: Path) -> None:
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
    seed: int,
    out: Path,
) -> None:
    from workflow_scripts.world.encoders import write_encoder_checkpoints

    write_encoder_checkpoints(images, captions, findings, patients, out, seed)


def _write_cxas(images: np.ndarray, masks: np.ndarray, seed: int, out: Path) -> None:
    from workflow_scripts.world.tiny_cxas import write_cxas_checkpoint

    write_cxas_checkpoint(images, masks, out, seed)


def _write_chexbert(seed: int, out: Path) -> None:
    from workflow_scripts.world.tiny_chexbert import write_chexbert

    write_chexbert(out, seed)


def _write_llava_rad(
    images: np.ndarray,
    wordings: list[list[str]],
    summaries: list[str],
    indications: list[str | None],
    findings: np.ndarray,
    seed: int,
    out: Path,
) -> None:
    from workflow_scripts.world.tiny_llava_rad import write_tiny_llava_rad

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
