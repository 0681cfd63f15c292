"""The feature cache: one HDF5 file per encoder and image collection, with its key inside.

Datasets: `features` float32 (n, d), `image_id` (UTF-8, n); `source_image_id` (UTF-8, n) for
generated collections, empty for a generated image; further small arrays that the encoder
adds (`fc_end_weight`, `fc_end_bias` of the re-identification network).

Attributes: `encoder`, `weights_sha256`, `preprocessing`, `collection`, `collection_sha256`,
`purpose`, `protocol`, `device`, `slurm_job_id` and `slurm_node` (empty without SLURM), `versions`
(JSON), `speed` if switches of speed were on, `repeated_images` and `constant_images` of generated
collections (see `extract.count_copies`), and `content_sha256` of everything else in the file.

Files are not compressed: that would save 14% of the space and take 4 to 30 times as long.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file

REQUIRED_ATTRS: Final = (
    "encoder",
    "weights_sha256",
    "preprocessing",
    "collection",
    "collection_sha256",
    "purpose",
    "protocol",
    "versions",
)
_DIGEST: Final = "content_sha256"

_REMEDY: Final = "delete it and rerun the features stage"
COUNTS: Final = ("repeated_images", "constant_images")
"""Attributes of generated collections: counts of images that are not independent samples."""
_OWN: Final = ("features", "image_id", "source_image_id")


@dataclass(frozen=True)
class Features:
    """One file of the cache.

    Attributes:
        features: float32 (n, d), finite.
        ids: n unique ids: `prompt_id` of generated images, `image_id` of radiographs.
        source_ids: for generated collections, the radiograph that a control shows, "" for
            generated images; None for radiographs.
        attrs: the attributes, see the module; those of a file that was read have `content_sha256`.
        extras: further arrays by name.
    """

    features: NDArray[np.float32]
    ids: list[str]
    source_ids: list[str] | None
    attrs: dict[str, Any]
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)


def write_features(path: str | Path, content: Features) -> None:
    """Write a file of the cache, whole or not at all; the same content gives the same bytes.

    Raises:
        InputError: a feature is not finite (the message names the image), or an id is repeated.
        ValueError: lengths differ or an attribute is missing: a fault of the caller.
    """
    n = len(content.ids)
    if content.features.ndim != 2 or len(content.features) != n:
        raise ValueError(f"{content.features.shape} features for {n} ids")
    if content.source_ids is not None and len(content.source_ids) != n:
        raise ValueError(f"{len(content.source_ids)} source ids for {n} ids")
    missing = [name for name in REQUIRED_ATTRS if name not in content.attrs]
    if missing:
        raise ValueError(f"attributes missing: {', '.join(missing)}")
    _check(content.features, content.ids, path)
    attrs = {**content.attrs, _DIGEST: content_sha256(content)}
    with whole_file(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        file.create_dataset("features", data=np.ascontiguousarray(content.features, np.float32))
        _write_strings(file, "image_id", content.ids)
        if content.source_ids is not None:
            _write_strings(file, "source_image_id", content.source_ids)
        for name, value in sorted(content.extras.items()):
            file.create_dataset(name, data=value)
        for name, value in sorted(attrs.items()):
            file.attrs[name] = value


def read_features(path: str | Path, expect: Mapping[str, Any] | None = None) -> Features:
    """Read a file of the cache.

    Args:
        path: the file.
        expect: attributes that it must have (`{"encoder": "rad_dino", "protocol": "sound"}`).

    Raises:
        InputError: the file is missing, truncated or not a cache file; an attribute is not as
            expected (the message names both values); features are not finite; or the content has
            changed since it was written.
    """
    try:
        # Files are renamed into place and never written again, so they need no lock. Many file
        # servers do not support locks.
        with h5py.File(path, "r", locking=False) as file:
            attrs = {name: _plain(value) for name, value in file.attrs.items()}
            _check_attributes(attrs, path)
            _check_expected(attrs, expect or {}, path)
            features = file["features"][()]
            ids = _read_strings(file, "image_id")
            has_sources = "source_image_id" in file
            sources = _read_strings(file, "source_image_id") if has_sources else None
            extras = {name: np.asarray(file[name][()]) for name in file if name not in _OWN}
    except (OSError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise unreadable("cannot read features", error, path, _REMEDY) from None
    named = [ids, *([] if sources is None else [sources])]
    is_table = isinstance(features, np.ndarray) and features.ndim == 2
    if not is_table or features.dtype != np.float32 or {len(n) for n in named} != {len(features)}:
        raise InputError("features and ids do not fit each other", path, _REMEDY)
    if not features.size or not all(ids):
        fault = "an image without a name" if features.size else "features of no image"
        raise InputError(fault, path, _REMEDY)
    odd = [name for name, array in extras.items() if array.dtype.kind not in "fiu"]
    if odd:
        raise InputError(f"the array {odd[0]!r} holds no numbers", path, _REMEDY)
    _check(features, ids, path)
    content = Features(features, ids, sources, attrs, extras)
    if content_sha256(content) != attrs[_DIGEST]:
        raise InputError(
            "features, ids or attributes are not those that were written", path, _REMEDY
        )
    return content


def content_sha256(content: Features) -> str:
    """Return the hex digest of a file's features, ids, sources, extras and attributes.

    It reveals a file that was changed after it was written: other features under the same ids, the
    same features under other ids, another digest of the weights.
    """
    arrays = {"features": content.features, **content.extras}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    attrs = {name: _plain(value) for name, value in content.attrs.items() if name != _DIGEST}
    header = {
        "attrs": attrs,
        "ids": content.ids,
        "sources": content.source_ids,
        "arrays": {name: [array.dtype.str, array.shape] for name, array in arrays.items()},
    }
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for _, array in sorted(arrays.items()):
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _check(features: NDArray[np.float32], ids: Sequence[str], path: str | Path) -> None:
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        shown = ", ".join(ids[i] for i in np.flatnonzero(bad)[:5])
        raise InputError(
            f"{int(bad.sum())} image(s) have features that are not finite: {shown}",
            path,
            "look at these images and at the encoder's weights, then rerun the features stage",
        )
    if len(set(ids)) != len(ids):
        raise InputError(f"{len(ids) - len(set(ids))} id(s) stand twice", path, _REMEDY)


def _check_attributes(attrs: Mapping[str, Any], path: str | Path) -> None:
    """Refuse attributes of the wrong type."""
    texts = (*REQUIRED_ATTRS, _DIGEST)
    for name, value in attrs.items():
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if name in texts and not isinstance(value, str):
            fault = "not a text"
        elif name in COUNTS and not is_count:
            fault = "not a number of images"
        elif not isinstance(value, (str, int, float)):
            fault = "neither a text nor a number"
        else:
            continue
        raise InputError(f"the attribute {name!r} is {value!r}: {fault}", path, _REMEDY)
    try:
        versions = json.loads(attrs.get("versions", "{}"))
    except (ValueError, RecursionError):
        versions = None
    if not isinstance(versions, dict):
        raise InputError(
            f"the attribute 'versions' is {attrs['versions']!r}: not an object of JSON",
            path,
            _REMEDY,
        )


def _check_expected(attrs: Mapping[str, Any], expect: Mapping[str, Any], path: str | Path) -> None:
    wanted = dict.fromkeys((*REQUIRED_ATTRS, _DIGEST)) | dict(expect)
    for name, value in wanted.items():
        if name not in attrs:
            raise InputError(f"features without the attribute {name!r}", path, _REMEDY)
        if value is not None and attrs[name] != value:
            raise InputError(
                f"features of another {name}: {attrs[name]!r} in the file, {value!r} expected",
                path,
                _REMEDY,
            )


def _write_strings(file: h5py.File, name: str, values: Sequence[str]) -> None:
    file.create_dataset(name, data=np.array(values, dtype=object), dtype=h5py.string_dtype())


def _read_strings(file: h5py.File, name: str) -> list[str]:
    values = file[name].asstr()[()]
    if values.ndim != 1:
        raise TypeError(f"{name} is no list of texts")
    return values.tolist()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
