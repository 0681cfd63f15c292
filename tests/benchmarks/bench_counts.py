"""How long the scores of one model take at MIMIC-CXR's counts on a CPU, and how much memory.

Generates metadata of that size (see bench_cohort), makes the cohort, and writes random features of
768 and 128 numbers: of every training and held-out radiograph, of 20,000 images from 2,000 training
captions and of an image from each test caption. It runs the scoring scripts as the workflow does,
with one thread, and prints the CPU seconds and the peak memory of each; and the same for half that
size. By default it takes a tenth of the counts, which takes some minutes; at the full counts the
search by score takes ten minutes of CPU. From the repository root:

    python -m tests.benchmarks.bench_counts --part 1
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.benchmarks.bench_cohort import PRIVACY, REPOSITORY, generate
from tests.benchmarks.measure import Result, make_parser, parse, report
from tests.feature_files import captions_sha256, write_file
from workflow_scripts.common.manifest import read_manifest, read_prompts

SEEDS = "639 25 275 223 736 677 892 87 422 30"
COUNTS: dict[str, Any] = {"repeated_images": 0, "constant_images": 0}


def main(argv: list[str] | None = None) -> None:
    """Generate, run, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--part", type=int, default=10, help="of the counts: 10 for a tenth")
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    args = parse(parser, argv, part=20)
    if args.generate:
        write_inputs(args.generate, args.part)
        return
    less, more = (scored(part) for part in (2 * args.part, args.part))
    for name in more:
        compared = f"CPU seconds at 1/{args.part} of the counts; at half of that"
        report(Result(name, compared, more[name], less[name]))


def write_inputs(folder: Path, part: int) -> None:
    """Write the cohort, its prompts and the features."""
    generate(folder, part)
    cohort = f"build_manifest mimic_cxr_jpg --root {folder} --annotations {folder}"
    cohort += " --caption-source llava_rad --view AP=AP --view PA=PA --no-check-files"
    cohort += f" --manifest {folder}/manifest.parquet --attrition {folder}/attrition.csv"
    draws = [
        f"draw_prompts --manifest {folder}/manifest.parquet --prompt-set {name} {flags}"
        f" --out {folder}/{name}.parquet --csv {folder}/{name}.csv"
        for name, flags in (
            ("test", ""),
            ("privacy", f"--draw-seed 42 --captions {PRIVACY // part} --seeds {SEEDS}"),
        )
    ]
    for words in (cohort, *draws):
        command = [sys.executable, "-m", f"workflow_scripts.cohort.{words}".split()[0]]
        subprocess.run([*command, *words.split()[1:]], check=True, cwd=REPOSITORY)
    rng = np.random.default_rng(0)
    manifest = read_manifest(folder / "manifest.parquet")
    head = {"fc_end_weight": rng.standard_normal((1, 128)) / 10, "fc_end_bias": np.ones(1)}

    def write(name: str, ids: pd.Series, encoders: Sequence[str], **attrs: Any) -> None:
        for encoder in encoders:
            size = 768 if encoder == "rad_dino" else 128
            features = rng.standard_normal((len(ids), size), np.float32)
            sources = [""] * len(ids) if "repeated_images" in attrs else None
            extras = head if encoder == "reid" else None
            write_file(folder / name, encoder, features, list(ids), sources, extras, **attrs)

    known = manifest["caption"].notna() & (manifest["split"] == "train")
    both, privacy = ("rad_dino", "reid"), {"purpose": "privacy"}
    write("train", manifest.loc[known, "image_id"], both, **privacy)
    write("held_out", manifest.loc[manifest["split"] != "train", "image_id"], both, **privacy)
    write("real", manifest.loc[manifest["split"] == "test", "image_id"], ("rad_dino",))
    asked, test = read_prompts(folder / "privacy.parquet"), read_prompts(folder / "test.parquet")
    write("images", asked["prompt_id"], both, collection="m", **privacy, **COUNTS)
    digest = captions_sha256(test["caption"].tolist())
    for encoders, more in (
        (("rad_dino",), {}),
        (("biovil_t_image", "biovil_t_text"), {"captions_sha256": digest}),
    ):
        write("answers", test["prompt_id"], encoders, collection="m", **COUNTS, **more)


def scored(part: int) -> dict[str, float]:
    """Generate a part of the counts, run the scripts; print and return their CPU seconds."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "tests.benchmarks.bench_counts", "--generate", name]
        subprocess.run(
            [*command, "--part", str(part)], check=True, cwd=REPOSITORY, stderr=subprocess.DEVNULL
        )
        cohort = f"--protocol sound --manifest {name}/manifest.parquet"
        one = f"{cohort} --model m --prompts {name}/privacy.parquet --real {name}/train"
        one += f" --generated {name}/images --seed 42"
        tested = f"{one} --bootstrap 1000 --threshold 0.85 --threads 1"
        scripts = {
            "fidelity.score": f"{cohort} --model m --encoder rad_dino --real {name}/real"
            f" --prompts {name}/test.parquet --generated {name}/answers --kid-bootstrap 1000"
            " --nearest-k 5 --seed 42 --threads 1",
            "privacy.score_closest": f"{tested} --matches 5 --pairs {name}/pairs.parquet",
            "privacy.score_novelty": f"{tested} --held-out-prompts {name}/test.parquet"
            f" --held-out {name}/held_out --answers {name}/answers",
            "privacy.score_attacker": f"{cohort} --prompts {name}/privacy.parquet"
            f" --real {name}/held_out --threshold 0.85",
            "privacy.membership.score_samples": f"{one} --held-out {name}/held_out --images 1000",
        }
        print(f"1/{part} of the counts{'':11}{'CPU s':>8}{'GiB':>8}")
        seconds = {}
        for script, flags in scripts.items():
            words = f"workflow_scripts.{script} {flags} --output {name}/record.json".split()
            seconds[script], gib = measured([sys.executable, "-m", *words])
            print(f"{script:34}{seconds[script]:8.1f}{gib:8.2f}", flush=True)
    return seconds


def measured(command: list[str]) -> tuple[float, float]:
    """Run a command; return its CPU time in seconds and its peak resident memory in GiB."""
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE)
    assert process.stderr is not None
    messages = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{messages}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
