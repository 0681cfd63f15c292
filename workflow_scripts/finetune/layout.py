"""The layout of a published diffusers folder, checked without importing torch or diffusers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.common.checkpoints import check_weight_file
from workflow_scripts.common.errors import InputError

_REMEDY = "give the local folder of a complete diffusers checkpoint (README, section on weights)"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: missing, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("a file of the checkpoint is missing", path, _REMEDY) from None
    except (OSError, ValueError) as error:
        raise InputError(f"not readable as JSON: {error}", path, _REMEDY) from None
    if not isinstance(content, dict):
        raise InputError("not a JSON object", path, _REMEDY)
    return content


def check_pipeline_index(base: Path, pipelines: Sequence[str], components: Sequence[str]) -> Path:
    """Check `model_index.json`: one of the pipeline classes, and all components named.

    Raises:
        InputError: not a folder, not a diffusers checkpoint, or one of another pipeline.
    """
    if not base.is_dir():
        raise InputError("the checkpoint folder is missing", base, _REMEDY)
    path = base / "model_index.json"
    index = read_json(path)
    if index.get("_class_name") not in pipelines:
        raise InputError(
            f"a checkpoint of {index.get('_class_name')}, not of {' or '.join(pipelines)}",
            path,
            "correct the model's `base` or its `family`",
        )
    missing = [name for name in components if not index.get(name) or index[name][0] is None]
    if missing:
        raise InputError(f"the checkpoint has no {', '.join(missing)}", path, _REMEDY)
    return path


def weight_files(folder: Path, stem: str) -> list[Path]:
    """Return the weight files of a component, each checked to be whole; the index file included.

    Args:
        folder: the component's folder.
        stem: `diffusion_pytorch_model` (diffusers), or `model` (transformers, whose pickled form
            is called `pytorch_model`).

    Raises:
        InputError: no weights, or a missing, truncated or stand-in file.
    """
    pickled = "pytorch_model" if stem == "model" else stem
    for name in (f"{stem}.safetensors", f"{pickled}.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            files = [folder / shard for shard in shards]
        elif (folder / name).is_file():
            files = [folder / name]
        else:
            continue
        for file in files:
            check_weight_file(file)
        return [*files, index] if index.is_file() else files
    raise InputError("a component has no weights", folder / f"{stem}.safetensors", _REMEDY)


def tokenizer_files(folder: Path) -> tuple[list[Path], int | None]:
    """Return a tokenizer's files and the size of its vocabulary where a `vocab.json` tells it.

    Raises:
        InputError: neither `vocab.json` with `merges.txt` nor `tokenizer.json` is there.
    """
    names = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json")
    found = [folder / name for name in names if (folder / name).is_file()]
    present = {file.name for file in found}
    if not ({"vocab.json", "merges.txt"} <= present or "tokenizer.json" in present):
        raise InputError(
            "a tokenizer lacks vocab.json and merges.txt (or tokenizer.json)", folder, _REMEDY
        )
    size = None
    if "vocab.json" in present:
        size = max(read_json(folder / "vocab.json").values(), default=-1) + 1
    return found, size
