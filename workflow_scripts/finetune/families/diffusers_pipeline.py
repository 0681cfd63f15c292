"""Any text-to-image pipeline of diffusers, sampled as it is: a new model needs the config alone.

The folder's `model_index.json` names the pipeline and its components. Fine-tuning has to know the
model's objective, so it needs a family of its own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import Takes
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.parts import (
    load_component,
    load_scheduler,
    load_tokenizer,
    sample_images,
)
from workflow_scripts.finetune.layout import Base, read_json, tokenizer_files, weight_files

if TYPE_CHECKING:
    import torch
    from PIL import Image

_LIBRARIES = ("diffusers", "transformers")
_NEEDED = ("prompt", "height", "width", "num_inference_steps", "guidance_scale", "generator")


class DiffusersPipeline(Family):
    """See the module."""

    name = "diffusers"
    takes = Takes(why="which network its folder holds is not known before it is loaded")

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        index = base.folder / "model_index.json"
        files = [index]
        for component, library, kind in _components(index):
            folder = base.path(component)
            if "Tokenizer" in kind:
                files += tokenizer_files(folder)[0]
            elif kind.endswith("Scheduler"):
                files.append(folder / "scheduler_config.json")
                read_json(files[-1])
            elif (folder / "config.json").is_file() or not folder.is_dir():
                read_json(folder / "config.json")
                stem = "diffusion_pytorch_model" if library == "diffusers" else "model"
                files += [folder / "config.json", *weight_files(folder, stem)]
        return files

    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> Any:
        """See `Family.load`."""
        self.check(base)
        import diffusers

        index = base.folder / "model_index.json"
        name = read_json(index).get("_class_name")
        kind = getattr(diffusers, str(name), None)
        if kind is None:
            raise InputError(f"diffusers has no pipeline {name!r}", index, "update diffusers")
        missing = [a for a in _NEEDED if a not in inspect.signature(kind.__call__).parameters]
        if missing:
            raise InputError(
                f"{name} does not take {', '.join(missing)}",
                index,
                "write a family of its own (docs/how-to/new-model.md)",
            )
        components = dict.fromkeys(
            inspect.signature(kind.__init__).parameters.keys() & _absent(index)
        )
        for component, library, part in _components(index):
            cls: Any = getattr(importlib.import_module(library), part, None)
            if cls is None:
                raise InputError(f"{library} has no {part}", index, f"update {library}")
            folder = base.path(component)
            if hasattr(cls, "parameters"):
                precision = vae_dtype if component == "vae" else None
                components[component] = load_component(cls, folder, precision or dtype)
            elif part.endswith("Scheduler"):
                components[component] = load_scheduler(folder, part)
            else:
                components[component] = load_tokenizer(cls, folder)
        return kind(**components)

    def sample(
        self,
        pipeline: Any,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """See `Family.sample`."""
        return sample_images(pipeline, captions, seeds, settings)


def _components(index: Path) -> list[tuple[str, str, str]]:
    """Return the name, library and class of each component; the safety checker is left out."""
    components = []
    for name, entry in read_json(index).items():
        if name.startswith("_") or not isinstance(entry, list) or entry[0] is None:
            continue
        if name in ("safety_checker", "feature_extractor", "image_encoder"):
            continue
        if entry[0] not in _LIBRARIES:
            raise InputError(
                f"the component {name} comes from {entry[0]!r}, and its code is not run",
                index,
                "write a family of its own (docs/how-to/new-model.md)",
            )
        components.append((name, str(entry[0]), str(entry[1])))
    return components


def _absent(index: Path) -> set[str]:
    """Return the components that the index names but that are missing or left out."""
    named = {name for name, entry in read_json(index).items() if isinstance(entry, list)}
    return named - {name for name, _, _ in _components(index)}
