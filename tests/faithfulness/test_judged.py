"""A judge trained on radiographs sees what generated images show: the scripts on a small cohort."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.downstream.cohort import DRAWN, blob_image
from tests.downstream.conftest import SIZE, World, make_world
from tests.downstream.segmentation.conftest import random_cxas
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, write_prompts
from workflow_scripts.common.records import Record, read_record
from workflow_scripts.downstream.classification import train
from workflow_scripts.faithfulness import look, score
from workflow_scripts.faithfulness.findings import BINS, expected_calibration_error
from workflow_scripts.faithfulness.seen import read_seen


@dataclass
class Judged:
    """The cohort with a trained judge, a network that draws organs, and test prompts."""

    world: World
    test: pd.DataFrame
    folder: Path

    def look(self, name: str, images: dict | None, **changes: object) -> Path:
        """Look at images by prompt_id, or at the radiographs; return the file."""
        flags: dict[str, object] = {
            "collection": name,
            "protocol": "sound",
            "manifest": self.world.folder / "manifest.parquet",
            "prompts": self.world.folder / "test.parquet",
            "classifier": self.folder / "network.safetensors",
            "cxas": self.folder / "cxas.pth",
            "cxas-size": 32,
            "batch-size": 16,
            "texture-images": 12,
            "output": self.folder / f"seen_{name}.parquet",
        } | changes
        if images is not None:
            flags["shards"] = self.world.shard(name, images)
        look.main([w for k, v in flags.items() for w in (f"--{k}", str(v))])
        return self.folder / f"seen_{name}.parquet"

    def flags(self, name: str) -> list[str]:
        """Return the flags of scoring what was seen."""
        flags = {
            "model": name,
            "protocol": "sound",
            "manifest": self.world.folder / "manifest.parquet",
            "radiographs": self.folder / "seen_real.parquet",
            "prompts": self.world.folder / "test.parquet",
            "seen": self.folder / f"seen_{name}.parquet",
            "judges": "classifier",
            "bootstrap": 200,
            "seed": 1,
            "out": self.folder / "out",
        }
        return [w for k, v in flags.items() for w in (f"--{k}", str(v))]

    def score(self, name: str, images: dict, **changes: object) -> Record:
        """Judge images by prompt_id; return the record of findings."""
        self.look(name, images, **changes)
        score.main(self.flags(name))
        return read_record(self.folder / "out" / "findings" / "classifier" / f"{name}.json")

    def drawn(self, labels: np.ndarray, seed: int = 5) -> dict:
        """Draw an image of each test prompt with these labels of DRAWN, (n, 3)."""
        rng = np.random.default_rng(seed)
        return {
            prompt_id: (blob_image(tuple(int(x) for x in row), rng, SIZE), None)
            for prompt_id, row in zip(self.test["prompt_id"], labels, strict=True)
        }

    @property
    def labels(self) -> np.ndarray:
        """What the prompts ask for, (n, 3)."""
        return self.test[list(DRAWN)].to_numpy(int)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    world = make_world(tmp_path_factory.mktemp("judged"), n_patients=120)
    test = world.manifest[world.manifest["split"] == "test"].reset_index(drop=True)
    prompts = test[["image_id", "caption", *FINDINGS]].assign(
        caption_source="llava_rad", second_wording=False, replicate=0, seed=range(len(test))
    )
    prompts.insert(0, "prompt_id", [f"test-{i:016x}-r00" for i in range(len(test))])
    write_prompts(prompts, world.folder / "test.parquet")
    folder = world.folder / "runs" / "real"
    arguments = world.arguments("real")
    train.main([*arguments, "--network", str(folder / "network.safetensors")])
    torch.save({"model": random_cxas((1, 1, 1, 1), 159).state_dict()}, folder / "cxas.pth")
    judged = Judged(world, prompts, folder)
    judged.look("real", None)
    return judged


def test_copies_reach_the_ceiling_exactly(judged):
    rows = zip(judged.test["prompt_id"], judged.test["image_id"], strict=True)
    images = {prompt: (judged.world.images[image], None) for prompt, image in rows}
    record = judged.score("copies", images)
    for finding in DRAWN:
        assert (
            record.get("judged_auroc", finding).value
            == record.get("judged_auroc_ceiling", finding).value
        )
        assert record.get("judged_share", finding).value == 1.0
        ceiling = record.get("judged_ece_ceiling", finding).value
        assert record.get("judged_ece", finding).value == pytest.approx(ceiling, abs=1e-6)


def test_a_renderer_that_follows_its_prompt_reaches_it_and_one_that_does_not_is_at_chance(judged):
    faithful = judged.score("faithful", judged.drawn(judged.labels))
    share = faithful.get("judged_share")
    assert share.interval[1] > 0.95
    shuffled = np.random.default_rng(0).permutation(judged.labels)
    deaf = judged.score("deaf", judged.drawn(shuffled)).get("judged_share")
    assert deaf.interval[0] < 0 < deaf.interval[1]
    assert deaf.interval[1] < 0.7 < share.interval[0]


def test_a_finding_that_is_never_drawn_is_missed_and_no_other(judged):
    labels = judged.labels.copy()
    labels[:, 1] = 0
    record = judged.score("no_edema", judged.drawn(labels))
    values = {name: record.get("judged_share", name) for name in DRAWN}
    assert values["Edema"].interval[0] < 0.2
    assert values["Edema"].interval[1] < 0.6
    assert min(values["Cardiomegaly"].interval[1], values["Pneumothorax"].interval[1]) > 0.9


def test_the_ceiling_is_the_judges_auroc_on_the_prompts_radiographs(judged):
    from workflow_scripts.downstream.outcomes import read_outcomes

    record = judged.score("again", judged.drawn(judged.labels))
    rows = read_outcomes(judged.folder / "outcomes.parquet").rows.set_index("image_id")
    seen = rows.loc[judged.test["image_id"]]
    for finding in DRAWN:
        expected = roc_auc_score(judged.test[finding].to_numpy(int), seen[finding])
        assert record.get("judged_auroc_ceiling", finding).value == pytest.approx(expected)


def test_findings_that_nobody_has_are_absent_with_the_reason(judged):
    record = judged.score("faithful", judged.drawn(judged.labels))
    for finding in set(FINDINGS) - set(DRAWN):
        value = record.get("judged_share", finding)
        assert value.value is None
        assert "test patient(s) with or without the finding" in value.reason
    mean = np.mean([record.get("judged_auroc", finding).value for finding in DRAWN])
    assert record.get("judged_auroc").value == pytest.approx(mean)


def test_a_judge_that_saw_generated_images_is_refused(judged, tmp_path):
    flags = judged.world.arguments(
        "augmented", setting="augmented", model="copies", epochs=1, shards=judged.world.copies()
    )
    network = tmp_path / "network.safetensors"
    train.main([*flags, "--network", str(network)])
    with pytest.raises(InputError, match="a judge that was trained on augmented images"):
        judged.look("real", None, classifier=network)


def test_a_file_that_is_no_judge_is_refused(judged):
    with pytest.raises(InputError, match="not a classifier that this workflow trained"):
        judged.look("real", None, classifier=judged.world.weights)


def test_what_was_seen_with_other_settings_is_not_compared(judged):
    with pytest.raises(InputError, match="texture_images is 6, of the radiographs 12"):
        judged.score("other", judged.drawn(judged.labels), **{"texture-images": 6})


def test_each_image_is_looked_at_once_and_some_for_their_texture(judged):
    seen = read_seen(judged.look("all", judged.drawn(judged.labels)))
    assert sorted(seen.rows["id"]) == sorted(judged.test["prompt_id"])
    pairs = [pair[:2] for pair in seen.run["pairs"]]
    drawn = {name for pair in pairs for name in pair}
    assert len(drawn) == 2 * len(pairs) == 12
    assert set(seen.rows.index[seen.rows["spectrum"].notna()]) == drawn
    patients = seen.rows["patient_id"]
    assert all(patients[a] != patients[b] for a, b in pairs)


def test_calibration_by_hand():
    labels = np.array([1.0, 0.0, 1.0, 1.0])
    probabilities = np.array([0.95, 0.96, 0.5, 0.02])
    # Three bins: {0.95, 0.96} mean 0.955 against 0.5; 0.5 against 1; 0.02 against 1.
    expected = (2 * 0.455 + 0.5 + 0.98) / 4
    assert BINS == 15
    assert expected_calibration_error(labels, probabilities) == pytest.approx(expected)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.0
