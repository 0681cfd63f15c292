"""Properties that tables, records and reruns of the demo must have.

All tests share one run of `make demo` in a new checkout.
"""

import contextlib
import csv
import json
import re
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy.stats import binom

from tests.tables import leaks
from tests.tables.freeze import FROZEN, changes
from tests.tables.stems import STEMS
from tests.workflow.checkouts import jobs_in, planned_jobs, run
from workflow_scripts.common.images import read_shards
from workflow_scripts.common.manifest import (
    FINDINGS,
    PROMPT_SETS,
    read_manifest,
    read_prompts,
    scored_prompts,
)
from workflow_scripts.common.records import read_record
from workflow_scripts.costs.attempts import LEFT_OUT, read_attempts
from workflow_scripts.costs.jobs import OTHER
from workflow_scripts.costs.sums import BENCHMARKS_ALONE

pytestmark = pytest.mark.workflow

PROFILE = ["--profile", "profiles/demo"]
TABLES = {(f"tables_{name}", None) for name in ("build", "costs", "figures", "report", "riskiest")}
JOINS = TABLES | {("costs_jobs", None), ("privacy_extraction", None)}


def value(demo, stage, model, metric, subset="all"):
    folder = demo / "results" / stage / ("rad_dino" if stage == "fidelity" else "")
    return read_record(folder / f"{model}.json").get(metric, subset).value


def test_every_table_and_the_report_are_there(demo):
    for table in STEMS:
        for suffix in ("csv", "md", "tex", "html"):
            assert (demo / f"results/tables/{table}.{suffix}").stat().st_size > 0
    assert "<html" in (demo / "results/tables/report.html").read_text()[:500]


def test_snakemakes_own_report_has_the_tables_by_category_and_no_radiograph(demo):
    run(["snakemake", *PROFILE, "--report", "snakemake.zip"], demo)
    with zipfile.ZipFile(demo / "snakemake.zip") as archive:
        packed = {Path(name).name: name for name in archive.namelist()}
        index = archive.read(packed["report.html"]).decode()
        public = archive.read(packed["report_public.html"])
    for category in ("Fidelity", "Privacy", "Classification", "Segmentation", "Ranks", "Cost"):
        assert f'"{category}"' in index
    assert {f"{table}.html" for table in STEMS} | {"costs.html"} <= set(packed)
    assert "protocol sound" in index
    assert "riskiest_pairs.html" not in packed
    assert leaks.images_in(public) == []


def test_the_records_are_the_committed_ones(demo):
    assert changes(demo, FROZEN) == []


def test_no_half_written_file_is_left(demo):
    left = [p for p in (demo / "results").rglob(".*") if p.name.endswith(".tmp")]
    assert left == []
    assert [p for p in (demo / "results").rglob(".progress*") if any(p.iterdir())] == []


@pytest.mark.parametrize("metric", ["fid", "kid"])
def test_real_beats_tuned_beats_untrained_beats_noise(demo, metric):
    order = ["held_out_real", "tiny_sd", "tiny_sd_lora", "tiny_sd_base", "noise"]
    if metric == "fid":  # held-out radiographs' KID is about zero, on either side of it
        order.insert(0, "training_copies")
    values = [value(demo, "fidelity", model, metric) for model in order]
    assert values == sorted(values), dict(zip(order, values, strict=True))
    assert len(set(values)) == len(values)
    if metric == "kid":
        record = read_record(demo / "results/fidelity/rad_dino/held_out_real.json")
        low, high = record.get("kid").interval
        assert low <= 0 <= high


@pytest.mark.parametrize("metric", ["fid", "kid"])
def test_copies_of_what_the_prompts_ask_for_read_zero(demo, metric):
    """The whole test set is farther away, as the prompts describe only a part of it."""
    assert value(demo, "fidelity", "training_copies", metric) == pytest.approx(0, abs=1e-6)
    assert abs(value(demo, "fidelity", "training_copies", f"{metric}_test_set")) > 1e-5


def test_floors_lie_between_copies_and_a_blur(demo):
    blurred = value(demo, "fidelity", "blurred_real", "fid")
    for floor in ("fid_floor", "fid_floor_matched"):
        assert 0 < value(demo, "fidelity", "tiny_sd", floor) < blurred / 2


