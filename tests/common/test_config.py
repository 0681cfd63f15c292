import copy

import pytest
import yaml

from tests.nested import GONE, put
from workflow_scripts.common.config import (
    caption_source_of,
    prompt_sets_of,
    schema,
    validate_config,
)
from workflow_scripts.common.environments import (
    ENVS,
    conda_environment,
    pins,
    reports_environment,
    reports_post_deploy,
)
from workflow_scripts.common.errors import InputError
from workflow_scripts.preflight.check import read_config


@pytest.fixture
def config():
    return read_config(["config.yaml"])


@pytest.mark.parametrize("overlay", [[], ["profiles/demo/overlay.yaml"]])
def test_the_shipped_configs_are_valid(overlay):
    validate_config(read_config(["config.yaml", *overlay]))


def change(config, path, value):
    changed = copy.deepcopy(config)
    put(changed, path, GONE if value is None else value)
    return changed


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("protcol", "sound", r"the top level: unknown key 'protcol' \(did you mean 'protocol'\?\)"),
        ("models.sd_v1_4.generate.step", 5, r"'step' \(did you mean 'steps'\?\)"),
        ("fidelity.nearest_k", 0, r"fidelity.nearest_k: 0 is less than.*Neighbours"),
        ("privacy.threshold", "high", r"privacy.threshold: 'high' is not of type 'number'"),
        ("cohort.dataset", None, r"cohort: missing 'dataset' \(Name of the data"),
        ("run_models", ["sd_v1_5", "sd_v14"], r"'sd_v14' is no key.*mean 'sd_v1_4'"),
        ("models.sd_v1_4.base", None, r"models.sd_v1_4: family 'stable_diffusion' needs 'base'"),
        ("models.noise.control", {"kind": "noise", "seed": 1}, r"kind 'noise' needs 'size'"),
        (
            "models.noise.control",
            {"kind": "recoded_copies", "seed": 1, "size": 64},
            r"kind 'recoded_copies' needs 'quality'",
        ),
        (
            "models.noise.speed",
            {"generate": {"compile": "blocks"}},
            r"models.noise.speed.generate: the model has no block `generate`",
        ),
        ("cohort.source", "image_folder", r"cohort.image_folder: missing"),
        ("models.sd_v1_4.generate.steps", 20.0, r"steps: 20.0 is not of type 'integer'"),
        ("privacy.threshold", float("nan"), r"threshold: nan is not of type 'number'"),
        ("models.sd_v1_4.finetune.caption_dropout", float("inf"), r"inf is not of type 'number'"),
        ("models.sd_v1_4.generate.batch_size", True, r"True is not of type 'integer'"),
        ("models.sd_v1_4.finetune.learning_rate", "5e-6", r"'5e-6' is not of type 'number'"),
    ],
)  # fmt: skip
def test_a_fault_names_the_key_and_the_remedy(config, path, value, message):
    with pytest.raises(InputError, match=message) as caught:
        validate_config(change(config, path, value))
    assert "remedy" in str(caught.value)


def test_every_fault_is_told_at_once(config):
    broken = change(change(config, "protocol", "best"), "fidelity.seed", -1)
    with pytest.raises(InputError, match="2 faults"):
        validate_config(broken)


def test_every_key_of_the_schema_is_described():
    def undescribed(node, place):
        places = []
        for key, child in node.get("properties", {}).items():
            if "description" not in child:
                places.append(f"{place}.{key}")
            places += undescribed(child, f"{place}.{key}")
        extra = node.get("additionalProperties")
        return places + (undescribed(extra, f"{place}.*") if isinstance(extra, dict) else [])

    assert undescribed(schema(), "") == []


def test_capping_images_of_a_patient_is_refused_by_name(config):
    """The loophole of the unit: an account of images would not protect a patient."""
    privacy = {"epsilon": 8, "delta": 1.0e-6, "unit": "patient", "max_grad_norm": 0.1}
    place = "models.sd_v3_5.finetune.privacy"
    validate_config(change(config, place, privacy))
    capped = change(config, place, privacy | {"images_per_patient": 2})
    with pytest.raises(InputError, match=r"sd_v3_5\S*images_per_patient: capping .* is refused"):
        validate_config(capped)
    with pytest.raises(InputError, match="unit"):
        validate_config(change(config, place, privacy | {"unit": "image"}))


