"""Whether a GPU gives what the CPU gives, to stated tolerances."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch

from tests.gpu.building import pipeline_for_training, train_settings
from tests.gpu.encoding import PIXELS, make_encoder, radiographs
from tests.gpu.lines import Writer
from tests.gpu.training import make_run
from workflow_scripts.features.extract import compute_exactly
from workflow_scripts.features.pair_scores import pair_scores
from workflow_scripts.fidelity.frechet import frechet_distance
from workflow_scripts.fidelity.kernel import kernel_distance
from workflow_scripts.fidelity.manifold import manifold_overlap
from workflow_scripts.privacy.closest import closest_by_distance, closest_by_score

CPU: Final = torch.device("cpu")
FIRST_LOSSES: Final = 5


def compare_scores(device: torch.device, tiny: bool, say: Writer) -> None:
    """Compare FID, KID, the manifolds, the closest search and the re-identification scores.

    All are computed in float64, or, where float32 or bfloat16 finds candidates, decided in it.
    """
    n, dimensions = (120, 16) if tiny else (3000, 768)
    rng = np.random.default_rng(0)
    real = rng.normal(size=(n, dimensions)).astype(np.float32)
    made = (0.9 * rng.normal(size=(n, dimensions)) + 0.1).astype(np.float32)
    made[: n // 10] = real[: n // 10]  # some copies
    sizes = f"{n} x {n} rows of {dimensions}"
    fids = [frechet_distance(real, made, device=where) for where in (CPU, device)]
    say.compare("FID", abs(fids[1] - fids[0]) / fids[0], 1e-8, f"relative, {sizes}")
    kids = [kernel_distance(real, made, device=where).value for where in (CPU, device)]
    say.compare("KID", abs(kids[1] - kids[0]) / abs(kids[0]), 1e-8, f"relative, {sizes}")
    manifolds = [manifold_overlap(real, made, device=where) for where in (CPU, device)]
    own, other = (vars(found) for found in manifolds)
    arrays = [name for name, value in own.items() if isinstance(value, np.ndarray)]
    apart = sum(int((own[name] != other[name]).sum()) for name in arrays)
    say.compare("memberships", apart, 0, f"entries of {', '.join(arrays)} that differ, {sizes}")
    nearest = [closest_by_distance(made, real, 5, device=where) for where in (CPU, device)]
    say.compare(
        "closest, rows", (nearest[0].rows != nearest[1].rows).sum(), 0, f"that differ, {sizes}"
    )
    say.compare(
        "closest, distances",
        np.abs(nearest[0].values - nearest[1].values).max(),
        1e-12,
        f"largest difference, {sizes}",
    )
    weight, bias = rng.normal(size=(1, 128)) / 8, np.array([0.5])
    queries, references = (rng.normal(size=(n, 128)).astype(np.float32) for _ in "ab")
    scores = [
        closest_by_score(queries, references, weight, bias, 5, device=where)
        for where in (CPU, device)
    ]
    say.compare(
        "re-identification, rows",
        (scores[0].rows != scores[1].rows).sum(),
        0,
        f"that differ, {n} x {n} rows of 128",
    )
    first = pair_scores(queries, references[scores[1].rows[:, 0]], weight, bias)
    say.compare(
        "re-identification, scores",
        np.abs(scores[1].values[:, 0] - first).max(),
        1e-12,
        "largest difference to the same pairs' scores",
    )


def compare_losses(device: torch.device, tiny: bool, say: Writer) -> None:
    """Compare the losses of a tiny training in float32; the network is tiny on a GPU, too."""
    cpu, other = (losses_on(where) for where in (CPU, device))
    # A GPU's convolutions multiply in TF32 by default: three digits, and a step's difference grows.
    away = max(abs(b - a) / a for a, b in zip(cpu, other, strict=True))
    say.compare(
        "losses", away, 5e-3, f"relative, largest of {FIRST_LOSSES} steps of a tiny sd_v1_5"
    )


def compare_features(device: torch.device, tiny: bool, say: Writer) -> None:
    """Compare the features of some radiographs, of random networks of the published sizes."""
    compute_exactly()
    items = radiographs(4, (160, 200) if tiny else PIXELS)
    for name in ("rad_dino", "reid", "densenet_121"):
        torch.manual_seed(0)
        encoder = make_encoder(name, CPU, tiny)
        inputs = [encoder.prepare(item.open()) for item in items]
        on_cpu = encoder.encode(inputs)
        encoder.network.to(device)
        encoder.device = device
        away = np.linalg.norm(encoder.encode(inputs) - on_cpu, axis=1)
        relative = (away / np.linalg.norm(on_cpu, axis=1)).max()
        what = f"||a - b|| / ||a||, largest of {len(items)} images, float32"
        say.compare(f"features, {name}", relative, 1e-4, what)


def losses_on(device: torch.device) -> list[float]:
    """Return the losses of a tiny Stable Diffusion's first steps, with the CPU's first weights."""
    import dataclasses

    settings = dataclasses.replace(
        train_settings("sd_v1_5", tiny=True), mixed_precision="no", learning_rate=1e-3
    )
    pipeline = pipeline_for_training("sd_v1_5", CPU, tiny=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.float().to(device)
    with TemporaryDirectory() as folder:
        run = make_run("sd_v1_5", pipeline, settings, device, Path(folder), steps=FIRST_LOSSES)
        for batch in run.batches():
            run.advance(batch)
    run.images.close()
    return [row[2] for row in run.curve]
