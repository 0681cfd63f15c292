"""Mistakes in the config. A row is a change and words of its message."""

import copy
import datetime
from typing import Any

import pytest

from tests.nested import GONE, put
from workflow_scripts.common.config import validate_config
from workflow_scripts.common.config_text import check_config_files, read_config_file
from workflow_scripts.common.errors import InputError
from workflow_scripts.preflight.check import read_config

"""As a value: delete the key."""

NAN, INF = float("nan"), float("inf")
SEED = "is greater than the maximum of 2147483647"
BRACES = "has braces, which Snakemake takes for a wildcard"
CONTROL = "has a line break or another control character"


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    return read_config(["config.yaml"])


FOLDER = {
    "root": "x",
    "metadata": "x.csv",
    "columns": {"path": "image", "patient_id": "patient"},
    "findings": {"column": "labels", "values": {"Effusion": "Pleural Effusion"}},
}

FAULTS: list[tuple[str, object, str]] = [
    # the key, its value, words of the message
    ("cohort.dataset", "{site} X-rays", "cohort.dataset: '{site} X-rays' " + BRACES),
    ("cohort.dataset", "a}b", "cohort.dataset: 'a}b' " + BRACES),
    ("cohort.dataset", "two\nlines", r"cohort.dataset: 'two\nlines' " + CONTROL),
    ("cohort.dataset", "null\0", r"cohort.dataset: 'null\x00' " + CONTROL),
    ("cohort.dataset", "half\ud800", CONTROL),
    ("cohort.dataset", "", "cohort.dataset: '' is empty"),
    ("cohort.dataset", "  ", "cohort.dataset: '  ' is empty"),
    ("cohort.dataset", None, "cohort.dataset: None is not of type 'string'"),
    ("cohort.dataset", 2024, "cohort.dataset: 2024 is not of type 'string'"),
    ("cohort.dataset", "\u202eX-rays", "turns the direction of reading"),
    ("cohort.dataset", datetime.date(2024, 1, 1), "is not of type 'string'"),
    ("cohort.dataset", b"MIMIC", "is not of type 'string'"),
    ("cohort.bits_used", 8, "cohort.bits_used: 8 is less than the minimum of 9"),
    ("cohort.bits_used", 16, "cohort.bits_used: 16 is greater than the maximum of 15"),
    ("cohort.bits_used", 12.5, "cohort.bits_used: 12.5 is not of type 'integer'"),
    ("cohort.bits_used", "12", "cohort.bits_used: '12' is not of type 'integer'"),
    ("cohort.bits_used", True, "cohort.bits_used: True is not of type 'integer'"),
    ("cohort.identical_images", {"alike": 0}, "alike: 0 is less than or equal to the minimum of 0"),
    ("cohort.identical_images", {"alike": 2}, "alike: 2 is greater than the maximum of 1"),
    ("cohort.identical_images", {"alike": NAN}, "alike: nan is not of type 'number', 'null'"),
    ("cohort.identical_images", {"alike": "0.9"}, "alike: '0.9' is not of type 'number', 'null'"),
    ("cohort.identical_images", {"refuse_above": NAN}, "refuse_above: nan is not of type 'number'"),
    ("cohort.identical_images", {"compare": "looks"}, "compare: 'looks' is not one of"),
    ("cohort.identical_images", {"similar": 1}, "unknown key 'similar'"),
    ("cohort.mimic_cxr_jpg.root", "", "cohort.mimic_cxr_jpg.root: '' is empty"),
    ("cohort.mimic_cxr_jpg.root", " ", "cohort.mimic_cxr_jpg.root: ' ' is empty"),
    ("cohort.views", {"": "AP"}, "cohort.views: the key '' is empty"),
    ("cohort.views", {"AP": ""}, "cohort.views.AP: '' is empty"),
    ("encoders.reid.weights", "", "encoders.reid.weights: '' is empty"),
    ("models.sd_v1_4.base", "", "models.sd_v1_4.base: '' is empty"),
    ("cohort.views", {}, "cohort.views: {} "),
    ("cohort.views", {1: "AP"}, "cohort.views: the key 1 is a number for YAML: write it in quotes"),
    ("cohort.views", {False: "AP"}, "cohort.views: the key False is yes or no for YAML"),
    ("cohort.views", {None: "AP"}, "cohort.views: the key None is empty for YAML"),
    ("cohort.views", {1.5: "AP"}, "cohort.views: the key 1.5 is of type float for YAML"),
    ("cohort.views", {"AP": False}, "cohort.views.AP: False is not of type 'string'"),
    ("cohort.views", {"{AP}": "AP"}, "cohort.views: the key '{AP}' " + BRACES),
    ("cohort", None, "cohort: None is not of type 'object'"),
    ("cohort", [], "cohort: [] is not of type 'object'"),
    ("cohort.source", "png", "cohort.source: 'png' is not one of"),
    ("cohort.mimic_cxr_jpg.root", "data/{year}", "root: 'data/{year}' " + BRACES),
    (
        "cohort.image_folder",
        {"findings": {"column": "a", "values": {"Effusion": "Effusions"}}},
        "values.Effusion: 'Effusions' is not one of ['Atelectasis'",
    ),
    ("cohort.mimic_cxr_jpg.root", "~/mimic", "root: '~/mimic' begins with what only a shell"),
    ("cohort.mimic_cxr_jpg.root", "$HOME/mimic", "'$HOME/mimic' begins with what only a shell"),
    ("models.sd_v1_4.base", "${W}/sd", "has braces"),
    ("fidelity.encoders", ["inception_v3"], "'rad_dino' is not among ['inception_v3']"),
    ("cohort.mimic_cxr_jpg.root", 5, "root: 5 is not of type 'string'"),
    ("models.noise.display.name", "{noise}", "models.noise.display.name: '{noise}' " + BRACES),
    ("models.noise.display.name", "a\tb", CONTROL),
    ("models.noise.display.name", " ", "models.noise.display.name: ' ' is empty"),
    ("models.noise.display.name", 7, "models.noise.display.name: 7 is not of type 'string'"),
    ("models.noise.display", None, "models.noise.display: None is not of type 'object'"),
    ("models.7", {}, "the key '7' is no name"),
    ("models.Noise", {}, "the key 'Noise' is no name"),
    ("models.noise-2", {}, "the key 'noise-2' is no name"),
    ("models.real", {"family": "x", "display": {"name": "x"}}, "models.real: the name is taken"),
    ("models", {7: {}}, "models: the key 7 is a number for YAML: write it in quotes"),
    ("models", {True: {}}, "models: the key True is yes or no for YAML"),
    ("models", None, "models: None is not of type 'object'"),
    ("models.noise", None, "models.noise: None is not of type 'object'"),
    ("models.noise.family", None, "models.noise.family: None is not of type 'string'"),
    ("models.noise.control.seed", 2**31, SEED),
    ("models.noise.control.seed", 10**30, f"seed: {10**30} does not fit into 64 bits"),
    ("models.noise.control.seed", -(10**30), "does not fit into 64 bits"),
    ("models.noise.control.seed", -1, "seed: -1 is less than the minimum of 0"),
    ("models.noise.control.seed", "42", "seed: '42' is not of type 'integer'"),
    ("models.noise.control.seed", 4.2, "seed: 4.2 is not of type 'integer'"),
    ("models.noise.control.seed", True, "seed: True is not of type 'integer'"),
    ("models.sd_v1_4.finetune.seed", 2**32, SEED),
    ("models.sd_v1_4.finetune.epochs", 10**20, "does not fit into 64 bits"),
    ("models.sd_v1_4.finetune.lora", {}, "missing 'rank'"),
    ("models.sd_v1_4.finetune.learning_rate", NAN, "nan is not of type 'number'"),
    ("models.sd_v1_4.finetune.learning_rate", "1e-4", "for text, so write 1.0e-4"),
    ("models.sd_v1_4.finetune.learning_rate", "fast", "'fast' is not of type 'number' (Learning"),
    ("models.sd_v1_4.generate.steps", [50], "[50] is not of type 'integer'"),
    ("models.sd_v1_4.caption_source", "{x}", BRACES),
    ("models.sd_v1_4.caption_source", "-x", "caption_source: '-x' does not match"),
    ("models.sd_v1_4.caption_source", "a/b", "caption_source: 'a/b' does not match"),
    ("prompt_sets.privacy.seeds", [2**31], SEED),
    ("prompt_sets.privacy.seeds", [1, 2, 1], "seeds: 1 stands there twice"),
    ("prompt_sets.privacy.seeds", [], "[] "),
    ("prompt_sets.privacy.seeds", 5, "5 is not of type 'array'"),
    ("prompt_sets.privacy.draw_seed", 2**63, "does not fit into 64 bits"),
    ("prompt_sets.augment.draw_seed", 2**40, SEED),
    ("prompt_sets.test", None, "prompt_sets.test: None is not of type 'object'"),
    ("prompt_sets.test.shards", 0, "shards: 0 is less than the minimum of 1"),
    ("prompt_sets.tests", {}, "unknown key 'tests' (did you mean 'test'?)"),
    ("fidelity.seed", 2**31, SEED),
    ("privacy.seed", 2**31, SEED),
    ("privacy.threshold", INF, "inf is not of type 'number'"),
    ("downstream.seed", 2**31, SEED),
    ("downstream.segmentation.draw_seed", 2**31, SEED),
    ("downstream.report_generation.draw_seed", 2**31, SEED),
    ("encoders.reid.weights", "w/{x}.pth", "encoders.reid.weights: 'w/{x}.pth' " + BRACES),
    ("encoders.reid.weights", ["a"], "encoders.reid.weights: ['a'] is not of type 'string'"),
    ("run_models", None, "run_models: None is not of type 'array'"),
    ("run_models", [], "run_models: [] "),
    ("run_models", [7], "run_models.0: 7 is not of type 'string'"),
    ("run_models", [None], "run_models.0: None is not of type 'string'"),
    ("run_models", ["noise", "sana", "noise"], "run_models: 'noise' stands there twice"),
    ("run_models", "noise", "run_models: 'noise' is not of type 'array'"),
    ("run_models", {"noise": 1}, "is not of type 'array'"),
    ("run_models", ["{noise}"], "run_models.0: '{noise}' " + BRACES),
    ("7", {}, "unknown key '7'"),
    ("protocol", GONE, "missing 'protocol'"),
    ("protocol", True, "protocol: True is not one of"),
]


