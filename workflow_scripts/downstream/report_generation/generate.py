"""Greedy generation of the test images' reports, in batches that a restarted run keeps."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.resuming import read_unless_damaged
from workflow_scripts.downstream.report_generation.images import Ahead, Squares, tower_input
from workflow_scripts.downstream.report_generation.prompts import Prompts, ReportTokenizer


def generate_reports(
    network: Any,
    tokenizer: ReportTokenizer,
    prompts: Prompts,
    squares: Squares,
    *,
    batch_size: int,
    max_new_tokens: int,
    progress: Path,
    key: str,
    accelerator: Accelerator,
    threads: int,
) -> list[str]:
    """Generate a report for each image, with the most likely token at each step.

    The processes share the batches. The batches do not depend on the number of processes.

    Args:
        network: a LLaVA on the accelerator's device.
        tokenizer: the network's tokenizer.
        prompts: the prompt of each image.
        squares: the images.
        batch_size: images at a time.
        max_new_tokens: the greatest length of a report, tokens.
        progress: folder of the finished batches, which only its owner may read.
        key: digest of everything that the reports depend on; batches with another key are ignored.
        accelerator: gives the number of processes.
        threads: threads that decode images.

    Returns:
        The reports, in the order of the images; an empty list in all but the main process.

    Raises:
        InputError: finished batches were removed while this ran.
    """
    rows = np.arange(len(squares))
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    files = [progress / f"reports-{number:05d}.json" for number in range(len(batches))]
    own_batches = range(accelerator.process_index, len(batches), accelerator.num_processes)
    todo = [number for number in own_batches if _read(files[number], key) is None]
    progress.mkdir(parents=True, exist_ok=True, mode=0o700)
    order = np.concatenate([rows[:0], *(batches[number] for number in todo)])
    images = Ahead(squares, lambda _: order, epochs=1, threads=threads, ahead=2 * batch_size)
    meter = Progress(
        "writing reports", len(own_batches), "batches", done=len(own_batches) - len(todo)
    )
    network.eval()
    for number in todo:
        pixels = tower_input(images.read(batches[number], 0), squares.transform, accelerator.device)
        batch_prompts = prompts.of(batches[number])
        reports = _batch(network, tokenizer, batch_prompts, pixels, max_new_tokens)
        with whole_file(files[number], owner_only=True) as temporary:
            temporary.write_text(json.dumps({"key": key, "reports": reports}), encoding="utf-8")
        meter.update()
    images.close()
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return []
    batches_of_reports = [_read(file, key) for file in files]
    if any(reports is None for reports in batches_of_reports):
        raise InputError("reports that were just written are gone", progress, "run again")
    return [report for reports in batches_of_reports for report in reports or []]


@torch.no_grad()
def _batch(
    network: Any,
    tokenizer: ReportTokenizer,
    prompts: Sequence[np.ndarray],
    pixels: torch.Tensor,
    max_new_tokens: int,
) -> list[str]:
    # Shorter prompts are padded on the left, so that all answers begin in the same column.
    # `generate` counts the positions of a row from the first one in its mask.
    length = max(len(prompt) for prompt in prompts)
    ids = np.full((len(prompts), length), tokenizer.eos, np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :], mask[row, length - len(prompt) :] = prompt, 1
    written = network.generate(
        input_ids=torch.from_numpy(ids).to(pixels.device),
        attention_mask=torch.from_numpy(mask).to(pixels.device),
        pixel_values=pixels,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos,
        pad_token_id=tokenizer.eos,
        suppress_tokens=[tokenizer.image_token],
    )
    return [tokenizer.read(row[length:].tolist()) for row in written]


def _read(path: Path, key: str) -> list[str] | None:
    """Return a finished batch's reports; None if it is missing, damaged or of another key."""
    if not path.exists():
        return None
    content = read_unless_damaged(path, lambda: json.loads(path.read_text(encoding="utf-8")))
    return content["reports"] if content and content.get("key") == key else None
