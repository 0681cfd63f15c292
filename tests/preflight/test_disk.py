"""Disk space of jobs, compared with values by hand, and its refusal if the disk is too small."""

import json
import logging
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.generate.conftest import checkpoint, make_manifest, make_prompts  # noqa: F401
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import write_manifest, write_prompts
from workflow_scripts.finetune import resume
from workflow_scripts.preflight import check, disk, needs
from workflow_scripts.preflight.check import check_model, read_config
from workflow_scripts.preflight.disk import Sizes, Writes, check_disk, planned_writes

ROOT = Path(__file__).resolve().parents[2]
CONFIG = read_config([str(ROOT / "config.yaml")])


def test_the_page_of_needs_is_what_the_config_gives():
    assert (ROOT / "docs/needs.md").read_text() == needs.table(CONFIG)
    assert set(needs.PUBLISHED) == {
        key for key in CONFIG["run_models"] if CONFIG["models"][key]["family"] != "control"
    }


def test_needs_by_hand():
    parts = needs.PUBLISHED["sd_v1_4"]
    tuned = CONFIG["models"]["sd_v1_4"]["finetune"]
    # float32 weights, gradients and two moments; text encoder and autoencoder in bf16
    expected = 859.52e6 * 16 + (123.06e6 + 83.65e6) * 2
    assert needs.training_memory(parts, tuned, False) == pytest.approx(expected)
    lora, adapted = needs.PUBLISHED["flux_1_dev"], CONFIG["models"]["flux_1_dev"]["finetune"]
    expected = (11900e6 + 123.06e6 + 4762.31e6 + 83.82e6) * 2 + 44.8e6 * (16 + 4)  # an average, too
    assert needs.training_memory(lora, adapted, False) == pytest.approx(expected)
    assert needs.sampling_memory(parts, "fp16", True) == pytest.approx(
        (859.52e6 + 123.06e6) * 2 + 83.65e6 * 4
    )
    four, sixteen = parts.encoded, needs.PUBLISHED["sd_v3_5"].encoded
    assert needs.encoded_bytes(four, 237_388) == 2 * 4 * 64 * 64 * 4 * 237_388  # 31.1 GB
    assert needs.encoded_bytes(sixteen, 237_388) / 1e9 == pytest.approx(124.5, abs=0.05)
    assert needs.checkpoint_bytes(10, {"optimiser": "came"}) == 10 * (3 * (4 + 4) + 4)
    assert resume.KEPT == needs.KEPT


def test_sizes_are_read_from_a_checkpoint(checkpoint):  # noqa: F811
    tuned = dict(CONFIG["models"]["sd_v1_4"]["finetune"], size=32)
    block = {"family": "stable_diffusion", "base": str(checkpoint), "finetune": tuned}
    sizes = check_model(checkpoint, block, {"finetune"})
    weights = load_file(checkpoint / "unet/diffusion_pytorch_model.safetensors")
    assert sizes.trained == sum(value.numel() for value in weights.values())
    vae = json.loads((checkpoint / "vae/config.json").read_text())
    side = 32 // 2 ** (len(vae["block_out_channels"]) - 1)
    assert sizes.encoded == 2 * vae["latent_channels"] * side**2
    whole = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    unet = sum(file.stat().st_size for file in (checkpoint / "unet").iterdir())
    assert sizes.copied <= whole - unet
    assert sizes.copied >= (checkpoint / "vae/diffusion_pytorch_model.safetensors").stat().st_size
    lora = {"rank": 2, "alpha": 2, "rslora": True, "targets": ["attention"]}
    adapted = block | {"finetune": tuned | {"method": "lora", "lora": lora}}
    projected = [
        sum(value.shape)
        for name, value in weights.items()
        if name.endswith((".to_q.weight", ".to_k.weight", ".to_v.weight"))
    ]
    assert check_model(checkpoint, adapted, {"finetune"}).trained == 2 * sum(projected)
    assert check_model(checkpoint, block).trained == 0  # it is not to be fine-tuned


def config_of(*keys):
    block = {"finetune": {"method": "full"}, "generate": {"size": 10}}
    sets = {"test": {"shards": 2}, "privacy": {"captions": 3, "seeds": [1, 2], "shards": 1}}
    sets["augment"] = {"captions": 5, "shards": 1}
    sets["stress"] = {"groups": 1, "shards": 1}  # three prompts: a finding there, denied, unsaid
    return {
        "cohort": {"source": "mimic_cxr_jpg", "caption_source": "llava_rad"},
        "models": dict.fromkeys(keys, block),
        "prompt_sets": sets,
        "run_models": list(keys),
    }


