"""Estimate of the disk space that the planned jobs need, checked before the first job.

It counts encoded images, the progress and weights of fine-tuning (preflight/needs.py), and sampled
images. Features, records and the cohort are small compared to these.
"""

import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workflow_scripts.cohort.drawn_prompts import DRAWN
from workflow_scripts.common.config import prompt_sets_of
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import STRESS, read_manifest, read_prompts
from workflow_scripts.preflight.cost_model import draws_pool, prompts_of
from workflow_scripts.preflight.gpu_memory import Parts
from workflow_scripts.preflight.needs import GB, checkpoint_bytes, encoded_bytes, image_bytes

log = logging.getLogger(__name__)

RESULTS: Final = Path("results")


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model, from its checkpoint.

    Attributes:
        trained: number of parameters that fine-tuning trains.
        encoded: number of float32 values of an encoded image.
        encoder: the autoencoder's folder and the side; models with the same two share encoded
            images.
        copied: bytes of the base's other components, which are copied to a model trained in full.
        parts: numbers of parameters of its networks, for the GPU's memory.
    """

    trained: int
    encoded: int
    encoder: tuple[str, int]
    copied: int
    parts: Parts | None = None


@dataclass(frozen=True)
class Writes:
    """Bytes that planned jobs will write.

    Attributes:
        encoded: encoded images of all models that train; None if the number of images is not known,
            because the cohort is not made yet.
        training: progress and weights of these models.
        images: sampled images, assuming one byte per pixel.
    """

    encoded: int | None
    training: int
    images: int

    def __str__(self) -> str:
        """Return the sizes in GB, as text."""
        encoded = (
            "encoded images not known yet"
            if self.encoded is None
            else (f"encoded images {self.encoded / GB:.1f} GB")
        )
        return (
            f"{encoded}, training {self.training / GB:.1f} GB, images about "
            f"{self.images / GB:.1f} GB"
        )


def planned_writes(
    config: Mapping[str, Any],
    stages: Collection[str],
    models: Collection[str],
    sizes: Mapping[str, Sizes],
    results: Path = RESULTS,
) -> Writes:
    """Return the sizes that the planned jobs will write, without existing files.

    Args:
        config: the validated config.
        stages: the stages with planned jobs.
        models: the models with planned jobs.
        sizes: the sizes of those models that could be built.
        results: the folder of the workflow's results.
    """
    new = [key for key in models if not (results / f"finetune/{key}/checkpoint").exists()]
    trained = [key for key in new if key in sizes and config["models"][key].get("finetune")]
    trained = trained if "finetune" in stages else []
    training = 0.0
    for key in trained:
        tuned = config["models"][key]["finetune"]
        training += checkpoint_bytes(sizes[key].trained, tuned)
        training += sizes[key].copied if tuned["method"] == "full" else 0
    images = 0
    if "generate" in stages:
        pools = models if "curate" in stages else ()
        images = sum(_images_left(config, key, results, key in pools) for key in models)
    return Writes(_encoded_left(trained, sizes, results), round(training), images)


def check_disk(writes: Writes, results: Path = RESULTS) -> None:
    """Check that the disk can hold what training writes; warn if sampled images may fill it.

    Raises:
        InputError: the disk cannot hold what training writes.
    """
    free = free_bytes(results)
    certain = writes.training + (writes.encoded or 0)
    if certain > free:
        raise InputError(
            f"the planned jobs write {writes}; {free / GB:.1f} GB are free",
            results.absolute(),
            "free some space, link results/finetune/.encoded to another disk, or run fewer models "
            "at a time",
        )
    if certain + writes.images > free:
        log.warning(
            "the planned jobs write %s; %.1f GB are free in %s, which may not be enough",
            writes, free / GB, results.absolute(),
        )  # fmt: skip


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _encoded_left(trained: list[str], sizes: Mapping[str, Sizes], results: Path) -> int | None:
    if not trained:
        return 0
    manifest = results / "cohort/training/manifest.parquet"
    if not manifest.exists():
        return None
    rows = read_manifest(manifest, ["split", "caption"])
    images = int(((rows["split"] == "train") & rows["caption"].notna()).sum())
    each = {sizes[key].encoder: encoded_bytes(sizes[key].encoded, images) for key in trained}
    existing = sum(file.stat().st_size for file in (results / "finetune/.encoded").rglob("*.h5"))
    return max(0, sum(each.values()) - existing)


def _images_left(config: Mapping[str, Any], key: str, results: Path, curated: bool) -> int:
    """Return an estimate of the bytes of a model's shards that are still to be sampled.

    Args:
        config: the validated config.
        key: the model's.
        results: the folder of the workflow's results.
        curated: whether a set may be curated for it, for which a pool may be sampled.
    """
    sampled = config["models"][key].get("generate")
    if not sampled:
        return 0
    left = 0
    pools = [DRAWN] if curated and draws_pool(config, key) else []
    for name in (*prompt_sets_of(dict(config), key), *pools):
        drawn = config["prompt_sets"][name]
        prompts = results / f"cohort/prompts/{name}.parquet"
        # The number of test prompts is not known before the cohort is made.
        number = prompts_of(config, name, 0) or 0
        if name != STRESS and prompts.exists():
            number = len(read_prompts(prompts))
        existing = len(list((results / f"generate/{key}/{name}").glob("part-*.parquet")))
        share = max(0.0, 1 - existing / drawn["shards"])
        left += round(share * image_bytes(sampled["size"], number))
    return left
