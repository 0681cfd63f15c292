"""All eleven systems of config.yaml, tiny, through the whole workflow."""

import io
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.common.test_code import HEAVY, LIGHT, SCRIPTS
from tests.workflow.checkouts import make_checkout, run
from workflow_scripts.common.code import Code
from workflow_scripts.common.images import read_shards
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.records import read_record

pytestmark = [pytest.mark.workflow, pytest.mark.full]

FULL = ("sd_v1_4", "sd_v1_5", "sd_v2", "sd_v2_1", "pixart_sigma", "sana")
LORA = ("sd_v3_5", "lumina_2", "flux_1_dev")
SYSTEMS = (*FULL, *LORA, "radedit", "llm_cxr")
VARIANT = "sd_v1_5_impression"
LIGHT_OUTPUTS = {
    "cohort.draw_prompts": "results/cohort/prompts/test.parquet",
    "generate.make_control": "results/generate/noise/test/part-00000-of-00001.parquet",
}


@pytest.fixture(scope="module")
def eleven(tmp_path_factory):
    """A checkout in which `make demo-eleven` has run."""
    folder = tmp_path_factory.mktemp("eleven") / "checkout"
    folder.mkdir()
    make_checkout(folder)
    traces = folder / "traces"
    traces.mkdir()
    traced = {"PYTHONPATH": str(folder / "tests/trace"), "CHEXGENBENCH_TRACE": str(traces)}
    run(["make", "demo-eleven"], folder, **traced)
    # Light jobs again, each in a Python of its own: which libraries it loads is seen there alone.
    files = ["config.yaml", "profiles/demo/overlay.yaml", "profiles/demo/eleven.yaml"]
    command = ["snakemake", "--profile", "profiles/demo", "--configfile", *files, "--force"]
    run([*command, *LIGHT_OUTPUTS.values()], folder, **traced)
    return folder


def test_every_system_stands_in_the_tables(eleven):
    table = pd.read_csv(eleven / "results/tables/table01_fidelity.csv")
    names = table.iloc[:, 0].tolist()
    assert names[:11] == [
        "SD V1-4",
        "SD V1-5",
        "SD V2",
        "SD V2-1",
        "RadEdit",
        "Pixart Sigma",
        "Sana",
        "SD V3-5",
        "Lumina 2.0",
        "Flux.1-Dev",
        "LLM-CXR",
    ]
    for system in SYSTEMS:
        fid = read_record(eleven / f"results/fidelity/rad_dino/{system}.json").get("fid")
        assert np.isfinite(fid.value)


def test_systems_are_tuned_as_table_11_says(eleven):
    folder = eleven / "results/finetune"
    for system in FULL:
        index = json.loads((folder / system / "checkpoint/model_index.json").read_text())
        assert index["_class_name"].endswith("Pipeline")
    for system in LORA:
        checkpoint = folder / system / "checkpoint"
        files = {path.name for path in checkpoint.iterdir()} - {".snakemake_timestamp"}
        assert files == {"pytorch_lora_weights.safetensors"}
    tuned = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert tuned == {*FULL, *LORA, VARIANT}
    for system in tuned:
        assert np.isfinite(pd.read_csv(folder / system / "training.csv")["loss"]).all()


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_prompt_has_its_image_and_images_differ(eleven, system):
    prompts = read_prompts(eleven / "results/cohort/prompts/privacy.parquet")
    shards = sorted((eleven / f"results/generate/{system}/privacy").glob("*.parquet"))
    items = list(read_shards(shards))
    assert [item.id for item in items] == prompts["prompt_id"].tolist()
    pixels = [np.asarray(Image.open(io.BytesIO(item.data)), float) for item in items]
    side = 32 if system == "llm_cxr" else 64
    assert {image.shape for image in pixels} == {(side, side, 3)}
    assert np.abs(pixels[0] - pixels[1]).mean() > 1  # one caption, two seeds


