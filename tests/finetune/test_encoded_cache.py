"""The cache of encoded images: the same bits whoever encodes, killed or not; damage is found."""

import logging
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune import data
from workflow_scripts.finetune.data import TrainingImages, digest_of_files
from workflow_scripts.finetune.families.stable_diffusion import StableDiffusion
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.train import finetune

SIZE, IMAGES, BLOCK, CHUNK = 8, 22, 8, 3
SHAPE = (2, 4, 4)
KEY = {"weights": "abc", "family": "toy", "device": "cpu"}
REPOSITORY = Path(__file__).resolve().parents[2]


class Encoder:
    """A convolution to float32 moments that counts the images it saw and can be killed."""

    def __init__(self, killed_after=None):
        torch.manual_seed(3)
        self.layer = torch.nn.Conv2d(3, 2, 2, stride=2)
        self.seen, self.sizes, self.killed_after = 0, [], killed_after

    def __call__(self, pixels):
        self.seen += len(pixels)
        self.sizes.append(len(pixels))
        if self.killed_after is not None and self.seen > self.killed_after:
            raise KeyboardInterrupt
        with torch.no_grad():
            return self.layer(pixels)


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(IMAGES):
        pixels = rng.integers(0, 256, (SIZE, SIZE), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(data, "BLOCK", BLOCK)
    # Nothing is kept in memory unless a test says so: batches are read from the files.
    monkeypatch.setattr(data, "ENCODED_IN_MEMORY", 0)


@pytest.fixture
def opened(paths, tmp_path):
    """Make `TrainingImages` with the cache in `tmp_path/cache`; close them at the end."""
    made = []

    def make(encode=None, cache="cache", key=KEY, **settings):
        folder = None if cache is None else tmp_path / cache
        images = TrainingImages(
            paths, SIZE, encode or Encoder(), SHAPE, 1, CHUNK, folder, key, **settings
        )
        made.append(images)
        return images

    yield make
    for images in made:
        images.close()


def by_chunks(paths):
    """Encode in the chunks of the cache, by hand."""
    encode, encoded = Encoder(), []
    for first in range(0, IMAGES, BLOCK):
        for start in range(first, min(first + BLOCK, IMAGES), CHUNK):
            stop = min(start + CHUNK, first + BLOCK, IMAGES)
            pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
            part = torch.from_numpy(pixels[start:stop]).permute(0, 3, 1, 2)
            encoded.append(encode(part.float() / 127.5 - 1))
    return torch.cat(encoded)


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


ORDER = [np.array(batch) for batch in ([21, 0, 9], [8, 8, 7], [1, 20, 15], [3], [16, 2])]


def test_batches_are_the_encoded_images_bit_for_bit(opened, paths):
    expected = by_chunks(paths)
    batches = list(opened().batches(ORDER))
    assert len(batches) == len(ORDER)
    for indices, batch in zip(ORDER, batches, strict=True):
        assert batch.dtype == torch.float32
        assert torch.equal(batch, expected[torch.from_numpy(indices)])


def test_small_sets_are_read_into_memory(opened, paths, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "ENCODED_IN_MEMORY", 4 * IMAGES * int(np.prod(SHAPE)))
    images = opened()
    shutil.rmtree(tmp_path / "cache")
    expected = by_chunks(paths)
    for indices, batch in zip(ORDER, images.batches(ORDER), strict=True):
        assert torch.equal(batch, expected[torch.from_numpy(indices)])


def test_without_a_cache_a_batch_is_encoded_when_shown(opened, paths):
    encode = Encoder()
    images = opened(encode, cache=None)
    assert encode.seen == 0
    for indices, batch in zip(ORDER, images.batches(ORDER), strict=True):
        torch.testing.assert_close(batch, by_chunks(paths)[torch.from_numpy(indices)])
    assert encode.sizes == [len(indices) for indices in ORDER]


def test_batches_are_laid_out_alike_wherever_they_come_from(opened, monkeypatch):
    """A convolution's last bits follow from its input's strides."""
    wanted = np.array([2, 5, 11])
    batches = [next(opened(cache=cache).batches([wanted])) for cache in (None, "cache")]
    monkeypatch.setattr(data, "ENCODED_IN_MEMORY", 1 << 20)
    batches += [next(opened(cache=cache).batches([wanted])) for cache in (None, "cache")]
    assert all(batch.is_contiguous() for batch in batches)
    for batch in batches[1:]:
        torch.testing.assert_close(batch, batches[0], rtol=0, atol=1e-6)


def test_a_second_run_encodes_nothing(opened, tmp_path):
    opened()
    before = files(tmp_path / "cache")
    assert sorted(before) == [f"block-{i:05d}.h5" for i in range(3)]
    encode = Encoder()
    images = opened(encode)
    assert encode.seen == 0
    assert len(list(images.batches(ORDER))) == len(ORDER)
    assert files(tmp_path / "cache") == before


@pytest.mark.parametrize("seen", range(0, IMAGES, 4))
def test_killed_and_continued_gives_the_same_bytes(opened, tmp_path, seen):
    opened(cache="whole")
    with pytest.raises(KeyboardInterrupt):
        opened(Encoder(killed_after=seen))
    kept = files(tmp_path / "cache")
    again = Encoder()
    opened(again)
    assert again.seen == IMAGES - sum(BLOCK if name < "block-00002" else 6 for name in kept)
    assert files(tmp_path / "cache") == files(tmp_path / "whole")


def test_killed_by_the_system_while_writing(opened, paths, tmp_path):
    """A process that dies with a block half written; the rest it leaves goes after an hour."""
    script = f"""
        import os, signal, sys
        import h5py
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_encoded_cache as test
        from workflow_scripts.finetune import data
        data.BLOCK, data.ENCODED_IN_MEMORY = test.BLOCK, 0
        create = h5py.File.create_dataset

        def die(file, *arguments, **settings):
            create(file, *arguments, **settings)
            if len(os.listdir(os.path.dirname(file.filename))) == 3:
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)

        h5py.File.create_dataset = die
        data.TrainingImages({paths!r}, test.SIZE, test.Encoder(), test.SHAPE, 1, test.CHUNK,
            data.Path({str(tmp_path / "cache")!r}), test.KEY)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == -9
    left = files(tmp_path / "cache")
    rests = [name for name in left if name.endswith(".tmp")]
    assert (len(left), len(rests)) == (3, 1)

    (rest,) = (tmp_path / "cache").rglob(rests[0])
    long_ago = time.time() - 7200
    os.utime(rest, (long_ago, long_ago))
    opened(again := Encoder())
    assert again.seen in (6, BLOCK)
    opened(cache="whole")
    assert files(tmp_path / "cache") == files(tmp_path / "whole")


def test_another_jobs_unfinished_file_is_left_alone(opened, tmp_path):
    opened()
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / "block-00001.h5").unlink()
    unfinished = folder / ".block-00001.0123.h5.42.tmp"
    unfinished.write_bytes(b"being written")
    opened()
    assert unfinished.read_bytes() == b"being written"
    assert (folder / "block-00001.h5").exists()


@pytest.mark.parametrize("size", [0, 100, 700, -1])
def test_a_truncated_block_is_made_anew(opened, tmp_path, caplog, size):
    opened()
    before = files(tmp_path / "cache")
    (block,) = (tmp_path / "cache").rglob("block-00001.h5")
    block.write_bytes(block.read_bytes()[:size])
    with caplog.at_level(logging.WARNING):
        opened(encode := Encoder())
    assert encode.seen == BLOCK
    assert str(block) in caplog.text
    assert "damaged" in caplog.text
    assert files(tmp_path / "cache") == before


@pytest.mark.parametrize("most", [40, pytest.param(120, marks=pytest.mark.full)])
def test_any_wrong_byte_is_found_or_does_not_matter(most, opened, paths, tmp_path):
    opened()
    expected = by_chunks(paths)
    (block,) = (tmp_path / "cache").rglob("block-00001.h5")
    whole = block.read_bytes()
    rng = np.random.default_rng(0)
    places = rng.choice(len(whole), most, replace=False)
    found = 0
    for place in places.tolist():
        wrong = bytearray(whole)
        wrong[place] ^= int(rng.integers(1, 256))
        block.write_bytes(bytes(wrong))
        images = opened(encode := Encoder())
        (batch,) = images.batches([np.arange(8, 16)])
        images.close()
        assert torch.equal(batch, expected[8:16]), place
        assert encode.seen in (0, BLOCK)
        found += encode.seen == BLOCK
    assert found > most / 2  # the others lie where HDF5 left gaps


def test_a_wrong_byte_in_an_image_is_found_at_the_start_and_when_read(opened, tmp_path):
    images = opened()
    (block,) = (tmp_path / "cache").rglob("block-00001.h5")
    with h5py.File(block) as file:
        place = file["encoded"].id.get_chunk_info(5).byte_offset
    wrong = bytearray(block.read_bytes())
    wrong[place + 17] ^= 1
    block.write_bytes(bytes(wrong))
    with pytest.raises(InputError, match=r"block-00001\.h5(.|\n)*delete the file"):
        list(images.batches([np.array([13])]))
    images.close()
    opened(encode := Encoder())
    assert encode.seen == BLOCK


@pytest.mark.parametrize("name", ["weights", "size", "chunk", "versions", "first", "images"])
def test_a_block_made_from_something_else_is_refused(opened, tmp_path, name):
    opened()
    (block,) = (tmp_path / "cache").rglob("block-00001.h5")
    with h5py.File(block, "r+") as file:
        file.attrs[name] = np.bytes_(b"other")
    encode = Encoder()
    with pytest.raises(InputError, match=rf"made with {name} other(.|\n)*delete the folder"):
        opened(encode)
    assert encode.seen == 0


def test_a_block_in_another_blocks_place_is_refused(opened, tmp_path):
    opened()
    (folder,) = (tmp_path / "cache").iterdir()
    shutil.copy(folder / "block-00000.h5", folder / "block-00001.h5")
    with pytest.raises(InputError, match="first 0, not 8"):
        opened()


@pytest.mark.parametrize("name", KEY)
def test_another_key_is_another_folder(opened, tmp_path, name):
    opened()
    opened(encode := Encoder(), key={**KEY, name: "other"})
    assert encode.seen == IMAGES
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_processes_share_the_work(opened, paths, tmp_path):
    """Two processes, played by threads: each encodes its blocks, then both read all."""
    barrier = threading.Barrier(2, timeout=30)
    encoders, batches = [Encoder(), Encoder()], [None, None]

    def agree(said):
        barrier.wait()
        return said

    def run(process):
        images = opened(encoders[process], process=process, processes=2, agree=agree)
        batches[process] = list(images.batches(ORDER))

    threads = [threading.Thread(target=run, args=(process,)) for process in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [encoder.seen for encoder in encoders] == [BLOCK + 6, BLOCK]
    expected = by_chunks(paths)
    for own in batches:
        for indices, batch in zip(ORDER, own, strict=True):
            assert torch.equal(batch, expected[torch.from_numpy(indices)])
    opened(cache="whole")
    assert files(tmp_path / "cache") == files(tmp_path / "whole")


def test_jobs_that_fill_the_same_folder_at_once(opened, paths, tmp_path):
    """Four jobs that know nothing of each other; all write while the others write and read."""
    failures, batches = [], {}
    together = threading.Barrier(4, timeout=30)
    encoders = [Encoder() for _ in range(4)]

    def run(job):
        encode = encoders[job]

        def slow(pixels):
            if not encode.seen:
                together.wait()
            return encode(pixels)

        try:
            batches[job] = list(opened(slow).batches(ORDER))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    expected = by_chunks(paths)
    for own in batches.values():
        for indices, batch in zip(ORDER, own, strict=True):
            assert torch.equal(batch, expected[torch.from_numpy(indices)])
    opened(cache="whole")
    assert files(tmp_path / "cache") == files(tmp_path / "whole")


def test_what_another_job_encoded_meanwhile_is_left_out(opened, tmp_path):
    opened(cache="other")
    (folder,) = (tmp_path / "other").iterdir()
    encode = Encoder()

    def encode_and_be_overtaken(pixels):
        if not encode.seen:
            for path in folder.iterdir():
                shutil.copy(path, tmp_path / "cache" / folder.name)
        return encode(pixels)

    opened(encode_and_be_overtaken)
    assert encode.seen < IMAGES  # the block begun, and one more if decoding had come to it
    assert files(tmp_path / "cache") == files(tmp_path / "other")


def test_few_files_are_open_at_a_time(opened, paths, monkeypatch):
    monkeypatch.setattr(data, "OPEN_BLOCKS", 1)
    images = opened()
    expected = by_chunks(paths)
    for indices, batch in zip(ORDER, images.batches(ORDER), strict=True):
        assert torch.equal(batch, expected[torch.from_numpy(indices)])
        assert len(images._blocks._open) <= 1


def test_the_next_two_batches_are_read_ahead(opened):
    images = opened()
    read, ready = images._blocks.read, []

    def noted(indices):
        ready.append(indices.tolist())
        return read(indices)

    images._blocks.read = noted
    batches = images.batches(ORDER)
    next(batches)
    images._reader.submit(lambda: None).result()
    assert ready == [indices.tolist() for indices in ORDER[:3]]


def test_a_full_disk_is_refused_before_encoding(opened, monkeypatch):
    monkeypatch.setattr(data.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 0))
    encode = Encoder()
    with pytest.raises(InputError, match="do not fit in"):
        opened(encode)
    assert encode.seen == 0


def test_digest_of_files_follows_names_order_and_content(paths):
    first = digest_of_files(paths)
    assert digest_of_files(paths) == first
    assert digest_of_files(paths[::-1]) != first
    Image.fromarray(np.zeros((SIZE, 2 * SIZE), np.uint8)).save(paths[0])
    assert digest_of_files(paths) != first


class Mirrored(StableDiffusion):
    """Stable Diffusion that trains on the radiographs' mirror images, under the same name."""

    def encode_images(self, pipeline, pixels):
        return super().encode_images(pipeline, pixels.flip(-1))


def test_a_family_that_encodes_otherwise_has_latents_of_its_own(
    tiny_sd, two_images, cohort_writer, settings, tmp_path
):
    """Its losses with the cache of the family that it is made from are those without any."""
    manifest = cohort_writer(tmp_path, two_images)
    cache = tmp_path / "cache"

    def losses(family, cache=None, version=1):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        chosen = settings(epochs=2, batch_size=2, per_device_batch_size=2)
        given = (family, Base(tiny_sd[1].folder), manifest, folder / "span", folder / "progress")
        finetune(*given, chosen, cache=cache, version=version)
        curve = np.genfromtxt(folder / "span/training.csv", delimiter=",", names=True)
        return curve["loss"].tolist()

    plain, mirrored = StableDiffusion(), Mirrored()
    assert losses(plain, cache) == losses(plain)
    assert losses(mirrored, cache) == losses(mirrored) != losses(plain)
    assert len(list(cache.iterdir())) == 2
    losses(plain, cache)
    assert len(list(cache.iterdir())) == 2
    losses(plain, cache, version=2)
    assert len(list(cache.iterdir())) == 3
