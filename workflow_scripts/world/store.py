"""The cache of the embedded world's files, which checkouts with the same code share.

    python -m workflow_scripts.world.store world --link results/world

The cache folder is `$CHEXGENBENCH_CACHE`, or `chexgenbench` in the user's own cache folder. Its
entries are named by a digest of the code that makes them (without comments) and the locked
libraries. The checkout has a link to its entry. `make clean-cache` empties the folder.

The world's pictures and each of its networks also have entries of their own (`part-*`). After an
edit of one network's code only this network is trained, and the others are copied.

Networks that were trained on another processor differ in their last digits. If machines share a
cache folder, all of them get the networks of the machine that trained them first.
"""

import argparse
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from filelock import FileLock

from workflow_scripts.common.code import Code
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of

log = logging.getLogger(__name__)

ROOT: Final = Path(__file__).resolve().parents[2]
LOCKS: Final = ("envs/core.lock.txt", "envs/cpu.txt")
"""The libraries that the world is made with."""

FOLDER: Final = "CHEXGENBENCH_CACHE"
SCRIPTS: Final = {"world": "world.build", "systems": "world.systems"}
"""The kinds of entries, each with the script that makes it."""

KEPT: Final = 3
"""Entries of each kind to keep, the most recently used: each edit of the renderer adds 100 MB."""


def cache_folder() -> Path:
    """Return the cache folder; it need not exist."""
    given = os.environ.get(FOLDER)
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else own / "chexgenbench"


def digest_of_code(*modules: str, further: Sequence[str] = ()) -> str:
    """Return a digest of modules, the locked libraries, and further text.

    Args:
        modules: names below `workflow_scripts`. Their imports count; comments and docstrings do
            not.
        further: further texts that the result depends on.
    """
    said = [*Code(ROOT, ROOT / ".snakemake/code.json").digests(*modules), *further]
    for name in LOCKS:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        said += [line for line in lines if line and not line.startswith("#")]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def stored(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return an entry of the cache, which is made if it does not exist.

    Other processes that need the same entry wait. Older entries of the kind are removed, see
    `KEPT`.

    Args:
        kind: the kind of entry.
        key: digest of what the entry depends on.
        make: writes the entry, whole or not at all.
    """
    folder = cache_folder() / kind
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / key
    with FileLock(folder / f"{key}.lock"):
        if not path.is_dir():
            log.info("%s: made once, and kept in %s", kind, path)
            make(path)
        os.utime(path)
    # An entry that another process is still making has a hidden name.
    made = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    others = sorted(made, key=lambda p: -p.stat().st_mtime)
    for old in others[KEPT:]:
        log.info("%s: removed, not used lately", old)
        shutil.rmtree(old, ignore_errors=True)
    return path


def link(target: Path, name: Path) -> None:
    """Make `name` a link to a folder; a link to another folder is replaced.

    Raises:
        InputError: `name` is an existing folder or file.
    """
    if name.is_symlink():
        if name.resolve() == target.resolve():
            return
        name.unlink()
    elif name.exists():
        raise InputError(
            "there is a folder where a link to the cache belongs", name, "move it away or delete it"
        )
    name.parent.mkdir(parents=True, exist_ok=True)
    name.symlink_to(target.resolve(), target_is_directory=True)


def world(
    threads: int, python: str | None = None, drawn: Callable[[Path], None] | None = None
) -> Path:
    """Return the folder of the embedded world, which is built if it does not exist.

    Args:
        threads: see `build_world`.
        python: see `build_world`.
        drawn: see `build_world`; not called if the world exists.
    """

    def make(path: Path) -> None:
        from workflow_scripts.world.build import PATIENTS, SEED, build_world

        build_world(path, SEED, PATIENTS, threads, kept=True, python=python, drawn=drawn)

    return stored("world", digest_of_code(SCRIPTS["world"]), make)


def systems(manifest: Path) -> Path:
    """Return the folder of the other systems' tiny checkpoints, made if it does not exist.

    Args:
        manifest: the manifest of the world's cohort.
    """

    def make(path: Path) -> None:
        from workflow_scripts.world.systems import main as write

        weights = world(1) / "weights"
        write(["--manifest", str(manifest), "--weights", str(weights), "--out", str(path)])

    further = [world(1).name, sha256_of(manifest)]
    return stored("systems", digest_of_code(SCRIPTS["systems"], further=further), make)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=SCRIPTS)
    parser.add_argument("--link", type=Path, required=True, help="where the checkout sees it")
    parser.add_argument("--manifest", type=Path, help="of the cohort, for the systems")
    parser.add_argument("--threads", type=int, default=1, help="processes at a time")
    args = parser.parse_args(argv)
    if args.what == "systems" and args.manifest is None:
        parser.error("the systems are made from a cohort: give --manifest")
    found = world(args.threads) if args.what == "world" else systems(args.manifest)
    link(found, args.link)


if __name__ == "__main__":
    run_script(main)
