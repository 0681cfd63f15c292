"""The encoders and CXAS with reading, decoding and preparing, beside the bare network.

JPEGs of MIMIC-CXR's size, in memory, go through `features.extract.embed` (and the labeller's own
loop) with all cores; the bare network is given batches that are prepared already and lie on the
device. What the cores can decode, what they can prepare, and the network with copying stand beside
it: they say what the limit is.
"""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from tests.benchmarks.inputs import radiograph
from tests.gpu.lines import Writer
from tests.gpu.measure import WHOLE_GOAL, seconds_of
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.images import ImageItem, decode_image, png_bytes
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.features.encoders import biovil_t_image, rad_dino, reid
from workflow_scripts.features.encoders.densenet_121 import DenseNet121, DenseNetEncoder
from workflow_scripts.features.encoders.inception_v3 import InceptionEncoder, InceptionV3
from workflow_scripts.features.extract import Collection, compute_exactly, embed
from workflow_scripts.preflight.cost_model import GENERATED

PIXELS: Final = (2544, 3056)
"""Width and height of many of MIMIC-CXR's radiographs."""

BATCH: Final = 64
FILES: Final = 4
PRECISIONS: Final = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
CLAVICLES: Final = (31, 32)


def time_encoding(
    name: str, device: torch.device, tiny: bool, say: Writer, precision: str = "fp32"
) -> None:
    """Measure one encoder, or `cxas`: images a second, whole and bare, and of the cores alone.

    Args:
        name: of the encoder.
        device: that computes.
        tiny: whether with tiny networks.
        say: takes what is measured.
        precision: `fp32` as the workflow extracts, or of autocast, `fp16` or `bf16`.
    """
    compute_exactly()
    torch.manual_seed(0)
    batch, count = (2, 4) if tiny else (BATCH, 6 * BATCH)
    cores = 1 if tiny else len(os.sched_getaffinity(0))
    items = radiographs(count, (160, 200) if tiny else PIXELS)
    if name == "cxas":
        prepare, bare, whole = cxas_work(device, tiny, items, batch, cores, precision)
    else:
        prepare, bare, whole = encoder_work(name, device, tiny, items, batch, cores, precision)
    size = "x".join(map(str, items[0].open().size))
    how = f"{PRECISIONS[precision]}, batches of {batch}, {count} JPEGs of {size}"
    few = items[: 4 * cores]
    with ThreadPoolExecutor(cores) as pool:

        def decoded() -> list[Image.Image]:
            return list(pool.map(lambda item: decode_image(item.data or b"", item.name), few))

        images = decoded()
        say("decoding", len(few) / seconds_of(decoded, device, 1, 0), "1/s", f"{cores} core(s)")
        taken = seconds_of(lambda: list(pool.map(prepare, images)), device, 1, 0)
        say("preparing", len(few) / taken, "1/s", f"{cores} core(s), decoded images")
    inputs = [prepare(images[i % len(images)]) for i in range(batch)]
    repeats = 1 if tiny else 4
    there = [one.to(device) for one in inputs]
    bare_s = seconds_of(lambda: bare(there), device, repeats)
    say(
        "bare network",
        batch / bare_s,
        "1/s",
        f"{PRECISIONS[precision]}, batches of {batch} on the device",
    )
    copied_s = seconds_of(lambda: bare(inputs), device, repeats, 0)
    say("with copying", batch / copied_s, "1/s", "the same from the host's memory")
    whole_s = seconds_of(whole, device, 1, 0)
    say("whole", count / whole_s, "1/s", f"{how}, {cores} core(s)")
    say.goal("whole / bare", (count / whole_s) / (batch / bare_s), WHOLE_GOAL, "of images a second")
    made = generated(count, 64 if tiny else 512)
    if name == "cxas":
        whole = cxas_work(device, tiny, made, batch, cores, precision)[2]
    else:
        whole = encoder_work(name, device, tiny, made, batch, cores, precision)[2]
    side = made[0].open().size[0]
    how = f"{PRECISIONS[precision]}, batches of {batch}, {count} PNGs of {side} pixels"
    say(GENERATED, count / seconds_of(whole, device, 1, 0), "1/s", f"{how}, {cores} core(s)")


def time_captions(device: torch.device, tiny: bool, say: Writer, precision: str = "fp32") -> None:
    """Measure how many captions BioViL-T's text encoder embeds a second, tokenizing included."""
    from tests.gpu.building import CAPTION, _bert_tokenizer
    from workflow_scripts.features.encoders.biovil_t_text import BioVilTText, TextModel

    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {
        **(small if tiny else sizes),
        "intermediate_size": 64 if tiny else 3072,
        "vocab_size": 30522,
        "projection_size": 128,
    }
    torch.manual_seed(0)
    encoder = BioVilTText(TextModel(config), _bert_tokenizer(CAPTION.split(), 512), device)
    in_precision(encoder, precision, device)
    batch, count = (2, 4) if tiny else (32, 1024)

    def whole() -> None:
        for _ in range(0, count, batch):
            encoder.encode([encoder.prepare(CAPTION) for _ in range(batch)])

    taken = seconds_of(whole, device, 1)
    note = (
        f"{PRECISIONS[precision]}, batches of {batch}, {len(encoder.prepare(CAPTION))} tokens each"
    )
    say(GENERATED, count / taken, "1/s", note)


