"""Reports of images against prompts: values by hand, chance and ceiling, and the real scripts."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, recall_score

from tests.downstream.cohort import words_of, write_cohort, write_row
from tests.faithfulness.rendered import SIZE, radiographs
from tests.workflow.checkouts import make_checkout, with_world
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, png_bytes, write_shard
from workflow_scripts.common.manifest import FINDINGS, write_prompts
from workflow_scripts.common.records import Record, read_record
from workflow_scripts.downstream.outcomes import write_outcomes
from workflow_scripts.downstream.report_generation.metrics.chexbert_classes import (
    NEGATIVE,
    POSITIVE,
    UNCERTAIN,
)
from workflow_scripts.faithfulness import score_round_trip, write_reports
from workflow_scripts.faithfulness.round_trip import METRICS, round_trip_values
from workflow_scripts.world import external_model

EDEMA = FINDINGS.index("Edema")


def drawn_cohort(seed: int = 0, patients: int = 150, films: int = 2):
    """Return labels (n, 14), patients, and what reports that err in a fifth of findings name."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((patients * films, 14)) < 0.4).astype(float)
    said = (labels == 1) ^ (rng.random(labels.shape) < 0.2)
    return labels, np.repeat([f"p{k}" for k in range(patients)], films), said, rng


def found_in(values):
    return {(value.metric, value.subset): value for value in values}


def test_values_are_those_of_scikit_learn():
    labels, patients, said, rng = drawn_cohort()
    worse = said ^ (rng.random(said.shape) < 0.2)
    found = found_in(round_trip_values(labels, patients, worse, said, 50, 1))
    for k, name in enumerate(FINDINGS):
        for ending, reports in (("", worse), ("_ceiling", said)):
            truth, named = labels[:, k], reports[:, k].astype(float)
            expected = {
                "balanced": balanced_accuracy_score(truth, named),
                "sensitivity": recall_score(truth, named),
                "specificity": recall_score(1 - truth, 1 - named),
            }
            for part, value in expected.items():
                assert found[f"round_trip_{part}{ending}", name].value == pytest.approx(value)
        score, ceiling = (found[f"round_trip_balanced{x}", name].value for x in ("", "_ceiling"))
        share = (score - 0.5) / (ceiling - 0.5)
        assert found["round_trip_share", name].value == pytest.approx(share)
    mean = np.mean([found["round_trip_balanced", name].value for name in FINDINGS])
    assert found["round_trip_balanced", "all"].value == pytest.approx(mean)


def test_the_same_reports_are_at_the_ceiling_and_those_of_other_images_at_chance():
    labels, patients, said, rng = drawn_cohort()
    same = found_in(round_trip_values(labels, patients, said, said, 100, 1))
    assert same["round_trip_share", "all"].value == 1
    shuffled = said[rng.permutation(len(said))]
    other = found_in(round_trip_values(labels, patients, shuffled, said, 100, 1))
    low, high = other["round_trip_share", "all"].interval
    assert -0.2 < low < 0 < high < 0.2
    # One report whatever the image shows, with every finding in it, has told nothing either.
    for constant in (np.ones_like(said), np.zeros_like(said)):
        told = found_in(round_trip_values(labels, patients, constant, said, 100, 1))
        assert told["round_trip_share", "all"].value == 0


def test_half_of_the_images_as_asked_are_half_of_the_share():
    labels, patients, said, rng = drawn_cohort(patients=2000)
    chance = rng.random(said.shape) < said.mean(axis=0)
    half = np.where(np.arange(len(said))[:, None] % 2 == 0, said, chance)
    found = found_in(round_trip_values(labels, patients, half, said, 50, 1))
    assert found["round_trip_share", "all"].value == pytest.approx(0.5, abs=0.02)


def test_a_finding_that_reports_do_not_tell_on_radiographs_is_not_asked_about():
    labels, patients, said, _ = drawn_cohort()
    blind = said.copy()
    blind[:, EDEMA] = False
    labels[:, 0] = 0
    labels[:6, 0] = 1  # of three patients
    found = found_in(round_trip_values(labels, patients, said, blind, 50, 1))
    why = found["round_trip_balanced", "Edema"].reason
    assert "cannot tell it on radiographs" in why
    assert "3 test patient(s)" in found["round_trip_share", FINDINGS[0]].reason
    asked = [name for name in FINDINGS if found["round_trip_share", name].value is not None]
    assert asked == [name for k, name in enumerate(FINDINGS) if k not in (0, EDEMA)]
    nothing = found_in(round_trip_values(labels, patients, said, ~labels.astype(bool), 50, 1))
    assert {nothing[metric, "all"].value for metric in METRICS} == {None}
    assert "no finding" in nothing["round_trip_share", "all"].reason


