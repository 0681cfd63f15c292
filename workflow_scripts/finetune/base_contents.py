"""Digests of the files that a base checkpoint is loaded from; they rerun training and sampling."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workflow_scripts.common.contents import Contents
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.layout import Base


def base_contents(settings: Mapping[str, Any], contents: Contents) -> list[str]:
    """Return `file digest` of each file of a base that its family loads.

    Other files of its folder (a README, weights in another precision) do not count. If the base is
    missing or its family refuses it, the last known digests are returned: preflight reports the
    fault before a job needs the base.

    Args:
        settings: the model's block of the config: `family`, `base` and, if it has them, `parts`.
        contents: the store of digests.
    """
    family = settings["family"]
    parts = {name: Path(folder) for name, folder in (settings.get("parts") or {}).items()}
    base = Base(Path(settings["base"]), parts)

    def tell() -> list[str]:
        try:
            files = get_family(family).check(base)
        except InputError as error:
            raise OSError(str(error)) from None
        digests = (line.rsplit(" ", 1)[1] for line in contents.digests(files))
        names = (base.component_of(file) or file.name for file in files)
        return sorted(f"{name} {digest}" for name, digest in zip(names, digests, strict=True))

    folders = ", ".join(f"{name} {folder}" for name, folder in sorted(parts.items()))
    return contents.last(f"{family} {base.folder}, {folders}", tell)
