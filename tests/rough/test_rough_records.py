"""Truncated, merged and edited records. A row is a change and words of its message."""

import json
from typing import Any

import pytest

from tests.nested import GONE, put
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import Record, Value, read_record, write_record

"""As a value: delete the key."""

ORIGIN = {"encoder": "rad_dino", "weights_sha256": "w", "preprocessing": "p"}
ORIGIN |= {"collection": "real", "collection_sha256": "c"}


@pytest.fixture
def sound(tmp_path) -> dict[str, Any]:
    """A valid record, read back as JSON: FID, and a finding without a value."""
    values = [
        Value("fid", 1.25, "lower", 10, n_reference=20, interval=(1.0, 1.5), interval_kind="95%"),
        Value("fid", None, "lower", 1, subset="Edema", reason="only 1 image"),
    ]
    kept = {"kid": {"kind": "bootstrap", "units": 3, "values": [0.1, 0.2]}}
    record = Record("fidelity", "m", "rad_dino", "sound", values, {"replicates": kept}, {})
    record.provenance["inputs"] = [dict(ORIGIN)]
    write_record(record, tmp_path / "m.json")
    return json.loads((tmp_path / "m.json").read_text())


FAULTS: list[tuple[str, object, str]] = [
    # the key, its value, words of the message
    ("values.0.metric", GONE, "values[0]: no metric, so nobody can say what was measured"),
    ("values.0.metric", None, "values[0]: metric is null"),
    ("values.0.metric", "", "values[0]: metric is ''"),
    ("values.0.metric", 7, "values[0]: metric is 7"),
    ("values.0.value", GONE, "fid: no value"),
    ("values.0.value", None, "fid: a value, or the reason why there is none"),
    ("values.0.value", "1.25", "fid: the value is '1.25', not a finite number"),
    ("values.0.value", True, "fid: the value is True, not a finite number"),
    ("values.0.value", [1.25], "fid: the value is [1.25], not a finite number"),
    ("values.0.value", float("nan"), "fid: the value is nan, not a finite number"),
    ("values.0.value", float("inf"), "fid: the value is inf, not a finite number"),
    ("values.0.value", -0.5, "fid: the value is -0.5, though it is at least 0 by definition"),
    ("values.0.reason", GONE, "fid: no reason"),
    ("values.0.reason", "why", "fid: a value, or the reason why there is none"),
    ("values.1.reason", None, "fid of Edema: a value, or the reason why there is none"),
    ("values.1.reason", " ", "fid of Edema: the reason is ' ', not a sentence"),
    ("values.1.reason", 3, "fid of Edema: the reason is 3, not a sentence"),
    ("values.0.direction", GONE, "fid: no direction"),
    ("values.0.direction", "down", "fid: the direction is 'down', not higher, lower, none"),
    ("values.0.direction", None, "fid: the direction is null"),
    ("values.0.n", GONE, "fid: no n"),
    ("values.0.n", "60", "fid: n is '60', not a number of images"),
    ("values.0.n", None, "fid: n is null, not a number of images"),
    ("values.0.n", 60.5, "fid: n is 60.5, not a number of images"),
    ("values.0.n", True, "fid: n is True, not a number of images"),
    ("values.0.n", -1, "fid: n is -1, not a number of images"),
    ("values.0.n_reference", "20", "fid: n_reference is '20', not a number of images"),
    ("values.0.n_reference", -20, "fid: n_reference is -20, not a number of images"),
    ("values.0.interval", [1.0], "fid: the interval is [1.0], not a lower and an upper bound"),
    ("values.0.interval", [], "fid: the interval is [], not a lower and an upper bound"),
    ("values.0.interval", [1, 2, 3], "fid: the interval is [1, 2, 3], not a lower and an upper"),
    ("values.0.interval", [1.0, None], "fid: the interval is [1.0, None]: both of its bounds are"),
    ("values.0.interval", [None, 1.5], "fid: the interval is [None, 1.5]: both of its bounds are"),
    ("values.0.interval", ["1", "2"], "fid: the interval is ['1', '2']: both of its bounds are"),
    ("values.0.interval", [1.0, float("inf")], "fid: the interval is [1.0, inf]: both of its"),
    ("values.0.interval", [1.5, 1.0], "fid: the interval's lower bound 1.5 is above its upper"),
    ("values.0.interval", 0.5, "fid: the interval is 0.5, not a lower and an upper bound"),
    ("values.0.interval", {"low": 1}, "fid: the interval is {'low': 1}, not a lower and an upper"),
    ("values.0.interval_kind", 95, "fid: the interval's kind is 95, not a name"),
    ("values.0.subset", "edema", "the subset 'edema' is neither `all` nor one of the 14 findings"),
    ("values.0.subset", None, "the subset null is neither `all` nor one of the 14 findings"),
    ("values.1.subset", "all", "fid: stands twice"),
    ("values.0.p", "0.05", "fid: p is '0.05', not a probability"),
    ("values.0.p", 1.5, "fid: p is 1.5, not a probability"),
    ("values.0.p", -0.1, "fid: p is -0.1, not a probability"),
    ("values.0.surprise", 1, "fid: unknown key surprise"),
    ("values.0", None, "values[0] is null, not an object"),
    ("values.0", "fid", "values[0] is 'fid', not an object"),
    ("values", None, "values is null, not a list"),
    ("values", {"fid": 1.25}, "values is {'fid': 1.25}, not a list"),
    ("details", None, "details is null, not an object"),
    ("details", [], "details is [], not an object"),
    ("details.replicates", [], "details.replicates is [], not an object"),
    ("details.replicates.kid", [0.1], "details.replicates.kid is [0.1], not `kind`, `units`"),
    ("details.replicates.kid.units", "3", "details.replicates.kid.units is '3', not a whole"),
    ("details.replicates.kid.values", [None], "details.replicates.kid.values is [None], not a"),
    ("details.threshold", "0.85", "details.threshold is '0.85', not a number"),
    ("details.runs", {"seed": 1}, "details.runs is {'seed': 1}, not a list of training runs"),
    ("details.runs", [{"settings": None}], "details.runs is [{'settings': None}], not a list of"),
    ("details", GONE, "a record has the keys"),
    ("provenance", None, "provenance is null, not an object"),
    ("provenance.versions", "2.13", "provenance.versions is '2.13', not an object"),
    ("provenance.inputs", {}, "provenance.inputs is {}, not a list of feature files"),
    ("provenance.inputs.0.encoder", GONE, "provenance.inputs[0]: no encoder"),
    ("provenance.inputs.0", None, "provenance.inputs[0]: no collection, collection_sha256, enc"),
    ("provenance.inputs.0.encoder", ["a"], "inputs[0].encoder is ['a'], not a text"),
    ("provenance.inputs.0.weights_sha256", None, "inputs[0].weights_sha256 is null, not a text"),
    ("provenance.inputs.0.preprocessing", {}, "inputs[0].preprocessing is {}, not a text"),
    ("provenance.inputs.0.collection", 5, "inputs[0].collection is 5, not a text"),
    ("provenance.inputs.0.repeated_images", "12", "repeated_images is '12', not a number of"),
    ("provenance.inputs.0.repeated_images", -1, "repeated_images is -1, not a number of images"),
    ("provenance.inputs.0.repeated_images", None, "repeated_images is null, not a number of"),
    ("provenance.inputs.0.constant_images", 1.5, "constant_images is 1.5, not a number of images"),
    ("provenance.inputs.0.constant_images", [1], "constant_images is [1], not a number of images"),
    ("provenance.inputs.0.constant_images", True, "constant_images is True, not a number of"),
    ("values.0.value", 10**400, "fid: the value is 1000"),
    ("values.0.n", 10**30, "not a number of images"),
    ("values.0.metric", "fid\n", "values[0]: metric is 'fid\\n'"),
    ("values.0.metric", " fid", "values[0]: metric is ' fid'"),
    ("model", "a\nb", "model is 'a\\nb', not a name"),
    ("model", "sd ", "model is 'sd ', not a name"),
    ("stage", "fidelity\0", "stage is 'fidelity\\x00', not a name"),
    ("family", "\u202ex", "not a name"),
    ("protocol", GONE, "a record has the keys"),
    ("protocol", "as published", "protocol is 'as published', not sound or as_published"),
    ("protocol", None, "protocol is null, not sound or as_published"),
    ("model", None, "model is null, not a name"),
    ("model", 7, "model is 7, not a name"),
    ("stage", "", "stage is '', not a name"),
    ("family", ["rad_dino"], "family is ['rad_dino'], not a name"),
    ("note", "mine", "a record has the keys"),
    ("schema", 0, "not a record of version 2: an older one measured otherwise"),
    ("schema", "2", "not a record of version 2: an older one measured otherwise"),
    ("schema", GONE, "not a record of version 2: an older one measured otherwise"),
]


