"""The LLaVA: loading it, the parameters that each stage trains, and the loss on the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.checkpoints import reads_headers_only
from workflow_scripts.common.errors import InputError, first_line
from workflow_scripts.downstream.report_generation.images import Ahead, Squares, tower_input
from workflow_scripts.downstream.report_generation.layout import IMAGE_TOKEN, check_start
from workflow_scripts.downstream.report_generation.prompts import Written

PRECISIONS: Final = {"no": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class LoraSettings:
    """A low-rank adapter on every linear layer of the language model except the head.

    Attributes:
        rank: rank of the two factors.
        alpha: the update is scaled by alpha / rank.
        dropout: share of the adapter's inputs that training drops, in [0, 1).
    """

    rank: int
    alpha: int
    dropout: float


def load_llava(folder: Path, dtype: torch.dtype) -> Any:
    """Load a LLaVA folder, with all parameters frozen.

    Inside `headers_only` the network is built on the meta device.

    Raises:
        InputError: see `check_start`; or weights are missing, unexpected or of another shape, all
            named.
    """
    from transformers import LlavaForConditionalGeneration

    check_start(folder)
    try:
        loaded: Any = LlavaForConditionalGeneration.from_pretrained(
            folder,
            dtype=dtype,
            device_map="meta" if reads_headers_only() else None,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # all of them are named below
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise unreadable("cannot load a LLaVA", error, folder) from None
    network, found = loaded
    faults = {
        "missing": sorted(found["missing_keys"]),
        "unexpected": sorted(found["unexpected_keys"]),
        "of another shape": sorted(str(entry[0]) for entry in found["mismatched_keys"]),
    }
    lines = [
        f"{len(keys)} key(s) {fault}: {', '.join(keys[:5])}{', ...' * (len(keys) > 5)}"
        for fault, keys in faults.items()
        if keys
    ]
    if lines:
        raise InputError("; ".join(lines), folder, "convert the published files again")
    return network.requires_grad_(False)


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a LLaVA folder.

    Raises:
        InputError: it cannot be read or has no placeholder for the image.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # several libraries read its files, and may raise anything
        raise InputError(f"cannot load a tokenizer: {first_line(error)}", folder) from None
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        raise InputError(f"the tokenizer has no token {IMAGE_TOKEN}", folder)
    return tokenizer


def reset_projector(network: Any, seed: int) -> None:
    """Give the projector new weights, as PyTorch initialises linear layers."""
    torch.manual_seed(seed)
    projector = network.model.multi_modal_projector
    for layer in (projector.linear_1, projector.linear_2):
        layer.to("cpu", torch.float32).reset_parameters()


def train_projector_only(network: Any) -> list[nn.Parameter]:
    """Make the projector trainable, in float32, and nothing else; return its parameters."""
    network.requires_grad_(False)
    projector = network.model.multi_modal_projector.float().requires_grad_(True)
    return list(projector.parameters())


def add_lora(network: Any, settings: LoraSettings, seed: int) -> list[nn.Parameter]:
    """Add a zero adapter, in float32; make it and the projector trainable.

    Returns:
        The trainable parameters.
    """
    from peft import LoraConfig, inject_adapter_in_model

    linear = [
        f"model.language_model.{name}"
        for name, module in network.model.language_model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    torch.manual_seed(seed)
    inject_adapter_in_model(
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=linear,
        ),
        network,
    )
    network.requires_grad_(False)
    network.model.multi_modal_projector.float().requires_grad_(True)
    for name, parameter in network.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def merge_lora(network: nn.Module) -> None:
    """Add the adapter's update to the weights that it adapts; the adapter is bypassed then."""
    from peft.tuners.lora import LoraLayer

    for module in network.modules():
        if isinstance(module, LoraLayer) and not module.merged:
            module.merge()


class StageNetwork(nn.Module):
    """A wrapper of the network, a new one in each stage.

    accelerate marks a module that it has prepared, and does not replace its `forward` a second
    time. Without the wrapper the second stage would run in float32.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, **inputs: Any) -> Any:
        """Return the network's output."""
        return self.network(**inputs)


