"""Leaks that the workflow does not know of, in the world: its bound covers those that are left.

Beside the images of an honest model lie leaks of the planted kinds, made here from other draws of
training radiographs, three of each patient. To the workflow they are images of the pool.
"""

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.workflow.checkouts import run
from workflow_scripts.common.images import ImageItem, png_bytes, read_shards, write_shard
from workflow_scripts.common.manifest import read_manifest, read_prompts, write_prompts
from workflow_scripts.curate.bounds import LEVEL
from workflow_scripts.curate.decision import decision_of
from workflow_scripts.curate.draw import drawn
from workflow_scripts.curate.kinds import EVERY_KIND, KINDS, OVERFITTED
from workflow_scripts.curate.leaks import leak
from workflow_scripts.curate.lenses import LENS_SCHEMA
from workflow_scripts.curate.plant import square_gray
from workflow_scripts.curate.pool_filter import filter_pool
from workflow_scripts.curate.settings import CurateSettings
from workflow_scripts.privacy.private_table import read_private_table, write_private_table

pytestmark = [pytest.mark.workflow, pytest.mark.full]

PATIENTS, EACH = 32, 3
"""Patients that are leaked, and images of each."""

PLANTED = 36
"""Planted leaks of each kind. In a draw each is caught as often as those that were looked at."""

LEAKED, IMAGES, DRAWS = 16, 150, 400
"""Patients that a draw's pool leaks; images of a set, which the honest ones alone do not fill."""

ENCODERS = {
    "rad_dino": "results/world/weights/rad-dino",
    "reid": "results/world/weights/reid/ResNet-50_epoch11_data_handling_RPN.pth",
}
JUDGE = "results/downstream/classification/real_only/real/network-0.safetensors"
CXAS = "results/world/weights/cxas/UNet_ResNet50_default.pth"

POLICY = CurateSettings(
    pool="privacy", images=IMAGES, quotas={}, access="release", published_prompts="withheld",
    privacy_false_alarms=0.02, quality_false_alarms=0.05, planted=PLANTED, held_out=150,
    references=2000, most_flagged=0.5, most_remaining=0.5, least_sensitivity=0.5,
    most_false_rejections=0.2,
)  # fmt: skip


