"""The lengths of captions in tokens of each model's text encoders, and the share that is cut.

The tokenizers are those of the models' own checkpoints; each family names them and their limits
(`Family.text_encoders`). Special tokens and a family's text around the caption count. If no model
has a tokenizer, words are counted, and the share that is cut is not known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.manifest import read_prompts
from workflow_scripts.finetune.families.parts import text_tokens
from workflow_scripts.finetune.families.text_encoders import TextEncoder

WORDS: Final = "words"
TOKENS: Final = "tokens"

_UNBOUNDED: Final = 10**6
"""A tokenizer without a known limit reports a far larger number than this."""


@dataclass(frozen=True)
class CaptionSet:
    """The captions of one source in one prompt set, each radiograph's once."""

    source: str
    prompt_set: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Lengths:
    """The lengths of every caption set in one text encoder, or in words.

    Attributes:
        encoder: its name; "" for words.
        limit: the longest caption that is not cut, in the same unit; None where it is not known.
        models: keys of the models that have this encoder.
        counts: for each caption set, in order: int (captions,).
    """

    encoder: str
    limit: int | None
    models: tuple[str, ...]
    counts: tuple[np.ndarray, ...]

    @property
    def unit(self) -> str:
        """The unit of the lengths."""
        return TOKENS if self.encoder else WORDS

    def cut(self) -> list[float] | None:
        """Return the share of captions that are cut, by caption set; None where not known."""
        if self.limit is None:
            return None
        return [float((counts > self.limit).mean()) for counts in self.counts]


def caption_sets(prompts: Mapping[str, Sequence[str | Path]]) -> list[CaptionSet]:
    """Read the captions of prompt sets, each radiograph's once; an empty set is left out.

    Args:
        prompts: files of prompt sets by caption source; a file's name is its set's.
    """
    sets = []
    for source, paths in prompts.items():
        for path in paths:
            frame = read_prompts(path).drop_duplicates("image_id")
            if len(frame):
                sets.append(CaptionSet(source, Path(path).stem, tuple(frame["caption"])))
    return sets


def not_counted(encoders: Mapping[str, Sequence[TextEncoder]]) -> dict[str, str]:
    """Return the models whose captions cannot be counted, by key, and why.

    Args:
        encoders: of each model.
    """
    reasons = {}
    for model, encoders_of_model in encoders.items():
        if not encoders_of_model:
            reasons[model] = "its family names no tokenizer"
        elif not all(encoder.folder.is_dir() for encoder in encoders_of_model):
            missing = [e.name for e in encoders_of_model if not e.folder.is_dir()]
            reasons[model] = f"no tokenizer of {', '.join(dict.fromkeys(missing))} on the disk"
    return reasons


def lengths_of(
    sets: Sequence[CaptionSet], encoders: Mapping[str, Sequence[TextEncoder]]
) -> list[Lengths]:
    """Count every caption for every text encoder; encoders that count alike share one entry.

    Args:
        sets: the captions.
        encoders: the text encoders of each model. One without a tokenizer on the disk is skipped;
            see `not_counted`.

    Returns:
        The encoders that cut first come first. If no tokenizer is there, words are counted.
    """
    models_by_key: dict[tuple[Any, ...], list[str]] = {}
    counts_by_key: dict[tuple[Any, ...], tuple[np.ndarray, ...]] = {}
    for model, encoders_of_model in encoders.items():
        for encoder in encoders_of_model:
            if not encoder.folder.is_dir():
                continue
            counts, limit = _count(encoder, sets)
            key = (encoder.name, limit, *(lengths.tobytes() for lengths in counts))
            counts_by_key[key] = counts
            models = models_by_key.setdefault(key, [])
            if model not in models:
                models.append(model)
    if not models_by_key:
        words = tuple(np.array([len(text.split()) for text in s.captions]) for s in sets)
        return [Lengths("", None, tuple(encoders), words)]
    counted = [
        Lengths(key[0], key[1], tuple(models), counts_by_key[key])
        for key, models in models_by_key.items()
    ]
    return sorted(counted, key=lambda lengths: (lengths.limit or _UNBOUNDED, lengths.encoder))


def histogram(counted: Sequence[Lengths], sets: Sequence[CaptionSet]) -> pd.DataFrame:
    """Return how many captions have which length: a row for each encoder, set and length."""
    rows = []
    for lengths in counted:
        of_encoder = (lengths.encoder, lengths.limit, " ".join(lengths.models), lengths.unit)
        for caption_set, counts in zip(sets, lengths.counts, strict=True):
            head = (caption_set.source, caption_set.prompt_set, *of_encoder)
            pairs = zip(*np.unique(counts, return_counts=True), strict=True)
            rows += [(*head, int(length), int(captions)) for length, captions in pairs]
    columns = ["caption_source", "prompt_set", "text_encoder", "limit", "models", "unit"]
    frame = pd.DataFrame(rows, columns=[*columns, "length", "captions"])
    return frame.astype({"limit": "Int64"})


def shares_cut(counted: Sequence[Lengths], sets: Sequence[CaptionSet]) -> pd.DataFrame:
    """Return how many captions each model cuts: a row for each model, encoder and caption set."""
    rows = []
    for lengths in counted:
        shares: Sequence[float | None] = lengths.cut() or [None] * len(sets)
        for model in lengths.models:
            for caption_set, counts, share in zip(sets, lengths.counts, shares, strict=True):
                head = (model, lengths.encoder, lengths.limit, caption_set.source)
                spread = (float(counts.mean()), int(counts.max()), share)
                rows.append((*head, caption_set.prompt_set, len(counts), lengths.unit, *spread))
    columns = ["model", "text_encoder", "limit", "caption_source", "prompt_set", "captions"]
    frame = pd.DataFrame(rows, columns=[*columns, "unit", "mean_length", "longest", "share_cut"])
    return frame.astype({"limit": "Int64"})


def _count(
    encoder: TextEncoder, sets: Sequence[CaptionSet]
) -> tuple[tuple[np.ndarray, ...], int | None]:
    """Return the tokens of every caption, uncut, and the limit."""
    import transformers

    try:
        tokenizer = getattr(transformers, encoder.tokenizer).from_pretrained(
            encoder.folder, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise unreadable("a tokenizer cannot be loaded", error, encoder.folder) from None
    limit = tokenizer.model_max_length
    if encoder.limit is not None:
        limit = text_tokens(tokenizer, encoder.limit)
    counts = []
    for caption_set in sets:
        texts = [encoder.template(caption) for caption in caption_set.captions]
        ids = tokenizer(
            texts, add_special_tokens=encoder.special, truncation=False, verbose=False
        ).input_ids
        counts.append(np.array([len(tokens) for tokens in ids]))
    return tuple(counts), limit if limit < _UNBOUNDED else None