@pytest.mark.parametrize(("place", "value", "said"), FAULTS)
def test_a_fault_names_the_file_and_the_metric(sound, tmp_path, place, value, said):
    put(sound, place, value)
    (tmp_path / "m.json").write_text(json.dumps(sound))
    assert said in refused(tmp_path / "m.json")


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        read_record(path)
    assert caught.value.where == path
    assert caught.value.remedy
    return caught.value.what


BOUNDS = [
    # a metric, an impossible value, words of the message
    ("fid_floor", -1.0, "at least 0"),
    ("precision", 1.2, "between 0 and 1"),
    ("recall", -0.1, "between 0 and 1"),
    ("coverage", 50.0, "between 0 and 1"),
    ("density", -0.1, "at least 0"),
    ("alignment", -1.5, "between -1 and 1"),
    ("auroc", 73.0, "between 0 and 1"),
    ("dice", 1.01, "between 0 and 1"),
    ("bleu_4", 101.0, "between 0 and 100"),
    ("reid_count", -3.0, "at least 0"),
    ("fid_studies", -1.0, "at least 0"),
    ("precision_test_set", 1.5, "between 0 and 1"),
]


@pytest.mark.parametrize(("metric", "value", "said"), BOUNDS)
def test_a_value_outside_of_its_range_is_refused(sound, tmp_path, metric, value, said):
    sound["values"][0] |= {"metric": metric, "value": value}
    (tmp_path / "m.json").write_text(json.dumps(sound))
    what = refused(tmp_path / "m.json")
    assert f"{metric}: the value is {value}, though it is {said} by definition" in what