@pytest.mark.parametrize("metric", ["fid", "kid"])
def test_blurring_costs_fidelity(demo, metric):
    sharp = value(demo, "fidelity", "held_out_real", metric)
    assert value(demo, "fidelity", "blurred_real", metric) > 2 * sharp


def test_training_copies_max_out_reidentification_and_held_out_images_do_not(demo):
    copies = read_record(demo / "results/privacy/training_copies.json")
    assert copies.get("latent_mean_of_min").value == 0
    assert copies.get("pixel_mean_of_min").value == 0
    assert copies.get("reid_mean_of_max").value > 0.95
    assert copies.get("reid_count").value == copies.get("reid_count").n
    held_out = read_record(demo / "results/privacy/held_out_real.json")
    assert held_out.get("latent_mean_of_min").value > 0
    assert held_out.get("pixel_mean_of_min").value > 5
    assert held_out.get("reid_mean_of_max").value < copies.get("reid_mean_of_max").value
    assert held_out.get("reid_count").value < 0.6 * held_out.get("reid_count").n


def test_the_closest_training_image_of_a_copy_is_its_own_and_of_other_patients_is_not(demo):
    copies = read_record(demo / "results/privacy/closest/training_copies.json")
    assert copies.get("closest_latent_mean").value == copies.get("authpct").value == 0
    assert copies.get("own_patient_latent").value == copies.get("own_patient_reid").value == 1
    held_out = read_record(demo / "results/privacy/closest/held_out_real.json")
    # Real images are as far from the training images as these are from one another.
    low, high = held_out.get("authpct").interval
    assert low < 60
    assert high > 40
    assert held_out.get("own_patient_latent").value < 0.1
    manifest = read_manifest(demo / "results/cohort/manifest.parquet")
    train = int((manifest["split"] == "train").sum())
    assert copies.details["training_images"] == held_out.details["training_images"] == train


def test_copies_are_nearer_to_training_and_nothing_else_is(demo):
    copies = read_record(demo / "results/privacy/novelty/training_copies.json")
    assert copies.get("nearer_to_training").value == 1
    assert copies.get("nearer_to_training_excess").interval[0] > 0
    for model in ("held_out_real", "blurred_real", "noise", "tiny_sd_base"):
        excess = read_record(demo / f"results/privacy/novelty/{model}.json").get(
            "nearer_to_training_excess"
        )
        assert excess.interval[0] < 0 < excess.interval[1]
    flipped = read_record(demo / "results/privacy/novelty/flipped_copies.json")
    assert "no test images" in flipped.get("nearer_to_training_excess").reason
    assert flipped.get("nearer_to_training").value > 0.5


def test_copies_are_extracted_and_name_their_patients_and_no_other_control_is(demo):
    def values(model):
        found = read_record(demo / f"results/privacy/extraction/{model}.json").values
        return {value.metric: value.value for value in found}

    for model in ("training_copies", "brightened_copies", "flipped_copies"):
        copies = values(model)
        assert copies["extracted_share"] == copies["own_patient_named"] == 1
        assert copies["captions_repeated"] == 1
        # The view that matched is the one in which the copies were made.
        assert copies["extracted_mirrored"] == (model == "flipped_copies")
    # As it lies, a mirrored radiograph matches none.
    assert values("flipped_copies")["images_alarmed"] < 0.5
    for model in ("held_out_real", "blurred_real", "noise"):
        # 30 captions at 1%: two or fewer with a probability of 99.7%.
        assert values(model)["extracted_count"] <= 2
    assert values("noise")["extracted_count"] == values("noise")["captions_repeated"] == 0
    images = demo / "results/privacy/extraction/training_copies_images.parquet"
    assert images.stat().st_mode & 0o077 == 0


