"""BioViL-T's text encoder, CXR-BERT (Boecking et al., 2022; Bannur et al., 2023).

`weights` is a folder (microsoft/BiomedVLP-BioViL-T): config.json, vocab.txt, model.safetensors or
pytorch_model.bin, and optionally tokenizer_config.json. Its remote code is not run. The network is
transformers' BERT without a pooler and a head on the class token (linear, GELU, layer norm,
linear); the feature is L2-normalised, 128 wide. The weights of masked-language modelling
(`cls.predictions`) are checked but not used.

The characters `!?.` at the end of a caption are removed, and a caption with a special token
([MASK], [SEP], ...) is refused, as in hi-ml's inference engine. A caption with more tokens than the
network has positions is cut, with a warning that shows it. hi-ml refuses it, which would stop a
benchmark of thousands of captions because of one.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.as_published import Deviations
from workflow_scripts.common.checkpoints import (
    check_weight_file,
    load_exactly,
    load_state,
    safetensors_shapes,
)
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import Takes
from workflow_scripts.features.encoders.layout import check_shapes, read_json, read_number

log = logging.getLogger(__name__)

OPTIONAL: Final = (
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "bert.embeddings.position_ids",
)
"""Tied weights, which safetensors leaves out, and a buffer of old versions of transformers."""

_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class ProjectionHead(nn.Module):
    """The head that maps the class token (n, hidden) to the joint space (n, outputs)."""

    def __init__(self, hidden: int, outputs: int):
        super().__init__()
        self.dense_to_hidden = nn.Linear(hidden, outputs)
        self.LayerNorm = nn.LayerNorm(outputs, eps=1e-12)
        self.dense_to_output = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Apply linear, GELU (exact), layer norm, linear; the result is not normalised."""
        return self.dense_to_output(self.LayerNorm(nn.functional.gelu(self.dense_to_hidden(x))))


