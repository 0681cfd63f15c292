"""What each lens sees: alarms that unrelated images raise for a twentieth of the prompts."""

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import read_record
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.score import LENSES, PAIR_SCHEMA
from workflow_scripts.privacy.score_lenses import lens_values, main, risks


def pairs_of(prompts=100, replicates=3, seed=0, **lenses):
    """Unrelated images, with the given lenses' values instead."""
    rng = np.random.default_rng(seed)
    n = prompts * replicates
    image = np.repeat([f"i{i}" for i in range(prompts)], replicates)
    return pd.DataFrame(
        {
            "prompt_id": [f"{name}-{i}" for i, name in enumerate(image)],
            "image_id": image,
            "replicate": np.tile(np.arange(replicates, dtype=np.int32), prompts),
            "reid": rng.beta(2, 5, n),
            "latent": 1 + rng.random(n),
            "pixel": 60 + 10 * rng.random(n),
            "mirrored": 60 + 10 * rng.random(n),
            **lenses,
        }
    )


def seen(model, unrelated):
    return {v.metric: v for v in lens_values(risks(model), risks(unrelated))}


def test_unrelated_images_raise_the_alarm_for_a_twentieth_of_the_prompts():
    unrelated = pairs_of()
    itself = seen(unrelated, unrelated)
    for lens in LENSES:
        assert itself[f"{lens}_seen"].value == pytest.approx(0.05, abs=0.011)
    draws = [seen(pairs_of(seed=seed), pairs_of(seed=100 + seed)) for seed in range(60)]
    for lens in LENSES:
        shares = [values[f"{lens}_seen"].value for values in draws]
        assert np.mean(shares) == pytest.approx(0.05, abs=0.015)


def test_a_lens_sees_what_is_riskier_and_misses_what_is_not():
    unrelated = pairs_of(100)
    found = seen(pairs_of(40, reid=0.99, pixel=95.0), unrelated)
    assert found["reid_seen"].value == found["any_seen"].value == 1
    assert found["pixel_seen"].value == 0
    assert found["latent_seen"].value < 0.25
    assert (found["reid_seen"].n, found["reid_seen"].n_reference) == (40, 100)
    # All of 40 and none of 40 are not certain.
    assert 0.88 < found["reid_seen"].interval[0] < 1
    assert 0 < found["pixel_seen"].interval[1] < 0.12


def test_one_risky_image_of_a_prompt_is_enough():
    model = pairs_of(30)
    model.loc[model["replicate"] == 1, "latent"] = 0.01
    assert seen(model, pairs_of(100))["latent_seen"].value == 1


def test_a_lens_that_cannot_tell_sees_nothing():
    """All scores equal: nobody is riskier than the unrelated ones."""
    same = pairs_of(50, reid=0.5, latent=1.0, pixel=3.0, mirrored=3.0)
    assert {value.value for value in seen(same, same).values()} == {0}


def test_few_unrelated_prompts_leave_the_reason():
    found = seen(pairs_of(40), pairs_of(19))
    assert {v.reason for v in found.values()} == {
        "19 prompts of unrelated images: at least 20 are needed"
    }


def test_the_record_from_the_command_line(tmp_path):
    paths = [tmp_path / "model.parquet", tmp_path / "held_out.parquet"]
    for path, pairs in zip(paths, (pairs_of(25, latent=0.0), pairs_of(60)), strict=True):
        write_private_table(pairs, PAIR_SCHEMA, path)
    flags = ["--pairs", str(paths[0]), "--unrelated", str(paths[1])]
    output = tmp_path / "lenses.json"
    main(["--model", "m", "--protocol", "sound", *flags, "--output", str(output)])
    record = read_record(output)
    assert (record.stage, record.family) == ("privacy", "lenses")
    assert record.get("latent_seen").value == 1
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    with pytest.raises(InputError, match="cannot read a table of pairs"):
        main(["--model", "m", "--protocol", "sound", *flags, "--output", str(output)])
