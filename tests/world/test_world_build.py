"""The world on disk: MIMIC's layout, reproducible from its seed, complete or absent."""

import functools
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.world import build, external_model
from workflow_scripts.world.build import build_world
from workflow_scripts.world.captions import read_findings


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("world") / "w"
    build.main(["--out", str(out), "--seed", "7", "--patients", "12", "--only", "radiographs"])
    return out


def table(world: Path, name: str) -> pd.DataFrame:
    path = world / "mimic-cxr-jpg" / "2.0.0" / f"mimic-cxr-2.0.0-{name}.csv.gz"
    return pd.read_csv(path, dtype={"subject_id": str, "study_id": str})


def annotations(world: Path) -> dict[str, list[dict]]:
    name = "chat_{}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
    return {
        split: json.loads((world / "llava-rad" / name.format(split)).read_text())
        for split in ("train", "dev", "test")
    }


def taken(entries: list[dict]) -> dict[str, dict]:
    """Return the annotation of each captioned image that the cohort takes: gpt4's before others."""
    found: dict[str, dict] = {}
    for entry in sorted(entries, key=lambda entry: entry["generate_method"]):
        if entry["conversations"][1]["value"] is not None:
            found.setdefault(entry["id"], entry)
    return found


def test_the_tables_have_the_official_columns_and_agree(world: Path):
    metadata, split, labels = (table(world, n) for n in ("metadata", "split", "chexpert"))
    assert list(metadata.columns) == [
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "Rows",
        "Columns",
        "StudyDate",
        "StudyTime",
        "ProcedureCodeSequence_CodeMeaning",
        "ViewCodeSequence_CodeMeaning",
        "PatientOrientationCodeSequence_CodeMeaning",
    ]
    assert list(split.columns) == ["dicom_id", "study_id", "subject_id", "split"]
    assert list(labels.columns) == ["subject_id", "study_id", *FINDINGS]
    assert set(metadata["dicom_id"]) == set(split["dicom_id"])
    assert set(metadata["study_id"]) == set(labels["study_id"])
    assert not labels["study_id"].duplicated().any()
    values = labels[list(FINDINGS)].to_numpy(float)
    assert set(np.unique(values[~np.isnan(values)])) <= {-1.0, 0.0, 1.0}
    assert metadata["subject_id"].str.fullmatch(r"9999\d{4}").all()
    assert metadata["study_id"].str.fullmatch(r"9999\d{4}").all()


def test_every_row_has_its_picture_and_every_frontal_one_its_mask(world: Path):
    metadata = table(world, "metadata")
    for row in metadata.itertuples():
        folder = f"files/p99/p{row.subject_id}/s{row.study_id}"
        with Image.open(world / "mimic-cxr-jpg/2.0.0" / folder / f"{row.dicom_id}.jpg") as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "L", (256, 256))
        mask = world / "masks" / f"{row.dicom_id}.png"
        assert mask.exists() == (row.ViewPosition != "LATERAL")
        if mask.exists():
            assert set(np.unique(np.asarray(Image.open(mask)))) == {0, 1, 2}
    count = len(list((world / "mimic-cxr-jpg/2.0.0/files").rglob("*.jpg")))
    assert count == len(metadata)


def test_annotations_point_to_pictures_of_their_split(world: Path):
    split = table(world, "split").set_index("dicom_id")["split"]
    for name, entries in annotations(world).items():
        assert entries
        for entry in entries:
            path = entry["image"].removeprefix("mimic/")
            assert (world / "mimic-cxr-jpg/2.0.0/files" / path).is_file()
            assert split[entry["id"]] == {"dev": "validate"}.get(name, name)
            assert [turn["from"] for turn in entry["conversations"]] == ["human", "gpt"]
            assert entry["generate_method"] in ("rule-based", "gpt4")
            assert entry["impression"]
            assert entry["view"] in ("AP", "PA")
            assert set(entry["chexpert_labels"]) == set(FINDINGS)


def test_the_same_seed_gives_the_same_bytes_whatever_the_processes(world: Path, tmp_path: Path):
    build_world(tmp_path / "two", seed=7, patients=12, threads=2, weights=False)
    assert sha256_of(tmp_path / "two") == sha256_of(world)
    build_world(tmp_path / "other", seed=8, patients=10, threads=1, weights=False)
    assert sha256_of(tmp_path / "other") != sha256_of(world)