def radiographs(count: int, size: tuple[int, int]) -> list[ImageItem]:
    """Return so many radiographs as encoded JPEGs, which repeat a few."""
    rng, files = np.random.default_rng(0), []
    for _ in range(FILES):
        buffer = io.BytesIO()
        radiograph(rng, *size, noise=2).save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    return [ImageItem(f"i{i}", f"i{i}.jpg", files[i % FILES]) for i in range(count)]


def generated(count: int, side: int) -> list[ImageItem]:
    """Return so many images as shards hold them, PNGs of three equal channels; a few repeat."""
    rng, files = np.random.default_rng(0), []
    for _ in range(FILES):
        files.append(png_bytes(radiograph(rng, side, side, noise=2).convert("RGB")))
    return [ImageItem(f"g{i}", f"g{i}.png", files[i % FILES]) for i in range(count)]


def encoder_work(
    name: str,
    device: torch.device,
    tiny: bool,
    items: list[ImageItem],
    batch: int,
    cores: int,
    precision: str = "fp32",
) -> tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[], Any]]:
    """Return what prepares an image, encodes a prepared batch, and does the whole job."""
    encoder = in_precision(make_encoder(name, device, tiny), precision, device)
    ids = [item.id for item in items]
    stamps = [""] * len(ids)
    collection = Collection(
        ids, [None] * len(ids), stamps, lambda start: iter(items[start:]), False
    )

    def whole() -> None:
        with TemporaryDirectory() as folder:
            embed(collection, [encoder], batch, Attempt(Path(folder) / "progress"), {}, cores)

    return encoder.prepare, encoder.encode, whole


def in_precision(encoder: Any, precision: str, device: torch.device) -> Any:
    """Have all networks of an encoder compute in a precision; return the encoder."""
    for part in vars(encoder).values():
        if isinstance(part, torch.nn.Module):
            autocast(part, precision, device)
    return encoder


def autocast(network: torch.nn.Module, precision: str, device: torch.device) -> None:
    """Have a network compute under autocast, with outputs in float32; `fp32` changes nothing.

    On a CPU bfloat16 stands for float16, whose convolutions take minutes there.
    """
    if precision == "fp32":
        return
    dtype = torch.bfloat16 if device.type == "cpu" else getattr(torch, PRECISIONS[precision])

    def widened(output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return output.float() if output.is_floating_point() else output
        if isinstance(output, tuple):
            return tuple(widened(one) for one in output)
        if isinstance(output, dict):  # of transformers
            for key, value in output.items():
                output[key] = widened(value)
        return output

    plain = network.forward

    def forward(*args: Any, **named: Any) -> Any:
        with torch.autocast(device.type, dtype):
            return widened(plain(*args, **named))

    network.forward = forward


def make_encoder(name: str, device: torch.device, tiny: bool) -> Any:
    """Return an encoder of the published size with random weights, and its published preparation.

    InceptionV3 and DenseNet-121 have one size; a tiny ResNet has a block a stage.
    """
    depths, width = ((1, 1, 1, 1), 4) if tiny else ((3, 4, 6, 3), 64)
    if name == "rad_dino":
        from transformers import Dinov2Config, Dinov2Model

        small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = Dinov2Config(image_size=518, patch_size=14, **(small if tiny else {}))
        return rad_dino.RadDino(Dinov2Model(config), rad_dino.PUBLISHED, device)
    if name == "biovil_t_image":
        network = biovil_t_image.ImageModel(ResNet(depths, width))
        return biovil_t_image.BioVilTImage(network, biovil_t_image.PUBLISHED, device)
    if name == "reid":
        siamese = reid.SiameseNetwork(ResNet(depths, width, 128))
        return reid.ReId(siamese, reid.PUBLISHED, device)
    if name == "inception_v3":
        return InceptionEncoder(InceptionV3(), None, device)
    if name == "densenet_121":
        return DenseNetEncoder(DenseNet121(), None, device)
    raise ValueError(f"no encoder {name!r}")


def cxas_work(
    device: torch.device,
    tiny: bool,
    items: list[ImageItem],
    batch: int,
    cores: int,
    precision: str = "fp32",
) -> tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[], Any]]:
    """Return the same of CXAS, which draws the clavicles."""
    from workflow_scripts.downstream.segmentation.cxas import Cxas, draw_masks, prepare
    from workflow_scripts.downstream.segmentation.label import _drawn
    from workflow_scripts.downstream.segmentation.settings import LabellerSettings

    size = 64 if tiny else 512
    network = Cxas((1, 1, 1, 1), 4, 8) if tiny else Cxas()
    network = network.eval().to(device)
    autocast(network, precision, device)
    labeller = LabellerSettings(Path(), tuple(CLAVICLES), size, batch)

    def bare(inputs: list[torch.Tensor]) -> None:
        draw_masks(network, torch.stack(inputs).to(device), labeller.classes)

    def whole() -> None:
        drawn = sum(len(found) for found in _drawn(network, iter(items), labeller, cores, device))
        assert drawn == len(items)

    return lambda image: prepare(image, size), bare, whole
