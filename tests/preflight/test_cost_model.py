"""The plan: counts, rates for matching settings and hours, compared with values by hand."""

import base64
import csv
import dataclasses
import json
import re
from pathlib import Path

import pytest

from tests.generate.conftest import make_manifest
from tests.gpu.lines import COLUMNS
from tests.gpu.parts import PARTS
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import write_manifest
from workflow_scripts.planning.cohort import cohort_flags
from workflow_scripts.preflight import cost_model, plan, rates
from workflow_scripts.preflight.check import read_config
from workflow_scripts.preflight.cost_model import (
    SHARED,
    Cohort,
    Work,
    cohort_of,
    estimate,
    job_minutes,
    margin_minutes,
    shard_minutes,
    works,
)
from workflow_scripts.preflight.rates import Rate, newest, read_rates

ROOT = Path(__file__).resolve().parents[2]
CONFIG = read_config([str(ROOT / "config.yaml")])
DEMO = read_config([str(ROOT / "config.yaml"), str(ROOT / "profiles/demo/overlay.yaml")])
PAPER = cohort_of(CONFIG, Path("no_results"))
STEP = Rate("H100", "2030-01-01", "2", "train:x", "images per second", 8.0, "1/s", "a, b", "f.csv")


def work_of(found, model, stage, start=""):
    one = [w for w in found if (w.model, w.stage) == (model, stage) and w.what.startswith(start)]
    assert len(one) == 1, one
    return one[0]


def test_counts_of_the_paper_by_hand():
    assert (PAPER.training, PAPER.test_prompts) == (237_388, 5_034)
    planned = works(CONFIG, PAPER)
    # 37,091.9 steps of 128 show every image 20 times; the last one is whole.
    assert work_of(planned, "sd_v1_5", "finetune", "images shown").count == 37_092 * 128
    assert work_of(planned, "sd_v1_5", "generate", "privacy").count == 20_000
    assert work_of(planned, "sd_v1_5", "generate", "privacy").jobs == 8
    assert work_of(planned, "flux_1_dev", "generate", "test").count == 5_034
    # Each image under both protocols.
    assert work_of(planned, "sana", "features", "privacy, both protocols: reid").count == 40_000
    # 20,000 real and as many synthetic images, 95 % of them, 20 times in each of three runs.
    augmented = work_of(planned, "sana", "classification", "augmented")
    assert augmented.count == pytest.approx(40_000 * 0.95 * 20 * 3)
    assert work_of(planned, SHARED, "classification", "real_only").count == pytest.approx(
        20_000 * 57
    )
    assert work_of(planned, "sana", "segmentation", "augmented").count == 30_000
    assert work_of(planned, SHARED, "segmentation", "pseudo-masks").count == 5_034 + 3_000
    # 50,000 real and 20,000 synthetic pairs: once for the projector, three times after it.
    adapter = work_of(planned, "sana", "report_generation", "augmented: adapter")
    assert (adapter.count, adapter.settings) == (210_000, "r=64, bf16, batches of 16")
    assert work_of(planned, "sana", "report_generation", "augmented: projector").count == 70_000
    # The released model continues with the second stage only.
    adapter_works = [w.what for w in planned if w.model == "sana" and "synthetic_only: " in w.what]
    assert "synthetic_only: adapter, images shown" in adapter_works
    assert not any("projector" in what for what in adapter_works)
    # The controls are neither trained nor sampled; two of them have no images to train others on.
    assert not [w for w in planned if w.model == "noise" and w.stage in ("finetune", "generate")]
    assert {w.stage for w in planned if w.model == "flipped_copies"} == {"features", "privacy"}


