"""How long the cohort stage takes at MIMIC-CXR's size, and how much memory.

Generates metadata of that size (377,110 images of 65,379 patients, 237,388 + 5,034 captions of
some 60 words; invented words, no images) in a temporary folder, runs the commands as the workflow
does, and prints the wall time and the peak resident memory of each; and the same for a tenth of
that size, to see how the time grows. Ends with exit code 1 where the sum of the times exceeds 120 s
or a peak exceeds 6 GiB. `--small` takes a 500th and a 1000th of the size, and draws one of the
prompt sets. From the repository root:

    python -m tests.benchmarks.bench_cohort
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.measure import Result, make_parser, parse, report
from workflow_scripts.common.manifest import FINDINGS

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES, PATIENTS = 377_110, 65_379
TEST_PATIENTS = 450
TRAIN_CAPTIONS, TEST_GPT4, TEST_RULE_BASED = 237_388, 2_573, 2_461
PRIVACY, AUGMENT = 2_000, 20_000
LIMIT_S, LIMIT_GIB = 120, 6


def generate(root: Path, part: int) -> None:
    """Write the three CSV files and the three annotation files of a part's size, row by row."""
    images, patients = IMAGES // part, PATIENTS // part
    rng = random.Random(42)
    words = [
        "".join(rng.choices("abcdefghijklmnoprstuv", k=rng.randint(3, 11))) for _ in range(4000)
    ]
    test_patients = set(rng.sample(range(patients), max(2, TEST_PATIENTS // part)))
    train: list[str] = []
    test: list[str] = []
    with (
        gzip.open(root / "mimic-cxr-2.0.0-metadata.csv.gz", "wt", 1) as metadata,
        gzip.open(root / "mimic-cxr-2.0.0-split.csv.gz", "wt", 1) as split_table,
        gzip.open(root / "mimic-cxr-2.0.0-chexpert.csv.gz", "wt", 1) as chexpert,
    ):
        metadata.write("dicom_id,subject_id,study_id,ViewPosition,Rows,Columns,StudyDate\n")
        split_table.write("dicom_id,study_id,subject_id,split\n")
        chexpert.write(f"subject_id,study_id,{','.join(FINDINGS)}\n")
        study, previous = 50_000_000, -1
        for i in range(images):
            patient = i * patients // images
            subject = 10_000_000 + patient * 152
            if patient != previous or i % 5 not in (1, 3):  # some three studies to five images
                study, previous = study + 17, patient
                labels = ",".join(rng.choices(("", "1.0", "0.0", "-1.0"), (80, 12, 5, 3), k=14))
                chexpert.write(f"{subject},{study},{labels}\n")
            dicom = "-".join(f"{rng.getrandbits(32):08x}" for _ in range(5))
            frontal = patient in test_patients or rng.random() < 0.66
            view = rng.choice(("AP", "PA")) if frontal else rng.choice(("LATERAL", "LL", ""))
            split = "test" if patient in test_patients else "train"
            if split == "train" and patient % 130 == 7:
                split = "validate"
            metadata.write(f"{dicom},{subject},{study},{view},3056,2544,21800506\n")
            split_table.write(f"{dicom},{study},{subject},{split}\n")
            image = f"mimic/p{str(subject)[:2]}/p{subject}/s{study}/{dicom}.jpg"
            if frontal and split == "test":
                test.append(image)
            elif frontal and split == "train":
                train.append(image)
    entries = {
        "train": [(image, "gpt4") for image in train[: TRAIN_CAPTIONS // part]],
        "dev": [],
        "test": [(image, "rule-based") for image in test[: TEST_RULE_BASED // part]]
        + [(image, "gpt4") for image in test[: TEST_GPT4 // part]],
    }
    # Where the draw gave too few frontal images, some stand twice: the number of rows counts.
    entries["train"] += entries["train"][: TRAIN_CAPTIONS // part - len(entries["train"])]
    for name, items in entries.items():
        path = root / f"chat_{name}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
        with path.open("w") as stream:
            stream.write("[")
            for number, (image, method) in enumerate(items):
                stream.write(",\n" if number else "\n")
                json.dump(_entry(rng, words, image, method), stream)
            stream.write("\n]\n")


def _entry(rng: random.Random, words: list[str], image: str, method: str) -> dict[str, object]:
    caption = " ".join(rng.choices(words, k=rng.randint(40, 80)))
    reason = " ".join(rng.choices(words, k=12))
    return {
        "id": f"{rng.getrandbits(64):016x}",
        "image": image,
        "generate_method": method,
        "reason": reason,
        "impression": " ".join(rng.choices(words, k=20)),
        "indication": reason,
        "history": None,
        "view": "AP",
        "orientation": "Erect",
        "chexpert_labels": dict.fromkeys(FINDINGS, None),
        "conversations": [
            {"from": "human", "value": f"<image>\nProvide a description of the findings: {reason}"},
            {"from": "gpt", "value": caption},
        ],
    }


def measured(command: list[str]) -> tuple[float, float]:
    """Run a command; return its wall time in seconds and its peak resident memory in GiB."""
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE)
    assert process.stderr is not None
    messages = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{messages}")
    return time.monotonic() - start, usage.ru_maxrss / 2**20


def main(argv: list[str] | None = None) -> None:
    """Generate, run, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--part", type=int, default=1, help="of the size: 10 for a tenth")
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    args = parse(parser, argv, part=500)
    if args.generate:
        generate(args.generate, args.part)
        return
    smaller = args.part * (2 if args.small else 10)
    less, _ = stage(smaller, args.small)
    total, peak = stage(args.part, args.small)
    compared = f"commands of the cohort stage: {IMAGES // args.part} images; {IMAGES // smaller}"
    report(Result("growth", compared, total, less))
    if total > LIMIT_S or peak > LIMIT_GIB:
        raise SystemExit(f"over the limit of {LIMIT_S} s or {LIMIT_GIB} GiB")


def stage(part: int, small: bool) -> tuple[float, float]:
    """Generate a part's size, run the commands; print and return their seconds and peak in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: a child's peak memory starts from its parent's.
        command = [sys.executable, "-m", "tests.benchmarks.bench_cohort", "--generate", folder]
        subprocess.run([*command, "--part", str(part)], check=True, cwd=REPOSITORY)
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
        print(f"generated {IMAGES // part} images, ", end="")
        print(f"{TRAIN_CAPTIONS // part} training captions, {size:.0f} MB")
        manifest, module = f"{folder}/manifest.parquet", "workflow_scripts.cohort."
        build = f"--root {folder} --annotations {folder} --caption-source llava_rad --view AP=AP"
        build += f" --view PA=PA --manifest {manifest} --no-check-files"
        build += f" --attrition {folder}/attrition.csv"
        draw = "--draw-seed 42 --captions"
        seeds = "639 25 275 223 736 677 892 87 422 30"
        sets = {
            "test": "",
            "privacy": f"{draw} {PRIVACY // part} --seeds {seeds}",
            "augment": f"{draw} {AUGMENT // part} --draw unique",
        }
        commands = {"build_manifest": [f"{module}build_manifest", "mimic_cxr_jpg", *build.split()]}
        for name, flags in list(sets.items())[-1 if small else 0 :]:
            flags += f" --manifest {manifest} --prompt-set {name}"
            flags += f" --out {folder}/{name}.parquet --csv {folder}/{name}.csv"
            commands[f"draw_prompts {name}"] = [f"{module}draw_prompts", *flags.split()]
        results = {
            name: measured([sys.executable, "-m", *command]) for name, command in commands.items()
        }
        attrition = (Path(folder) / "attrition.csv").read_text()
    total, peak = sum(s for s, _ in results.values()), max(gib for _, gib in results.values())
    results["sum, peak"] = (total, peak)
    print(f"{'':24}{'seconds':>8}{'GiB':>8}")
    for name, (seconds, gib) in results.items():
        print(f"{name:24}{seconds:8.1f}{gib:8.2f}")
    print(attrition, flush=True)
    return total, peak


if __name__ == "__main__":
    main()
