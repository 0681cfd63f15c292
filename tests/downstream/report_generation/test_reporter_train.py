"""The script on images of blobs: use of the image, starts, killed runs, leaks, refused inputs."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import read_manifest, write_manifest
from workflow_scripts.downstream.outcomes import read_outcomes
from workflow_scripts.downstream.report_generation import train
from workflow_scripts.downstream.report_generation.data import reported
from workflow_scripts.downstream.report_generation.layout import (
    image_tokens,
    read_llava_config,
    transform,
)
from workflow_scripts.downstream.report_generation.network import load_llava, load_tokenizer
from workflow_scripts.downstream.report_generation.prompts import ReportTokenizer

ROOT = Path(__file__).resolve().parents[3]
WORDS = ("cardiomegaly", "edema", "pneumothorax")
COMMAND = [sys.executable, "-m", "workflow_scripts.downstream.report_generation.train"]


def found(reports: pd.Series) -> np.ndarray:
    """Return the findings that each report names, bool (n, 3)."""
    return np.array([[word in report for word in WORDS] for report in reports])


def agreement(outcomes: pd.DataFrame) -> float:
    """Return the share of findings on which report and reference agree."""
    return float((found(outcomes["generated"]) == found(outcomes["reference"])).mean())


def losses_of(run: dict) -> list[float]:
    """Return the training losses of all epochs, stage after stage."""
    return [entry["training_loss"] for stage in run["stages"] for entry in stage["curve"]]


def tokenizer_of(folder: Path) -> ReportTokenizer:
    """Return the tokenizer of a start network, built as in the script."""
    config = read_llava_config(folder)
    image = int(config["image_token_index"])
    return ReportTokenizer(load_tokenizer(folder), image, image_tokens(config), 320)


@pytest.fixture(scope="module")
def real_run(world):
    return world.run("real")


def test_every_captioned_test_image_is_described_once_and_privately(world, real_run):
    outcomes = read_outcomes(real_run)
    test = world.manifest[world.manifest["split"] == "test"]
    assert outcomes.rows["image_id"].tolist() == test["image_id"].tolist()
    assert outcomes.rows["patient_id"].tolist() == test["patient_id"].tolist()
    assert outcomes.rows["reference"].tolist() == test["report"].tolist()
    assert test["report"].tolist() != test["caption"].tolist()
    assert list(outcomes.rows) == ["image_id", "patient_id", "reference", "generated"]
    assert real_run.stat().st_mode & 0o777 == 0o600
    assert not (real_run.parent / "progress").exists()
    run = outcomes.run
    assert (run["setting"], run["model"], run["protocol"], run["seed"]) == (
        "real_only",
        "real",
        "sound",
        7,
    )
    assert (run["n_train_real"], run["n_train_synthetic"]) == (100, 0)
    assert [stage["name"] for stage in run["stages"]] == ["projector", "adapter"]
    assert run["n_test_with_indication"] == test["indication"].notna().sum() > 0
    assert run["n_test_indications_cut"] == 0
    assert [stage["n_indications_cut"] for stage in run["stages"]] == [0, 0]
    first, second = (stage["n_with_indication"] for stage in run["stages"])
    assert first == 0 < second < 100
    assert [len(stage["curve"]) for stage in run["stages"]] == [2, 2]
    assert losses_of(run)[-1] < losses_of(run)[0]


# The light twin in the other tier: the image, and the prompt with its indication, reach the answer
# (test_reporter_parts.py).
@pytest.mark.full
def test_a_generator_that_sees_the_image_beats_one_that_does_not(taught_world, tmp_path):
    """Two blind generators: reports of other images, and training on reports of other images."""
    world = taught_world
    outcomes = read_outcomes(world.run("real"))
    rows, losses = outcomes.rows, losses_of(outcomes.run)
    assert losses[-1] < losses[0] / 2
    seeing = agreement(rows)
    generator = np.random.default_rng(0)
    shuffled = [
        agreement(rows.assign(generated=generator.permutation(rows["generated"])))
        for _ in range(20)
    ]
    manifest = world.manifest.copy()
    train_rows = np.flatnonzero(manifest["split"] == "train")
    captions = manifest["caption"].to_numpy(dtype=object).copy()
    captions[train_rows] = captions[generator.permutation(train_rows)]
    write_manifest(manifest.assign(caption=captions), tmp_path / "manifest.parquet")
    blind = agreement(
        read_outcomes(world.run("blind", manifest=tmp_path / "manifest.parquet", epochs=4)).rows
    )
    print(f"seeing {seeing:.3f}, shuffled {np.mean(shuffled):.3f}, trained blind {blind:.3f}")
    assert seeing > 0.9
    assert seeing > np.mean(shuffled) + 0.25
    assert seeing > blind + 0.15


@pytest.mark.full
def test_a_generator_reads_the_indication(taught_world, tmp_path):
    """All reports, also of test images, depend on the indication and not on the image."""
    world = taught_world
    manifest = world.manifest.copy()
    captions = np.random.default_rng(0).permutation(manifest["report"])
    indications = [" ".join(w for w in WORDS if w in c) or None for c in captions]
    manifest = manifest.assign(caption=captions, report=captions, indication=indications)
    write_manifest(manifest, tmp_path / "manifest.parquet")
    rows = read_outcomes(world.run("told", manifest=tmp_path / "manifest.parquet", epochs=8)).rows
    reading = agreement(rows)
    print(f"reading {reading:.3f}")
    assert reading > 0.9


def test_the_released_model_is_untouched(world):
    path = world.run("released", setting="released")
    outcomes = read_outcomes(path)
    assert outcomes.run["stages"] == []
    assert outcomes.run["n_train_real"] == outcomes.run["n_validation"] == 0
    folder = world.start / "released"
    tokens = tokenizer_of(folder)
    network = load_llava(folder, torch.float32).eval()
    name = outcomes.rows["image_id"][5]
    indication = world.manifest.set_index("image_id")["indication"][name]
    assert indication is not None
    ids = list(tokens.prompts([indication], "v1").of([0])[0])
    pixels = transform(folder)(world.images[name].convert("RGB"))[None]
    written: list[int] = []
    with torch.no_grad():
        while len(written) < 24 and tokens.eos not in written:
            given = torch.tensor([ids + written])
            logits = network(input_ids=given, pixel_values=pixels).logits[0, -1]
            written.append(int(logits[: tokens.image_token].argmax()))
    assert tokens.read(written) == outcomes.rows["generated"][5]


def test_synthetic_images_alone_continue_the_released_model(world):
    run = read_outcomes(
        world.run("synthetic", setting="synthetic_only", model="c", shards=[world.copies()])
    ).run
    assert run["settings"]["plan"]["start"] == "released"
    assert [stage["name"] for stage in run["stages"]] == ["adapter"]
    assert (run["n_train_real"], run["n_train_synthetic"]) == (0, 40)


def test_both_are_put_together_and_a_controls_image_has_its_own_report(world):
    prompts = world.prompts["prompt_id"].tolist()
    others = world.manifest[world.manifest["split"] == "train"]["image_id"].tolist()[-40:]
    shard = world.shard("others", {p: (i, i) for p, i in zip(prompts, others, strict=True)})
    args = train._arguments(world.arguments("x", setting="augmented", model="c", shards=[shard]))
    data = train._read_data(*args, world.manifest)
    by_id = world.manifest.set_index("image_id")
    assert data.n_real == 100
    assert len(data.pairs) == 140
    assert data.pairs.reports[100:] == by_id.loc[others, "caption"].tolist()
    assert data.pairs.indications[100:] == by_id.loc[others, "indication"].tolist()
    assert data.pairs.indications[:100] == by_id.loc[data.pairs.ids[:100], "indication"].tolist()
    assert data.test.indications == by_id.loc[data.test.ids, "indication"].tolist()
    assert list(data.pairs.patients[100:]) == by_id.loc[others, "patient_id"].tolist()
    real = train._read_data(*train._arguments(world.arguments("y")), world.manifest)
    other_seed = train._read_data(*train._arguments(world.arguments("y", seed=8)), world.manifest)
    assert real.pairs.ids == data.pairs.ids[:100] == other_seed.pairs.ids
    few = train._read_data(*train._arguments(world.arguments("y", real_images=999)), world.manifest)
    assert len(few.pairs) == (world.manifest["split"] == "train").sum()


@pytest.mark.parametrize(
    ("setting", "protocol", "start", "stages"),
    [
        ("real_only", "sound", "base", [("plain", 2), ("v1", 2)]),
        ("augmented", "sound", "base", [("plain", 2), ("v1", 2)]),
        ("synthetic_only", "sound", "released", [("v1", 2)]),
        ("released", "sound", "released", []),
        ("real_only", "as_published", "base", [("plain", 2), ("v1_stored", 3)]),
        ("augmented", "as_published", "base", [("plain", 2), ("v1_stored", 10)]),
        ("synthetic_only", "as_published", "base", [("v1_stored", 5)]),
        ("released", "as_published", "released", []),
    ],
)
def test_what_each_setting_goes_through(world, setting, protocol, start, stages):
    shards = ["s.parquet"] if setting in ("augmented", "synthetic_only") else []
    changes = {"setting": setting, "protocol": protocol}
    args, settings = train._arguments(
        world.arguments("x", **changes, **({"shards": shards} if shards else {}))
    )
    plan = train.plan_of(args.setting, settings, train.deviations(protocol))
    assert plan.start == start
    assert [(stage.form, stage.epochs) for stage in plan.stages] == stages
    assert plan.new_projector == (len(stages) == 2)


@pytest.mark.parametrize("changed", [{"lora_alpha": 4}, {"version": 2}])
def test_progress_of_other_settings_is_not_continued(changed, world, caplog, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    small = {"real_images": 16, "epochs": 1, "projector_epochs": 1}
    with monkeypatch.context() as patched:
        patched.setattr(train, "generate_reports", stop)
        with pytest.raises(KeyboardInterrupt):
            world.run("changed", **small)
    with caplog.at_level("WARNING"):
        world.run("changed", **small, **changed)
    assert "was made with other settings or data" in caplog.text


def test_long_reports_are_cut_and_the_run_says_so(world):
    plain = len(tokenizer_of(world.start / "base").prompts([None], "v1").of([0])[0])
    few = {"real_images": 24, "epochs": 1, "projector_epochs": 1}
    run = read_outcomes(world.run("short", max_length=plain + 6, **few)).run
    assert [stage["n_cut"] > 0 for stage in run["stages"]] == [False, True]
    assert [stage["n_indications_cut"] > 0 for stage in run["stages"]] == [False, True]
    assert run["n_test_indications_cut"] > 0 == run["n_test_with_indication"]


# Refusals


def test_a_test_patient_among_the_training_images_is_refused(world):
    prompts = world.prompts["prompt_id"].tolist()
    leaked = world.manifest[world.manifest["split"] == "test"]["image_id"].iloc[0]
    image_of = dict(zip(prompts, world.prompts["image_id"], strict=True))
    shown = {p: (i, i) for p, i in image_of.items()} | {prompts[3]: (leaked, leaked)}
    shard = world.shard("leak", shown)
    with pytest.raises(InputError, match="patient"):
        world.run("leak", setting="augmented", model="leak", shards=[shard])


def test_a_prompt_without_an_image_is_refused(world):
    image_of = dict(zip(world.prompts["prompt_id"], world.prompts["image_id"], strict=True))
    shown = {p: (i, None) for p, i in list(image_of.items())[1:]}
    with pytest.raises(InputError, match="without an image"):
        world.run("few", setting="synthetic_only", model="few", shards=[world.shard("few", shown)])


def test_only_test_images_with_a_radiologists_own_words_are_described(world):
    manifest = read_manifest(world.folder / "manifest.parquet")
    test = manifest["split"] == "test"
    named = manifest.loc[test, "image_id"].iloc[::2]
    manifest.loc[~manifest["image_id"].isin(named), "report"] = None
    assert reported(manifest)["image_id"].tolist() == named.tolist()


def test_a_cohort_without_test_reports_is_refused(world, tmp_path):
    manifest = read_manifest(world.folder / "manifest.parquet")
    manifest.loc[manifest["split"] == "test", "report"] = None
    write_manifest(manifest, tmp_path / "manifest.parquet")
    with pytest.raises(InputError, match="no test image has a radiologist's report"):
        world.run("uncaptioned", manifest=tmp_path / "manifest.parquet")


def test_a_start_that_is_not_there_is_refused(world, tmp_path):
    with pytest.raises(InputError, match="convert_llava_rad"):
        world.run("nowhere", start=tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match="not 'llava'"):
        world.run("nowhere", start=tmp_path)


@pytest.mark.parametrize(
    "changes", [{"shards": ["a"]}, {"setting": "augmented"}, {"epochs": 0}, {"warmup_share": 1}]
)
def test_flags_that_make_no_sense_are_refused(world, changes):
    with pytest.raises(SystemExit):
        train.main(world.arguments("flags", **changes))
