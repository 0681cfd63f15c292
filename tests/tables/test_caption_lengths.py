"""Caption lengths in the tokens of any family, one from outside the package included."""

import json

import numpy as np
import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import family_names, modules_of
from workflow_scripts.tables.build_figures import parse_tokenizers
from workflow_scripts.tables.caption_lengths import CaptionSet, lengths_of, not_counted
from workflow_scripts.tables.figures.captions import draw_caption_lengths

FAMILY = """
from workflow_scripts.finetune.families.base import Family


class Mine(Family):
    name = "mine"

    def check(self, base): ...
    def load(self, base, dtype=None, network_dtype=None): ...
    def sample(self, pipeline, captions, seeds, settings): ...
"""

CAPTIONS = CaptionSet("llava_rad", "test", ("the lungs are clear", "lungs"))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "lungs", "are", "clear"]


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A family in a file of its own, and a checkpoint whose index names a tokenizer."""
    (tmp_path / "their_families.py").write_text(FAMILY)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "checkpoint"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer/vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer/tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 4})
    )
    (folder / "model_index.json").write_text(
        json.dumps({"tokenizer": ["transformers", "BertTokenizer"], "vae": ["diffusers", "X"]})
    )
    return folder


def encoders_of(**bases):
    entries = {
        model: {"family": family, "base": str(base)} for model, (family, base) in bases.items()
    }
    return parse_tokenizers(json.dumps(entries))


def test_a_family_from_outside_is_counted(outside):
    (lengths,) = lengths_of([CAPTIONS], encoders_of(mine=("their_families:Mine", outside)))
    assert (lengths.encoder, lengths.limit, lengths.models) == ("Bert", 4, ("mine",))
    np.testing.assert_array_equal(lengths.counts[0], [6, 3])  # with [CLS] and [SEP]
    assert lengths.cut() == [0.5]


def test_a_model_that_cannot_be_counted_is_named_in_the_caption(outside, tmp_path):
    encoders = encoders_of(
        mine=("their_families:Mine", outside),
        other=("their_families:Mine", tmp_path / "nothing"),
        flux=("flux", tmp_path / "nothing"),
    )
    reasons = not_counted(encoders)
    assert reasons == {
        "other": "its family names no tokenizer",
        "flux": "no tokenizer of CLIP, T5 on the disk",
    }
    names = {"mine": "Mine", "other": "Other", "flux": "Flux"}
    figure = draw_caption_lengths(lengths_of([CAPTIONS], encoders), [CAPTIONS], names, {}, reasons)
    assert figure.caption.endswith(
        "Not counted: Other (its family names no tokenizer); "
        "Flux (no tokenizer of CLIP, T5 on the disk)."
    )


def test_an_unknown_family_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown model family 'fluks'"):
        encoders_of(mine=("fluks", tmp_path))


def test_a_rule_can_declare_the_modules_of_its_families():
    assert modules_of(["flux", "sana", "flux", "their_families:Mine"]) == [
        "finetune.families.flux",
        "finetune.families.sana",
    ]
    assert len(modules_of(family_names())) == len(family_names())