@pytest.mark.parametrize(("place", "value", "said"), FAULTS)
def test_a_fault_names_its_key(shipped, place, value, said):
    config = copy.deepcopy(shipped)
    put(config, place, value)
    assert said in refused(config)


def refused(config: Any) -> str:
    with pytest.raises(InputError) as caught:
        validate_config(config)
    assert caught.value.remedy
    return caught.value.what


FOLDERS: list[tuple[str, object, str]] = [
    # a key of cohort.image_folder, its value, words of the message
    ("test_share", 1.5, "test_share: 1.5 is greater than the maximum of 1"),
    ("test_share", "0.2", "test_share: '0.2' is not of type 'number'"),
    ("split_seed", 2**31, SEED),
    ("columns", {"path": "image"}, "columns: missing 'patient_id'"),
    ("columns", {"path": "i", "patient_id": "p", "age": "a"}, "columns: unknown key 'age'"),
    ("columns", {"path": "i", "patient_id": 3}, "columns.patient_id: 3 is not of type 'string'"),
    ("columns", {"path": "{i}", "patient_id": "p"}, "columns.path: '{i}' " + BRACES),
    ("findings", {"column": "l"}, "findings: missing 'values'"),
    ("findings", {"column": "l", "values": {0: "Edema"}}, "the key 0 is a number for YAML"),
    ("findings", {"column": "l", "values": {}, "separator": ""}, "separator: '' "),
    ("findings", {"column": "l", "values": {}, "separator": "\0"}, CONTROL),
    ("findings", {"column": "l", "values": {}, "absent": 1}, "absent: 1 is not one of"),
]