class ReportTask:
    """Losses of one stage; see `training.Task`.

    Args:
        images: the images to train on.
        written: their reports, in the same order.
        validation: images and reports to validate on; there may be none.
        image_token: id of the image's placeholder. No answer holds it, and the softmax leaves it
            out, because the language model was trained without it.
        padding: id that pads the shorter answers of a batch.
        batch_size: images at a time in validation.
        threads: threads that decode the validation images.
        device: the network's device.
    """

    def __init__(
        self,
        images: Ahead,
        written: Written,
        validation: tuple[Squares, Written],
        *,
        image_token: int,
        padding: int,
        batch_size: int,
        threads: int,
        device: torch.device,
    ):
        self.images, self.written, self.validation = images, written, validation
        self.transform = images.squares.transform
        self.image_token, self.padding = image_token, padding
        self.batch_size, self.threads, self.device = batch_size, threads, device
        self.n_train = len(images.squares)
        self.lengths = np.array([len(answer) for answer in written.answers])

    def weight(self, rows: np.ndarray) -> int:
        """Return the number of answer tokens: the loss is a mean over them."""
        return int(self.lengths[rows].sum())

    def loss(self, network: nn.Module, rows: np.ndarray, epoch: int) -> Tensor:
        """Return the mean cross-entropy of the answers' tokens."""
        squares = self.images.read(rows, epoch)
        return self._loss(network, squares, self.written, rows)

    def validation_loss(self, network: nn.Module) -> float | None:
        """Return the mean cross-entropy of the answers' tokens over the validation images."""
        squares, written = self.validation
        if len(squares) == 0:
            return None
        rows = np.arange(len(squares))
        images = Ahead(
            squares, lambda _: rows, epochs=1, threads=self.threads, ahead=2 * self.batch_size
        )
        total, tokens = 0.0, 0
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            number = sum(len(written.answers[row]) for row in batch)
            total += float(self._loss(network, images.read(batch, 0), written, batch)) * number
            tokens += number
        images.close()
        return total / tokens

    def _loss(
        self, network: nn.Module, squares: np.ndarray, written: Written, rows: np.ndarray
    ) -> Tensor:
        answers = [written.answers[row] for row in rows]
        batch = padded(written.prompts.of(rows), answers, self.padding)
        # The head computes only positions from the first answer on; the image has a thousand more.
        logits = network(
            input_ids=torch.from_numpy(batch.ids).to(self.device),
            attention_mask=torch.from_numpy(batch.mask).to(self.device),
            pixel_values=tower_input(squares, self.transform, self.device),
            logits_to_keep=batch.ids.shape[1] - batch.start + 1,
            use_cache=False,
        ).logits
        # Among these, the ends of longer prompts and the padding do not predict answers.
        row, column = (torch.from_numpy(part).to(self.device) for part in batch.answered)
        return functional.cross_entropy(
            _without(logits[row, column - batch.start].float(), self.image_token),
            torch.from_numpy(np.concatenate(answers)).to(self.device),
        )


@dataclass(frozen=True)
class Batch:
    """Prompts with their answers, padded at the end.

    Attributes:
        ids: int64 (n, length) token ids.
        mask: int64 (n, length), 1 where there is text.
        start: column of the earliest answer's first token.
        answered: rows and columns of all tokens of the answers, row by row.
    """

    ids: np.ndarray
    mask: np.ndarray
    start: int
    answered: tuple[np.ndarray, np.ndarray]


def padded(prompts: Sequence[np.ndarray], answers: Sequence[np.ndarray], padding: int) -> Batch:
    """Join each prompt with its answer, and pad shorter rows with `padding`."""
    starts = np.array([len(prompt) for prompt in prompts])
    ends = starts + [len(answer) for answer in answers]
    columns = np.arange(ends.max())
    mask = columns < ends[:, None]
    ids = np.full(mask.shape, padding, np.int64)
    ids[mask] = np.concatenate([part for row in zip(prompts, answers, strict=True) for part in row])
    answered = np.nonzero(mask & (columns >= starts[:, None]))
    return Batch(ids, mask.astype(np.int64), int(starts.min()), (answered[0], answered[1]))


def _without(logits: Tensor, token: int) -> Tensor:
    """Exclude a token from the softmax."""
    if token == logits.shape[-1] - 1:
        return logits[..., :token]
    return logits.index_fill(-1, torch.tensor(token, device=logits.device), float("-inf"))
