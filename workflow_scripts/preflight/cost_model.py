"""GPU-hours of a config's run: measured rates times the config's counts.

`works` lists the work by stage and model, with counts that follow from the config and the cohort.
`estimate` joins each piece of work with the newest rate that was measured on a kind of GPU with the
same settings. A rate with other settings is reported but never used, so nothing is guessed. Work
without a rate has no hours.

The assumptions are: a rate holds for all images; several GPUs do not slow one another down (the
cost of exchanging gradients has not been measured); jobs do not wait in a queue.
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from workflow_scripts.cohort.drawn_prompts import DRAWN
from workflow_scripts.cohort.stress_prompts import stress_size
from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.config import prompt_sets_of
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import PROMPT_SETS, STRESS
from workflow_scripts.common.settings import settings_of_block
from workflow_scripts.curate.kinds import KINDS
from workflow_scripts.downstream.report_generation.settings import ReporterSettings
from workflow_scripts.features.settings import ReidSettings
from workflow_scripts.preflight.rates import Rate, kind_of, newest
from workflow_scripts.privacy.membership.settings import LIKELIHOODS, MembershipSettings

GPUS: Final = (1, 4, 8)
"""The numbers of GPUs for which hours are given."""

SHARED: Final = "shared"
"""The model's key for work that is done once for all models."""

PAPER: Final = "MIMIC-CXR"
TRAINING_IMAGES, TEST_PROMPTS = 237_388, 5_034

NOT_PLANNED: Final = (
    "the cohort, fidelity's metrics, intervals, controls and tables, which need no GPU; and in "
    "jobs with a GPU: reading images before training, validation, and faithfulness's texture"
)

MEASURES: Final[Mapping[str, str]] = {
    "stable-diffusion-v1-4": "sd_v1_5",
    "stable-diffusion-v1-5": "sd_v1_5",
    "stable-diffusion-2": "sd_v2_1",
    "stable-diffusion-2-1": "sd_v2_1",
    "radedit": "radedit",
    "pixart-sigma-xl-2-512-ms": "pixart_sigma",
    "sana-600m-512px": "sana",
    "stable-diffusion-3.5-medium": "sd_v3_5",
    "lumina-image-2.0": "lumina_2",
    "flux.1-dev": "flux_1_dev",
    "llm-cxr": "llm_cxr",
}
"""The folder of a base, mapped to the model whose part of gpu-check measures the same network."""

PEAKS: Final[Mapping[str, float]] = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Peak dense bf16 FLOP/s of the fastest card of a kind, from NVIDIA's data sheets."""

COUNTED: Final = Path(__file__).with_name("counted.csv")
"""Operations and activations of the published networks, written by `python -m tests.gpu.count`."""

_GUIDED: Final = ("stable_diffusion", "pixart_sigma", "sana", "stable_diffusion_3")
"""Families that pass each image through the network twice per step if guidance is used."""

ALONE: Final = ", each patient alone"
"""The addition to the settings of a step with a guarantee, for which rates of batches do not hold.
"""