def test_flipped_and_brightened_copies_are_seen_by_some_lens_and_missed_by_others(demo):
    records = {
        model: read_record(demo / f"results/privacy/lenses/{model}.json")
        for model in ("training_copies", "flipped_copies", "brightened_copies")
    }
    seen = {
        model: {value.metric: value.value for value in record.values}
        for model, record in records.items()
    }
    for lens in ("reid", "latent", "pixel", "any"):
        assert seen["training_copies"][f"{lens}_seen"] == 1
    for model, sees, misses in (
        ("flipped_copies", "mirrored", "pixel"),
        ("brightened_copies", "pixel", "mirrored"),
    ):
        assert seen[model][f"{sees}_seen"] == seen[model]["any_seen"] == 1
        missed = records[model].get(f"{misses}_seen")
        # Were both lenses as good, each prompt that one of them misses might be either's.
        assert 0.5 ** round(missed.n * (1 - missed.value)) < 0.05, (model, missed)
    for model in ("held_out_real", "blurred_real", "noise"):
        for value in read_record(demo / f"results/privacy/lenses/{model}.json").values:
            # Alarms among as many prompts by chance, at 5% over all 15 of these.
            assert value.value * value.n <= binom.ppf(1 - 0.05 / 15, value.n, 0.05), (model, value)
    report = (demo / "results/tables/report.html").read_text()
    assert "the pixel distance in the mirror (100%)" in report
    assert "Brightened copies are seen by" in report


def test_both_protocols_stand_side_by_side(demo):
    sound, published = (
        read_record(demo / f"results/privacy/{folder}held_out_real.json")
        for folder in ("", "as_published/")
    )
    assert (sound.protocol, published.protocol) == ("sound", "as_published")
    # Unrelated images: the wrapped subtraction scores 255 / sqrt(3) whatever they show.
    assert published.get("pixel_mean_of_min").value == pytest.approx(147, abs=15)
    assert sound.get("pixel_mean_of_min").value < 80
    # Without the normalisation that the network was trained on, the attacker is worse.
    attackers = [
        read_record(demo / f"results/privacy/{folder}attacker/real.json").get("reid_auc").value
        for folder in ("", "as_published/")
    ]
    assert attackers[0] > attackers[1] + 0.05


def test_the_riskiest_pairs_of_copies_are_the_copies(demo):
    pairs = pd.read_csv(demo / "results/tables/riskiest_pairs.csv")
    copies = pairs[(pairs["model"] == "training_copies") & (pairs["lens"] == "latent")]
    assert len(copies) == 12
    assert (copies["value"] == 0).all()
    assert copies["own_patient"].all()
    page = (demo / "results/tables/riskiest_pairs.html").read_text()
    assert page.count('class="pair"') == len(pairs)


def test_blurred_images_cost_dice_copies_do_not_and_the_labeller_is_good(demo):
    folder = demo / "results/downstream/segmentation"
    labeller = read_record(folder / "labeller/real.json").get("dice_exact")
    assert labeller.value > 0.8
    real = read_record(folder / "real_only/real.json")
    assert 0.6 < real.get("dice_exact").value < labeller.value
    gains = {
        model: read_record(folder / f"augmented/{model}.json").get("dice_gain")
        for model in ("training_copies", "blurred_real", "noise")
    }
    assert gains["training_copies"].value == pytest.approx(0, abs=0.06)
    assert gains["blurred_real"].interval[1] < gains["training_copies"].interval[0] - 0.05
    assert gains["noise"].interval[1] < 0
    # Topology survives the blur, texture does not: the findings can still be recognised.
    auroc = read_record(demo / "results/downstream/classification/augmented/blurred_real.json")
    assert gains["blurred_real"].value < auroc.get("auroc_gain").value - 0.05


def test_reports_name_more_findings_than_unrelated_images_teach(demo):
    folder = demo / "results/downstream/report_generation"
    f1 = {
        arm: read_record(folder / f"{arm}.json").get("chexbert_micro_f1_14").value
        for arm in ("released/real", "synthetic_only/training_copies", "synthetic_only/noise")
    }
    assert f1["synthetic_only/noise"] < min(
        f1["released/real"], f1["synthetic_only/training_copies"]
    )
    record = read_record(folder / "synthetic_only/noise.json")
    assert record.get("chexbert_micro_f1_14_gain").value < 0
    assert "names no weights" in record.get("green").reason


