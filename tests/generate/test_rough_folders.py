"""Folders of somebody's images, and what a model made, as they come: each line is a case.

`FILES` are what the folder holds, `metadata` what the table says; `{0}` to `{11}` stand for the
prompts' ids.
"""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.feature_files import write_file
from tests.features.conftest import write_reid
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, read_shards, write_shard
from workflow_scripts.common.records import Record
from workflow_scripts.features import extract
from workflow_scripts.features.cache import read_features
from workflow_scripts.fidelity.inputs import origin
from workflow_scripts.generate.import_external import import_shard, match_files, read_metadata
from workflow_scripts.preflight.check import check_metadata
from workflow_scripts.tables.copies import words_of_copies


def picture(kind, seed=0):
    """Encode one image; `png_2` shows what `png` does in other bytes."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (12, 10), np.uint8)
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    if kind == "png":
        image.save(buffer, "PNG")
    elif kind == "png_2":
        image.save(buffer, "PNG", compress_level=0)
    elif kind == "in colour":
        image.convert("RGB").save(buffer, "PNG")
    elif kind == "black":
        Image.new("L", (10, 12)).save(buffer, "PNG")
    elif kind == "white in colour":
        Image.new("RGB", (10, 12), (255, 255, 255)).save(buffer, "PNG")
    elif kind == "12 bits in 16":
        Image.fromarray(pixels.astype(np.uint16) * 16).save(buffer, "PNG")
    elif kind == "transparent":
        image.putalpha(Image.new("L", image.size, 100))
        image.save(buffer, "PNG")
    elif kind == "cut":
        image.save(buffer, "PNG")
        return buffer.getvalue()[:60]
    else:
        return kind.encode()
    return buffer.getvalue()


HEAD = "file_name,prompt_id\n"
WELL = HEAD + "".join(f"{i}.png,{{{i}}}\n" for i in range(12))

# name: what the table says, the fault (None: it is taken)
METADATA = {
    "a file per prompt": (WELL, None),
    "more columns": ("file_name,prompt_id,note\na.png,p,x\nb.png,q,\n", None),
    "another order": ("prompt_id,file_name\np,a.png\n", None),
    "the same name in two folders": (HEAD + "a/1.png,p\nb/1.png,q\n", None),
    "names that differ in case": (HEAD + "a.png,p\nA.png,q\n", None),
    "one file for two prompts": (HEAD + "a.png,p\nb.png,q\na.png,r\n", "rows 1 and 3; 1 repeated"),
    "one file for all": (HEAD + "a.png,p\na.png,q\na.png,r\n", "rows 1 and 2; 2 repeated"),
    "one file by two ways": (HEAD + "a.png,p\n./a.png,q\n", "'a.png' is named twice"),
    "one file through a folder": (HEAD + "s/a.png,p\ns/../s/a.png,q\n", "'s/a.png' is named twice"),
    "one file with two slashes": (HEAD + "s/a.png,p\ns//a.png,q\n", "'s/a.png' is named twice"),
    "one file for prompts of two sets": (
        HEAD + "a.png,test-1\na.png,privacy-1-r00\n", "is named twice"
    ),
    "the same row twice": (HEAD + "a.png,p\na.png,p\n", "is named twice"),
    "no name": (HEAD + ",p\n", "file_name is empty in data row 1"),
    "no prompt": (HEAD + "a.png,p\nb.png, \n", "prompt_id is empty in data row 2"),
    "another column": ("image,prompt_id\na.png,p\n", "no column 'file_name'"),
    "no column of prompts": ("file_name\na.png\n", "no column 'prompt_id'"),
    "an empty file": ("", "cannot read the metadata"),
    "semicolons": (
        "file_name;prompt_id\na.png;p\n", "it has: file_name, prompt_id.*\n.*\n.*';' stands between"
    ),
    "tabs": ("file_name\tprompt_id\na.png\tp\n", "'\\\\t' stands between its columns"),
    "two columns of one name": (
        "file_name,file_name,prompt_id\na.png,b.png,p\n", "two columns 'file_name'"
    ),
    "rows longer than the header": (HEAD + "a.png,p,x\n", "more cells than the metadata have"),
    "one row longer": (HEAD + "a.png,p\nb.png,q,x\n", "cannot read the metadata"),
    "an open quotation": (HEAD + '"a.png,p\n', "cannot read the metadata"),
    "blanks in the header": ("file_name, prompt_id\na.png,p\n", "no column 'prompt_id'; it has"),
    "Excel's first line": ("sep=,\n" + HEAD + "a.png,p\n", "no column 'file_name'"),
    "Latin-1": ((HEAD + "ö.png,p\n").encode("latin-1"), "not UTF-8 \\(it may be WINDOWS-1252"),
    "UTF-16": ((HEAD + "a.png,p\n").encode("utf-16"), "not UTF-8 \\(it may be UTF-16"),
    "a zip": (b"PK\x03\x04abc", "no column 'file_name'"),
}  # fmt: skip

# name: files that differ from the sound ones, words of the fault (None: they are taken)
FOLDERS = {
    "all sound": ({}, None),
    "colour": ({3: "in colour"}, None),
    "two that show the same": ({3: ("png", 4)}, None),
    "a black one": ({3: "black"}, "3.png: all pixels have one value"),
    "a white one in colour": ({3: "white in colour"}, "3.png: all pixels have one value"),
    "three black ones": ({0: "black", 1: "black", 2: "black"}, "3 fault\\(s\\)"),
    "12 bits in 16": ({5: "12 bits in 16"}, "5.png: 16 bits per pixel, and no value above"),
    "transparent": ({5: "transparent"}, "5.png: 100.0% of the pixels are transparent"),
    "cut": ({5: "cut"}, "5.png: cannot decode an image"),
    "a text": ({5: "an image"}, "5.png: cannot decode an image"),
    "missing": ({5: None}, "5.png: no such file"),
    "a web page": ({5: "<!DOCTYPE html>"}, "5.png: cannot decode an image"),
    "a pointer of Git LFS": ({5: "version https://git-lfs"}, "5.png: cannot decode an image"),
}

# name: the images in order as (kind, seed, what a control shows), what is counted or the fault
COLLECTIONS = {
    "all differ": ([("png", 1, ""), ("png", 2, ""), ("png", 3, "")], (0, 0)),
    "one image": ([("png", 1, "")], (0, 0)),
    "two are alike": ([("png", 1, ""), ("png", 2, ""), ("png", 1, "")], (1, 0)),
    "all are alike": ([("png", 1, "")] * 4, (3, 0)),
    "two pairs": ([("png", 1, ""), ("png", 2, ""), ("png", 1, ""), ("png", 2, "")], (2, 0)),
    "alike in other bytes": ([("png", 1, ""), ("png_2", 1, "")], (1, 0)),
    "a control's copies": ([("png", 1, "r1"), ("png", 1, "r1")], (0, 0)),
    "a control's copy and an image": ([("png", 1, "r1"), ("png", 1, "")], (0, 0)),
    "a control's black film": ([("png", 1, "r1"), ("black", 0, "r2")], (0, 1)),
    "a black image": ([("png", 1, ""), ("black", 0, "")], "one value.*\\n.*1.png \\(test-1\\)"),
    "a white image in colour": ([("white in colour", 0, "")], "one value.*\\n.*\\(test-0\\)"),
    "12 bits in 16": ([("12 bits in 16", 0, "")], "16 bits per pixel.*\\n.*\\(test-0\\)"),
    "transparent": ([("png", 1, ""), ("transparent", 1, "")], "transparent.*\\n.*\\(test-1\\)"),
    "cut": ([("png", 1, ""), ("cut", 1, "")], "cannot decode.*\\n.*\\(test-1\\)"),
}

# name: what records' provenance says of (model, repeated, constant), what the table adds
WORDS = {
    "nothing to say": ([("A", 0, 0), ("B", 0, 0)], ""),
    "features of another version": ([("A", None, None)], ""),
    "one model": ([("A", 1234, 0), ("B", 0, 0)], ": A: 1,234 repeat another."),
    "two models": (
        [("A", 3, 0), ("B", 4, 2)], ": A: 3 repeat another; B: 4 repeat another, 2 blank."
    ),
    "two records of one model": ([("A", 3, 0), ("A", 3, 0)], ": A: 3 repeat another."),
    "a control's": ([("Copies", 0, 7)], ": Copies: 7 blank."),
}  # fmt: skip


@pytest.mark.parametrize("name", METADATA)
def test_a_table_of_images_is_taken_or_refused_before_any_job(name, tmp_path):
    text, fault = METADATA[name]
    path = tmp_path / "metadata.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if fault is None:
        assert len(read_metadata(path)) == text.count("\n") - 1
        check_metadata(path)
        return
    for read in (read_metadata, check_metadata):
        with pytest.raises(InputError, match=fault) as caught:
            read(path)
        assert f"where: {path}" in str(caught.value)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_taken_or_refused_by_its_files(name, cohort):
    changed, fault = FOLDERS[name]
    folder = cohort.folder / "mine"
    folder.mkdir()
    for i in range(12):
        kind = changed.get(i, "png")
        if kind is not None:
            kind, seed = kind if isinstance(kind, tuple) else (kind, i)
            (folder / f"{i}.png").write_bytes(picture(kind, seed))
    metadata, output = cohort.folder / "mine.csv", cohort.folder / "out.parquet"
    metadata.write_text(WELL.format(*cohort.sets["test"]["prompt_id"]))
    given = (folder, metadata, cohort.folder / "test.parquet", output)
    if fault is None:
        import_shard(*given)
        assert len(list(read_shards([output]))) == 12
        return
    with pytest.raises(InputError, match=fault):
        import_shard(*given)
    assert not output.exists()


@pytest.mark.parametrize(
    "name",
    ["a" * 300 + ".png", "s/../" * 900 + "a.png", ".", "..", "http://host/a.png", "a\\b.png"],
)
def test_a_name_that_no_file_can_have_is_named(name, cohort):
    frame = cohort.sets["test"].iloc[:1]
    rows = pd.DataFrame({"file_name": [name], "prompt_id": [frame.iloc[0]["prompt_id"]]})
    with pytest.raises(InputError, match=re.escape(f"{name}: no such file")):
        match_files(rows, frame, cohort.folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    return write_reid(tmp_path_factory.mktemp("weights") / "reid")


@pytest.mark.parametrize("name", COLLECTIONS)
def test_copies_are_counted_and_what_shows_nothing_is_refused(name, tmp_path, encoder):
    images, expected = COLLECTIONS[name]
    items = [
        ImageItem(f"test-{i}", f"{i}.png", picture(kind, seed), "caption", source or None)
        for i, (kind, seed, source) in enumerate(images)
    ]
    shard, out = tmp_path / "part.parquet", tmp_path / "out"
    write_shard(items, shard)
    given = ["--shards", shard, "--encoder", f"reid={encoder}", "--purpose", "fidelity"]
    given += ["--collection", "mine", "--out", out, "--progress", tmp_path / "p"]
    given += ["--batch-size", 2]
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            extract.main([str(word) for word in given])
        assert not (out / "reid.h5").exists()
        return
    extract.main([str(word) for word in given])
    said = origin(read_features(out / "reid.h5"))
    assert (said["repeated_images"], said["constant_images"]) == expected
    json.dumps(said)  # as a record keeps it


def test_features_of_radiographs_or_of_another_version_count_nothing(tmp_path):
    path = write_file(tmp_path, "rad_dino", np.ones((1, 2)), ["a"])
    assert not {"repeated_images", "constant_images"} & origin(read_features(path)).keys()


@pytest.mark.parametrize("name", WORDS)
def test_a_table_names_the_models_with_copies(name):
    said, expected = WORDS[name]
    records = []
    for model, repeated, constant in said:
        counts = {"repeated_images": repeated, "constant_images": constant}
        read = {key: count for key, count in counts.items() if count is not None}
        record = Record("fidelity", model, "rad_dino", "sound", [], {}, {"inputs": [read, read]})
        records.append((model, record))
    words = words_of_copies(records)
    assert words.endswith(expected)
    assert bool(words) == bool(expected)
