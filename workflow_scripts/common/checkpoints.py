"""Weight files: read without running code in them, and checked before they are trusted."""

import json
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
_DOWNLOAD = "download it again from its source (README, section on weights)"

_HEADERS_ONLY: ContextVar[bool] = ContextVar("headers_only", default=False)


@contextmanager
def headers_only() -> Iterator[None]:
    """Within it, weights are read without their values: names and shapes, on torch's meta device.

    What loads networks by `load_state`, `load_exactly` and `load_component` then builds them with
    every key checked, in seconds and without their memory. They cannot compute.
    """
    token = _HEADERS_ONLY.set(True)
    try:
        yield
    finally:
        _HEADERS_ONLY.reset(token)


def reads_headers_only() -> bool:
    """Return whether weights are read without their values, see `headers_only`."""
    return _HEADERS_ONLY.get()


def build_device() -> Any:
    """Return a context in which networks are built: within `headers_only`, on the meta device."""
    import torch

    return torch.device("meta") if reads_headers_only() else nullcontext()


def check_weight_file(path: str | Path) -> None:
    """Check that a weight file is there and whole, without importing torch or reading tensors.

    Safetensors: the header parses and its offsets end where the file ends. `.pt`, `.pth`, `.bin`,
    `.ckpt`: a readable zip archive with a pickle inside, or a legacy torch pickle.

    Raises:
        InputError: missing, empty, a Git LFS pointer, a web page, truncated, or no weight file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("a weight file is missing", path, _DOWNLOAD)
    with path.open("rb") as stream:
        head = stream.read(64)
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
    """Refuse a folder of which a JSON file asks for code of its own (`auto_map`).

    For a folder that a package will read: some packages run such code unasked.

    Raises:
        InputError: one does, or is not readable.
    """
    for path in sorted(Path(folder).rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise unreadable("not readable as JSON", error, path, remedy) from None
        if isinstance(content, dict) and "auto_map" in content:
            raise InputError("it asks for code from its own folder (`auto_map`)", path, remedy)


def safetensors_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Return the tensor shapes of a safetensors file, from its header alone.

    Raises:
        InputError: the header does not parse or the file is not as long as it says.
    """
    path = Path(path)
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size:
                raise ValueError("header longer than the file")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if 8 + length + end != size:
            raise ValueError(f"{size} bytes, where the header says {8 + length + end}")
        return {name: tuple(entry["shape"]) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"a damaged safetensors file: {error}", path, _DOWNLOAD) from None


def load_state(path: str | Path) -> dict[str, Any]:
    """Load a state dict on the CPU: safetensors, or a torch file with `weights_only=True`.

    Within `headers_only`, the tensors have no values.

    Raises:
        InputError: the file is damaged, or holds anything but tensors (a pickled model object).
    """
    check_weight_file(path)
    path = Path(path)
    bare = reads_headers_only()
    if path.suffix == ".safetensors":
        if bare:
            return _without_values(safetensors_shapes(path))
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
            "only tensors are loaded, never pickled objects; see the README on converting weights",
        ) from None
    if not isinstance(state, dict):
        raise InputError(f"a state dict was expected, not {type(state).__name__}", path, _DOWNLOAD)
    return state


def load_exactly(module: Any, state: Mapping[str, Any], path: str | Path) -> None:
    """Load a state dict into a module; every key must be there, fit, and be wanted.

    Args:
        module: the `torch.nn.Module` that takes the weights.
        state: the weights, already renamed to the module's own keys.
        path: the file they come from, for the error.

    Raises:
        InputError: missing keys, unexpected keys or other shapes, all named.
    """
    own = module.state_dict()
    faults = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
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


def _without_values(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    import torch

    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