@pytest.fixture(scope="module")
def bundle(demo):
    """The demo's bundle for publication."""
    run(["make", "release", "PROFILE=profiles/demo"], demo)
    return demo / "results/tables/release.tar.gz"


def test_the_bundle_has_the_cost_and_not_the_jobs(bundle):
    with tarfile.open(bundle) as archive:
        names = {Path(name).name for name in archive.getnames()}
    assert {"costs.csv", "costs.md", "costs.tex", "costs.html"} <= names
    assert "jobs.csv" not in names


def test_the_bundle_for_publication_shows_no_patient(demo, bundle):
    data = bundle.read_bytes()
    manifest = read_manifest(demo / "results/cohort/manifest.parquet")
    cohort = np.stack([leaks.small(Image.open(demo / path)) for path in manifest["path"]])
    assert not any(leaks.resembles(image, cohort) for image in leaks.images_in(data))
    words = leaks.words_in(data)
    for column in ("image_id", "patient_id", "study_id", "caption", "indication"):
        leaked = [text for text in manifest[column].dropna().unique() if text.lower() in words]
        assert leaked == []
    for prompt_set in PROMPT_SETS:
        prompts = read_prompts(demo / f"results/cohort/prompts/{prompt_set}.parquet")
        assert not [name for name in prompts["prompt_id"] if name in words]
    # The same search finds them all in what is not published.
    for name in ("report.html", "riskiest_pairs.html"):
        private = (demo / f"results/tables/{name}").read_bytes()
        images = leaks.images_in(private)
        assert len(images) > 40
        assert sum(leaks.resembles(image, cohort) for image in images) > 5
        words = leaks.words_in(private)
        assert any(text.lower() in words for text in manifest["caption"].dropna())
    assert any(name in words for name in manifest["patient_id"])


def test_what_the_workflow_writes_is_its_owners_alone(demo):
    stages = ("cohort", "generate", "finetune", "features", "privacy", "downstream")
    for folder in (*stages, "faithfulness", "costs", "paper_audit", "tables"):
        files = [path for path in (demo / "results" / folder).rglob("*") if path.is_file()]
        assert files
        assert [path for path in files if path.stat().st_mode & 0o077] == []
    logs = [path for path in (demo / "logs").rglob("*.log") if path.stat().st_mode & 0o077]
    assert logs == []


def test_chance_explains_how_often_unrelated_radiographs_are_taken_for_a_patient(demo):
    attacker = read_record(demo / "results/privacy/attacker/real.json")
    assert attacker.get("reid_auc").interval[0] > 0.8
    matches = read_record(demo / "results/privacy/held_out_real.json").get("reid_count")
    chance = attacker.get("chance_share").value
    assert 0 < chance < 0.05
    # A level for every machine: the attacker is trained, and differs a little on each.
    assert binom.sf(matches.value - 1, matches.n, chance) > 0.001
    assert binom.cdf(matches.value, matches.n, chance) > 0.001


def read_h5(path):
    with h5py.File(path) as file:
        return file["features"][:], file["image_id"].asstr()[:].tolist()


@pytest.mark.parametrize("model", ["training_copies", "held_out_real"])
def test_matched_captions_align_better_than_shuffled_ones(demo, model):
    folder = demo / f"results/features/{model}/test"
    images, image_ids = read_h5(folder / "biovil_t_image.h5")
    texts, text_ids = read_h5(folder / "biovil_t_text.h5")
    assert image_ids == text_ids
    # Of a report's two wordings, one is scored.
    prompts = scored_prompts(read_prompts(demo / "results/cohort/prompts/test.parquet"), "sound")
    scored = [row for row, name in enumerate(image_ids) if name in set(prompts["prompt_id"])]
    images, texts = images[scored], texts[scored]
    cosines = images @ texts.T
    matched = np.diag(cosines).mean()
    n = len(images)
    shuffled = (cosines.sum() - np.trace(cosines)) / (n * (n - 1))
    assert matched > shuffled + 0.05
    assert value(demo, "fidelity", model, "alignment") == pytest.approx(matched, abs=1e-5)