def test_the_checkpoints_are_written_from_captioned_training_radiographs(
    world: Path, tmp_path: Path, monkeypatch
):
    seen: dict = {}

    def diffusion(images, captions, out_dir, seed):
        seen["diffusion"] = (images, captions, seed)
        (out_dir / "d").write_text("d")

    def encoders(images, captions, findings, patients, out_dir, seed):
        seen["encoders"] = (findings, patients)

    def cxas(images, masks, out_dir, seed):
        seen["cxas"] = (images, masks)

    def llava_rad(images, wordings, summaries, indications, findings, out_dir, seed):
        seen["llava_rad"] = (wordings, summaries, indications)

    fakes = {
        "tiny_llava_rad": {"write_tiny_llava_rad": llava_rad},
        "diffusion": {"write_diffusion_checkpoints": diffusion},
        "encoders": {"write_encoder_checkpoints": encoders},
        "tiny_cxas": {"write_cxas_checkpoint": cxas},
        "tiny_chexbert": {"write_chexbert": lambda out_dir, seed: None},
    }
    for name, content in fakes.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, f"workflow_scripts.world.{name}", module)
    build_world(tmp_path / "w", seed=7, patients=12, threads=1)
    images, captions, seed = seen["diffusion"]
    findings, patients = seen["encoders"]
    pictures, masks = seen["cxas"]
    assert (pictures == images).all()
    assert (masks.shape, masks.dtype) == (images.shape, np.uint8)
    root = world / "mimic-cxr-jpg/2.0.0/files"
    pairs = set()
    train = taken(annotations(world)["train"])
    for entry in train.values():
        picture = Image.open(root / entry["image"].removeprefix("mimic/"))
        mask, organs = (
            np.asarray(Image.open(world / folder / f"{entry['id']}.png"))
            for folder in ("masks", "organs")
        )
        assert set(np.unique(organs)) >= {0, 1, 2, 4}
        pairs.add((picture.tobytes(), (mask | organs << 2).tobytes()))
    assert {(p.tobytes(), m.tobytes()) for p, m in zip(pictures, masks, strict=True)} == pairs
    said = [entry["conversations"][1]["value"] for entry in train.values()]
    assert sorted(captions) == sorted(said)
    assert (images.shape, images.dtype) == ((len(captions), 256, 256), np.uint8)
    assert (findings.shape, findings.dtype) == ((len(captions), 14), np.int8)
    assert set(np.unique(findings)) <= {0, 1}
    assert len(patients) == len(captions)
    assert seed == 7
    assert (tmp_path / "w" / "weights" / "d").exists()
    wordings, summaries, indications = seen["llava_rad"]
    assert [one[0] for one in wordings] == captions
    assert len({len(one) for one in wordings}) == 1
    # Another wording says the same: it is denied or affirmed of the same findings.
    for one in wordings:
        said = [{f.name for f in read_findings(text, 0)} for text in one]
        assert all(names == said[0] for names in said)
    assert len(summaries) == len(captions)
    assert sorted(indications, key=str) == sorted(
        (entry["reason"] for entry in train.values()), key=str
    )


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch):
    def broken(*_):
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(build, "_put_all", broken)
    with pytest.raises(RuntimeError, match="fire"):
        build_world(tmp_path / "w", seed=7, patients=10, threads=1)
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_world_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="3 patient"):
        build_world(tmp_path / "w", seed=7, patients=3, threads=1)


def write_prompts(path: Path, first: int, captions: list[str]) -> Path:
    ids = [f"{path.stem}-{first + k:016x}-r00" for k in range(len(captions))]
    frame = pd.DataFrame({"prompt_id": ids, "caption": captions, "seed": 3, "replicate": 0})
    frame.to_csv(path, index=False)
    return path


