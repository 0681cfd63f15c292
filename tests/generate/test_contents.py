"""What models are sampled from, and what is imported: told by what is read, file by file."""

import csv
import os
import shutil

import pytest

from workflow_scripts.common.contents import Contents
from workflow_scripts.finetune.base_contents import base_contents
from workflow_scripts.generate.external_contents import external_contents


@pytest.fixture
def base(checkpoint, tmp_path):
    """A copy of a tiny Stable Diffusion; and what is told of it."""
    folder = tmp_path / "base"
    shutil.copytree(checkpoint, folder)

    def told(**parts):
        settings = {"family": "stable_diffusion", "base": str(folder), "parts": parts}
        return base_contents(settings, Contents(tmp_path / "known.json"))

    return folder, told


def test_every_file_that_is_loaded_counts_by_its_content(base):
    folder, told = base
    before = told()
    names = [line.split()[0] for line in before]
    assert {"unet/diffusion_pytorch_model.safetensors", "vae/config.json"} <= set(names)
    assert {"model_index.json", "tokenizer/vocab.json"} <= set(names)
    for name in ("unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        path = folder / name
        content, times = path.read_bytes(), path.stat()
        os.utime(path)
        assert told() == before
        changed = content.replace(b"0", b"1", 1) if name.endswith(".json") else content[:-1] + b"x"
        path.write_bytes(changed)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        (line,) = set(told()) - set(before)
        assert line.startswith(name)
        path.write_bytes(content)
        assert told() == before


def test_what_is_not_loaded_counts_nothing_and_gone_weights_stay_what_they_were(base):
    folder, told = base
    before = told()
    (folder / "README.md").write_text("about")
    (folder / "v1-5-pruned.ckpt").write_bytes(b"x")
    (folder / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"x")
    assert told() == before
    shutil.rmtree(folder)
    assert told() == before


def test_a_part_that_lies_elsewhere_counts_as_if_it_lay_in_the_folder(base, tmp_path):
    folder, told = base
    before = told()
    shutil.move(folder / "vae", tmp_path / "vae")
    assert told(vae=str(tmp_path / "vae")) == before
    (tmp_path / "vae/config.json").write_text(
        (tmp_path / "vae/config.json").read_text().replace("{", '{"_note": 1,', 1)
    )
    (line,) = set(told(vae=str(tmp_path / "vae"))) - set(before)
    assert line.startswith("vae/config.json ")


@pytest.fixture
def own(tmp_path):
    """A user's images of two prompt sets; a function that writes the table; and what is told."""
    rows = [["a.png", "test-a-r00"], ["b.png", "test-b-r00"], ["c.png", "privacy-c-r00"]]
    for name, _ in rows:
        (tmp_path / name).write_text(name)

    def write(rows):
        with (tmp_path / "metadata.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([["file_name", "prompt_id"], *rows])

    def told(prompt_set="test"):
        external = {"images": str(tmp_path), "metadata": str(tmp_path / "metadata.csv")}
        return external_contents(external, prompt_set, Contents(tmp_path / "known.json"))

    write(rows)
    return tmp_path, rows, write, told


def test_an_image_replaced_in_place_counts_for_its_prompt_set_alone(own):
    folder, rows, write, told = own
    test, privacy = told(), told("privacy")
    assert test[0].startswith("2 images ")
    times = (folder / "a.png").stat()
    (folder / "a.png").write_text("x.png")  # as long, and with the times of before
    os.utime(folder / "a.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (told() != test, told("privacy") == privacy) == (True, True)
    (folder / "a.png").write_text("a.png")
    for name, _ in rows:
        os.utime(folder / name)
    write(rows[::-1])
    assert (told(), told("privacy")) == (test, privacy)
    write([["b.png", rows[0][1]], ["a.png", rows[1][1]], rows[2]])  # two images changed places
    assert (told() != test, told("privacy") == privacy) == (True, True)
    write(rows)
    (folder / "b.png").unlink()
    assert told() != ["missing"]
