"""Train a report generator on real images, synthetic ones or both, and describe the test images.

    accelerate launch --num_processes 4 -m workflow_scripts.downstream.report_generation.train ...
    python -m workflow_scripts.downstream.report_generation.train ...

The paper shows the results in Tables 6 and 16. The stages and settings are LLaVA-Rad's. `real_only`
and `augmented` start from a radiology vision tower and a language model that never saw an image.
The first stage trains the projector between them, the second an adapter on the language model
together with the projector. `synthetic_only` continues the released LLaVA-Rad by the second stage
alone, and `released` is that model without further training. The script writes one file, the report
of each test image with its reference; `score` makes the record from it.
"""

import argparse
import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.settings import settings_of_flags
from workflow_scripts.common.training import begin_attempt, curve, train
from workflow_scripts.common.training_step import check_processes
from workflow_scripts.downstream.data import check_no_test_patient
from workflow_scripts.downstream.report_generation.data import (
    Pairs,
    captioned,
    concatenate,
    drawn_real_pairs,
    real_pairs,
    reported,
    synthetic_pairs,
)
from workflow_scripts.downstream.report_generation.generate import generate_reports
from workflow_scripts.downstream.report_generation.images import Ahead, Squares, training_order
from workflow_scripts.downstream.report_generation.layout import (
    check_start,
    image_tokens,
    read_llava_config,
    transform,
)
from workflow_scripts.downstream.report_generation.network import (
    PRECISIONS,
    LoraSettings,
    ReportTask,
    StageNetwork,
    add_lora,
    load_llava,
    load_tokenizer,
    merge_lora,
    reset_projector,
    train_projector_only,
)
from workflow_scripts.downstream.report_generation.prompts import Prompts, ReportTokenizer
from workflow_scripts.downstream.report_generation.schedule import warmup_then_cosine
from workflow_scripts.downstream.report_generation.settings import ReporterSettings
from workflow_scripts.downstream.report_generation.stages import Stage, plan_of
from workflow_scripts.downstream.training_run import (
    accelerator_of,
    described,
    noted_settings,
    publish,
    train_parser,
)
from workflow_scripts.finetune.data import digest_of_files

log = logging.getLogger(__name__)

SETTINGS: Final = ("real_only", "augmented", "synthetic_only", "released")
_DECIDE_NOTHING: Final = (
    "start",
    "per_device_batch_size",
    "generate_batch_size",
    "checkpoint_every",
    "image_memory",
    "gradient_checkpointing",
)
"""Settings that change no weight and no report. The content of `start` enters by its digest."""


@dataclass(frozen=True)
class _Data:
    """All data, which are read before the network."""

    pairs: Pairs
    n_real: int
    validation: Pairs
    test: Pairs


@dataclass(frozen=True)
class _Training:
    """What all stages of a training have in common."""

    args: argparse.Namespace
    settings: ReporterSettings
    accelerator: Accelerator
    attempt: Attempt | None
    key: str
    network: Any
    tokens: ReportTokenizer
    data: _Data
    squares: Squares
    validation: Squares


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args, settings = _arguments(argv)
    accelerator = accelerator_of(args, settings.mixed_precision)
    check_processes(args.gpus, accelerator)
    plan = plan_of(args.setting, settings, deviations(args.protocol))
    folder = settings.start / plan.start
    check_start(folder)
    data = _read_data(args, settings, read_manifest(args.manifest))
    noted = noted_settings(args, settings, _DECIDE_NOTHING)
    noted |= {"plan": asdict(plan), "weights_sha256": sha256_of(folder)}
    key = run_key({**noted, "version": args.version}, data)

    tokens = _tokens(folder, settings)
    network = _load(folder, settings, plan.new_projector).to(accelerator.device)
    attempt = begin_attempt(args.progress, accelerator)
    fit = transform(folder)
    squares = Squares(data.pairs.items, fit, int(settings.image_memory * 2**30))
    validation = Squares(data.validation.items, fit)
    training = _Training(
        args, settings, accelerator, attempt, key, network, tokens, data, squares, validation
    )
    stages = [_train_stage(stage, training) for stage in plan.stages]
    merge_lora(network)
    if settings.gradient_checkpointing:
        network.activation_checkpointing_disable()
    prompts = tokens.prompts(data.test.indications, "v1")
    _warn_of_cut_indications(prompts)
    reports = generate_reports(
        network.to(PRECISIONS[settings.mixed_precision]),
        tokens,
        prompts,
        Squares(data.test.items, fit),
        batch_size=settings.generate_batch_size,
        max_new_tokens=settings.max_new_tokens,
        progress=args.progress,
        key=f"{key} in batches of {settings.generate_batch_size}",
        accelerator=accelerator,
        threads=args.threads,
    )
    if attempt is None:
        return
    run = {
        **described(args, noted, accelerator.device),
        "stages": stages,
        "n_train_real": data.n_real,
        "n_train_synthetic": len(data.pairs) - data.n_real,
        "n_real_asked_for": settings.real_images,
        "n_validation": len(data.validation),
        "n_test_with_indication": prompts.n_with_indication,
        "n_test_indications_cut": prompts.n_indications_cut,
    }
    columns: dict[str, Any] = {
        "image_id": data.test.ids,
        "patient_id": data.test.patients,
        "reference": data.test.reports,
        "generated": reports,
    }
    publish(args.output, columns, run, attempt)
    log.info("%d test images described", len(data.test))


