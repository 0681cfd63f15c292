import json
import math
import socket

import pytest

from workflow_scripts.common import records
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import Record, Value, provenance, read_record, write_record
from workflow_scripts.common.user_environment import recorded_of
from workflow_scripts.common.version import is_version, major, version


def record(**changes):
    values = [
        Value("fid", 1.25, "lower", 10, n_reference=20, interval=(1.0, 1.5), interval_kind="95%"),
        Value("fid", None, "lower", 1, subset="Edema", reason="only 1 image"),
    ]
    fields = {"stage": "fidelity", "model": "m", "family": "rad_dino", "protocol": "sound"}
    return Record(**(fields | {"values": values} | changes))


def test_a_record_comes_back_equal(tmp_path):
    written = record(provenance=provenance({"k": 5}), details={"a": [1, 2]})
    write_record(written, tmp_path / "m.json")
    assert read_record(tmp_path / "m.json") == written
    assert written.get("fid", "Edema").reason == "only 1 image"
    with pytest.raises(KeyError, match="no kid for all"):
        written.get("kid")


def test_provenance_names_the_slurm_job_its_node_and_the_gpu_and_no_other_machine(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    alone = provenance({})
    assert (alone["slurm_job_id"], alone["slurm_node"]) == (None, None)
    assert socket.gethostname() not in [value for value in alone.values() if value]
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURMD_NODENAME", "gpu-17")
    made = provenance({}, "cuda:NVIDIA H200")
    assert (made["slurm_job_id"], made["slurm_node"]) == ("4711", "gpu-17")
    assert made["device"] == "cuda:NVIDIA H200"


def test_provenance_names_what_of_the_environment_may_change_a_digit(monkeypatch):
    monkeypatch.setattr(records, "KEPT", {})
    assert "environment" not in provenance({})
    monkeypatch.setattr(records, "KEPT", {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
    assert provenance({})["environment"] == {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    given = {"TORCH_HOME": "/x", "TORCHINDUCTOR_CACHE_DIR": "/y", "ATEN_CPU_CAPABILITY": "avx2"}
    assert recorded_of({**given, "HOME": "/home/me"}) == {
        "ATEN_CPU_CAPABILITY": "avx2",
        "TORCHINDUCTOR_CACHE_DIR": "a path",
    }


def test_a_value_is_a_number_or_a_reason():
    with pytest.raises(ValueError, match="or the reason"):
        Value("fid", None, "lower", 3)
    with pytest.raises(ValueError, match="or the reason"):
        Value("fid", 1.0, "lower", 3, reason="why")
    with pytest.raises(ValueError, match="not finite"):
        Value("fid", math.nan, "lower", 3)
    with pytest.raises(ValueError, match="not finite"):
        Value("fid", 1.0, "lower", 3, interval=(0.0, math.inf))
    with pytest.raises(ValueError, match="direction"):
        Value("fid", 1.0, "down", 3)


def test_a_metric_stands_once(tmp_path):
    twice = [Value("fid", 1.0, "lower", 3), Value("fid", 2.0, "lower", 3)]
    with pytest.raises(ValueError, match="fid: stands twice"):
        write_record(record(values=twice), tmp_path / "m.json")


@pytest.mark.parametrize(
    "damage",
    [
        lambda payload: payload.pop("protocol"),
        lambda payload: payload.update(schema=0),
        lambda payload: payload["values"][0].update(value=None),
        lambda payload: payload["values"][0].update(surprise=1),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, damage):
    path = tmp_path / "m.json"
    write_record(record(), path)
    payload = json.loads(path.read_text())
    damage(payload)
    path.write_text(json.dumps(payload))
    with pytest.raises(InputError, match=r"m\.json"):
        read_record(path)


def test_what_an_older_version_measured_is_refused_by_its_version(tmp_path):
    """The intervals of that version treated images of one patient as independent."""
    path = tmp_path / "m.json"
    write_record(record(), path)
    payload = json.loads(path.read_text())
    payload["schema"] = 1
    path.write_text(json.dumps(payload))
    with pytest.raises(InputError, match="not a record of version 2: an older one measured other"):
        read_record(path)


def test_what_another_major_version_measured_is_refused_and_named(tmp_path, monkeypatch):
    path = tmp_path / "m.json"
    write_record(record(provenance=provenance({})), path)
    assert json.loads(path.read_text())["provenance"]["version"] == version()
    for other, message in (
        ("1.7.3", None),
        ("2.0.0", "m was measured by version"),
        ("0.9.0", "m was"),
    ):
        monkeypatch.setattr(records, "version", lambda other=other: other)
        if message is None:
            assert read_record(path).model == "m"  # a minor version may change numbers, and says so
        else:
            with pytest.raises(InputError, match=message) as raised:
                read_record(path)
            assert raised.value.where == path
            assert "nothing is trained or sampled" in raised.value.remedy


def test_a_version_is_three_numbers_and_a_record_before_the_first_has_none(tmp_path):
    path = tmp_path / "m.json"
    write_record(record(provenance={"device": "cpu"}), path)
    assert "version" not in read_record(path).provenance
    for wrong in ("1.0", "v1.0.0", 1, None):
        with pytest.raises(ValueError, match=r"provenance\.version is .*, not one such as 1\.0\.0"):
            write_record(record(provenance={"version": wrong}), path)
    assert (is_version("10.2.33"), major("10.2.33")) == (True, 10)
    with pytest.raises(ValueError, match="no version"):
        major("1.0")
