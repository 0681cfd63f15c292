"""Whether the cohort in a results folder was made from a given config."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from workflow_scripts.planning.cohort import cohort_flags

NOTES: Final = Path(".snakemake/metadata")
"""Where Snakemake notes the parameters that each of its outputs was made with."""

MANIFEST: Final = "cohort/manifest.parquet"


def cohort_is_of(config: Mapping[str, Any], results: Path = Path("results")) -> bool:
    """Return whether a results folder's manifest was made from a config's cohort.

    The flags of the cohort's job, as Snakemake noted them, are compared with the config's. Where
    there are no notes, because the results were copied, the manifest's images must lie in the
    config's folder.

    Args:
        config: the validated config.
        results: the folder; Snakemake's notes lie beside it.
    """
    manifest = results / MANIFEST
    if not manifest.exists():
        return False
    name = base64.b64encode(f"{results.name}/{MANIFEST}".encode()).decode()
    note = results.parent / NOTES / name
    if note.is_file():
        noted = json.loads(note.read_text(encoding="utf-8"))
        return str(cohort_flags(dict(config), "")) in noted.get("params", ())
    from workflow_scripts.common.manifest import read_manifest

    root = Path(config["cohort"][config["cohort"]["source"]]["root"])
    paths = read_manifest(manifest, ["path"])["path"]
    return bool(len(paths)) and Path(paths.iloc[0]).is_relative_to(root)