def test_losses_of_attacks_by_hand():
    config = json.loads(json.dumps(CONFIG))
    tuned = config["models"]["sd_v3_5"]["finetune"]
    tuned["privacy"] = {"epsilon": 8, "delta": 1e-6, "unit": "patient", "max_grad_norm": 0.1}
    tuned["canaries"] = {"count": 40, "seed": 1}
    planned = works(config, PAPER)
    # 1,000 members and as many others, with and without a caption, at ten levels, two checkpoints.
    assert work_of(planned, "sana", "privacy", "membership, losses").count == 80_000
    assert work_of(planned, "sd_v3_5", "privacy", "membership, losses").count == 80_000
    # 40 canaries of each of three repeats, at 16 draws.
    assert work_of(planned, "sd_v3_5", "privacy", "canaries, losses").count == 2 * 120 * 16
    named = [(w.model, w.what) for w in planned if w.name == "losses per second"]
    assert ("sana", "canaries, losses") not in named
    # LLM-CXR came trained: no base and no levels. RadEdit has no loss.
    assert work_of(planned, "llm_cxr", "privacy", "membership, losses").count == 4_000
    assert "radedit" not in dict(named)
    losses = work_of(planned, "sana", "privacy", "membership, losses")
    assert losses.parts == ("train:sana",)
    assert losses.settings == "full, bf16, 512 px, 16 images, with checkpointing"
    # A step with a guarantee passes patient by patient: no rate of whole batches is used for it.
    shown = work_of(planned, "sd_v3_5", "finetune", "images shown")
    usual = work_of(works(CONFIG, PAPER), "sd_v3_5", "finetune", "images shown")
    assert shown.settings == usual.settings + ", each patient alone"


def training_reid(**settings):
    config = json.loads(json.dumps(CONFIG))
    config["encoders"]["reid"]["train"] = {"seed": 1, **settings}
    return config


def test_counts_of_looking_at_images_by_hand():
    planned = works(CONFIG, PAPER)

    def looks(model, start):
        own = [w for w in planned if (w.model, w.stage) == (model, "faithfulness")]
        found = {w.what.partition(": ")[2]: w for w in own if w.what.startswith(f"{start}: ")}
        return {name: (w.count, w.parts[0]) for name, w in found.items()}

    # Three classifiers, of three training runs, pass over each image; of the stress set twice.
    look = {
        "cxas": (5_034, "encode:cxas"),
        "organs measured": (5_034, "judge"),
        "classifier": (3 * 5_034, "judge"),
        "densenet_121": (5_034, "encode:densenet_121"),
    }
    assert looks("sana", "test images") == look
    assert looks("noise", "test images") == look
    assert looks(SHARED, "test radiographs") == look
    assert looks("sana", "stress images") == {
        "cxas": (630, "encode:cxas"),
        "evidence": (6 * 630, "judge"),
    }
    assert looks(SHARED, "stress, test radiographs")["evidence"] == (6 * 5_034, "judge")
    # Controls have no images of the stress set, and two of them none of the test prompts.
    assert looks("noise", "stress images") == looks("flipped_copies", "test images") == {}
    # Radiographs are films, and decoded as such.
    names = {w.name for w in planned if w.stage == "faithfulness" and w.parts == ("encode:cxas",)}
    assert names == {cost_model.REAL, cost_model.GENERATED}


def test_counts_of_a_curated_set_by_hand():
    """A set costs nothing unless it is asked for; each candidate goes through the filter twice."""
    cohort = dataclasses.replace(PAPER, held_out=3_000)
    assert not [work for work in works(CONFIG, cohort) if work.stage == "curate"]
    own = {w.what: w for w in works(CONFIG, cohort, ["sana"]) if w.stage == "curate"}
    candidates = 2 * (20_000 + 8 * 500 + 3_000)
    mirrored = "pool, planted and unseen, mirrored"
    assert {what: (w.model, w.count, w.parts[0]) for what, w in own.items()} == {
        f"{mirrored}: rad_dino": ("sana", candidates, "encode:rad_dino"),
        f"{mirrored}: reid": ("sana", candidates, "encode:reid"),
        "search among training radiographs": ("sana", candidates * 237_388, "likeness"),
        "pool: cxas": ("sana", 20_000, "encode:cxas"),
        "pool: organs measured": ("sana", 20_000, "judge"),
        "pool: classifier": ("sana", 3 * 20_000, "judge"),
        "pool: densenet_121": ("sana", 20_000, "encode:densenet_121"),
    }
    searched = own["search among training radiographs"]
    note = "float32, 20 views, 128 images at once beside 237388 radiographs"
    rate = Rate(
        "H200", "2030-01-01", "2", "likeness", "pairs per second", 1e8, "1/s", note, "f.csv"
    )
    hours = estimate(searched, [rate], "H200").gpu_hours
    assert hours == pytest.approx(candidates * 237_388 / 1e8 / 3600)
    other = dataclasses.replace(rate, note="float32, 5 views")
    assert estimate(searched, [other], "H200").gpu_hours is None
    more = json.loads(json.dumps(CONFIG))
    more["curate"]["overfitted"] = "data/by_heart"
    found = {w.what: w.count for w in works(more, cohort, ["sana"])}
    assert found[f"{mirrored}: reid"] == candidates + 2 * 500
    with pytest.raises(InputError, match="no images of the prompt set 'augment'"):
        works(CONFIG, cohort, ["flipped_copies"])