class TextModel(nn.Module):
    """BERT and the projection head, in CXR-BERT's key layout.

    Args:
        config: the content of config.json.
    """

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        from transformers import BertConfig, BertModel

        # The file's `auto_map` and `model_type` are left out, because they ask for remote code.
        known = BertConfig().to_dict().keys() - {"model_type", "transformers_version"}
        self.bert = BertModel(
            BertConfig(**{key: value for key, value in config.items() if key in known}),
            add_pooling_layer=False,
        )
        self.cls_projection_head = ProjectionHead(config["hidden_size"], config["projection_size"])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map token ids (n, length) to L2-normalised joint embeddings (n, projection_size)."""
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return nn.functional.normalize(self.cls_projection_head(states[:, 0]), dim=1)


def files(weights: Path) -> list[Path]:
    """Return the files that the features depend on."""
    found = [weights / "config.json", _weight_file(weights), weights / "vocab.txt"]
    tokenizer = weights / "tokenizer_config.json"
    return [*found, tokenizer] if tokenizer.exists() else found


def check(weights: Path) -> None:
    """Check the vocabulary and every tensor's name and shape against config.json.

    Raises:
        InputError: see `Encoder`'s package.
    """
    config = read_json(weights / "config.json")
    file = _weight_file(weights)
    check_weight_file(file)
    if file.suffix == ".safetensors":
        found = safetensors_shapes(file)
    else:
        found = {key: tuple(value.shape) for key, value in load_state(file).items()}
    _check_layout(found, config, weights)
    _read_vocabulary(weights, read_number(config, "vocab_size", weights / "config.json"))


def expected_shapes(config: dict[str, Any], path: Path) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor in the file."""
    width = read_number(config, "hidden_size", path)
    inner = read_number(config, "intermediate_size", path)
    words = read_number(config, "vocab_size", path)
    outputs = read_number(config, "projection_size", path)
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (words, width),
        "bert.embeddings.position_embeddings.weight": (
            read_number(config, "max_position_embeddings", path),
            width,
        ),
        "bert.embeddings.token_type_embeddings.weight": (config.get("type_vocab_size", 2), width),
        "cls.predictions.bias": (words,),
        "cls.predictions.decoder.weight": (words, width),
        "cls.predictions.decoder.bias": (words,),
    }

    def linear(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    def norm(name: str, size: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (size,), (size,)

    norm("bert.embeddings.LayerNorm", width)
    for i in range(read_number(config, "num_hidden_layers", path)):
        layer = f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{name}", width, width)
        linear(f"{layer}.attention.output.dense", width, width)
        norm(f"{layer}.attention.output.LayerNorm", width)
        linear(f"{layer}.intermediate.dense", inner, width)
        linear(f"{layer}.output.dense", width, inner)
        norm(f"{layer}.output.LayerNorm", width)
    linear("cls.predictions.transform.dense", width, width)
    norm("cls.predictions.transform.LayerNorm", width)
    linear("cls_projection_head.dense_to_hidden", outputs, width)
    norm("cls_projection_head.LayerNorm", outputs)
    linear("cls_projection_head.dense_to_output", outputs, outputs)
    return shapes


class BioVilTText:
    """The encoder; see the module."""

    name = "biovil_t_text"
    reads = "caption"
    takes = Takes(why="it reads some thousand short texts")

    def __init__(self, network: TextModel, tokenizer: Any, device: torch.device):
        self.network = network.eval().to(device)
        self.computes = network
        self.tokenizer = tokenizer
        self.device = device
        self.longest = int(network.bert.config.max_position_embeddings)
        self.dimension = int(network.cls_projection_head.dense_to_output.out_features)
        self.preprocessing = (
            f"final !?. removed; BERT word pieces, lower case {tokenizer.do_lower_case}; "
            f"cut to {self.longest} tokens"
        )
        self.extras: dict[str, NDArray[np.float32]] = {}

    def prepare(self, source: Any) -> Tensor:
        """Map a caption to token ids, int64 (length,).

        Raises:
            InputError: the caption holds a special token.
        """
        text = source.rstrip("!?.")
        special = [token for token in _SPECIAL if token in text]
        if special:
            raise InputError(
                f"a caption holds the special token {special[0]}", repr(source[:80]), "remove it"
            )
        ids = self.tokenizer(text)["input_ids"]
        if len(ids) > self.longest:
            log.warning(
                "a caption of %d tokens is cut to the %d of the network: %r",
                len(ids),
                self.longest,
                source[:80],
            )
            ids = [*ids[: self.longest - 1], self.tokenizer.sep_token_id]
        return torch.tensor(ids, dtype=torch.int64)

    @torch.inference_mode()
    def encode(self, batch: Sequence[Tensor]) -> NDArray[np.float32]:
        """Map n captions to L2-normalised features (n, 128); padding is masked."""
        ids = nn.utils.rnn.pad_sequence(
            list(batch), batch_first=True, padding_value=self.tokenizer.pad_token_id
        )
        lengths = torch.tensor([len(row) for row in batch])
        mask = (torch.arange(ids.shape[1])[None, :] < lengths[:, None]).long()
        return self.network(ids.to(self.device), mask.to(self.device)).float().cpu().numpy()


def load(weights: Path, device: torch.device, switches: Deviations, purpose: str) -> BioVilTText:
    """Load network and tokenizer from the local folder.

    Raises:
        InputError: see `check`.
    """
    config = read_json(weights / "config.json")
    file = _weight_file(weights)
    state = load_state(file)
    _check_layout({key: tuple(value.shape) for key, value in state.items()}, config, weights)
    network = TextModel(config)
    own = network.state_dict()
    load_exactly(network, {key: state[key] for key in state if key in own}, file)
    return BioVilTText(network, load_tokenizer(weights), device)


def load_tokenizer(weights: Path) -> Any:
    """Return transformers' BertTokenizer for vocab.txt, with tokenizer_config.json's settings.

    Raises:
        InputError: the vocabulary is missing or does not fit the network.
    """
    from transformers import BertTokenizer

    config = read_json(weights / "config.json")
    settings: dict[str, Any] = {}
    path = weights / "tokenizer_config.json"
    if path.exists():
        names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
        given = read_json(path)
        settings = {name: given[name] for name in names if name in given}
    words = _read_vocabulary(weights, read_number(config, "vocab_size", weights / "config.json"))
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, **settings)


def _check_layout(found: dict[str, tuple[int, ...]], config: dict[str, Any], weights: Path) -> None:
    expected = expected_shapes(config, weights / "config.json")
    check_shapes(found, expected, _weight_file(weights), OPTIONAL)


def _weight_file(weights: Path) -> Path:
    safe = weights / "model.safetensors"
    plain = weights / "pytorch_model.bin"
    return plain if plain.exists() and not safe.exists() else safe


def _read_vocabulary(weights: Path, size: int) -> list[str]:
    path = weights / "vocab.txt"
    remedy = "download vocab.txt again"
    try:
        words = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable("cannot read the vocabulary", error, path, remedy) from None
    missing = [token for token in _SPECIAL if token not in words]
    if missing or len(words) != size:
        fault = f"lacks {', '.join(missing)}" if missing else f"has {len(words)} words, not {size}"
        raise InputError(f"the vocabulary {fault}", path, remedy)
    return words