@pytest.mark.parametrize(("key", "value", "said"), FOLDERS)
def test_a_fault_of_an_image_folder_names_its_key(shipped, key, value, said):
    config = copy.deepcopy(shipped)
    folder = {**FOLDER, key: value}
    config["cohort"] |= {"source": "image_folder", "image_folder": folder}
    assert said in refused(config)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("cohort.dataset", "Röntgen: 50% & 'more' $HOME"),
        ("models.noise.display.name", "=Noise <b>"),
        ("models.sd_v1_4.generate.options", {"instruction": "{\n  a list\n}"}),
        ("models.noise.control.seed", 2**31 - 1),
        ("models.sd_v1_4.generate.options", {"instruction": ""}),
        ("cohort.identical_images", {"alike": None}),
        ("cohort.bits_used", 12),
    ],
)
def test_what_is_odd_and_sound_is_taken(shipped, place, value):
    config = copy.deepcopy(shipped)
    *parents, last = place.split(".")
    part = config
    for parent in parents:
        part = part[parent]
    part[last] = value
    validate_config(config)


def test_a_tab_separates_labels(shipped):
    config = copy.deepcopy(shipped)
    findings = {"column": "labels", "values": {"a": "Edema"}, "separator": "\t"}
    folder = {**FOLDER, "findings": findings}
    config["cohort"] |= {"source": "image_folder", "image_folder": folder}
    validate_config(config)


