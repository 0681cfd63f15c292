"""The demo's records and tables as they are committed: how they are made and compared.

`make demo`, then `python -m tests.tables.freeze` commits to what the demo shows now. That is done
on purpose, where a change is meant to change the numbers, and the difference is looked at.
"""

import argparse
import difflib
import hashlib
import json
import os
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tests.scoring import compare
from tests.workflow.checkouts import ROOT, run
from workflow_scripts.common.records import Record, read_record
from workflow_scripts.tables import build

FROZEN: Final = Path(__file__).parent / "frozen"
"""`inputs/` is what the tables are made of, `arguments.json` how, `tables/` what they are;
`weights.sha256` is of the world's networks."""

KEPT: Final = (".csv", ".md", ".tex")
"""What is committed of a table: HTML is the same numbers, and the style once more for each."""

RESULTS: Final = "results/"
SCRIPT: Final = "workflow_scripts.tables.build"
TARGET: Final = "results/tables/table01_fidelity.csv"

PIXELS_ALONE: Final = (
    "held_out_real",
    "training_copies",
    "flipped_copies",
    "brightened_copies",
    "blurred_real",
    "noise",
)
"""Controls: what is measured on their pixels alone is the same on every processor."""

OF_PIXELS: Final = ("pixel_", "mirrored_")
"""Of such metrics' names the beginning."""

COUNTED: Final = ("n_images", "words_mean_of_references", "distinct_share_of_references")
"""Metrics of what a network is given: no network takes part."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=ROOT, help="where the demo ran")
    freeze(parser.parse_args().checkout, FROZEN)


def freeze(checkout: Path, frozen: Path) -> None:
    """Keep what the tables of a finished demo are made of, and the tables."""
    shutil.rmtree(frozen, ignore_errors=True)
    frozen.mkdir()
    arguments = []
    for word in build_arguments(checkout):
        if word.startswith(RESULTS):
            kept = Path("inputs") / word.removeprefix(RESULTS)
            (frozen / kept).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkout / word, frozen / kept)
            word = str(kept)
        arguments.append(word)
    (frozen / "arguments.json").write_text(json.dumps(arguments, indent=1) + "\n")
    (frozen / "weights.sha256").write_text(digest_of_weights(checkout) + "\n")
    regenerate(frozen, frozen / "tables")
    for path in (frozen / "tables").iterdir():
        if path.suffix not in KEPT:
            path.unlink()


def build_arguments(checkout: Path) -> list[str]:
    """Return the flags that the workflow calls `tables.build` with, but where to write."""
    flags = ["--profile", "profiles/demo", "--dry-run", "--printshellcmds"]
    done = run(["snakemake", *flags, "--forcerun", "tables_build", "--", TARGET], checkout)
    (line,) = (x for x in done.stdout.splitlines() if f"{SCRIPT} " in x)
    words = shlex.split(line.split(" 2> ")[0])
    words = words[words.index(SCRIPT) + 1 :]
    out = words.index("--out")
    return words[:out] + words[out + 2 :]


def regenerate(frozen: Path, out: Path) -> None:
    """Make the tables of frozen records, by the script of the workflow."""
    arguments = json.loads((frozen / "arguments.json").read_text())
    here = Path.cwd()
    os.chdir(frozen)
    try:
        build.main([*arguments, "--out", str(out.resolve())])
    finally:
        os.chdir(here)


def differences(left: Path, right: Path) -> str:
    """Return the unified diff of two folders of tables, empty where they are the same bytes."""
    paths = [path for folder in (left, right) for path in folder.iterdir()]
    names = sorted({path.name for path in paths if path.suffix in KEPT})
    found: list[str] = []
    for name in names:
        texts = [
            (folder / name).read_bytes().decode().splitlines(keepends=True)
            if (folder / name).exists()
            else []
            for folder in (left, right)
        ]
        found += difflib.unified_diff(*texts, f"{left.name}/{name}", f"{right.name}/{name}")
    return "".join(found)


def digest_of_weights(checkout: Path) -> str:
    """Return the SHA-256 of the networks that the embedded world has trained."""
    folder, digest = checkout / "results/world/weights", hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".pt", ".pth", ".bin"):
            digest.update(f"{path.relative_to(folder)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def changes(checkout: Path, frozen: Path) -> list[str]:
    """Return what a finished demo's records say otherwise than the committed ones.

    Where the networks of the world are the committed ones, bit for bit, the processor computes as
    the one of the committed records: every part of every value is compared, to `compare.ABSOLUTE`
    and `compare.RELATIVE`. Elsewhere the tiny networks have learned something else, since they
    learn for seconds and the last bits in which processors differ grow. Then only what does not
    depend on training is compared, see `independent`. That metrics are computed as they should be
    is seen on every processor by `tests/scoring`, where nothing is trained.
    """
    alike = digest_of_weights(checkout) == (frozen / "weights.sha256").read_text().strip()
    committed, found = {}, {}
    for path in sorted((frozen / "inputs").rglob("*.json")):
        name = str(path.relative_to(frozen / "inputs"))
        committed[name] = comparable(read_record(path), alike)
        found[name] = comparable(read_record(checkout / RESULTS / name), alike)
    return compare.differences(committed, found)


def comparable(record: Record, alike: bool) -> dict[str, list[dict[str, Any]]]:
    """Return what is compared of a record's values, as JSON types.

    Args:
        record: of the demo.
        alike: whether the world's networks are the committed ones, bit for bit.
    """
    every = [json.loads(json.dumps(asdict(value))) for value in record.values]
    return {
        "values": [
            value if alike or independent(record, value["metric"]) else without_numbers(value)
            for value in every
        ]
    }


def independent(record: Record, metric: str) -> bool:
    """Return whether a metric's value depends on no network of the world.

    Those of a control's pixels alone do not, nor those of what a network is given.
    """
    of_pixels = record.model in PIXELS_ALONE and metric.startswith(OF_PIXELS)
    return of_pixels or metric in COUNTED


def without_numbers(value: dict[str, Any]) -> dict[str, Any]:
    """Return what a value says beside its number and interval.

    Which it is, of how many images, compared with how many, which direction is better, and why
    there is none.
    """
    kept = ("metric", "subset", "direction", "n", "n_reference", "reason")
    return {name: value[name] for name in kept}


if __name__ == "__main__":
    main()
