"""How long captions are in the tokens of each model's text encoders, and how many are cut.

Counted with the tokenizers of the models' own checkpoints, with what the family puts around a
caption and the special tokens, against the length that the family cuts at. Where no tokenizer lies
on the disk words are counted, and what is cut is not known.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.manifest import read_prompts
from workflow_scripts.finetune.families import (
    flux,
    llm_cxr,
    lumina2,
    pixart_sigma,
    radedit,
    sana,
    stable_diffusion_3,
)
from workflow_scripts.finetune.families.parts import text_tokens
from workflow_scripts.finetune.families.taming import read_vqgan_config
from workflow_scripts.finetune.layout import Base, read_json

WORDS: Final = "words"
TOKENS: Final = "tokens"
CLIP: Final = "CLIPTokenizer"

_UNBOUNDED: Final = 10**6
"""A tokenizer of which no longest input is known gives a far larger number."""


@dataclass(frozen=True)
class CaptionSet:
    """The captions of one source in one prompt set, each radiograph's once."""

    source: str
    prompt_set: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class TextEncoder:
    """How a model reads a caption.

    Attributes:
        name: of the encoder, for readers.
        folder: of its tokenizer.
        most: tokens to which the family cuts; None where the tokenizer's own length decides.
        kind: class of transformers that loads it.
        around: what the family makes of a caption before it is tokenized.
        special: whether special tokens are added.
    """

    name: str
    folder: Path
    most: int | None
    kind: str = "AutoTokenizer"
    around: Callable[[str], str] = str
    special: bool = True


@dataclass(frozen=True)
class Lengths:
    """The lengths of every caption set in one text encoder, or in words.

    Attributes:
        encoder: its name; "" for words.
        limit: the longest caption that is not cut, in the same unit; None where it is not known.
        models: keys of the models that read captions so.
        counts: for each caption set, in order: int (captions,).
    """

    encoder: str
    limit: int | None
    models: tuple[str, ...]
    counts: tuple[np.ndarray, ...]

    @property
    def unit(self) -> str:
        """What is counted."""
        return TOKENS if self.encoder else WORDS

    def cut(self) -> list[float] | None:
        """Return the share of captions that are cut, by caption set; None where not known."""
        if self.limit is None:
            return None
        return [float((counts > self.limit).mean()) for counts in self.counts]


def caption_sets(prompts: Mapping[str, Sequence[str | Path]]) -> list[CaptionSet]:
    """Read the captions of prompt sets, each radiograph's once; a set without any is left out.

    Args:
        prompts: files of prompt sets by caption source; a file's name is its set's.
    """
    found = []
    for source, paths in prompts.items():
        for path in paths:
            frame = read_prompts(path).drop_duplicates("image_id")
            if len(frame):
                found.append(CaptionSet(source, Path(path).stem, tuple(frame["caption"])))
    return found


def text_encoders(family: str, base: Base) -> list[TextEncoder]:
    """Return how a family reads captions; nothing for one that is not known."""
    known = {
        "stable_diffusion": lambda: [TextEncoder("CLIP", base.path("tokenizer"), None, CLIP)],
        "stable_diffusion_3": lambda: [
            TextEncoder("CLIP", base.path("tokenizer"), None, CLIP),
            TextEncoder("CLIP", base.path("tokenizer_2"), None, CLIP),
            TextEncoder("T5", base.path("tokenizer_3"), stable_diffusion_3.TEXT_TOKENS),
        ],
        "flux": lambda: [
            TextEncoder("CLIP", base.path("tokenizer"), None, CLIP),
            TextEncoder("T5", base.path("tokenizer_2"), flux.TEXT_TOKENS),
        ],
        "pixart_sigma": lambda: [
            TextEncoder("T5", base.path("tokenizer"), pixart_sigma.TEXT_TOKENS)
        ],
        "sana": lambda: [TextEncoder("Gemma", base.path("tokenizer"), sana.TEXT_TOKENS)],
        "lumina2": lambda: [
            TextEncoder(
                "Gemma, with a system prompt",
                base.path("tokenizer"),
                lumina2.TEXT_TOKENS,
                around=_after_system_prompt,
            )
        ],
        "radedit": lambda: [
            TextEncoder(
                "CXR-BERT",
                base.parts.get("tokenizer", base.path("text_encoder")),
                radedit.TEXT_TOKENS,
                "BertTokenizer",
            )
        ],
        "llm_cxr": lambda: _of_llm_cxr(base),
        "diffusers": lambda: _of_any_pipeline(base),
    }
    return known[family]() if family in known else []


def lengths_of(
    sets: Sequence[CaptionSet], encoders: Mapping[str, Sequence[TextEncoder]]
) -> list[Lengths]:
    """Count every caption for every text encoder; those that count alike stand together.

    Args:
        sets: the captions.
        encoders: of each model. One whose tokenizer is not there is passed over.

    Returns:
        The encoders that cut first come first; a count of words where no tokenizer is there.
    """
    found: dict[tuple[Any, ...], list[str]] = {}
    counted: dict[tuple[Any, ...], tuple[np.ndarray, ...]] = {}
    for model, of_model in encoders.items():
        for encoder in of_model:
            if not encoder.folder.is_dir():
                continue
            counts, limit = _count(encoder, sets)
            place = (encoder.name, limit, *(row.tobytes() for row in counts))
            counted[place] = counts
            models = found.setdefault(place, [])
            if model not in models:
                models.append(model)
    if not found:
        words = tuple(np.array([len(text.split()) for text in s.captions]) for s in sets)
        return [Lengths("", None, tuple(encoders), words)]
    every = [
        Lengths(place[0], place[1], tuple(models), counted[place])
        for place, models in found.items()
    ]
    return sorted(every, key=lambda lengths: (lengths.limit or _UNBOUNDED, lengths.encoder))


