"""The worth of a set: images that show what was asked are worth something, noise is not."""

import functools
import hashlib
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.curate.small_set import decision, write_set
from tests.downstream.cohort import DRAWN, blob_image
from tests.downstream.conftest import SIZE, make_world
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.images import png_bytes
from workflow_scripts.common.manifest import FINDINGS, read_prompts
from workflow_scripts.common.records import read_record
from workflow_scripts.curate import describe, train_worth, worth
from workflow_scripts.curate.set_files import set_sha256
from workflow_scripts.curate.worth_sets import both_sets
from workflow_scripts.curate.write_set import CHOSEN_SCHEMA
from workflow_scripts.downstream.classification import train
from workflow_scripts.privacy.private_table import write_private_table

QUOTAS = {"Edema": 15}


class Pool:
    """A pool of the blobs: a third of the images show what was asked, half of them the opposite.

    The others are noise.
    """

    def __init__(self, folder):
        self.world = make_world(folder)
        self.folder = folder
        rng = np.random.default_rng(3)
        prompts = self.world.prompts
        self.good = prompts["prompt_id"].tolist()[::3]
        self.noise = prompts["prompt_id"].tolist()[1::6]
        self.images = {}
        for _, row in prompts.iterrows():
            name = row["prompt_id"]
            asked = [row[finding] == 1 for finding in DRAWN]
            shown = tuple(int(value == (name in self.good)) for value in asked)
            image = blob_image(shown, rng, SIZE)
            if name in self.noise:
                image = Image.fromarray(rng.integers(0, 256, (SIZE, SIZE), np.uint8))
            self.images[name] = image
        shown = {name: (image, None) for name, image in self.images.items()}
        self.shards = [self.world.shard("pool", shown)]
        halves = (dict(list(shown.items())[k::2]) for k in (0, 1))
        self.halves = [self.world.shard(f"half{k}", half) for k, half in enumerate(halves)]

    @functools.cached_property
    def real(self):
        """The outcomes of the baseline, trained once."""
        train.main(self.world.arguments("real"))
        return self.folder / "runs/real/outcomes.parquet"

    def flags(self, name, chosen, **changes):
        """The flags of train_worth for a set of these images."""
        folder = self.folder / "sets" / name
        folder.mkdir(parents=True, exist_ok=True)
        files = [f"m-{k}.png" for k in range(len(chosen))]
        table = pd.DataFrame({"file": files, "prompt_id": chosen}, dtype=object)
        write_private_table(table, CHOSEN_SCHEMA, folder / "chosen.parquet")
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        shown = [
            {"image": {"bytes": png_bytes(self.images[prompt]), "path": file}}
            for file, prompt in zip(files, chosen, strict=True)
        ]
        pq.write_table(
            pa.Table.from_pylist(shown, pa.schema([("image", image)])), folder / "set.parquet"
        )
        quotas = [f"{finding}={count}" for finding, count in QUOTAS.items()]
        return self.world.arguments(
            name,
            **{
                "model": "blobs",
                "setting": None,
                "shards": self.shards,
                "real_prompts": self.folder / "augment.parquet",
                "chosen": folder / "chosen.parquet",
                "dataset": folder / "set.parquet",
                "quotas": quotas,
                "draw_seed": 5,
                "progress": folder / "progress",
                "output": folder / "repeat-0",
            }
            | changes,
        )

    def worth(self, name, chosen, **changes):
        """Train on a set of these images; return the record."""
        train_worth.main(self.flags(name, chosen, **changes))
        folder = self.folder / "sets" / name
        flags = ["--model", "blobs", "--protocol", "sound", "--trained", folder / "repeat-0"]
        flags += ["--baseline", self.real, "--manifest", self.folder / "manifest.parquet"]
        flags += ["--bootstrap", 200, "--seed", 42, "--output", folder / "worth.json"]
        worth.main([str(word) for word in flags])
        return read_record(folder / "worth.json")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return Pool(tmp_path_factory.mktemp("worth") / "world")


@pytest.fixture(scope="module")
def good(pool):
    return pool.worth("good", pool.good, epochs=24)


