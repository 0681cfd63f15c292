"""The extraction script: order, a single pass, damaged images, killed and continued runs."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.stops import kill
from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, read_shards, write_shard
from workflow_scripts.common.manifest import read_manifest, write_manifest
from workflow_scripts.features import extract as script
from workflow_scripts.features.cache import read_features
from workflow_scripts.features.encoders import load_encoder, rad_dino

TINY = ("rad_dino", "biovil_t_image", "biovil_t_text", "reid")
"""The encoders for which the world has tiny weights."""

ROOT = Path(__file__).resolve().parents[2]


def command(weights: SimpleNamespace, out: Path, *given: object, **options: object) -> list[str]:
    """Return the script's arguments for `encoders`; other options replace the defaults."""
    names = options.pop("encoders", TINY)
    flags = {
        "purpose": "fidelity",
        "protocol": "sound",
        "collection": "tiny",
        "out": out,
        "progress": out.parent / f"{out.name}.progress",
        "batch-size": 4,
    } | {key.replace("_", "-"): value for key, value in options.items()}
    arguments = [str(value) for value in given]
    for name in names:
        arguments += ["--encoder", f"{name}={getattr(weights, name)}"]
    for flag, value in flags.items():
        arguments += [f"--{flag}", str(value)]
    return arguments


def run(*arguments: object, **options: object) -> None:
    script.main(command(*arguments, **options))  # type: ignore[arg-type]


def test_shards_in_order_with_sources(weights: SimpleNamespace, shards: list[Path], tmp_path: Path):
    run(weights, tmp_path / "out", "--shards", *shards)
    items = list(read_shards(shards))
    for name in TINY:
        got = read_features(tmp_path / "out" / f"{name}.h5", {"encoder": name, "protocol": "sound"})
        assert got.ids == [f"test-{i:03d}" for i in range(11)]
        assert got.source_ids == ["" if i % 2 else f"radiograph{i}" for i in range(11)]
        encoder = load_encoder(
            name, getattr(weights, name), torch.device("cpu"), deviations("sound"), "fidelity"
        )
        reads_text = encoder.reads == "caption"
        inputs = [encoder.prepare(i.caption if reads_text else i.open()) for i in items]
        assert np.allclose(got.features, encoder.encode(inputs), atol=1e-5)
        assert got.attrs["collection"] == "tiny"
        assert ("captions_sha256" in got.attrs) == reads_text
    assert not (tmp_path / "out.progress").exists()
    reid = read_features(tmp_path / "out" / "reid.h5")
    assert reid.extras["fc_end_weight"].shape == (1, reid.features.shape[1])


def test_one_pass_for_all_equals_one_pass_each(
    weights: SimpleNamespace, shards: list[Path], tmp_path: Path
):
    run(weights, tmp_path / "all", "--shards", *shards)
    for name in TINY:
        run(weights, tmp_path / name, "--shards", *shards, encoders=[name])
        together = (tmp_path / "all" / f"{name}.h5").read_bytes()
        assert together == (tmp_path / name / f"{name}.h5").read_bytes()


def test_the_collection_s_digest_is_its_ids_and_bytes(
    weights: SimpleNamespace, shards: list[Path], tmp_path: Path
):
    run(weights, tmp_path / "out", "--shards", *shards, encoders=["reid"])
    want = hashlib.sha256()
    for item in read_shards(shards):
        want.update(item.id.encode() + b"\0" + hashlib.sha256(item.data).digest())
    path = tmp_path / "out" / "reid.h5"
    assert read_features(path).attrs["collection_sha256"] == want.hexdigest()


def test_a_split_of_the_manifest(weights: SimpleNamespace, cohort: SimpleNamespace, tmp_path: Path):
    out = tmp_path / "out"
    run(weights, out, "--manifest", cohort.manifest, "--image-split", "test")
    images, texts = read_features(out / "rad_dino.h5"), read_features(out / "biovil_t_text.h5")
    assert images.ids == [f"image{i}" for i in range(5)]
    assert images.source_ids is None
    assert texts.ids == ["image0", "image2", "image3"]  # those with a caption
    assert texts.attrs["collection_sha256"] == images.attrs["collection_sha256"]


