"""The fidelity record: the images that each value is computed from, and refused inputs."""

import shutil
from functools import partial

import h5py
import numpy as np
import pytest

from tests.feature_files import captions_sha256, changed
from tests.fidelity.conftest import DIMENSIONS, JOINT, write_h5
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, write_manifest
from workflow_scripts.common.records import read_record
from workflow_scripts.fidelity.comparison import resamples_of
from workflow_scripts.fidelity.frechet import frechet_distance
from workflow_scripts.fidelity.inputs import ScoredModel
from workflow_scripts.fidelity.jackknife import corrected_distance, fewest_images
from workflow_scripts.fidelity.kernel import kernel_distance
from workflow_scripts.fidelity.manifold import manifold_overlap
from workflow_scripts.fidelity.resample import units_of
from workflow_scripts.fidelity.score import Settings, main, score

DIRECTIONS = {
    "fid": "lower",
    "fid_floor": "none",
    "fid_floor_matched": "none",
    "prompts_without_partner": "none",
    "fid_corrected": "lower",
    "kid": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
    "alignment": "higher",
}


OVERLAPS = ("precision", "recall", "density", "coverage")


def run(cohort, output, *flags):
    main(
        [
            *(
                "--model",
                "model",
                "--encoder",
                "rad_dino",
                "--protocol",
                "sound",
                "--manifest",
                str(cohort.manifest),
            ),
            *("--prompts", str(cohort.prompts), "--real", str(cohort.real)),
            *("--generated", str(cohort.generated), "--output", str(output)),
            *("--kid-bootstrap", "50", *flags),
        ]
    )
    return read_record(output)


def rescore(cohort, protocol="sound"):
    settings = Settings(kid_bootstrap=20)
    folders = cohort.manifest, cohort.prompts, cohort.real, cohort.generated
    return score(ScoredModel("model", protocol, *folders), "rad_dino", settings)


def own_radiographs(cohort):
    """Return the features of the prompts' radiographs: the first of each patient's two."""
    return cohort.features.astype(np.float32)[::2]


def generated_features(cohort):
    with h5py.File(cohort.generated / "rad_dino.h5") as file:
        return file["features"][:]


def test_a_record_holds_every_metric_for_all_images_and_each_finding(cohort, tmp_path):
    record = run(cohort, tmp_path / "model.json")
    keys = {(value.metric, value.subset) for value in record.values}
    subsets = ("all", *FINDINGS)
    expected = {(metric, subset) for metric in DIRECTIONS for subset in subsets}
    for other in ("studies", "test_set"):
        expected |= {
            (f"{metric}_{other}", subset) for metric in ("fid", "kid") for subset in subsets
        }
        expected |= {(f"{metric}_{other}", "all") for metric in OVERLAPS}
    assert keys == expected
    assert (record.stage, record.model, record.family) == ("fidelity", "model", "rad_dino")
    for value in record.values:
        metric = value.metric.removesuffix("_studies").removesuffix("_test_set")
        assert value.direction == DIRECTIONS[metric]
    assert record.provenance["device"] == "cpu"


@pytest.mark.parametrize("subset", ["all", "Cardiomegaly", "Pneumonia"])
def test_values_are_those_of_the_images_with_the_finding(cohort, subset):
    record = rescore(cohort)
    real, generated = own_radiographs(cohort), generated_features(cohort)
    patients = asked = cohort.prompt_frame["patient_id"].to_numpy(str)
    if subset != "all":
        shown = (cohort.prompt_frame[subset] == 1).to_numpy()
        prompted = (cohort.prompt_frame[subset] == 1).to_numpy()
        real, patients = real[shown], patients[shown]
        generated, asked = generated[prompted], asked[prompted]
    units = units_of(patients, asked)
    fid = record.get("fid", subset)
    assert fid.value == frechet_distance(real, generated)
    assert (fid.n, fid.n_reference) == (len(generated), len(real))
    assert record.get("kid", subset).value == kernel_distance(real, generated, units).value
    if subset != "Pneumonia":  # has 4 generated images, fewer than k
        overlap = manifold_overlap(real, generated)  # patients move the intervals alone
        for name in ("precision", "recall", "density", "coverage"):
            assert record.get(name, subset).value == getattr(overlap, name)
        low, high = record.get("kid", subset).interval
        assert low < record.get("kid", subset).value < high
    corrected = record.get("fid_corrected", subset)
    if len(generated) < fewest_images(DIMENSIONS):
        assert corrected.value is None
        assert corrected.reason.startswith(f"{len(generated)} images are too few")
    else:
        expected = corrected_distance(real, generated, units)
        assert (corrected.value, corrected.interval) == (expected.value, expected.interval)
        assert corrected.value < fid.value
    floor = record.get("fid_floor", subset)
    assert 0 < floor.value < fid.value
    drawn_from = record.details["floors"]["fid_floor"][subset]["drawn_from"]
    assert drawn_from == ("finding" if subset == "Cardiomegaly" else "all")


