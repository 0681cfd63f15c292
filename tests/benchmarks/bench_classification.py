"""How much of the bare network's step rate classification keeps, with augmentation and decoding.

    python -m tests.benchmarks.bench_classification
    python -m tests.benchmarks.bench_classification --device cuda --batch 768 --images 7680

A ResNet-50 with random weights trains on 224-pixel images: steps of the task (gather, rotate,
normalise, forward, backward, Adam) against steps on one batch that is prepared already, taken in
turn. Decoding happens once, before the first epoch: its time is set beside that of the paper's 20
epochs.
"""

import argparse
import io
import logging
import time

import numpy as np
import torch
from PIL import Image

from workflow_scripts.common.images import ImageItem
from workflow_scripts.common.pixels import normalise, to_unit
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.common.squares import decode_square
from workflow_scripts.downstream.classification.network import ClassificationTask

SIZE, EPOCHS = 224, 20


def main() -> None:
    """Print both rates, their ratio and what decoding costs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    decode, pixels = decoded(args.images, args.threads)
    labels = np.random.default_rng(0).integers(0, 2, (args.images, 14)).astype(np.float32)
    rows = np.arange(args.images)
    task = ClassificationTask(
        pixels, labels, rows, rows[:1],
        batch_size=args.batch, rotation_degrees=10, flip=True, seed=0, device=device,
    )  # fmt: skip
    network = ResNet(outputs=14).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    batch = rows[: args.batch]
    prepared = normalise(to_unit(pixels[batch], device))
    targets = torch.from_numpy(labels[batch]).to(device)

    def bare() -> torch.Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(network(prepared), targets)

    def whole() -> torch.Tensor:
        return task.loss(network, batch, epoch=0)

    seconds: dict[str, list[float]] = {"bare": [], "whole": []}
    for step in range(args.steps + 1):
        for name, loss in (("bare", bare), ("whole", whole)):
            start = time.perf_counter()
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if step:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    one, other = np.median(seconds["bare"]), np.median(seconds["whole"])
    training = EPOCHS * args.images / args.batch * other
    print(f"bare {args.batch / one:.1f} images/s, the task {args.batch / other:.1f} images/s")
    print(f"step rate kept {one / other:.3f}; with decoding ", end="")
    print(f"{one / other * training / (training + decode):.3f} over {EPOCHS} epochs")
    print(f"decoding {args.images / decode:.0f} images/s of 1,024 pixels")


def decoded(n: int, threads: int) -> tuple[float, np.ndarray]:
    """Return the seconds that decoding takes, and the images, uint8 (n, 224, 224)."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (128, 128), dtype=np.uint8)
    image = Image.fromarray(small).resize((1024, 1024), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    items = [ImageItem(f"i{k}", f"i{k}.jpg", stream.getvalue(), None) for k in range(n)]
    start = time.perf_counter()
    pixels = decode_square(items, n, SIZE, False, threads, "decoding")
    return time.perf_counter() - start, pixels


if __name__ == "__main__":
    main()
