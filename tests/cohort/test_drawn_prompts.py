"""Captions drawn to a prevalence: met exactly or refused, seeded, whatever the manifest's order."""

import numpy as np
import pandas as pd
import pytest

from tests.cohort.test_draw_prompts import manifest_of
from workflow_scripts.cohort.draw_prompts import draw_augment, prompt_seed
from workflow_scripts.cohort.drawn_prompts import draw_to_prevalence, main
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, read_prompts, write_manifest

ASKED = {"Fracture": 0.1, "Edema": 0.25, "Support Devices": 0.2}


@pytest.fixture
def manifest() -> pd.DataFrame:
    """400 training captions: a tenth with a fracture, a third with edema, half with devices."""
    frame = manifest_of({"train": [f"caption {i}" for i in range(400)], "test": ["a", "b"]})
    rng = np.random.default_rng(0)
    for name, share in (("Fracture", 0.1), ("Edema", 0.33), ("Support Devices", 0.5)):
        frame[name] = pd.array((rng.random(len(frame)) < share).astype(int), "Int8")
    frame.loc[5, "Edema"] = -1
    return frame


def test_what_is_asked_for_is_met_exactly(manifest):
    drawn = draw_to_prevalence(manifest, 120, ASKED, 42)
    assert len(drawn) == drawn["caption"].nunique() == 120
    assert {n: int((drawn[n] == 1).sum()) for n in ASKED} == {
        "Fracture": 12,
        "Edema": 30,
        "Support Devices": 24,
    }
    assert set(drawn["image_id"].str.split("-").str[0]) == {"train"}
    of = manifest.set_index("image_id").loc[drawn["image_id"]]
    assert of["caption"].tolist() == drawn["caption"].tolist()
    findings = of[list(FINDINGS)].reset_index(drop=True)
    pd.testing.assert_frame_equal(drawn[list(FINDINGS)], findings)


def test_none_can_be_asked_for(manifest):
    drawn = draw_to_prevalence(manifest, 100, {"Support Devices": 0.0}, 1)
    assert (drawn["Support Devices"] == 1).sum() == 0


def test_without_a_prevalence_findings_come_as_they_come(manifest):
    drawn = draw_to_prevalence(manifest, 400, {}, 1)
    assert sorted(drawn["caption"]) == sorted(f"caption {i}" for i in range(400))


def test_the_draw_is_seeded_and_the_same_in_every_order_of_the_manifest(manifest):
    first = draw_to_prevalence(manifest, 120, ASKED, 42)
    shuffled = manifest.sample(frac=1, random_state=3).reset_index(drop=True)
    pd.testing.assert_frame_equal(first, draw_to_prevalence(shuffled, 120, ASKED, 42))
    other = draw_to_prevalence(manifest, 120, ASKED, 43)
    assert set(other["caption"]) != set(first["caption"])


def test_images_are_new_and_an_image_does_not_change_with_the_set(manifest):
    few, more = (draw_to_prevalence(manifest, n, ASKED, 42) for n in (60, 120))
    augment = draw_augment(manifest, 400, 42)
    assert not set(few["prompt_id"]) & set(augment["prompt_id"])
    assert not set(few["seed"]) & set(augment["seed"])
    seeds = [more.set_index("caption")["seed"], few.set_index("caption")["seed"]]
    both = sorted(set(few["caption"]) & set(more["caption"]))
    assert both
    assert seeds[0][both].tolist() == seeds[1][both].tolist()
    assert few["seed"][0] == prompt_seed("drawn", few["caption"][0])


def test_what_is_missing_is_said(manifest):
    with pytest.raises(InputError, match=r"are missing: \d+ with Fracture \(") as error:
        draw_to_prevalence(manifest, 200, {"Fracture": 0.5}, 42)
    assert error.value.where == "prompt_sets.drawn"
    with pytest.raises(InputError, match="are missing: 100 in all"):
        draw_to_prevalence(manifest, 500, {}, 42)
    # Almost no caption is without devices: the others would have to be.
    manifest["Support Devices"] = pd.array([1] * len(manifest), "Int8")
    with pytest.raises(InputError, match="are missing: 90 in all"):
        draw_to_prevalence(manifest, 100, {"Support Devices": 0.1}, 42)


def test_the_script_writes_prompts_and_their_export(manifest, tmp_path):
    write_manifest(manifest, tmp_path / "manifest.parquet")
    flags = ["--manifest", tmp_path / "manifest.parquet", "--captions", 60]
    flags += ["--prevalence", "Support Devices=0.5", "--prevalence", "Edema=0.1", "--draw-seed", 7]
    flags += ["--out", tmp_path / "drawn.parquet", "--csv", tmp_path / "drawn.csv"]
    main([str(word) for word in flags])
    drawn = read_prompts(tmp_path / "drawn.parquet")
    expected = draw_to_prevalence(manifest, 60, {"Support Devices": 0.5, "Edema": 0.1}, 7)
    assert drawn["prompt_id"].tolist() == expected["prompt_id"].tolist()
    assert pd.read_csv(tmp_path / "drawn.csv")["prompt_id"].tolist() == drawn["prompt_id"].tolist()


def test_a_share_that_is_none_is_refused(capsys):
    for word in ("Edema=1.5", "Oedema=0.1", "Edema"):
        with pytest.raises(SystemExit):
            main(["--prevalence", word])
    assert "--prevalence" in capsys.readouterr().err
