"""How much of the bare network's rate is left when images are read and decoded while it trains.

    python -m tests.benchmarks.bench_reporter
    python -m tests.benchmarks.bench_reporter --published --device cuda --batch 16 --threads 16

A LLaVA of the published shape, narrowed and with random weights, takes steps of report generation's
second stage on radiograph-like JPEGs of MIMIC-CXR's size (2544 x 3056), decoded to 518 pixels. With
`--published` it has LLaVA-Rad's size (6.8 billion weights) and computes in bfloat16 with gradient
checkpointing, as config.yaml says. The whole is `ReportTask.loss` with its queue of images; bare is
the same on squares that are decoded already. The network computes with one thread, so that a second
core is free to decode, as it is beside a GPU. Beside the ratio stand the seconds that decoding
takes one thread, and so how many steps a second a number of threads can feed.
"""

import io
import logging
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from transformers import Dinov2Config, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from tests.benchmarks.inputs import radiograph
from tests.benchmarks.measure import Result, make_parser, parse, report, timed
from workflow_scripts.common.devices import device_name
from workflow_scripts.common.images import ImageItem
from workflow_scripts.downstream.report_generation.images import Ahead, Squares
from workflow_scripts.downstream.report_generation.layout import PUBLISHED
from workflow_scripts.downstream.report_generation.network import (
    LoraSettings,
    ReportTask,
    add_lora,
)
from workflow_scripts.downstream.report_generation.prompts import Prompts, Written

PICTURES = 8
PATCHES = 37 * 37


def main(argv: list[str] | None = None) -> None:
    """Time both ways, in turn, and print the ratio of the medians."""
    parser = make_parser(__doc__)
    parser.add_argument("--width", type=int, default=192, help="of tower and language model")
    parser.add_argument("--published", action="store_true", help="LLaVA-Rad's own size, bfloat16")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="that decode")
    parser.add_argument("--steps", type=int, default=6, help="the first is not counted")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    args = parse(parser, argv, width=64, batch=1, steps=2, repeats=1)
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        items = write_images(Path(name), args.batch * args.steps)
        network = make_published() if args.published else make_network(args.width)
        measure(network.to(args.device), items, args)


def measure(
    network: LlavaForConditionalGeneration, items: list[ImageItem], args: Namespace
) -> None:
    """Print seconds a step of both, their ratio, and what decoding takes."""
    kept = Squares(items, PUBLISHED, memory=2**30)
    _, seconds = timed(lambda: [kept(row) for row in range(len(items))])
    decoding = seconds / len(items)
    rates: dict[str, list[float]] = {"whole": [], "bare": []}
    for _ in range(args.repeats):
        for name, squares in (("bare", kept), ("whole", Squares(items, PUBLISHED))):
            rates[name].append(seconds_a_step(network, squares, args.batch, args.threads))
    whole, bare = (float(np.median(rates[name])) for name in ("whole", "bare"))
    print(f"whole {whole:.2f} s a step of {args.batch}, bare {bare:.2f}; ratio {bare / whole:.2f}")
    print(f"decoding: {decoding:.3f} s an image; 8 threads feed {8 / decoding:.0f} images a second")
    if network.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"{device_name(network.device)}: peak {peak:.1f} GiB")
    size = "LLaVA-Rad's size" if args.published else f"width {args.width}"
    compared = f"a step of {args.batch}, {size}, {device_name(network.device)}, images read by "
    compared += f"{args.threads} thread(s): with reading and decoding; decoded already"
    report(Result("step", compared, whole, bare))


def seconds_a_step(
    network: LlavaForConditionalGeneration, squares: Squares, batch: int, threads: int
) -> float:
    """Train on all images once; the first step, in which the queue fills, is not counted."""
    rows = np.arange(len(squares))
    images = Ahead(squares, lambda _: rows, epochs=1, threads=threads, ahead=2 * batch)
    answers = [np.full(60, 7) for _ in rows]
    shown = np.array([1, *[99] * PATCHES])
    prompts = Prompts(shown, [np.full(60, 5) for _ in rows], 0, 0)
    task = ReportTask(
        images,
        Written(prompts, answers, 0),
        (Squares([], PUBLISHED), Written(Prompts(shown, [], 0, 0), [], 0)),
        image_token=99,
        padding=2,
        batch_size=batch,
        threads=threads,
        device=network.device,
    )
    parameters = [value for value in network.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    times = []
    for step in range(len(rows) // batch):
        start = time.perf_counter()
        with torch.autocast(
            network.device.type, torch.bfloat16, enabled=network.dtype != torch.float32
        ):
            loss = task.loss(network, rows[step * batch : (step + 1) * batch], 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if network.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    images.close()
    return float(np.mean(times[1:]))


def make_network(width: int) -> LlavaForConditionalGeneration:
    """Build a narrow LLaVA with an adapter; the number of tokens is the published one's."""
    sizes = {"hidden_size": width, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlavaConfig(
        vision_config=Dinov2Config(**sizes, image_size=518, patch_size=14, use_mask_token=False),
        text_config=LlamaConfig(**sizes, intermediate_size=2 * width, vocab_size=100),
        image_token_index=99,
    )
    network = LlavaForConditionalGeneration(config)
    add_lora(network, LoraSettings(64, 128, 0.05), 0)
    return network.train()


def make_published() -> LlavaForConditionalGeneration:
    """Build a LLaVA of LLaVA-Rad's size as its second stage trains it, with random weights."""
    text = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, vocab_size=32064
    )
    tower = Dinov2Config(image_size=518, patch_size=14, use_mask_token=False)
    config = LlavaConfig(vision_config=tower, text_config=text, image_token_index=99)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        network = LlavaForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    network.requires_grad_(False)
    network.activation_checkpointing_enable({"use_reentrant": False})
    add_lora(network, LoraSettings(64, 128, 0.05), 0)
    return network.train()


def write_images(folder: Path, count: int) -> list[ImageItem]:
    """Write smooth pictures with some noise, as radiographs have, at MIMIC-CXR's size.

    Beyond the first few they repeat: each is a file of its own, and is decoded by itself.
    """
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(min(count, PICTURES)):
        buffer = io.BytesIO()
        radiograph(rng, 2544, 3056, noise=4).save(buffer, format="JPEG", quality=95)
        pictures.append(buffer.getvalue())
    items = []
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(pictures[i % len(pictures)])
        items.append(ImageItem(str(i), str(folder / f"{i}.jpg")))
    return items


if __name__ == "__main__":
    main()
