"""Sampling: an image depends on model, prompt and seed; sharding and kills change nothing."""

import io
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.stops import STOPS, stop
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import read_shards, shard_jobs
from workflow_scripts.common.manifest import read_prompts, write_prompts
from workflow_scripts.common.speed import Speed
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.layout import Base
from workflow_scripts.generate import sample
from workflow_scripts.generate.sample import Sampling, sample_shard
from workflow_scripts.generate.settings import BatchSettings
from workflow_scripts.generate.sharding import batch_ranges, shard_batches, shard_rows

FAMILY = get_family("stable_diffusion")
SETTINGS = SampleSettings(steps=2, guidance=2.0, size=32)


@given(st.integers(0, 200), st.integers(1, 20), st.integers(1, 12))
def test_shards_are_whole_batches_of_one_layout(prompts, batch, shards):
    parts = [shard_batches(prompts, batch, shard, shards) for shard in range(shards)]
    assert [one for part in parts for one in part] == batch_ranges(prompts, batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    rows = [row for shard in range(shards) for row in shard_rows(prompts, shard, shards)]
    assert rows == list(range(prompts))


def test_a_shard_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="shard 4 of 4"):
        shard_batches(10, 2, 4, 4)


def _sample(
    cohort,
    checkpoint,
    name,
    shard=0,
    shards=1,
    settings=SETTINGS,
    prompts="test",
    family=FAMILY,
    version=1,
    precision="fp32",
    speed=None,
):
    output = cohort.folder / f"{name}.parquet"
    sampling = Sampling(
        family,
        Base(checkpoint),
        settings,
        BatchSettings(4, precision),
        speed=speed or Speed(),
        version=version,
    )
    paths = (cohort.folder / f"{prompts}.parquet", output, cohort.folder / f"progress-{name}")
    sample_shard(sampling, *paths, shard, shards)
    return list(read_shards([output]))


def test_any_sharding_gives_identical_bytes(cohort, checkpoint):
    whole = _sample(cohort, checkpoint, "whole")
    prompts = cohort.sets["test"]
    assert [item.id for item in whole] == prompts["prompt_id"].tolist()
    assert [item.caption for item in whole] == prompts["caption"].tolist()
    assert all(item.source_image_id is None for item in whole)
    for shards in (2, 5):
        parts = [
            item
            for shard in range(shards)
            for item in _sample(cohort, checkpoint, f"s{shards}-{shard}", shard, shards)
        ]
        assert [(item.id, item.data) for item in parts] == [(i.id, i.data) for i in whole]
    assert not list(cohort.folder.glob("progress-*"))


def test_the_image_has_the_asked_size_and_follows_seed_and_prompt(cohort, checkpoint):
    prompts = read_prompts(cohort.folder / "test.parquet").iloc[:4].copy()
    prompts["caption"] = ["a", "a", "a", "b"]
    prompts["seed"] = [1, 1, 2, 1]
    write_prompts(prompts, cohort.folder / "chosen.parquet")
    settings = SampleSettings(steps=2, guidance=2.0, size=48)
    items = _sample(cohort, checkpoint, "chosen", settings=settings, prompts="chosen")
    images = [np.asarray(Image.open(io.BytesIO(item.data)), int) for item in items]
    assert images[0].shape == (48, 48, 3)
    assert np.abs(images[0] - images[1]).max() <= 1
    assert np.abs(images[0] - images[2]).max() > 10
    assert (images[0] != images[3]).any()


def test_precision_changes_an_image_far_less_than_its_seed_does(cohort, checkpoint):
    """The noise that an image starts from is the same in every precision."""
    prompts = read_prompts(cohort.folder / "test.parquet").iloc[:4]
    write_prompts(prompts, cohort.folder / "few.parquet")
    shown = {}
    for precision in ("fp32", "bf16", "fp16"):
        items = _sample(cohort, checkpoint, precision, prompts="few", precision=precision)
        shown[precision] = np.stack([np.asarray(Image.open(io.BytesIO(i.data))) for i in items])
    exact = shown["fp32"].astype(float)
    seeds = np.abs(exact - exact[::-1]).mean()
    bf16, fp16 = (np.abs(shown[name] - exact).mean() for name in ("bf16", "fp16"))
    assert 0 < fp16 < bf16 < 0.1 * seeds


def test_a_shard_names_the_switches_of_its_jobs_and_is_the_same_without_any(
    cohort, checkpoint, monkeypatch
):
    prompts = read_prompts(cohort.folder / "test.parquet").iloc[:1]
    write_prompts(prompts, cohort.folder / "single.parquet")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    for name, speed in (("hasty", Speed(channels_last=True)), ("slow", Speed()), ("unsaid", None)):
        (item,) = _sample(cohort, checkpoint, name, prompts="single", speed=speed)
        assert item.id == prompts["prompt_id"].iloc[0]
    job = {"device": "cpu", "slurm_job_id": None, "slurm_node": None}
    paths = {name: cohort.folder / f"{name}.parquet" for name in ("hasty", "slow", "unsaid")}
    assert shard_jobs(paths["hasty"]) == [job | {"speed": "channels_last=true"}]
    assert shard_jobs(paths["slow"]) == [job]
    assert paths["slow"].read_bytes() == paths["unsaid"].read_bytes()


