"""The page of riskiest pairs: the right images beside each other, for their owner only."""

import base64
import io
import json
import re
import stat

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import read_shards
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.score_closest import PAIR_SCHEMA
from workflow_scripts.tables.riskiest import EXTRACTED, LENSES, main, riskiest

LATENT, REID = LENSES


def pairs_of(prompts, training=8, seed=0):
    """Each image's two closest training images by distance and by score."""
    rng = np.random.default_rng(seed)
    n = 2 * len(prompts)
    by_distance, by_score = (rng.integers(10, 10 + training, n) for _ in range(2))
    return pd.DataFrame(
        {
            "prompt_id": np.repeat(prompts, 2),
            "patient_id": np.repeat([f"p{10 + i % 8}" for i in range(len(prompts))], 2),
            "match": np.tile(np.arange(2, dtype=np.int32), len(prompts)),
            "latent_image_id": [f"i{k}" for k in by_distance],
            "latent_patient_id": [f"p{k}" for k in by_distance],
            "latent": rng.random(n),
            "training_latent": np.tile([0.5, np.nan], len(prompts)),
            "reid_image_id": [f"i{k}" for k in by_score],
            "reid_patient_id": [f"p{k}" for k in by_score],
            "reid": rng.random(n),
        }
    )


def prompts_of(bench):
    return pd.read_parquet(bench.prompts)["prompt_id"].tolist()


def make(bench, **tables):
    flags = ["--models", json.dumps(bench.models), "--dataset", "World", "--most", "4"]
    flags += ["--manifest", str(bench.manifest)]
    for model, table in tables.items():
        path = bench.root / f"{model}_pairs.parquet"
        write_private_table(table, PAIR_SCHEMA, path)
        flags += ["--pairs", f"{model}={path}"]
        flags += ["--images", *[pair for pair in bench.images if pair.startswith(f"{model}=")]]
    page, table = bench.root / "riskiest.html", bench.root / "riskiest.csv"
    main([*flags, "--output", str(page), "--table", str(table)])
    return page.read_text(encoding="utf-8"), pd.read_csv(table)


def test_the_riskiest_come_first_and_a_training_image_once():
    pairs = pairs_of([f"x{i}" for i in range(30)])
    for lens, ascending in ((LATENT, True), (REID, False)):
        found = riskiest(pairs, lens, 5)
        assert found["image_id"].is_unique
        best = pairs.groupby(f"{lens.name}_image_id")[lens.name]
        best = (best.min() if ascending else best.max()).sort_values(ascending=ascending)
        assert found["image_id"].tolist() == best.index[:5].tolist()
        assert found["value"].tolist() == best.tolist()[:5]
    assert (found["own_patient"] == (found["patient_id"] == found["training_patient_id"])).all()


def test_an_extracted_pair_says_in_which_view_it_was_seen():
    pairs = pd.DataFrame(
        {
            "prompt_id": ["a", "b", "c"],
            "patient_id": ["p", "q", "r"],
            "pixel_whole": [0.3, 0.1, 0.2],
            "pixel_whole_image_id": ["x", "y", "z"],
            "pixel_whole_patient_id": ["p", "q", "s"],
            "pixel_whole_view": ["as it lies", "mirrored, left", "mirrored"],
            "pixel_whole_alarm": [True, True, False],
        }
    )
    found = riskiest(pairs, EXTRACTED[0])
    assert found["image_id"].tolist() == ["y", "x"]
    assert found["view"].tolist() == ["mirrored, left", ""]


def test_images_stand_beside_their_training_image(bench):
    page, table = make(bench, sana=pairs_of(prompts_of(bench)))
    shown = re.findall(
        r'<div class="pair">\s*<button[^>]*><img src="(data:image/jpeg;base64,[^"]+)"[^>]*>'
        r'</button>\s*<button[^>]*><img src="(data:image/jpeg;base64,[^"]+)"',
        page,
    )
    assert len(shown) == len(table) == 2 * 4
    images = dict(zip(prompts_of(bench), read_shards(shards_of(bench, "sana")), strict=True))
    files = bench.frame.set_index("image_id")["path"]
    for (left, right), row in zip(shown, table.to_dict("records"), strict=True):
        for uri, expected in (
            (left, images[row["prompt_id"]].open()),
            (right, Image.open(files[row["image_id"]])),
        ):
            jpeg = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
            difference = np.asarray(jpeg.convert("L"), float) - np.asarray(expected.convert("L"))
            assert np.abs(difference).mean() < 4
    assert page.count("the prompt's own patient") == table["own_patient"].sum()


def shards_of(bench, model):
    return [pair.split("=")[1] for pair in bench.images if pair.startswith(f"{model}=")]


def test_models_come_before_controls_and_the_page_loads_nothing_from_elsewhere(bench):
    prompts = prompts_of(bench)
    page, table = make(bench, noise=pairs_of(prompts), sana=pairs_of(prompts, seed=1))
    assert table["model"].drop_duplicates().tolist() == ["sana", "noise"]
    assert page.index('id="sana"') < page.index('id="noise"')
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert "Caption &lt;" in page  # escaped


def test_only_the_owner_may_read_page_and_table(bench):
    make(bench, sana=pairs_of(prompts_of(bench)))
    for name in ("riskiest.html", "riskiest.csv"):
        assert stat.S_IMODE((bench.root / name).stat().st_mode) == 0o600


def test_without_models_the_page_says_so(bench):
    page, table = make(bench)
    assert table.empty
    assert "No model has images" in page


def test_what_does_not_fit_together_is_refused(bench):
    pairs = pairs_of(prompts_of(bench))
    with pytest.raises(InputError, match="unknown model"):
        make(bench, nobody=pairs)
    with pytest.raises(InputError, match="in no shard, first 'x'"):
        make(bench, sana=pairs.assign(prompt_id="x"))
    with pytest.raises(InputError, match="'i99' is not in the manifest"):
        make(bench, sana=pairs.assign(reid_image_id="i99"))
    assert not (bench.root / "riskiest.html").exists()
