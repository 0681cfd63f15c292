"""Attack a fine-tuned model: do its losses tell which radiographs it was trained on?

    python -m workflow_scripts.privacy.membership.score --model sd_v1_4 --protocol sound \\
        --family stable_diffusion --base weights/sd_v1_4 \\
        --checkpoint results/finetune/sd_v1_4/checkpoint --method full --size 512 \\
        --manifest results/cohort/manifest.parquet \\
        --copies results/cohort/identical_images.csv results/cohort/similar_images.csv \\
        --progress DIR \\
        --scores results/privacy/membership/sd_v1_4_scores.parquet \\
        --output results/privacy/membership/sd_v1_4.json --gpus 1

Members and non-members, the attacks and what is withheld: see candidates.py and values.py. Losses
are measured under the base checkpoint and under the fine-tuned one. Every measured batch is kept in
the progress folder; a killed job continues after the last one. The scores of each patient are for
their owner only.

Without --checkpoint the base is attacked itself: a model that came trained. Who its members are is
unknown, so the train split is taken for them, and the record says so. Whoever has fine-tuned such a
model gives the model as it came as --base, and as --checkpoint a folder laid out as that is (of
LLM-CXR an llmcxr*/ and the vqgan*/ that stayed the same).
"""

import argparse
import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of, whole_file
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import Record, provenance, write_record
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import Family
from workflow_scripts.finetune.layout import Base, add_base_flags
from workflow_scripts.finetune.lora import check_lora, load_lora
from workflow_scripts.finetune.settings import TrainSettings
from workflow_scripts.privacy.membership.candidates import (
    COPIES_HELP,
    draw_candidates,
    shown_in_training,
)
from workflow_scripts.privacy.membership.settings import (
    PRECISIONS,
    TRAINED_WITH,
    MembershipSettings,
)
from workflow_scripts.privacy.membership.values import (
    ATTACKS,
    PRESUMED,
    SCORES,
    attack_scores,
    membership_values,
    presumed_values,
)
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.settings import Settings

log = logging.getLogger(__name__)

_SCORED: Final = (*ATTACKS, *(f"base_{score}" for score in SCORES))

SCHEMA: Final = pa.schema(
    [
        ("image_id", pa.string()),
        ("patient_id", pa.string()),
        ("pair", pa.int32()),
        ("member", pa.bool_()),
        ("marked", pa.bool_()),
        ("words", pa.int32()),
        *[(name, pa.float64()) for name in _SCORED],
    ]
)
"""Of the table of scores, higher for "member"; those of the base checkpoint are `base_{score}`."""


