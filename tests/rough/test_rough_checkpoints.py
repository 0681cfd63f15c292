"""Truncated, converted and edited checkpoints. A row is a file and words of its fault.

The files are tiny. Further requirements of the families and the encoders have tables of their own
(`tests/finetune/test_transformer_checkpoints.py`, `tests/features`).
"""

import errno
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.finetune.damage import POINTER
from workflow_scripts.common.checkpoints import (
    check_weight_file,
    headers_only,
    load_exactly,
    load_state,
    refuse_remote_code,
)
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.layout import (
    Base,
    check_pipeline_index,
    read_json,
    tokenizer_files,
    weight_files,
)

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DEEP = b"[" * 100_000
PAGE = b"<!DOCTYPE html><title>Sign in</title>"


def safetensors(header, data=bytes(8), length=None):
    """Encode a safetensors file by hand, for faults that the library does not write."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(**changes):
    return safetensors({"a": {k: v for k, v in {**ENTRY, **changes}.items() if v is not None}})


# name: a .safetensors file, and words of the fault
SAFETENSORS = {
    "empty": (b"", "damaged safetensors"),
    "seven bytes": (bytes(7), "damaged safetensors"),
    "a header that is longer than the file": (
        safetensors({"a": ENTRY}, length=10**9), "header longer than the file"
    ),
    "a header of no JSON": (safetensors(b"{'a': 1}"), "damaged safetensors"),
    "a header that is a list": (safetensors([1]), "the header is no JSON object"),
    "a header that is null": (safetensors(b"null"), "the header is no JSON object"),
    "a header of 100,000 brackets": (safetensors(DEEP), "maximum recursion depth"),
    "a tensor twice": (
        safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(ENTRY).encode(),) * 2)), "a stands twice"
    ),
    "no type": (entry(dtype=None), "dtype"),
    "an unknown type": (entry(dtype="X9"), "a has values of type 'X9'"),
    "no shape": (entry(shape=None), "shape"),
    "a shape of text": (entry(shape="2"), "a has the shape '2'"),
    "a negative side": (entry(shape=[-2]), "a has the shape [-2]"),
    "half a side": (entry(shape=[2.0]), "a has the shape [2.0]"),
    "a shape of more values": (entry(shape=[3]), "stands from byte 0 to 8, where 0 to 12 were due"),
    "one offset": (entry(data_offsets=[8]), "damaged safetensors"),
    "offsets of text": (entry(data_offsets=["0", "8"]), "damaged safetensors"),
    "offsets the other way round": (entry(data_offsets=[8, 0]), "stands from byte 8 to 0"),
    "two tensors that overlap": (
        safetensors({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)),
        "b, F32 (2,), stands from byte 4 to 12, where 8 to 16 were due",
    ),
    "a hole between tensors": (
        safetensors({"a": ENTRY, "b": {**ENTRY, "data_offsets": [12, 20]}}, bytes(20)),
        "b, F32 (2,), stands from byte 12 to 20",
    ),
    "cut": (safetensors({"a": ENTRY}, bytes(5)), "where the header says"),
    "more behind the last tensor": (safetensors({"a": ENTRY}, bytes(9)), "where the header says"),
    "notes that are no text": (
        safetensors({"__metadata__": {"x": 1}, "a": ENTRY}), "metadata are no texts"
    ),
    "a pointer of Git LFS": (POINTER.encode(), "a Git LFS pointer stands where weights should"),
    "a web page": (PAGE, "a web page stands where weights should"),
    "an XML error": (b"<?xml version='1.0'?><Error/>", "a web page stands where weights"),
}  # fmt: skip


def changed(path, data):
    path.write_bytes(data)
    return path


def refused(do, where=None):
    with pytest.raises(InputError) as caught:
        do()
    assert caught.value.remedy
    if where is not None:
        assert str(where) in str(caught.value.where)
    return caught.value.what


@pytest.mark.parametrize("name", SAFETENSORS)
def test_a_safetensors_file_is_refused_before_its_tensors_are_read(name, tmp_path):
    data, said = SAFETENSORS[name]
    path = changed(tmp_path / "w.safetensors", data)
    assert said in refused(lambda: check_weight_file(path), path)
    assert said in refused(lambda: load_state(path), path)


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool],
    ids=str,
)
def test_what_the_library_writes_is_taken(dtype, tmp_path):
    """Files of the library itself: the check accepts every type that weights have."""
    path = tmp_path / "w.safetensors"
    state = {"a": torch.zeros(3, 2).to(dtype), "b": torch.zeros(()).to(dtype), "c": torch.zeros(0)}
    save_file(state, path, {"format": "pt"})
    check_weight_file(path)
    assert load_state(path)["a"].dtype == dtype


WEIGHT, BIAS = torch.zeros(3, 2), torch.zeros(3)
# name: content of a .pt file for a linear layer, and words of the fault
STATES = {
    "empty": ({}, "2 missing: weight, bias"),
    "one tensor": (torch.zeros(3), "a state dict was expected, not Tensor"),
    "a list": ([WEIGHT, BIAS], "a state dict was expected, not list"),
    "wrapped": ({"state_dict": {"weight": WEIGHT}}, "1 unexpected: state_dict"),
    "with a prefix": (
        {"module.weight": WEIGHT, "module.bias": BIAS}, "2 unexpected: module.weight, module.bias"
    ),
    "a key that is a number": ({0: BIAS, "weight": WEIGHT, "bias": BIAS}, "1 unexpected: 0"),
    "a list in a tensor's place": ({"weight": [1], "bias": BIAS}, "1 no tensor: weight (list)"),
    "null in a tensor's place": ({"weight": None, "bias": BIAS}, "no tensor: weight (NoneType)"),
    "a number in a tensor's place": ({"weight": 5, "bias": BIAS}, "1 no tensor: weight (int)"),
    "one value": ({"weight": torch.zeros(()), "bias": BIAS}, "weight (), not (3, 2)"),
    "the other way round": ({"weight": WEIGHT.T, "bias": BIAS}, "weight (2, 3), not (3, 2)"),
    "quantised to 8 bits": ({"weight": WEIGHT.char(), "bias": BIAS}, "weight (int8)"),
    "truth values": ({"weight": WEIGHT.bool(), "bias": BIAS}, "weight (bool)"),
    "complex": ({"weight": WEIGHT.cfloat(), "bias": BIAS}, "weight (complex64)"),
    "sparse": ({"weight": WEIGHT.to_sparse(), "bias": BIAS}, "1 of whole numbers or another type"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_is_not_this_network_is_refused(name, tmp_path):
    state, said = STATES[name]
    path = tmp_path / "w.pt"
    torch.save(state, path)
    assert said in refused(
        lambda: load_exactly(torch.nn.Linear(2, 3), load_state(path), path), path
    )


def test_weights_of_whole_numbers_are_found_from_the_header_alone(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"weight": WEIGHT.char(), "bias": BIAS.half()}, path)
    with headers_only():
        what = refused(lambda: load_exactly(torch.nn.Linear(2, 3), load_state(path), path))
    assert "weight" in what
    assert "bias" not in what


# name: files by name, and words of the fault
FILES = {
    "a torch file of one byte": ("w.pt", b"\x80", "not a plain state dict"),
    "the start of a zip": ("w.pt", b"PK\x03\x04", "a truncated checkpoint"),
    "a text": ("w.bin", b"weights\n", "neither safetensors nor a torch checkpoint"),
    "HDF5": ("w.ckpt", b"\x89HDF\r\n\x1a\n", "neither safetensors nor a torch checkpoint"),
    "a gzip": ("w.pth", b"\x1f\x8b\x08\0", "neither safetensors nor a torch checkpoint"),
    "zeros": ("w.pt", bytes(4096), "neither safetensors nor a torch checkpoint"),
    "a page in the place of a pickle": ("w.pth", PAGE, "a web page stands where weights should"),
    "a pointer in the place of a pickle": ("w.pth", POINTER.encode(), "a Git LFS pointer"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_torch_file_is_refused(name, tmp_path):
    file, data, said = FILES[name]
    path = changed(tmp_path / file, data)
    assert said in refused(lambda: load_state(path), path)


INDEX = "diffusion_pytorch_model.safetensors.index.json"
PIECE = safetensors({"a": ENTRY})


def weights(folder):
    return weight_files(folder, "diffusion_pytorch_model")


def pipeline(folder):
    return check_pipeline_index(Base(folder), ["ThePipeline"], ["unet"])


def index(**changes):
    return {
        "model_index.json": {"_class_name": "ThePipeline", "unet": ["diffusers", "U"], **changes}
    }


def vocabulary(content):
    return {"vocab.json": content, "merges.txt": b""}


# name: how a folder is read, its files, and words of the fault (None: it is accepted)
FOLDERS = {
    "an index": (
        weights, {INDEX: {"weight_map": {"a": "p.safetensors"}}, "p.safetensors": PIECE}, None
    ),
    "no weights": (weights, {}, "a component has no weights"),
    "an index without a map": (weights, {INDEX: {}}, "it names no file"),
    "an empty map": (weights, {INDEX: {"weight_map": {}}}, "it names no file"),
    "a map that is a list": (weights, {INDEX: {"weight_map": []}}, "it names no file"),
    "a map that is null": (weights, {INDEX: {"weight_map": None}}, "it names no file"),
    "a piece that is a number": (weights, {INDEX: {"weight_map": {"a": 5}}}, "it names 5"),
    "a piece that is null": (weights, {INDEX: {"weight_map": {"a": "x", "b": None}}}, "names None"),
    "a piece elsewhere": (weights, {INDEX: {"weight_map": {"a": "../p"}}}, "it names '../p'"),
    "a piece that is missing": (
        weights, {INDEX: {"weight_map": {"a": "p.safetensors"}}}, "a weight file is missing"
    ),
    "a piece that is cut": (
        weights,
        {INDEX: {"weight_map": {"a": "p.safetensors"}}, "p.safetensors": PIECE[:-3]},
        "damaged safetensors",
    ),
    "an index that is a page": (weights, {INDEX: PAGE}, "not readable as JSON"),
    "a pipeline": (pipeline, index(), None),
    "no pipeline": (pipeline, {}, "a file of the checkpoint is missing"),
    "another pipeline": (pipeline, index(_class_name="Other"), "checkpoint holds Other, not The"),
    "a pipeline without a class": (pipeline, index(_class_name=None), "the checkpoint holds None"),
    "a class that is a list": (pipeline, index(_class_name=["ThePipeline"]), "checkpoint holds ["),
    "no component": (pipeline, index(unet=[None, None]), "the checkpoint has no unet"),
    "a component that is null": (pipeline, index(unet=None), "the checkpoint has no unet"),
    "a component that is a number": (pipeline, index(unet=5), "the checkpoint has no unet"),
    "a component that is a text": (pipeline, index(unet="U"), "the checkpoint has no unet"),
    "a component that is an object": (pipeline, index(unet={"a": 1}), "the checkpoint has no unet"),
    "a component of one name": (pipeline, index(unet=["U"]), "the checkpoint has no unet"),
    "an index in Latin-1": (
        pipeline, {"model_index.json": b'{"a": "\xf6"}'}, "not readable as JSON"
    ),
    "an index with a byte order mark": (
        pipeline, {"model_index.json": b"\xef\xbb\xbf{}"}, "Unexpected UTF-8 BOM"
    ),
    "an index of brackets": (pipeline, {"model_index.json": DEEP}, "maximum recursion depth"),
    "an index that is a list": (pipeline, {"model_index.json": []}, "not a JSON object"),
    "a vocabulary": (tokenizer_files, vocabulary({"a": 0, "b": 1}), None),
    "no vocabulary": (tokenizer_files, {}, "a tokenizer lacks vocab.json"),
    "no merges": (tokenizer_files, {"vocab.json": {"a": 0}}, "a tokenizer lacks vocab.json"),
    "an empty vocabulary": (tokenizer_files, vocabulary({}), "it has no token"),
    "a token's number as text": (tokenizer_files, vocabulary({"a": 0, "b": "1"}), "token is '1'"),
    "a token without a number": (tokenizer_files, vocabulary({"a": None}), "a token is None"),
    "a negative token": (tokenizer_files, vocabulary({"a": -5}), "the number of a token is -5"),
    "half a token": (tokenizer_files, vocabulary({"a": 1.5}), "the number of a token is 1.5"),
    "a vocabulary that is a list": (tokenizer_files, vocabulary(["a"]), "not a JSON object"),
    "code of its own": (
        lambda folder: refuse_remote_code(folder, "take another"),
        {"config.json": {"auto_map": {}}}, "it asks for code from its own folder",
    ),
    "code that brackets hide": (
        lambda folder: refuse_remote_code(folder, "take another"),
        {"config.json": DEEP}, "not readable as JSON",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_taken_or_refused_by_its_files(name, tmp_path):
    read, files, said = FOLDERS[name]
    for file, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / file).write_bytes(data)
    if said is None:
        read(tmp_path)
    else:
        assert said in refused(lambda: read(tmp_path), tmp_path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("read", [check_weight_file, read_json])
def test_no_access_is_not_called_damage(read, number, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    path.write_bytes(PIECE)

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.open", refuse)
    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    with pytest.raises(InputError) as caught:
        read(path)
    assert os.strerror(number) in str(caught.value)
    assert "damaged" not in str(caught.value)
    assert "download it again" not in str(caught.value)


def test_a_folder_in_the_place_of_a_file_is_missing(tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    said = refused(lambda: check_weight_file(tmp_path / "w.safetensors"))
    assert said == "a weight file is missing"
    shutil.rmtree(tmp_path / "w.safetensors")
