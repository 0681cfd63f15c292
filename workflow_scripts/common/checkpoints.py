"""Weight files: read without running code in them, and checked before they are used."""

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError, first_line

_LFS_MARK = b"version https://git-lfs"
_PAGE_MARKS = (b"<!doctype html", b"<html", b"<head", b"<?xml")
_DOWNLOAD = "download it again from its source (docs/how-to/mimic-and-weights.md)"

_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits of one value, by the name of its type in a safetensors header."""

_HEADERS_ONLY: ContextVar[bool] = ContextVar("headers_only", default=False)


@contextmanager
def headers_only() -> Iterator[None]:
    """Read weights without their values inside this context: only names and shapes.

    Code that loads networks through `load_state`, `load_exactly` and `load_component` then builds
    them on torch's meta device. Every key is checked, within seconds and without memory for the
    values. Such networks cannot compute.
    """
    token = _HEADERS_ONLY.set(True)
    try:
        yield
    finally:
        _HEADERS_ONLY.reset(token)


def reads_headers_only() -> bool:
    """Return whether the caller is inside `headers_only`."""
    return _HEADERS_ONLY.get()


def build_device() -> Any:
    """Return the context to build networks in: the meta device inside `headers_only`."""
    import torch

    return torch.device("meta") if reads_headers_only() else nullcontext()


def check_weight_file(path: str | Path) -> None:
    """Check that a weight file exists and is whole, without importing torch or reading tensors.

    The header of a safetensors file must parse, and its offsets must end where the file ends. A
    `.pt`, `.pth`, `.bin` or `.ckpt` file must be a readable zip archive with a pickle inside, or a
    legacy torch pickle.

    Raises:
        InputError: the file is missing, empty, truncated, a Git LFS pointer, a web page, or not a
            weight file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("a weight file is missing", path, _DOWNLOAD)
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise unreadable("cannot read weights", error, path, _DOWNLOAD) from None
    if head.startswith(_LFS_MARK):
        raise InputError(
            "a Git LFS pointer stands where weights should", path, "run `git lfs pull`"
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE_MARKS):
        raise InputError(
            "a web page stands where weights should: a drive's question before the download, or a "
            "page that asks to log in",
            path,
            "open the address in a browser, confirm, and save the file itself",
        )
    if path.suffix == ".safetensors":
        safetensors_shapes(path)
    elif head[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                if not any(name.endswith("data.pkl") for name in archive.namelist()):
                    raise InputError("a zip archive, but no torch checkpoint", path, _DOWNLOAD)
        except zipfile.BadZipFile as error:
            raise InputError(f"a truncated checkpoint: {error}", path, _DOWNLOAD) from None
    elif head[:1] != b"\x80":
        raise InputError("neither safetensors nor a torch checkpoint", path, _DOWNLOAD)


def refuse_remote_code(folder: str | Path, remedy: str) -> None:
    """Refuse a model folder in which a JSON file asks for code from the folder (`auto_map`).

    Check folders that a third-party package will read: some packages run such code unasked.

    Raises:
        InputError: a JSON file asks for code, or cannot be read.
    """
    for path in sorted(Path(folder).rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise unreadable("not readable as JSON", error, path, remedy) from None
        if isinstance(content, dict) and "auto_map" in content:
            raise InputError("it asks for code from its own folder (`auto_map`)", path, remedy)


def safetensors_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Return the tensor shapes of a safetensors file, from its header alone.

    Raises:
        InputError: the header does not parse, or the file's length is not what it says.
    """
    return {name: tuple(entry["shape"]) for name, entry in _safetensors_header(Path(path)).items()}


def _safetensors_header(path: Path) -> dict[str, Any]:
    """Return the entries of a safetensors header: `dtype`, `shape` and `data_offsets` by tensor.

    Every tensor must be as long as its type and shape say, and the tensors must follow one another
    without gaps to the end of the file. The safetensors library checks the same, but its errors do
    not name the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size:
                raise ValueError("header longer than the file")
            header = json.loads(stream.read(length), object_pairs_hook=_without_repeats)
        if not isinstance(header, dict):
            raise ValueError("the header is no JSON object")
        notes = header.pop("__metadata__", {})
        if not isinstance(notes, dict) or not all(isinstance(n, str) for n in notes.values()):
            raise ValueError("its metadata are no texts")
        end = 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, stop = entry["data_offsets"]
            shape, bits = entry["shape"], _BITS.get(entry["dtype"])
            if bits is None:
                raise ValueError(f"{name} has values of type {entry['dtype']!r}")
            if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
                raise ValueError(f"{name} has the shape {shape!r}")
            if start != end or 8 * (stop - start) != bits * math.prod(shape):
                raise ValueError(
                    f"{name}, {entry['dtype']} {tuple(shape)}, stands from byte {start} to {stop}, "
                    f"where {end} to {end + bits * math.prod(shape) // 8} were due"
                )
            end = stop
        if 8 + length + end != size:
            raise ValueError(f"{size} bytes, where the header says {8 + length + end}")
    except OSError as error:
        raise unreadable("cannot read weights", error, path, _DOWNLOAD) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = first_line(error)
        raise InputError(f"a damaged safetensors file: {told}", path, _DOWNLOAD) from None
    return header


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated} stands twice in the header")
    return found


def load_state(path: str | Path) -> dict[str, Any]:
    """Load a state dict on the CPU: safetensors, or a torch file with `weights_only=True`.

    Inside `headers_only` the tensors have no values.

    Raises:
        InputError: the file is damaged, or holds other things than tensors (a pickled model).
    """
    check_weight_file(path)
    path = Path(path)
    bare = reads_headers_only()
    if path.suffix == ".safetensors":
        if bare:
            return _without_values(_safetensors_header(path))
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    try:
        state = torch.load(
            path,
            map_location="meta" if bare else "cpu",
            weights_only=True,
            mmap=bare and zipfile.is_zipfile(path),
        )
    except Exception as error:
        raise InputError(
            f"not a plain state dict: {first_line(error)}",
            path,
            "only tensors are loaded, never pickled objects; see docs/how-to/mimic-and-weights.md",
        ) from None
    if not isinstance(state, dict):
        raise InputError(f"a state dict was expected, not {type(state).__name__}", path, _DOWNLOAD)
    return state


def load_exactly(module: Any, state: Mapping[str, Any], path: str | Path) -> None:
    """Load a state dict into a module whose keys and shapes it must match exactly.

    Args:
        module: the `torch.nn.Module` that takes the weights.
        state: the weights, already renamed to the module's own keys.
        path: the file they come from, for the error.

    Raises:
        InputError: keys are missing or unexpected, or types or shapes differ; all are named.
    """
    import torch

    own = module.state_dict()
    odd = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    faults = {
        "missing": [key for key in own if key not in state],
        "unexpected": [str(key) for key in state if key not in own],
        "no tensor": [f"{key} ({type(state[key]).__name__})" for key in odd if key in own],
        "of whole numbers or another type, where weights are floating-point": [
            f"{key} ({str(state[key].dtype).removeprefix('torch.')})"
            for key in own
            if key in state
            and key not in odd
            and own[key].is_floating_point()
            and not (state[key].is_floating_point() and state[key].layout is torch.strided)
        ],
        "of another shape": [
            f"{key} {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
            for key in own
            if key in state and key not in odd and state[key].shape != own[key].shape
        ],
    }
    found = [
        f"{len(keys)} {fault}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for fault, keys in faults.items()
        if keys
    ]
    if found:
        raise InputError("; ".join(found), path, "use the published checkpoint of this network")
    if reads_headers_only():
        module.to("meta")
    module.load_state_dict(dict(state), strict=True)


def _without_values(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors on the meta device, all floating-point types as float32, others as uint8."""
    import torch

    return {
        name: torch.empty(
            entry["shape"],
            dtype=torch.float32 if "F" in entry["dtype"] else torch.uint8,
            device="meta",
        )
        for name, entry in header.items()
    }
