"""Feature files written by hand for tests of their readers, also ones that nobody should write."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workflow_scripts.features.cache import Features, content_sha256

ATTRS = {
    "weights_sha256": "w" * 64,
    "preprocessing": "resize shorter side 14",
    "collection": "real",
    "collection_sha256": "c" * 64,
    "purpose": "fidelity",
    "protocol": "sound",
    "versions": json.dumps({}),
}


def write_file(
    folder: Path,
    encoder: str,
    features: Any,
    ids: Sequence[str],
    sources: Sequence[str] | None = None,
    extras: dict[str, Any] | None = None,
    **attrs: Any,
) -> Path:
    """Write `{encoder}.h5`, sealed; features (n, d) may be of any value."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{encoder}.h5"
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file["features"] = np.asarray(features, np.float32)
        file.create_dataset("image_id", data=np.array(ids, dtype=object), dtype=text)
        if sources is not None:
            file.create_dataset("source_image_id", data=np.array(sources, dtype=object), dtype=text)
        for name, value in (extras or {}).items():
            file[name] = np.asarray(value, np.float32)
        file.attrs.update({"encoder": encoder, **ATTRS, **attrs})
    seal(path)
    return path


@contextmanager
def changed(path: Path) -> Iterator[h5py.File]:
    """Open a file for changes, and seal it: as if it had been written so."""
    with h5py.File(path, "r+") as file:
        yield file
    seal(path)


def seal(path: Path) -> None:
    """Set the digest of a file's content to what the file holds."""
    own = ("features", "image_id", "source_image_id")
    with h5py.File(path, "r+") as file:
        ids, sources = (
            file[name].asstr()[()].tolist() if name in file else None for name in own[1:]
        )
        extras = {name: file[name][()] for name in file if name not in own}
        attrs = dict(file.attrs)
        content = Features(file["features"][()], ids, sources, attrs, extras)
        file.attrs["content_sha256"] = content_sha256(content)


def captions_sha256(captions: Sequence[str]) -> str:
    """Return the digest of captions as features of captions keep it."""
    digests = [hashlib.sha256(caption.encode()).digest() for caption in captions]
    return hashlib.sha256(b"".join(digests)).hexdigest()


def images_sha256(images: Sequence[tuple[str, bytes]]) -> str:
    """Return the digest of images (id, encoded) as features of them keep it."""
    digests = [name.encode() + b"\0" + hashlib.sha256(data).digest() for name, data in images]
    return hashlib.sha256(b"".join(digests)).hexdigest()
