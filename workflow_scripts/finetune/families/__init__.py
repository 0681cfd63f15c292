"""The text-to-image families, found by name and imported only when asked for.

docs/families.md lists where a family is trained or sampled in another way than by its authors or by
upstream's trainers, and why.
"""

import difflib
import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from workflow_scripts.common.errors import InputError

if TYPE_CHECKING:
    from workflow_scripts.finetune.families.base import Family

_FAMILIES: Final[dict[str, str]] = {
    "diffusers": "workflow_scripts.finetune.families.diffusers_pipeline:DiffusersPipeline",
    "flux": "workflow_scripts.finetune.families.flux:Flux",
    "llm_cxr": "workflow_scripts.finetune.families.llm_cxr:LlmCxr",
    "lumina2": "workflow_scripts.finetune.families.lumina2:Lumina2",
    "pixart_sigma": "workflow_scripts.finetune.families.pixart_sigma:PixArtSigma",
    "radedit": "workflow_scripts.finetune.families.radedit:RadEdit",
    "sana": "workflow_scripts.finetune.families.sana:Sana",
    "stable_diffusion": "workflow_scripts.finetune.families.stable_diffusion:StableDiffusion",
    "stable_diffusion_3": "workflow_scripts.finetune.families.stable_diffusion_3:StableDiffusion3",
}


def register(name: str, target: str) -> None:
    """Register a family under a name.

    Args:
        name: the value of `family:` in the config.
        target: `package.module:Class`, imported when the family is first used.
    """
    _FAMILIES[name] = target


def family_names() -> tuple[str, ...]:
    """Return the registered names."""
    return tuple(_FAMILIES)


def modules_of(names: Iterable[str]) -> list[str]:
    """Return the modules of families, as names below `workflow_scripts`, for a rule's `code(...)`.

    `get_family` imports them by name, so a script's imports do not show them. A family from outside
    the package has none.
    """
    targets = sorted({_FAMILIES[name] for name in names if name in _FAMILIES})
    ours = [t for t in targets if t.startswith("workflow_scripts.")]
    return [t.partition(":")[0].removeprefix("workflow_scripts.") for t in ours]


def get_family(name: str) -> "Family":
    """Return the family of a name; `package.module:Class` need not be registered.

    Raises:
        InputError: the name is unknown (the message lists the most similar ones), or the target
            cannot be imported or is not a family.
    """
    from workflow_scripts.finetune.families.base import Family

    target = name if ":" in name else _FAMILIES.get(name)
    if target is None:
        similar = difflib.get_close_matches(name, _FAMILIES, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(similar)}?" if similar else f"known: {list(_FAMILIES)}"
        raise InputError(f"unknown model family {name!r}", None, hint)
    module, _, attribute = target.partition(":")
    try:
        family = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"the model family {name!r} cannot be imported: {error}",
            target,
            "check the module's path and PYTHONPATH",
        ) from None
    if not (isinstance(family, type) and issubclass(family, Family)):
        raise InputError(f"{target} is not a subclass of Family", "finetune/families/base.py")
    return family()