@pytest.mark.full
def test_a_set_without_what_is_wrong_is_worth_more_than_the_pool(good):
    assert good.get("curated_alone_auroc").value > 0.85
    effect = good.get("filter_alone_auroc")
    assert effect.value == pytest.approx(
        good.get("curated_alone_auroc").value - good.get("unfiltered_alone_auroc").value
    )
    assert effect.interval[0] > 0


@pytest.mark.full
def test_a_set_of_noise_has_no_worth(pool):
    noise = pool.worth("noise", pool.noise, epochs=4)
    assert noise.get("curated_alone_auroc").value < 0.7
    assert noise.get("curated_alone_auroc_gain").interval[1] < 0
    assert noise.get("curated_added_auroc_gain").value < 0.05


@pytest.mark.full
def test_the_record_names_what_was_trained_on(pool, good):
    details = good.details
    assert details["task"] == "classification"
    assert details["dataset_sha256"] == sha256_of(pool.folder / "sets/good/set.parquet")
    said = details["sets"]["curated"]
    assert said["images"] == details["sets"]["unfiltered"]["images"] == len(pool.good)
    ids = hashlib.sha256("\n".join(sorted(pool.good)).encode()).hexdigest()
    assert said["prompt_ids_sha256"] == ids
    asked = pool.world.prompts.set_index("prompt_id").loc[pool.good]
    assert said["positive"] == {name: int((asked[name] == 1).sum()) for name in FINDINGS}
    trained = {run["arm"]: run for run in details["runs"]}
    assert set(trained) == {
        "real",
        *(f"{name}_{way}" for name in ("curated", "unfiltered") for way in ("alone", "added")),
    }
    for arm, run in trained.items():
        real, synthetic = not arm.endswith("alone"), arm != "real"
        assert (run["n_train_real"] > 0, run["n_train_synthetic"] > 0) == (real, synthetic)
    alone = trained["curated_alone"]
    assert alone["n_train_synthetic"] + alone["n_validation"] == len(pool.good)
    text = json.dumps(details)
    assert not any(prompt in text for prompt in pool.images)


@pytest.mark.full
def test_real_images_are_the_baselines_and_not_the_sets_own(pool, good):
    trained = {run["arm"]: run for run in good.details["runs"]}
    every = trained["real"]["n_train"] + trained["real"]["n_validation"]
    added = trained["curated_added"]
    assert added["n_train"] + added["n_validation"] == every + len(pool.good)


def test_the_unfiltered_set_is_seeded_and_does_not_depend_on_shards(pool):
    prompts = read_prompts(pool.folder / "augment.parquet")
    every = list(pool.images)
    first = both_sets(prompts, every, pool.good, QUOTAS, 5)
    again = both_sets(prompts, every[::-1], pool.good[::-1], QUOTAS, 5)
    for name in ("curated", "unfiltered"):
        assert first[name].ids == again[name].ids
    other = both_sets(prompts, every, pool.good, QUOTAS, 6)
    assert other["unfiltered"].ids != first["unfiltered"].ids
    assert other["curated"].ids == first["curated"].ids
    assert set(first["unfiltered"].ids) - set(pool.good)
    assert (first["unfiltered"].prompts["Edema"] == 1).sum() >= QUOTAS["Edema"]


@pytest.mark.full
def test_other_shards_give_the_same_outcomes(pool):
    for name, shards in (("one", pool.shards), ("two", pool.halves[::-1])):
        train_worth.main(pool.flags(name, pool.good, shards=shards, epochs=1))
    one, two = (pool.folder / "sets" / name / "repeat-0" for name in ("one", "two"))
    assert (
        json.loads((one / "sets.json").read_text())["sets"]
        == (json.loads((two / "sets.json").read_text())["sets"])
    )
    for arm in ("curated_alone", "unfiltered_added"):
        tables = [pd.read_parquet(folder / f"{arm}.parquet") for folder in (one, two)]
        pd.testing.assert_frame_equal(*tables)


@pytest.mark.full
def test_a_stopped_run_trains_no_finished_arm_again(pool, monkeypatch):
    plain, seen = train.main, []

    def stopping(words):
        seen.append(words)
        if len(seen) == 3:
            raise KeyboardInterrupt
        plain(words)

    monkeypatch.setattr(train, "main", stopping)
    flags = pool.flags("stopped", pool.good, epochs=1)
    with pytest.raises(KeyboardInterrupt):
        train_worth.main(flags)
    assert not (pool.folder / "sets/stopped/repeat-0").exists()
    train_worth.main(flags)
    assert len(seen) == 3 + 2
    assert not (pool.folder / "sets/stopped/progress").exists()