def test_a_rare_pathologys_row_says_how_few_images_it_rests_on(demo):
    prompts = scored_prompts(read_prompts(demo / "results/cohort/prompts/test.parquet"), "sound")
    manifest = read_manifest(demo / "results/cohort/manifest.parquet")
    real = manifest[manifest["image_id"].isin(prompts["image_id"])]
    record = read_record(demo / "results/fidelity/rad_dino/tiny_sd.json")
    counts = {f: int((prompts[f] == 1).sum()) for f in FINDINGS}
    rarest = min(counts, key=counts.get)
    assert counts[rarest] < 20
    for finding in FINDINGS:
        fid = record.get("fid", finding)
        assert fid.n == counts[finding]
        assert fid.n_reference == int((real[finding] == 1).sum())
        assert (fid.value is None) == (min(fid.n, fid.n_reference) < 2)
        assert (
            fid.value is not None or str(fid.n) in fid.reason or str(fid.n_reference) in fid.reason
        )
    assert (
        counts[rarest]
        in pd.read_csv(demo / "results/tables/table02_fid_per_pathology.csv").to_numpy()
    )


def test_a_prompt_set_that_was_not_given_leaves_dashes_with_the_reason(demo):
    text = (demo / "results/tables/table04_classification_augmented.md").read_text()
    row = next(line for line in text.split("\n") if "My model" in line)
    assert "–" in row
    assert "no images of the prompt set `augment` were given" in text.replace("\\", "")


def test_published_values_never_stand_beside_the_embedded_worlds(demo):
    for table in STEMS:
        text = (demo / f"results/tables/{table}.csv").read_text()
        assert "ublished" not in re.sub("[Aa]s[ _]published", "", text)


def test_controls_are_what_they_say(demo):
    manifest = read_manifest(demo / "results/cohort/manifest.parquet").set_index("image_id")
    prompts = read_prompts(demo / "results/cohort/prompts/privacy.parquet").set_index("prompt_id")
    train = set(manifest.loc[manifest["split"] == "train", "patient_id"])
    shards = sorted((demo / "results/generate/held_out_real/privacy").glob("*.parquet"))
    items = list(read_shards(shards))
    assert [item.id for item in items] == prompts.index.tolist()
    for item in items:
        assert manifest.loc[item.source_image_id, "patient_id"] not in train
        assert item.caption == manifest.loc[item.source_image_id, "caption"]
    blurred = read_shards(
        sorted((demo / "results/generate/blurred_real/privacy").glob("*.parquet"))
    )
    assert [i.source_image_id for i in blurred] == [i.source_image_id for i in items]


def test_a_second_demo_does_no_job(demo):
    (demo / ".snakemake/demo_at_rest").unlink(missing_ok=True)  # so that Snakemake is asked
    output = run(["make", "demo"], demo).stdout
    assert "Nothing to be done" in output
    assert jobs_in(output) == set()


def overlay(demo, change):
    """Flags that plan the demo with a changed config."""
    settings = yaml.safe_load((demo / "profiles/demo/overlay.yaml").read_text())
    change(settings)
    (demo / "results/changed.yaml").write_text(yaml.safe_dump(settings))
    return [*PROFILE, "--configfile", "config.yaml", "results/changed.yaml"]


def test_adding_a_model_plans_its_jobs_and_the_joins_alone(demo):
    def add(settings):
        settings["models"]["second_sd"] = json.loads(json.dumps(settings["models"]["tiny_sd"]))
        settings["run_models"].insert(1, "second_sd")

    jobs = planned_jobs(demo, *overlay(demo, add))
    assert jobs - JOINS == {
        (rule, "second_sd")
        for rule in (
            "finetune_train",
            "finetune_finish",
            "generate_sample",
            "features_fidelity",
            "features_privacy",
            "fidelity_score",
            "privacy_score",
            "privacy_lenses",
            "privacy_membership",
            "downstream_train_classifier",
            "downstream_score_classifier",
            "downstream_masks",
            "downstream_train_segmenter",
            "downstream_score_segmenter",
            "downstream_train_reporter",
            "downstream_chexbert",
            "downstream_score_reports",
            "faithfulness_look",
            "faithfulness_score",
            "faithfulness_stress_look",
            "faithfulness_stress",
        )
    }
    assert jobs >= JOINS