@pytest.mark.parametrize("in_float32", [False, True])
def test_the_autoencoder_is_loaded_in_float32_for_a_family_that_decodes_so(
    cohort, checkpoint, in_float32
):
    loaded = []

    class Noting(type(FAMILY)):
        decodes_in_float32 = in_float32

        def load(self, base, dtype, **named):
            loaded.append((dtype, named))
            return super().load(base, dtype)

    prompts = read_prompts(cohort.folder / "test.parquet").iloc[:1]
    write_prompts(prompts, cohort.folder / "one.parquet")
    _sample(cohort, checkpoint, "in", prompts="one", precision="bf16", family=Noting())
    assert loaded == [(torch.bfloat16, {"vae_dtype": torch.float32} if in_float32 else {})]


def test_a_precision_that_is_none_is_refused_and_another_one_is_not_continued(cohort, checkpoint):
    with pytest.raises(InputError, match="precision 'fp8'"):
        _sample(cohort, checkpoint, "none", precision="fp8")
    frame = read_prompts(cohort.folder / "test.parquet")
    digests = {
        Sampling(FAMILY, Base(checkpoint), SETTINGS, BatchSettings(4, precision)).identity(
            {}, frame
        )
        for precision in sample.PRECISIONS
    }
    assert len(digests) == 3


@pytest.mark.parametrize("how", STOPS)
def test_stopped_and_started_again_continues_to_the_same_bytes(
    how, cohort, checkpoint, monkeypatch, caplog
):
    calm = _sample(cohort, checkpoint, f"not-{how}")
    progress, output = cohort.folder / f"progress-{how}", cohort.folder / f"{how}.parquet"
    flags = {
        "model": "tiny",
        "family": "stable_diffusion",
        "base": checkpoint,
        "prompts": cohort.folder / "test.parquet",
        "output": output,
        "progress": progress,
        "steps": 2,
        "guidance": 2.0,
        "size": 32,
        "batch-size": 4,
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    stop(
        how,
        lambda: any(progress.glob("attempt-*/batch-*.parquet")),
        lambda: sample.main(words),
        [sys.executable, "-m", "workflow_scripts.generate.sample", *words],
    )
    assert not output.exists()
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    with caplog.at_level("INFO"):
        sample.main(words)
    assert "continuing at" in caplog.text
    continued = list(read_shards([output]))
    assert [(item.id, item.data) for item in continued] == [(item.id, item.data) for item in calm]
    jobs = [(job["slurm_job_id"], job["slurm_node"], job["device"]) for job in shard_jobs(output)]
    assert jobs == [("41", "n1", "cpu"), ("42", "n2", "cpu")]


def test_progress_of_other_settings_is_not_continued(cohort, checkpoint, caplog):
    attempt = Attempt(cohort.folder / "progress-again")
    (attempt.folder / "batch-0123456789abcdef-00000000.parquet").write_bytes(b"another image")
    _sample(cohort, checkpoint, "again")
    assert "made from other inputs" in caplog.text


class Inverted(type(FAMILY)):
    """Shows every image as its negative, under the name of the family that it is made from."""

    def sample(self, *given):
        return [ImageOps.invert(image.convert("RGB")) for image in super().sample(*given)]


def test_batches_of_another_family_or_version_are_not_continued(cohort, checkpoint, monkeypatch):
    sampled = []

    def started(family, version):
        """Sample until the second batch, and fail."""

        def failing(*given):
            if len(sampled) == 2:
                raise ZeroDivisionError
            sampled.append(given)
            return batch(*given)

        sampled.clear()
        monkeypatch.setattr(sample, "_sample_batch", failing)
        with pytest.raises(ZeroDivisionError):
            _sample(cohort, checkpoint, "kept", family=family, version=version)

    batch = sample._sample_batch
    for family, version in ((FAMILY, 1), (FAMILY, 2), (Inverted(), 2)):
        started(family, version)
        assert len(sampled) == 2, "began anew"
    monkeypatch.setattr(sample, "_sample_batch", batch)
    inverted = _sample(cohort, checkpoint, "kept", family=Inverted(), version=2)
    plain = _sample(cohort, checkpoint, "plain")
    for one, other in zip(inverted, plain, strict=True):
        pixels = [np.asarray(item.open(), int) for item in (one, other)]
        assert (pixels[0] + pixels[1] == 255).all()


def test_a_shards_attempt_that_was_given_up_ends_and_leaves_all_to_its_retry(
    cohort, checkpoint, monkeypatch
):
    """The retry begins, runs and ends while the first attempt samples its second batch."""
    calm = _sample(cohort, checkpoint, "calm")
    batch, calls = sample._sample_batch, []

    def overtaken(*given):
        calls.append(given)
        if len(calls) == 2:
            retried.extend(_sample(cohort, checkpoint, "twice"))
        return batch(*given)

    retried = []
    monkeypatch.setattr(sample, "_sample_batch", overtaken)
    with pytest.raises(InputError, match="another attempt took over"):
        _sample(cohort, checkpoint, "twice")
    assert [(item.id, item.data) for item in retried] == [(item.id, item.data) for item in calm]
    assert list(read_shards([cohort.folder / "twice.parquet"])) != []
    assert not (cohort.folder / "progress-twice").exists()