def test_more_films_of_the_same_patients_tell_nothing_new():
    labels, patients, said, rng = drawn_cohort(films=1)
    worse = said ^ (rng.random(said.shape) < 0.2)
    once = found_in(round_trip_values(labels, patients, worse, said, 100, 1))
    rows = np.repeat(np.arange(len(labels)), 6)
    six = found_in(round_trip_values(labels[rows], patients[rows], worse[rows], said[rows], 100, 1))
    for key, value in once.items():
        assert six[key].value == pytest.approx(value.value)
        assert six[key].interval == pytest.approx(value.interval)


@dataclasses.dataclass
class Scored:
    """Reports of four radiographs of as many patients, and of images of their prompts."""

    folder: object

    def write(self, name, classes, ids, settings="same"):
        images = [f"i{k}" for k in range(len(ids))]
        patients = [f"p{k}" for k in range(len(ids))]
        columns = {"id": ids, "image_id": images, "patient_id": patients}
        columns |= {"report": ["A report."] * len(ids), "classes": list(classes)}
        run = {"settings": {"weights": settings}, "provenance": {"device": "cpu"}}
        write_outcomes(self.folder / f"{name}.parquet", columns, run)

    def score(self, name="tiny") -> Record:
        flags = {
            "model": name,
            "protocol": "sound",
            "prompts": self.folder / "test.parquet",
            "radiographs": self.folder / "real.parquet",
            "reports": self.folder / f"{name}.parquet",
            "bootstrap": 20,
            "seed": 1,
            "output": self.folder / f"{name}.json",
        }
        score_round_trip.main(words_of(flags))
        return read_record(self.folder / f"{name}.json")