def test_intervals_know_which_radiographs_are_of_one_patient(cohort):
    """The prompts belong to 30 patients, one radiograph each."""
    manifest = cohort.manifest_frame.copy()
    manifest["patient_id"] = [f"p{number // 4:02d}" for number in range(len(manifest))]
    write_manifest(manifest, cohort.manifest)
    real, generated = own_radiographs(cohort), generated_features(cohort)
    patients = manifest["patient_id"].to_numpy(str)[::2]
    units = units_of(patients, patients)
    record = rescore(cohort)
    overlap = manifold_overlap(real, generated, units=units)
    by_image = manifold_overlap(real, generated)
    for name, interval in overlap.intervals().items():
        assert record.get(name).interval == interval
    assert overlap.intervals()["density"] != by_image.intervals()["density"]
    settings = Settings(kid_bootstrap=20)
    kid = kernel_distance(real, generated, units, resamples_of(0, units, settings))
    assert record.get("kid").interval == kid.interval
    kept = record.details["replicates"]
    np.testing.assert_allclose(kept["kid"]["values"], kid.replicates, rtol=1e-6)
    assert set(kept) == {
        *("kid", "alignment", "fid_corrected", "precision", "recall", "density", "coverage")
    }
    assert kept["kid"]["units"] == len(kept["alignment"]["values"]) == 30  # patients
    assert len(kept["recall"]["values"]) == kept["recall"]["units"] == 20  # groups of patients


def test_prompts_of_one_patient_are_one_unit(cohort):
    """All prompts belong to three patients: no interval of KID, and a wide one of alignment."""
    manifest = cohort.manifest_frame.copy()
    manifest["patient_id"] = [f"p{i % 3}" for i in range(len(manifest))]
    before = rescore(cohort)
    write_manifest(manifest, cohort.manifest)
    noisy = np.random.default_rng(5).standard_normal((60, JOINT))
    write_h5(cohort.generated, "biovil_t_image", noisy, list(cohort.prompt_frame["prompt_id"]))
    record = rescore(cohort)
    assert before.get("kid").interval is not None
    assert record.get("kid").interval is None
    assert record.get("alignment").interval_kind == "t 95% over patients"
    assert len(record.details["replicates"]["alignment"]["values"]) == 3
    assert record.get("kid", "Pneumonia").value is not None
    manifest["patient_id"] = "p0"
    write_manifest(manifest, cohort.manifest)
    record = rescore(cohort)
    assert record.get("kid").reason == "the reference images are of one patient"
    assert record.get("alignment").interval is None


def test_the_digest_of_the_images_tells_other_prompts_apart(cohort):
    first = rescore(cohort).details["images_sha256"]
    ids = list(cohort.prompt_frame["prompt_id"])
    for encoder, width in (("rad_dino", 6), ("biovil_t_image", 4), ("biovil_t_text", 4)):
        write_h5(cohort.generated, encoder, np.ones((len(ids) - 1, width)), ids[:-1])
    fewer = rescore(cohort).details["images_sha256"]
    assert fewer["real"] != first["real"]  # an unanswered prompt's radiograph does not count
    assert fewer["generated"] != first["generated"]


