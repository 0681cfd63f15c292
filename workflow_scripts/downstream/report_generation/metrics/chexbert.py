"""CheXbert (Smit et al., 2020), a network that labels the 14 findings in a report.

It is a BERT with a linear head on the class token for each finding. Each head has four classes (not
mentioned, positive, negative, uncertain), except that "No Finding" has two. There are two inputs:
`chexbert.pth`, with a `model_state_dict` saved from a data-parallel module, and the folder of the
BERT that it was fine-tuned from (bert-base-uncased). Only configuration and vocabulary are read
from that folder. White space in a report is collapsed. A report with more tokens than the
network has positions is cut.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from workflow_scripts.common.checkpoints import build_device, headers_only, load_exactly, load_state
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.progress import Progress
from workflow_scripts.downstream.report_generation.metrics.chexbert_classes import HEADS
from workflow_scripts.features.encoders.biovil_t_text import load_tokenizer
from workflow_scripts.features.encoders.layout import read_json

_OPTIONAL: Final = ("bert.embeddings.position_ids",)  # a buffer of old versions of transformers


class CheXbert(nn.Module):
    """BERT and its 14 heads, in the published key layout.

    Args:
        config: the content of the BERT's config.json, which gives width and depth.
    """

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        from transformers import BertConfig, BertModel

        known = BertConfig().to_dict().keys() - {"model_type", "transformers_version"}
        given = BertConfig(**{key: value for key, value in config.items() if key in known})
        self.bert = BertModel(given)
        classes = [4] * (len(HEADS) - 1) + [2]
        self.linear_heads = nn.ModuleList(nn.Linear(given.hidden_size, n) for n in classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Map token ids (n, length) to the logits of each head, (n, 4) or (n, 2)."""
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return [head(states[:, 0]) for head in self.linear_heads]


class Labeller:
    """CheXbert with its tokenizer.

    Args:
        network: the network with its weights.
        tokenizer: the BERT's tokenizer.
        device: the device that it runs on.
    """

    def __init__(self, network: CheXbert, tokenizer: Any, device: torch.device):
        self.network = network.eval().to(device)
        self.tokenizer = tokenizer
        self.device = device
        self.longest = int(network.bert.config.max_position_embeddings)

    def tokens(self, report: str) -> list[int]:
        """Return a report's token ids, at most as many as the network has positions."""
        pieces = self.tokenizer.tokenize(" ".join(report.split()))
        ids = self.tokenizer.convert_tokens_to_ids(pieces)[: self.longest - 2]
        return [self.tokenizer.cls_token_id, *ids, self.tokenizer.sep_token_id]

    @torch.inference_mode()
    def label(self, reports: Sequence[str], batch_size: int, what: str) -> np.ndarray:
        """Return the class of each finding, int8 (n, 14), in the order of HEADS.

        Args:
            reports: the texts; an empty one is labelled, too.
            batch_size: reports at a time, padded to the longest; padding is masked.
            what: the kind of reports, for the log.
        """
        progress = Progress(f"CheXbert: {what}", len(reports), "reports")
        classes = []
        for start in range(0, len(reports), batch_size):
            rows = [torch.tensor(self.tokens(r)) for r in reports[start : start + batch_size]]
            ids = nn.utils.rnn.pad_sequence(
                rows, batch_first=True, padding_value=self.tokenizer.pad_token_id
            )
            lengths = torch.tensor([len(row) for row in rows])
            mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
            logits = self.network(ids.to(self.device), mask.to(self.device))
            classes.append(torch.stack([head.argmax(1) for head in logits], 1).to(torch.int8).cpu())
            progress.update(len(rows))
        return torch.cat(classes).numpy() if classes else np.zeros((0, len(HEADS)), np.int8)


def check(weights: Path, bert: Path) -> None:
    """Check the files by building the labeller without the values of its weights.

    Raises:
        InputError: as `load`.
    """
    load_tokenizer(bert)
    with headers_only():
        _network(weights, bert)


def load(weights: Path, bert: Path, device: torch.device) -> Labeller:
    """Load the labeller from local files.

    Args:
        weights: `chexbert.pth`.
        bert: folder with config.json, vocab.txt and optionally tokenizer_config.json.
        device: the device that it runs on.

    Raises:
        InputError: a file is missing or damaged, vocabulary and configuration do not fit each
            other, or tensors are missing, unexpected or misshapen, all named.
    """
    tokenizer = load_tokenizer(bert)
    return Labeller(_network(weights, bert), tokenizer, device)


def _network(weights: Path, bert: Path) -> CheXbert:
    content = load_state(weights)
    state = content.get("model_state_dict")
    if not isinstance(state, dict):
        raise InputError(
            f"no `model_state_dict` among {sorted(map(str, content))[:5]}",
            weights,
            "use the published chexbert.pth (docs/how-to/mimic-and-weights.md)",
        )
    state = {key.removeprefix("module."): value for key, value in state.items()}
    for key in _OPTIONAL:
        state.pop(key, None)
    with build_device():
        network = CheXbert(read_json(bert / "config.json"))
    load_exactly(network, state, weights)
    return network
