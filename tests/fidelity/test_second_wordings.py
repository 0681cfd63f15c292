"""Of two wordings of a report, as_published scores both and sound only the caption."""

import h5py
import numpy as np
import pytest

from tests.feature_files import changed
from tests.fidelity.conftest import write_h5
from tests.fidelity.test_fidelity_score import generated_features, own_radiographs, rescore
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import write_prompts
from workflow_scripts.fidelity.frechet import frechet_distance

SECOND = [1, 4, 9]


@pytest.fixture
def both(cohort):
    """The cohort, with three second wordings among its prompts."""
    cohort.prompt_frame["second_wording"] = np.isin(np.arange(len(cohort.prompt_frame)), SECOND)
    write_prompts(cohort.prompt_frame, cohort.prompts)
    return cohort


def test_sound_scores_captions_alone(both):
    record = rescore(both)
    kept = np.delete(generated_features(both), SECOND, axis=0)
    n = len(both.prompt_frame) - len(SECOND)
    for metric in ("fid", "kid", "precision", "alignment"):
        assert record.get(metric).n == n
    expected = frechet_distance(np.delete(own_radiographs(both), SECOND, axis=0), kept)
    assert record.get("fid").value == pytest.approx(expected, rel=1e-9)
    assert record.details["prompts"] == n


def test_as_published_scores_both(both):
    for path in (*both.real.iterdir(), *both.generated.iterdir()):
        with changed(path) as file:
            file.attrs["protocol"] = "as_published"
    record = rescore(both, "as_published")
    for metric in ("fid", "kid", "precision", "alignment"):
        assert record.get(metric).n == len(both.prompt_frame)


def test_sound_is_what_it_is_without_them(both):
    """Images of second wordings change no value."""
    with_them = rescore(both)
    for name in ("rad_dino", "biovil_t_image", "biovil_t_text"):
        with h5py.File(both.generated / f"{name}.h5") as file:
            features, ids = file["features"][:], file["image_id"].asstr()[:].tolist()
        second = set(both.prompt_frame["prompt_id"].iloc[SECOND])
        keep = [row for row, prompt in enumerate(ids) if prompt not in second]
        write_h5(both.generated, name, features[keep], [ids[row] for row in keep])
    assert rescore(both).values == with_them.values


def test_an_image_of_no_prompt_is_refused(both):
    ids = [*both.prompt_frame["prompt_id"][:-1], "test-nobody-r00"]
    write_h5(both.generated, "rad_dino", generated_features(both), ids)
    with pytest.raises(InputError, match="test-nobody-r00"):
        rescore(both)