def histogram(found: Sequence[Lengths], sets: Sequence[CaptionSet]) -> pd.DataFrame:
    """Return how many captions have which length: a row for each encoder, set and length."""
    rows = []
    for lengths in found:
        for of, counts in zip(sets, lengths.counts, strict=True):
            values, captions = np.unique(counts, return_counts=True)
            for value, n in zip(values.tolist(), captions.tolist(), strict=True):
                rows.append(
                    {
                        "caption_source": of.source,
                        "prompt_set": of.prompt_set,
                        "text_encoder": lengths.encoder,
                        "limit": lengths.limit,
                        "models": " ".join(lengths.models),
                        "unit": lengths.unit,
                        "length": value,
                        "captions": n,
                    }
                )
    columns = ["caption_source", "prompt_set", "text_encoder", "limit", "models", "unit"]
    frame = pd.DataFrame(rows, columns=[*columns, "length", "captions"])
    return frame.astype({"limit": "Int64"})


def shares_cut(found: Sequence[Lengths], sets: Sequence[CaptionSet]) -> pd.DataFrame:
    """Return how many captions each model cuts: a row for each model, encoder and caption set."""
    rows = []
    for lengths in found:
        shares = lengths.cut()
        for model in lengths.models:
            for i, (of, counts) in enumerate(zip(sets, lengths.counts, strict=True)):
                rows.append(
                    {
                        "model": model,
                        "text_encoder": lengths.encoder,
                        "limit": lengths.limit,
                        "caption_source": of.source,
                        "prompt_set": of.prompt_set,
                        "captions": len(counts),
                        "unit": lengths.unit,
                        "mean_length": float(counts.mean()),
                        "longest": int(counts.max()),
                        "share_cut": None if shares is None else shares[i],
                    }
                )
    columns = ["model", "text_encoder", "limit", "caption_source", "prompt_set", "captions"]
    frame = pd.DataFrame(rows, columns=[*columns, "unit", "mean_length", "longest", "share_cut"])
    return frame.astype({"limit": "Int64"})


def _count(
    encoder: TextEncoder, sets: Sequence[CaptionSet]
) -> tuple[tuple[np.ndarray, ...], int | None]:
    """Return the tokens of every caption, uncut, and the limit."""
    import transformers

    try:
        tokenizer = getattr(transformers, encoder.kind).from_pretrained(
            encoder.folder, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise unreadable("a tokenizer cannot be loaded", error, encoder.folder) from None
    own = tokenizer.model_max_length
    most = own if encoder.most is None else text_tokens(tokenizer, encoder.most)
    counts = []
    for of in sets:
        texts = [encoder.around(caption) for caption in of.captions]
        ids = tokenizer(
            texts, add_special_tokens=encoder.special, truncation=False, verbose=False
        ).input_ids
        counts.append(np.array([len(row) for row in ids]))
    return tuple(counts), most if most < _UNBOUNDED else None


def _after_system_prompt(caption: str) -> str:
    """Return what Lumina's pipeline tokenizes: its system prompt comes first, and counts."""
    return f"{_system_prompt()} <Prompt Start> {caption}"


@cache
def _system_prompt() -> str:
    from diffusers import Lumina2Pipeline

    pipeline: Any = Lumina2Pipeline(*5 * (None,))
    return str(pipeline.system_prompt)


def _of_llm_cxr(base: Base) -> list[TextEncoder]:
    """A language model: the prompt has the room that the answer, an image, leaves."""
    if not base.folder.is_dir() and not {"llm", "vqgan"} <= base.parts.keys():
        return []
    llm, vqgan, _ = llm_cxr.find_parts(base)
    answer = read_vqgan_config(vqgan).codes + llm_cxr.SPARE_TOKENS
    room = int(read_json(llm / "config.json").get("max_position_embeddings", 0)) - answer
    return [
        TextEncoder(
            "GPT-NeoX, with instructions",
            llm,
            room,
            "PreTrainedTokenizerFast",
            llm_cxr.prompt_text,
            special=False,
        )
    ]


def _of_any_pipeline(base: Base) -> list[TextEncoder]:
    """The tokenizers that the folder's index names, each cutting at its own length."""
    index = base.folder / "model_index.json"
    if not index.is_file():
        return []
    kinds = {
        name: str(entry[1])
        for name, entry in read_json(index).items()
        if isinstance(entry, list) and "Tokenizer" in str(entry[-1])
    }
    return [
        TextEncoder(kind.split("Tokenizer")[0] or "tokenizer", base.path(name), None)
        for name, kind in kinds.items()
    ]