def test_reports_that_nobody_reads_are_refused(config):
    config["faithfulness"]["judges"].append("llava_rad")
    validate_config(config)
    config["downstream"]["report_generation"]["metrics"]["chexbert"] = None
    with pytest.raises(InputError, match=r"metrics.chexbert: null, although .* names llava_rad"):
        validate_config(config)


def test_prompt_sets_keep_the_papers_order(config):
    config["models"]["sd_v2"]["prompt_sets"] = ["privacy", "test"]
    assert prompt_sets_of(config, "sd_v2") == ["test", "privacy"]
    assert prompt_sets_of(config, "sd_v1_4") == ["test", "privacy", "augment", "stress"]


def test_the_stress_set_is_asked_of_models_and_not_of_controls(config):
    assert "stress" not in prompt_sets_of(config, "blurred_real")
    external = {"family": "external", "external": {"images": "a", "metadata": "b"}}
    config["models"]["mine"] = external | {"display": {"name": "Mine"}}
    assert prompt_sets_of(config, "mine") == ["test", "privacy", "augment"]
    config["models"]["mine"]["prompt_sets"] = ["stress", "test"]
    assert prompt_sets_of(config, "mine") == ["test", "stress"]
    config["models"]["blurred_real"]["prompt_sets"] = ["test", "stress"]
    with pytest.raises(InputError, match="a control has no images of `stress`"):
        validate_config(config)


def test_a_model_with_captions_of_its_own_has_no_augment_images(config):
    assert caption_source_of(config, "sd_v1_4") == "llava_rad"
    assert caption_source_of(config, "sd_v1_4_impression") == "impression"
    assert prompt_sets_of(config, "sd_v1_4_impression") == ["test", "privacy", "stress"]
    config["cohort"]["caption_source"] = "impression"
    whole = ["test", "privacy", "augment", "stress"]
    assert prompt_sets_of(config, "sd_v1_4_impression") == whole


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"caption_source": "impresion"}, "'impresion' is none of llava_rad, impression"),
        ({"caption_source": "../x"}, "caption_source"),
        (
            {"caption_source": "impression", "prompt_sets": ["test", "augment"]},
            "no `augment` with a caption_source of its own",
        ),
    ],
)
def test_a_faulty_caption_source_of_a_model_is_refused(config, block, message):
    config["models"]["sd_v1_4"] |= block
    with pytest.raises(InputError, match=message):
        validate_config(config)


def test_a_caption_source_is_a_column_of_an_image_folder(config):
    columns = {"path": "image", "patient_id": "patient", "caption": "text"}
    findings = {"column": "labels", "values": {}}
    folder = {"root": "x", "metadata": "x.csv", "columns": columns, "findings": findings}
    config["cohort"] |= {"source": "image_folder", "image_folder": folder}
    config["models"]["sd_v1_4"]["caption_source"] = "short_text"
    validate_config(config)
    assert caption_source_of(config) == caption_source_of(config, "sd_v2") == "text"
    assert caption_source_of(config, "sd_v1_4") == "short_text"


def test_the_two_flavours_differ_in_torch_and_its_companions_alone():
    cpu, cuda = set(pins(ENVS / "cpu.txt")), set(pins(ENVS / "cuda.txt"))
    assert cpu <= cuda
    companions = {pin.split("==")[0] for pin in cuda - cpu}
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in companions)
    assert "torch==2.13.0" in cpu


def test_the_conda_environment_is_the_lock():
    text = (ENVS / "core.yaml").read_text()
    assert text == conda_environment(), "run `make envs/core.yaml`"
    packages = yaml.safe_load(text)["dependencies"][-1]["pip"]
    assert packages == pins(ENVS / "cuda.txt")


def test_the_environment_of_the_report_scorers_is_its_lock_on_top_of_the_core():
    assert (ENVS / "reports.yaml").read_text() == reports_environment(), "run `make envs/core.yaml`"
    assert (ENVS / "reports.post-deploy.sh").read_text() == reports_post_deploy()
    core = yaml.safe_load((ENVS / "core.yaml").read_text())
    assert yaml.safe_load((ENVS / "reports.yaml").read_text()) == core
    names = {pin.split("==")[0] for pin in pins(ENVS / "reports.txt")}
    assert {"radgraph", "RaTEScore", "radeval"} <= names
    assert not {"torch", "numpy", "pandas", "pyarrow"} & names  # those are the core's
