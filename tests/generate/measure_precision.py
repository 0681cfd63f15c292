"""How far sampling in bf16 or fp16 moves an image, in an encoder's features.

Every prompt is sampled in float32, bf16 and fp16 from the same noise. Printed is, for each model,
the root mean square distance of an image's features to those of its image in float32, in shares of
the distance between two float32 images of the same caption and other seeds. A model is
NAME:FAMILY:FOLDER, and may have components elsewhere, COMPONENT=FOLDER after colons. After
`make demo`, from the repository root:

    python -m tests.generate.measure_precision --prompts results/cohort/prompts/test.parquet \\
        --encoder results/world/weights/rad-dino \\
        --model sd_v1:stable_diffusion:results/world/weights/tiny-sd-v1
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.devices import pick_device
from workflow_scripts.common.images import decode_image, read_shards
from workflow_scripts.common.manifest import read_prompts, write_prompts
from workflow_scripts.features.encoders import load_encoder
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.layout import Base
from workflow_scripts.generate.sample import PRECISIONS, Sampling, sample_shard
from workflow_scripts.generate.settings import BatchSettings


def main(argv: list[str] | None = None) -> None:
    """Sample and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--images", type=int, default=16, help="prompts, from the first")
    parser.add_argument("--encoder", type=Path, required=True, help="RAD-DINO's folder")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--gpus", type=int, default=0)
    args = parser.parse_args(argv)
    encoder = load_encoder(
        "rad_dino", args.encoder, pick_device(args.gpus), deviations("sound"), "fidelity"
    )
    settings = SampleSettings(args.steps, args.guidance, args.size)
    frame = read_prompts(args.prompts).iloc[: args.images]
    print("| model | bf16 | fp16 |\n|---|---|---|")
    for model in args.model:
        name, family, folder, *parts = model.split(":")
        elsewhere = {key: Path(place) for key, _, place in (part.partition("=") for part in parts)}
        base = Base(Path(folder), elsewhere)
        with tempfile.TemporaryDirectory() as scratch:
            prompts = Path(scratch) / "prompts.parquet"

            def features(precision: str, seeds: int, base=base, family=family, prompts=prompts):
                write_prompts(frame.assign(seed=frame["seed"] + seeds), prompts)
                shard = prompts.with_name(f"{precision}-{seeds}.parquet")
                batches = BatchSettings(16, precision)
                sampling = Sampling(get_family(family), base, settings, batches, gpus=args.gpus)
                sample_shard(sampling, prompts, shard, prompts.with_name("progress"))
                images = [decode_image(item.data, item.id) for item in read_shards([shard])]
                return encoder.encode([encoder.prepare(image) for image in images])

            exact = features("fp32", 0)
            scale = _distance(features("fp32", 1_000_000), exact)
            moved = [_distance(features(p, 0), exact) / scale for p in PRECISIONS if p != "fp32"]
        print(f"| {name} | " + " | ".join(f"{100 * share:.2g} %" for share in moved) + " |")


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(float) - b).sum(axis=1).mean() ** 0.5)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