@pytest.fixture
def results(tmp_path):
    """A cohort of 60 images, some of them for training, and ten test prompts."""
    manifest = make_manifest(60)
    (tmp_path / "cohort/training").mkdir(parents=True)
    (tmp_path / "cohort/prompts").mkdir()
    write_manifest(manifest, tmp_path / "cohort/training/manifest.parquet")
    test = make_prompts(manifest[manifest["split"] == "test"].iloc[:4], "test")
    write_prompts(test, tmp_path / "cohort/prompts/test.parquet")
    rows = manifest[(manifest["split"] == "train") & manifest["caption"].notna()]
    return tmp_path, len(rows)


def test_planned_writes_are_what_is_not_there_yet(results):
    folder, images = results
    same = Sizes(100, 7, ("vae", 32), 1000)
    sizes = {"a": same, "b": same, "c": Sizes(100, 9, ("other", 32), 0)}
    config = config_of("a", "b", "c")

    def planned(stages=("finetune", "generate"), models=("a", "b", "c")):
        return planned_writes(config, stages, models, sizes, folder)

    each = 100 * (3 * (4 + 8) + 4)
    sampled = 100 * (4 + 3 * 2 + 5 + 3)  # 10 x 10 pixels
    assert planned() == Writes(4 * images * (7 + 9), 3 * each + 2000, 3 * sampled)
    assert planned(stages=("generate",)) == Writes(0, 0, 3 * sampled)
    assert planned(models=("a",)) == Writes(4 * images * 7, each + 1000, sampled)
    cache = folder / "finetune/.encoded/key"
    cache.mkdir(parents=True)
    (cache / "block-00000.h5").write_bytes(b"x" * 40)
    (folder / "generate/a/test").mkdir(parents=True)
    (folder / "generate/a/test/part-00000-of-00002.parquet").touch()
    expected = Writes(4 * images * 7 - 40, each + 1000, sampled - 100 * 2)
    assert planned(models=("a",)) == expected
    (folder / "finetune/a/checkpoint").mkdir(parents=True)
    assert planned(models=("a",)) == Writes(0, 0, sampled - 100 * 2)
    (folder / "cohort/training/manifest.parquet").unlink()
    assert planned(models=("b",)).encoded is None


def test_a_disk_too_small_for_training_is_refused_with_figures(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 50 * 10**9)
    writes = Writes(31 * 10**9, 20 * 10**9, 3 * 10**9)
    with pytest.raises(
        InputError, match=r"encoded images 31.0 GB, training 20.0 GB.* 50.0 GB are free"
    ):
        check_disk(writes, tmp_path)
    with caplog.at_level(logging.WARNING):
        check_disk(Writes(31 * 10**9, 18 * 10**9, 0), tmp_path)
        assert not caplog.records
        check_disk(Writes(None, 48 * 10**9, 3 * 10**9), tmp_path)
    assert "not known yet" in caplog.text
    assert disk.free_bytes(tmp_path / "not/there") > 0


def test_preflight_counts_the_disk_once_models_are_built(checkpoint, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    tuned = dict(CONFIG["models"]["sd_v1_4"]["finetune"], size=32)
    block = {"family": "stable_diffusion", "base": str(checkpoint), "finetune": tuned}
    block["generate"] = {"steps": 1, "guidance": 1, "size": 32, "batch_size": 1}
    config = CONFIG | {"models": {"tiny": block}, "run_models": ["tiny"]}
    checks = check.preflight(config, {"finetune"}, {"tiny"})
    assert [checked.fault for checked in checks] == [None, None]
    assert checks[-1].what == "disk"
    assert "encoded images not known yet" in checks[-1].path
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 10)
    assert "; 0.0 GB are free" in str(check.preflight(config, {"finetune"}, {"tiny"})[-1].fault)


def test_a_pool_that_is_drawn_counts_where_a_set_is_curated(tmp_path):
    config = json.loads(json.dumps(CONFIG))
    drawn = {"captions": 1_000, "prevalence": {}, "draw_seed": 1, "shards": 4}
    config["prompt_sets"]["drawn"], config["curate"]["pool"] = drawn, "drawn"

    def images(stages):
        return planned_writes(config, stages, ["sana"], {}, tmp_path).images

    more = images({"generate", "curate"}) - images({"generate"})
    assert more == 1_000 * 512**2
    (tmp_path / "generate/sana/drawn").mkdir(parents=True)
    (tmp_path / "generate/sana/drawn/part-00000-of-00004.parquet").touch()
    assert images({"generate", "curate"}) - images({"generate"}) == 750 * 512**2