def test_the_external_model_draws_one_new_patient_for_each_prompt(tmp_path: Path):
    one = write_prompts(tmp_path / "test.csv", 0, ["Severe cardiomegaly.", "The lungs are clear."])
    two = write_prompts(tmp_path / "privacy.csv", 9, ["Large left pleural effusion."])
    arguments = ["--prompts", str(one), str(two), "--seed", "5"]
    external_model.main([*arguments, "--out", str(tmp_path / "images")])
    external_model.main([*arguments, "--out", str(tmp_path / "again")])
    assert sha256_of(tmp_path / "images") == sha256_of(tmp_path / "again")
    listed = pd.read_csv(tmp_path / "images" / "metadata.csv")
    assert list(listed.columns) == ["file_name", "prompt_id"]
    assert len(listed) == 3
    pictures = [np.asarray(Image.open(tmp_path / "images" / f)) for f in listed["file_name"]]
    assert all(picture.shape == (128, 128) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_the_external_model_refuses_bad_prompts(tmp_path: Path):
    (tmp_path / "a.csv").write_text("prompt_id,seed\nx,1\n")
    with pytest.raises(InputError, match="caption"):
        external_model.read_prompts_csv([tmp_path / "a.csv"])
    good = write_prompts(tmp_path / "b.csv", 0, ["Normal chest radiograph."])
    with pytest.raises(InputError, match="twice"):
        external_model.read_prompts_csv([good, good])
    with pytest.raises(InputError, match="cannot read"):
        external_model.read_prompts_csv([tmp_path / "missing.csv"])


def test_a_part_is_made_again_for_its_own_code_and_inputs_alone(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CHEXGENBENCH_CACHE", str(tmp_path / "cache"))
    made = []

    def write(text, array, out):
        made.append(text)
        (out / "weights").write_text(f"{text} {array.sum()}")

    def put(text="a", array=(0, 1, 2), module="world.canvas"):
        part = build._Part("network", (module,), write, (text, np.array(array)))
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        (out / "others").touch()
        part.put(out, part.key())
        assert {path.name for path in out.iterdir()} == {"others", "weights"}
        return (out / "weights").read_text()

    assert put() == put() == "a 3"
    assert made == ["a"]
    assert [put(text="b"), put(array=(0, 1, 2, 3)), put(array=(0.0, 1.0, 2.0))] == [
        "b 3",
        "a 6",
        "a 3.0",
    ]
    put(module="world.anatomy")
    assert made == ["a", "b", "a", "a", "a"]


def test_a_kept_world_has_the_same_bytes_and_is_drawn_once(
    world: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("CHEXGENBENCH_CACHE", str(tmp_path / "cache"))
    build_world(tmp_path / "one", seed=7, patients=12, threads=1, weights=False, kept=True)
    monkeypatch.setattr(build, "draw_all", lambda *_: pytest.fail("drawn again"))
    build_world(tmp_path / "two", seed=7, patients=12, threads=2, weights=False, kept=True)
    assert sha256_of(tmp_path / "one") == sha256_of(tmp_path / "two") == sha256_of(world)


def test_what_goes_on_beside_the_training_has_all_pictures_and_its_faults_leave_no_world(
    world: Path, tmp_path: Path
):
    def drawn(folder: Path) -> None:
        shutil.copytree(folder / build.IMAGES, tmp_path / "seen")

    build_world(tmp_path / "one", 7, 12, 1, weights=False, drawn=drawn)
    assert sha256_of(tmp_path / "seen") == sha256_of(world / build.IMAGES)
    shutil.rmtree(tmp_path / "seen")

    def fail(folder: Path) -> None:
        raise InputError("no prompts", None, "none")

    with pytest.raises(InputError, match="no prompts"):
        build_world(tmp_path / "two", 7, 12, 1, weights=False, drawn=fail)
    assert {path.name for path in tmp_path.iterdir()} == {"one"}


def test_another_python_puts_the_parts(tmp_path: Path):
    """Each in a process of its own; what failed is named."""
    copy = functools.partial(shutil.copytree, dirs_exist_ok=True)
    parts = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
        parts.append(build._Part(name, (), copy, (str(tmp_path / name),)))
    out = tmp_path / "out"
    out.mkdir()
    build._put_all(parts, out, 2, kept=False, python=sys.executable)
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "first.txt": "first",
        "second.txt": "second",
    }
    shutil.rmtree(tmp_path / "second")
    with pytest.raises(InputError, match="part second failed"):
        build._put_all(parts, out, 2, kept=False, python=sys.executable)


def test_as_many_processes_draw_the_external_models_images_alike(tmp_path: Path):
    prompts = pd.DataFrame(
        {
            "prompt_id": [f"test-{i}" for i in range(10)],
            "caption": "Small left pleural effusion.",
            "seed": range(10),
        }
    )
    for threads in (1, 2):
        external_model.draw_prompts(prompts, tmp_path / str(threads), 7, 32, threads)
    assert sha256_of(tmp_path / "1") == sha256_of(tmp_path / "2")