def test_features_name_the_slurm_job_and_node(
    weights: SimpleNamespace,
    cohort: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    arguments = ("--manifest", cohort.manifest, "--prompts", cohort.prompts)
    run(weights, tmp_path / "out", *arguments, encoders=["reid"], purpose="privacy")
    attrs = read_features(tmp_path / "out" / "reid.h5").attrs
    assert (attrs["slurm_job_id"], attrs["slurm_node"], attrs["device"]) == ("", "n1", "cpu")
    assert "speed" not in attrs


def test_features_name_the_switches_that_their_encoder_had_and_are_read_all_the_same(
    weights: SimpleNamespace, cohort: SimpleNamespace, tmp_path: Path
):
    words = command(
        weights, tmp_path / "out", "--manifest", cohort.manifest, "--prompts", cohort.prompts,
        "--speed", "reid.channels_last=true", encoders=["reid", "rad_dino"], purpose="privacy",
    )  # fmt: skip
    script.main(words)
    reid, rad_dino = (read_features(tmp_path / f"out/{name}.h5") for name in ("reid", "rad_dino"))
    assert reid.attrs["speed"] == "channels_last=true"
    assert "speed" not in rad_dino.attrs


def test_the_images_that_prompts_point_to(
    weights: SimpleNamespace, cohort: SimpleNamespace, tmp_path: Path
):
    run(
        weights,
        tmp_path / "out",
        *("--manifest", cohort.manifest, "--prompts", cohort.prompts),
        encoders=["reid"],
        purpose="privacy",
    )
    got = read_features(tmp_path / "out" / "reid.h5")
    assert got.ids == ["image5", "image8"]
    assert got.attrs["purpose"] == "privacy"


def test_as_published_changes_key_and_features(
    weights: SimpleNamespace, shards: list[Path], tmp_path: Path
):
    for protocol in ("sound", "as_published"):
        run(
            weights,
            tmp_path / protocol,
            *("--shards", *shards),
            encoders=["rad_dino", "reid"],
            protocol=protocol,
            purpose="privacy",
        )
    for name in ("rad_dino", "reid"):
        sound, published = (
            read_features(tmp_path / protocol / f"{name}.h5")
            for protocol in ("sound", "as_published")
        )
        assert sound.attrs["preprocessing"] != published.attrs["preprocessing"]
        assert np.abs(sound.features - published.features).max() > 1e-4
        with pytest.raises(InputError, match="as_published"):
            read_features(tmp_path / "sound" / f"{name}.h5", {"protocol": "as_published"})


@pytest.mark.parametrize("content", [b"no image", b""])
def test_a_broken_image_is_named(
    weights: SimpleNamespace, cohort: SimpleNamespace, tmp_path: Path, content: bytes
):
    broken = cohort.images / "3.png"
    broken.write_bytes(content)
    with pytest.raises(InputError) as caught:
        run(
            weights,
            tmp_path / "out",
            *("--manifest", cohort.manifest, "--image-split", "test"),
            encoders=["rad_dino"],
        )
    assert str(broken) in str(caught.value.where)
    assert "image3" in str(caught.value.where)
    assert not (tmp_path / "out").exists()


def test_a_truncated_image_in_a_shard_is_named(weights: SimpleNamespace, tmp_path: Path):
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    items = [
        ImageItem("good", "good.png", stream.getvalue(), "x"),
        ImageItem("cut", "cut.png", stream.getvalue()[:-300], "x"),
    ]
    write_shard(items, tmp_path / "part.parquet")
    with pytest.raises(InputError, match="cannot decode") as caught:
        run(weights, tmp_path / "out", "--shards", tmp_path / "part.parquet", encoders=["reid"])
    assert "(cut)" in str(caught.value.where)


def test_missing_files_are_found_before_anything_is_computed(
    weights: SimpleNamespace, cohort: SimpleNamespace, tmp_path: Path
):
    (cohort.images / "4.png").unlink()
    with pytest.raises(InputError, match="image4"):
        run(weights, tmp_path / "out", *("--manifest", cohort.manifest, "--image-split", "test"))
    assert not (tmp_path / "out.progress").exists()


@pytest.fixture
def stopped(
    weights: SimpleNamespace,
    cohort: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Stop an extraction at a broken image and mend it; return what runs it, and what it computes.

    The function extracts to a folder, by default that of the stopped extraction.
    """

    def extract(out: str = "out", **changed: object) -> None:
        arguments = ("--manifest", cohort.manifest, "--image-split", "test")
        options = {"encoders": ["rad_dino"], "batch_size": 2, **changed}
        run(weights, tmp_path / out, *arguments, **options)

    good = (cohort.images / "4.png").read_bytes()
    (cohort.images / "4.png").write_bytes(good[:40])
    with pytest.raises(InputError, match="cannot decode"):
        extract()
    (cohort.images / "4.png").write_bytes(good)
    return extract, count_images(monkeypatch)


def test_after_a_broken_image_is_mended_only_the_rest_is_computed(stopped, tmp_path: Path):
    extract, seen = stopped
    extract()
    assert seen == [1]
    extract("whole")
    assert same_bytes(tmp_path / "whole", tmp_path / "out", ["rad_dino"])


def test_progress_of_images_that_changed_is_not_used(
    stopped, cohort: SimpleNamespace, tmp_path: Path
):
    extract, seen = stopped
    (cohort.images / "0.png").write_bytes((cohort.images / "8.png").read_bytes())
    extract()
    assert sum(seen) == 5
    extract("whole")
    assert same_bytes(tmp_path / "whole", tmp_path / "out", ["rad_dino"])


def test_progress_of_other_settings_is_not_used(stopped):
    extract, seen = stopped
    extract(protocol="as_published")
    assert sum(seen) == 5


def test_progress_of_other_code_is_not_used(stopped, monkeypatch: pytest.MonkeyPatch):
    extract, seen = stopped
    digests = script.own_digests
    edited = "features/encoders/rad_dino.py another"
    monkeypatch.setattr(script, "own_digests", lambda *a: [*digests(*a)[1:], edited])
    extract()
    assert sum(seen) == 5


def test_an_attempt_that_was_given_up_ends_and_leaves_all_to_its_retry(
    weights: SimpleNamespace, cohort: SimpleNamespace, tmp_path: Path
):
    """A retry runs from start to end while the first attempt is at its second batch."""
    arguments = ("--manifest", cohort.manifest, "--image-split", "test")
    options = {"encoders": ["rad_dino"], "batch_size": 2, "save_every": 0}
    run(weights, tmp_path / "whole", *arguments, **options)
    compute, batches = script._compute, []

    def overtaken(*given):
        batches.append(given)
        if len(batches) == 2:
            run(weights, tmp_path / "out", *arguments, **options)
        return compute(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "_compute", overtaken)
        with pytest.raises(InputError, match="another attempt took over"):
            run(weights, tmp_path / "out", *arguments, **options)
    assert same_bytes(tmp_path / "whole", tmp_path / "out", ["rad_dino"])
    assert not (tmp_path / "out.progress").exists()


def test_a_damaged_block_is_computed_again(
    weights: SimpleNamespace, cohort: SimpleNamespace, tmp_path: Path
):
    arguments = ("--manifest", cohort.manifest, "--image-split", "test")
    options = {"encoders": ["rad_dino"], "batch_size": 2}
    run(weights, tmp_path / "whole", *arguments, **options)
    good = (cohort.images / "4.png").read_bytes()
    (cohort.images / "4.png").write_bytes(b"broken")
    with pytest.raises(InputError):
        run(weights, tmp_path / "out", *arguments, **options)
    (cohort.images / "4.png").write_bytes(good)
    (block,) = (tmp_path / "out.progress").glob("attempt-*/block-*.npz")
    block.write_bytes(block.read_bytes()[:-100])
    run(weights, tmp_path / "out", *arguments, **options)
    assert same_bytes(tmp_path / "whole", tmp_path / "out", ["rad_dino"])


# Its light twin in the other tier: a damaged image stops the run, which then continues (above).
@pytest.mark.full
def test_killed_and_continued_gives_the_same_bytes(weights: SimpleNamespace, tmp_path: Path):
    """The real script, killed by SIGKILL once a block is on disk."""
    rng = np.random.default_rng(0)
    items = []
    for i in range(240):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (160, 160), np.uint8)).save(stream, "PNG")
        items.append(ImageItem(f"i{i:03d}", f"{i}.png", stream.getvalue(), "Mild cardiomegaly."))
    write_shard(items, tmp_path / "part.parquet")

    def process(out: Path, save_every: float) -> list[str]:
        arguments = command(
            weights,
            out,
            *("--shards", tmp_path / "part.parquet"),
            encoders=["biovil_t_image", "reid"],
            save_every=save_every,
        )
        return [sys.executable, "-m", "workflow_scripts.features.extract", *arguments]

    out, progress = tmp_path / "out", tmp_path / "out.progress"
    kill(lambda: any(progress.glob("attempt-*/block-*.npz")), process(out, 0), cwd=ROOT)
    assert not out.exists()

    done = subprocess.run(process(out, 60), cwd=ROOT, capture_output=True, text=True, check=True)
    assert "continuing at" in done.stderr
    assert done.stdout == ""
    assert not progress.exists()
    run(
        weights,
        tmp_path / "whole",
        *("--shards", tmp_path / "part.parquet"),
        encoders=["biovil_t_image", "reid"],
    )
    assert same_bytes(tmp_path / "whole", out, ["biovil_t_image", "reid"])


def test_features_that_are_not_finite_are_refused(
    weights: SimpleNamespace,
    shards: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    encode = rad_dino.RadDino.encode

    def broken(self, batch):
        features = encode(self, batch)
        features[1] = np.inf
        return features

    monkeypatch.setattr(rad_dino.RadDino, "encode", broken)
    with pytest.raises(InputError, match="test-001"):
        run(weights, tmp_path / "out", "--shards", *shards, encoders=["rad_dino"])
    assert not list((tmp_path / "out").glob("*"))


def test_a_caption_that_cannot_be_encoded_is_named(weights: SimpleNamespace, tmp_path: Path):
    stream = io.BytesIO()
    Image.new("L", (40, 40), 7).save(stream, "PNG")
    items = [ImageItem("long", "l.png", stream.getvalue(), "mild [SEP] effusion")]
    write_shard(items, tmp_path / "part.parquet")
    with pytest.raises(InputError, match="special token") as caught:
        run(
            weights,
            tmp_path / "out",
            *("--shards", tmp_path / "part.parquet"),
            encoders=["biovil_t_text"],
        )
    assert str(caught.value.where).startswith("long")


def test_no_caption_no_text_features(
    weights: SimpleNamespace, cohort: SimpleNamespace, tmp_path: Path
):
    frame = read_manifest(cohort.manifest)
    frame[["caption", "caption_source"]] = (
        pd.Series([None] * len(frame), dtype=object).to_frame("caption").assign(caption_source=None)
    )
    write_manifest(frame, cohort.manifest)
    with pytest.raises(InputError, match="caption"):
        run(weights, tmp_path / "out", *("--manifest", cohort.manifest, "--image-split", "test"))


def test_an_id_twice_in_the_shards_is_refused(
    weights: SimpleNamespace, shards: list[Path], tmp_path: Path
):
    with pytest.raises(InputError, match="test-000"):
        run(weights, tmp_path / "out", "--shards", *shards, shards[0])


def test_an_empty_split_is_refused(
    weights: SimpleNamespace, cohort: SimpleNamespace, tmp_path: Path
):
    with pytest.raises(InputError, match="validate"):
        run(
            weights, tmp_path / "out", *("--manifest", cohort.manifest, "--image-split", "validate")
        )


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["--manifest", "m"],
        ["--manifest", "m", "--image-split", "test", "--prompts", "p"],
        ["--manifest", "m", "--shards", "s"],
        ["--shards", "s", "--image-split", "test"],
        ["--shards", "s", "--encoder", "reid"],
    ],
)
def test_flags_that_contradict_each_other(
    weights: SimpleNamespace, tmp_path: Path, given: list[str]
):
    with pytest.raises(SystemExit):
        script.parse_arguments(command(weights, tmp_path / "out", *given))


def count_images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the batch sizes that RAD-DINO computes from now on in the returned list."""
    sizes: list[int] = []
    encode = rad_dino.RadDino.encode

    def counting(self, batch):
        sizes.append(len(batch))
        return encode(self, batch)

    monkeypatch.setattr(rad_dino.RadDino, "encode", counting)
    return sizes


def same_bytes(one: Path, other: Path, names: list[str]) -> bool:
    assert all(h5py.is_hdf5(one / f"{name}.h5") for name in names)
    return all(
        (one / f"{name}.h5").read_bytes() == (other / f"{name}.h5").read_bytes() for name in names
    )
