"""Touched, copied or renamed sources rerun nothing; changed content does.

All files count as large: Snakemake computes no checksums (`--max-checksum-file-size 0`).
"""

import copy
import gzip
import os
import re
import shutil
import sys

import pandas as pd
import pytest

from tests.cohort.conftest import ANNOTATIONS, mimic  # noqa: F401  a fixture
from tests.generate.conftest import checkpoint  # noqa: F401  a fixture
from tests.rule_texts import rule_texts
from tests.workflow.checkouts import ROOT, make_checkout, planned_jobs, run
from tests.workflow.stubs import write_overlay

MANIFEST = "results/cohort/manifest.parquet"
LARGE = ("--max-checksum-file-size", "0")
COHORT = {("cohort_manifest", None)}


def overlay_of(source, **cohort):
    paths = {"root": str(source.root), "annotations": str(source.captions)}
    return {"cohort": {"mimic_cxr_jpg": paths, **cohort}}


@pytest.fixture
def made(tmp_path, mimic):  # noqa: F811
    """A checkout with the cohort of twelve radiographs, built by the workflow, and its source."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    make_checkout(checkout)
    source = mimic.write()
    flags = write_overlay(checkout, overlay_of(source))
    run(["snakemake", "--cores", "1", "--no-hooks", MANIFEST, *LARGE, *flags], checkout)
    return checkout, source, flags


def test_only_another_content_of_the_tables_reruns_the_cohort(made):
    checkout, source, flags = made

    def planned():
        return planned_jobs(checkout, MANIFEST, *LARGE, *flags)

    tables = [*source.root.glob("*.csv.gz"), *source.captions.glob("*.json")]
    assert len(tables) == 6
    for path in tables:
        os.utime(path)
    assert planned() == set()
    for path in tables:  # a second download: other files with the same bytes
        copy = path.with_name("copy")
        shutil.copyfile(path, copy)
        copy.replace(path)
    assert planned() == set()
    write_overlay(checkout, overlay_of(source, dataset="Another name"))
    assert planned() == set()

    path = source.captions / ANNOTATIONS.format("test")
    times, text = path.stat(), path.read_text()
    path.write_text(text[:-1] + " ]")  # also with the times of before
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert planned() == COHORT
    path.write_text(text)
    assert planned() == set()
    table = source.root / "mimic-cxr-2.0.0-split.csv.gz"
    with gzip.open(table, "at") as stream:
        stream.write("x,1,1,train\n")
    assert planned() == COHORT


CONTENTS_OF = {
    "arguments.finetune_flags": "READS.base",
    "arguments.sample_flags": "READS.sampled_base",
    "arguments.external_flags": "READS.external_images",
    "arguments.encoder_flags": "READS.encoders",
    "arguments.reid_flags": "READS.reid_start",
    "arguments.classifier_flags": "READS.classifier_start",
    "arguments.reporter_flags": "READS.reporter_start",
    "arguments.labeller_flags": "READS.labeller",
    "arguments.segmenter_flags": "READS.exact_masks",
    "arguments.exact_mask_flags": "READS.exact_masks",
    "arguments.scorer_flags": "READS.scorer",
    "arguments.looking_flags": "READS.looking",
    "arguments.cxas_flags": "READS.labeller",
    "arguments.exact_organs_flag": "READS.exact_organs",
    "cohort_flags": "READS.cohort",
}
"""Expressions of the rules that pass paths of users' files, with those that pass their digests."""


def test_every_job_that_is_given_a_users_files_has_what_they_hold_as_a_parameter():
    seen = set()
    for name, block in rule_texts(ROOT / "rules").items():
        for flags, contents in CONTENTS_OF.items():
            if re.search(rf"=(per_job\()?{re.escape(flags)}\b", block):
                seen.add(flags)
                digests = rf"=(per_job\()?{re.escape(contents)}\b"
                assert re.search(digests, block), name
    assert seen == set(CONTENTS_OF)


STAND_IN = """\
import os, pathlib, sys
words = sys.argv[1:]
if "workflow_scripts.cohort" in words[1]:
    os.execv(sys.executable, [sys.executable, *words])
def value(flag):
    return pathlib.Path(words[words.index(flag) + 1])
if "preflight" in words[1]:
    sys.exit()
if "finish" in words[1]:
    value("--checkpoint").mkdir()
    value("--curve").write_text("step")
elif "train" in words[-1] or any(word.endswith("finetune.train") for word in words):
    value("--output").mkdir()
    (value("--output") / "span.json").write_text('{"finished": true}')
elif "extract" in words[1]:
    for k, word in enumerate(words):
        if word == "--encoder":
            (value("--out") / (words[k + 1].split("=")[0] + ".h5")).write_text("features")
else:
    value("--output").write_text("images")
"""
"""Stands in for a job: it makes the outputs, in no time. The cohort alone is made in earnest."""

TARGETS = [
    "results/generate/tuned/test/part-00000-of-00001.parquet",
    "results/generate/adapted/augment/part-00000-of-00001.parquet",
    "results/generate/my_model/test/part-00000-of-00001.parquet",
    "results/generate/my_model/privacy/part-00000-of-00001.parquet",
    "results/features/real/test/rad_dino.h5",
]
TUNED = {("finetune_train", "tuned"), ("finetune_finish", "tuned"), ("generate_sample", "tuned")}
ADAPTED = {(rule, "adapted") for rule, _ in TUNED}
TRAINED = {("finetune_train", "tuned"), ("finetune_finish", "tuned")}
IMPORTED = {("generate_external", "my_model")}
REFERENCE = {("features_reference", None)}