def drawing(**changed):
    """The paper's config with a pool that is drawn."""
    config = json.loads(json.dumps(CONFIG))
    drawn = {"captions": 12_000, "prevalence": {"Fracture": 0.1}, "draw_seed": 1, "shards": 6}
    config["prompt_sets"]["drawn"] = drawn | changed
    config["curate"]["pool"] = "drawn"
    return config


def test_a_pool_that_is_drawn_is_sampled_of_the_curated_models_alone():
    config = drawing()
    own = work_of(works(config, PAPER, ["sana"]), "sana", "generate", "drawn")
    assert (own.count, own.jobs) == (12_000, 6)
    usual = work_of(works(config, PAPER), "sana", "generate", "privacy")
    assert (own.parts, own.name, own.settings) == (usual.parts, usual.name, usual.settings)
    drawn = [w.model for w in works(config, PAPER, ["sana"]) if w.what == "drawn images"]
    assert drawn == ["sana"]
    assert not [w for w in works(config, PAPER) if w.what == "drawn images"]
    looked = work_of(works(config, PAPER, ["sana"]), "sana", "curate", "pool: cxas")
    assert looked.count == 12_000
    # Of copies, and without a word on what to draw, there are no new samples.
    for wrong, key in ((config, "flipped_copies"), (drawing(), "nobody")):
        with pytest.raises(InputError, match="no images of the prompt set 'drawn'"):
            works(wrong, PAPER, [key])
    del config["prompt_sets"]["drawn"]
    with pytest.raises(InputError, match="no images of the prompt set 'drawn'"):
        works(config, PAPER, ["sana"])


def test_a_shard_of_a_drawn_pool_asks_for_the_time_of_its_images():
    rate = dataclasses.replace(
        STEP, part="sample:sd_v1_5", value=1.0,
        note="fp32, 50 steps, guidance 7.5, 512 px, batches of 16",
    )  # fmt: skip

    def minutes(shards):
        config = drawing(shards=shards)
        return shard_minutes(config, PAPER, [rate], "sd_v1_4", "drawn", 720)

    # 12,000 images at one a second, twice: 400 minutes, divided by the shards.
    assert (minutes(1), minutes(4), minutes(6)) == (400, 100, 67)


def test_a_drawn_pool_takes_its_space():
    by_model = {key: images for key, *_, images in plan.disk(drawing(), PAPER)}
    more = {key: images for key, *_, images in plan.disk(drawing(), PAPER, ["sana"])}
    assert more["sana"] - by_model["sana"] == pytest.approx(12_000 * 512**2 / 1e9)
    assert {k: v for k, v in more.items() if k != "sana"} == {
        k: v for k, v in by_model.items() if k != "sana"
    }


def test_sets_that_the_config_names_are_planned_with_what_they_are_worth():
    config = json.loads(json.dumps(CONFIG))
    config["curate"] |= {"models": ["sana"], "worth": True}
    planned = works(config, PAPER, ["sana", "sd_v2"])
    curated = [w for w in planned if w.stage == "curate"]
    assert [w.model for w in curated if w.what == "pool: cxas"] == ["sana", "sd_v2"]
    # 10,000 images alone and beside 20,000 real ones: 95%, 20 times, in each of three runs.
    worth = {w.what: w.count for w in curated if w.model == "sana" and w.what.startswith("worth")}
    assert sorted(worth.values()) == pytest.approx([570_000] * 2 + [1_710_000] * 2)
    assert {w.settings for w in curated if "worth" in w.what} == {
        w.settings for w in planned if w.stage == "classification"
    }
    config["curate"]["worth_also"] = ["segmentation"]
    with_masks = [
        w for w in works(config, PAPER) if w.what.startswith("worth") and w not in curated
    ]
    # Masks of 3,000 images of either set, and as many steps as any U-Net, in each of three runs.
    assert sorted(w.count for w in with_masks) == sorted(
        [9000, 9000, *[w.count for w in planned if w.what == "augmented: steps"][:1] * 2]
    )
    assert {w.stage for w in with_masks} == {"curate"}
    config["curate"]["pool"] = "stress"
    assert not [w for w in works(config, PAPER) if w.what.startswith("worth")]