@pytest.mark.parametrize("config", [None, [], "text", 5])
def test_a_config_without_keys_is_refused(config):
    assert "the top level" in refused(config)


TEXTS = [
    # a file's name, its content, words of the message
    ("c.yaml", b"", "the config is empty"),
    ("c.yaml", b"# nothing\n", "the config is empty"),
    ("c.yaml", b"---\n", "the config is empty"),
    ("c.yaml", b"null\n", "the config is empty"),
    ("c.yaml", b"- a\n- b\n", "the config is a list, not keys with values"),
    ("c.yaml", b"protocol\n", "the config is a str, not keys with values"),
    ("c.yaml", b"a: 1\n\tb: 2\n", "cannot read the config: line 2, column 1: "),
    ("c.yaml", b"a: [1\n", "cannot read the config: line 2, column 1: "),
    ("c.yaml", b"b: 1\na: *b\n", "cannot read the config: line 2, column 4: found undefined alias"),
    ("c.yaml", b"a: !!python/object:os.system {}\n", "cannot read the config: "),
    ("c.yaml", b"a: 1\n---\nb: 2\n", "cannot read the config: "),
    ("c.yaml", b"\xff\xfea", "cannot read the config: "),
    ("c.yaml", b"name: R\xf6ntgen\n", "cannot read the config: "),
    ("c.yaml", b"a: 1\nb: 2\na: 3\n", "a (lines 1 and 3)"),
    ("c.yaml", b"models:\n  sd:\n    base: x\n  sd:\n    base: y\n", "models.sd (lines 2 and 4)"),
    ("c.yaml", b"models:\n  sd: { base: x, base: y }\n", "models.sd.base (lines 2 and 2)"),
    ("c.yaml", b"a: &x\n  b: 1\n  b: 2\nc: *x\n", "a.b (lines 2 and 3)"),
    ("c.yaml", b"a:\n  - { b: 1, b: 1 }\n", "a[0].b (lines 2 and 2)"),
    ("c.yaml", b"a: 1\n'a': 2\n", "a (lines 1 and 2)"),
    ("c.yaml", b"<<<<<<< HEAD\na: 1\n", "cannot read the config: "),
    ("c.yaml", b"a: " + b"[" * 5000, "cannot read the config: "),
    ("c.yaml", b"? [1, 2]\n: 3\n", "cannot read the config: "),
    ("c.yaml", b"a: 2024-13-45\n", "cannot read the config: "),
    ("c.yaml", b"{a: 1}}", "cannot read the config: "),
    ("c.yaml", b"a: 1\n\0", "cannot read the config: "),
    ("c.json", b'{"a": 1, "a": 2}', "a (lines 1 and 1)"),
    ("c.json", b'{"a": 1', "cannot read the config: "),
    ("c.json", b"[]", "the config is a list, not keys with values"),
    ("c.json", b"null", "the config is empty"),
    ("c.json", b"", "cannot read the config: "),
]


@pytest.mark.parametrize(("name", "content", "said"), TEXTS)
def test_a_faulty_file_is_refused_with_its_name(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        check_config_files([tmp_path / name])
    assert said in caught.value.what
    assert caught.value.where == tmp_path / name
    with pytest.raises(InputError):  # preflight reads it in the same way
        read_config([str(tmp_path / name)])


def test_anchors_merges_and_a_byte_order_mark_are_no_faults(tmp_path):
    text = "a: &a { x: 1 }\nb: &b { y: 2 }\nc:\n  <<: *a\n  x: 3\nd: { <<: *a, z: *b }\n"
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8-sig")
    config = read_config_file(tmp_path / "c.yaml")
    assert config["c"] == {"x": 3}
    assert config["d"] == {"x": 1, "z": {"y": 2}}
