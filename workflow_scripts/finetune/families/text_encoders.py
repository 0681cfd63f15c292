"""How a family reads a caption: its tokenizers, and the number of tokens that they keep."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workflow_scripts.finetune.layout import Base, read_json

CLIP: Final = "CLIPTokenizer"
"""The class of transformers that loads CLIP's tokenizer."""


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder that reads a model's captions.

    Attributes:
        name: a name for readers.
        folder: the folder of its tokenizer.
        limit: the tokens that the family keeps; None if the tokenizer's own limit decides.
        tokenizer: the class of transformers that loads it.
        template: turns a caption into the text that is tokenized.
        special: whether special tokens are added.
    """

    name: str
    folder: Path
    limit: int | None
    tokenizer: str = "AutoTokenizer"
    template: Callable[[str], str] = str
    special: bool = True


def clip(folder: Path) -> TextEncoder:
    """Return a CLIP text encoder, which cuts at its tokenizer's limit."""
    return TextEncoder("CLIP", folder, None, CLIP)


def indexed_text_encoders(base: Base) -> list[TextEncoder]:
    """Return the tokenizers that a checkpoint's `model_index.json` names; none without the file.

    Each is assumed to cut at its own limit.
    """
    index = base.folder / "model_index.json"
    if not index.is_file():
        return []
    classes = {
        part: str(entry[1])
        for part, entry in read_json(index).items()
        if isinstance(entry, list) and "Tokenizer" in str(entry[-1])
    }
    return [
        TextEncoder(name.split("Tokenizer")[0] or "tokenizer", base.path(part), None)
        for part, name in classes.items()
    ]
