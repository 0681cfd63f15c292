"""A model overfitted on ten patients reveals these patients and no others.

The scripts of the workflow run on the demo's world. The model is trained on one radiograph of each
of ten patients and prompted for these and for twenty training patients that it never saw. Its
images are compared with all training patients.
"""

import json
from functools import partial

import pandas as pd
import pytest
from scipy import stats

from tests.workflow.checkouts import run
from workflow_scripts.common.images import read_shards, write_shard
from workflow_scripts.common.manifest import FINDINGS, read_manifest, write_manifest, write_prompts
from workflow_scripts.common.records import read_record

pytestmark = [pytest.mark.workflow, pytest.mark.full]

SEEN, UNSEEN, SEEDS = 10, 20, (639, 25, 275)
CHANCE = 0.001
"""How often at most a model that copied nobody would look as if it had."""

BASE = "results/world/weights/tiny-sd-v1"
ENCODERS = {
    "rad_dino": "results/world/weights/rad-dino",
    "reid": "results/world/weights/reid/ResNet-50_epoch11_data_handling_RPN.pth",
}


def _script(demo, name, **flags):
    words = [
        word
        for key, value in flags.items()
        for item in (value if isinstance(value, list) else [value])
        for word in (f"--{key.replace('_', '-')}", item)
    ]
    run(["python", "-m", f"workflow_scripts.{name}", *words], demo)


@pytest.fixture(scope="module")
def overfitted(demo, tmp_path_factory):
    """Pairs and closest training images of the model's images, and the patients of its training."""
    out = tmp_path_factory.mktemp("overfitted")
    script = partial(_script, demo)
    manifest = read_manifest(demo / "results/cohort/manifest.parquet")
    captioned = manifest[(manifest["split"] == "train") & manifest["caption"].notna()]
    captioned = captioned.drop_duplicates("caption", keep=False).drop_duplicates("patient_id")
    asked = captioned.sample(SEEN + UNSEEN, random_state=1)
    seen = set(asked["image_id"][:SEEN])
    trained_on = manifest[(manifest["split"] != "train") | manifest["image_id"].isin(seen)]
    write_manifest(trained_on, out / "manifest.parquet")
    taken = ["image_id", "caption", "caption_source", *FINDINGS]
    prompts = asked.loc[asked.index.repeat(len(SEEDS)), taken].assign(
        second_wording=False,
        replicate=[*range(len(SEEDS))] * len(asked),
        seed=[*SEEDS] * len(asked),
    )
    named = zip(prompts["image_id"], prompts["replicate"], strict=True)
    prompts["prompt_id"] = [f"privacy-{image}-r{replicate:02d}" for image, replicate in named]
    write_prompts(prompts, out / "prompts.parquet")

    script(
        "finetune.train",
        model="overfitted",
        family="stable_diffusion",
        base=BASE,
        method="full",
        manifest=out / "manifest.parquet",
        output=out / "model",
        progress=out / ".progress",
        cache=out / ".encoded",
        epochs=900,
        size=64,
        batch_size=SEEN,
        per_device_batch_size=SEEN,
        learning_rate=1e-3,
        ema_decay=0.98,
        caption_dropout=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        warmup_steps=20,
        mixed_precision="no",
        checkpoint_every=10_000,
        seed=42,
        gpus=0,
        threads=1,
    )
    shard = out / "part-00000-of-00001.parquet"
    script(
        "generate.sample",
        model="overfitted",
        family="stable_diffusion",
        base=out / "model" / "checkpoint",
        prompts=out / "prompts.parquet",
        shard=0,
        shards=1,
        output=shard,
        steps=20,
        guidance=1.0,
        size=64,
        batch_size=16,
        progress=out / ".sampling",
        gpus=0,
        threads=1,
    )
    script(
        "features.extract",
        collection="overfitted",
        shards=shard,
        purpose="privacy",
        encoder=[f"{name}={path}" for name, path in ENCODERS.items()],
        out=out / "features",
        progress=out / ".features",
    )
    compared = {
        "model": "overfitted",
        "protocol": "sound",
        "manifest": demo / "results/cohort/manifest.parquet",
        "prompts": out / "prompts.parquet",
        "generated": out / "features",
        "real": demo / "results/features/real/train",
    }
    script(
        "privacy.score",
        **compared,
        shards=shard,
        output=out / "pairs.json",
        pairs=out / "pairs.parquet",
        others=out / "others.parquet",
    )
    script(
        "privacy.score_closest",
        **compared,
        output=out / "closest.json",
        pairs=out / "closest.parquet",
    )
    script(
        "privacy.score_lenses",
        model="overfitted",
        protocol="sound",
        manifest=demo / "results/cohort/manifest.parquet",
        pairs=out / "pairs.parquet",
        others=out / "others.parquet",
        record=out / "pairs.json",
        output=out / "lenses.json",
    )
    script(
        "privacy.extraction.score",
        protocol="sound",
        manifest=demo / "results/cohort/manifest.parquet",
        prompts=f"overfitted={out / 'prompts.parquet'}",
        images=f"overfitted={shard}",
        rad_dino=ENCODERS["rad_dino"],
        seen=out / ".seen",
        out=out / "extraction",
    )
    # Membership: the ten in the train split, and twenty patients whom it never saw outside of it.
    outside = asked["image_id"].isin(asked["image_id"][SEEN:]).to_numpy()
    outside = set(asked["patient_id"][outside])
    split = manifest["split"].mask(manifest["patient_id"].isin(outside), "test")
    attacked = manifest.assign(split=split)[manifest["image_id"].isin(asked["image_id"])]
    write_manifest(attacked.reset_index(drop=True), out / "attacked.parquet")
    for name, checkpoint in {"overfitted": out / "model/checkpoint", "base": demo / BASE}.items():
        script(
            "privacy.membership.score",
            model=name,
            protocol="sound",
            family="stable_diffusion",
            base=BASE,
            checkpoint=checkpoint,
            method="full",
            size=64,
            manifest=out / "attacked.parquet",
            noise_levels=5,
            progress=out / ".membership",
            scores=out / f"membership_{name}.parquet",
            output=out / f"membership_{name}.json",
        )
    return out, seen


