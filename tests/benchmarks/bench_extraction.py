"""How much of the bare networks' throughput is left when images are read, decoded and prepared.

    python -m tests.benchmarks.bench_extraction             # InceptionV3 and DenseNet-121
    python -m tests.benchmarks.bench_extraction --rad-dino  # and RAD-DINO (2 s an image on a CPU)
    python -m tests.benchmarks.bench_extraction --rad-dino --device cuda --images 512 --batch 64 \
        --threads 16

Networks of the published size with random weights embed PNGs of 1024 x 1024 from one shard, the
whole job against `encode` on batches that are prepared already, side by side in one run. The
network computes with one thread, so that a second core is free to decode as it is beside a GPU;
with `--threads 2` on two cores, decoding takes its time from the network.
"""

import logging
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from tests.benchmarks.inputs import radiograph
from tests.benchmarks.measure import Result, in_turn, make_parser, parse, report
from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.devices import device_name
from workflow_scripts.common.images import ImageItem, decode_image, png_bytes, write_shard
from workflow_scripts.features.encoders import Encoder, load_encoder
from workflow_scripts.features.encoders.densenet_121 import DenseNet121
from workflow_scripts.features.encoders.inception_v3 import InceptionV3
from workflow_scripts.features.encoders.transform import SIDECAR
from workflow_scripts.features.extract import compute_exactly, embed, shard_collection


def main(argv: list[str] | None = None) -> None:
    """Time both ways for each encoder and for all in one pass, and print the ratios."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rad-dino", action="store_true")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    args = parse(parser, argv, images=2, batch=2, repeats=1)
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    compute_exactly()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shard = write_images(folder, args.images)
        encoders = make_encoders(folder, args.rad_dino, torch.device(args.device))
        sets = [[encoder] for encoder in encoders]
        if len(encoders) > 1:
            sets.append(encoders)
        for chosen in sets:
            measure(chosen, shard, folder, args)


def measure(encoders: list[Encoder], shard: Path, folder: Path, args: Namespace) -> None:
    """Print the seconds an image of the whole job and of the networks alone: medians."""
    collection = shard_collection([shard])
    images = [decode_image(item.data, item.name) for item in collection.read(0)]
    prepared = [[encoder.prepare(image) for image in images] for encoder in encoders]

    def bare(repeat: int) -> None:
        for encoder, inputs in zip(encoders, prepared, strict=True):
            for first in range(0, len(inputs), args.batch):
                encoder.encode(inputs[first : first + args.batch])

    def whole(repeat: int) -> None:
        progress = folder / f"progress{repeat}-{len(encoders)}-{encoders[0].name}"
        embed(collection, encoders, args.batch, Attempt(progress), {}, args.threads)

    seconds = in_turn({"bare": bare, "whole": whole}, args.repeats, device=args.device)
    ours, theirs = (float(np.median(seconds[way])) / len(images) for way in ("whole", "bare"))
    names = " + ".join(encoder.name for encoder in encoders)
    print(f"{names}: whole job {ours:.4f} s an image, bare {theirs:.4f}", end="; ")
    print(f"ratio {theirs / ours:.2f}", flush=True)
    compared = f"an image of {len(images)}, {args.threads} thread(s), batches of {args.batch}, "
    compared += f"{device_name(torch.device(args.device))}: the whole job; the networks alone"
    report(Result(names, compared, ours, theirs))


def write_images(folder: Path, count: int) -> Path:
    """Write a shard of smooth 1024 x 1024 pictures with some noise, as radiographs have."""
    rng = np.random.default_rng(0)
    items = []
    for i in range(count):
        data = png_bytes(radiograph(rng, 1024, 1024, noise=2))
        items.append(ImageItem(f"p{i}", f"p{i}.png", data, ""))
    path = folder / "part-00000-of-00001.parquet"
    write_shard(items, path)
    return path


def make_encoders(folder: Path, rad_dino: bool, device: torch.device) -> list[Encoder]:
    """Return the encoders with random weights in the published layouts."""
    torch.manual_seed(0)
    torch.save(InceptionV3().state_dict(), folder / "inception.pth")
    save_file(DenseNet121().state_dict(), folder / "densenet.safetensors")
    paths = {
        "inception_v3": folder / "inception.pth",
        "densenet_121": folder / "densenet.safetensors",
    }
    if rad_dino:
        paths["rad_dino"] = folder / "rad_dino"
        Dinov2Model(Dinov2Config(image_size=518, patch_size=14)).save_pretrained(paths["rad_dino"])
        (paths["rad_dino"] / SIDECAR).write_text("{}")  # what it leaves out is as published
    switches = deviations("sound")
    return [load_encoder(name, path, device, switches, "fidelity") for name, path in paths.items()]


if __name__ == "__main__":
    main()
