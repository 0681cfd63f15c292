import io
import json

import numpy as np
import pytest
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import (
    ROWS_PER_GROUP,
    ImageItem,
    count_shards,
    decode_image,
    find_in_shards,
    png_bytes,
    read_shard_ids,
    read_shards,
    shard_jobs,
    write_shard,
)


def item(k):
    pixels = np.full((4, 4, 3), k % 256, np.uint8)
    return ImageItem(f"test-{k}", f"{k}.png", png_bytes(Image.fromarray(pixels)), f"caption {k}")


def test_shards_come_back_in_order_and_bytes(tmp_path):
    items = [item(k) for k in range(ROWS_PER_GROUP + 3)]
    assert write_shard(items[:2], tmp_path / "a.parquet") == 2
    assert write_shard(items[2:], tmp_path / "b.parquet") == ROWS_PER_GROUP + 1
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    back = list(read_shards(paths))
    assert [(i.id, i.data, i.caption) for i in back] == [(i.id, i.data, i.caption) for i in items]
    assert count_shards(paths) == len(items)
    assert read_shard_ids(paths) == [i.id for i in items]
    assert np.asarray(back[1].open())[0, 0].tolist() == [1, 1, 1]


def test_wanted_items_are_found_wherever_they_stand(tmp_path):
    items = [item(k) for k in range(3 * ROWS_PER_GROUP)]
    write_shard(items[:5], tmp_path / "a.parquet")
    write_shard(items[5:], tmp_path / "b.parquet")
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    items_found = list(find_in_shards(paths, {"test-2", "test-150", "nobody"}))
    assert [(i.id, i.data) for i in items_found] == [(items[k].id, items[k].data) for k in (2, 150)]


def test_the_same_items_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_shard([item(k) for k in range(70)], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_shard_names_the_jobs_that_made_it(tmp_path):
    jobs = [{"device": "cpu", "slurm_job_id": "7", "slurm_node": None}]
    write_shard([item(1)], tmp_path / "a.parquet", jobs)
    write_shard([item(1)], tmp_path / "b.parquet")
    assert shard_jobs(tmp_path / "a.parquet") == jobs
    assert shard_jobs(tmp_path / "b.parquet") == []
    assert [i.id for i in read_shards([tmp_path / "a.parquet"])] == ["test-1"]


def test_datasets_reads_a_shard_as_an_image_column(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_shard([item(7)], tmp_path / "part-00000-of-00001.parquet")
    data = datasets.Dataset.from_parquet(
        str(tmp_path / "part-00000-of-00001.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(data[0]["image"], Image.Image)
    assert np.asarray(data[0]["image"])[0, 0].tolist() == [7, 7, 7]


def test_a_truncated_shard_is_refused_by_name(tmp_path):
    path = tmp_path / "a.parquet"
    write_shard([item(k) for k in range(70)], path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cannot read an image shard[\s\S]*a.parquet"):
        list(read_shards([path]))


def test_sixteen_bits_are_scaled_not_clipped():
    buffer = io.BytesIO()
    values = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    Image.fromarray(values).save(buffer, format="PNG")
    image = np.asarray(decode_image(buffer.getvalue(), "x"))[..., 0]
    assert image.tolist() == [[0, 100], [200, 255]]


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text"])
def test_a_broken_image_is_an_error_that_names_it(tmp_path, damage):
    path = tmp_path / "broken.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    else:
        path.write_text(json.dumps({"not": "an image"}))
    with pytest.raises(InputError, match=r"cannot decode[\s\S]*broken.jpg"):
        decode_image(path, str(path))
