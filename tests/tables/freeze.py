"""The demo's records and tables as they are committed: how they are made and compared.

`make demo`, then `python -m tests.tables.freeze` commits to what the demo shows now. That is done
on purpose, where a change is meant to change the numbers, and the difference is looked at.
"""

import argparse
import difflib
import hashlib
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Final

from tests.workflow.checkouts import ROOT, run
from workflow_scripts.common.records import Record, Value, read_record
from workflow_scripts.tables import build

FROZEN: Final = Path(__file__).parent / "frozen"
"""`inputs/` is what the tables are made of, `arguments.json` how, `tables/` what they are;
`weights.sha256` is of the world's networks."""

KEPT: Final = (".csv", ".md", ".tex")
"""What is committed of a table: HTML is the same numbers, and the style once more for each."""

RESULTS: Final = "results/"
SCRIPT: Final = "workflow_scripts.tables.build"
TARGET: Final = "results/tables/table01_fidelity.csv"

ALIKE: Final = (1e-9, 1e-6)
"""How far a value may be from the committed one, absolutely and relatively, where the networks of
the world are the same, bit for bit: the processor computes as the one of the committed records."""

ELSEWHERE: Final[dict[str, tuple[float, float] | None]] = {
    r"accuracy(_gain)?": (0.02, 0),
    r"alignment": (0.07, 0),
    r"auroc(_gain)?": (0.3, 0),
    r"authpct": (70, 0),
    r"bleu_1(_gain)?": (10, 0),
    r"bleu_4(_gain)?": (5, 0),
    r"chance_(count|share)": (0, 0.6),
    r"chexbert_\w+_gain": (0.6, 0),
    r"chexbert_\w+": (0.4, 0),
    r"closest_latent_\w+": (0, 0.8),
    r"closest_reid_\w+": (0.4, 0),
    r"precision|density|coverage": (0.3, 0),
    r"recall": (0.6, 0),
    r"dice\w*": (0.16, 0),
    r"distinct_share\w*": (0.15, 0),
    r"f1(_gain)?": (0.1, 0),
    r"fid(_corrected|_floor)?": (0, 0.7),
    r"kid": (0, 0.9),
    r"latent_(mean|mean_of_min|sd_of_min)": (0, 0.45),
    r"(pixel|mirrored)_(mean|mean_of_min|sd_of_min)": (0, 0.4),
    r"\w+_seen": (0.2, 0),
    r"nearer_to_training\w*": (0.3, 0),
    r"own_patient_\w+": (0.3, 0),
    r"reid_auc": (0.06, 0),
    r"reid_\w+": None,
    r"rouge_l(_gain)?": (0.15, 0),
    r"words_mean\w*": (8, 0),
    r"n_images": (0, 0),
}
"""The same where they are not: the tiny networks learn for seconds, and the last bits in which
processors differ grow into other networks. These are twice the largest differences that were seen
between AVX-512 and AVX2, rounded up; None is by anything. They tell a metric that is computed in
another way from one that is measured on other images."""

PIXELS_ALONE: Final = (
    "held_out_real",
    "training_copies",
    "flipped_copies",
    "brightened_copies",
    "blurred_real",
    "noise",
)
"""Controls: what is measured on their pixels alone is the same on every processor."""


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

    Which values there are, of how many images, and which there are not, is the same everywhere. How
    far the values themselves may be from the committed ones is said at `ALIKE` and `ELSEWHERE`.
    """
    alike = digest_of_weights(checkout) == (frozen / "weights.sha256").read_text().strip()
    found = []
    for path in sorted((frozen / "inputs").rglob("*.json")):
        name = str(path.relative_to(frozen / "inputs"))
        committed, record = read_record(path), read_record(checkout / RESULTS / name)
        if list(map(_place, committed.values)) != list(map(_place, record.values)):
            found.append(f"{name}: other values, or of other images")
            continue
        for was, value in zip(committed.values, record.values, strict=True):
            if was.value is None or value.value is None:
                continue
            allowed = tolerance(record, value, alike)
            if allowed is not None:
                absolute, relative = allowed
                limit = absolute + relative * max(abs(was.value), abs(value.value))
                if abs(value.value - was.value) > limit:
                    place = f"{name}: {value.metric}, {value.subset}"
                    found.append(f"{place}: {was.value:.6g} is now {value.value:.6g}")
    return found


def _place(value: Value) -> tuple[object, ...]:
    none = value.value is None
    return value.metric, value.subset, value.direction, value.n, value.n_reference, none


def tolerance(record: Record, value: Value, alike: bool) -> tuple[float, float] | None:
    """Return by how much a value may differ, absolutely and relatively; None is: by anything.

    Args:
        record: the value's.
        value: of which.
        alike: whether the world's networks are the committed ones, bit for bit.
    """
    if alike or (record.model in PIXELS_ALONE and re.match("pixel_|mirrored_", value.metric)):
        return ALIKE
    if value.subset != "all":
        return None  # of few images: a finding may have one
    for name, limits in ELSEWHERE.items():
        if re.fullmatch(name, value.metric):
            return limits
    raise LookupError(
        f"ELSEWHERE does not say how far {value.metric} may be from the committed one"
    )


if __name__ == "__main__":
    main()