def test_too_few_images_leave_the_reason(cohort):
    record = rescore(cohort)
    # Fracture: one real image, whose prompt made the one generated image.
    for metric in ("fid", "fid_floor", "fid_floor_matched", "fid_corrected", "kid"):
        value = record.get(metric, "Fracture")
        assert value.value is None
        assert value.reason == "only 1 generated image(s) with this finding"
        assert (value.n, value.n_reference) == (1, 1)
    alignment = record.get("alignment", "Fracture")
    assert alignment.value == pytest.approx(1)
    assert alignment.interval is None
    # Four prompts: enough for FID, not for five neighbours, nor for an interval.
    reason = "only 4 generated image(s) with this finding (6 needed)"
    assert record.get("recall", "Pneumonia").reason == reason
    assert record.get("kid", "Pneumonia").interval is None
    # Uncertain (-1) and missing labels are not positive.
    for finding in ("Edema", "Pleural Other"):
        for metric in DIRECTIONS:
            value = record.get(metric, finding)
            assert value.value is None
            assert "only 0 generated" in value.reason
            assert value.n == 0


def test_alignment_matches_rows_by_id(cohort):
    record = rescore(cohort)
    assert record.get("alignment").value == pytest.approx(1)
    assert record.get("alignment").n == len(cohort.prompt_frame)
    with changed(cohort.generated / "biovil_t_image.h5") as file:
        ids = file["image_id"].asstr()[:]
        file["image_id"][...] = np.roll(ids, 1)  # each image beside another's caption
    assert rescore(cohort).get("alignment").value < 0.5


def test_a_control_has_the_findings_of_the_radiograph_it_shows(cohort):
    ids = list(cohort.prompt_frame["prompt_id"])
    # Every prompt shows a radiograph without findings, but two that show the one fracture.
    sources = ["i05a"] * len(ids)
    sources[10] = sources[20] = "i00a"
    write_h5(cohort.generated, "rad_dino", generated_features(cohort), ids, sources)
    record = rescore(cohort)
    assert record.get("alignment", "Fracture").n == 2
    assert record.get("fid", "Cardiomegaly").n == 2
    assert record.get("fid", "Fracture").reason == "only 1 reference image(s) with this finding"
    # An empty source is a generated image: the prompt's findings hold.
    write_h5(cohort.generated, "rad_dino", generated_features(cohort), ids, [""] * len(ids))
    assert rescore(cohort).get("alignment", "Fracture").n == 1


def test_as_published_compares_with_the_radiographs_of_prompts_without_an_image_too(cohort):
    ids = list(cohort.prompt_frame["prompt_id"])[:-5]
    write_h5(cohort.generated, "rad_dino", generated_features(cohort)[:-5], ids)
    for encoder in ("biovil_t_image", "biovil_t_text"):
        write_h5(cohort.generated, encoder, np.ones((len(ids), JOINT)), ids)
    assert rescore(cohort).get("fid").n_reference == len(ids)
    for path in (*cohort.real.iterdir(), *cohort.generated.iterdir()):
        with changed(path) as file:
            file.attrs["protocol"] = "as_published"
    record = rescore(cohort, "as_published")
    fid = record.get("fid")
    radiographs = own_radiographs(cohort)
    assert fid.n_reference == len(cohort.prompt_frame) == len(radiographs)
    assert fid.value == pytest.approx(
        frechet_distance(radiographs, generated_features(cohort)), rel=1e-9
    )
    # Every pair counts in its KID: of a radiograph and the image of its own caption, too.
    every = kernel_distance(radiographs, generated_features(cohort)).value
    assert record.get("kid").value == pytest.approx(every, rel=1e-9)


def test_the_same_features_and_seed_give_the_same_values(cohort, tmp_path):
    first = run(cohort, tmp_path / "a.json")
    assert run(cohort, tmp_path / "b.json").values == first.values
    other = run(cohort, tmp_path / "c.json", "--seed", "7")
    assert other.get("fid") == first.get("fid")
    assert other.get("kid").interval != first.get("kid").interval


@pytest.mark.parametrize(
    ("attribute", "told"),
    [
        ("weights_sha256", "another weights_sha256"),
        ("preprocessing", "another preprocessing"),
        ("protocol", "protocol"),
        ("encoder", "encoder"),
        ("collection", "another collection: 'another' in the file, 'model' expected"),
        ("collection_sha256", "are of other images"),
        ("purpose", "purpose"),
    ],
)
def test_features_of_another_origin_are_refused(cohort, attribute, told):
    with changed(cohort.generated / "rad_dino.h5") as file:
        file.attrs[attribute] = "another"
    with pytest.raises(InputError, match=told):
        rescore(cohort)


