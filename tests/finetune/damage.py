"""A checkpoint damaged as people damage theirs, and the check that a family refuses it by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.layout import Base

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def edit(path, **values):
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edited(name, **values):
    """Return what changes values of a folder's JSON file."""
    return lambda folder: edit(folder / name, **values)


def removed(name):
    """Return what removes a folder's file."""
    return lambda folder: (folder / name).unlink()


def truncated(name):
    """Return what cuts the end of a folder's file off."""

    def cut(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:-100])

    return cut


def pointer(name):
    """Return what leaves Git LFS's pointer in a file's place."""
    return lambda folder: (folder / name).write_text(POINTER)


def check_refused(family, folder, damage, told, base_of=Base):
    """The family takes the checkpoint of a folder, and names what is wrong once it is damaged."""
    family.check(base_of(folder))
    damage(folder)
    with pytest.raises(InputError) as caught:
        family.check(base_of(folder))
    assert told in str(caught.value)


def rename_key(path, old, new):
    """Give a tensor of a checkpoint's file another name."""
    pickled = path.suffix == ".bin"
    state = torch.load(path, weights_only=True) if pickled else load_file(path)
    state[new] = state.pop(old)
    torch.save(state, path) if pickled else save_file(state, path)
