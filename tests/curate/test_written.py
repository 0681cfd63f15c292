"""A pool that would publish a caption, an id or a radiograph is refused, and nothing is written."""

import tracemalloc
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, png_bytes, read_shards, write_shard
from workflow_scripts.common.manifest import FINDINGS, TEMPLATE, write_manifest, write_prompts
from workflow_scripts.curate.lenses import LENS_SCHEMA, LENSES
from workflow_scripts.curate.search import check_images
from workflow_scripts.curate.set_files import set_files
from workflow_scripts.curate.settings import CurateSettings
from workflow_scripts.curate.write_set import write_set
from workflow_scripts.privacy.private_table import write_private_table

CAPTION = "Small left pleural effusion with adjacent basal atelectasis, unchanged"
POLICY = CurateSettings(
    pool="stress", images=3, quotas={}, access="release", published_prompts="templates",
    privacy_false_alarms=0.02, quality_false_alarms=0.05, planted=12, held_out=150,
    references=100, most_flagged=0.5, most_remaining=0.5, least_sensitivity=0.5,
    most_false_rejections=0.2,
)  # fmt: skip


def picture(seed, side=32):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8))


@pytest.fixture
def written(tmp_path):
    """Write a set whose prompts are templates; `change` spoils the pool.

    The pool's rows stand in the order of `order`, in files of `per_shard`.
    """

    def write(
        model="sana", change=None, policy=POLICY, images=3, side=32, order=None, per_shard=10**6
    ):
        rows = []
        for k in range(4):
            path = tmp_path / f"film{k}.png"
            picture(100 + k).save(path)
            rows.append(
                {
                    "image_id": f"film-{k:08d}", "patient_id": f"p1000000{k}",
                    "study_id": f"s5000000{k}", "path": str(path), "view": "AP", "site": None,
                    "split": "train", "caption": f"{CAPTION}, {k}", "caption_source": "report",
                    "indication": None, "report": None, **dict.fromkeys(FINDINGS, 0),
                }
            )  # fmt: skip
        manifest = pd.DataFrame(rows).astype(dict.fromkeys(FINDINGS, "Int8"))
        write_manifest(manifest, tmp_path / "manifest.parquet")
        prompts = manifest.iloc[[k % 3 for k in range(images)]].reset_index(drop=True).assign(
            prompt_id=[f"stress-{k:016x}-r00" for k in range(images)],
            caption=[f"Frontal chest radiograph, template {k}." for k in range(images)],
            image_id=None, caption_source=TEMPLATE, replicate=0, seed=1, second_wording=False,
        )  # fmt: skip
        shown = [picture(1000 + k if k > 99 else k, side) for k in range(images)]
        if change:
            change(prompts, shown)
        write_prompts(prompts, tmp_path / "prompts.parquet")
        ids = prompts["prompt_id"].tolist()
        items = [ImageItem(name, f"{name}.png", png_bytes(image), "")
                 for name, image in zip(ids, shown, strict=True)]  # fmt: skip
        rows = [items[k] for k in order or range(images)]
        shards = []
        for start in range(0, images, per_shard):
            shards.append(tmp_path / f"part-{start:05d}.parquet")
            write_shard(rows[start : start + per_shard], shards[-1])
        seen = {**dict.fromkeys(LENSES, 0.5), "kind": None, "source": None, "patient_id": None,
                "nearest_image_id": "film-00000000", "nearest_patient_id": "p10000000",
                "latent_image_id": "film-00000001", "digest": "0",
                "rows_of_features": 0}  # fmt: skip
        lenses = pd.DataFrame([{"group": "pool", "id": name, **seen} for name in ids])
        write_private_table(lenses, LENS_SCHEMA, tmp_path / "lenses.parquet")
        pool = lenses.assign(
            density=1.0, caption=prompts["caption"].tolist(),
            caption_source=prompts["caption_source"].tolist(),
        )  # fmt: skip
        args = Namespace(
            model=model, prompts=tmp_path / "prompts.parquet",
            shards=shards,
            searched_manifests=[tmp_path / "manifest.parquet"],
            searched_prompts=[tmp_path / "prompts.parquet"], lenses=tmp_path / "lenses.parquet",
            manifest=tmp_path / "manifest.parquet", output=tmp_path / "out",
        )  # fmt: skip
        write_set(args, policy, pool)
        return args.output / "dataset/data" / set_files(policy.images)[0]

    return write


def test_a_set_has_its_prompts_where_they_are_nobodys(written):
    table = pq.read_table(written()).to_pandas()
    assert table["prompt"].tolist() == [
        f"Frontal chest radiograph, template {k}." for k in range(3)
    ]
    assert [row["path"] for row in table["image"]] == [f"sana-{k:06d}.png" for k in range(3)]


