"""External models: exactly the images that the set asks for, as they are."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import read_shards
from workflow_scripts.generate.import_external import import_shard


@pytest.fixture
def given_images(cohort):
    """A folder with an image per test prompt (JPEG and PNG), and a list of metadata rows."""
    folder = cohort.folder / "mine"
    (folder / "sub").mkdir(parents=True)
    rows = []
    for i, prompt_id in enumerate(cohort.sets["test"]["prompt_id"]):
        name = f"sub/{i}.jpg" if i % 2 else f"{i}.PNG"
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) + i).save(folder / name)
        rows.append([name, prompt_id])
    return rows


def _import(cohort, rows, shard=0, shards=1):
    metadata = cohort.folder / "mine.csv"
    with metadata.open("w", newline="") as stream:
        csv.writer(stream).writerows([["file_name", "prompt_id"], *rows])
    output = cohort.folder / f"out{shard}.parquet"
    import_shard(
        cohort.folder / "mine",
        metadata,
        cohort.folder / "test.parquet",
        output,
        shard,
        shards,
        threads=2,
    )
    return list(read_shards([output]))


def test_files_are_taken_byte_for_byte_in_prompt_order(cohort, given_images):
    shuffled = [*given_images[::-1], ["whatever.png", "privacy-image0-r00"]]
    items = [item for shard in range(3) for item in _import(cohort, shuffled, shard, 3)]
    assert [item.id for item in items] == cohort.sets["test"]["prompt_id"].tolist()
    for item, (name, _) in zip(items, given_images, strict=True):
        assert item.data == (cohort.folder / "mine" / name).read_bytes()
        assert item.open().size == (8, 8)
        Image.open(io.BytesIO(item.data)).verify()


def test_every_fault_is_named(cohort, given_images):
    rows = [list(row) for row in given_images]
    missing = rows.pop(0)[1]
    rows.append([f"./sub/../{missing}.png", rows[3][1]])
    (cohort.folder / "mine" / f"{missing}.png").touch()
    rows.append(["nobody.png", "test-nobody-asked"])
    rows[1][0] = "not_there.png"
    with pytest.raises(InputError) as caught:
        _import(cohort, rows)
    message = str(caught.value)
    assert "4 fault(s)" in message
    for fault in (
        f"{missing}: no image",
        f"{rows[3][1]}: several images",
        "test-nobody-asked: no such prompt",
        "not_there.png: no such file",
    ):
        assert fault in message
    assert not (cohort.folder / "out0.parquet").exists()


def test_at_most_ten_faults_are_listed(cohort, given_images):
    with pytest.raises(InputError) as caught:
        _import(cohort, given_images[:1])
    assert "11 fault(s)" in str(caught.value)
    assert str(caught.value).count("no image") == 10


def test_an_unreadable_image_is_named(cohort, given_images):
    path = cohort.folder / "mine" / given_images[5][0]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="cannot decode") as caught:
        _import(cohort, given_images)
    assert path.name in str(caught.value)


def test_metadata_without_its_columns_is_refused(cohort, given_images):
    (cohort.folder / "mine.csv").write_text("name,prompt_id\na.png,b\n")
    with pytest.raises(InputError, match="no column 'file_name'"):
        import_shard(
            cohort.folder / "mine",
            cohort.folder / "mine.csv",
            cohort.folder / "test.parquet",
            cohort.folder / "out.parquet",
        )