def measure(
    family: Family,
    base: Base,
    checkpoint: Path | None,
    method: str,
    candidates: pd.DataFrame,
    size: int,
    precision: str,
    settings: MembershipSettings,
    progress: Path,
    label: str = "model",
    gpus: int = 0,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Return the losses of candidates under the base and the fine-tuned checkpoint.

    Args:
        family: of the model, with its options of training chosen.
        base: the checkpoint before fine-tuning, or a model that came trained.
        checkpoint: what fine-tuning made: a folder laid out as the base is, or an adapter's; None
            for a model that came trained.
        method: `full` or `lora`.
        candidates: see `draw_candidates`.
        size: side of the images in training, in pixels.
        precision: of training: `no`, `bf16` or `fp16`.
        settings: noise levels, seeds and batches.
        progress: folder of measured batches; the caller removes it.
        label: the model's key, for the log.
        gpus: 0 for the CPU.
        threads: of torch.

    Returns:
        `base` and `tuned`: float32 (n, passes, 3), see `image_losses`; `base` alone of a model
        that came trained.

    Raises:
        InputError: an unusable checkpoint or image; another attempt took over.
    """
    files = {base.component_of(path) or path.name: path for path in family.check(base)}
    checkpoints = {"base": base}
    tuned_files: dict[str, Path] = {}
    if checkpoint and method == "lora":
        if not family.lora_positions:
            raise InputError(
                f"{family.name} has no adapters by LoRA here",
                "--method",
                "give the whole fine-tuned checkpoint, with its adapter merged, and --method full",
            )
        checkpoints["tuned"] = base
        tuned_files = {"lora": check_lora(checkpoint)}
    elif checkpoint:
        checkpoints["tuned"] = tuned = Base(checkpoint, {})
        tuned_files = {tuned.component_of(p) or p.name: p for p in family.check(tuned)}
    digest = _digest(
        {
            "family": family.identity,
            "base": {place: sha256_of(path) for place, path in files.items()},
            "tuned": {place: sha256_of(path) for place, path in tuned_files.items()},
            "images": candidates[["image_id", "caption"]].to_numpy().tolist(),
            "settings": {**asdict(settings), "size": size, "precision": precision},
            "gpu": gpus > 0,
        }
    )
    starts = range(0, len(candidates), settings.batch_size)
    parts = {which: [f"{which}-{digest}-{k:06d}.npy" for k in starts] for which in checkpoints}
    attempt = Attempt(progress)
    attempt.inherit()
    done = sum((attempt.folder / name).exists() for names in parts.values() for name in names)
    batches = len(checkpoints) * len(starts)
    shown = Progress(f"membership, {label}", batches, "batches", done=done)
    for which, where in checkpoints.items():
        missing = [k for k, n in enumerate(parts[which]) if not (attempt.folder / n).exists()]
        if not missing:
            continue
        adapter = checkpoint if which == "tuned" and method == "lora" else None
        how, pipeline = _placed(
            family, where, adapter, method, size, precision, settings, gpus, threads
        )
        from workflow_scripts.privacy.membership.losses import image_losses

        for k in missing:
            rows = candidates.iloc[starts[k] : starts[k] + settings.batch_size]
            found = image_losses(
                family, pipeline, rows["path"].tolist(), rows["caption"].tolist(), how
            )
            _require_finite(found, rows, which)
            with attempt.writing() as folder:
                _write(folder / parts[which][k], found)
            shown.update()
        del pipeline
    attempt.check()
    return {
        which: np.concatenate([np.load(attempt.folder / name) for name in parts[which]])
        for which in checkpoints
    }


def _placed(
    family: Family,
    where: Base,
    adapter: Path | None,
    method: str,
    size: int,
    precision: str,
    settings: MembershipSettings,
    gpus: int,
    threads: int,
) -> tuple[Any, Any]:
    """Return how to measure, and the pipeline on its device, as training computes with it."""
    import torch

    from workflow_scripts.common.devices import pick_device
    from workflow_scripts.privacy.membership.losses import Measuring, loaded_as_trained

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    device = pick_device(gpus)
    dtype = getattr(torch, PRECISIONS[precision])
    pipeline = loaded_as_trained(family, where, method, dtype)
    if adapter:
        load_lora(family, pipeline, adapter)
    family.check_size(pipeline, size)
    pipeline.to(device)
    family.network(pipeline).eval()
    return Measuring(size, settings.noise_levels, settings.seeds, dtype), pipeline


def _require_finite(losses: np.ndarray, rows: pd.DataFrame, which: str) -> None:
    bad = ~np.isfinite(losses[..., :2]).all(axis=(1, 2))
    if bad.any():
        raise InputError(
            f"{bad.sum()} images have a loss that is not finite under the {which} checkpoint: "
            + ", ".join(rows["image_id"][bad][:5]),
            "privacy.membership",
            "look at the checkpoint (a training that diverged), or train in bf16",
        )


def _write(path: Path, losses: np.ndarray) -> None:
    with whole_file(path, make_parents=False) as temporary, temporary.open("wb") as stream:
        np.save(stream, losses)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def main(argv: list[str] | None = None) -> None:
    """Attack one model from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="the model's key in the config")
    parser.add_argument("--protocol", required=True, choices=PROTOCOLS)
    parser.add_argument("--family", required=True)
    add_base_flags(parser)
    parser.add_argument(
        "--checkpoint", type=Path, help="what fine-tuning made; none of a model that came trained"
    )
    add_flags(parser, TrainSettings, only=TRAINED_WITH)
    parser.add_argument("--manifest", required=True, type=Path)
    parser.add_argument("--copies", nargs="*", default=[], type=Path, help=COPIES_HELP)
    add_flags(parser, MembershipSettings)
    add_flags(parser, Settings, only=("seed",))
    parser.add_argument("--progress", required=True, type=Path, help="folder of measured batches")
    parser.add_argument("--scores", required=True, type=Path, help="for its owner only")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--gpus", default=0, type=int)
    parser.add_argument("--threads", default=1, type=int)
    flags = parser.parse_args(argv)
    settings = settings_of_flags(MembershipSettings, flags, parser)
    family = get_family(flags.family).trained_with(dict(flags.option))
    copied = shown_in_training(flags.copies)
    manifest = read_manifest(flags.manifest)
    candidates = draw_candidates(manifest, settings.images, flags.seed, copied)
    losses = measure(
        family,
        Base(flags.base, dict(flags.part)),
        flags.checkpoint,
        flags.method,
        candidates,
        flags.size,
        flags.mixed_precision,
        settings,
        flags.progress,
        flags.model,
        flags.gpus,
        flags.threads,
    )
    if flags.checkpoint:
        members = "known"
        scores = attack_scores(losses["base"], losses["tuned"])
        values, checked = membership_values(candidates, scores)
    else:
        members = PRESUMED
        values, checked, scores = presumed_values(candidates, losses["base"])
    from workflow_scripts.common.devices import device_name, pick_device

    record = Record(
        stage="privacy",
        model=flags.model,
        family="membership",
        protocol=flags.protocol,
        values=values,
        details={
            "members": members,
            "pairs": len(candidates) // 2,
            "copied_patients": len(copied),
            **asdict(settings),
            **checked,
        },
        provenance=provenance(
            {"seed": flags.seed, "size": flags.size, **asdict(settings)},
            device_name(pick_device(flags.gpus)),
        ),
    )
    # What a model that came trained has no score for is empty.
    columns = {name: scores.get(name, np.nan) for name in _SCORED}
    write_private_table(candidates.assign(**columns), SCHEMA, flags.scores)
    write_record(record, flags.output)
    Attempt(flags.progress).end()
    for value in values:
        if value.subset == "all":
            log.info("%s: %s %s (n %d)", flags.model, value.metric, value.value, value.n)


if __name__ == "__main__":
    run_script(main)