def test_removing_a_model_plans_the_joins_alone(demo):
    jobs = planned_jobs(demo, *overlay(demo, lambda s: s["run_models"].remove("blurred_real")))
    assert jobs == JOINS


def test_changing_a_models_block_plans_that_model_alone(demo):
    def slower(settings):
        settings["models"]["tiny_sd_base"]["generate"]["steps"] = 21

    jobs = planned_jobs(demo, *overlay(demo, slower))
    assert {model for _, model in jobs - JOINS} == {"tiny_sd_base"}
    assert ("generate_sample", "tiny_sd_base") in jobs

    def longer(settings):
        settings["models"]["tiny_sd"]["finetune"]["epochs"] += 1

    jobs = planned_jobs(demo, *overlay(demo, longer))
    assert {model for _, model in jobs - JOINS} == {"tiny_sd"}
    assert ("finetune_train", "tiny_sd") in jobs


def test_a_models_name_in_tables_plans_the_joins_alone(demo):
    def rename(settings):
        settings["models"]["tiny_sd"]["display"]["name"] = "Another name"

    assert planned_jobs(demo, *overlay(demo, rename)) == TABLES


@contextlib.contextmanager
def edited(demo, *names, add="\n_EDITED = 1\n"):
    """Append a line to scripts of the demo's checkout; restore them at the end."""
    before = {name: (demo / "workflow_scripts" / name).read_text() for name in names}
    try:
        for name, text in before.items():
            (demo / "workflow_scripts" / name).write_text(text + add)
        yield
    finally:
        for name, text in before.items():
            (demo / "workflow_scripts" / name).write_text(text)


def rules_after(demo, *names, **added):
    with edited(demo, *names, **added):
        return {rule for rule, _ in planned_jobs(demo, *PROFILE)}


SHOWN = {"tables_build", "tables_costs", "tables_figures", "tables_report"}
FROM_RECORDS = SHOWN | {"costs_jobs"}


def test_an_edited_script_never_costs_gpu_days(demo):
    costly = ["finetune/train.py", "generate/sample.py", "cohort/build_manifest.py"]
    costly += ["features/train_reid.py", "downstream/report_generation/train.py"]
    assert rules_after(demo, *costly) == set()


def test_a_comment_and_a_docstring_rerun_nothing(demo):
    names = ["fidelity/score.py", "common/records.py", "features/extract.py"]
    assert rules_after(demo, *names, add='\n# a comment\n"""Text."""\n') == set()


OF_IMAGES = {
    "features_fidelity",
    "features_privacy",
    "fidelity_score",
    "privacy_score",
    "privacy_lenses",
    "privacy_extraction",
    "downstream_masks",
    "downstream_train_classifier",
    "downstream_train_segmenter",
    "downstream_train_reporter",
    "downstream_chexbert",
    "downstream_score_classifier",
    "downstream_score_segmenter",
    "downstream_score_reports",
    "faithfulness_look",
    "faithfulness_score",
    "tables_riskiest",
}


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        # Scripts of privacy, downstream and faithfulness compute their intervals with it.
        (
            "fidelity/resample.py",
            {"fidelity_score", "privacy_score", "privacy_lenses", "privacy_attacker"}
            | {"privacy_extraction"}
            | {f"downstream_score_{x}" for x in ("classifier", "segmenter", "labeller", "reports")}
            | {"faithfulness_score", "faithfulness_score_real", "faithfulness_stress"}
            | {"tables_riskiest", *FROM_RECORDS},
        ),
        # Novelty draws its references with it.
        (
            "generate/make_control.py",
            {"generate_control", *OF_IMAGES, *FROM_RECORDS},
        ),
        # CheXbert's tokenizer is loaded with it.
        (
            "features/encoders/biovil_t_text.py",
            {"features_fidelity", "fidelity_score", "downstream_chexbert"}
            # Novelty reads the features of test images, which are made in one job.
            | {"privacy_score", "privacy_lenses", "tables_riskiest"}
            | {"downstream_score_reports", *FROM_RECORDS},
        ),
        ("features/encoders/inception_v3.py", set()),  # the demo does not use it
        (
            "downstream/gains.py",
            {f"downstream_score_{x}" for x in ("classifier", "segmenter", "labeller", "reports")}
            | {"faithfulness_score", "faithfulness_score_real", "faithfulness_stress"}
            | FROM_RECORDS,
        ),
        # The judge reads images, and the other judge's network is in the closure, named or not.
        (
            "faithfulness/judges.py",
            {"faithfulness_look", "faithfulness_score", "faithfulness_score_real", *FROM_RECORDS}
            | {"faithfulness_stress_radiographs", "faithfulness_stress_look"}
            | {"faithfulness_stress"},
        ),
        ("tables/derive/pareto.py", SHOWN - {"tables_costs"}),
    ],
)
def test_an_edit_reruns_what_imports_it_and_what_follows(demo, name, rules):
    assert rules_after(demo, name) == rules