@pytest.mark.parametrize(("lens", "riskier"), [("reid", "max"), ("pixel", "min")])
def test_the_prompts_of_its_patients_rank_top(overfitted, lens, riskier):
    out, seen = overfitted
    risk = pd.read_parquet(out / "pairs.parquet").groupby("image_id")[lens].agg(riskier)
    risk = risk if riskier == "max" else -risk
    own, other = risk[risk.index.isin(seen)], risk[~risk.index.isin(seen)]
    ranks = stats.mannwhitneyu(own, other, alternative="greater", method="exact")
    assert ranks.pvalue < CHANCE
    if lens == "pixel":  # the world's re-identification network takes some blurred images for one
        assert own.min() > other.max()


def test_its_patients_are_named_and_those_it_never_saw_are_not(demo, overfitted):
    out, seen = overfitted
    pairs = pd.read_parquet(out / "closest.parquet")
    pairs = pairs[pairs["match"] == 0]
    pairs["image_id"] = pairs["prompt_id"].str[len("privacy-") : -len("-r00")]
    pairs["named"] = pairs["reid_patient_id"] == pairs["patient_id"]
    named = pairs.groupby("image_id")["named"].max()
    manifest = read_manifest(demo / "results/cohort/manifest.parquet")
    patients = manifest.loc[manifest["split"] == "train", "patient_id"].nunique()
    # A prompt's patient is named by chance with each of its images.
    once = len(SEEDS) / patients
    of_seen = named[sorted(seen)].sum()
    assert stats.binom.sf(of_seen - 1, SEEN, once) < CHANCE
    assert named[~named.index.isin(seen)].mean() <= 0.15


def test_the_lenses_see_it_and_a_model_that_never_saw_the_patients_stays_unseen(demo, overfitted):
    out, _ = overfitted
    seen = read_record(out / "lenses.json").get("any_seen")
    # A third of the prompts are its patients'.
    assert seen.value >= 0.3
    base = read_record(demo / "results/privacy/lenses/tiny_sd_base.json").get("any_seen")
    assert base.value < seen.interval[0]


def test_an_attack_on_membership_names_its_patients_and_the_base_knows_none(demo, overfitted):
    out, seen = overfitted
    record = read_record(out / "membership_overfitted.json")
    assert record.get("member_loss_calibrated_auc").value >= 0.95
    assert record.get("member_loss_calibrated_tpr").value >= 0.5
    low, high = record.get("member_loss_base_auc").interval
    assert low < 0.5 < high
    scores = pd.read_parquet(out / "membership_overfitted.parquet")
    scores = scores.sort_values("loss_calibrated", ascending=False)
    assert len(seen & set(scores["image_id"][:SEEN])) >= SEEN - 1
    untrained = read_record(out / "membership_base.json")
    assert untrained.get("member_loss_calibrated_auc").value == 0.5
    # What a well-regularised run gives away lies between.
    regular = read_record(demo / "results/privacy/membership/tiny_sd.json")
    none, some, most = (
        found.get("member_loss_calibrated_tpr").value for found in (untrained, regular, record)
    )
    assert none <= some < most


