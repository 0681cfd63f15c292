"""The page of contrasts: what is shown, and what is said of it."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from workflow_scripts.cohort.stress_prompts import stress_set
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, png_bytes, write_shard
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import Value
from workflow_scripts.faithfulness.contrasts import image_scores
from workflow_scripts.faithfulness.evidence import REGIONS, Readings
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.render.as_markdown import to_markdown
from workflow_scripts.tables.run import Run
from workflow_scripts.tables.stress_page import _decimals, chosen_groups, shown_contrasts

UNTOLD = "Pneumothorax"
"""The judge does not tell it on radiographs."""

TOLD = [
    Value(f"stress_{key}_share", 1.0, "higher", 9, finding)
    for key in ("presence", "side", "severity", "zone", "device")
    for finding in FINDINGS
    if finding != UNTOLD
]

MODELS = [ModelEntry("mine", "external", "Mine", {}), ModelEntry("other", "flux", "Other", {})]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Scores and images of two models: one draws what is asked, one is blind."""
    folder = tmp_path_factory.mktemp("stress")
    stress = stress_set(21)
    n = len(stress)
    scores, shards = {}, {}
    for model in MODELS:
        seen = Readings(
            np.zeros((n, 14)), {name: np.zeros((n, 14)) for name in REGIONS}, np.ones((n, 2))
        )
        if model.key == "mine":
            for k, row in enumerate(stress.itertuples()):
                place = FINDINGS.index(row.finding)
                grade = {"moderate": 0.5, "severe": 0.9, "large": 0.9}.get(row.severity, 0.2)
                seen.probabilities[k, place] = grade if row.mention == "positive" else 0.1
                seen.evidence["left"][k] = {"left": 1, "right": -1}.get(row.side, 0)
                seen.evidence["upper"][k] = {"upper": 1, "lower": -1}.get(row.zone, 0)
                seen.features[k] = row.mention == "positive"
        scores[model.key] = folder / f"{model.key}.parquet"
        table = pa.Table.from_pandas(image_scores(stress, seen, TOLD), preserve_index=False)
        pq.write_table(table, scores[model.key])
        shards[model.key] = [folder / f"{model.key}-images.parquet"]
        items = (
            ImageItem(i, f"{i}.png", png_bytes(Image.new("L", (16, 16), 90)), "caption", None)
            for i in stress["prompt_id"]
        )
        write_shard(items, shards[model.key][0])
    return scores, shards


def test_each_contrast_has_three_groups_with_an_image_of_each_prompt(files):
    shown = shown_contrasts(*files, MODELS)
    assert len(shown) == 7
    for contrast in shown:
        assert len(contrast.groups) == 3
        for group in contrast.groups:
            assert [own.model for own in group] == ["Mine", "Other"]
            for own in group:
                assert len(own.images) == len(contrast.contrast.levels)
                assert all(image.uri.startswith("data:image/jpeg") for image in own.images)


def test_what_came_out_as_asked_is_counted_and_said(files):
    shown = {contrast.contrast.key: contrast for contrast in shown_contrasts(*files, MODELS)}
    for key in ("presence", "side", "severity", "zone", "device"):
        (mine, right, whole), (other, wrong, _) = shown[key].counts
        assert (mine, other) == ("Mine", "Other")
        assert (right, wrong) == (whole, 0), key
        own = stress_set(21).query("contrast == @key").drop_duplicates("group")
        assert whole == (own["finding"] != UNTOLD).sum(), key
    assert {key: shown[key].contrast.chance for key in ("side", "severity", "presence")} == {
        "side": "1 in 2",
        "severity": "1 in 6",
        "presence": "",
    }
    first, second = shown["side"].groups[0][0].images
    assert (first.says, second.says) == ("more on the left", "more on the right")
    assert " left" in first.caption
    assert " right" in second.caption
    assert [i.says for i in shown["severity"].groups[0][0].images][-1].endswith(": 90%")
    assert shown["wording"].groups[0][1].verdict == "Another image"  # the blind one has no scale


@pytest.mark.parametrize(
    ("scores", "digits"),
    [
        ([0.1, 0.5, 0.9], 0),
        ([0.292, 0.288, 0.275], 1),
        ([0.38, 0.38, 0.38], 0),
        ([0.38001, 0.38002], 2),
        ([float("nan"), 0.2], 0),
    ],
)
def test_percentages_read_as_unlike_as_they_are(scores, digits):
    assert _decimals(scores) == digits


def test_what_is_shown_does_not_depend_on_how_it_came_out():
    scores = pd.DataFrame(
        {
            "contrast": ["side"] * 8,
            "group": [0, 0, 1, 1, 2, 2, 3, 3],
            "finding": ["Edema", "Edema", "Pneumonia", "Pneumonia"] + ["Edema"] * 4,
            "told": [False, False, True, True] + [False] * 4,
        }
    )
    for right in (True, False):
        # Told first, one of each finding before a second one of any.
        assert chosen_groups(scores.assign(as_asked=right), "side", 3) == [1, 0, 2]


def test_scores_without_images_are_refused(files):
    scores, shards = files
    with pytest.raises(InputError, match="or an unknown model: other"):
        shown_contrasts(scores, {"mine": shards["mine"]}, MODELS)


def test_no_model_no_page():
    assert shown_contrasts({}, {}, MODELS) == []


def test_without_a_model_that_was_asked_the_table_has_a_column_that_says_so():
    missing = {"stress": "a control shows radiographs"}
    control = ModelEntry("noise", "control", "Noise", {}, missing=missing)
    table = one_table("table19_stress", Run(Records("sound"), [control], "World"))
    (row,) = table.rows
    assert {cell.reason for cell in row.cells} == {"not run: the run has no model for this table"}
    text = to_markdown(table)
    assert "| Metric | – |" in text
    assert "the run has no model for this table" in text