@pytest.fixture
def scored(tmp_path):
    n = 40
    prompts = pd.DataFrame({"prompt_id": [f"test-{k}" for k in range(n)]})
    prompts["image_id"] = [f"i{k}" for k in range(n)]
    prompts["caption"], prompts["caption_source"] = "A caption.", "llava_rad"
    prompts["second_wording"], prompts["replicate"], prompts["seed"] = False, 0, range(n)
    for name in FINDINGS:
        prompts[name] = pd.array([pd.NA] * n, dtype="Int8")
    prompts["Edema"] = pd.array([1, -1, 0, 1] * (n // 4), dtype="Int8")
    write_prompts(prompts, tmp_path / "test.parquet")
    scored = Scored(tmp_path)
    scored.write("real", edema([POSITIVE, UNCERTAIN, NEGATIVE, POSITIVE] * 10), image_ids(n))
    return scored


def edema(of_each):
    classes = np.zeros((len(of_each), 14), np.int8)
    classes[:, EDEMA] = of_each
    return classes


def image_ids(n):
    return [f"i{k}" for k in range(n)]


def test_uncertain_counts_as_absent_on_both_sides_and_rows_are_found_by_prompt(scored):
    # In another order than the radiographs': half of the positives are missed.
    order = np.random.default_rng(0).permutation(40)
    said = edema([POSITIVE, UNCERTAIN, UNCERTAIN, UNCERTAIN] * 10)[order]
    ids = [f"test-{k}" for k in order]
    columns = {"id": ids, "image_id": [f"i{k}" for k in order]}
    columns["patient_id"] = [f"p{k}" for k in order]
    columns |= {"report": ["A report."] * 40, "classes": list(said)}
    run = {"settings": {"weights": "same"}, "provenance": {"device": "cpu"}}
    write_outcomes(scored.folder / "tiny.parquet", columns, run)
    record = scored.score()
    assert (record.stage, record.family) == ("faithfulness", "round_trip")
    assert record.get("round_trip_sensitivity", "Edema").value == 0.5
    assert record.get("round_trip_specificity", "Edema").value == 1
    assert record.get("round_trip_balanced_ceiling", "Edema").value == 1
    assert record.get("round_trip_share", "Edema").value == 0.5
    assert record.details["distinct_share"] == 1 / 40


def test_other_networks_other_prompts_and_other_files_are_refused(scored):
    every = edema([POSITIVE] * 40)
    scored.write("tiny", every, [f"test-{k}" for k in range(40)], settings="other")
    with pytest.raises(InputError, match="different networks or settings"):
        scored.score()
    scored.write("tiny", every, [f"others-{k}" for k in range(40)])
    with pytest.raises(InputError, match="images of other prompts"):
        scored.score()
    scored.write("tiny", every, [f"test-{k}" for k in range(40)])
    scored.write("real", every[:30], image_ids(30))
    with pytest.raises(InputError, match="10 prompts' radiographs were not seen"):
        scored.score()
    columns = {"id": ["a"], "image_id": ["a"], "patient_id": ["a"]}
    write_outcomes(scored.folder / "tiny.parquet", columns, {})
    with pytest.raises(InputError, match="not a file of reports"):
        scored.score()


@dataclasses.dataclass
class Told:
    """Drawn patients, of whom the world's LLaVA-Rad and CheXbert have never heard."""

    folder: object
    weights: object
    captions: list[str]

    def report(self, name, images=None, **changes):
        """Report on images by prompt, or on the radiographs; return the file."""
        shard = self.folder / f"{name}_shard.parquet"
        if images is not None:
            write_shard(
                (
                    ImageItem(f"test-{k}", f"{k}.png", png_bytes(image), self.captions[k], None)
                    for k, image in enumerate(images)
                ),
                shard,
            )
        flags = {
            "collection": name,
            "protocol": "sound",
            "manifest": self.folder / "manifest.parquet",
            "prompts": self.folder / "test.parquet",
            "shards": None if images is None else shard,
            "start": self.weights / "llava-rad",
            "max_length": 256,
            "max_new_tokens": 64,
            "mixed_precision": "no",
            "generate_batch_size": 60,
            "chexbert": self.weights / "chexbert/chexbert.pth",
            "bert": self.weights / "chexbert/bert",
            "progress": self.folder / f"progress_{name}",
            "output": self.folder / f"{name}.parquet",
        } | changes
        write_reports.main(words_of(flags))
        return self.folder / f"{name}.parquet"

    def drawn(self, captions):
        """Draw what captions say, each of a new patient."""
        return [
            Image.fromarray(external_model.draw(f"test-{k}", caption, k, 5, SIZE).image)
            for k, caption in enumerate(captions)
        ]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("told")
    weights = with_world(make_checkout(folder / "checkout")) / "results/world/weights"
    pixels, labels, captions = radiographs(180, 50_000)
    rows = [
        write_row(
            folder,
            k,
            Image.fromarray(pixels[k]),
            dict(zip(FINDINGS, labels[k].astype(int).tolist(), strict=True)),
            patient_id=f"p{k}",
            split="test",
            caption=captions[k],
        )
        for k in range(len(captions))
    ]
    manifest, _ = write_cohort(folder, rows)
    prompts = manifest[["image_id", "caption", *FINDINGS]].assign(
        caption_source="llava_rad", second_wording=False, replicate=0, seed=range(len(rows))
    )
    prompts.insert(0, "prompt_id", [f"test-{k}" for k in range(len(rows))])
    write_prompts(prompts, folder / "test.parquet")
    told = Told(folder, weights, captions)
    told.report("real")
    return told


@pytest.mark.full
def test_a_faithful_renderer_is_near_the_ceiling_and_others_at_chance(told):
    scored = Scored(told.folder)
    told.report("faithful", told.drawn(told.captions))
    share = scored.score("faithful").get("round_trip_share")
    assert share.interval[0] > 0.5
    assert share.interval[1] > 0.9
    told.report("deaf", told.drawn(np.random.default_rng(0).permutation(told.captions).tolist()))
    deaf = scored.score("deaf").get("round_trip_share")
    assert deaf.interval[0] < 0 < deaf.interval[1] < 0.5
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (len(told.captions), SIZE, SIZE), np.uint8)
    told.report("noise", [Image.fromarray(pixels) for pixels in noise])
    assert abs(scored.score("noise").get("round_trip_share").value) < 0.1
