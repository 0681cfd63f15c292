"""How a family reads a caption: its tokenizers, and to how many tokens it cuts."""

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
        name: for readers.
        folder: of its tokenizer.
        limit: tokens to which the family cuts; None where the tokenizer's own length decides.
        tokenizer: the class of transformers that loads it.
        template: what the family makes of a caption before it is tokenized.
        special: whether special tokens are added.
    """

    name: str
    folder: Path
    limit: int | None
    tokenizer: str = "AutoTokenizer"
    template: Callable[[str], str] = str
    special: bool = True


def clip(folder: Path) -> TextEncoder:
    """Return a CLIP text encoder, which cuts at its tokenizer's own length."""
    return TextEncoder("CLIP", folder, None, CLIP)


def indexed_text_encoders(base: Base) -> list[TextEncoder]:
    """Return the tokenizers that a checkpoint's `model_index.json` names; none without the file.

    Each is taken to cut at its own length.
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