def _load(folder: Path, settings: ReporterSettings, new_projector: bool) -> Any:
    """Load the LLaVA to train, on the CPU; a new projector gets newly initialised weights."""
    network = load_llava(folder, PRECISIONS[settings.mixed_precision])
    if new_projector:
        reset_projector(network, settings.seed)
    if settings.gradient_checkpointing:
        network.activation_checkpointing_enable({"use_reentrant": False})
    return network


def _tokens(folder: Path, settings: ReporterSettings) -> ReportTokenizer:
    config = read_llava_config(folder)
    image_token = int(config["image_token_index"])
    return ReportTokenizer(
        load_tokenizer(folder), image_token, image_tokens(config), settings.max_length
    )


def _train_stage(stage: Stage, training: _Training) -> dict[str, Any]:
    """Train one stage in place; return its settings, counts and curve for the run's record."""
    args, settings, accelerator = training.args, training.settings, training.accelerator
    tokens, data = training.tokens, training.data
    written = tokens.write(data.pairs.reports, data.pairs.indications, stage.form)
    _warn_of_cut_indications(written.prompts)
    if written.n_cut:
        log.warning("%d reports exceed %d tokens and are cut", written.n_cut, settings.max_length)
    if stage.name == "projector":
        parameters = train_projector_only(training.network)
    else:
        lora = LoraSettings(settings.lora_rank, settings.lora_alpha, settings.lora_dropout)
        parameters = add_lora(training.network, lora, settings.seed)
    world, rank = accelerator.num_processes, accelerator.process_index
    order = training_order(len(training.squares), stage.batch_size, settings.seed, rank, world)
    images = Ahead(
        training.squares,
        order,
        epochs=stage.epochs,
        threads=args.threads,
        ahead=4 * settings.per_device_batch_size,
    )
    rest = data.validation
    task = ReportTask(
        images,
        written,
        (training.validation, tokens.write(rest.reports, rest.indications, stage.form)),
        image_token=tokens.image_token,
        padding=tokens.eos,
        batch_size=settings.per_device_batch_size,
        threads=args.threads,
        device=accelerator.device,
    )
    history = train(
        StageNetwork(training.network),
        task,
        torch.optim.AdamW(parameters, lr=stage.learning_rate, weight_decay=settings.weight_decay),
        None,
        epochs=stage.epochs,
        batch_size=stage.batch_size,
        seed=settings.seed,
        attempt=training.attempt,
        stage=stage.name,
        key=f"{stage.name} {training.key}",
        accelerator=accelerator,
        label=f"{stage.name} of {args.setting}/{args.model}",
        schedule=warmup_then_cosine(settings.warmup_share),
        per_device_batch_size=settings.per_device_batch_size,
        checkpoint_every=settings.checkpoint_every,
        keep_best=False,
        max_grad_norm=settings.max_grad_norm,
    )
    images.close()
    accelerator.free_memory()
    return asdict(stage) | {
        "n_with_indication": written.prompts.n_with_indication,
        "n_indications_cut": written.prompts.n_indications_cut,
        "n_cut": written.n_cut,
        "curve": curve(history),
    }


def _warn_of_cut_indications(prompts: Prompts) -> None:
    if prompts.n_indications_cut:
        log.warning("%d indications are too long and are cut", prompts.n_indications_cut)


def _read_data(
    args: argparse.Namespace, settings: ReporterSettings, manifest: pd.DataFrame
) -> _Data:
    """Read the data of a setting for training, validation (which chooses nothing) and test."""
    test = real_pairs(reported(manifest), "report")
    if len(test) == 0:
        raise InputError(
            "no test image has a radiologist's report to compare with",
            args.manifest,
            "LLaVA-Rad's rule-based annotations are such reports",
        )
    real, synthetic, validation = concatenate([]), concatenate([]), concatenate([])
    if args.setting in ("real_only", "augmented"):
        real = drawn_real_pairs(manifest, settings.real_images, settings.draw_seed)
        if len(real) < settings.real_images:
            log.warning("only %d real images, not %d", len(real), settings.real_images)
    if args.setting in ("augmented", "synthetic_only"):
        synthetic = synthetic_pairs(args.shards, read_prompts(args.prompts), manifest)
    pairs = concatenate([real, synthetic])
    check_no_test_patient(pairs.patients, manifest)
    if len(pairs):
        rows = captioned(manifest, "validate")
        order = np.random.default_rng(settings.draw_seed).permutation(len(rows))
        validation = real_pairs(rows.iloc[np.sort(order[: settings.validation_images])])
    return _Data(pairs, len(real), validation, test)


def run_key(settings: dict[str, Any], data: _Data) -> str:
    """Return a digest of everything that the weights and reports depend on.

    Image files enter by name, size and time of change, synthetic images by their bytes.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for pairs in (data.pairs, data.validation, data.test):
        files = [item.path for item in pairs.items if item.data is None]
        digest.update(json.dumps([pairs.ids, pairs.reports, pairs.indications]).encode())
        digest.update(digest_of_files(files).encode())
        for item in pairs.items:
            digest.update(item.data or b"")
    return digest.hexdigest()


def _arguments(argv: list[str] | None) -> tuple[argparse.Namespace, ReporterSettings]:
    parser = train_parser(__doc__, SETTINGS, ReporterSettings)
    parser.add_argument("--version", type=int, default=1, help="version of the stage")
    args = parser.parse_args(argv)
    if (args.setting in ("augmented", "synthetic_only")) != bool(args.shards):
        parser.error("give --shards with augmented and synthetic_only, and with no other setting")
    return args, settings_of_flags(ReporterSettings, args, parser)


if __name__ == "__main__":
    run_script(main)