def test_an_empty_set_has_a_reason_in_place_of_every_value(pool):
    record = pool.worth("empty", [])
    for value in record.values:
        if not value.metric.startswith("real_"):
            assert (value.value, value.reason) == (None, "no image of the pool passed the filter")
    assert record.get("real_auroc").value > 0.5


def test_documents_say_why_there_is_no_worth(pool, tmp_path):
    pool.worth("nothing", [])
    path, dataset = write_set(tmp_path, decision(model="blobs", kept=0), shards=1)
    flags = ["--decision", path, "--dataset", dataset, "--family", "sana"]
    empty = pool.folder / "sets/nothing/worth.json"
    record = json.loads(empty.read_text())
    (shard,) = dataset.rglob("*.parquet")
    record["details"]["dataset_sha256"] = sha256_of(shard)
    empty.write_text(json.dumps(record))
    describe.main([str(w) for w in [*flags, "--worth", empty, "--output", tmp_path / "published"]])
    card = (tmp_path / "published/README.md").read_text()
    assert "Not measured: no image of the pool passed the filter." in card
    scorecard = (tmp_path / "published/scorecard.md").read_text()
    assert "learns from the set (AUROC) | gap: no image of the pool passed the filter" in scorecard


def test_a_set_of_one_patient_says_why_nothing_is_trained(pool):
    owner = pool.world.manifest.set_index("image_id")["patient_id"]
    of = owner.loc[pool.world.prompts["image_id"]].to_numpy()
    own = pool.world.prompts["prompt_id"][of == of[0]].tolist()
    assert "one patient" in pool.worth("one_patient", own).get("curated_alone_auroc").reason


def test_another_set_than_the_one_to_be_handed_on_is_refused(pool):
    flags = pool.flags("swapped", pool.good[:20])
    pool.flags("swapped_too", pool.noise[:20])
    at = flags.index("--dataset") + 1
    flags[at] = flags[at].replace("swapped", "swapped_too")
    with pytest.raises(InputError, match="does not hold the images that were chosen"):
        train_worth.main(flags)


@pytest.mark.full
def test_the_documents_show_it_with_and_without_the_filter(pool, good, tmp_path):
    path, dataset = write_set(tmp_path, decision(model="blobs"), shards=2)
    record = json.loads((pool.folder / "sets/good/worth.json").read_text())
    shards = [sha256_of(shard) for shard in sorted(dataset.rglob("*.parquet"))]
    record["details"]["dataset_sha256"] = set_sha256(shards)
    (tmp_path / "worth.json").write_text(json.dumps(record))
    flags = ["--decision", path, "--dataset", dataset, "--family", "sana"]
    flags += ["--worth", tmp_path / "worth.json", "--output", tmp_path / "published"]
    describe.main([str(word) for word in flags])
    card = (tmp_path / "published/README.md").read_text()
    curated, unfiltered = (
        f"{good.get(f'{name}_alone_auroc').value:.4g}" for name in ("curated", "unfiltered")
    )
    assert f"| this set, alone | {curated} (" in card
    assert f"| as many images without the filter, alone | {unfiltered} (" in card
    assert "With one training run of each" in card
    scorecard = (tmp_path / "published/scorecard.md").read_text()
    assert f"AUROC: this set, alone | {curated}" in scorecard
    said = json.loads((tmp_path / "published/worth.json").read_text())
    assert said["trained_on"]["sets"] == good.details["sets"]
    assert "slurm" not in json.dumps(said)


@pytest.mark.full
def test_the_worth_of_another_set_is_refused(pool, good, tmp_path):
    path, dataset = write_set(tmp_path, decision(model="blobs"), shards=1)
    flags = ["--decision", path, "--dataset", dataset, "--family", "sana"]
    flags += ["--worth", pool.folder / "sets/good/worth.json", "--output", tmp_path / "published"]
    with pytest.raises(InputError, match="another set"):
        describe.main([str(word) for word in flags])
    assert not (tmp_path / "published").exists()
