"""The worth of a set for segmentation: wrong masks cost Dice, and the set without them keeps it."""

import argparse
import functools
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.curate.small_set import decision, write_set
from tests.downstream.cohort import words_of
from tests.downstream.segmentation.conftest import DRAW, LABELLER, bright, make_world
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.images import find_in_shards, png_bytes
from workflow_scripts.common.manifest import TEMPLATE, read_prompts, write_prompts
from workflow_scripts.common.records import read_record
from workflow_scripts.curate import describe, train_worth_segmenters, worth_segmentation
from workflow_scripts.curate.write_set import CHOSEN_SCHEMA
from workflow_scripts.downstream.segmentation import label, train
from workflow_scripts.downstream.segmentation.label import drawn_prompts
from workflow_scripts.downstream.segmentation.masks import Mask, encode_mask, write_masks
from workflow_scripts.privacy.private_table import write_private_table


class Pool:
    """Copies of radiographs; the labeller draws the masks of half of them the wrong way round."""

    def __init__(self, folder):
        self.world = make_world(folder)
        self.folder = folder
        pairs = zip(self.world.prompts["prompt_id"], self.world.prompts["image_id"], strict=True)
        self.images = {prompt: self.world.images[name] for prompt, name in pairs}
        (self.shards,) = self.world.model("bars", lambda image: image)["shards"]
        self.good, self.wrong = list(self.images)[::2], set(list(self.images)[1::2])
        self.labelled = []
        # Of few radiographs, so that wrong masks weigh.
        kept = [*self.world.test_ids, *self.world.prompts["image_id"].head(30)]
        masks = {name: bright(self.world.images[name]) for name in kept}
        self.real_masks = self.world.masks("few", masks)

    def draw(self, words):
        """Stand in for `label`, whose network draws clavicles and no bars."""
        parser = argparse.ArgumentParser()
        for flag in ("prompts", "shards", "output", "images", "draw-seed", "model"):
            parser.add_argument(f"--{flag}")
        args, _ = parser.parse_known_args(words)
        prompts = drawn_prompts(read_prompts(args.prompts), int(args.images), int(args.draw_seed))
        self.labelled.append(len(prompts))
        masks = []
        for item in find_in_shards([args.shards], set(prompts["prompt_id"])):
            mask = bright(item.open().convert("L"))
            mask = ~mask if item.id in self.wrong else mask
            masks.append(Mask(item.id, encode_mask(mask), item.open().size))
        run = {"model": args.model, "labeller": LABELLER, "draw": DRAW | {"images": len(masks)}}
        write_masks(args.output, masks, run)

    @functools.cached_property
    def real(self):
        """The outcomes of the baseline, trained once."""
        return self.world.run("real", real_masks=self.real_masks)

    def flags(self, name, chosen, **changes):
        """The flags of train_worth_segmenters for a set of these images."""
        folder = self.folder / "sets" / name
        folder.mkdir(parents=True, exist_ok=True)
        files = [f"m-{k}.png" for k in range(len(chosen))]
        table = pd.DataFrame({"file": files, "prompt_id": chosen}, dtype=object)
        write_private_table(table, CHOSEN_SCHEMA, folder / "chosen.parquet")
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = [
            {"image": {"bytes": png_bytes(self.images[prompt]), "path": file}}
            for file, prompt in zip(files, chosen, strict=True)
        ]
        pq.write_table(
            pa.Table.from_pylist(rows, pa.schema([("image", image)])), folder / "set.parquet"
        )
        (folder / "cxas.pth").write_bytes(b"weights")
        given = {
            "model": "bars", "real_masks": self.real_masks, "shards": self.shards,
            "chosen": folder / "chosen.parquet",
            "dataset": folder / "set.parquet", "draw_seed": 5, "setting": None,
            "labeller_weights": folder / "cxas.pth", "labeller_classes": [31, 32],
            "labeller_size": 32, "labeller_batch_size": 4, "masked_images": 1000,
            "masked_draw_seed": 3, "progress": folder / "progress", "output": folder / "repeat-0",
        }  # fmt: skip
        return self.world.arguments(name, **given | changes)

    def worth(self, name, chosen, **changes):
        """Train on a set of these images; return the record."""
        train_worth_segmenters.main(self.flags(name, chosen, **changes))
        folder = self.folder / "sets" / name
        flags = {
            "model": "bars", "protocol": "sound", "trained": folder / "repeat-0",
            "baseline": self.real, "bootstrap": 200, "seed": 42, "output": folder / "worth.json",
        }  # fmt: skip
        worth_segmentation.main(words_of(flags))
        return read_record(folder / "worth.json")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    found = Pool(tmp_path_factory.mktemp("worth") / "world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label, "main", found.draw)
        yield found


@pytest.fixture(scope="module")
def good(pool):
    return pool.worth("good", pool.good)


@pytest.mark.full
def test_a_set_without_wrong_masks_is_worth_more_than_the_pool(good):
    curated, unfiltered = (good.get(f"{s}_added_dice") for s in ("curated", "unfiltered"))
    assert good.get("real_dice").value > 0.8
    assert curated.value > 0.8
    effect = good.get("filter_added_dice")
    assert effect.value == pytest.approx(curated.value - unfiltered.value)
    assert effect.interval[0] > 0
    gain = good.get("curated_added_dice_gain")
    assert gain.value == pytest.approx(curated.value - good.get("real_dice").value)
    assert good.get("filter_added_dice_pooled").value > 0


@pytest.mark.full
def test_the_record_names_what_was_trained_on(pool, good):
    details = good.details
    assert details["task"] == "segmentation"
    assert details["dataset_sha256"] == sha256_of(pool.folder / "sets/good/set.parquet")
    assert details["masked"] == {"curated": len(pool.good), "unfiltered": len(pool.good)}
    arms = {run["arm"]: run for run in details["runs"]}
    assert set(arms) == {"real", "curated_added", "unfiltered_added"}
    assert arms["real"]["n_train_synthetic"] == 0
    for arm in ("curated_added", "unfiltered_added"):
        assert arms[arm]["n_images"] == arms["real"]["n_images"] + len(pool.good)
    text = json.dumps(details)
    assert not any(prompt in text for prompt in pool.images)


@pytest.mark.full
def test_as_many_images_get_masks_as_downstream_draws(pool):
    record = pool.worth("few", pool.good, masked_images=10, steps=10)
    assert record.details["masked"] == {"curated": 10, "unfiltered": 10}
    assert record.details["sets"]["curated"]["images"] == len(pool.good)


@pytest.mark.full
def test_a_stopped_run_repeats_no_mask_and_no_finished_arm(pool, monkeypatch):
    plain, seen = train.main, []

    def stopping(words):
        seen.append(words)
        if len(seen) == 2:
            raise KeyboardInterrupt
        plain(words)

    monkeypatch.setattr(train, "main", stopping)
    flags = pool.flags("stopped", pool.good, steps=10)
    pool.labelled.clear()
    with pytest.raises(KeyboardInterrupt):
        train_worth_segmenters.main(flags)
    assert not (pool.folder / "sets/stopped/repeat-0").exists()
    train_worth_segmenters.main(flags)
    assert len(seen) == 2 + 1
    assert len(pool.labelled) == 2
    assert not (pool.folder / "sets/stopped/progress").exists()


def test_an_empty_set_has_a_reason_in_place_of_every_value(pool):
    record = pool.worth("empty", [])
    found = {value.metric: value for value in record.values}
    assert found.pop("real_dice").value > 0.8
    assert found.pop("real_dice_pooled").value > 0.8
    assert {(v.value, v.reason) for v in found.values()} == {
        (None, "no image of the pool passed the filter")
    }
    assert "filter_added_dice" in found


def test_templates_are_no_patients(pool, tmp_path):
    prompts = pool.world.prompts.assign(caption_source=TEMPLATE, image_id=None)
    write_prompts(prompts, tmp_path / "prompts.parquet")
    record = pool.worth("templates", pool.good, prompts=tmp_path / "prompts.parquet")
    assert "belong to no patient" in record.get("curated_added_dice").reason


def test_masks_of_another_network_are_refused(pool, monkeypatch):
    def other(words):
        pool.draw(words)
        path = words[words.index("--output") + 1]
        write_masks(path, [], {"labeller": {"size": 1}, "draw": DRAW})

    monkeypatch.setattr(label, "main", other)
    with pytest.raises(InputError, match="labeller is"):
        train_worth_segmenters.main(pool.flags("other", pool.good))


def test_downstream_itself_still_wants_the_same_draw(pool):
    masks = pool.world.masks("drawn", {}, draw=DRAW | {"seed": 9})
    given = {"real_masks": pool.real_masks, "shards": [pool.shards], "masks": masks}
    flags = pool.world.arguments("own", **given, setting="augmented")
    with pytest.raises(InputError, match="draw is"):
        train.main(flags)


@pytest.mark.full
def test_the_documents_show_both_tasks(pool, good, tmp_path):
    path, dataset = write_set(tmp_path, decision(model="bars"), shards=1)
    record = json.loads((pool.folder / "sets/good/worth.json").read_text())
    (shard,) = dataset.rglob("*.parquet")
    record["details"]["dataset_sha256"] = sha256_of(shard)
    own = tmp_path / "worth_segmentation.json"
    own.write_text(json.dumps(record))
    flags = ["--decision", path, "--dataset", dataset, "--family", "sana"]
    flags += ["--worth-segmentation", own, "--output", tmp_path / "published"]
    describe.main([str(word) for word in flags])
    scorecard = (tmp_path / "published/scorecard.md").read_text()
    shown = f"{good.get('curated_added_dice').value:.4g}"
    assert f"a U-Net, Dice: this set, added to real images | {shown}" in scorecard
    said = json.loads((tmp_path / "published/worth_segmentation.json").read_text())
    assert said["trained_on"]["masked"] == good.details["masked"]
    assert "slurm" not in json.dumps(said)