@pytest.fixture
def ran(tmp_path, mimic, checkpoint, monkeypatch):  # noqa: F811
    """A checkout with trained and sampled models, own images and features, all by stand-ins."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    make_checkout(folder)
    source = mimic.write(gz=False)  # gzip puts the time into its files
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/python"
    script.write_text(f"#!{sys.executable} -SE\n{STAND_IN}")
    script.chmod(0o755)
    monkeypatch.setenv("CHEXGENBENCH_PYTHON", str(script.parent))
    shutil.copytree(checkpoint, folder / "base")
    (folder / "rad_dino.pt").write_bytes(b"weights")
    (folder / "mine").mkdir()
    tuned = {"family": "stable_diffusion", "base": "base", "display": {"name": "x"}}
    adapted = {"method": "lora", "lora": {"rank": 2, "alpha": 2, "rslora": True, "targets": ["a"]}}
    common = {
        "method": "full", "learning_rate": 1e-3, "epochs": 1, "batch_size": 4,
        "per_device_batch_size": 4, "size": 32, "caption_dropout": 0, "weight_decay": 0,
        "max_grad_norm": 1, "warmup_steps": 0, "mixed_precision": "no",
        "gradient_checkpointing": False, "checkpoint_every": 10, "seed": 1,
    }  # fmt: skip
    tuned["generate"] = {"steps": 1, "guidance": 1, "size": 32, "batch_size": 1}
    image_table = {"images": "mine", "metadata": "mine/metadata.csv"}
    shown = {"family": "external", "external": image_table, "display": {"name": "y"}}
    overlay = overlay_of(source) | {
        "run_models": ["tuned", "adapted", "my_model"],
        "models": {
            "tuned": tuned | {"finetune": common},
            "adapted": tuned | {"finetune": common | adapted},
            "my_model": shown | {"prompt_sets": ["test", "privacy"]},
        },
        "encoders": {"rad_dino": {"weights": "rad_dino.pt"}},
        "prompt_sets": {
            "test": {"shards": 1},
            "privacy": {"captions": 2, "seeds": [1], "shards": 1},
            "augment": {"captions": 2, "draw": "unique", "shards": 1},
        },
    }
    flags = [*write_overlay(folder, overlay), *LARGE]
    run(["snakemake", "--cores", "1", "results/cohort/prompts/test.csv",
         "results/cohort/prompts/privacy.csv", *flags], folder)  # fmt: skip
    ids = pd.concat(
        pd.read_csv(folder / f"results/cohort/prompts/{name}.csv")["prompt_id"]
        for name in ("test", "privacy")
    )
    rows = pd.DataFrame({"file_name": ids + ".png", "prompt_id": ids})
    rows.to_csv(folder / "mine/metadata.csv", index=False)
    for name in rows["file_name"]:
        (folder / "mine" / name).write_text(name)
    run(["snakemake", "--cores", "1", *TARGETS, *flags], folder)
    return folder, source, flags


def test_only_another_content_of_what_is_read_reruns_what_reads_it(ran):
    folder, source, flags = ran

    def planned():
        return planned_jobs(folder, *TARGETS, *flags)

    def replace(path, content):
        """Replace a file in place, of the same size and with the times of before."""
        times, old = path.stat(), path.read_bytes()
        assert len(old) == len(content(old))
        path.write_bytes(content(old))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def last_byte(data):
        return data[:-1] + bytes([255 - data[-1]])

    for part in (source.root, source.captions, folder / "base", folder / "mine"):
        shutil.copytree(part, part.with_name("copy"))
        shutil.rmtree(part)
        part.with_name("copy").rename(part)
    os.utime(folder / "rad_dino.pt")
    assert planned() == set()

    weights = folder / "base/unet/diffusion_pytorch_model.safetensors"
    image = next((folder / "mine").glob("test-*.png"))
    read = (weights, image, folder / "rad_dino.pt")
    for path in read:
        replace(path, last_byte)
    assert planned() == TUNED | ADAPTED | IMPORTED | REFERENCE
    for path in read:
        replace(path, last_byte)  # back

    captions = copy.deepcopy(source.annotations)

    def recaption(part, number):
        source.annotations = copy.deepcopy(captions)
        source.annotations[part][number]["conversations"][1]["value"] = "Another caption."
        source.write(gz=False, images=False)

    source.chexpert[0]["Edema"] = "0.0"
    recaption("test", 1)
    jobs = planned()
    assert jobs >= COHORT | {("cohort_prompts", None)} | {("generate_sample", "tuned")}
    assert not jobs & (ADAPTED | TRAINED), "of a test caption and a label nothing is trained"
    recaption("train", 0)  # the radiologist's words behind a caption that gpt4 wrote
    assert not planned() & (TUNED | ADAPTED)
    recaption("train", 1)
    assert planned() >= COHORT | TUNED | ADAPTED
    source.chexpert[0]["Edema"] = "-1.0"
    source.annotations = captions
    source.write(gz=False, images=False)

    run([sys.executable, "-m", "workflow_scripts.cohort.refresh"], folder)
    (radiograph,) = source.root.rglob("d-b1.jpg")
    replace(radiograph, last_byte)
    run([sys.executable, "-m", "workflow_scripts.cohort.refresh"], folder)
    assert planned() == TUNED | ADAPTED