def test_another_captions_source_does_retrain(demo):
    def impressions(settings):
        settings["cohort"]["caption_source"] = "impression"

    rules = {rule for rule, _ in planned_jobs(demo, *overlay(demo, impressions))}
    assert {"cohort_manifest", "finetune_train", "generate_sample"} <= rules


def test_exported_images_are_a_folder_for_people(demo):
    folder = "results/generate/held_out_real/test/images"
    run(["snakemake", *PROFILE, folder], demo)
    metadata = pd.read_csv(demo / folder / "metadata.csv")
    assert set(metadata.columns) >= {"file_name", "prompt_id"}
    assert all((demo / folder / name).is_file() for name in metadata["file_name"])
    assert len(metadata) == len(read_prompts(demo / "results/cohort/prompts/test.parquet"))


def benchmark_seconds(demo, folder="*"):
    rows = [
        row
        for path in (demo / "benchmarks").glob(f"{folder}/**/*.tsv")
        if path.relative_to(demo / "benchmarks").parts[0] not in LEFT_OUT
        for row in csv.DictReader(path.read_text().splitlines(), delimiter="\t")
    ]
    return sum(float(row["s"]) for row in rows)


def test_the_demos_wall_time_is_the_sum_of_its_benchmark_files(demo):
    # Other tests have run jobs of the demo again since.
    forced = ["--forcerun", "costs_jobs", "--", "results/tables/costs.csv"]
    run(["snakemake", *PROFILE, *forced], demo)
    with (demo / "results/tables/costs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    total = rows[-1]
    assert (total["Model"], total["Stage"]) == ("Total", "All stages")
    assert float(total["Wall time (h)"]) * 3600 == pytest.approx(benchmark_seconds(demo))
    assert float(total["GPU-hours"]) == 0
    assert total["Failed attempts"] == "–"
    assert BENCHMARKS_ALONE in total["Notes"]
    tuned = [row for row in rows if row["Stage"] == "Fine-tuning" and row["Block"] == "model"]
    assert {row["Model"] for row in tuned} == {"Tiny SD (fine-tuned)", "Tiny SD (LoRA)"}
    seconds = 3600 * sum(float(row["Wall time (h)"]) for row in tuned)
    assert seconds == pytest.approx(benchmark_seconds(demo, "finetune"))
    attempts = read_attempts(demo / "results/costs/jobs.csv")
    assert OTHER not in {attempt.model for attempt in attempts}
    report = (demo / "results/tables/report.html").read_text()
    assert re.search(r"(hours|minutes) of wall time", report)


def test_the_cost_makes_the_figures_and_the_report_anew_and_no_other_table(demo):
    jobs = planned_jobs(demo, *PROFILE, "--forcerun", "costs_jobs")
    joins = {"costs_jobs", "tables_costs", "tables_figures", "tables_report"}
    assert jobs == {(rule, None) for rule in joins}


def test_what_the_demo_made_names_its_job(demo):
    record = json.loads((demo / "results/fidelity/rad_dino/tiny_sd.json").read_text())
    assert {"slurm_job_id", "slurm_node", "device"} <= record["provenance"].keys()
    span = json.loads((demo / "results/finetune/tiny_sd/spans/1/span.json").read_text())
    assert {"slurm_job_id", "slurm_node", "device"} <= span["provenance"].keys()
    assert span["provenance"]["device"] == "cpu"
