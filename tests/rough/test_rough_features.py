"""Feature files that are truncated, edited or foreign. A row is a change and words of its message.

A file has a digest of its content, by which any later change is detected. `sealed` files have a
correct digest: another program or an older version wrote the fault.
"""

import h5py
import numpy as np
import pytest

from tests.feature_files import changed, write_file
from workflow_scripts.common.errors import InputError
from workflow_scripts.features.cache import read_features
from workflow_scripts.fidelity.inputs import require_comparable

TEXT = h5py.string_dtype()
OTHER = "not those that were written"
READ = "cannot read features"
FIT = "features and ids do not fit each other"


def attribute(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


def dataset(name, value, **how):
    def put(file):
        if name in file:
            del file[name]
        file.create_dataset(name, data=value, **how)

    return put


def texts(name, *values):
    return dataset(name, np.array(values, dtype=object), dtype=TEXT)


def without(name):
    return lambda file: file.__delitem__(name)


def group(name):
    def put(file):
        if name in file:
            del file[name]
        file.create_group(name)

    return put


def together(*changes):
    return lambda file: [change(file) for change in changes]


# name: the change after the file was written, and words of the fault
CHANGED = {
    "one feature": (lambda f: f["features"].__setitem__((1, 0), 9), OTHER),
    "a feature that is not finite": (
        lambda f: f["features"].__setitem__((1, 0), np.nan), "features that are not finite: b"
    ),
    "an id": (lambda f: f["image_id"].__setitem__(0, "z"), OTHER),
    "two ids": (texts("image_id", "b", "a", "c"), OTHER),
    "an id twice": (texts("image_id", "a", "a", "c"), "1 id(s) stand twice"),
    "an id without a name": (texts("image_id", "a", "", "c"), "an image without a name"),
    "one id less": (texts("image_id", "a", "b"), FIT),
    "no ids": (without("image_id"), READ),
    "ids that are numbers": (dataset("image_id", np.arange(3)), READ),
    "one text for all ids": (dataset("image_id", "abc"), READ),
    "ids in a square": (
        dataset("image_id", np.array([["a"], ["b"], ["c"]], object), dtype=TEXT),
        "image_id is no list of texts",
    ),
    "ids in Latin-1": (dataset("image_id", np.array([b"\xf6", b"b", b"c"])), READ),
    "a folder of ids": (group("image_id"), READ),
    "a source": (texts("source_image_id", "r1", "", ""), OTHER),
    "sources that are numbers": (dataset("source_image_id", np.arange(3)), READ),
    "one source less": (texts("source_image_id", "", ""), FIT),
    "no sources": (without("source_image_id"), OTHER),
    "no features": (without("features"), READ),
    "a folder of features": (group("features"), READ),
    "one feature in all": (dataset("features", np.float32(1)), FIT),
    "features that are nothing": (dataset("features", h5py.Empty("f4")), FIT),
    "features in a row": (dataset("features", np.zeros(6, "f4")), FIT),
    "features in a cube": (dataset("features", np.zeros((3, 2, 1), "f4")), FIT),
    "features of 64 bits": (dataset("features", np.zeros((3, 2))), FIT),
    "features of 16 bits": (dataset("features", np.zeros((3, 2), "f2")), FIT),
    "features of the other byte order": (dataset("features", np.zeros((3, 2), ">f4")), FIT),
    "whole numbers": (dataset("features", np.zeros((3, 2), "i4")), FIT),
    "features elsewhere": (
        together(
            without("features"),
            lambda f: f.__setitem__("features", h5py.ExternalLink("gone.h5", "/x")),
        ),
        READ,
    ),
    "one more array": (dataset("more", np.ones(2, "f4")), OTHER),
    "one more text": (dataset("more", "text"), "the array 'more' holds no numbers"),
    "one more folder": (group("more"), READ),
    "one more array of nothing": (dataset("more", h5py.Empty("f4")), "'more' holds no numbers"),
    "a link to nowhere": (lambda f: f.__setitem__("more", h5py.SoftLink("/gone")), READ),
    "the encoder": (attribute("encoder", "reid"), OTHER),
    "no encoder": (lambda f: f.attrs.__delitem__("encoder"), "without the attribute 'encoder'"),
    "no digest": (lambda f: f.attrs.__delitem__("content_sha256"), "without the attribute"),
    "an encoder that is nothing": (
        attribute("encoder", h5py.Empty("f")), "the attribute 'encoder' is"
    ),
    "two encoders": (attribute("encoder", ["a", "b"]), "the attribute 'encoder' is"),
    "an encoder of bytes": (attribute("encoder", np.bytes_(b"reid")), "not a text"),
    "a protocol that is a number": (attribute("protocol", 3), "'protocol' is 3: not a text"),
    "a purpose that is no number": (attribute("purpose", np.nan), "'purpose' is nan: not a text"),
    "a list in another attribute": (attribute("batch", [1, 2]), "neither a text nor a number"),
    "versions that are no JSON": (attribute("versions", "2.13"), "not an object of JSON"),
    "versions that are a list": (attribute("versions", "[]"), "not an object of JSON"),
    "versions of brackets": (attribute("versions", "[" * 50_000), "not an object of JSON"),
    "copies as text": (attribute("repeated_images", "two"), "not a number of images"),
    "fewer copies than none": (attribute("repeated_images", -1), "-1: not a number of images"),
    "half a copy": (attribute("constant_images", 0.5), "0.5: not a number of images"),
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    features = np.arange(6.0).reshape(3, 2)
    return write_file(tmp_path, "rad_dino", features, ["a", "b", "c"], ["", "", ""])


def refused(path, expect=None):
    with pytest.raises(InputError) as caught:
        read_features(path, expect)
    assert caught.value.where == path
    assert "rerun the features stage" in caught.value.remedy
    return caught.value.what


@pytest.mark.parametrize("name", CHANGED)
def test_a_file_that_was_changed_is_refused(name, path):
    change, said = CHANGED[name]
    read_features(path)
    with h5py.File(path, "r+") as file:
        change(file)
    assert said in refused(path)


# name: how the file was written, and words of the fault
SEALED = {
    "of no image": (
        together(
            dataset("features", np.zeros((0, 2), "f4")),
            dataset("image_id", np.array([], object), dtype=TEXT),
            dataset("source_image_id", np.array([], object), dtype=TEXT),
        ),
        "features of no image",
    ),
    "of no dimension": (dataset("features", np.zeros((3, 0), "f4")), "features of no image"),
    "an id without a name": (texts("image_id", "a", "", "c"), "an image without a name"),
    "an id twice": (texts("image_id", "a", "a", "c"), "1 id(s) stand twice"),
    "not finite": (lambda f: f["features"].__setitem__((0, 1), np.inf), "not finite: a"),
    "versions that are a list": (attribute("versions", "[]"), "not an object of JSON"),
    "versions that are null": (attribute("versions", "null"), "not an object of JSON"),
    "copies as text": (attribute("repeated_images", "two"), "not a number of images"),
    "a protocol that is a number": (attribute("protocol", 3), "not a text"),
    "one more text": (dataset("more", "text"), "the array 'more' holds no numbers"),
    "64 bits": (dataset("features", np.zeros((3, 2))), FIT),
}


@pytest.mark.parametrize("name", SEALED)
def test_a_file_that_was_written_wrongly_is_refused_though_its_digest_is_right(name, path):
    change, said = SEALED[name]
    with changed(path) as file:
        change(file)
    assert said in refused(path)


TEXTS = {
    "empty": b"",
    "a text": b"features\n",
    "HDF5's first bytes": b"\x89HDF\r\n\x1a\n",
    "zeros": bytes(4096),
    "a zip": b"PK\x03\x04" + bytes(100),
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_feature_file_is_refused(name, tmp_path):
    path = tmp_path / "rad_dino.h5"
    path.write_bytes(TEXTS[name])
    assert READ in refused(path)


EXPECTED = [
    # an attribute, its value for the reader, its value in the file
    ("encoder", "reid", "rad_dino"),
    ("protocol", "as_published", "sound"),
    ("collection", "tiny_sd", "real"),
    ("purpose", "privacy", "fidelity"),
    ("weights_sha256", "v" * 64, "w" * 64),
    ("preprocessing", "resize shorter side 14; bits_used 12", "resize shorter side 14"),
]


@pytest.mark.parametrize(("name", "wanted", "found"), EXPECTED)
def test_another_than_is_wanted_is_named_with_both(name, wanted, found, path):
    said = refused(path, {name: wanted})
    assert said == f"features of another {name}: {found!r} in the file, {wanted!r} expected"


COMPARED = [
    # the difference between two collections' features, words of the fault
    ({"encoder": "reid"}, "another encoder"),
    ({"weights_sha256": "v" * 64}, "another weights_sha256"),
    ({"preprocessing": "squash"}, "another preprocessing"),
    ({"preprocessing": "resize shorter side 14; bits_used 12"}, "bits_used 12"),
]


@pytest.mark.parametrize(("other", "said"), COMPARED)
def test_two_collections_that_cannot_be_compared_are_refused(other, said, path):
    one = read_features(path)
    with changed(path) as file:
        file.attrs.update(other)
    with pytest.raises(InputError) as caught:
        require_comparable(one, read_features(path), "here")
    assert said in caught.value.what