def further_leaks(demo, shards):
    """Yield the images, of every kind in turn."""
    manifest = read_manifest(demo / "results/cohort/manifest.parquet")
    training = manifest[(manifest["split"] == "train") & manifest["caption"].notna()]
    films = training.drop_duplicates("patient_id").sample(PATIENTS, random_state=5)
    size = min(next(read_shards(shards)).open().size)
    shown = [square_gray(str(demo / path), size) for path in films["path"]]
    rng = np.random.default_rng(5)
    for k in range(PATIENTS * EACH):
        own, other = shown[k // EACH], shown[(k // EACH + 1) % PATIENTS]
        yield leak(kind_of(k), own, other, rng=rng)


def kind_of(k):
    """The kind of the k-th further leak."""
    return list(KINDS)[k % len(KINDS)]


@pytest.fixture(scope="module")
def looked_at(demo, tmp_path_factory):
    """What lenses and judges see in a pool with further leaks, and the leaks' prompt ids."""
    folder = tmp_path_factory.mktemp("further")
    honest = sorted((demo / "results/generate/my_model/privacy").glob("part-*.parquet"))
    prompts = read_prompts(demo / "results/cohort/prompts/privacy.parquet")
    items, names = list(read_shards(honest)), []
    for k, image in enumerate(further_leaks(demo, honest)):
        names.append(f"privacy-{k:016x}-r00")
        items.append(ImageItem(names[-1], f"{names[-1]}.png", png_bytes(image), ""))
    shard = folder / "part-00000-of-00001.parquet"
    write_shard(items, shard)
    more = prompts.sample(len(names), random_state=0, replace=True).assign(prompt_id=names)
    write_prompts(pd.concat([prompts, more], ignore_index=True), folder / "prompts.parquet")

    def script(name, **flags):
        words = [
            str(word)
            for key, value in flags.items()
            for item in (value if isinstance(value, list) else [value])
            for word in (f"--{key.replace('_', '-')}", item)
        ]
        run(["python", "-m", f"workflow_scripts.{name}", *words], demo)

    manifest = demo / "results/cohort/manifest.parquet"
    common = {"model": "my_model", "protocol": "sound"}
    script("curate.plant", model="my_model", manifest=manifest, shards=shard, planted=PLANTED,
           held_out=POLICY.held_out, seed=42, candidates=folder / "candidates.parquet")  # fmt: skip
    script("features.extract", collection="my_model", shards=folder / "candidates.parquet",
           purpose="privacy", encoder=[f"{name}={path}" for name, path in ENCODERS.items()],
           out=folder / "features", progress=folder / ".features")  # fmt: skip
    script("curate.lenses", **common, manifest=manifest, candidates=folder / "candidates.parquet",
           features=folder / "features", real=demo / "results/features/real/train",
           progress=folder / ".lenses", output=folder / "lenses.parquet")  # fmt: skip
    script("curate.look", **common, shards=shard, cxas=CXAS, cxas_size=192, batch_size=32,
           classifier=JUDGE, progress=folder / ".look", output=folder / "seen.parquet")  # fmt: skip
    return folder, set(names)


def seen_by(demo, folder, lenses, policy=POLICY):
    """What the filter says where only these lenses look; the others never alarm."""
    rows = read_private_table(folder / "lenses.parquet", LENS_SCHEMA)
    for lens in {"latent", "reid", "pixel", "mixture"} - set(lenses):
        rows[lens] = 0.0
    name = f"lenses-{'-'.join(lenses)}.parquet"
    write_private_table(rows, LENS_SCHEMA, folder / name)
    args = Namespace(
        lenses=folder / name, features=folder / "features",
        real=demo / "results/features/real/train", seen=folder / "seen.parquet",
        radiographs=demo / "results/faithfulness/seen/real.parquet",
        manifest=demo / "results/cohort/manifest.parquet", prompts=folder / "prompts.parquet",
    )  # fmt: skip
    return filter_pool(args, policy)


def test_a_lens_has_a_limit_of_its_own_where_the_policy_sets_one(demo, looked_at):
    folder, _ = looked_at
    lenses = ("latent", "reid", "pixel", "mixture")
    usual = seen_by(demo, folder, lenses).limits
    strict = seen_by(demo, folder, lenses, replace(POLICY, lens_false_alarms={"pixel": 0.2})).limits
    assert strict["pixel"] < usual["pixel"]
    assert {k: v for k, v in strict.items() if k != "pixel"} == {
        k: v for k, v in usual.items() if k != "pixel"
    }


def one_draw(found, further, kinds, rng):
    """Return how many further leaks a set holds, what the workflow says at most, and its size.

    Drawn are the patients whose leaks the pool has, the planted leaks that are caught, and the set.
    """
    owners = rng.permutation(PATIENTS)[:LEAKED]
    number = {name: int(name.split("-")[1], 16) for name in further}
    leaked = {n for n, k in number.items() if k // EACH in owners and kind_of(k) in kinds}
    ids = found.pool["id"]
    own = (~ids.isin(further) | ids.isin(leaked)).to_numpy()
    pool, labels = found.pool[own].reset_index(drop=True), found.labels[own]
    planted = {
        kind: (int(rng.binomial(PLANTED, found.planted[kind][0] / PLANTED)), PLANTED)
        for kind in kinds
    }
    planted |= {kind: (0, 0) for kind in EVERY_KIND if kind not in planted}
    seen = replace(found, pool=pool, labels=labels, planted=planted)
    passed = seen.passed
    drew = (pool["id"].iloc[passed].tolist(), labels[passed], POLICY.quotas, POLICY.images)
    rows, missing = drawn(*drew, int(rng.integers(2**31)))
    kept = passed[rows]
    args = Namespace(model="my_model", cohort="Embedded world", source="mimic_cxr_jpg", records=[],
                     family="external", base=None)  # fmt: skip
    decision = decision_of(args, POLICY, seen, kept, missing)
    left = int(pool["id"].iloc[kept].isin(leaked).sum())
    return left, decision["remaining_leaks_upper"], decision["kept"]


@pytest.mark.parametrize(
    ("lenses", "kinds"),
    [
        (("latent", "reid", "pixel", "mixture"), tuple(KINDS)),
        # The encoders alone miss what is turned a little.
        (("latent", "reid"), ("copy", "flip", "rotation", "jpeg")),
    ],
)
def test_the_bound_covers_leaks_that_the_workflow_does_not_know_of(demo, looked_at, lenses, kinds):
    folder, further = looked_at
    found = seen_by(demo, folder, lenses)
    assert further < set(found.pool["id"])
    assert {found.planted[kind][1] for kind in KINDS} == {PLANTED}
    assert found.planted[OVERFITTED] == (0, 0)
    rng = np.random.default_rng(6)
    draws = np.array([one_draw(found, further, kinds, rng) for _ in range(DRAWS)])
    left, most, kept = draws.T
    assert (left <= most).mean() >= 1 - LEVEL
    if len(lenses) == 4:
        assert np.median(most) < 0.9 * np.median(kept), "a bound that says nothing"
    else:
        assert left.mean() > 1