def test_a_large_set_has_several_files_and_the_order_of_its_draw(written, monkeypatch):
    monkeypatch.setattr("workflow_scripts.curate.set_files.IMAGES_PER_FILE", 2)
    folder = written().parent
    names = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert sorted(path.name for path in folder.iterdir() if "-of-00002" in path.name) == names
    paths = [pq.read_table(folder / name)["image"].to_pylist() for name in names]
    assert [len(part) for part in paths] == [2, 1]
    assert [row["path"] for part in paths for row in part] == [
        f"sana-{k:06d}.png" for k in range(3)
    ]


def test_several_files_are_written_whole_or_not_at_all(written, tmp_path, monkeypatch):
    monkeypatch.setattr("workflow_scripts.curate.set_files.IMAGES_PER_FILE", 2)
    write_table = pq.ParquetWriter.write_table

    def full_disk(self, table, **flags):
        if "train-00001-of" in str(self.where):
            raise OSError("no space left on device")
        write_table(self, table, **flags)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full_disk)
    with pytest.raises(OSError, match="no space"):
        written()
    assert not list((tmp_path / "out").rglob("train-*"))


def rewritten(shards):
    """Write other images to a pool's files under the same ids."""
    for shard in shards:
        items = [replace(item, data=png_bytes(picture(500))) for item in read_shards([shard])]
        write_shard(items, shard)


def test_only_searched_images_are_written(written, tmp_path, monkeypatch):
    def searched(images, real):
        check_images(images, real)
        rewritten(tmp_path.glob("part-*"))

    monkeypatch.setattr("workflow_scripts.curate.write_set.check_images", searched)
    with pytest.raises(InputError, match=r"3 image\(s\) of the pool changed"):
        written()
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_the_pools_order_and_files_change_no_byte(written, monkeypatch):
    monkeypatch.setattr("workflow_scripts.curate.set_files.IMAGES_PER_FILE", 70)
    policy = replace(POLICY, images=140)
    data = written(policy=policy, images=140).parent
    names = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet")
    first = [(data / name).read_bytes() for name in names]
    shuffled = np.random.default_rng(0).permutation(140).tolist()
    written(policy=policy, images=140, order=shuffled, per_shard=45)
    assert [(data / name).read_bytes() for name in names] == first
    rows = [row for name in names for row in pq.read_table(data / name).to_pylist()]
    for k, row in enumerate(rows):
        assert row["prompt"] == f"Frontal chest radiograph, template {k}."
        assert row["image"]["bytes"] == png_bytes(picture(1000 + k if k > 99 else k))
    assert pq.ParquetFile(data / names[0]).metadata.num_row_groups == 3


def test_a_set_is_never_in_memory_as_a_whole(written, monkeypatch):
    peaks, plain = [], write_set

    def traced(*given):
        tracemalloc.start()
        plain(*given)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    monkeypatch.setattr("tests.curate.test_written.write_set", traced)
    for count in (100, 400):
        file = written(images=count, side=128, policy=replace(POLICY, images=count))
    assert file.stat().st_size > 400 * 128**2
    assert peaks[1] - peaks[0] < file.stat().st_size / 4


def test_a_kill_leaves_nothing_that_the_next_attempt_keeps(written, tmp_path, monkeypatch):
    """The pool's images have no name on the disk; unfinished files are removed by their names."""
    seen = []
    write_table = pq.ParquetWriter.write_table

    def listing(self, table, **flags):
        if "train-" in str(self.where):
            seen.extend(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
        write_table(self, table, **flags)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", listing)
    written()
    assert seen
    assert all(name.startswith(".train-00000-of-00001.parquet.") for name in seen)


def caption_planted(prompts, images):
    prompts.iloc[1, prompts.columns.get_loc("caption")] = f"Frontal view. {CAPTION}, 2."


def caption_named(prompts, images):
    prompts.loc[1, ["caption_source", "image_id"]] = ("report", "film-00000001")


def id_planted(prompts, images):
    prompts.iloc[1, prompts.columns.get_loc("caption")] = "As in study s50000002."


def film_planted(prompts, images):
    images[2] = picture(101)


@pytest.mark.parametrize(
    ("model", "change", "said"),
    [
        ("sana", caption_planted, "caption"),
        ("sana", caption_named, "captions of patients"),
        ("sana", id_planted, r"1 id\(s\)"),
        ("sana_p10000002", None, r"id\(s\) of the cohort would be published"),
        ("sana", film_planted, "real image"),
    ],
)
def test_a_pool_with_a_caption_an_id_or_a_film_is_refused(written, tmp_path, model, change, said):
    with pytest.raises(InputError, match=said) as error:
        written(model, change)
    assert "effusion" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_captions_go_out_on_purpose_but_no_ids(written):
    policy = replace(POLICY, published_prompts="captions", access="credentialed")
    table = pq.read_table(written(change=caption_planted, policy=policy)).to_pandas()
    assert CAPTION in table["prompt"][1]
    with pytest.raises(InputError, match=r"1 id\(s\)"):
        written(change=id_planted, policy=policy)
