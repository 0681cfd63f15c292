"""Report generation at LLaVA-Rad's size: both stages of training, and writing reports.

The language model and the tower have random weights, and lengths are said: a prompt of the image's
1,369 tokens and 60 words, reports of 60 tokens to learn and of `ANSWER` to write.
"""

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tests.benchmarks.bench_reporter import PATCHES, write_images
from tests.gpu.downstream import task_of
from tests.gpu.lines import Writer
from tests.gpu.measure import peak_gib, seconds_of
from workflow_scripts.downstream.report_generation.generate import _batch
from workflow_scripts.downstream.report_generation.images import Ahead, Squares, tower_input
from workflow_scripts.downstream.report_generation.layout import PUBLISHED
from workflow_scripts.downstream.report_generation.network import (
    LoraSettings,
    ReportTask,
    add_lora,
    train_projector_only,
)
from workflow_scripts.downstream.report_generation.prompts import Prompts, Written
from workflow_scripts.preflight.cost_model import PRECISIONS, reporter_settings

WORDS: Final = 60
ANSWER: Final = 100
IMAGE_TOKEN: Final = 99
_DTYPES: Final = {"no": torch.float32, "bf16": torch.bfloat16}


def time_report_training(stage: str, device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure a step of a stage, `projector` or `adapter`, with reading and decoding."""
    task = task_of("report_generation")
    batch = 2 if tiny else task["per_device_batch_size"]
    network = llava(device, tiny, task)
    if task["gradient_checkpointing"]:
        network.activation_checkpointing_enable({"use_reentrant": False})
    if stage == "projector":
        parameters = train_projector_only(network)
    else:
        lora = (task["lora_rank"], task["lora_alpha"], task["lora_dropout"])
        parameters = add_lora(network, LoraSettings(*lora), 0)
    network.train()
    optimiser = torch.optim.AdamW(parameters, lr=1e-4)
    steps = 2 if tiny else 5
    with tempfile.TemporaryDirectory() as name:
        items = write_images(Path(name), batch * (steps + 1))
        rows = np.arange(len(items))
        squares = Squares(items, PUBLISHED)
        threads = 1 if tiny else 8
        images = Ahead(squares, lambda _: rows, epochs=1, threads=threads, ahead=4 * batch)
        prompts = Prompts(_shown(), [np.full(WORDS, 5) for _ in rows], 0, 0)
        losses = ReportTask(
            images,
            Written(prompts, [np.full(WORDS, 7) for _ in rows], 0),
            (Squares([], PUBLISHED), Written(Prompts(_shown(), [], 0, 0), [], 0)),
            image_token=IMAGE_TOKEN, padding=2, batch_size=batch, threads=threads, device=device,
        )  # fmt: skip
        seen: list[float] = []
        shares = iter(np.split(rows, steps + 1))

        def step() -> None:
            low = _DTYPES[task["mixed_precision"]]
            with torch.autocast(device.type, low, enabled=low != torch.float32):
                loss = losses.loss(network, next(shares), 0)
            seen.append(float(loss.detach()))
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()

        taken = seconds_of(step, device, steps)
        images.close()
    settings = reporter_settings({**task, "per_device_batch_size": batch})
    say("images per second", batch / taken, "1/s", f"{settings}, LLaVA-Rad's size")
    say.losses(seen)
    if device.type == "cuda":
        say("peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB", settings)


def time_report_writing(device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure how many reports of `ANSWER` tokens are written a second, images decoded before."""
    task = task_of("report_generation")
    batch, answer = (2, 3) if tiny else (task["generate_batch_size"], ANSWER)
    network = llava(device, tiny, task).eval()
    network.generation_config.min_new_tokens = answer  # a random network ends anywhere
    with tempfile.TemporaryDirectory() as name:
        squares = Squares(write_images(Path(name), 2), PUBLISHED)
        pixels = tower_input(
            np.stack([squares(i % 2) for i in range(batch)]), squares.transform, device
        )
    prompt = np.concatenate([_shown(), np.full(WORDS, 5)])

    tokens: Any = _Tokens()

    def write() -> None:
        _batch(network, tokens, [prompt] * batch, pixels, answer)

    taken = seconds_of(write, device, 1)
    how = f"{PRECISIONS[task['mixed_precision']]}, batches of {batch}"
    note = f"{how}, answers of {answer} tokens, LLaVA-Rad's size"
    say("reports per second", batch / taken, "1/s", note)
    say("peak memory", peak_gib(write, device), "GiB", note)


def llava(device: torch.device, tiny: bool, task: dict[str, Any]) -> Any:
    """Return a LLaVA of LLaVA-Rad's size with random weights, frozen, built on the device."""
    from transformers import (
        Dinov2Config,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    words = LlamaConfig(
        **({**small, "intermediate_size": 64} if tiny else text),
        vocab_size=100 if tiny else 32064,
    )
    tower = Dinov2Config(
        image_size=518, patch_size=14, use_mask_token=False, **(small if tiny else {})
    )
    config = LlavaConfig(vision_config=tower, text_config=words, image_token_index=IMAGE_TOKEN)
    torch.manual_seed(0)
    torch.set_default_dtype(_DTYPES[task["mixed_precision"]])
    try:
        with torch.device(device):
            network = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(torch.float32)
    return network.requires_grad_(False)


def _shown() -> np.ndarray:
    return np.array([1, *[IMAGE_TOKEN] * PATCHES])


class _Tokens:
    """What writing asks of a tokenizer."""

    eos, image_token = 2, IMAGE_TOKEN

    def read(self, tokens: list[int]) -> str:
        """Return text for tokens; what it says does not matter."""
        return str(len(tokens))