def test_who_looks_at_images_follows_the_tasks_and_judges():
    def whats(tasks, judges=("classifier", "densenet_121"), models=("sana",)):
        config = json.loads(json.dumps(CONFIG))
        config["downstream"]["tasks"], config["run_models"] = list(tasks), list(models)
        config["faithfulness"]["judges"] = list(judges)
        own = [w for w in works(config, PAPER) if w.stage == "faithfulness"]
        assert own == cost_model.works_while_planning(config, PAPER, "faithfulness")
        return {w.what.partition(": ")[0] for w in own}, {w.what.partition(": ")[2] for w in own}

    both = ["classification", "segmentation"]
    assert whats(["classification"]) == (set(), set())
    assert whats(["segmentation"])[1] == {"cxas", "organs measured", "densenet_121"}
    assert whats(both, ["densenet_121"])[0] == {"test images", "test radiographs"}
    assert whats(both, ["classifier"])[1] == {"cxas", "organs measured", "classifier", "evidence"}
    # Reports need neither organs nor a trained classifier.
    reports = {"reports of test images", "reports of test radiographs"}
    assert whats(["report_generation"], ["llava_rad"]) == (reports, {"written", "read by CheXbert"})
    assert whats(both, ["classifier", "llava_rad"])[0] > reports
    # Without a model that has images of the stress set nobody needs the radiographs' side of it.
    assert whats(both, models=["noise"])[0] == {"test images", "test radiographs"}


def test_pairs_of_a_reidentification_network_by_hand():
    def pairs(**settings):
        return work_of(works(training_reid(**settings), PAPER), SHARED, "features", "re-id")

    # 11 epochs of as many pairs as 95 % of the training images.
    assert pairs().count == 11 * 225_519
    assert (pairs().parts, pairs().settings) == (("reid",), "float32, 256 px, batches of 64 pairs")
    given = pairs(pairs=1000, epochs=3, size=64, batch_size=8)
    assert (given.count, given.settings) == (3000, "float32, 64 px, batches of 8 pairs")
    assert not [w for w in works(CONFIG, PAPER) if w.what.startswith("re-id")]
    unknown = dataclasses.replace(PAPER, training=None)
    (work,) = [w for w in works(training_reid(), unknown) if w.what.startswith("re-id")]
    assert work.count is None


def test_each_job_asks_for_the_minutes_of_its_own_work():
    """What rules name is work of the plan; of features and faithfulness all is named once."""
    rules = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    config = training_reid()
    config["faithfulness"]["judges"].append("llava_rad")
    planned, named = works(config, PAPER), {}
    for stage, starts in re.findall(r'job_minutes_of,\s*stage="(\w+)",\s*what=\[([^\]]*)\]', rules):
        named.setdefault(stage, []).extend(re.findall(r'"([^"]+)"', starts))
    for stage, starts in named.items():
        own = {w.what for w in planned if w.stage == stage}
        settings = {what.partition(": ")[0] for what in own}
        for start in starts:
            said = {start.format(setting=setting) for setting in settings}
            assert any(what.startswith(tuple(said)) for what in own), (stage, start)
    for work in planned:
        if work.stage in ("features", "faithfulness"):
            starts = [start for start in named[work.stage] if work.what.startswith(start)]
            assert len(starts) == 1, work.what


def test_all_images_are_encoded_once_for_models_with_the_same_autoencoder():
    config = json.loads(json.dumps(CONFIG))
    config["run_models"] = ["sd_v3_5", "sd_v3_5_r64", "sana"]
    encoded = [w for w in works(config, PAPER) if w.what == "images encoded once"]
    assert [w.model for w in encoded] == ["sd_v3_5", "sana"]


def test_published_epochs_follow_the_protocol():
    config = {**CONFIG, "protocol": "as_published"}
    planned = works(config, PAPER)
    assert work_of(planned, "sana", "report_generation", "augmented: adapter").count == 10 * 70_000


