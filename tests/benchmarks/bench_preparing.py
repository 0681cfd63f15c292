"""Where extraction's time on the CPU goes: decoding, digests, and each encoder's preparation.

    python -m tests.benchmarks.bench_preparing
    python -m tests.benchmarks.bench_preparing --images FOLDER  # radiographs of one's own

CPU milliseconds of one core for a film of MIMIC-CXR's size (2544 x 3056, JPEG) and for a generated
image of 512 pixels (PNG). DenseNet-121's preparation stands beside SciPy's own blur and zoom, which
scikit-image's `resize` calls, and BioViL-T's stretch beside the same in numpy. What scaled decoding
of JPEGs would save, and how far it would move RAD-DINO's input, is printed: it is not used.
"""

import hashlib
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from tests.benchmarks.inputs import radiograph
from tests.benchmarks.measure import Result, make_parser, parse, report
from workflow_scripts.common.images import decode_image, is_constant, png_bytes
from workflow_scripts.features.encoders import biovil_t_image, rad_dino, reid
from workflow_scripts.features.encoders.densenet_121 import SIDE, prepare_gray
from workflow_scripts.features.encoders.inception_v3 import resize_bilinear
from workflow_scripts.features.encoders.transform import stretch_to_gray


def main(argv: list[str] | None = None) -> None:
    """Print milliseconds an image, and the pairs."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--images", type=Path, help="folder of JPEGs and PNGs, enlarged to the size"
    )
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--side", type=int, default=2544)
    parser.add_argument("--repeats", type=int, default=3)
    args = parse(parser, argv, count=1, side=400, repeats=1)
    films = read_films(args.images, args.count, args.side)
    jpegs = [encoded(film, "JPEG", quality=95) for film in films]
    pngs = [png_bytes(film.convert("RGB").resize((512, 512))) for film in films]
    measure("film", jpegs, args.repeats)
    measure("generated", pngs, args.repeats)
    compare(films, args.repeats)
    scaled(jpegs, args.repeats)


def measure(what: str, files: list[bytes], repeats: int) -> None:
    """Print what each part takes."""
    images = [decoded(data) for data in files]
    transforms: dict[str, Callable[[Any], Any]] = {
        "rad_dino": rad_dino.PUBLISHED,
        "biovil_t_image": biovil_t_image.PUBLISHED,
        "reid": reid.PUBLISHED,
        "inception_v3": lambda image: resize_bilinear(np.atleast_3d(np.asarray(image)), 299),
        "densenet_121": prepare_gray,
    }
    parts: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
        "decode": (decoded, files),
        "digest of the file": (lambda data: hashlib.sha256(data).digest(), files),
        "digest of the pixels": (lambda image: hashlib.sha256(image.tobytes()).digest(), images),
        "constant": (is_constant, images),
        **{name: (prepare, images) for name, prepare in transforms.items()},
    }
    said = [f"{name} {1000 * cpu_seconds(*part, repeats):.1f}" for name, part in parts.items()]
    size = "x".join(map(str, images[0].size))
    print(f"{what} {size}, CPU ms an image: {', '.join(said)}", flush=True)


def compare(films: list[Image.Image], repeats: int) -> None:
    """Report DenseNet-121's and BioViL-T's preparation beside the plain way."""
    pairs: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], str]] = {
        "densenet_121": (prepare_gray, scipy_gray, "SciPy's gaussian_filter and zoom"),
        "stretch": (stretch_to_gray, numpy_stretch, "a table in numpy"),
    }
    for name, (ours, theirs, peer) in pairs.items():
        away = max(
            float(np.abs(np.asarray(ours(film), float) - np.asarray(theirs(film), float)).max())
            for film in films
        )
        ours_s, theirs_s = (cpu_seconds(way, films, repeats) for way in (ours, theirs))
        compared = f"CPU seconds of a film of {'x'.join(map(str, films[0].size))}; {peer}"
        print(f"{name}: {theirs_s / ours_s:.1f} times as fast, largest difference {away:.2g}")
        report(Result(name, compared, ours_s, theirs_s))


def scaled(files: list[bytes], repeats: int) -> None:
    """Print what decoding at a half or a quarter saves, and how far RAD-DINO's input moves."""
    whole = cpu_seconds(decoded, files, repeats)
    levels = 255 * rad_dino.PUBLISHED.std[0]
    for least in (518, 1036):

        def at_scale(data: bytes, least: int = least) -> Image.Image:
            return decode_image(data, "film", keep_gray=True, at_least=least)

        away = [
            (rad_dino.PUBLISHED(at_scale(data)) - rad_dino.PUBLISHED(decoded(data))).abs() * levels
            for data in files
        ]
        saved = 1000 * (whole - cpu_seconds(at_scale, files, repeats))
        mean = statistics.mean(float(one.mean()) for one in away)
        most = max(float(one.max()) for one in away)
        size = "x".join(map(str, at_scale(files[0]).size))
        moved = f"{mean:.2f} gray levels away, at most {most:.0f}"
        print(f"decoded at {size}: {saved:.1f} ms less; {moved}")


def read_films(folder: Path | None, count: int, side: int) -> list[Image.Image]:
    """Return gray films of side x (side * 1.2): made up, or enlarged from a folder's images."""
    size = (side, side * 3056 // 2544)
    if folder is None:
        rng = np.random.default_rng(0)
        return [radiograph(rng, *size, noise=2) for _ in range(count)]
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in (".jpg", ".png")]
    chosen = files[:: max(1, len(files) // count)][:count]
    return [Image.open(file).convert("L").resize(size, Image.Resampling.BICUBIC) for file in chosen]


def scipy_gray(image: Image.Image) -> np.ndarray:
    """Return what scikit-image's `resize` makes of a central square, float32 (224, 224)."""
    gray = (np.asarray(image.convert("L"), np.float32) / 255 * 2 - 1) * 1024
    height, width = gray.shape
    side = min(height, width)
    top, left = height // 2 - side // 2, width // 2 - side // 2
    square = gray[top : top + side, left : left + side]
    sigma = max(0.0, (side / SIDE - 1) / 2)
    if sigma > 0:
        square = ndimage.gaussian_filter(square, sigma, mode="grid-constant")
    zoom = SIDE / side
    small = ndimage.zoom(square, (zoom, zoom), order=1, mode="grid-constant", grid_mode=True)
    return np.asarray(small, np.float32)


def numpy_stretch(image: Image.Image) -> Image.Image:
    """Return an image whose range is stretched to 0..255, gray, by a table in numpy."""
    pixels = np.asarray(image)
    low, high = float(pixels.min()), float(pixels.max())
    levels = (np.arange(256, dtype=np.float64) - low) / (high - low) * 255
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8)[pixels]).convert("L")


def decoded(data: bytes) -> Image.Image:
    """Decode as extraction does."""
    return decode_image(data, "film", keep_gray=True)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def cpu_seconds(work: Callable[[Any], Any], items: list[Any], repeats: int) -> float:
    """Return the CPU seconds of an item: the mean over items of each one's fastest repeat."""
    found = []
    for item in items:
        times = []
        for _ in range(repeats):
            start = time.thread_time()
            work(item)
            times.append(time.thread_time() - start)
        found.append(min(times))
    return max(1e-9, statistics.mean(found))


if __name__ == "__main__":
    main()