def test_a_copied_file_of_another_collection_is_refused_by_name(cohort):
    """A control's file replaces a model's, and radiographs' features replace images'."""
    generated = cohort.generated / "rad_dino.h5"
    other = write_h5(
        cohort.generated.parent / "noise",
        "rad_dino",
        generated_features(cohort),
        list(cohort.prompt_frame["prompt_id"]),
        collection="noise",
    )
    shutil.copy(other, generated)
    with pytest.raises(InputError, match="collection: 'noise' in the file, 'model' expected"):
        rescore(cohort)
    shutil.copy(cohort.real / "rad_dino.h5", generated)
    with pytest.raises(InputError, match="collection: 'real' in the file"):
        rescore(cohort)


def test_features_of_other_captions_are_refused(cohort):
    with changed(cohort.generated / "biovil_t_text.h5") as file:
        file.attrs["captions_sha256"] = "0" * 64
    with pytest.raises(InputError, match=r"other captions.*captions_sha256"):
        rescore(cohort)


def test_features_of_a_controls_captions_are_of_the_radiographs_it_shows(cohort):
    ids = list(cohort.prompt_frame["prompt_id"])
    sources = [*cohort.manifest_frame["image_id"].iloc[2 : 2 + len(ids)]]
    captions = cohort.manifest_frame["caption"].iloc[2 : 2 + len(ids)].fillna("")
    texts = np.ones((len(ids), 4))
    write = partial(write_h5, cohort.generated, "biovil_t_text", texts, ids)
    write(sources, captions_sha256=captions_sha256(captions))
    rescore(cohort)
    write(sources)
    with pytest.raises(InputError, match="other captions"):
        rescore(cohort)


def test_other_versions_of_a_library_are_told_and_compared(cohort, caplog):
    with changed(cohort.generated / "rad_dino.h5") as file:
        file.attrs["versions"] = '{"torch": "9.9"}'
    assert rescore(cohort).get("fid").value is not None
    assert "made with torch None and 9.9" in caplog.text


def test_unknown_ids_are_refused_by_name(cohort):
    ids = list(cohort.prompt_frame["prompt_id"])
    features = generated_features(cohort)
    write_h5(cohort.generated, "rad_dino", features, [*ids[:-1], "test-unknown-r00"])
    with pytest.raises(InputError, match=r"prompt set, first 'test-unknown-r00'"):
        rescore(cohort)
    write_h5(cohort.generated, "rad_dino", features, ids)
    write_h5(cohort.generated, "biovil_t_text", features, [*ids[:-1], "test-unknown-r00"])
    with pytest.raises(InputError, match=r"prompt set, first 'test-unknown-r00'"):
        rescore(cohort)
    write_h5(cohort.generated, "biovil_t_text", features[1:], ids[1:])
    with pytest.raises(InputError, match="59 images, rad_dino 60"):
        rescore(cohort)
    write_h5(cohort.real, "rad_dino", cohort.features[:3], ["i00a", "i00b", "nobody"])
    with pytest.raises(InputError, match="manifest, first 'nobody'"):
        rescore(cohort)


def test_features_that_are_not_finite_are_refused_by_name(cohort):
    features = generated_features(cohort)
    features[7, 2] = np.nan
    ids = list(cohort.prompt_frame["prompt_id"])
    write_h5(cohort.generated, "rad_dino", features, ids)
    with pytest.raises(InputError, match=ids[7]):
        rescore(cohort)


def test_fewer_images_than_prompts_count_as_what_they_are(cohort):
    ids = list(cohort.prompt_frame["prompt_id"])
    for encoder in ("rad_dino", "biovil_t_image", "biovil_t_text"):
        write_h5(cohort.generated, encoder, generated_features(cohort)[:20], ids[:20])
    record = rescore(cohort)
    assert record.get("fid").n == record.get("alignment").n == 20
    assert record.get("fid").n_reference == record.get("fid_studies").n_reference == 20
    assert record.get("fid_test_set").n_reference == len(cohort.features)
    assert record.details["prompts"] == 60


def test_nothing_is_written_when_it_fails(cohort, tmp_path):
    (cohort.generated / "biovil_t_text.h5").unlink()
    with pytest.raises(InputError, match="biovil_t_text"):
        run(cohort, tmp_path / "model.json")
    assert not list(tmp_path.glob("*model.json*"))