@pytest.mark.parametrize(
    ("metric", "value"),
    [("kid", -0.001), ("fid_corrected", -2.0), ("density", 1.4), ("precision", 1 + 1e-9)],
)
def test_what_a_metric_can_be_is_read(sound, tmp_path, metric, value):
    sound["values"][0] |= {"metric": metric, "value": value}
    (tmp_path / "m.json").write_text(json.dumps(sound))
    assert read_record(tmp_path / "m.json").get(metric).value == value


TEXTS = [
    # the file's content, words of the message
    (b"", "cannot read a record: "),
    (b"{", "cannot read a record: "),
    (b"\xff\xfe", "cannot read a record: "),
    (b"null", "not a record of version 2"),
    (b"\xef\xbb\xbf{}", "cannot read a record: Unexpected UTF-8 BOM"),
    ("{}".encode("utf-16"), "cannot read a record: "),
    (b"{}{}", "cannot read a record: Extra data"),
    (b"\x1f\x8b\x08", "cannot read a record: "),
    (bytes(50), "cannot read a record: "),
    (b"[]", "not a record of version 2"),
    (b'"fid"', "not a record of version 2"),
    (b"[" * 100_000, "cannot read a record: "),
    (b'{"schema": 2, "schema": 2}', "cannot read a record: the key schema stands twice"),
    (b'{"schema": 2, "values": [{"n": 1, "n": 2}]}', "the key n stands twice in one object"),
]


@pytest.mark.parametrize(("content", "said"), TEXTS)
def test_what_is_no_record_is_refused(tmp_path, content, said):
    (tmp_path / "m.json").write_bytes(content)
    assert said in refused(tmp_path / "m.json")


def test_every_fault_is_told_at_once(sound, tmp_path):
    sound["values"][0] |= {"n": "60", "direction": "down"}
    (tmp_path / "m.json").write_text(json.dumps(sound))
    what = refused(tmp_path / "m.json")
    assert "fid: n is" in what
    assert "fid: the direction is" in what


def test_what_would_not_be_read_is_not_written(tmp_path):
    record = Record("fidelity", "m", "rad_dino", "sound", [Value("fid", -1.0, "lower", 3)])
    with pytest.raises(ValueError, match="fid: the value is -1"):
        write_record(record, tmp_path / "m.json")
    assert not list(tmp_path.iterdir())
