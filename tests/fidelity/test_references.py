"""The real images that generated ones are compared with, if the test set has two populations."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.fidelity.conftest import JOINT, write_h5
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, write_manifest, write_prompts
from workflow_scripts.fidelity.inputs import ScoredModel
from workflow_scripts.fidelity.references import reference_rows
from workflow_scripts.fidelity.score import Settings, score

ASKED, OTHERS, DIMENSIONS = 80, 100, 6
SHIFT = 2.0
"""Numbers of patients with and without captions, and the distance between the populations."""


@pytest.fixture
def populations(tmp_path):
    """Adults with a report for the first of a study's two films, and children without reports."""
    rows = []
    for patient in range(ASKED):
        rows += [(f"a{patient:02d}{film}", f"a{patient:02d}", "s1", film == "x") for film in "xy"]
    rows += [(f"c{patient:02d}", f"c{patient:02d}", "s1", False) for patient in range(OTHERS)]
    frame = pd.DataFrame(rows, columns=["image_id", "patient_id", "study_id", "captioned"])
    asked = frame["captioned"].to_numpy()
    number = frame["patient_id"].str[1:].astype(int)
    captions = ("caption of " + frame["image_id"]).astype(object).where(asked, None)
    frame = frame.assign(
        path=frame["image_id"], view="PA", site=None, split="test", caption=captions,
        caption_source=["made up" if own else None for own in asked], indication=None, report=None,
    )  # fmt: skip
    for finding in FINDINGS:
        frame[finding] = pd.array([0] * len(frame), dtype="Int8")
    frame["Cardiomegaly"] = pd.array((number % 2 == 0).astype(int), dtype="Int8")
    prompts = frame[asked].reset_index(drop=True)
    prompts["prompt_id"] = [f"test-{name}-r00" for name in prompts["image_id"]]
    prompts = prompts.assign(second_wording=False, replicate=0, seed=1)
    rng = np.random.default_rng(0)
    real = rng.standard_normal((len(frame), DIMENSIONS))
    real[frame["patient_id"].str.startswith("c")] += SHIFT
    made = SimpleNamespace(
        frame=frame,
        prompts=prompts,
        real=real,
        own=real[asked],
        folders=(
            *(tmp_path / "manifest.parquet", tmp_path / "test.parquet"),
            *(tmp_path / "features/real/test", tmp_path / "features/model/test"),
        ),
    )
    write_manifest(frame, made.folders[0])
    write_prompts(prompts, made.folders[1])
    write_h5(made.folders[2], "rad_dino", real, list(frame["image_id"]))
    return made


def scored(populations, features, answered=slice(None)):
    """Return the record of a model whose images have these features."""
    ids = list(populations.prompts["prompt_id"])[answered]
    folder = populations.folders[3]
    write_h5(folder, "rad_dino", features[answered], ids)
    for encoder in ("biovil_t_image", "biovil_t_text"):
        write_h5(folder, encoder, np.ones((len(ids), JOINT)), ids)
    model = ScoredModel("model", "sound", *populations.folders)
    return score(model, "rad_dino", Settings(kid_bootstrap=20))


def test_controls_stand_in_their_order_though_half_of_the_test_set_was_not_asked_for(populations):
    """A blur lies between the populations, and won where all test images were the reference."""
    rng = np.random.default_rng(1)
    held_out = rng.standard_normal((ASKED, DIMENSIONS))
    blurred = 0.7 * held_out + SHIFT / 2
    controls = (populations.own, held_out, blurred, 8 * held_out)
    records = [scored(populations, features) for features in controls]
    for subset in ("all", "Cardiomegaly"):
        for metric in ("fid", "kid"):
            values = [record.get(metric, subset).value for record in records]
            copies, sharp, blur, noise = values
            assert copies == pytest.approx(0, abs=1e-6)
            # KID of real images of the same population is about 0, and may be below.
            assert metric == "kid" or copies < sharp
            assert abs(sharp) < 0.2 * blur < 0.2 * noise
            whole = [record.get(f"{metric}_test_set", subset).value for record in records]
            assert whole[2] < min(whole[:2])
    for name in ("precision", "recall", "coverage"):
        assert records[0].get(name).value == 1
    assert records[0].get("recall_test_set").value < 0.75


def test_beside_stand_all_films_of_the_prompts_studies_and_the_whole_test_set(populations):
    record = scored(populations, populations.own)
    counts = [record.get(f"fid{name}").n_reference for name in ("", "_studies", "_test_set")]
    assert counts == [ASKED, 2 * ASKED, 2 * ASKED + OTHERS]
    with_it = [record.get(f"kid{n}", "Cardiomegaly") for n in ("", "_studies", "_test_set")]
    assert [value.n_reference for value in with_it] == [
        *(ASKED // 2, ASKED),
        ASKED + OTHERS // 2,
    ]
    assert record.get("kid_studies").interval is not None
    # What a study's other film adds is of the same population.
    assert record.get("fid_studies").value < 0.1 * record.get("fid_test_set").value


def test_a_prompt_without_an_image_asks_for_no_radiograph(populations):
    record = scored(populations, populations.own, slice(0, 50))
    assert record.get("fid").value == pytest.approx(0, abs=1e-6)
    counts = [record.get(f"fid{name}").n_reference for name in ("", "_studies", "_test_set")]
    assert counts == [50, 100, 2 * ASKED + OTHERS]


def test_floors_are_of_the_reference_and_not_of_the_other_population(populations):
    record = scored(populations, populations.own)
    for metric in ("fid_floor", "fid_floor_matched"):
        assert 0 < record.get(metric).value < 0.1 * record.get("fid_test_set").value
        assert record.get(metric).n_reference == ASKED
    assert record.get("prompts_without_partner").value == 0
    assert record.details["floors"]["fid_floor"]["Cardiomegaly"]["drawn_from"] == "finding"


def test_each_radiograph_counts_once_and_studies_go_by_patient():
    real = pd.DataFrame(
        [("b", "p2", "1"), ("a", "p1", "1"), ("d", "p1", "2"), ("c", "p1", "1")],
        columns=["image_id", "patient_id", "study_id"],
    )
    prompts = pd.DataFrame({"image_id": ["a", "a", "d"]})
    rows, others = reference_rows(real, prompts, "here")
    assert list(rows) == [1, 2]
    assert list(others["studies"]) == [1, 2, 3]  # "b" is another patient's study of that name
    assert list(others["test_set"]) == [0, 1, 2, 3]
    with pytest.raises(InputError, match="first 'nobody'"):
        reference_rows(real, pd.DataFrame({"image_id": ["nobody"]}), "here")