def test_a_variant_with_captions_of_its_own_is_measured_on_them(eleven):
    cohort = eleven / "results/cohort"
    manifest = read_manifest(cohort / "captions_impression/manifest.parquet").set_index("image_id")
    others = read_manifest(cohort / "manifest.parquet").set_index("image_id")
    # A radiograph's indication comes with its caption, of the same annotation.
    same = [name for name in manifest.columns if not name.startswith(("caption", "indication"))]
    pd.testing.assert_frame_equal(manifest[same], others[same])
    assert set(manifest["caption"].dropna()).isdisjoint(others["caption"].dropna())
    assert set(manifest["caption_source"].dropna()) == {"impression"}

    prompts = read_prompts(cohort / "captions_impression/prompts/test.parquet")
    shards = sorted((eleven / f"results/generate/{VARIANT}/test").glob("*.parquet"))
    assert [item.caption for item in read_shards(shards)] == prompts["caption"].tolist()
    assert set(prompts["caption"]) == set(
        manifest.loc[manifest["split"] == "test", "caption"].dropna()
    )
    record = read_record(eleven / f"results/fidelity/rad_dino/{VARIANT}.json")
    assert record.get("fid").n == len(prompts)

    pointed = set(read_prompts(cohort / "captions_impression/prompts/privacy.parquet")["image_id"])
    with h5py.File(eleven / "results/features/real/train/reid.h5") as file:
        assert set(file["image_id"].asstr()[:]) >= pointed
    # The same training images, other captions: other weights.
    curves = [
        pd.read_csv(eleven / f"results/finetune/{name}/training.csv")["loss"]
        for name in (VARIANT, "sd_v1_5")
    ]
    assert len(curves[0]) == len(curves[1])
    assert not np.array_equal(*curves)


def test_a_variant_with_captions_of_its_own_has_no_downstream_record(eleven):
    assert not (eleven / f"results/downstream/classification/augmented/{VARIANT}.json").exists()
    text = (eleven / "results/tables/table04_classification_augmented.md").read_text()
    assert "other radiographs than the baseline's" in text


def test_what_jobs_loaded_is_what_their_rules_declare(eleven):
    """Encoders, families and what stages declare are imported by name: rules add them.

    A family reruns the figures alone: neither fine-tuning nor sampling.
    """
    code = Code(eleven)
    folder = Path("workflow_scripts")
    families = sorted((folder / "finetune/families").glob("*.py"))
    encoders = sorted((folder / "features/encoders").glob("*.py"))
    measures = [*folder.glob("*/measures.py"), *folder.glob("*/*/measures.py")]
    by_name = {
        "features.extract": encoders,
        "finetune.train": families,
        "generate.sample": families,
        "privacy.extraction.score": encoders,
        "privacy.membership.score": families,
        "tables.build": measures,
        "tables.build_costs": measures,
        "tables.build_figures": [*measures, *families],
        "tables.report": measures,
        "tables.riskiest": measures,
    }
    traces = [json.loads(path.read_text()) for path in (eleven / "traces").glob("*.json")]
    # Preflight and the embedded world's scripts are no jobs.
    traces = [trace for trace in traces if set(trace["scripts"]) <= set(SCRIPTS)]
    assert {"fidelity.score", "privacy.score", "tables.report"} <= {
        trace["scripts"][0] for trace in traces
    }
    for trace in traces:
        named = [path for script in trace["scripts"] for path in by_name.get(script, [])]
        modules = [str(p.relative_to(folder).with_suffix("")).replace("/", ".") for p in named]
        modules = [name.removesuffix(".__init__") for name in modules]
        files = set(code.files("common.in_turn", *trace["scripts"], *modules))
        loaded = {name.replace(".", "/") for name in trace["modules"]}
        declared = {f.removesuffix(".py").removesuffix("/__init__") for f in files}
        assert loaded <= declared, trace["scripts"]
        assert set(trace["data"]) <= files, trace["scripts"]


def test_short_jobs_loaded_no_heavy_library(eleven):
    traces = [json.loads(path.read_text()) for path in (eleven / "traces").glob("*.json")]
    alone = [t for t in traces if t["libraries"] is not None and len(t["scripts"]) == 1]
    light = [t for t in alone if t["scripts"][0] in LIGHT]
    assert {t["scripts"][0] for t in light} >= set(LIGHT_OUTPUTS)
    for trace in light:
        assert not HEAVY & set(trace["libraries"]), trace["scripts"]
