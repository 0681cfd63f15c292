"""Steps of the downstream networks, and the networks that read reports, at their published sizes.

Weights are random. Where the speed hangs on what is read or written, the lengths are said.
"""

import logging
from typing import Any, Final

import numpy as np
import torch

from tests.gpu.building import CAPTION, ROOT, _bert_tokenizer
from tests.gpu.lines import Writer
from tests.gpu.measure import peak_gib, seconds_of
from workflow_scripts.common.devices import accelerator_on
from workflow_scripts.preflight.cost_model import (
    classifier_settings,
    segmenter_settings,
)

FINDINGS: Final = 14
PROMPT_TOKENS, ANSWER_TOKENS = 600, 200
"""Of GREEN: its instruction with two reports, and an answer; assumed."""


def task_of(name: str) -> dict[str, Any]:
    """Return a downstream task's block of config.yaml."""
    import yaml

    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["downstream"][name]


def time_classifier(device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure a classifier's pass of the per-device batch, with augmentation and optimiser."""
    from workflow_scripts.common.resnet import ResNet
    from workflow_scripts.downstream.classification.network import ClassificationTask

    task = task_of("classification")
    if tiny:
        task |= {"size": 32, "batch_size": 4, "per_device_batch_size": 4}
    batch = min(task["batch_size"], task["per_device_batch_size"])
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2 * batch, task["size"], task["size"]), dtype=np.uint8)
    labels = rng.integers(0, 2, (2 * batch, FINDINGS)).astype(np.float32)
    rows = np.arange(len(pixels))
    losses = ClassificationTask(
        pixels, labels, rows, rows[:1], batch_size=batch,
        rotation_degrees=task["rotation_degrees"], flip=False, seed=0, device=device,
    )  # fmt: skip
    network = (ResNet((1, 1, 1, 1), 4, FINDINGS) if tiny else ResNet(outputs=FINDINGS)).to(device)
    rate, decay = task["learning_rate"], task["weight_decay"]
    optimiser = torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay)
    step, shown = step_of(network, optimiser, losses, rows[:batch], device, task["mixed_precision"])
    settings = classifier_settings(task)
    taken = seconds_of(step, device, 1 if tiny else 5)
    say("images per second", batch / taken, "1/s", f"{settings}, images on the device")
    say("peak memory", peak_gib(step, device), "GiB", settings)
    say.losses(shown)


def time_segmenter(device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure a step of the U-Net that learns the pseudo-masks."""
    from workflow_scripts.downstream.segmentation.network import SegmentationTask, unet

    task = task_of("segmentation")
    if tiny:
        task |= {"size": 32, "batch_size": 2, "channels": [4, 8]}
    batch, size = task["batch_size"], task["size"]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2 * batch, size, size), dtype=np.uint8)
    rows = np.arange(len(pixels))
    losses = SegmentationTask(
        pixels, pixels > 200, rows, rows[:1], loss=task["loss"], batch_size=batch,
        rotation_degrees=task["rotation_degrees"], contrast=task["contrast"], seed=0,
        device=device,
    )  # fmt: skip
    network = unet(task["channels"], task["residual_units"], 0).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=task["learning_rate"])
    step, shown = step_of(network, optimiser, losses, rows[:batch], device, "no")
    settings = segmenter_settings(task)
    taken = seconds_of(step, device, 1 if tiny else 20)
    say("seconds per step", taken, "s", f"{settings}, images in the host's memory")
    say("peak memory", peak_gib(step, device), "GiB", settings)
    say.losses(shown)


def step_of(
    network: Any, optimiser: Any, task: Any, rows: np.ndarray, device: torch.device, precision: str
) -> tuple[Any, list[float]]:
    """Return what does one step as `common.training.train` does it, and the list of its losses."""
    accelerator = accelerator_on(device, precision)
    wrapped, stepper = accelerator.prepare(network, optimiser)
    wrapped.train()
    shown: list[float] = []

    def step() -> None:
        stepper.zero_grad()
        loss = task.loss(wrapped, rows, 0)
        accelerator.backward(loss)
        shown.append(float(loss.detach()))
        stepper.step()

    return step, shown


def time_chexbert(device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure how many reports CheXbert reads a second, of the length of `CAPTION`."""
    from workflow_scripts.downstream.report_generation.metrics.chexbert import CheXbert, Labeller
    from workflow_scripts.downstream.report_generation.metrics.label_chexbert import BATCH

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    network = CheXbert({**small, "intermediate_size": 64} if tiny else {})
    labeller = Labeller(network, _bert_tokenizer(CAPTION.split(), 512), device)
    reports, batch = [CAPTION] * (4 if tiny else 8 * BATCH), 2 if tiny else BATCH
    logging.disable(logging.INFO)
    taken = seconds_of(lambda: labeller.label(reports, batch, "reports"), device, 1)
    tokens = len(labeller.tokens(CAPTION))
    note = f"published size, float32, batches of {batch}, {tokens} tokens each"
    say("reports per second", len(reports) / taken, "1/s", note)


def time_green(device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure the language model of GREEN: reports judged a second, at assumed lengths.

    The package that GREEN comes in lives in another environment, so its own generation is asked
    here of transformers: greedy, in float16, eight reports at a time, as the package has it.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    batch, prompt, answer = (2, 6, 3) if tiny else (8, PROMPT_TOKENS, ANSWER_TOKENS)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    small = {**sizes, "intermediate_size": 64, "vocab_size": 100}
    # Llama 2 7B, which RadLlama 2 was made of.
    config = LlamaConfig(**(small if tiny else {"max_position_embeddings": 4096}))
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            network = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    ids = torch.randint(3, config.vocab_size, (batch, prompt), device=device)
    lengths = {"min_new_tokens": answer, "max_new_tokens": answer}

    @torch.inference_mode()
    def judge() -> None:
        network.generate(  # type: ignore[operator]
            ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0, **lengths
        )

    taken = seconds_of(judge, device, 1)
    note = f"published size, batches of {batch}, prompts of {prompt} and answers of {answer} tokens"
    say("reports per second", batch / taken, "1/s", note)
    say("peak memory", peak_gib(judge, device), "GiB", note)