def test_variants_are_measured_by_the_part_of_their_network():
    config = json.loads(json.dumps(CONFIG))
    config["run_models"] = ["sd_v1_4", "sd_v3_5_r64"]
    planned = works(config, PAPER)
    assert work_of(planned, "sd_v1_4", "finetune", "images shown").parts == ("train:sd_v1_5",)
    adapted = work_of(planned, "sd_v3_5_r64", "finetune", "images shown")
    assert adapted.parts == ("train:sd_v3_5",)
    assert adapted.settings.startswith("lora r=64 on attention, bf16, 512 px, 16 images")


def test_hours_are_count_over_rate():
    work = Work("finetune", "m", "w", 28_800, "images", ("train:x",), "images per second", "a")
    spread = dataclasses.replace(work, spread=frozenset({1, 4}))
    cost = estimate(spread, [STEP], "H100")
    assert cost.gpu_hours == 1.0  # 28,800 / 8 a second
    assert cost.hours == {1: 1.0, 4: 0.25, 8: None}  # at eight a step is divided otherwise
    shards = estimate(dataclasses.replace(work, jobs=6), [STEP], "H100")
    assert shards.hours == pytest.approx({1: 1.0, 4: 2 / 6, 8: 1 / 6})  # two rounds on four
    slow = dataclasses.replace(STEP, value=0.5, unit="s")
    assert estimate(dataclasses.replace(work, count=7200), [slow], "H100").gpu_hours == 1.0


def test_nothing_is_guessed():
    work = Work("finetune", "m", "w", 100, "images", ("train:x",), "images per second", "a")
    for rate in (
        dataclasses.replace(STEP, note="ab"),
        dataclasses.replace(STEP, kind="H200"),
        dataclasses.replace(STEP, part="train:y"),
        dataclasses.replace(STEP, name="other"),
    ):
        cost = estimate(work, [rate], "H100")
        assert cost.rate is None
        assert cost.gpu_hours is None
        assert set(cost.hours.values()) == {None}
    near = estimate(work, [dataclasses.replace(STEP, note="ab")], "H100").near
    assert near is not None
    assert near.note == "ab"
    unknown = estimate(dataclasses.replace(work, count=None), [STEP], "H100")
    assert unknown.rate == STEP
    assert unknown.gpu_hours is None


def test_the_newest_rate_counts():
    later = dataclasses.replace(STEP, date="2030-02-01", value=9.0)
    assert newest([STEP, later], "H100", ("train:x",), "images per second", "a, b") == later


def test_what_is_kept_is_read_and_was_measured_on_a_gpu():
    committed = read_rates()
    assert {rate.kind for rate in committed} >= {"H100"}
    by_part = {(rate.part, rate.name): rate for rate in committed}
    assert by_part["search", "closest by score"].seconds == 14
    used = [one for one in plan_of(CONFIG) if one.rate]
    assert {one.work.parts[0] for one in used} >= {"search", "report:adapter"}


def plan_of(config, kind="H100"):
    cohort = cohort_of(config, Path("no_results"))
    return [estimate(work, read_rates(), kind) for work in works(config, cohort)]