PRECISIONS: Final = {"no": "float32", "fp32": "float32", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class Cohort:
    """The numbers of images; None for a number that is not known before the cohort is made.

    Attributes:
        training: captioned images of the training split.
        test: images of the test split.
        test_prompts: prompts of the test split.
        held_out: images of the test and validation splits.
        source: where the numbers come from, for readers.
    """

    training: int | None
    test: int | None
    test_prompts: int | None
    held_out: int | None
    source: str


@dataclass(frozen=True)
class Work:
    """A number of equal pieces of work with the same rate.

    Attributes:
        stage: `finetune`, `generate`, ...; for downstream the task.
        model: the model's key, or `SHARED`.
        what: a description for readers, such as `test images`.
        count: number of pieces; None if it is not known yet.
        unit: what the count counts.
        parts: the parts of gpu-check; a rate of any of them will do.
        name: the name of the rate within its part.
        settings: the settings that the rate must have been measured with.
        jobs: number of jobs that share the work equally, with one GPU each.
        flop: least floating-point operations of a piece; None if they were not counted.
        spread: the numbers of GPUs on which a SINGLE job divides its steps into the pieces that
            were measured; None for work that is divided by jobs.
    """

    stage: str
    model: str
    what: str
    count: float | None
    unit: str
    parts: tuple[str, ...]
    name: str
    settings: str
    jobs: int = 1
    spread: frozenset[int] | None = None
    flop: float | None = None


@dataclass(frozen=True)
class Estimate:
    """The time that a piece of work takes.

    Attributes:
        work: the work.
        rate: the rate measured with the same settings; None if there is none.
        near: the newest rate of the same part with other settings, for readers only.
        gpu_hours: GPU-hours; None if the rate is missing or the count is not known.
        hours: hours by number of GPUs; None also if steps would be divided otherwise than measured.
        bound: lower bound of GPU-hours: the network's operations at the GPU's peak. It is not an
            estimate; None if the operations were not counted.
    """

    work: Work
    rate: Rate | None
    near: Rate | None
    gpu_hours: float | None
    hours: Mapping[int, float | None] = field(default_factory=dict)
    bound: float | None = None


def training_settings(tuned: Mapping[str, Any], images: int) -> str:
    """Return the settings of a training step as gpu-check writes them.

    Args:
        tuned: the model's block `finetune`.
        images: images per forward pass.
    """
    lora = tuned.get("lora")
    method = f"lora r={lora['rank']} on {'+'.join(lora['targets'])}" if lora else tuned["method"]
    checkpointing = "with" if tuned["gradient_checkpointing"] else "without"
    return (
        f"{method}, {tuned['mixed_precision']}, {tuned['size']} px, {images} images, "
        f"{checkpointing} checkpointing"
    )


def sampling_settings(sampled: Mapping[str, Any], size: int, images: int) -> str:
    """Return the settings of sampling as gpu-check writes them.

    Args:
        sampled: the model's block `generate`.
        size: side of the images, pixels.
        images: images sampled at once.
    """
    words = [sampled.get("precision", "fp32")]
    if "steps" in sampled:
        words += [f"{sampled['steps']} steps", f"guidance {sampled['guidance']:g}"]
    return ", ".join([*words, f"{size} px", f"batches of {images}"])


def classifier_settings(task: Mapping[str, Any]) -> str:
    """Return the settings of a classifier's step as gpu-check writes them."""
    batch = min(task["batch_size"], task.get("per_device_batch_size", task["batch_size"]))
    return f"{PRECISIONS[task['mixed_precision']]}, {task['size']} px, batches of {batch}"


def segmenter_settings(task: Mapping[str, Any]) -> str:
    """Return the settings of a U-Net's step as gpu-check writes them."""
    channels = "-".join(map(str, task["channels"]))
    return f"float32, {task['size']} px, batches of {task['batch_size']}, channels {channels}"


def reporter_settings(task: Mapping[str, Any]) -> str:
    """Return the settings of report generation's second stage."""
    precision, batch = PRECISIONS[task["mixed_precision"]], task["per_device_batch_size"]
    return f"r={task['lora_rank']}, {precision}, batches of {batch}"


def reid_settings(given: Mapping[str, Any]) -> str:
    """Return the settings of a re-identification network's step as gpu-check writes them.

    Args:
        given: the block `encoders.reid.train`, without what it leaves to `ReidSettings`.
    """
    settings = settings_of_block(ReidSettings, given)
    return f"float32, {settings.size} px, batches of {settings.batch_size} pairs"


def judge_settings(downstream: Mapping[str, Any]) -> str:
    """Return the settings of a judging classifier, whose batches are as large as CXAS's."""
    batch = downstream["segmentation"]["labeller"]["batch_size"]
    return f"float32, {downstream['classification']['size']} px, batches of {batch}"


def writing_settings(task: Mapping[str, Any]) -> str:
    """Return the settings of writing reports; `task`: the block of report generation."""
    return f"{PRECISIONS[task['mixed_precision']]}, batches of {task['generate_batch_size']}"


def organ_settings(downstream: Mapping[str, Any]) -> str:
    """Return the settings of measuring an image's organs."""
    return f"{downstream['segmentation']['labeller']['size']} px"


def search_settings(matches: int, queries: int, references: int, dimensions: int) -> str:
    """Return the settings of the search for the closest training images."""
    return f"the {matches} closest of {references} for each of {queries}, {dimensions} dimensions"


def cohort_of(config: Mapping[str, Any], results: Path = Path("results")) -> Cohort:
    """Return the numbers of images: those of the cohort if it is made, else the expected ones."""
    manifest, prompts = results / "cohort/manifest.parquet", results / "cohort/prompts/test.parquet"
    if manifest.exists():
        from workflow_scripts.common.manifest import read_manifest, read_prompts

        rows = read_manifest(manifest, ["split", "caption"])
        split = rows["split"]
        return Cohort(
            int(((split == "train") & rows["caption"].notna()).sum()),
            int((split == "test").sum()),
            len(read_prompts(prompts)) if prompts.exists() else None,
            int((split != "train").sum()),
            str(manifest),
        )
    return expected_cohort(config)


def expected_cohort(config: Mapping[str, Any]) -> Cohort:
    """Return the expected numbers of images before the cohort is made, without reading files."""
    if config["cohort"]["dataset"] == PAPER:
        return Cohort(TRAINING_IMAGES, TEST_PROMPTS, TEST_PROMPTS, None, "the paper")
    return Cohort(None, None, None, None, "not known before the cohort is made")


def measured_as(block: Mapping[str, Any], key: str) -> str:
    """Return the model whose parts of gpu-check measure a model's network, by its base's folder."""
    return MEASURES.get(Path(block.get("base", "")).name, key)


def works(config: Mapping[str, Any], cohort: Cohort, curated: Sequence[str] = ()) -> list[Work]:
    """Return all GPU work of a config's models, in the order of stages.

    Args:
        config: the validated config.
        cohort: the numbers of images.
        curated: models for which a set is curated, besides those that the config names; see
            `curated_in`.

    Raises:
        InputError: a set is to be curated for a model without images of the pool's prompt set.
    """
    sampled = [key for key in config["run_models"] if config["models"][key].get("generate")]
    sets = curated_in(config, curated)
    planned = [*_finetuning(config, cohort), *_sampling(config, cohort, sampled, sets)]
    planned += [*_features(config, cohort), *_search(config, cohort), *_attacked(config, cohort)]
    planned += _losses(config)
    tasks = {"classification": _classification, "segmentation": _segmentation}
    tasks["report_generation"] = _reports
    for task, of_task in tasks.items():
        if task in config["downstream"]["tasks"]:
            planned += of_task(config, cohort)
    planned += _faithfulness(config, cohort)
    return [*planned, *(work for key in sets for work in _curation(config, cohort, key))]


def curated_in(config: Mapping[str, Any], asked: Sequence[str] = ()) -> list[str]:
    """Return the models for which a set is curated: the config's, then those asked for."""
    return list(dict.fromkeys([*config["curate"].get("models", ()), *asked]))


def draws_pool(config: Mapping[str, Any], key: str) -> bool:
    """Return whether new images of a model are sampled if a set is curated for it."""
    asked = config["curate"]["pool"] == DRAWN and DRAWN in config["prompt_sets"]
    return asked and key in config["run_models"] and bool(config["models"][key].get("generate"))


def works_while_planning(config: Mapping[str, Any], cohort: Cohort, stage: str) -> list[Work]:
    """Return a stage's work, as far as it is known without importing torch.

    The training of report generators is left out, because its stages are declared in a script that
    imports torch.

    Args:
        config: the validated config.
        cohort: the numbers of images.
        stage: `features`, `privacy` (the extraction attack only), `classification`,
            `segmentation`, `report_generation` or `faithfulness`.
    """
    if stage == "report_generation":
        return list(_reports(config, cohort, trains=False))
    makers = {
        "features": _features,
        "privacy": _attacked,
        "classification": _classification,
        "segmentation": _segmentation,
        "faithfulness": _faithfulness,
    }
    return list(makers[stage](config, cohort))


def estimate(work: Work, rates: Sequence[Rate], kind: str, gpus: Sequence[int] = GPUS) -> Estimate:
    """Return the time that a piece of work takes on a kind of GPU.

    Args:
        work: the work.
        rates: all measured rates.
        kind: the kind of GPU.
        gpus: the numbers of GPUs for which hours are given.
    """
    rate = newest(rates, kind, work.parts, work.name, work.settings)
    alike = [r for r in reversed(rates) if r.part in work.parts and r != rate]
    near = next((r for r in alike if r.name == work.name), next(iter(alike), None))
    bound, peak = None, PEAKS.get(kind)
    if work.count is not None and work.flop is not None and peak is not None:
        bound = work.count * work.flop / peak / 3600
    if rate is None or work.count is None:
        return Estimate(work, rate, None if rate else near, None, dict.fromkeys(gpus), bound)
    gpu_hours = work.count * rate.seconds / 3600
    return Estimate(
        work, rate, None, gpu_hours, {n: _hours(work, gpu_hours, n) for n in gpus}, bound
    )


def choose_kind(planned: Sequence[Work], rates: Sequence[Rate]) -> str | None:
    """Return the kind of GPU with rates for most pieces of work; of equals, the latest measured.

    Args:
        planned: all work, see `works`.
        rates: all measured rates.
    """
    kinds = list(dict.fromkeys(rate.kind for rate in reversed(rates)))
    rated = {
        kind: sum(estimate(w, rates, kind).rate is not None for w in planned) for kind in kinds
    }
    return max(kinds, key=lambda kind: rated[kind], default=None)


def _hours(work: Work, gpu_hours: float, gpus: int) -> float | None:
    if work.spread is not None:
        return gpu_hours / gpus if gpus in work.spread else None
    rounds = math.ceil(work.jobs / min(gpus, work.jobs))
    return rounds * gpu_hours / work.jobs


def margin_minutes(
    hours: float | None, otherwise: int, margin: float = 2.0, least: int = 30
) -> int:
    """Return the minutes that a rule requests: the estimate times a margin, or a default.

    Args:
        hours: estimated hours; None if there is no rate.
        otherwise: the default minutes, for work without an estimate.
        margin: factor for a busier node, a slower file system, loading and writing.
        least: fewest minutes for work with an estimate.
    """
    return otherwise if hours is None else max(least, math.ceil(60 * margin * hours))


def shard_minutes(
    config: Mapping[str, Any],
    cohort: Cohort,
    rates: Sequence[Rate],
    model: str,
    prompt_set: str,
    otherwise: int,
    attempt: int = 1,
    gpu: str | None = None,
) -> int:
    """Return the minutes that the job of one sampling shard requests.

    They follow from the kind of GPU that the profile asks for. If it names none, they follow from
    the slowest measured kind. A retry requests more if the minutes follow from a rate.

    Args:
        config: the validated config.
        cohort: the numbers of images.
        rates: all measured rates.
        model: the model that is sampled.
        prompt_set: the shard's prompt set.
        otherwise: the default minutes, if there is no rate.
        attempt: the number of the job's attempt, from 1.
        gpu: the profile's `gpu_model` of the job; None if it names none.
    """
    pieces = [
        piece
        for piece in _sampling(config, cohort, [model], [model])
        if piece.what == f"{prompt_set} images"
    ]
    hours = [
        time
        for kind in _kinds(rates, gpu)
        for piece in pieces
        if (time := estimate(piece, rates, kind, (piece.jobs,)).hours[piece.jobs]) is not None
    ]
    slowest = max(hours, default=None)
    return margin_minutes(slowest, otherwise) * (1 if slowest is None else attempt)


def job_minutes(
    planned: Sequence[Work],
    rates: Sequence[Rate],
    stage: str,
    model: str,
    starts: Sequence[str],
    otherwise: int,
    attempt: int = 1,
    gpus: int = 1,
    gpu: str | None = None,
) -> int:
    """Return the minutes that one job requests, from all the work that it does.

    As in `shard_minutes`, these are twice the estimated minutes on the profile's kind of GPU. If
    the profile names no kind, the slowest measured kind counts. Minutes that follow from rates grow
    with the attempt. If a rate is missing, the job requests the default minutes.

    Args:
        planned: all work, see `works`.
        rates: all measured rates.
        stage: the job's stage.
        model: the job's model; work for none of the run's models is `SHARED`.
        starts: the beginnings of `Work.what` that belong to the job.
        otherwise: the default minutes, if a rate is missing.
        attempt: the number of the job's attempt, from 1.
        gpus: the number of GPUs over which the job divides each step.
        gpu: the profile's `gpu_model` of the job; None if it names none.
    """
    models = {work.model for work in planned}
    key = model if model in models else SHARED
    pieces = [
        work
        for work in planned
        if (work.stage, work.model) == (stage, key) and work.what.startswith(tuple(starts))
    ]
    by_kind = [_job_hours(pieces, rates, kind, gpus) for kind in _kinds(rates, gpu)]
    slowest = max((hours for hours in by_kind if hours is not None), default=None)
    return margin_minutes(slowest, otherwise) * (1 if slowest is None else attempt)


def _kinds(rates: Sequence[Rate], gpu: str | None) -> set[str]:
    return {rate.kind for rate in rates} if gpu is None else {kind_of(gpu)}


def _job_hours(pieces: Sequence[Work], rates: Sequence[Rate], kind: str, gpus: int) -> float | None:
    """Return the hours of a job on a kind of GPU; None if a rate is missing."""
    hours = 0.0
    for work in pieces:
        whole = estimate(work, rates, kind).gpu_hours
        if whole is None or (work.spread is not None and gpus not in work.spread):
            return None
        hours += whole / work.jobs / (1 if work.spread is None else gpus)
    return hours if pieces else None


def forward_flop(block: Mapping[str, Any], key: str, size: int) -> float | None:
    """Return the FLOP of one forward pass of an image; None if they were not counted.

    Args:
        block: the model's block of the config.
        key: the model's key.
        size: side of the images, pixels; the FLOP are known only for the counted size.
    """
    with COUNTED.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["model"] == measured_as(block, key) and f", {size} px," in row["settings"]:
                return float(row["forward_flop_per_image"])
    return None


def _finetuning(config: Mapping[str, Any], cohort: Cohort) -> Iterator[Work]:
    encoders = set()
    for key in config["run_models"]:
        block = config["models"][key]
        tuned = block.get("finetune")
        if not tuned:
            continue
        parts = (f"train:{measured_as(block, key)}",)
        encoder = (block.get("parts", {}).get("vae", f"{block['base']}/vae"), tuned["size"])
        if encoder not in encoders:
            encoders.add(encoder)
            yield Work(
                "finetune", key, "images encoded once", cohort.training, "images", parts,
                "images encoded per second", f"{tuned['size']} px",
                spread=frozenset(GPUS),
            )  # fmt: skip
        batch, most = tuned["batch_size"], tuned["per_device_batch_size"]
        images = min(batch, most)
        count = None
        if cohort.training is not None:
            count = max(1, math.ceil(cohort.training * tuned["epochs"] / batch)) * batch
        once = forward_flop(block, key, tuned["size"])
        # For each product of the forward pass the backward pass has two, for a frozen weight one.
        passes = 2 if tuned["method"] == "lora" else 3
        yield Work(
            "finetune", key, "images shown", count, "images", parts, "images per second",
            training_settings(tuned, images) + (ALONE if tuned.get("privacy") else ""),
            spread=frozenset(n for n in GPUS if _pass(batch, n, most) == images),
            flop=None if once is None else passes * once,
        )  # fmt: skip


def _pass(batch: int, devices: int, most: int) -> int | None:
    from workflow_scripts.finetune.batches import divide_batch

    try:
        return divide_batch(batch, devices, most)[0]
    except InputError:
        return None


def _prompts(config: Mapping[str, Any], cohort: Cohort, name: str) -> int | None:
    drawn = config["prompt_sets"][name]
    if name == "test":
        return cohort.test_prompts
    if name == STRESS:
        return stress_size(drawn.get("groups"))
    return drawn["captions"] * len(drawn.get("seeds", [0]))


def _with(config: Mapping[str, Any], prompt_set: str) -> list[str]:
    models = config["run_models"]
    return [key for key in models if prompt_set in prompt_sets_of(dict(config), key)]


def _sampling(
    config: Mapping[str, Any], cohort: Cohort, models: Sequence[str], curated: Sequence[str]
) -> Iterator[Work]:
    """Yield the sampling of models: their prompt sets, and pools that are drawn for curated sets.

    Args:
        config: the validated config.
        cohort: the numbers of images.
        models: the models that are sampled.
        curated: those among them for which a set is curated.
    """
    for key in models:
        block = config["models"][key]
        given, measured = block["generate"], measured_as(block, key)
        parts = (f"sample:{measured}", f"sample:{measured}:{given.get('precision', 'fp32')}")
        settings = sampling_settings(given, given["size"], given["batch_size"])
        flop = forward_flop(block, key, given["size"])
        if flop is not None:
            guided = block["family"] in _GUIDED and given["guidance"] > 1
            flop *= given["steps"] * (2 if guided else 1)
        pools = [DRAWN] if key in curated and draws_pool(config, key) else []
        for name in (*prompt_sets_of(dict(config), key), *pools):
            count, shards = _prompts(config, cohort, name), config["prompt_sets"][name]["shards"]
            yield Work(
                "generate", key, f"{name} images", count, "images", parts, "images per second",
                settings, shards, flop=flop,
            )  # fmt: skip


GENERATED: Final = "whole, generated"
REAL: Final = "whole"
_FLOAT32: Final = "float32"


def _encoding(encoder: str, model: str, what: str, count: int | None, stage: str) -> Work:
    name = GENERATED if model != SHARED else REAL
    unit = "captions" if encoder == "biovil_t_text" else "images"
    part = f"encode:{encoder}"
    return Work(stage, model, f"{what}: {encoder}", count, unit, (part,), name, _FLOAT32)


def _features(config: Mapping[str, Any], cohort: Cohort) -> Iterator[Work]:
    reference = config["fidelity"]["encoders"]
    for key in _with(config, "test"):
        for encoder in (*reference, "biovil_t_image", "biovil_t_text"):
            yield _encoding(encoder, key, "test", cohort.test_prompts, "features")
    twice = _times(_prompts(config, cohort, "privacy"), 2)
    for key in _with(config, "privacy"):
        for encoder in ("rad_dino", "reid"):
            yield _encoding(encoder, key, "privacy, both protocols", twice, "features")
    for encoder in reference:
        yield _encoding(encoder, SHARED, "test radiographs", cohort.test, "features")
    captions = config["prompt_sets"]["privacy"]["captions"]
    for encoder in ("rad_dino", "reid"):
        for what, count in (
            ("training radiographs", cohort.training),
            ("held out, both protocols", _times(cohort.held_out, 2)),
            ("prompts' radiographs", captions),
        ):
            yield _encoding(encoder, SHARED, what, count, "features")
    yield from _reid_training(config, cohort)


def _reid_training(config: Mapping[str, Any], cohort: Cohort) -> Iterator[Work]:
    """Yield the training of a re-identification network, if the config asks for one.

    An epoch has as many pairs as the training patients have images. The validation patients are
    assumed to have their share of the images.
    """
    given = config["encoders"]["reid"].get("train")
    if given is None:
        return
    settings = settings_of_block(ReidSettings, given)
    pairs = settings.pairs or None
    if pairs is None and cohort.training is not None:
        pairs = round(cohort.training * (1 - settings.validation_share))
    yield Work(
        "features", SHARED, "re-identification, pairs trained on", _times(pairs, settings.epochs),
        "pairs", ("reid",), "pairs per second", reid_settings(given),
    )  # fmt: skip


def _times(count: int | None, factor: int) -> int | None:
    return None if count is None else factor * count


def _search(config: Mapping[str, Any], cohort: Cohort) -> Iterator[Work]:
    queries, matches = _prompts(config, cohort, "privacy"), config["privacy"]["matches"]
    for key in _with(config, "privacy"):
        for name, dimensions in (("closest by distance", 768), ("closest by score", 128)):
            known = queries is not None and cohort.training is not None
            settings = search_settings(matches, queries or 0, cohort.training or 0, dimensions)
            yield Work(
                "privacy", key, name, 1 if known else None, "searches", ("search",), name, settings
            )


def _attacked(config: Mapping[str, Any], cohort: Cohort) -> Iterator[Work]:
    """Yield the encoding of images for the extraction attack, a single job for all models.

    Its search multiplies matrices for some GPU minutes per model. No rate of it was measured.
    """
    models = len(list(_with(config, "privacy")))
    generated = _times(_prompts(config, cohort, "privacy"), models)
    for what, count in (
        ("training radiographs", cohort.training),
        ("held out", cohort.held_out),
        ("all models", generated),
    ):
        yield _encoding("rad_dino", SHARED, f"extraction, {what}", count, "privacy")


def _losses(config: Mapping[str, Any]) -> Iterator[Work]:
    """Yield the losses that attacks measure with a fine-tuned checkpoint and with its base.

    Each candidate for membership, at most `images` members and as many others, is measured with its
    caption and without; each canary with its own. A model that was published trained and has a
    likelihood has no base and no noise levels.
    """
    attack = settings_of_block(MembershipSettings, config["privacy"]["membership"])
    for key in config["run_models"]:
        block = config["models"][key]
        tuned = block.get("finetune")
        if not tuned and block["family"] in LIKELIHOODS:
            sampled = block["generate"]
            yield Work(
                "privacy", key, "membership, losses", 2 * 2 * attack.images, "losses",
                (f"sample:{measured_as(block, key)}",), "losses per second",
                sampling_settings(sampled, sampled["size"], attack.batch_size),
            )  # fmt: skip
        if not tuned:
            continue
        flop = forward_flop(block, key, tuned["size"])
        draws = attack.noise_levels * attack.seeds
        counts = {"membership": 2 * 2 * attack.images * draws * 2}
        if planted := tuned.get("canaries"):
            from workflow_scripts.finetune.canaries import REPEATS
            from workflow_scripts.privacy.score_guarantee import DRAWS

            counts["canaries"] = 2 * len(REPEATS) * planted["count"] * DRAWS
        for what, count in counts.items():
            yield Work(
                "privacy", key, f"{what}, losses", count, "losses",
                (f"train:{measured_as(block, key)}",), "losses per second",
                training_settings(tuned, attack.batch_size), flop=flop,
            )  # fmt: skip


def _arms(config: Mapping[str, Any], settings: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (setting, model) of each arm: real data alone, then the arms with models' images."""
    yield "real_only", SHARED
    for key in _with(config, "augment"):
        for setting in settings:
            yield setting, key


_BOTH: Final = ("augmented", "synthetic_only")


def _classification(config: Mapping[str, Any], cohort: Cohort) -> Iterator[Work]:
    task, n = config["downstream"]["classification"], config["prompt_sets"]["augment"]["captions"]
    for setting, key in _arms(config, _BOTH):
        images = n * (2 if setting == "augmented" else 1) * (1 - task["validation_share"])
        count = images * task["epochs"] * task["repeats"]
        yield Work(
            "classification", key, f"{setting}: images shown", count, "images", ("classify",),
            "images per second", classifier_settings(task), task["repeats"],
        )  # fmt: skip


def _segmentation(config: Mapping[str, Any], cohort: Cohort) -> Iterator[Work]:
    task = config["downstream"]["segmentation"]
    test = cohort.test
    drawn = min(task["images"], config["prompt_sets"]["augment"]["captions"])
    real = None if test is None else test + drawn
    yield _encoding("cxas", SHARED, "pseudo-masks of radiographs", real, "segmentation")
    for key in _with(config, "augment"):
        yield _encoding("cxas", key, "pseudo-masks", drawn, "segmentation")
    for setting, key in _arms(config, ("augmented",)):
        yield Work(
            "segmentation", key, f"{setting}: steps", task["steps"] * task["repeats"], "steps",
            ("unet",), "seconds per step", segmenter_settings(task), task["repeats"],
        )  # fmt: skip


def _reports(config: Mapping[str, Any], cohort: Cohort, trains: bool = True) -> Iterator[Work]:
    task, n = (
        config["downstream"]["report_generation"],
        config["prompt_sets"]["augment"]["captions"],
    )
    real, settings = task["real_images"], reporter_settings(task)
    together = min(task["batch_size"], task["per_device_batch_size"])
    batch, most = task["batch_size"], task["per_device_batch_size"]
    spread = frozenset(n for n in GPUS if trains and _pass(batch, n, most) == together)
    sizes = {"real_only": real, "augmented": real + n, "synthetic_only": n}
    arms = [("released", SHARED), *_arms(config, _BOTH)]
    for setting, key in arms:
        repeats = 1 if setting == "released" else task["repeats"]

        def work(
            what: str, count: float | None, part: str, name: str, trains: bool, given: str,
            setting: str = setting, key: str = key, repeats: int = repeats,
        ) -> Work:  # fmt: skip
            return Work(
                "report_generation", key, f"{setting}: {what}",
                None if count is None else count * repeats, "images" if trains else "reports",
                (part,), name, given, repeats, spread if trains else None,
            )  # fmt: skip

        for stage, epochs in _report_epochs(config, setting) if trains else []:
            shown = sizes[setting] * epochs
            yield work(
                f"{stage}, images shown", shown, f"report:{stage}", "images per second", True,
                settings,
            )  # fmt: skip
        writing = writing_settings(task)
        tests = cohort.test_prompts
        yield work("test reports", tests, "report:write", "reports per second", False, writing)
        for scorer, files in task["metrics"].items():
            if files:
                read = f"reports that {scorer} reads"
                part = f"read:{scorer}"
                yield work(read, tests, part, "reports per second", False, "published size")


def _report_epochs(config: Mapping[str, Any], setting: str) -> list[tuple[str, int]]:
    """Return the training stages of a setting, each with its number of epochs."""
    from workflow_scripts.downstream.report_generation.stages import plan_of

    settings = settings_of_block(ReporterSettings, config["downstream"]["report_generation"])
    plan = plan_of(setting, settings, deviations(config["protocol"]))
    return [(stage.name, stage.epochs) for stage in plan.stages]


def _faithfulness(config: Mapping[str, Any], cohort: Cohort) -> Iterator[Work]:
    """Yield the work of looking at images: every model's, radiographs, and the stress set.

    CXAS segments each image's organs, which are measured, and each judge reads the image once. In
    the stress set each classifier reads the image twice, because it is also mirrored. Where
    LLaVA-Rad judges, it writes a report of each test image, and CheXbert reads it.
    """
    tasks = config["downstream"]["tasks"]
    named = config["faithfulness"]["judges"]
    judges = [name for name in named if name != "classifier" or "classification" in tasks]
    tests = _with(config, "test")
    looks = (
        ("test images", cohort.test_prompts, tests),
        ("test radiographs", cohort.test, [SHARED]),
    )
    if "llava_rad" in judges:
        writing = writing_settings(config["downstream"]["report_generation"])
        for what, count, models in looks:
            for key in models:
                for does, part, given in (
                    ("written", "report:write", writing),
                    ("read by CheXbert", "read:chexbert", "published size"),
                ):
                    yield Work(
                        "faithfulness", key, f"reports of {what}: {does}", count, "reports",
                        (part,), "reports per second", given,
                    )  # fmt: skip
    if "segmentation" not in tasks:  # no labeller, no organs
        return
    for what, count, models in looks:
        for key in models:
            yield _encoding("cxas", key, what, count, "faithfulness")
            yield _judging(config, key, f"{what}: organs measured", "images", count, 1)
            if "classifier" in judges:
                yield _judging(config, key, f"{what}: classifier", "passes", count, 1)
            if "densenet_121" in judges:
                yield _encoding("densenet_121", key, what, count, "faithfulness")
    stressed = _with(config, STRESS)
    if "classifier" not in judges or not stressed:
        return
    drawn = _prompts(config, cohort, STRESS)
    for what, count, models in (
        ("stress images", drawn, stressed),
        ("stress, test radiographs", cohort.test, [SHARED]),
    ):
        for key in models:
            yield _encoding("cxas", key, what, count, "faithfulness")
            yield _judging(config, key, f"{what}: evidence", "passes", count, 2)


def _curation(config: Mapping[str, Any], cohort: Cohort, key: str) -> Iterator[Work]:
    """Yield the work on a curated set of one model, with the planted leaks that test its filter.

    There are planted leaks of every kind, an overfitted model's images among them. Each candidate
    is also mirrored, and compared with every training radiograph. The judges read the pool alone.
    """
    policy = config["curate"]
    pool = policy["pool"]
    known = key in _with(config, pool) if pool in PROMPT_SETS else draws_pool(config, key)
    if not known:
        raise InputError(
            f"{key!r} has no images of the prompt set {pool!r} to curate a set from",
            "--curate",
            "name a model of run_models, or another prompt set in curate.pool; the pool `drawn` is "
            "sampled, as prompt_sets.drawn says, from models that are sampled here",
        )
    images = _prompts(config, cohort, pool)
    unseen = policy["held_out"]
    if cohort.held_out is not None:
        unseen = min(unseen, cohort.held_out)
    kinds = len(KINDS) + (policy.get("overfitted") is not None)
    count = None if images is None else 2 * (images + kinds * policy["planted"] + unseen)
    for encoder in ("rad_dino", "reid"):
        yield _encoding(encoder, key, "pool, planted and unseen, mirrored", count, "curate")
    known = count is not None and cohort.training is not None
    pairs = count * cohort.training if known and count and cohort.training else None
    yield Work(
        "curate", key, "search among training radiographs", pairs, "pairs", ("likeness",),
        "pairs per second", LIKENESS, flop=LIKENESS_FLOP,
    )  # fmt: skip
    yield _encoding("cxas", key, "pool", images, "curate")
    for what, unit, used in (
        ("organs measured", "images", True),
        ("classifier", "passes", "classifier" in config["faithfulness"]["judges"]),
    ):
        if used:
            made = _judging(config, key, f"pool: {what}", unit, images, 1)
            yield replace(made, stage="curate")
    if "densenet_121" in config["faithfulness"]["judges"]:
        yield _encoding("densenet_121", key, "pool", images, "curate")
    task = config["downstream"]["classification"]
    # Templates belong to no patient, and nothing is trained on them.
    if not policy.get("worth") or pool == STRESS:
        return
    real = config["prompt_sets"]["augment"]["captions"]
    for way, n_real in (("alone", 0), ("added to real images", real)):
        for which in ("the set", "as many unfiltered"):
            shown = (policy["images"] + n_real) * (1 - task["validation_share"]) * task["epochs"]
            yield Work(
                "curate", key, f"worth of {which}, {way}: images shown", shown * task["repeats"],
                "images", ("classify",), "images per second", classifier_settings(task),
                task["repeats"],
            )  # fmt: skip
    if "segmentation" not in policy.get("worth_also", ()):
        return
    task = config["downstream"]["segmentation"]
    masked = min(task["images"], policy["images"]) * task["repeats"]
    for which in ("the set", "as many unfiltered"):
        # Each run draws the masks anew.
        yield _encoding("cxas", key, f"worth of {which}: pseudo-masks", masked, "curate")
        yield Work(
            "curate", key, f"worth of {which}, segmentation: steps",
            task["steps"] * task["repeats"], "steps", ("unet",), "seconds per step",
            segmenter_settings(task), task["repeats"],
        )  # fmt: skip


LIKENESS: Final = "float32, 20 views"
"""The settings of that comparison, as gpu-check writes them."""

LIKENESS_FLOP: Final = 2 * 20 * 32**2
"""Counted for two images whose gray values are compared, turned in 5 ways and enlarged in 4."""


_JUDGED: Final = {
    "organs measured": "images measured per second",
    "classifier": "passes per second",
    "evidence": "passes with evidence per second",
}
"""The end of `Work.what`, mapped to the name of its rate in gpu-check's part `judge`."""


def _judging(
    config: Mapping[str, Any], model: str, what: str, unit: str, count: int | None, times: int
) -> Work:
    task = config["downstream"]
    settings = organ_settings(task)
    if unit == "passes":
        settings, times = judge_settings(task), times * task["classification"]["repeats"]
    name = _JUDGED[what.rpartition(": ")[2]]
    return Work("faithfulness", model, what, _times(count, times), unit, ("judge",), name, settings)
