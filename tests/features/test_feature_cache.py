"""The cache: features are read as they were written, and any other file is refused."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workflow_scripts.common.errors import InputError
from workflow_scripts.features.cache import Features, read_features, write_features

ATTRS = {
    "encoder": "rad_dino",
    "weights_sha256": "a" * 64,
    "preprocessing": "resize",
    "collection": "real",
    "collection_sha256": "b" * 64,
    "purpose": "fidelity",
    "protocol": "sound",
    "versions": "{}",
}


def content(n: int = 4, d: int = 3) -> Features:
    values = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32)
    return Features(values, [f"id{i}" for i in range(n)], None, dict(ATTRS))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.text("aé漢-_ 1", min_size=1, max_size=8), min_size=1, max_size=6, unique=True),
    st.integers(1, 5),
    st.booleans(),
)
def test_what_is_written_is_read(tmp_path: Path, ids: list[str], d: int, generated: bool):
    values = np.random.default_rng(d).normal(size=(len(ids), d)).astype(np.float32)
    extras = {"fc_end_weight": np.ones((1, d), np.float32)}
    sources = ["" for _ in ids] if generated else None
    written = Features(values, ids, sources, {**ATTRS, "batch": 3}, extras)
    write_features(tmp_path / "x.h5", written)
    got = read_features(tmp_path / "x.h5", {"encoder": "rad_dino"})
    assert np.array_equal(got.features, values)
    assert got.features.dtype == np.float32
    assert len(got.attrs.pop("content_sha256")) == 64
    assert (got.ids, got.source_ids, got.attrs) == (ids, sources, written.attrs)
    assert np.array_equal(got.extras["fc_end_weight"], extras["fc_end_weight"])


def test_the_same_content_gives_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        write_features(tmp_path / name, content())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", sorted(ATTRS.keys() - {"versions"}))
def test_another_key_is_an_error_that_names_both(tmp_path: Path, name: str):
    write_features(tmp_path / "x.h5", content())
    with pytest.raises(InputError) as caught:
        read_features(tmp_path / "x.h5", {name: "something else"})
    assert ATTRS[name] in caught.value.what
    assert "something else" in caught.value.what
    assert name in caught.value.what


def test_an_attribute_that_is_not_there_is_an_error(tmp_path: Path):
    write_features(tmp_path / "x.h5", content())
    with pytest.raises(InputError, match="captions_sha256"):
        read_features(tmp_path / "x.h5", {"captions_sha256": "c"})


def permute_ids(file: h5py.File) -> None:
    file["image_id"][...] = np.roll(file["image_id"][()], 1)


def zero_features(file: h5py.File) -> None:
    file["features"][...] = 0


def move_one_feature(file: h5py.File) -> None:
    file["features"][1, 2] = np.nextafter(file["features"][1, 2], np.float32(9))


def show_another_source(file: h5py.File) -> None:
    file["source_image_id"][0] = "i9"


def turn_the_last_layer(file: h5py.File) -> None:
    file["fc_end_bias"][...] = -file["fc_end_bias"][()]


def name_other_weights(file: h5py.File) -> None:
    file.attrs["weights_sha256"] = "c" * 64


def claim_another_collection(file: h5py.File) -> None:
    file.attrs["collection"] = "noise"


def leave_the_digest_out(file: h5py.File) -> None:
    del file.attrs["content_sha256"]


@pytest.mark.parametrize(
    "change",
    [
        permute_ids,
        zero_features,
        move_one_feature,
        show_another_source,
        turn_the_last_layer,
        name_other_weights,
        claim_another_collection,
        leave_the_digest_out,
    ],
)
def test_a_file_that_was_changed_after_it_was_written_is_refused(tmp_path: Path, change):
    path = tmp_path / "x.h5"
    extras = {"fc_end_bias": np.ones(1, np.float32)}
    write_features(path, replace(content(), source_ids=["", "", "i1", ""], extras=extras))
    read_features(path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=r"not those that were written|content_sha256") as caught:
        read_features(path)
    assert caught.value.where == path


@pytest.mark.parametrize("keep", [0.99, 0.5, 0.05, 0.0])
def test_a_truncated_file_is_an_error(tmp_path: Path, keep: float):
    path = tmp_path / "x.h5"
    write_features(path, content(200, 20))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError) as caught:
        read_features(path)
    assert caught.value.where == path


def test_a_missing_file_and_a_foreign_one_are_errors(tmp_path: Path):
    with pytest.raises(InputError):
        read_features(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError):
        read_features(tmp_path / "other.h5")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_named(tmp_path: Path, value: float):
    bad = content()
    bad.features[2, 1] = value
    with pytest.raises(InputError, match="id2"):
        write_features(tmp_path / "x.h5", bad)
    assert not (tmp_path / "x.h5").exists()


def test_an_id_twice_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="twice"):
        write_features(tmp_path / "x.h5", replace(content(), ids=["a", "b", "a", "c"]))


def test_lengths_and_attributes_must_fit(tmp_path: Path):
    for wrong in (
        replace(content(), ids=["a"]),
        replace(content(), source_ids=["a"]),
        replace(content(), attrs={}),
    ):
        with pytest.raises(ValueError, match=r"ids|missing"):
            write_features(tmp_path / "x.h5", wrong)