def test_its_patients_are_extracted_and_the_others_are_not(overfitted):
    out, seen = overfitted
    images = pd.read_parquet(out / "extraction/overfitted_images.parquet")
    images["own"] = images["pixel_whole_image_id"] == images["caption_image_id"]
    by_caption = images.groupby("caption_image_id")[["own", "alarm"]].max()
    of_seen = by_caption.index.isin(seen)
    # The closest radiograph is the prompt's, for its patients alone.
    assert by_caption["own"][of_seen].sum() >= SEEN - 1
    assert by_caption["own"][~of_seen].sum() == 0
    assert by_caption["alarm"][of_seen].mean() >= 0.5
    # Alarms at 1% of images: of 20 captions with three images, four or more once in 300 times.
    assert by_caption["alarm"][~of_seen].sum() <= 3


@pytest.fixture(scope="module")
def curated(demo, overfitted, tmp_path_factory):
    """The decision on a set of its images; among the planted leaks are other images of its ten."""
    out, seen = overfitted
    folder = tmp_path_factory.mktemp("curated")
    script = partial(_script, demo)
    (folder / "images").mkdir()
    pool, rows = [], ["file_name,image_id"]
    for item in read_shards([out / "part-00000-of-00001.parquet"]):
        name = item.id[len("privacy-") : -len("-r00")]
        if not item.id.endswith("-r00"):
            pool.append(item)
        elif name in seen:
            (folder / "images" / f"{len(rows)}.png").write_bytes(item.data)
            rows.append(f"{len(rows)}.png,{name}")
    (folder / "images/metadata.csv").write_text("\n".join(rows))
    shard = folder / "part-00000-of-00001.parquet"
    write_shard(pool, shard)
    manifest = demo / "results/cohort/manifest.parquet"
    candidates, features = folder / "candidates.parquet", folder / "features"
    script("curate.plant", model="overfitted", manifest=manifest, shards=shard, planted=12,
           overfitted=folder / "images", held_out=150, seed=42, candidates=candidates)  # fmt: skip
    script("features.extract", collection="overfitted", shards=candidates, purpose="privacy",
           encoder=[f"{name}={path}" for name, path in ENCODERS.items()], out=features,
           progress=folder / ".features")  # fmt: skip
    script("curate.lenses", model="overfitted", protocol="sound", manifest=manifest,
           candidates=candidates, features=features, real=demo / "results/features/real/train",
           progress=folder / ".lenses", output=folder / "lenses.parquet")  # fmt: skip
    judge = "results/downstream/classification/real_only/real/network-0.safetensors"
    script("curate.look", model="overfitted", protocol="sound", shards=shard,
           cxas="results/world/weights/cxas/UNet_ResNet50_default.pth", cxas_size=192,
           batch_size=32, classifier=judge, progress=folder / ".look",
           output=folder / "seen.parquet")  # fmt: skip
    script("curate.decide", model="overfitted", cohort="Embedded world", protocol="sound",
           source="mimic_cxr_jpg", manifest=manifest, prompts=out / "prompts.parquet", shards=shard,
           lenses=folder / "lenses.parquet", features=features,
           real=demo / "results/features/real/train", seen=folder / "seen.parquet",
           radiographs=demo / "results/faithfulness/seen/real.parquet",
           searched_manifests=manifest, searched_prompts=out / "prompts.parquet",
           pool="privacy", images=20, access="release", published_prompts="withheld",
           privacy_false_alarms=0.02, quality_false_alarms=0.05, planted=12, held_out=150,
           references=2000, most_flagged=0.1, most_remaining=0.5, least_sensitivity=0.5,
           most_false_rejections=0.2, overfitted=folder / "images", output=folder)  # fmt: skip
    return json.loads((folder / "decision.json").read_text())


def test_a_set_of_its_images_is_refused_because_it_memorises(curated):
    assert curated["verdict"] == "do_not_release"
    assert any("memorises" in reason for reason in curated["reasons"])


def test_its_images_are_a_planted_kind_whose_sensitivity_is_recorded(curated):
    (row,) = [row for row in curated["planted"] if row["kind"] == "overfitted"]
    assert row["planted"] == SEEN  # one image of each of its patients
    assert row["sensitivity"] == row["caught"] / SEEN
    # Of unseen radiographs at most 2% for each of four lenses: by chance 8% would be caught.
    assert stats.binom.sf(row["caught"] - 1, SEEN, 0.08) < CHANCE