def write_csv(folder, *rows):
    folder.mkdir(exist_ok=True)
    with (folder / "one.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return folder


def row(part, name, value, unit, note, gpu="NVIDIA H200", day="2030-05-06"):
    return [day, gpu, "580", "2.13", "3.11", part, name, value, unit, note]


def test_a_csv_of_gpu_check_fills_the_plan(tmp_path):
    note = "full, bf16, 512 px, 16 images, with checkpointing, one pass a step"
    folder = write_csv(
        tmp_path / "results",
        row("train:sd_v1_5", "images per second", 50, "1/s", note),
        row("train:sd_v1_5", "peak memory", 40, "GiB", note),
        row("train:sd_v1_5", "state", 60, "s", "done"),
        row("train:sana", "images per second", 50, "1/s", note, gpu="cpu"),
        row("train:sana", "images per second", "", "1/s", note),
    )
    (rate,) = read_rates([folder])
    assert (rate.kind, rate.date, rate.torch) == ("H200", "2030-05-06", "2.13")
    work = work_of(works(CONFIG, PAPER), "sd_v1_4", "finetune", "images shown")
    cost = estimate(work, [rate], "H200")
    assert cost.gpu_hours == pytest.approx(work.count / 50 / 3600)
    assert cost.hours[8] == pytest.approx(cost.gpu_hours / 8)  # 16 images are a pass there, too
    out = tmp_path / "plan.csv"
    words = ["--config", str(ROOT / "config.yaml"), "--rates", str(folder), "--csv", str(out)]
    plan.main([*words, "--results", "no_results"])
    rows = list(csv.DictReader(out.open()))
    (entry,) = [r for r in rows if r["model"] == "sd_v1_4" and r["what"] == "images shown"]
    assert float(entry["gpu_hours"]) == pytest.approx(cost.gpu_hours, rel=1e-5)
    assert (entry["gpu"], entry["date"], entry["missing"]) == ("H200", "2030-05-06", "")


@pytest.mark.parametrize(
    "bad",
    [
        row("p", "n", 0, "s", ""),
        row("p", "n", "x", "s", ""),
        row("p", "n", "inf", "s", ""),
        row("p", "n", 1, "s", "", day="today"),
    ],
)
def test_numbers_that_are_no_rates_are_refused(tmp_path, bad):
    with pytest.raises(InputError, match="p, n"):
        read_rates([write_csv(tmp_path, bad)])


def test_another_table_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not a table of rates"):
        read_rates([tmp_path])


def test_a_demo_has_counts_only_when_its_cohort_is_made(tmp_path):
    cohort = cohort_of(DEMO, tmp_path)
    assert cohort == Cohort(None, None, None, None, "not known before the cohort is made")
    planned = plan_of(DEMO)
    assert (
        work_of([one.work for one in planned], "tiny_sd", "finetune", "images shown").count is None
    )
    assert work_of([one.work for one in planned], "tiny_sd", "generate", "augment").count == 200
    assert "not known before the cohort is made" in plan.text(DEMO, cohort, "H100", planned)


def test_the_plan_says_what_is_missing_and_what_measures_it(capsys):
    plan.main(["--config", str(ROOT / "config.yaml"), "--gpu", "H100", "--results", "no_results"])
    said = capsys.readouterr().out
    assert "Captioned training images: 237,388; test prompts: 5,034 (the paper)" in said
    assert 'measured by: make gpu-check GPU_CHECK="sample:flux_1_dev"' in said
    assert "search, closest by distance: 2.7 s on H100, 2026-11-26" in said
    # Measured in float32, in batches of 768: not what the config asks for.
    assert "not used: 1850 1/s on H100" in said
    assert "classification: no rate; 31 of 31 pieces of work without" in said


def test_rates_that_gpu_check_measures_are_its_parts():
    names = {part.name for part in PARTS}
    assert names >= rates.PARTS
    assert rates.COLUMNS == COLUMNS
    for one in plan_of(CONFIG):
        known = set(one.work.parts) & (rates.PARTS | plan.UNMEASURED.keys())
        assert known, one.work
    assert not rates.PARTS & plan.UNMEASURED.keys()


def test_kinds_of_gpus():
    assert rates.kind_of("NVIDIA H100 80GB HBM3") == "H100"
    assert rates.kind_of("nvidia a100-sxm4-80gb") == "A100"
    assert rates.kind_of("h200") == "H200"
    assert rates.kind_of("NVIDIA B200") == "NVIDIA B200"


def test_the_kind_with_most_rates_is_planned_for():
    planned = works(CONFIG, PAPER)
    lone = dataclasses.replace(STEP, kind="A100", date="2040-01-01")
    assert plan.choose_kind(planned, [*read_rates(), lone]) == "H100"
    assert plan.choose_kind(planned, []) is None


def test_minutes_are_the_estimate_with_a_margin():
    assert margin_minutes(None, otherwise=2880) == 2880
    assert margin_minutes(3.0, otherwise=2880) == 360  # twice
    assert margin_minutes(3.001, otherwise=2880) == 361
    assert margin_minutes(0.01, otherwise=2880) == 30


def test_a_shard_asks_for_what_the_slowest_gpu_takes_twice():
    def minutes(*found, attempt=1, cohort=PAPER, prompt_set="privacy", gpu=None):
        return shard_minutes(CONFIG, cohort, found, "sd_v1_4", prompt_set, 720, attempt, gpu)

    settings = "fp32, 50 steps, guidance 7.5, 512 px, batches of 16"
    fast = dataclasses.replace(STEP, part="sample:sd_v1_5", note=settings, value=1.0)
    slow = dataclasses.replace(fast, kind="A100", value=0.25)
    # A shard of eight has 2,500 images: 2,500 s, or 10,000 s on the slower GPU.
    assert minutes(fast) == 84
    assert minutes(fast, slow) == 334
    assert minutes(fast, slow, attempt=2) == 668
    # The profile's kind of GPU decides, where it names one; without rates the rule does.
    assert minutes(fast, slow, gpu="h100") == 84
    assert minutes(fast, slow, gpu="a100") == 334
    assert minutes(fast, gpu="a100") == 720
    assert minutes() == minutes(attempt=2) == 720
    assert minutes(STEP) == 720
    unknown = dataclasses.replace(PAPER, test_prompts=None)
    assert minutes(fast, cohort=unknown, prompt_set="test") == 720


def test_what_work_takes_at_least_follows_from_its_operations(tmp_path, monkeypatch):
    once = cost_model.forward_flop(CONFIG["models"]["sd_v1_4"], "sd_v1_4", 512)
    # Stable Diffusion's U-Net does 0.34 T multiply-adds for an image of 512 pixels.
    assert once == pytest.approx(2 * 0.34e12, rel=0.02)
    assert cost_model.forward_flop(CONFIG["models"]["sd_v1_4"], "sd_v1_4", 256) is None
    counted = tmp_path / "counted.csv"
    head = "model,settings,fixed_gb,image_gb,forward_flop_per_image,torch"
    rows = [f'{name},"x, 512 px, y",1,1,1e12,2' for name in ("sd_v1_5", "flux_1_dev")]
    counted.write_text("\n".join([head, *rows]) + "\n")
    monkeypatch.setattr(cost_model, "COUNTED", counted)
    planned = works(CONFIG, PAPER)
    full = work_of(planned, "sd_v1_4", "finetune", "images shown")
    assert full.flop == 3e12
    assert work_of(planned, "sd_v1_4", "generate", "privacy").flop == 100e12  # guided: twice a step
    # FLUX's guidance is an input of the network.
    assert work_of(planned, "flux_1_dev", "generate", "privacy").flop == 50e12
    assert work_of(planned, "flux_1_dev", "finetune", "images shown").flop == 2e12  # an adapter
    assert work_of(planned, "sana", "finetune", "images shown").flop is None
    bound = estimate(full, [], "H100").bound
    assert bound == pytest.approx(37_092 * 128 * 3e12 / 989e12 / 3600)
    assert estimate(full, [], "unheard of").bound is None


def test_every_stage_of_the_plan_is_one_of_the_cost_table():
    from workflow_scripts.tables.costs import STAGES

    assert {work.stage for work in works(CONFIG, PAPER)} <= STAGES.keys()
    assert cost_model.SHARED == "shared"


def test_a_jobs_minutes_follow_from_all_its_work_or_from_none():
    def work(what, count, part, jobs=1, spread=None):
        return Work("s", "m", what, count, "x", (part,), "rate", "a", jobs, spread)

    planned = [
        work("one: a", 7200, "p"),  # an hour at two a second
        work("one: b", 3600, "q", jobs=3),  # an hour at one a second, in three jobs
        work("two: c", 7200, "p", jobs=2, spread=frozenset({1, 4})),
        dataclasses.replace(work("one: a", 14_400, "p"), model=SHARED),
    ]
    rates = [
        dataclasses.replace(STEP, part="p", name="rate", value=2.0, note="a, b"),
        dataclasses.replace(STEP, part="q", name="rate", value=1.0, note="a, b"),
    ]
    asked = ("s", "m", ["one: "], 240)
    assert job_minutes(planned, rates, *asked) == 2 * (60 + 20)
    assert job_minutes(planned, rates, *asked, attempt=2) == 4 * (60 + 20)
    # Another kind of GPU that lacks a rate says nothing; a slower one that has all of them counts.
    other = [dataclasses.replace(rate, kind="A100", value=rate.value / 2) for rate in rates]
    assert job_minutes(planned, rates + other[:1], *asked) == 160
    assert job_minutes(planned, rates + other, *asked) == 320
    assert job_minutes(planned, rates + other, *asked, gpu="h100") == 160
    assert job_minutes(planned, rates + other[:1], *asked, gpu="NVIDIA A100") == 240
    # A rate is missing, or there is no such work: as the rule says, whatever the attempt.
    assert job_minutes(planned, rates[:1], *asked, attempt=3) == 240
    assert job_minutes(planned, rates, "s", "m", ["three"], 240) == 240
    # One of two jobs, over four GPUs; over two the step is divided otherwise than measured.
    assert job_minutes(planned, rates, "s", "m", ["two"], 240, gpus=4) == 30
    assert job_minutes(planned, rates, "s", "m", ["two"], 240, gpus=1) == 60
    assert job_minutes(planned, rates, "s", "m", ["two"], 240, gpus=2) == 240
    # A model of no work of its own is what is done once for all.
    assert job_minutes(planned, rates, "s", "real", ["one"], 240) == 2 * 120


def test_hours_of_several_gpus_are_no_less_than_the_longest_piece():
    def entry(count, jobs=1, spread=None):
        work = Work("s", "m", "w", count, "x", ("p",), "rate", "a", jobs, spread)
        rate = dataclasses.replace(STEP, part="p", name="rate", value=1.0, note="a")
        return estimate(work, [rate], "H100")

    short = [entry(3600) for _ in range(8)]
    assert [plan.total_hours(short, n) for n in (1, 4, 8)] == [8, 2, 1]
    # One job of six hours cannot be shared; one that divides its steps can.
    assert [plan.total_hours([*short, entry(6 * 3600)], n) for n in (1, 4, 8)] == [14, 6, 6]
    shared = entry(6 * 3600, spread=frozenset({1, 4, 8}))
    assert [plan.total_hours([*short, shared], n) for n in (1, 4, 8)] == [14, 3.5, 1.75]
    unknown = estimate(short[0].work, [], "H100")
    assert plan.total_hours([*short, unknown], 1) == 8


def test_a_cohort_of_another_config_is_not_counted(tmp_path, monkeypatch):
    """By the flags that Snakemake noted; without its notes, by the folder of the images."""
    monkeypatch.chdir(tmp_path)
    results = Path("results")
    manifest = results / "cohort/manifest.parquet"
    manifest.parent.mkdir(parents=True)
    root = DEMO["cohort"]["mimic_cxr_jpg"]["root"]
    films = make_manifest(4)
    films["path"] = [f"{root}/{i}.jpg" for i in range(len(films))]
    write_manifest(films, manifest)
    learnt = int(((films["split"] == "train") & films["caption"].notna()).sum())
    assert learnt

    def counted(config):
        return plan.cohort_for(config, results).training

    assert (counted(DEMO), counted(CONFIG)) == (learnt, PAPER.training)
    assert "belongs to another config" in plan.cohort_for(CONFIG, results).source
    assert plan.cohort_for(CONFIG, Path("nothing")).source == "the paper"

    notes = Path(".snakemake/metadata")
    notes.mkdir(parents=True)
    note = notes / base64.b64encode(str(manifest).encode()).decode()
    note.write_text(json.dumps({"params": ["2", str(cohort_flags(DEMO, ""))]}))
    assert (counted(DEMO), counted(CONFIG)) == (learnt, PAPER.training)
    # The same films, with captions from elsewhere.
    other = {**DEMO, "cohort": {**DEMO["cohort"], "caption_source": "impression"}}
    assert cohort_flags(other, "") != cohort_flags(DEMO, "")
    assert counted(other) is None


def test_every_missing_rate_has_a_part_of_gpu_check_or_a_reason():
    planned = works(training_reid(), PAPER, ["sana"])
    estimates = [estimate(work, [], "H200") for work in planned]
    lacking = {part for part, *_ in plan.missing_rates(estimates)}
    without = lacking - {part.name for part in PARTS}
    assert without == {"read:radgraph", "read:ratescore"}
    assert without == set(plan.UNMEASURED)
    assert all("make gpu-check" in plan.how_to_measure(part) for part in lacking - without)


def test_work_that_is_known_while_planning_is_that_of_the_plan():
    whole = works(CONFIG, PAPER)
    stages = ("features", "classification", "segmentation", "report_generation", "faithfulness")
    for stage in stages:
        known = cost_model.works_while_planning(CONFIG, PAPER, stage)
        own = [work for work in whole if work.stage == stage]
        assert known == [
            work for work in own if "images shown" not in work.what or stage == "classification"
        ]
