"""The layout of a published diffusers folder, checked without importing torch or diffusers."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.checkpoints import check_weight_file
from workflow_scripts.common.errors import InputError

_REMEDY = (
    "give the local folder of a complete diffusers checkpoint (docs/how-to/mimic-and-weights.md)"
)


@dataclass(frozen=True)
class Base:
    """The folders of a checkpoint's components.

    Attributes:
        folder: the diffusers folder; a component is a folder of its own in it.
        parts: folders of components that were published elsewhere, by component.
    """

    folder: Path
    parts: Mapping[str, Path] = field(default_factory=dict)

    def path(self, component: str) -> Path:
        """Return the folder of a component."""
        return self.parts.get(component, self.folder / component)

    def component_of(self, file: Path) -> str:
        """Return a file's place in a complete folder, `component/name`; "" outside components."""
        for component, folder in self.parts.items():
            if file.is_relative_to(folder):
                return f"{component}/{file.relative_to(folder).as_posix()}"
        if file.is_relative_to(self.folder):
            place = file.relative_to(self.folder)
            return place.as_posix() if len(place.parts) > 1 else ""
        return ""


def add_base_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--base FOLDER` and `--part COMPONENT=FOLDER`, which together make a `Base`."""
    parser.add_argument("--base", required=True, type=Path, help="local diffusers folder")
    parser.add_argument(
        "--part",
        action="append",
        default=[],
        type=_part,
        metavar="COMPONENT=FOLDER",
        help="a component that lies elsewhere",
    )


def _part(text: str) -> tuple[str, Path]:
    component, separator, folder = text.partition("=")
    if not (component and separator and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not COMPONENT=FOLDER")
    return component, Path(folder)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: missing, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("a file of the checkpoint is missing", path, _REMEDY) from None
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable("not readable as JSON", error, path, _REMEDY) from None
    if not isinstance(content, dict):
        raise InputError("not a JSON object", path, _REMEDY)
    return content


def check_pipeline_index(
    base: Base, pipelines: Sequence[str], components: Sequence[str]
) -> list[Path]:
    """Check `model_index.json`: one of the pipeline classes, and all components named.

    A base needs no index if a component lies elsewhere.

    Returns:
        The index, if there is one.

    Raises:
        InputError: not a folder, not a diffusers checkpoint, or one of another pipeline.
    """
    if not base.folder.is_dir():
        raise InputError("the checkpoint folder is missing", base.folder, _REMEDY)
    path = base.folder / "model_index.json"
    if base.parts and not path.is_file():
        return []
    index = read_json(path)
    if index.get("_class_name") not in pipelines:
        raise InputError(
            f"the checkpoint holds {index.get('_class_name')}, not {' or '.join(pipelines)}",
            path,
            "correct the model's `base` or its `family`",
        )
    missing = [
        name for name in components if name not in base.parts and not _is_component(index.get(name))
    ]
    if missing:
        raise InputError(f"the checkpoint has no {', '.join(missing)}", path, _REMEDY)
    return [path]


def _is_component(said: object) -> bool:
    """Return whether an entry of `model_index.json` names a library and one of its classes."""
    return isinstance(said, list) and len(said) == 2 and all(isinstance(x, str) for x in said)


def component_files(base: Base, component: str, stem: str) -> tuple[dict[str, Any], list[Path]]:
    """Return a component's config and its files: `config.json` and the checked weights.

    Args:
        base: the checkpoint.
        component: `unet`, `vae`, `text_encoder_2`, ...
        stem: as in `weight_files`.

    Raises:
        InputError: a missing or damaged file.
    """
    folder = base.path(component)
    config = read_json(folder / "config.json")
    return config, [folder / "config.json", *weight_files(folder, stem)]


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
            files = [folder / shard for shard in _shards_of(index)]
        elif (folder / name).is_file():
            files = [folder / name]
        else:
            continue
        for file in files:
            check_weight_file(file)
        return [*files, index] if index.is_file() else files
    raise InputError("a component has no weights", folder / f"{stem}.safetensors", _REMEDY)


def _shards_of(index: Path) -> list[str]:
    """Return the files that an index of weights names, each once, sorted."""
    named = read_json(index).get("weight_map")
    files = list(named.values()) if isinstance(named, dict) else []
    odd = [name for name in files if not isinstance(name, str) or Path(name).name != name]
    if not files or odd:
        fault = f"it names {odd[0]!r}" if odd else "it names no file"
        raise InputError(f"the index of weights has no valid `weight_map`: {fault}", index, _REMEDY)
    return sorted(set(files))


def tokenizer_files(folder: Path) -> tuple[list[Path], int | None]:
    """Return a tokenizer's files, and the size of its vocabulary if it has a `vocab.json`.

    Raises:
        InputError: none of `vocab.json` with `merges.txt` (CLIP), `tokenizer.json` (any),
            `spiece.model` (T5), `tokenizer.model` (Gemma) and `vocab.txt` (BERT) is there.
    """
    names = (
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "spiece.model",
        "tokenizer.model",
        "vocab.txt",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    )
    files = [folder / name for name in names if (folder / name).is_file()]
    present = {file.name for file in files}
    alone = {"tokenizer.json", "spiece.model", "tokenizer.model", "vocab.txt"}
    if not ({"vocab.json", "merges.txt"} <= present or alone & present):
        raise InputError(
            "a tokenizer lacks vocab.json and merges.txt (or tokenizer.json, spiece.model, "
            "tokenizer.model, vocab.txt)",
            folder,
            _REMEDY,
        )
    for file in files:
        if file.suffix == ".json":
            read_json(file)
    size = None
    if "vocab.json" in present:
        path = folder / "vocab.json"
        numbers = list(read_json(path).values())
        odd = [n for n in numbers if isinstance(n, bool) or not isinstance(n, int) or n < 0]
        if odd or not numbers:
            fault = f"the number of a token is {odd[0]!r}" if odd else "it has no token"
            raise InputError(f"not a vocabulary: {fault}", path, _REMEDY)
        size = max(numbers) + 1
    return files, size
