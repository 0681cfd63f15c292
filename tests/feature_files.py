"""Write feature files for tests of their readers, invalid ones among them."""

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
    """Write `{folder}/{encoder}.h5` with a correct content digest; return its path.

    Args:
        folder: Created if missing.
        encoder: Name of the encoder.
        features: Features, (n, d), of any values, NaN among them.
        ids: Image ids, (n,).
        sources: Ids of the source images, (n,); None for no such dataset.
        extras: Further datasets by name.
        attrs: Attributes that replace or complete ATTRS.
    """
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
    """Open a feature file for changes; set its content digest anew afterwards."""
    with h5py.File(path, "r+") as file:
        yield file
    seal(path)


def seal(path: Path) -> None:
    """Set a feature file's attribute `content_sha256` to the digest of its present content."""
    standard = ("features", "image_id", "source_image_id")
    with h5py.File(path, "r+") as file:
        ids, sources = (
            file[name].asstr()[()].tolist() if name in file else None for name in standard[1:]
        )
        extras = {name: file[name][()] for name in file if name not in standard}
        attrs = dict(file.attrs)
        content = Features(file["features"][()], ids, sources, attrs, extras)
        file.attrs["content_sha256"] = content_sha256(content)


def captions_sha256(captions: Sequence[str]) -> str:
    """Return the `collection_sha256` of text features of these captions, in this order."""
    digests = [hashlib.sha256(caption.encode()).digest() for caption in captions]
    return hashlib.sha256(b"".join(digests)).hexdigest()


def images_sha256(images: Sequence[tuple[str, bytes]]) -> str:
    """Return the `collection_sha256` of features of these images, each (id, encoded bytes)."""
    digests = [name.encode() + b"\0" + hashlib.sha256(data).digest() for name, data in images]
    return hashlib.sha256(b"".join(digests)).hexdigest()
