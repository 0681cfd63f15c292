"""How much memory it takes to search and write a curated set, and how long.

For each size, a pool of as many generated images of 512 pixels (PNG of some 150 KB) is written to
a temporary folder. All are then searched and written as a set in a process of its own, whose peak
memory above that of the loaded libraries is reported. From the repository root (some 10 minutes on
one core, and 4 GB of disk):

    python -m tests.benchmarks.bench_curated_set --images 4000 8000
"""

import multiprocessing
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tests.benchmarks.measure import PeakMemory, Result, make_parser, parse, report, timed
from workflow_scripts.common.images import ImageItem, png_bytes, write_shard
from workflow_scripts.common.manifest import FINDINGS, TEMPLATE, write_manifest, write_prompts
from workflow_scripts.curate.lenses import LENS_SCHEMA, LENSES
from workflow_scripts.curate.settings import CurateSettings
from workflow_scripts.curate.write_set import write_set
from workflow_scripts.privacy.private_table import write_private_table

SIDE = 512
PICTURES = 256
"""Different images; the pool shows them in turn, as encoding all would take longest."""

FILMS = 16
IMAGES_PER_SHARD = 1000


def main(argv: list[str] | None = None) -> None:
    """Measure each size and print a line for it."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[4000, 8000])
    args = parse(parser, argv, images=[64, 128])
    if len(args.images) < 2:
        parser.error("--images: two numbers at least")
    sizes = sorted(args.images)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([write_set.__module__])
    measured = []
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as workers:
        for count in sizes:
            with tempfile.TemporaryDirectory() as folder:
                workers.submit(write_pool, Path(folder), count).result()
                seconds, mib, written = workers.submit(measure, Path(folder), count).result()
            print(f"{count} images, {written:.0f} MiB: {seconds:.0f} s, {mib:.0f} MiB", flush=True)
            measured.append(seconds)
    compared = f"search and write a set: {sizes[-1]} images; {sizes[0]}"
    report(Result("set growth", compared, measured[-1], measured[0]))


def pictures(count: int, seed: int) -> Iterator[Image.Image]:
    """Yield smooth gray images with the noise of a radiograph, mode L."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(40, 216, (8, 8), np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)
        noisy = smooth + rng.normal(0, 1, smooth.shape)
        yield Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write_pool(folder: Path, count: int) -> None:
    """Write shards of so many images, their prompts, and films with a manifest."""
    films = []
    for k, film in enumerate(pictures(FILMS, seed=1)):
        film.save(folder / f"film{k}.jpg", quality=95)
        films.append(
            {
                "image_id": f"film-{k:08d}", "patient_id": f"p1{k:07d}", "study_id": f"s5{k:07d}",
                "path": str(folder / f"film{k}.jpg"), "view": "AP", "site": None,
                "split": "train", "caption": f"A caption of the film {k}, as long as one can be",
                "caption_source": "report", "indication": None, "report": None,
                **dict.fromkeys(FINDINGS, 0),
            }
        )  # fmt: skip
    manifest = pd.DataFrame(films).astype(dict.fromkeys(FINDINGS, "Int8"))
    write_manifest(manifest, folder / "manifest.parquet")
    ids = [f"stress-{k:016x}-r00" for k in range(count)]
    prompts = pd.DataFrame({"prompt_id": ids}).assign(
        study_id=None, patient_id=None, caption="Frontal chest radiograph.", image_id=None,
        caption_source=TEMPLATE, replicate=0, seed=1, second_wording=False,
        **dict.fromkeys(FINDINGS, 0),
    )  # fmt: skip
    write_prompts(prompts.astype(dict.fromkeys(FINDINGS, "Int8")), folder / "prompts.parquet")
    encoded = [png_bytes(image.convert("RGB")) for image in pictures(min(PICTURES, count), seed=2)]
    for start in range(0, count, IMAGES_PER_SHARD):
        items = (
            ImageItem(ids[k], f"{ids[k]}.png", encoded[k % len(encoded)], "")
            for k in range(start, min(start + IMAGES_PER_SHARD, count))
        )
        write_shard(items, folder / f"part-{start:08d}.parquet")
    seen = {**dict.fromkeys(LENSES, 0.5), "kind": None, "source": None, "patient_id": None,
            "nearest_image_id": "film-00000000", "nearest_patient_id": "p10000000",
            "latent_image_id": "film-00000001", "digest": "0", "rows_of_features": 0}  # fmt: skip
    lenses = pd.DataFrame([{"group": "pool", "id": name, **seen} for name in ids])
    write_private_table(lenses, LENS_SCHEMA, folder / "lenses.parquet")


def measure(folder: Path, count: int) -> tuple[float, float, float]:
    """Write the set of `write_pool`; return seconds, peak memory and size of the set, in MiB."""
    policy = CurateSettings(
        pool="stress", images=count, quotas={}, access="release", published_prompts="templates",
        privacy_false_alarms=0.02, quality_false_alarms=0.05, planted=12, held_out=150,
        references=100, most_flagged=0.5, most_remaining=0.5, least_sensitivity=0.5,
        most_false_rejections=0.2,
    )  # fmt: skip
    lenses = pd.read_parquet(folder / "lenses.parquet")
    chosen = lenses.sample(frac=1, random_state=0).assign(
        density=1.0, caption="Frontal chest radiograph.", caption_source=TEMPLATE
    )
    args = Namespace(
        model="sana", prompts=folder / "prompts.parquet",
        shards=sorted(folder.glob("part-*.parquet")),
        searched_manifests=[folder / "manifest.parquet"],
        searched_prompts=[folder / "prompts.parquet"], lenses=folder / "lenses.parquet",
        manifest=folder / "manifest.parquet", output=folder / "out",
    )  # fmt: skip
    with PeakMemory() as peak:
        _, seconds = timed(lambda: write_set(args, policy, chosen))
    files = (folder / "out" / "dataset" / "data").iterdir()
    return seconds, peak.mib, sum(file.stat().st_size for file in files) / 2**20


if __name__ == "__main__":
    main()
